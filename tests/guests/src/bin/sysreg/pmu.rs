//! The performance monitors: they count, start afresh on a CPU that comes online, and interrupt when they overflow.

use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::suite::Outcome;
use guest_rt::{
    check, check_eq, cpu, exception, gic, ignore, insn, machine, mrs, msr, psci, timer,
};

use super::features::DFR0;

/// What the next CPU reads of its PMCR_EL0.E and PMUSERENR_EL0, with bit 63 to say that it has.
static PMU_AT_START: AtomicU64 = AtomicU64::new(0);
/// PMCNTENSET_EL0, PMCCFILTR_EL0: the cycle counter, everywhere but at EL2.
const CYCLES: u64 = 1 << 31;

/// Counts cycles, and leaves the counter running and open to EL0.
fn count_cycles(_: u64) {
    let start = mrs!("pmcr_el0") & 1 | mrs!("pmuserenr_el0") << 1;
    msr!("pmccfiltr_el0", 0);
    msr!("pmccntr_el0", 0);
    msr!("pmcntenset_el0", CYCLES);
    msr!("pmcr_el0", mrs!("pmcr_el0") | 1);
    msr!("pmuserenr_el0", 1);
    insn!("isb");
    PMU_AT_START.store(1 << 63 | start, Ordering::Release);
}

pub(crate) fn performance_monitors_count_and_start_afresh() -> Outcome {
    if matches!(DFR0.read().x0 >> 8 & 0xf, 0 | 0xf) {
        ignore!("no PMU");
    }
    count_cycles(0);
    for _ in 0..100 {
        let before = mrs!("pmccntr_el0");
        timer::delay(1000);
        check!(mrs!("pmccntr_el0") > before, "no cycles after {before}");
        // A hypercall and a sleep, which may bring another vCPU: what was set stays.
        let _ = psci::version();
        check_eq!(mrs!("pmcntenset_el0") & CYCLES, CYCLES, "PMCNTENSET_EL0");
        check_eq!(mrs!("pmuserenr_el0"), 1, "PMUSERENR_EL0");
    }
    msr!("pmcntenclr_el0", CYCLES);
    insn!("isb");
    let stopped = mrs!("pmccntr_el0");
    timer::delay(1000);
    check_eq!(mrs!("pmccntr_el0"), stopped, "a stopped counter");
    msr!("pmuserenr_el0", 0);
    for index in (1..machine().cpus().len()).flat_map(|index| [index; 2]) {
        PMU_AT_START.store(0, Ordering::Release);
        check_eq!(cpu::start(index, count_cycles, 0), psci::SUCCESS, "CPU_ON");
        let left = || PMU_AT_START.load(Ordering::Acquire);
        check!(
            timer::within_ms(2000, || left() != 0),
            "CPU {index} says nothing"
        );
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
        check_eq!(left(), 1 << 63, "CPU {index}'s PMU at its start");
    }
    Ok(())
}

/// The interrupt of a counter that overflows (Arm BSA, 4.1.5).
const OVERFLOW: u32 = 23;

/// Lets the interrupt's line fall, as a handler has to.
fn see_overflow(intid: u32) {
    if intid == OVERFLOW {
        msr!("pmovsclr_el0", CYCLES);
        insn!("isb");
    } else {
        timer::stop_virtual();
        timer::stop_physical();
    }
}

/// Has the cycle counter overflow soon; it has 64 bits (PMCR_EL0.LC).
fn begin_overflow() {
    msr!("pmcr_el0", mrs!("pmcr_el0") | 1 << 6);
    msr!("pmccntr_el0", u64::MAX - 1000);
    insn!("isb");
}

pub(crate) fn counters_that_overflow_interrupt() -> Outcome {
    if matches!(DFR0.read().x0 >> 8 & 0xf, 0 | 0xf) {
        ignore!("no PMU");
    }
    count_cycles(0);
    msr!("pmuserenr_el0", 0);
    msr!("pmintenset_el1", CYCLES);
    gic::reset_counts();
    gic::set_handler(see_overflow);
    gic::enable(OVERFLOW);
    exception::unmask();
    for round in 1..=100 {
        begin_overflow();
        let came = timer::within_ms(2000, || gic::count(OVERFLOW) >= round);
        check!(came, "overflow {round} interrupts nothing");
        check_eq!(
            gic::count(OVERFLOW),
            round,
            "interrupts of {round} overflows"
        );
        check_eq!(
            mrs!("pmovsset_el0") & CYCLES,
            0,
            "PMOVSSET_EL0 after overflow {round}"
        );
        // A hypercall and a sleep, which may bring another vCPU.
        let _ = psci::version();
    }
    // While it is disabled it is pending as long as its line is high.
    gic::disable(OVERFLOW);
    begin_overflow();
    let is_pending = || gic::read_bit(gic::ISPENDR, OVERFLOW);
    check!(
        timer::within_ms(2000, is_pending),
        "not pending while disabled"
    );
    see_overflow(OVERFLOW);
    check!(!is_pending(), "pending after its line has fallen");
    msr!("pmintenclr_el1", CYCLES);
    gic::enable(OVERFLOW);
    begin_overflow();
    let is_over = || mrs!("pmovsset_el0") & CYCLES != 0;
    check!(
        timer::within_ms(2000, is_over),
        "PMOVSSET_EL0 without PMINTENSET_EL1"
    );
    timer::delay(timer::frequency() / 100);
    check_eq!(
        gic::count(OVERFLOW),
        100,
        "interrupts that PMINTENSET_EL1 keeps back"
    );
    msr!("pmcntenclr_el0", CYCLES);
    see_overflow(OVERFLOW);
    Ok(())
}
