//! The clocks: the system counter, EL2's own timer, and the guest's two timers as registers (Arm ARM D12).

use crate::sysreg::{isb, read_register, write_register};
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
    read_register!("cntpct_el0")
}

/// Returns the counter's frequency in hertz.
pub(crate) fn frequency() -> u64 {
    read_register!("cntfrq_el0")
}

/// Prepares this CPU's timers for guests and stops EL2's.
pub(crate) fn start() {
    write_register!("cnthctl_el2", CNTHCTL_GUEST);
    write_register!("cnthp_ctl_el2", 0);
    write_register!("cntv_ctl_el0", 0);
    write_register!("cntp_ctl_el0", 0);
    isb();
}

/// Has one timer's interrupt asserted, or none any more.
pub(crate) fn set_asserted(which: Which, asserted: bool) {
    let control = if asserted { ENABLE } else { 0 };
    match which {
        Which::Hyp => {
            write_register!("cnthp_cval_el2", 0);
            write_register!("cnthp_ctl_el2", control);
        }
        Which::Virtual => {
            write_register!("cntv_cval_el0", 0);
            write_register!("cntv_ctl_el0", control);
        }
        Which::Physical => {
            write_register!("cntp_cval_el0", 0);
            write_register!("cntp_ctl_el0", control);
        }
    }
    isb();
}

/// Makes EL2's timer fire when the counter reaches `deadline_ticks`.
#[inline]
pub(crate) fn arm(deadline_ticks: u64) {
    write_register!("cnthp_cval_el2", deadline_ticks);
    write_register!("cnthp_ctl_el2", ENABLE);
}

/// Keeps EL2's timer from firing.
#[inline]
pub(crate) fn disarm() {
    write_register!("cnthp_ctl_el2", 0);
}

/// Returns which of the loaded vCPU's timers have their line high (CNTx_CTL: enabled, not masked, condition met), by the guest's INTID.
#[cold]
pub(crate) fn lines() -> u32 {
    let high = |control: u64| u32::from(control & (STATUS | WRITABLE) == STATUS | ENABLE);
    high(read_register!("cntv_ctl_el0")) << VIRTUAL_TIMER
        | high(read_register!("cntp_ctl_el0")) << PHYSICAL_TIMER
}

/// Loads a vCPU's timers; a deadline that has passed fires at once.
#[inline]
pub(crate) fn load(timers: &TimerRegisters) {
    write_register!("cntv_cval_el0", timers.cntv_cval);
    write_register!("cntp_cval_el0", timers.cntp_cval);
    write_register!("cntv_ctl_el0", timers.cntv_ctl);
    write_register!("cntp_ctl_el0", timers.cntp_ctl);
}

/// Silences a vCPU's timers without saving them.
#[inline]
pub(crate) fn silence() {
    write_register!("cntv_ctl_el0", 0);
    write_register!("cntp_ctl_el0", 0);
}

/// Saves a vCPU's timers and silences them.
#[inline]
pub(crate) fn save(timers: &mut TimerRegisters) {
    timers.cntv_cval = read_register!("cntv_cval_el0");
    timers.cntv_ctl = read_register!("cntv_ctl_el0") & WRITABLE;
    timers.cntp_cval = read_register!("cntp_cval_el0");
    timers.cntp_ctl = read_register!("cntp_ctl_el0") & WRITABLE;
    silence();
}
