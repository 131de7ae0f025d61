//! The performance monitors' registers, switched only for vCPUs that use them (`vmm::vm::pmu` says when that is).
//!
//! Only a loaded vCPU's counters run: every other vCPU finds the PMU stopped, its interrupts off and closed to EL0.

use crate::sysreg::{isb, read_register, write_register};
use vmm::vm::pmu::{MAX_EVENT_COUNTERS, PmuRegisters, pmcr};

/// Every counter's bit in the registers that have one for each.
const ALL_COUNTERS: u64 = 0xffff_ffff;

/// Silences this CPU's PMU, whatever the firmware left in it; only for CPUs that have one.
#[cold]
pub(crate) fn stop() {
    write_register!("pmcr_el0", read_register!("pmcr_el0") & !pmcr::ENABLE);
    isb();
    write_register!("pmcntenclr_el0", ALL_COUNTERS);
    write_register!("pmintenclr_el1", ALL_COUNTERS);
    write_register!("pmovsclr_el0", ALL_COUNTERS);
    write_register!("pmuserenr_el0", 0);
}

/// Returns how many event counters this CPU has.
#[cold]
pub(crate) fn counters() -> usize {
    pmcr::counters(read_register!("pmcr_el0")).min(MAX_EVENT_COUNTERS)
}

/// Starts the PMU as the registers say; it must be stopped.
#[cold]
pub(crate) fn load(registers: &PmuRegisters) {
    for (index, event) in registers.events.iter().take(counters()).enumerate() {
        select(index);
        write_register!("pmxevtyper_el0", event.kind);
        write_register!("pmxevcntr_el0", event.count);
    }
    write_register!("pmccfiltr_el0", registers.pmccfiltr);
    write_register!("pmccntr_el0", registers.pmccntr);
    write_register!("pmselr_el0", registers.pmselr);
    write_register!("pmovsset_el0", registers.pmovsset);
    write_register!("pmintenset_el1", registers.pmintenset);
    write_register!("pmcntenset_el0", registers.pmcntenset);
    write_register!("pmuserenr_el0", registers.pmuserenr);
    isb();
    write_register!("pmcr_el0", registers.pmcr);
}

/// Takes the guest's registers out of the PMU and stops it.
#[cold]
pub(crate) fn save(registers: &mut PmuRegisters) {
    registers.pmcr = read_register!("pmcr_el0");
    write_register!("pmcr_el0", registers.pmcr & !pmcr::ENABLE);
    isb();
    registers.pmcntenset = read_register!("pmcntenset_el0");
    registers.pmintenset = read_register!("pmintenset_el1");
    registers.pmovsset = read_register!("pmovsset_el0");
    registers.pmselr = read_register!("pmselr_el0");
    registers.pmuserenr = read_register!("pmuserenr_el0");
    registers.pmccfiltr = read_register!("pmccfiltr_el0");
    registers.pmccntr = read_register!("pmccntr_el0");
    let counters = pmcr::counters(registers.pmcr);
    for (index, event) in registers.events.iter_mut().take(counters).enumerate() {
        select(index);
        event.kind = read_register!("pmxevtyper_el0");
        event.count = read_register!("pmxevcntr_el0");
    }
    stop();
}

/// Chooses the event counter that PMXEVTYPER_EL0 and PMXEVCNTR_EL0 mean.
fn select(index: usize) {
    write_register!("pmselr_el0", index as u64);
    isb();
}
