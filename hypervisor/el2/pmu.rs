//! The performance monitors' registers, switched only for vCPUs that use them (`vmm::vm::pmu` says when that is).
//!
//! Only a loaded vCPU's counters run: every other vCPU finds the PMU stopped, its interrupts off and closed to EL0.

use crate::sysreg::{self, isb};
use types::layout::PMU_OVERFLOW;
use vmm::features;
use vmm::vm::pmu::{MAX_EVENT_COUNTERS, PmuRegisters, pmcr};

/// Every counter's bit in the registers that have one for each.
const ALL_COUNTERS: u64 = 0xffff_ffff;

/// Silences this CPU's PMU, whatever the firmware left in it; only for CPUs that have one.
#[cold]
pub(crate) fn stop() {
    sysreg::pmcr_el0::write(sysreg::pmcr_el0::read() & !pmcr::ENABLE);
    isb();
    sysreg::pmcntenclr_el0::write(ALL_COUNTERS);
    sysreg::pmintenclr_el1::write(ALL_COUNTERS);
    sysreg::pmovsclr_el0::write(ALL_COUNTERS);
    sysreg::pmuserenr_el0::write(0);
}

/// Returns how many event counters this CPU has.
#[cold]
pub(crate) fn counters() -> usize {
    pmcr::counters(sysreg::pmcr_el0::read()).min(MAX_EVENT_COUNTERS)
}

/// Returns the overflow interrupt's bit, by the guest's INTID, if its line is high; of a vCPU that does not use the PMU it is low.
#[cold]
#[inline(never)]
pub(crate) fn line() -> u32 {
    if !features::has_pmu(sysreg::id_aa64dfr0_el1::read()) {
        return 0;
    }
    let over = sysreg::pmovsset_el0::read() & sysreg::pmintenset_el1::read();
    let is_high = over != 0 && sysreg::pmcr_el0::read() & pmcr::ENABLE != 0;
    u32::from(is_high) << PMU_OVERFLOW
}

/// Starts the PMU as the registers say; it must be stopped.
#[cold]
pub(crate) fn load(registers: &PmuRegisters) {
    for (index, event) in registers.events.iter().take(counters()).enumerate() {
        select(index);
        sysreg::pmxevtyper_el0::write(event.kind);
        sysreg::pmxevcntr_el0::write(event.count);
    }
    sysreg::pmccfiltr_el0::write(registers.pmccfiltr);
    sysreg::pmccntr_el0::write(registers.pmccntr);
    sysreg::pmselr_el0::write(registers.pmselr);
    sysreg::pmovsset_el0::write(registers.pmovsset);
    sysreg::pmintenset_el1::write(registers.pmintenset);
    sysreg::pmcntenset_el0::write(registers.pmcntenset);
    sysreg::pmuserenr_el0::write(registers.pmuserenr);
    isb();
    sysreg::pmcr_el0::write(registers.pmcr);
}

/// Takes the guest's registers out of the PMU and stops it.
#[cold]
pub(crate) fn save(registers: &mut PmuRegisters) {
    registers.pmcr = sysreg::pmcr_el0::read();
    sysreg::pmcr_el0::write(registers.pmcr & !pmcr::ENABLE);
    isb();
    registers.pmcntenset = sysreg::pmcntenset_el0::read();
    registers.pmintenset = sysreg::pmintenset_el1::read();
    registers.pmovsset = sysreg::pmovsset_el0::read();
    registers.pmselr = sysreg::pmselr_el0::read();
    registers.pmuserenr = sysreg::pmuserenr_el0::read();
    registers.pmccfiltr = sysreg::pmccfiltr_el0::read();
    registers.pmccntr = sysreg::pmccntr_el0::read();
    let counters = pmcr::counters(registers.pmcr);
    for (index, event) in registers.events.iter_mut().take(counters).enumerate() {
        select(index);
        event.kind = sysreg::pmxevtyper_el0::read();
        event.count = sysreg::pmxevcntr_el0::read();
    }
    stop();
}

/// Chooses the event counter that PMXEVTYPER_EL0 and PMXEVCNTR_EL0 mean.
fn select(index: usize) {
    sysreg::pmselr_el0::write(index as u64);
    isb();
}
