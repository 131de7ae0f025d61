//! The PMU's cycle counter, by which a board says what an operation costs its pipeline (Arm ARM D13).
//!
//! Each CPU has its own, so only what begins and ends on one CPU can be counted. Time in EL2 is asked to count too; a
//! hypervisor can hide it where the PMU is Armv8.5's (MDCR_EL2.HCCD), and Bullpen does.

use guest_rt::{insn, mrs, msr};

/// ID_AA64DFR0_EL1.PMUVer.
const PMU_VERSION: u64 = 0xf << 8;
/// PMUVer of a PMU that is not Arm's architecture.
const OWN_PMU: u64 = 0xf << 8;
/// PMCR_EL0.E: counters count. PMCR_EL0.LC: the cycle counter has 64 bits.
const ENABLE: u64 = 1 | 1 << 6;
/// PMCNTENSET_EL0.C.
const CYCLE_COUNTER: u64 = 1 << 31;
/// PMCCFILTR_EL0.NSH: cycles at EL2 count too.
const COUNT_EL2: u64 = 1 << 27;

/// Makes this CPU count its cycles; returns whether it can.
pub fn start() -> bool {
    let version = mrs!("id_aa64dfr0_el1") & PMU_VERSION;
    if version == 0 || version == OWN_PMU {
        return false;
    }
    msr!("pmccfiltr_el0", COUNT_EL2);
    msr!("pmcntenset_el0", CYCLE_COUNTER);
    msr!("pmcr_el0", mrs!("pmcr_el0") | ENABLE);
    insn!("isb");
    true
}

/// Returns the cycles that something took.
pub fn of<R>(work: impl FnOnce() -> R) -> u64 {
    insn!("isb");
    let before = mrs!("pmccntr_el0");
    let _ = work();
    insn!("isb");
    mrs!("pmccntr_el0").wrapping_sub(before)
}
