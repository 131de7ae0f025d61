//! EL2's own use of the CPU interface: acknowledge, drop, deactivate, and the kick from one CPU to another.

use super::KICK_SGI;
use crate::sysreg::{acknowledge_interrupt, isb, write_register};

/// ICC_SRE_EL2: system registers on, for lower levels too, bypass off (GIC IHI0069, 12.2.21).
const SRE_ENABLE: u64 = 0xf;
/// ICC_CTLR_EL1.EOImode: EOIR only drops the priority (GIC IHI0069, 12.2.7).
const EOI_MODE_SPLIT: u64 = 1 << 1;

/// Turns this CPU's interface on for EL2.
pub(crate) fn enable_interface() {
    write_register!("ICC_SRE_EL2", SRE_ENABLE);
    isb();
    write_register!("ICC_CTLR_EL1", EOI_MODE_SPLIT);
    write_register!("ICC_PMR_EL1", 0xff);
    write_register!("ICC_BPR1_EL1", 0);
    write_register!("ICC_IGRPEN1_EL1", 1);
    isb();
}

/// Keeps interrupts from this CPU, which is about to be turned off.
pub(crate) fn disable_interface() {
    write_register!("ICC_IGRPEN1_EL1", 0);
    isb();
}

/// Takes the highest-priority pending interrupt; 1020 and above mean there is none. What was written before the interrupt was sent
/// is seen after.
#[inline(always)]
pub(crate) fn acknowledge() -> u32 {
    acknowledge_interrupt() as u32
}

/// Lets interrupts of the same priority in again; the interrupt stays active.
#[inline(always)]
pub(crate) fn drop_priority(intid: u32) {
    write_register!("ICC_EOIR1_EL1", u64::from(intid));
}

/// Ends an interrupt whose priority was dropped.
#[inline(always)]
pub(crate) fn deactivate(intid: u32) {
    write_register!("ICC_DIR_EL1", u64::from(intid));
}

/// Sends the kick SGI to the CPU whose ICC_SGI1R_EL1 target bits are given.
#[inline(always)]
pub(crate) fn send_kick(target: u64) {
    // The mailbox was written with release order; the barrier makes it visible before the interrupt can arrive.
    crate::sysreg::dsb_ishst();
    write_register!("ICC_SGI1R_EL1", target | (KICK_SGI as u64) << 24);
}
