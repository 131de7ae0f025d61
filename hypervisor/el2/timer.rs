//! The clocks: the system counter, EL2's own timer, and the guest's two timers as registers (Arm ARM D12).
#![expect(unsafe_code, reason = "gives guests the physical timer")]

use crate::sysreg::{self, isb};
use types::layout::{PHYSICAL_TIMER, VIRTUAL_TIMER};
use vmm::vm::context::TimerRegisters;

/// One of the timers whose interrupts EL2 takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The hypervisor's own.
    Hyp,
    /// The guests' virtual timer.
    Virtual,
    /// The guests' physical timer.
    Physical,
}

/// CNTHCTL_EL2: EL1 and EL0 may use the physical counter and the physical timer.
const CNTHCTL_GUEST: u64 = 0b11;
/// CNTx_CTL: enabled, and not masked.
const ENABLE: u64 = 1;
/// CNTx_CTL: enabled and masked.
const WRITABLE: u64 = 0b11;
/// CNTx_CTL: the condition is met.
const STATUS: u64 = 0b100;

/// Returns the system counter.
#[inline(always)]
pub(crate) fn now() -> u64 {
    sysreg::cntpct_el0::read()
}

/// Returns the counter's frequency in hertz.
pub(crate) fn frequency() -> u64 {
    sysreg::cntfrq_el0::read()
}

/// Prepares this CPU's timers for guests and stops EL2's.
pub(crate) fn start() {
    // SAFETY: what it gives to EL1 are the physical counter and CNTP; EL2 uses CNTHP.
    unsafe { sysreg::cnthctl_el2::write(CNTHCTL_GUEST) };
    sysreg::cnthp_ctl_el2::write(0);
    sysreg::cntv_ctl_el0::write(0);
    sysreg::cntp_ctl_el0::write(0);
    isb();
}

/// Has one timer's interrupt asserted, or none any more.
pub(crate) fn set_asserted(which: Which, asserted: bool) {
    let control = if asserted { ENABLE } else { 0 };
    match which {
        Which::Hyp => {
            sysreg::cnthp_cval_el2::write(0);
            sysreg::cnthp_ctl_el2::write(control);
        }
        Which::Virtual => {
            sysreg::cntv_cval_el0::write(0);
            sysreg::cntv_ctl_el0::write(control);
        }
        Which::Physical => {
            sysreg::cntp_cval_el0::write(0);
            sysreg::cntp_ctl_el0::write(control);
        }
    }
    isb();
}

/// Makes EL2's timer fire when the counter reaches `deadline_ticks`.
#[inline]
pub(crate) fn arm(deadline_ticks: u64) {
    sysreg::cnthp_cval_el2::write(deadline_ticks);
    sysreg::cnthp_ctl_el2::write(ENABLE);
}

/// Keeps EL2's timer from firing.
#[inline]
pub(crate) fn disarm() {
    sysreg::cnthp_ctl_el2::write(0);
}

/// Returns which of the loaded vCPU's timers have their line high (CNTx_CTL: enabled, not masked, condition met), by the guest's INTID.
#[cold]
pub(crate) fn lines() -> u32 {
    let high = |control: u64| u32::from(control & (STATUS | WRITABLE) == STATUS | ENABLE);
    high(sysreg::cntv_ctl_el0::read()) << VIRTUAL_TIMER
        | high(sysreg::cntp_ctl_el0::read()) << PHYSICAL_TIMER
}

/// Loads a vCPU's timers; a deadline that has passed fires at once.
#[inline]
pub(crate) fn load(timers: &TimerRegisters) {
    sysreg::cntv_cval_el0::write(timers.cntv_cval);
    sysreg::cntp_cval_el0::write(timers.cntp_cval);
    sysreg::cntv_ctl_el0::write(timers.cntv_ctl);
    sysreg::cntp_ctl_el0::write(timers.cntp_ctl);
}

/// Silences a vCPU's timers without saving them.
#[inline]
pub(crate) fn silence() {
    sysreg::cntv_ctl_el0::write(0);
    sysreg::cntp_ctl_el0::write(0);
}

/// Saves a vCPU's timers and silences them.
#[inline]
pub(crate) fn save(timers: &mut TimerRegisters) {
    timers.cntv_cval = sysreg::cntv_cval_el0::read();
    timers.cntv_ctl = sysreg::cntv_ctl_el0::read() & WRITABLE;
    timers.cntp_cval = sysreg::cntp_cval_el0::read();
    timers.cntp_ctl = sysreg::cntp_ctl_el0::read() & WRITABLE;
    silence();
}
