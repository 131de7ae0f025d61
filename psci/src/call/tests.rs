//! The calls of the specifications by number, and what holds for every number.

extern crate std;

use super::{
    Answer, Call, EntryPoint, HYPERVISOR_UID, Offered, Quick, Reset, Suspend, Workaround,
    WorkaroundState, decode, quick,
};
use crate::smccc::{FunctionId, NOT_SUPPORTED, ReturnCode, id};
use proptest::prelude::*;
use std::vec::Vec;

// Functions that are not offered (PSCI DEN0022, SMCCC DEN0028).
const MIGRATE: u32 = 0x8400_0005;
const MIGRATE_INFO_UP_CPU: u32 = 0x8400_0007;
const CPU_FREEZE: u32 = 0x8400_000b;
const PSCI_SET_SUSPEND_MODE: u32 = 0x8400_000f;
const PSCI_STAT_RESIDENCY: u32 = 0x8400_0010;
const PSCI_STAT_COUNT: u32 = 0x8400_0011;
const MEM_PROTECT: u32 = 0x8400_0013;
const MEM_PROTECT_CHECK_RANGE: u32 = 0x8400_0014;
const SMCCC_ARCH_SOC_ID: u32 = 0x8000_0002;

/// Whose function a call names (DEN0028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// Arm architecture calls: SMCCC itself and errata workarounds.
    Architecture,
    /// CPU service calls.
    Cpu,
    /// Silicon provider.
    Sip,
    /// Board vendor.
    Oem,
    /// Standard secure services: PSCI and others.
    StandardSecure,
    /// Standard hypervisor services: paravirtualised time and others.
    StandardHypervisor,
    /// This hypervisor's own.
    VendorHypervisor,
    /// Trusted applications and trusted operating systems.
    Trusted,
    /// A number without a function.
    Reserved,
}

impl FunctionId {
    /// Returns whose function it is.
    const fn owner(self) -> Owner {
        match self.get() >> 24 & 0x3f {
            0 => Owner::Architecture,
            1 => Owner::Cpu,
            2 => Owner::Sip,
            3 => Owner::Oem,
            4 => Owner::StandardSecure,
            5 => Owner::StandardHypervisor,
            6 => Owner::VendorHypervisor,
            48..=63 => Owner::Trusted,
            _ => Owner::Reserved,
        }
    }
}

const NOTHING: Offered = Offered {
    workarounds: [WorkaroundState::Unknown; 3],
    pv_time: false,
    system_suspend: false,
};
const EVERYTHING: Offered = Offered {
    workarounds: [WorkaroundState::NotNeeded; 3],
    pv_time: true,
    system_suspend: true,
};

/// What a call finds in x1, x2 and x3: different in both halves, so that a wrong register or width shows.
const X1: u64 = 0x1111_0001_2222_0002;
const X2: u64 = 0x3333_0003_4444_0004;
const X3: u64 = 0x5555_0005_6666_0006;
const W1: u64 = 0x2222_0002;
const W2: u64 = 0x4444_0004;
const W3: u64 = 0x6666_0006;

const fn at(address: u64, context_id: u64) -> EntryPoint {
    EntryPoint {
        address,
        context_id,
    }
}

fn answer(id: u32, x1: u64, offered: &Offered) -> Option<Answer> {
    decode(u64::from(id), x1, 0, 0).immediate(offered)
}

fn features(function: u32, offered: &Offered) -> u64 {
    match answer(id::PSCI_FEATURES, u64::from(function), offered) {
        Some(Answer::One(x0)) => x0,
        other => panic!("{other:?}"),
    }
}

fn arch_features(function: u32, offered: &Offered) -> u64 {
    match answer(id::SMCCC_ARCH_FEATURES, u64::from(function), offered) {
        Some(Answer::One(x0)) => x0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn psci_functions_have_the_numbers_of_the_specification() {
    let cases = [
        (0x8400_0000, Call::Version),
        (0x8400_0002, Call::CpuOff),
        (
            0x8400_0003,
            Call::CpuOn {
                target: W1,
                entry: at(W2, W3),
            },
        ),
        (
            0xc400_0003,
            Call::CpuOn {
                target: X1,
                entry: at(X2, X3),
            },
        ),
        (0x8400_0006, Call::MigrateInfoType),
        (0x8400_0008, Call::SystemOff),
        (0x8400_0009, Call::SystemReset(Reset::Cold)),
        (0x8400_000a, Call::Features(FunctionId::new(W1 as u32))),
        (
            0x8400_000c,
            Call::CpuSuspend(Suspend::PowerDown(at(W1, W2))),
        ),
        (
            0xc400_000c,
            Call::CpuSuspend(Suspend::PowerDown(at(X1, X2))),
        ),
        (0x8400_000e, Call::SystemSuspend(at(W1, W2))),
        (0xc400_000e, Call::SystemSuspend(at(X1, X2))),
        (0x8000_0000, Call::SmcccVersion),
        (0x8000_0001, Call::ArchFeatures(FunctionId::new(W1 as u32))),
        (0x8000_8000, Call::ArchWorkaround(Workaround::One)),
        (0x8000_7fff, Call::ArchWorkaround(Workaround::Two)),
        (0x8000_3fff, Call::ArchWorkaround(Workaround::Three)),
        (0x8600_ff01, Call::HypervisorUid),
        (0x8600_ff03, Call::HypervisorRevision),
        (
            0xc500_0020,
            Call::PvTimeFeatures(FunctionId::new(W1 as u32)),
        ),
        (0xc500_0021, Call::PvTimeStolen),
    ];
    for (id, expected) in cases {
        assert_eq!(decode(id, X1, X2, X3), expected, "{id:#x}");
        assert_eq!(
            decode(0xdead_beef_0000_0000 | id, X1, X2, X3),
            expected,
            "only W0 counts"
        );
    }
}

#[test]
fn arguments_that_select_are_checked() {
    const HIGH: u64 = 1 << 63;
    let standby = Call::CpuSuspend(Suspend::Standby);
    let power_down = Call::CpuSuspend(Suspend::PowerDown(at(8, 9)));
    let cases = [
        ("standby", decode(0x8400_0001, 0, 8, 9), standby),
        (
            "power state is 32 bits",
            decode(0xc400_0001, HIGH, 8, 9),
            standby,
        ),
        ("power-down", decode(0x8400_0001, 1 << 16, 8, 9), power_down),
        (
            "power-down, 64 bits",
            decode(0xc400_0001, 1 << 16, 8, 9),
            power_down,
        ),
        (
            "power-down entry is wide",
            decode(0xc400_0001, 1 << 16, HIGH, 0),
            Call::CpuSuspend(Suspend::PowerDown(at(HIGH, 0))),
        ),
        (
            "unknown state id",
            decode(0xc400_0001, 1, 8, 9),
            Call::Invalid,
        ),
        (
            "power level 1",
            decode(0xc400_0001, 1 << 24, 8, 9),
            Call::Invalid,
        ),
        (
            "power level 3, power-down",
            decode(0xc400_0001, 3 << 24 | 1 << 16, 8, 9),
            Call::Invalid,
        ),
        (
            "reserved bit",
            decode(0xc400_0001, 1 << 31, 8, 9),
            Call::Invalid,
        ),
        (
            "affinity, 32 bits",
            decode(0x8400_0004, X1, 0, 0),
            Call::AffinityInfo { target: W1 },
        ),
        (
            "affinity, 64 bits",
            decode(0xc400_0004, X1, 0, 0),
            Call::AffinityInfo { target: X1 },
        ),
        (
            "affinity level is 32 bits",
            decode(0xc400_0004, 5, HIGH, 0),
            Call::AffinityInfo { target: 5 },
        ),
        (
            "affinity level 1",
            decode(0xc400_0004, 0, 1, 0),
            Call::Invalid,
        ),
        (
            "affinity level -1",
            decode(0x8400_0004, 0, u64::MAX, 0),
            Call::Invalid,
        ),
        (
            "node",
            decode(0x8400_000d, X1, 0, 0),
            Call::NodeHwState { target: W1 },
        ),
        (
            "node, 64 bits",
            decode(0xc400_000d, X1, 0, 0),
            Call::NodeHwState { target: X1 },
        ),
        (
            "node of level 1",
            decode(0xc400_000d, X1, 1, 0),
            Call::Invalid,
        ),
        (
            "warm reset",
            decode(0x8400_0012, 0, X2, 0),
            Call::SystemReset(Reset::Warm),
        ),
        (
            "warm reset, 64 bits",
            decode(0xc400_0012, 0, X2, 0),
            Call::SystemReset(Reset::Warm),
        ),
        (
            "a vendor's reset",
            decode(0xc400_0012, 1 << 31, 0, 0),
            Call::Invalid,
        ),
        (
            "a reserved reset",
            decode(0x8400_0012, 1, 0, 0),
            Call::Invalid,
        ),
        ("hibernate", decode(0x8400_0015, 1, 0, 0), Call::SystemOff),
        (
            "hibernate, older",
            decode(0xc400_0015, 0, 0, 0),
            Call::SystemOff,
        ),
        (
            "another kind of off",
            decode(0xc400_0015, 2, 0, 0),
            Call::Invalid,
        ),
        ("a cookie", decode(0xc400_0015, 1, HIGH, 0), Call::Invalid),
    ];
    for (name, call, expected) in cases {
        assert_eq!(call, expected, "{name}");
    }
}

#[test]
fn what_is_not_offered_is_unknown_and_said_to_be() {
    let functions = [
        MIGRATE,
        MIGRATE_INFO_UP_CPU,
        CPU_FREEZE,
        PSCI_SET_SUSPEND_MODE,
        PSCI_STAT_RESIDENCY,
        PSCI_STAT_COUNT,
        MEM_PROTECT,
        MEM_PROTECT_CHECK_RANGE,
    ];
    let also_64 = functions.map(|function| function | id::SMC64);
    // These exist in a 32-bit form only.
    let only_32 = [
        id::PSCI_VERSION,
        id::CPU_OFF,
        id::MIGRATE_INFO_TYPE,
        id::SYSTEM_OFF,
        id::SYSTEM_RESET,
        id::PSCI_FEATURES,
    ];
    let wrong_width = only_32.map(|function| function | id::SMC64);
    for function in functions.into_iter().chain(also_64).chain(wrong_width) {
        assert_eq!(
            decode(u64::from(function), 0, 0, 0),
            Call::Unknown,
            "{function:#x}"
        );
        assert_eq!(
            features(function, &EVERYTHING),
            NOT_SUPPORTED,
            "{function:#x}"
        );
    }
}

#[test]
fn features_are_said_as_the_specification_has_them() {
    let cases = [
        (id::PSCI_VERSION, 0),
        (id::CPU_SUSPEND, 0),
        (id::CPU_SUSPEND | id::SMC64, 0),
        (id::CPU_ON | id::SMC64, 0),
        (id::AFFINITY_INFO, 0),
        (id::SYSTEM_RESET2 | id::SMC64, 0),
        (id::SYSTEM_OFF2, 1),
        (id::SYSTEM_OFF2 | id::SMC64, 1),
        (id::SMCCC_VERSION, 0),
        (id::SMCCC_ARCH_FEATURES, NOT_SUPPORTED),
        (id::PV_TIME_ST, NOT_SUPPORTED),
        (id::VENDOR_HYP_CALL_UID, NOT_SUPPORTED),
        (0, NOT_SUPPORTED),
        (u32::MAX, NOT_SUPPORTED),
    ];
    for (function, expected) in cases {
        assert_eq!(features(function, &NOTHING), expected, "{function:#x}");
    }
    for function in [id::SYSTEM_SUSPEND, id::SYSTEM_SUSPEND | id::SMC64] {
        assert_eq!(features(function, &NOTHING), NOT_SUPPORTED);
        assert_eq!(features(function, &EVERYTHING), 0);
    }
}

/// The same for all functions near those that exist: said to be there exactly when calling it is not NOT_SUPPORTED.
#[test]
fn features_and_calls_agree() {
    let psci = (0x8400_0000..0x8400_0100_u32).chain(0xc400_0000..0xc400_0100);
    for function in psci {
        for offered in [&NOTHING, &EVERYTHING] {
            let called = answer(function, 0, offered);
            let offers_it = features(function, offered) != NOT_SUPPORTED;
            // PSCI_FEATURES itself, asked about function 0, says NOT_SUPPORTED of that one.
            if function != id::PSCI_FEATURES {
                assert_eq!(
                    offers_it,
                    called != Some(Answer::One(NOT_SUPPORTED)),
                    "{function:#x}"
                );
            }
        }
    }
    assert_ne!(features(id::PSCI_FEATURES, &NOTHING), NOT_SUPPORTED);
}

#[test]
fn constants_are_answered_at_once() {
    let cases = [
        (id::PSCI_VERSION, 0x1_0003),
        (id::SMCCC_VERSION, 0x1_0002),
        (id::MIGRATE_INFO_TYPE, 2),
        (0x8400_1234, u64::MAX),
    ];
    for (function, expected) in cases {
        assert_eq!(
            answer(function, 0, &NOTHING),
            Some(Answer::One(expected)),
            "{function:#x}"
        );
    }
    assert_eq!(
        Call::Invalid.immediate(&NOTHING),
        Some(Answer::One(-2_i64 as u64))
    );
    for function in [
        id::CPU_OFF,
        id::CPU_ON,
        id::SYSTEM_OFF,
        id::SYSTEM_RESET,
        id::CPU_SUSPEND,
        id::AFFINITY_INFO,
    ] {
        assert_eq!(
            answer(function, 0, &EVERYTHING),
            None,
            "{function:#x} needs the VM"
        );
    }
}

#[test]
fn the_identity_is_our_uuid_in_the_order_of_the_specification() {
    let text = "cf7aba11-5476-4882-a6bb-cfdb8b93d2cc".replace('-', "");
    let bytes: Vec<u8> = (0..16)
        .map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).expect("a hex digit"))
        .collect();
    let words: Vec<u32> = bytes
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
        .collect();
    assert_eq!(words, HYPERVISOR_UID);
    assert_ne!(
        HYPERVISOR_UID[0],
        u32::MAX,
        "it would read as NOT_SUPPORTED"
    );
    let expected = HYPERVISOR_UID.map(u64::from);
    assert_eq!(
        answer(id::VENDOR_HYP_CALL_UID, 0, &NOTHING),
        Some(Answer::Four(expected))
    );
}

#[test]
fn workarounds_follow_what_is_known_of_the_cpu() {
    const NEEDED: Offered = Offered {
        workarounds: [WorkaroundState::Needed; 3],
        ..NOTHING
    };
    for function in [
        id::SMCCC_ARCH_WORKAROUND_1,
        id::SMCCC_ARCH_WORKAROUND_2,
        id::SMCCC_ARCH_WORKAROUND_3,
    ] {
        let cases = [
            (&NOTHING, NOT_SUPPORTED, Some(Answer::One(NOT_SUPPORTED))),
            (&NEEDED, 0, None),
            (&EVERYTHING, 1, Some(Answer::One(0))),
        ];
        for (offered, said, called) in cases {
            assert_eq!(
                arch_features(function, offered),
                said,
                "{function:#x} {offered:?}"
            );
            assert_eq!(
                answer(function, 0, offered),
                called,
                "{function:#x} {offered:?}"
            );
        }
    }
    let only_two = Offered {
        workarounds: [
            WorkaroundState::Unknown,
            WorkaroundState::Needed,
            WorkaroundState::Unknown,
        ],
        ..NOTHING
    };
    assert_eq!(
        arch_features(id::SMCCC_ARCH_WORKAROUND_1, &only_two),
        NOT_SUPPORTED
    );
    assert_eq!(arch_features(id::SMCCC_ARCH_WORKAROUND_2, &only_two), 0);
    assert_eq!(
        arch_features(id::SMCCC_ARCH_WORKAROUND_3, &only_two),
        NOT_SUPPORTED
    );
    assert_eq!(arch_features(SMCCC_ARCH_SOC_ID, &EVERYTHING), NOT_SUPPORTED);
    assert_eq!(arch_features(id::SMCCC_ARCH_FEATURES, &NOTHING), 0);
}

#[test]
fn stolen_time_is_there_only_if_offered() {
    assert_eq!(arch_features(id::PV_TIME_FEATURES, &NOTHING), NOT_SUPPORTED);
    assert_eq!(arch_features(id::PV_TIME_FEATURES, &EVERYTHING), 0);
    for about in [id::PV_TIME_FEATURES, id::PV_TIME_ST] {
        let about = u64::from(about);
        assert_eq!(
            answer(id::PV_TIME_FEATURES, about, &NOTHING),
            Some(Answer::One(NOT_SUPPORTED))
        );
        assert_eq!(
            answer(id::PV_TIME_FEATURES, about, &EVERYTHING),
            Some(Answer::One(0))
        );
    }
    assert_eq!(
        answer(id::PV_TIME_FEATURES, 7, &EVERYTHING),
        Some(Answer::One(NOT_SUPPORTED))
    );
    assert_eq!(
        answer(id::PV_TIME_ST, 0, &NOTHING),
        Some(Answer::One(NOT_SUPPORTED))
    );
    assert_eq!(answer(id::PV_TIME_ST, 0, &EVERYTHING), None);
}

#[test]
fn function_ids_fall_apart_as_the_convention_says() {
    let cases = [
        (id::CPU_ON | id::SMC64, true, true, Owner::StandardSecure),
        (id::SMCCC_VERSION, true, false, Owner::Architecture),
        (id::PV_TIME_ST, true, true, Owner::StandardHypervisor),
        (
            id::VENDOR_HYP_CALL_UID,
            true,
            false,
            Owner::VendorHypervisor,
        ),
        (0x0200_0000, false, false, Owner::Sip),
        (0x8100_0000, true, false, Owner::Cpu),
        (0x8300_0000, true, false, Owner::Oem),
        (0xb200_0000, true, false, Owner::Trusted),
        (0xbf00_0000, true, false, Owner::Trusted),
        (0x8700_0000, true, false, Owner::Reserved),
        (0xaf00_0000, true, false, Owner::Reserved),
    ];
    for (raw, fast, wide, owner) in cases {
        let function = FunctionId::new(raw);
        let parts = (is_fast(raw), function.is_smc64(), function.owner());
        assert_eq!(parts, (fast, wide, owner), "{raw:#x}");
    }
}

/// Bit 31: a call that does not yield (SMCCC DEN0028, 2.5).
const fn is_fast(function: u32) -> bool {
    function & 1 << 31 != 0
}

#[test]
fn return_codes_are_sign_extended() {
    let codes = [
        (ReturnCode::Success, 0),
        (ReturnCode::NotSupported, -1),
        (ReturnCode::InvalidParameters, -2),
        (ReturnCode::Denied, -3),
        (ReturnCode::AlreadyOn, -4),
        (ReturnCode::OnPending, -5),
        (ReturnCode::InternalFailure, -6),
        (ReturnCode::NotPresent, -7),
        (ReturnCode::Disabled, -8),
        (ReturnCode::InvalidAddress, -9_i64),
    ];
    for (code, value) in codes {
        assert_eq!(code.as_x0(), value as u64);
    }
}

/// Both widths of every number that a function may have, of every owner, and a few that are none.
fn functions() -> impl Iterator<Item = u64> {
    let owners = (0x80..=0xff_u64).chain([0, 0x04, 0x44]);
    let of = |owner: u64| {
        let numbers = (0..0x80_u64).chain([0x7fff, 0x8000, 0x8001, 0xff01, 0x1_0000, 0xffff]);
        numbers.map(move |number| owner << 24 | number)
    };
    owners.flat_map(of)
}

#[test]
fn the_shortest_path_says_what_the_decoder_says() {
    let offered = Offered::default();
    for x0 in functions() {
        let all = [0, 2, 3].map(|x1| decode(x0, x1, 0, 0));
        let [call, ..] = all;
        match quick(x0) {
            Quick::Answer(x0_out) => {
                for call in all {
                    let answer = call.immediate(&offered);
                    assert_eq!(answer, Some(Answer::One(x0_out)), "{x0:#x}");
                }
            }
            Quick::AffinityInfo => assert!(
                matches!(call, Call::AffinityInfo { .. }) && x0 as u32 & id::SMC64 != 0,
                "{x0:#x}"
            ),
            Quick::AffinityInfo32 => assert!(
                matches!(call, Call::AffinityInfo { .. }) && x0 as u32 & id::SMC64 == 0,
                "{x0:#x}"
            ),
            Quick::CpuOn => assert!(
                matches!(call, Call::CpuOn { .. }) && x0 as u32 & id::SMC64 != 0,
                "{x0:#x}"
            ),
            Quick::CpuOff => assert_eq!(call, Call::CpuOff, "{x0:#x}"),
            // These three are never slow, and what no owner has is no reason to look further.
            Quick::Ask => {
                let owner = FunctionId::new(x0 as u32).owner();
                assert!(
                    matches!(
                        owner,
                        Owner::Architecture
                            | Owner::StandardSecure
                            | Owner::StandardHypervisor
                            | Owner::VendorHypervisor
                    ),
                    "{x0:#x}"
                );
                let wide_or_off = match call {
                    Call::CpuOn { .. } => x0 as u32 & id::SMC64 == 0,
                    Call::Version | Call::AffinityInfo { .. } | Call::CpuOff => false,
                    _ => true,
                };
                assert!(wide_or_off, "{x0:#x}");
                let beyond = owner == Owner::StandardSecure && x0 & 0xffff >= 0x20;
                assert!(!beyond, "{x0:#x}: PSCI has no such function");
            }
        }
    }
}

/// A function that has one width only is unknown in the other (SMCCC DEN0028, 2.5).
#[test]
fn the_other_width_of_a_function_that_has_one_is_unknown() {
    let narrow = [
        id::PSCI_VERSION,
        id::CPU_OFF,
        id::MIGRATE_INFO_TYPE,
        id::SYSTEM_OFF,
        id::SYSTEM_RESET,
        id::PSCI_FEATURES,
        id::SMCCC_VERSION,
        id::SMCCC_ARCH_FEATURES,
        id::SMCCC_ARCH_WORKAROUND_1,
        id::SMCCC_ARCH_WORKAROUND_2,
        id::SMCCC_ARCH_WORKAROUND_3,
        id::VENDOR_HYP_CALL_UID,
        id::VENDOR_HYP_REVISION,
    ];
    for function in narrow {
        assert_ne!(decode(function.into(), 0, 0, 0), Call::Unknown);
        let wide = decode((function | id::SMC64).into(), 0, 0, 0);
        assert_eq!(wide, Call::Unknown, "{function:#x}");
    }
    for function in [id::PV_TIME_FEATURES, id::PV_TIME_ST] {
        assert_ne!(decode(function.into(), 0, 0, 0), Call::Unknown);
        let narrow = decode((function & !id::SMC64).into(), 0, 0, 0);
        assert_eq!(narrow, Call::Unknown, "{function:#x}");
    }
}

proptest! {
    /// Every yielding call, and every function of an owner that offers none, is unknown whatever else is in the registers.
    #[test]
    fn owners_without_functions_know_nothing(raw in any::<u32>(), rest in any::<[u64; 4]>()) {
        let function = FunctionId::new(raw);
        let ours = matches!(
            function.owner(),
            Owner::Architecture | Owner::StandardSecure | Owner::StandardHypervisor | Owner::VendorHypervisor
        );
        prop_assume!(!is_fast(raw) || !ours);
        let x0 = rest[0] << 32 | u64::from(raw);
        prop_assert_eq!(decode(x0, rest[1], rest[2], rest[3]), Call::Unknown);
    }

    /// A 32-bit call cannot pass on what is in the upper halves of its registers.
    #[test]
    fn narrow_calls_pass_narrow_arguments(function in 0x8400_0000..0x8400_0020_u64, args in any::<[u64; 3]>()) {
        let [x1, x2, x3] = args;
        let low = |x: u64| u64::from(x as u32);
        prop_assert_eq!(decode(function, x1, x2, x3), decode(function, low(x1), low(x2), low(x3)));
    }
}
