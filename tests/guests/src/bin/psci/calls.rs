//! Calls that must be refused, and must change nothing but their result registers.

use crate::bare;
use guest_rt::exception::Fault;
use guest_rt::machine::Conduit;
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, ignore, machine, probe, psci, stub};

/// A function number that no service owner defines.
const UNDEFINED_NUMBER: u64 = 0x7e5a;

pub(crate) fn version_and_features() -> Outcome {
    let version = psci::version();
    check!(version >> 16 >= 1, "PSCI_VERSION {version:#x}");
    for function in [
        psci::VERSION,
        psci::CPU_OFF,
        psci::CPU_ON,
        psci::AFFINITY_INFO,
        psci::SYSTEM_OFF,
    ] {
        let answer = psci::call(psci::FEATURES, function, 0, 0);
        check!(answer >= 0, "PSCI_FEATURES({function:#x}): {answer}");
    }
    for function in [0x8400_00ff, 0xc400_00fe, 0x1234_5678] {
        check_eq!(
            psci::call(psci::FEATURES, function, 0, 0),
            psci::NOT_SUPPORTED,
            "PSCI_FEATURES({function:#x})"
        );
    }
    if !bare() {
        check_eq!(
            psci::call(psci::MIGRATE_INFO_TYPE, 0, 0, 0),
            2,
            "MIGRATE_INFO_TYPE"
        );
    }
    Ok(())
}

fn conduit(registers: psci::Registers) -> psci::Registers {
    match machine().conduit() {
        Conduit::Hvc => psci::hvc(registers),
        Conduit::Smc => psci::smc(registers),
    }
}

/// The vendor-specific UID call (DEN0028, 6.2): ours, in four words of which each holds its first byte lowest.
pub(crate) fn the_hypervisor_names_itself() -> Outcome {
    const CALL_UID: u64 = 0x8600_ff01;
    if bare() {
        ignore!("no hypervisor is there");
    }
    let mut registers: psci::Registers = [0x5a5a_5a5a; 18];
    registers[0] = CALL_UID;
    let result = conduit(registers);
    // cf7aba11-5476-4882-a6bb-cfdb8b93d2cc
    let uid = [0x11ba_7acf, 0x8248_7654, 0xdbcf_bba6, 0xccd2_938b];
    for (index, word) in uid.into_iter().enumerate() {
        check_eq!(result[index], word, "x{index} of the UID");
    }
    for index in 4..18 {
        check_eq!(result[index], registers[index], "x{index}");
    }
    Ok(())
}

/// Calls a function that no standard defines, with recognisable values in every register.
fn call_unknown(function: u64, seed: u64) -> Outcome {
    let mut registers: psci::Registers =
        core::array::from_fn(|index| seed.rotate_left(index as u32 * 3));
    registers[0] = function;
    let result = conduit(registers);
    check_eq!(result[0] as i32, -1, "x0 of {function:#x}");
    for index in 4..18 {
        check_eq!(
            result[index],
            registers[index],
            "x{index} after {function:#x}"
        );
    }
    Ok(())
}

pub(crate) fn unknown_functions() -> Outcome {
    for owner in 0..64 {
        for class in [0x8000_0000, 0xc000_0000, 0x0000_0000, 0x4000_0000] {
            call_unknown(
                class | owner << 24 | UNDEFINED_NUMBER,
                0x0123_4567_89ab_cdef ^ owner,
            )?;
        }
    }
    call_unknown(0xffff_ffff, u64::MAX)
}

pub(crate) fn many_unknown_functions() -> Outcome {
    let count = if machine().word("long") {
        1_000_000
    } else {
        20_000
    };
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..count {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Owner 4 holds PSCI itself: its numbers below 0x100 are left alone.
        call_unknown(0x8400_0000 | seed & 0x4000_fe00 | 0x100, seed)?;
    }
    Ok(())
}

pub(crate) fn immediates_other_than_zero() -> Outcome {
    if bare() {
        ignore!("QEMU's own PSCI does not look at the immediate");
    }
    for immediate in [1_u32, 0x42, 0xea1, 0xffff] {
        for base in [0xd400_0002_u32, 0xd400_0003] {
            let seen = probe::run(base | immediate << 5, psci::VERSION, 0);
            let refused = seen.fault.is_none() && seen.x0 as i32 == -1;
            let undefined = seen.exact && seen.class() == Some(Fault::UNDEFINED);
            check!(
                refused || undefined,
                "{:#x}: x0 {:#x}, {:?}",
                base | immediate << 5,
                seen.x0,
                seen.fault
            );
        }
    }
    Ok(())
}

pub(crate) fn upper_half_of_the_function_is_ignored() -> Outcome {
    if bare() {
        ignore!("QEMU's own PSCI compares all of x0");
    }
    check_eq!(
        psci::call(0xdead_beef_0000_0000 | psci::VERSION, 0, 0, 0),
        psci::version(),
        "x0 of the call"
    );
    Ok(())
}

pub(crate) fn cpu_on_of_no_cpu() -> Outcome {
    let last = machine().cpus().iter().copied().max().unwrap_or(0);
    let strange = [
        last | 1 << 16,
        0x0f0f,
        1 << 32,
        u64::MAX,
        1 << 63,
        1 << 24,
        1 << 40,
        0xffff_ffff,
    ];
    for affinity in strange {
        check_eq!(
            psci::cpu_on(affinity, stub::address(), 0),
            psci::INVALID_PARAMETERS,
            "CPU_ON of {affinity:#x}"
        );
        let info = psci::affinity_info(affinity);
        check_eq!(
            info,
            psci::INVALID_PARAMETERS,
            "AFFINITY_INFO of {affinity:#x}"
        );
    }
    Ok(())
}

pub(crate) fn bad_suspend_and_bad_level() -> Outcome {
    let answer = psci::call(psci::CPU_SUSPEND, 0xffff_ffff, stub::address(), 0);
    check_eq!(
        answer,
        psci::INVALID_PARAMETERS,
        "CPU_SUSPEND with no such power state"
    );
    if bare() {
        ignore!("QEMU's own PSCI takes any affinity level");
    }
    for level in [4, 0xff, 0xffff_ffff] {
        let answer = psci::call(psci::AFFINITY_INFO, cpu::affinity(), level, 0);
        check_eq!(
            answer,
            psci::INVALID_PARAMETERS,
            "AFFINITY_INFO at level {level}"
        );
    }
    Ok(())
}
