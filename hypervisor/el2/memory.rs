//! The machine's RAM: the pool all memory comes from, and writing to what is about to be a guest's.
#![expect(unsafe_code, reason = "writes physical memory by address")]

use control_plane::ram::{Piece, RamPool};
use core::ops::Range;
use vmm::sync::FairMutex;

use crate::cache;

static POOL: FairMutex<RamPool> = FairMutex::new(RamPool::new());

/// Works on the pool.
pub(crate) fn with_pool<R>(work: impl FnOnce(&mut RamPool) -> R) -> R {
    work(&mut POOL.lock())
}

/// Takes pages for EL2 itself for good; returns their address.
pub(crate) fn take_pages(bytes: u64, alignment: u64) -> Option<u64> {
    let piece = with_pool(|pool| pool.take(bytes, alignment))?;
    Some(piece.range.start)
}

/// Takes pages for the heap, unless a CPU works on the pool: the pool itself lives in the heap, and what grows the heap from
/// within the pool must do without.
pub(crate) fn try_take_pages(bytes: u64, alignment: u64) -> Option<Range<u64>> {
    let piece = POOL.try_lock()?.take(bytes, alignment)?;
    Some(piece.range)
}

/// Fills memory with zeros.
///
/// The range must be RAM that was taken from the pool and that no CPU's guest can reach.
pub(crate) fn zero(range: Range<u64>) {
    // SAFETY: all RAM is mapped at its own address; the caller owns the range.
    unsafe {
        core::ptr::write_bytes(
            range.start as *mut u8,
            0,
            (range.end - range.start) as usize,
        )
    }
}

/// Fills memory with zeros for a guest, which begins with its caches off: the zeros must be in memory, and no line of an earlier
/// owner may be written back over what the new one stores past the caches.
pub(crate) fn scrub(range: Range<u64>) {
    zero(range.clone());
    cache::clean_invalidate(range);
}

/// Fills all free memory with zeros: the option for people who do not trust what ran before.
pub(crate) fn scrub_free() {
    let ranges = with_pool(|pool| pool.free_ranges());
    for range in ranges {
        scrub(range);
    }
}

/// Takes back a piece of memory that may never have been cleared since a guest had it.
pub(crate) fn give_back(range: Range<u64>) {
    with_pool(|pool| pool.release(range));
}

/// Takes pages for data of EL2's that a guest has asked for; they hold what was there before.
pub(crate) fn take_bytes(bytes: u64) -> Option<&'static mut [u8]> {
    let start = take_pages(bytes, stage2::PAGE_SIZE)?;
    // SAFETY: all RAM is mapped at its own address, and nothing else has the piece until `give_bytes_back` gets the reference.
    Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, bytes as usize) })
}

/// Gives back what [`take_bytes`] took.
pub(crate) fn give_bytes_back(bytes: &'static mut [u8]) {
    let range = bytes.as_ptr_range();
    give_back(range.start as u64..range.end as u64);
}

/// Takes guest memory; the caller scrubs what another guest may have left in it.
pub(crate) fn take_guest_memory(bytes: u64, alignments: &[u64]) -> Option<Piece> {
    alignments
        .iter()
        .find_map(|alignment| with_pool(|pool| pool.take(bytes, *alignment)))
}

/// Returns the bytes of a physical range that stays unchanged: the boot loader's images, the device tree.
///
/// # Safety
/// The range is RAM, mapped, and nothing writes to it as long as the system runs.
pub(crate) unsafe fn bytes(range: Range<u64>) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        core::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize)
    }
}
