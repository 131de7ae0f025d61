//! Invalidations of stage-2 translations: carries out what the tables say must be forgotten (Arm ARM D8.14).
#![expect(unsafe_code, reason = "TLB maintenance instructions")]

use crate::sysreg::{dsb_ish, dsb_ishst, isb, read_register, write_register};

macro_rules! tlbi {
    ($operation:literal) => {
        // SAFETY: drops cached translations only.
        unsafe {
            core::arch::asm!(
                concat!("tlbi ", $operation),
                options(nostack, preserves_flags)
            )
        }
    };
}

/// Runs `operation` with a VM's VMID in VTTBR_EL2.
fn with_vmid(vttbr: u64, operation: impl FnOnce()) {
    let before = read_register!("vttbr_el2");
    dsb_ishst();
    write_register!("vttbr_el2", vttbr);
    isb();
    operation();
    dsb_ish();
    write_register!("vttbr_el2", before);
    isb();
}

/// Forgets every translation of a VM, on every CPU.
pub(crate) fn forget_vm(vttbr: u64) {
    with_vmid(vttbr, || tlbi!("vmalls12e1is"));
}

/// Forgets every guest translation of every VMID, on every CPU: a VMID generation has ended.
pub(crate) fn forget_all_guests() {
    dsb_ishst();
    tlbi!("alle1is");
    dsb_ish();
    isb();
}
