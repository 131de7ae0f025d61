//! Invalidations of guests' translations: what no table change asks for, but the sharing of VMIDs and CPUs does (Arm ARM D8.14).
#![expect(unsafe_code, reason = "TLB and instruction cache maintenance")]

use crate::sysreg::{dsb_ish, dsb_ishst};

macro_rules! maintain {
    ($operation:literal) => {
        // SAFETY: drops cached translations and instructions only.
        unsafe { core::arch::asm!($operation, options(nostack, preserves_flags)) }
    };
}

/// Forgets every guest translation of every VMID, on every CPU: a VMID generation has ended.
pub(crate) fn forget_all_guests() {
    dsb_ishst();
    maintain!("tlbi alle1is");
    dsb_ish();
}

/// Forgets what another vCPU of the loaded VM has left on this CPU.
///
/// To a guest its CPUs are CPUs: each may use an ASID for tables of its own (Arm ARM D8.16.1), and only tells the others if they share
/// them. The return to the guest is what synchronizes.
#[inline(always)]
pub(crate) fn forget_sibling() {
    maintain!("tlbi vmalle1");
    maintain!("ic iallu");
    maintain!("dsb nsh");
}
