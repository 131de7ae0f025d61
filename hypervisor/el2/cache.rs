//! Cache maintenance by address, for what a guest reads with its caches off (Arm ARM D7.5).
#![expect(unsafe_code, reason = "cache maintenance instructions")]

use crate::sysreg::{self, dsb_sy, isb};
use control_plane::topology::{self, Caches};
use core::ops::Range;

/// Cleans and invalidates data cache lines to the point of coherency.
pub(crate) fn clean_invalidate(range: Range<u64>) {
    let line = 4_u64 << (sysreg::ctr_el0::read() >> 16 & 0xf);
    let mut at = range.start & !(line - 1);
    while at < range.end {
        // SAFETY: writes back and drops a line of mapped memory: no content changes.
        unsafe { core::arch::asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += line;
    }
    dsb_sy();
}

/// Reads which caches this CPU has, at a time when CSSELR_EL1 is no guest's.
pub(crate) fn describe() -> Caches {
    let ccidx = sysreg::id_aa64mmfr2_el1::read() >> 20 & 0xf != 0;
    topology::caches(sysreg::clidr_el1::read(), ccidx, |select| {
        sysreg::csselr_el1::write(select);
        isb();
        sysreg::ccsidr_el1::read()
    })
}

/// Drops every instruction cache line, after code was written for a guest.
pub(crate) fn invalidate_instructions() {
    // SAFETY: instruction caches hold copies only.
    unsafe { core::arch::asm!("ic ialluis", options(nostack, preserves_flags)) };
    dsb_sy();
    isb();
}
