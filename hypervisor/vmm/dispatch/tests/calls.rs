//! SMCCC and PSCI calls on the hot path: what is answered at once is what is answered at length.

use proptest::prelude::*;
use psci::{Quick, ReturnCode, id};

use crate::dispatch::hot::{Hot, feature_register, hypercall, quick_hypercall, system};
use crate::exit::{Syndrome, class, system_register};
use crate::vm::Kicks;
use crate::vm::context::Owner;
use crate::vm::tests::fixture::{BOOT_VCPUS, Bench, RAM};
use types::address::GuestPhys;

const fn hvc(immediate: u64) -> Syndrome {
    Syndrome::new(class::HVC64 << 26 | 1 << 25 | immediate)
}

/// Makes a call of a bench's vCPU; returns how it goes on and x0 to x3.
fn call(bench: &mut Bench, arguments: &[u64]) -> (Hot, [u64; 4]) {
    bench.registers(arguments);
    let mut kicks = Kicks::NONE;
    let frame = &mut bench.context.frame;
    let hot = hypercall(bench.vm, frame, hvc(0), &mut kicks);
    bench.kicks = kicks;
    let [x0, x1, x2, x3] = frame.x[..4] else {
        panic!("there are 31 registers")
    };
    (hot, [x0, x1, x2, x3])
}

/// Function ids: those of PSCI in both widths, those of SMCCC and its owners, and any others.
fn function() -> impl Strategy<Value = u64> {
    let psci = (0..0x20_u32, any::<bool>())
        .prop_map(|(number, wide)| 0x8400_0000 | number | if wide { id::SMC64 } else { 0 });
    let service = prop_oneof![
        Just(id::SMCCC_VERSION),
        Just(id::SMCCC_ARCH_FEATURES),
        Just(id::VENDOR_HYP_CALL_UID),
        Just(id::VENDOR_HYP_REVISION),
        Just(id::PV_TIME_FEATURES),
        any::<u32>(),
    ];
    let junk = prop_oneof![
        Just(0_u64),
        any::<u32>().prop_map(|high| u64::from(high) << 32)
    ];
    (prop_oneof![4 => psci, 2 => service], junk)
        .prop_map(|(function, junk)| u64::from(function) | junk)
}

proptest! {
    #[test]
    fn the_short_answer_is_the_long_one(
        function in function(),
        target in prop_oneof![0..10_u64, any::<u64>()],
        level in prop_oneof![Just(0_u64), 0..3_u64, any::<u64>()],
        immediate in prop_oneof![9 => Just(0_u64), 1 => 0..0x1_0000_u64],
    ) {
        let mut bench = Bench::new();
        let before = bench.registers(&[function, target, level, 0]);
        let quick = quick_hypercall(bench.vm, &bench.context.frame, hvc(immediate));
        prop_assert_eq!(bench.context.frame.x, before.x, "it only looks");
        let mut kicks = Kicks::NONE;
        let hot = hypercall(bench.vm, &mut bench.context.frame, hvc(immediate), &mut kicks);
        match quick {
            Quick::Answer(x0) => {
                prop_assert_eq!((hot, bench.context.frame.x[0]), (Hot::Resume, x0));
                prop_assert_eq!(&bench.context.frame.x[1..], &before.x[1..]);
                prop_assert!(kicks == Kicks::NONE);
            }
            Quick::CpuOff => prop_assert_eq!(hot, Hot::Off),
            Quick::CpuOn => prop_assert_eq!(hot, Hot::Resume),
            _ => {}
        }
    }

    #[test]
    fn a_feature_register_reads_the_same_on_both_ways(crm in 0..8_u32, op2 in 0..8_u32, rt in 0..16_u32) {
        let register = system_register(3, 0, 0, crm, op2);
        let syndrome = Syndrome::new(class::SYSTEM << 26 | u64::from(register | rt << 5 | 1));
        let (mut short, mut long) = (Bench::new(), Bench::new());
        short.registers(&[]);
        long.registers(&[]);
        feature_register(short.vm, &mut short.context.frame, syndrome);
        let (hot, _) = long.trap(|trap, context| system(trap, &mut context.frame, syndrome));
        prop_assert_eq!(hot, Hot::Advance);
        prop_assert_eq!(short.context.frame.x, long.context.frame.x);
    }
}

#[test]
fn affinity_info_in_32_bits_takes_the_low_half_of_its_target() {
    let mut bench = Bench::new();
    let junk = 0xdead_beef << 32;
    for (target, x0) in [(0, 0), (1, 1), (8, ReturnCode::InvalidParameters.as_x0())] {
        bench.registers(&[u64::from(id::AFFINITY_INFO), junk | target, junk, 0]);
        let quick = quick_hypercall(bench.vm, &bench.context.frame, hvc(0));
        assert!(
            matches!(quick, Quick::Answer(answer) if answer == x0),
            "{target}"
        );
    }
    bench.registers(&[u64::from(id::AFFINITY_INFO | id::SMC64), junk, 0, 0]);
    let quick = quick_hypercall(bench.vm, &bench.context.frame, hvc(0));
    let none = ReturnCode::InvalidParameters.as_x0();
    assert!(matches!(quick, Quick::Answer(answer) if answer == none));
}

#[test]
fn node_hw_state_tells_a_cpu_that_is_on_from_one_that_is_not() {
    let mut bench = Bench::new();
    let (_, _) = call(&mut bench, &[u64::from(id::CPU_ON), 1, RAM, 0]);
    assert!(bench.vm.vcpus[1].power.start().is_some());
    let none = ReturnCode::InvalidParameters.as_x0();
    for (target, level, x0) in [
        (0, 0, psci::HW_ON),
        (1, 0, psci::HW_ON),
        (2, 0, psci::HW_OFF),
        (u64::from(BOOT_VCPUS), 0, psci::HW_OFF),
        (8, 0, none),
        (0, 1, none),
    ] {
        let state = [u64::from(id::NODE_HW_STATE | id::SMC64), target, level];
        let (hot, [answer, ..]) = call(&mut bench, &state);
        assert_eq!((hot, answer), (Hot::Resume, x0), "{target} {level}");
    }
}

#[test]
fn a_guest_is_told_where_it_reads_what_is_stolen_from_each_vcpu() {
    let mut bench = Bench::new();
    let features = [u64::from(id::PV_TIME_FEATURES), u64::from(id::PV_TIME_ST)];
    assert_eq!(call(&mut bench, &features).1[0], 0);
    let ask = [u64::from(id::PV_TIME_ST)];
    assert_eq!(call(&mut bench, &ask).1[0], psci::NOT_SUPPORTED, "no vCPU");
    for vcpu in [1, 2] {
        let vcpu = &bench.vm.vcpus[vcpu];
        let usage = &vcpu.usage;
        usage.steal(100);
        assert!(!usage.is_guest_told());
        bench.context.frame.owner = Some(Owner { vm: bench.vm, vcpu });
        let (hot, [x0, ..]) = call(&mut bench, &ask);
        assert_eq!(hot, Hot::Resume);
        let room = bench.vm.layout.stolen_time;
        assert_eq!(x0, room.base.get() + 64 * u64::from(vcpu.id.get()));
        assert!(!bench.vm.is_ram(GuestPhys::new(x0)));
        assert_eq!(bench.vm.stolen_time.read_ns(vcpu.id.get()), 1600);
        assert!(usage.is_guest_told());
    }
    assert_eq!(bench.vm.stolen_time.read_ns(0), 0);
}

#[test]
fn the_hypervisor_says_who_it_is_in_four_words() {
    let mut bench = Bench::new();
    let (hot, words) = call(&mut bench, &[u64::from(id::VENDOR_HYP_CALL_UID), 1, 2, 3]);
    assert_eq!(hot, Hot::Resume);
    // The UUID cf7aba11-5476-4882-a6bb-cfdb8b93d2cc, byte by byte from the low end of each word (DEN0028, 6.2).
    let bytes = words.map(|word| u32::try_from(word).unwrap().to_le_bytes());
    let uuid = [
        0xcf, 0x7a, 0xba, 0x11, 0x54, 0x76, 0x48, 0x82, 0xa6, 0xbb, 0xcf, 0xdb, 0x8b, 0x93, 0xd2,
        0xcc,
    ];
    assert_eq!(bytes.concat(), uuid);
    let before = bench.registers(&[]);
    assert_eq!(bench.context.frame.x[4..], before.x[4..]);
    let (hot, words) = call(&mut bench, &[u64::from(id::VENDOR_HYP_REVISION), 9, 9, 9]);
    assert_eq!((hot, words[2..].to_vec()), (Hot::Resume, [0, 0].to_vec()));
}

#[test]
fn a_call_that_ends_the_vcpus_turn_says_so_and_changes_nothing() {
    let suspend = u64::from(id::CPU_SUSPEND | id::SMC64);
    for (arguments, goes_on) in [
        ([u64::from(id::CPU_OFF), 0, 0, 0], Hot::Off),
        ([suspend, 0, RAM, 5], Hot::Standby),
        ([suspend, 1 << 16, RAM, 5], Hot::Leave),
        ([u64::from(id::SYSTEM_OFF), 0, 0, 0], Hot::Leave),
        ([u64::from(id::SYSTEM_RESET), 0, 0, 0], Hot::Leave),
    ] {
        let mut bench = Bench::new();
        assert_eq!(call(&mut bench, &arguments), (goes_on, arguments));
        assert!(bench.kicked().is_empty());
    }
}
