//! Cache maintenance by address, for what a guest reads with its caches off (Arm ARM D7.5).
#![expect(unsafe_code, reason = "cache maintenance instructions")]

use crate::sysreg::{dsb_sy, isb, read_register, write_register};
use control_plane::topology::{self, Caches};
use core::ops::Range;

/// Cleans and invalidates data cache lines to the point of coherency.
pub(crate) fn clean_invalidate(range: Range<u64>) {
    let line = 4_u64 << (read_register!("ctr_el0") >> 16 & 0xf);
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
    let ccidx = read_register!("S3_0_C0_C7_2") >> 20 & 0xf != 0;
    topology::caches(read_register!("clidr_el1"), ccidx, |select| {
        write_register!("csselr_el1", select);
        isb();
        read_register!("ccsidr_el1")
    })
}

/// Drops every instruction cache line, after code was written for a guest.
pub(crate) fn invalidate_instructions() {
    // SAFETY: instruction caches hold copies only.
    unsafe { core::arch::asm!("ic ialluis", options(nostack, preserves_flags)) };
    dsb_sy();
    isb();
}
