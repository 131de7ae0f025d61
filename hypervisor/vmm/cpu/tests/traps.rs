//! Exits that the hot path leaves, by table: what is said to which side, where the guest goes on, and how the exit is counted.

use alloc::vec::Vec;

use super::fake::{Act, MAINTENANCE, System, guest};
use super::{rounds, with};
use crate::devices::{Answer, Work};
use crate::dispatch::slow::Exit;
use crate::exit::{Syndrome, class, system_register};
use crate::vm::Vm;
use types::stats::ExitReason;

const ENTRY: u64 = 0x4000_0000;
const NOTHING: u64 = 0x0b00_0000;
const FAR: u64 = 0xffff_8000_0000_0000;
/// IL, and of an abort ISV, a word, and a translation fault at level 2.
const IL: u64 = 1 << 25;
const WORD: u64 = 1 << 24 | 2 << 22 | 6;
const NOT_SUPPORTED: u64 = u64::MAX;
const VERSION: [u64; 4] = [psci::id::PSCI_VERSION as u64, 0, 0, 0];
const NO_CALL: [u64; 4] = [0x8400_00ff, 1, 2, 3];

/// An exit, and what it comes to.
struct Case {
    act: Act,
    says: &'static [&'static str],
    /// Where the guest goes on, from its entry point, and x0 there.
    at: u64,
    x0: u64,
    reason: ExitReason,
}

fn trap(class: u64, iss: u64, address: u64, x: [u64; 4]) -> Act {
    let exit = Exit {
        syndrome: Syndrome::new(class << 26 | IL | iss),
        far: FAR | address,
        address,
    };
    Act::Trap(exit, x)
}

const fn case(act: Act, says: &'static [&'static str], at: u64, x0: u64) -> Case {
    Case {
        act,
        says,
        at,
        x0,
        reason: ExitReason::Other,
    }
}

impl Case {
    fn counted(self, reason: ExitReason) -> Self {
        Self { reason, ..self }
    }
}

/// An access to a system register, by x0.
fn register(register: u32, is_read: bool, x0: u64) -> Act {
    let iss = u64::from(register) | u64::from(is_read);
    trap(class::SYSTEM, iss, 0, [x0, 0, 0, 0])
}

/// Returns how often vCPU 0 left for a reason.
fn count(vm: &Vm, reason: ExitReason) -> u64 {
    let exits = vm.vcpus[0].exits.snapshot();
    let mut all = exits.occurred().filter(|(why, _)| *why == reason);
    all.next().map_or(0, |(_, count)| count)
}

fn waits_and_calls() -> Vec<Case> {
    let vendor = [u64::from(control_plane::clock::calls::GET_TIME), 0, 0, 0];
    Vec::from([
        case(trap(class::WFX, 1, 0, [9; 4]), &[], 4, 9).counted(ExitReason::Wfe),
        case(trap(class::HVC64, 0, 0, NO_CALL), &[], 4, NOT_SUPPORTED).counted(ExitReason::Psci),
        case(trap(class::HVC64, 1, 0, VERSION), &[], 4, NOT_SUPPORTED).counted(ExitReason::Psci),
        case(
            trap(class::SMC64, 0, 0, VERSION),
            &[],
            4,
            u64::from(psci::PSCI_VERSION_1_3),
        )
        .counted(ExitReason::Psci),
        case(trap(class::HVC64, 0, 0, vendor), &["vendor"], 4, 7).counted(ExitReason::Psci),
        case(trap(0x0c, 0, 0, [9; 4]), &["exception 0x2000000"], 0, 9)
            .counted(ExitReason::Undefined),
    ])
}

fn registers() -> Vec<Case> {
    let system = |act, says, at, x0| case(act, says, at, x0).counted(ExitReason::SystemRegister);
    let set_way = system_register(1, 0, 7, 14, 2);
    let mdscr = system_register(2, 0, 0, 2, 2);
    let channel = system_register(2, 3, 0, 1, 0);
    Vec::from([
        system(
            register(system_register(3, 0, 15, 0, 0), true, 9),
            &["exception 0x2000000"],
            0,
            9,
        ),
        system(register(channel, true, 9), &[], 4, 0),
        system(
            register(system_register(3, 3, 9, 13, 0), true, 9),
            &["lends Lent(1)"],
            0,
            9,
        ),
        system(
            register(system_register(2, 0, 0, 0, 5), false, 9),
            &["lends Lent(2)"],
            0,
            9,
        ),
        system(register(mdscr, false, 0x1000), &["MDSCR 0x1000"], 4, 0x1000),
        system(register(set_way, false, 6), &["cleans 0x6"], 4, 6),
    ])
}

fn aborts() -> Vec<Case> {
    let abort = |iss, address, x0| trap(class::DATA_ABORT, iss, address, [x0, 0, 0, 0]);
    let case = |act, says, at, x0| case(act, says, at, x0).counted(ExitReason::Abort);
    Vec::from([
        case(abort(WORD, NOTHING, 9), &["exception 0x96000010"], 0, 9),
        case(abort(1 << 8 | 6, NOTHING, 9), &[], 4, 9),
        case(
            trap(class::INSTRUCTION_ABORT, 6, NOTHING, [9; 4]),
            &["exception 0x86000010"],
            0,
            9,
        ),
    ])
}

#[test]
fn exits_by_table() {
    for case in [waits_and_calls(), registers(), aborts()]
        .into_iter()
        .flatten()
    {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
        system.does((0, 0), &[case.act, Act::Spin(1)]);
        system.turn_on(vm, 0);
        rounds(&mut cpu, 1);
        let counted: Vec<_> = vm.vcpus[0].exits.snapshot().occurred().collect();
        rounds(&mut cpu, 1);
        let frame = system.frame((0, 0));
        let act = case.act;
        let says: Vec<_> = case
            .says
            .iter()
            .map(|what| alloc::format!("cpu0: {what}"))
            .collect();
        let heard = system.heard();
        let of_trap: Vec<_> = heard.iter().filter(|line| !line.contains("vm0")).collect();
        assert_eq!(of_trap, says.iter().collect::<Vec<_>>(), "{act:?}");
        assert_eq!(
            (frame.pc, frame.x[0]),
            (ENTRY + case.at, case.x0),
            "{act:?}"
        );
        assert_eq!(counted, [(case.reason, 1)], "{act:?}");
    }
}

#[test]
fn a_vm_is_asked_to_end_by_its_guest_and_named_with_its_reason() {
    for (id, says) in [
        (psci::id::SYSTEM_OFF, "cpu0: vm0 off: guest"),
        (psci::id::SYSTEM_RESET, "cpu0: vm0 reset: guest"),
    ] {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
        system.does(
            (0, 0),
            &[trap(class::HVC64, 0, 0, [u64::from(id), 0, 0, 0])],
        );
        system.turn_on(vm, 0);
        rounds(&mut cpu, 1);
        assert!(system.heard().iter().any(|line| line == says), "{says}");
    }
}

#[test]
fn what_a_device_leaves_to_be_done_is_done_once_before_its_guest_goes_on() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    let work = Work::Resize(Answer::Eject(vm.vcpus[0].id));
    system.does((0, 0), &[Act::Device(work), Act::Spin(1)]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 1);
    let told = alloc::format!("cpu0: vm0 {work:?}");
    assert_eq!(with(&system.heard(), "Eject"), [told]);
    rounds(&mut cpu, 2);
    assert!(with(&system.heard(), "Eject").is_empty());
}

#[test]
fn an_instruction_by_set_and_way_is_repeated_until_it_has_had_its_effect() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.sweeps.set(2);
    let clean = register(system_register(1, 0, 7, 14, 2), false, 6);
    system.does((0, 0), &[clean, clean, clean, Act::Spin(1)]);
    system.turn_on(vm, 0);
    for at in [0, 0, 0, 4] {
        rounds(&mut cpu, 1);
        assert_eq!(system.frame((0, 0)).pc, ENTRY + at);
    }
    assert_eq!(with(&system.heard(), "cleans 0x6").len(), 3);
}

#[test]
fn a_vcpu_that_only_faults_is_told_once_in_a_thousand() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.elr.set(ENTRY);
    let fault = trap(class::INSTRUCTION_ABORT, 6, NOTHING, [0; 4]);
    system.does((0, 0), &[fault; 1_001]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 999);
    assert!(with(&system.heard(), "stuck").is_empty());
    rounds(&mut cpu, 2);
    let stuck = "cpu0: vcpu0 stuck at 0x40000000";
    assert_eq!(with(&system.heard(), "stuck"), [stuck]);
}

#[test]
fn what_is_lent_to_a_vcpu_is_taken_back_when_it_turns_itself_off() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    let pmu = register(system_register(3, 3, 9, 13, 0), true, 0);
    system.does((0, 0), &[pmu, Act::Off]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 3);
    let heard = system.heard();
    assert_eq!(with(&heard, "takes"), ["cpu0: takes Lent(1) back"]);
    // One that uses nothing gives nothing back.
    system.does((0, 0), &[Act::Off]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 3);
    assert!(with(&system.heard(), "takes").is_empty());
}

#[test]
fn a_wfi_sleeps_only_if_nothing_is_there_that_ends_it() {
    let wfi = trap(class::WFX, 0, 0, [0; 4]);
    // What comes before the WFI, how the WFI comes out of the hot path, and whether it sleeps.
    for (before, wait, sleeps) in [
        (Act::Spin(1), wfi, true),
        (Act::Settled(guest::send_self), wfi, false),
        (Act::Spin(1), Act::Woken(40), true),
        (Act::Settled(guest::send_self), Act::Woken(40), false),
    ] {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
        system.does((0, 0), &[Act::Settled(guest::open), before, wait]);
        system.turn_on(vm, 0);
        rounds(&mut cpu, 3);
        assert_eq!(cpu.queue.current().is_none(), sleeps, "{before:?} {wait:?}");
        if matches!(wait, Act::Woken(_)) {
            let heard = system.heard();
            assert_eq!(with(&heard, " 40"), ["cpu0: device 40", "cpu0: ends 40"]);
            assert_eq!(count(vm, ExitReason::Maintenance), 1);
        }
    }
}

#[test]
fn every_sgi_arrives_once_however_few_list_registers_there_are() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.does(
        (0, 0),
        &[Act::Settled(guest::open), Act::Settled(guest::send_self)],
    );
    for _ in 0..8 {
        system.does(
            (0, 0),
            &[
                Act::Settled(guest::acknowledge),
                Act::Settled(guest::end),
                Act::Interrupted(MAINTENANCE),
            ],
        );
    }
    system.turn_on(vm, 0);
    rounds(&mut cpu, 26);
    let mut ended = cpu.machine.ended();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(count(vm, ExitReason::Maintenance), 8);
}
