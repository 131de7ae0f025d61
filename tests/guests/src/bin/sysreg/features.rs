//! Features: what the ID registers hide has no registers either, and every CPU tells the same.

use crate::{is_an_answer, undefined};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::probe::Encoding;
use guest_rt::suite::Outcome;
use guest_rt::{
    check, check_eq, cpu, exception, gic, ignore, insn, machine, mrs, msr, psci, timer,
};

/// A feature: where its ID register field is, and a register that exists only with it.
struct Feature {
    name: &'static str,
    id: Encoding,
    shift: u32,
    register: Encoding,
}

const fn feature(name: &'static str, id: Encoding, shift: u32, register: Encoding) -> Feature {
    Feature {
        name,
        id,
        shift,
        register,
    }
}

const PFR0: Encoding = Encoding(3, 0, 0, 4, 0);
const PFR1: Encoding = Encoding(3, 0, 0, 4, 1);
pub(crate) const DFR0: Encoding = Encoding(3, 0, 0, 5, 0);
const ISAR1: Encoding = Encoding(3, 0, 0, 6, 1);
const MMFR1: Encoding = Encoding(3, 0, 0, 7, 1);
const MMFR3: Encoding = Encoding(3, 0, 0, 7, 3);

const FEATURES: [Feature; 20] = [
    feature("SVE", PFR0, 32, Encoding(3, 0, 1, 2, 0)),
    feature("RAS", PFR0, 28, Encoding(3, 0, 5, 3, 0)),
    feature("MPAM", PFR0, 40, Encoding(3, 0, 10, 5, 0)),
    feature("AMU", PFR0, 44, Encoding(3, 3, 13, 2, 0)),
    feature("SME", PFR1, 24, Encoding(3, 0, 1, 2, 6)),
    feature("SME's TPIDR2", PFR1, 24, Encoding(3, 3, 13, 0, 5)),
    feature("MTE", PFR1, 8, Encoding(3, 0, 1, 0, 6)),
    feature("NMI", PFR1, 36, Encoding(3, 0, 4, 3, 0)),
    feature("GCS", PFR1, 44, Encoding(3, 0, 2, 5, 0)),
    feature("PMU", DFR0, 8, Encoding(3, 3, 9, 12, 0)),
    feature("PMU's counters", DFR0, 8, Encoding(3, 3, 14, 8, 0)),
    feature("SPE", DFR0, 32, Encoding(3, 0, 9, 9, 0)),
    feature("self-hosted trace", DFR0, 40, Encoding(3, 0, 1, 2, 1)),
    feature("TRBE", DFR0, 44, Encoding(3, 0, 9, 11, 0)),
    feature("BRBE", DFR0, 52, Encoding(2, 1, 9, 0, 0)),
    feature("trace registers", DFR0, 4, Encoding(2, 1, 0, 1, 0)),
    feature("pointer authentication", ISAR1, 0, Encoding(3, 0, 2, 1, 0)),
    feature("LORegions", MMFR1, 16, Encoding(3, 0, 10, 4, 0)),
    feature("TCR2", MMFR3, 0, Encoding(3, 0, 2, 0, 3)),
    feature("S1PIE", MMFR3, 8, Encoding(3, 0, 10, 2, 3)),
];

pub(crate) fn hidden_features_stay_hidden() -> Outcome {
    // CPACR_EL1's own traps come first on a CPU that has SVE or SME: FPEN, ZEN and SMEN off.
    let cpacr = mrs!("cpacr_el1");
    msr!("cpacr_el1", cpacr | 3 << 16 | 3 << 20 | 3 << 24);
    let outcome = hidden_registers();
    msr!("cpacr_el1", cpacr);
    outcome
}

fn hidden_registers() -> Outcome {
    for Feature {
        name,
        id,
        shift,
        register,
    } in FEATURES
    {
        let field = id.read().x0 >> shift & 0xf;
        // 0xf of PMUVer is an implementation's own PMU: not the architecture's registers. ISAR1's APA has siblings.
        let other_pauth = name == "pointer authentication"
            && (ISAR1.read().x0 >> 8 & 0xf != 0
                || Encoding(3, 0, 0, 6, 2).read().x0 >> 12 & 0xf != 0);
        if (field != 0 && field != 0xf) || other_pauth {
            continue;
        }
        let seen = register.read();
        let hidden = undefined(&seen) || seen.fault.is_none() && seen.x0 == 0;
        check!(
            hidden,
            "{name} is hidden, but its register reads {:#x}, {:x?}",
            seen.x0,
            seen.fault
        );
        let seen = register.write(u64::MAX);
        check!(
            is_an_answer(&seen),
            "writing a register of {name}: {:x?}",
            seen.fault
        );
        if seen.fault.is_none() {
            check_eq!(
                register.read().x0,
                0,
                "{name} is hidden, but its register keeps a value"
            );
        }
    }
    Ok(())
}

static FINGERPRINT: AtomicU64 = AtomicU64::new(0);

/// Mixes the values of the whole ID space, op0 = 3, op1 = 0, CRn = 0, but for MPIDR_EL1.
fn fingerprint() -> u64 {
    let mut mix: u64 = 0xcbf2_9ce4_8422_2325;
    for bits in 0..128 {
        let register = Encoding(3, 0, 0, bits >> 3, bits & 7);
        if register == Encoding(3, 0, 0, 0, 5) {
            continue;
        }
        let seen = register.read();
        mix = (mix
            ^ if seen.fault.is_none() {
                seen.x0
            } else {
                u64::MAX
            })
        .wrapping_mul(0x0100_0000_01b3);
    }
    mix
}

fn leave_fingerprint(_: u64) {
    FINGERPRINT.store(fingerprint(), Ordering::Release);
}

pub(crate) fn id_registers_are_alike_on_all_cpus() -> Outcome {
    let expected = fingerprint();
    check_eq!(fingerprint(), expected, "a second reading");
    for index in 1..machine().cpus().len() {
        FINGERPRINT.store(0, Ordering::Release);
        check_eq!(
            cpu::start(index, leave_fingerprint, 0),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
        let left = || FINGERPRINT.load(Ordering::Acquire);
        check!(
            timer::within_ms(2000, || left() != 0),
            "CPU {index} says nothing"
        );
        check_eq!(left(), expected, "ID registers of CPU {index}");
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    Ok(())
}

/// The keys of pointer authentication: two registers each (DDI0487 D24.2).
fn keys() -> impl Iterator<Item = Encoding> {
    (0..10).map(|n| Encoding(3, 0, 2, 1 + n / 4, n % 4))
}

/// The other vCPU of this CPU, meanwhile: it has keys of its own, which are none of ours.
pub(crate) fn keys_survive() -> Outcome {
    // API, APA, GPI and GPA of ID_AA64ISAR1_EL1.
    if mrs!("id_aa64isar1_el1") & 0xff00_0ff0 == 0 {
        ignore!("no pointer authentication");
    }
    gic::enable(timer::VIRTUAL_INTID);
    exception::mask();
    for round in 0..30_u64 {
        let pattern = |n: usize| (timer::frequency() ^ round << 40) + n as u64;
        let salt = timer::now();
        for (n, key) in keys().enumerate() {
            check!(key.write(pattern(n) ^ salt).fault.is_none(), "key {n}");
        }
        timer::arm_virtual(timer::now() + timer::frequency() / 20_000);
        insn!("wfi");
        timer::stop_virtual();
        for (n, key) in keys().enumerate() {
            check_eq!(key.read().x0, pattern(n) ^ salt, "key {n} in round {round}");
        }
    }
    for key in keys() {
        let _ = key.write(0);
    }
    gic::disable(timer::VIRTUAL_INTID);
    Ok(())
}
