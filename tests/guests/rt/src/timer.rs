//! The generic timer as EL1 sees it (DDI0487 chapter D12): counter, virtual and physical timers.

use crate::{mrs, msr};

/// INTID of the virtual timer's PPI.
pub const VIRTUAL_INTID: u32 = 27;
/// INTID of the non-secure EL1 physical timer's PPI.
pub const PHYSICAL_INTID: u32 = 30;
/// CNTx_CTL.ENABLE.
pub const CTL_ENABLE: u64 = 1;
/// CNTx_CTL.IMASK.
pub const CTL_IMASK: u64 = 2;
/// CNTx_CTL.ISTATUS.
pub const CTL_ISTATUS: u64 = 4;

/// Returns the virtual count, not read early.
#[must_use]
pub fn now() -> u64 {
    crate::insn!("isb");
    mrs!("cntvct_el0")
}

/// Returns the counter's frequency in Hz.
#[must_use]
pub fn frequency() -> u64 {
    mrs!("cntfrq_el0")
}

/// Arms the virtual timer for an absolute count.
pub fn arm_virtual(deadline: u64) {
    msr!("cntv_cval_el0", deadline);
    msr!("cntv_ctl_el0", CTL_ENABLE);
}

/// Turns the virtual timer off.
pub fn stop_virtual() {
    msr!("cntv_ctl_el0", 0);
}

/// Arms the physical timer for an absolute count of the physical counter.
pub fn arm_physical(deadline: u64) {
    msr!("cntp_cval_el0", deadline);
    msr!("cntp_ctl_el0", CTL_ENABLE);
}

/// Turns the physical timer off.
pub fn stop_physical() {
    msr!("cntp_ctl_el0", 0);
}

/// Spins for this many ticks.
pub fn delay(ticks: u64) {
    let end = now() + ticks;
    while now() < end {
        core::hint::spin_loop();
    }
}

/// Waits until a condition holds, up to this many milliseconds; returns whether it came to hold.
#[must_use]
pub fn within_ms(milliseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now() + milliseconds * frequency() / 1000;
    while !condition() {
        if now() > end {
            return condition();
        }
        core::hint::spin_loop();
    }
    true
}
