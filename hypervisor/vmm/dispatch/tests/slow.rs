//! Traps that end elsewhere.

use super::{CM, ISV, S1PTW, TRANSLATION, WNR};
use crate::dispatch::inject::Exception;
use crate::dispatch::slow::{Exit, Next, synchronous};
use crate::exit::{Syndrome, class};
use crate::vm::context::PSTATE_EL1_MASKED;
use crate::vm::tests::fixture::{Bench, RAM};
use proptest::prelude::*;
use psci::{EntryPoint, ReturnCode, id};

const PC: u64 = RAM + 0x100;
const HOTPLUG: u64 = 0x090c_0000;
const UNMAPPED: u64 = 0x0b00_0000;
const FAR: u64 = 0xffff_8000_1234_5678;

fn exit(bench: &mut Bench, class: u64, iss: u64, address: u64) -> Next {
    bench.context.frame.pc = PC;
    let exit = Exit {
        syndrome: Syndrome::new(class << 26 | 1 << 25 | iss),
        far: FAR,
        address,
    };
    bench.trap(|trap, context| synchronous(trap, context, exit))
}

fn advanced(bench: &Bench) -> bool {
    match bench.context.frame.pc {
        PC => false,
        pc if pc == PC + 4 => true,
        pc => panic!("pc {pc:#x}"),
    }
}

/// Classes that something is done about; of everything else the guest learns that it does not exist.
const KNOWN: [u64; 7] = [
    class::WFX,
    class::FP,
    class::HVC64,
    class::SMC64,
    class::SYSTEM,
    class::INSTRUCTION_ABORT,
    class::DATA_ABORT,
];

#[test]
fn a_class_nobody_expects_is_undefined_to_the_guest() {
    for unknown in (0..0x40).filter(|class| !KNOWN.contains(class)) {
        for iss in [0, 0x1ff_ffff, 0x15a_5a5a] {
            let mut bench = Bench::new();
            let before = bench.registers(&[]);
            let next = exit(&mut bench, unknown, iss, UNMAPPED);
            assert_eq!(
                next,
                Next::Inject(Exception::undefined()),
                "class {unknown:#x}"
            );
            assert_eq!(bench.context.frame.x, before.x);
            assert!(!advanced(&bench), "ELR is at the instruction");
        }
    }
}

#[test]
fn waiting_by_table() {
    let mut bench = Bench::new();
    assert_eq!(exit(&mut bench, class::WFX, 0, 0), Next::Block);
    assert!(advanced(&bench), "behind the WFI when it ends");
    for iss in [1, 2, 3] {
        assert_eq!(
            exit(&mut bench, class::WFX, iss, 0),
            Next::WaitForEvent { timed: iss != 1 },
            "WFE, WFIT, WFET"
        );
        assert!(advanced(&bench) == (iss == 0), "whoever acts steps over it");
    }
}

#[test]
fn what_is_stepped_over_counts_as_a_step_of_a_debugger() {
    const SS: u64 = 1 << 21;
    let version = u64::from(id::PSCI_VERSION);
    let table = [(class::WFX, 0), (class::SMC64, 0), (class::HVC64, SS)];
    for (class, left) in table {
        let mut bench = Bench::new();
        bench.registers(&[version, 0, 0, 0]);
        bench.context.frame.pstate = PSTATE_EL1_MASKED | SS;
        let _ = exit(&mut bench, class, 0, 0);
        let pstate = bench.context.frame.pstate;
        assert_eq!(pstate, PSTATE_EL1_MASKED | left, "class {class:#x}");
    }
}

#[test]
fn calls_by_table() {
    let smc64 = u64::from(id::SMC64);
    let suspend = |depth: u64| [u64::from(id::CPU_SUSPEND) | smc64, depth, RAM + 64, 5];
    let table: [([u64; 4], Next); 7] = [
        ([u64::from(id::CPU_OFF), 0, 0, 0], Next::Off),
        ([u64::from(id::SYSTEM_OFF), 0, 0, 0], Next::SystemOff),
        ([u64::from(id::SYSTEM_RESET), 0, 0, 0], Next::SystemReset),
        (
            [u64::from(id::SYSTEM_RESET2) | smc64, 0, 0, 0],
            Next::SystemReset,
        ),
        (suspend(0), Next::Block),
        (suspend(1 << 16), Next::Block),
        (
            [u64::from(control_plane::clock::calls::GET_TIME), 0, 0, 0],
            Next::Vendor,
        ),
    ];
    for (arguments, next) in table {
        for (class, by_smc) in [(class::HVC64, false), (class::SMC64, true)] {
            let mut bench = Bench::new();
            bench.registers(&arguments);
            assert_eq!(exit(&mut bench, class, 0, 0), next, "{arguments:#x?}");
            assert_eq!(
                advanced(&bench),
                by_smc,
                "an SMC is not stepped over by hardware"
            );
        }
    }
}

#[test]
fn a_suspended_vcpu_begins_where_it_said_or_is_refused() {
    let call = u64::from(id::CPU_SUSPEND | id::SMC64);
    let mut bench = Bench::new();
    bench.registers(&[call, 1 << 16, RAM + 64, 5]);
    assert_eq!(exit(&mut bench, class::HVC64, 0, 0), Next::Block);
    let entry = EntryPoint {
        address: RAM + 64,
        context_id: 5,
    };
    assert_eq!(bench.context.suspended, Some(entry));
    for address in [0, RAM + 2, RAM - 4, !3, HOTPLUG] {
        let mut bench = Bench::new();
        bench.registers(&[call, 1 << 16, address, 5]);
        assert_eq!(exit(&mut bench, class::HVC64, 0, 0), Next::Resume);
        assert_eq!(
            bench.context.frame.x[0],
            ReturnCode::InvalidAddress.as_x0(),
            "{address:#x}"
        );
        assert_eq!(bench.context.suspended, None);
    }
}

proptest! {
    #[test]
    fn a_call_nobody_knows_is_not_supported_and_changes_nothing_else(unknown in any::<u32>(), junk in any::<u32>()) {
        // Every owner but Arm, the standard services and Bullpen's own.
        prop_assume!(!matches!(unknown >> 24 & 0x3f, 0 | 4 | 6));
        let mut bench = Bench::new();
        let before = bench.registers(&[u64::from(junk) << 32 | u64::from(unknown)]);
        prop_assert_eq!(exit(&mut bench, class::SMC64, 0, 0), Next::Resume);
        prop_assert!(advanced(&bench), "an SMC is not stepped over by the hardware");
        prop_assert_eq!(bench.context.frame.x[0], u64::MAX);
        prop_assert_eq!(&bench.context.frame.x[1..], &before.x[1..]);
        bench.registers(&[u64::from(id::PSCI_VERSION)]);
        prop_assert_eq!(exit(&mut bench, class::SMC64, 7, 0), Next::Resume);
        prop_assert_eq!(bench.context.frame.x[0], u64::MAX, "its immediate is not zero");
    }
}

#[test]
fn an_access_to_nothing_is_an_external_abort() {
    const EL0: u64 = 0;
    const EL0_32_BIT: u64 = 0x10;
    let plain = ISV | 2 << 22 | TRANSLATION;
    // ISS, PSTATE, and class, WnR and status that the guest finds.
    let table = [
        (plain, PSTATE_EL1_MASKED, 0x25, 0x10),
        (plain | WNR, PSTATE_EL1_MASKED, 0x25, WNR | 0x10),
        (plain, EL0, 0x24, 0x10),
        (plain, EL0_32_BIT, 0x24, 0x10),
        (TRANSLATION, PSTATE_EL1_MASKED, 0x25, 0x10),
        (TRANSLATION | WNR, EL0, 0x24, WNR | 0x10),
        (S1PTW | TRANSLATION, EL0, 0x24, 0x16),
        (S1PTW | WNR | 0x0f, PSTATE_EL1_MASKED, 0x25, WNR | 0x17),
        (plain & !0x3f, PSTATE_EL1_MASKED, 0x25, 0x10),
        (plain & !0x3f | 0x10, PSTATE_EL1_MASKED, 0x25, 0x10),
    ];
    for (iss, pstate, class, status) in table {
        let mut bench = Bench::new();
        let before = bench.registers(&[]);
        bench.context.frame.pstate = pstate;
        let Next::Inject(exception) = exit(&mut bench, class::DATA_ABORT, iss, UNMAPPED) else {
            panic!("{iss:#x} is not injected");
        };
        assert_eq!(exception.esr, class << 26 | 1 << 25 | status, "{iss:#x}");
        assert_eq!(exception.far, Some(FAR));
        assert_eq!(bench.context.frame.x, before.x);
        assert!(!advanced(&bench));
    }
}

#[test]
fn an_instruction_from_nothing_is_an_external_abort() {
    for (pstate, class) in [(PSTATE_EL1_MASKED, 0x21), (0, 0x20)] {
        let mut bench = Bench::new();
        bench.context.frame.pstate = pstate;
        let next = exit(&mut bench, class::INSTRUCTION_ABORT, TRANSLATION, HOTPLUG);
        let esr = class << 26 | 1 << 25 | 0x10;
        let far = Some(FAR);
        assert_eq!(next, Next::Inject(Exception { esr, far }));
    }
}

#[test]
fn cache_maintenance_of_what_is_not_memory_does_nothing() {
    let mut bench = Bench::new();
    for address in [UNMAPPED, HOTPLUG, 0] {
        let iss = CM | WNR | TRANSLATION;
        assert_eq!(
            exit(&mut bench, class::DATA_ABORT, iss, address),
            Next::Advance
        );
    }
}
