//! EL2's own use of the CPU interface: acknowledge, drop, deactivate, and the kick from one CPU to another.

use crate::gic::KICK_SGI;
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

/// How a CPU is kicked: the target bits of ICC_SGI1R_EL1, never zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KickTarget(u64);

impl KickTarget {
    /// Returns how the CPU with these affinity fields of MPIDR_EL1 is kicked (GIC IHI0069, 12.2.20).
    pub(crate) const fn of(affinity: u64) -> Self {
        let (aff0, aff1, aff2, aff3) = (
            affinity & 0xff,
            affinity >> 8 & 0xff,
            affinity >> 16 & 0xff,
            affinity >> 32 & 0xff,
        );
        Self(aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | aff1 << 16 | 1 << (aff0 & 0xf))
    }

    /// Returns the target as a number that is not zero.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the target that [`Self::bits`] gave; zero is none.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }
}

/// Sends the kick SGI to a CPU.
#[inline(always)]
pub(crate) fn send_kick(target: KickTarget) {
    // The mailbox was written with release order; the barrier makes it visible before the interrupt can arrive.
    crate::sysreg::dsb_ishst();
    write_register!("ICC_SGI1R_EL1", target.0 | (KICK_SGI as u64) << 24);
}
