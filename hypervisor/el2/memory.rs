//! The machine's RAM: the pool all memory comes from, and writing to what is about to be a guest's.
#![expect(unsafe_code, reason = "writes physical memory by address")]

use core::ops::Range;
use spin::mutex::SpinMutex;
use vmm::ram::{Piece, RamPool};

use crate::heap;

/// Bytes by which the heap grows.
const HEAP_STEP: u64 = 256 * 1024;

static POOL: SpinMutex<RamPool> = SpinMutex::new(RamPool::new());

/// Works on the pool.
pub(crate) fn with_pool<R>(work: impl FnOnce(&mut RamPool) -> R) -> R {
    work(&mut POOL.lock())
}

/// Takes pages for EL2 itself for good; returns their address.
pub(crate) fn take_pages(bytes: u64, alignment: u64) -> Option<u64> {
    let piece = with_pool(|pool| pool.take(bytes, alignment))?;
    Some(piece.range.start)
}

/// Makes the heap larger.
pub(crate) fn grow_heap(bytes: u64) -> bool {
    let Some(at) = take_pages(bytes.next_multiple_of(HEAP_STEP), HEAP_STEP) else {
        return false;
    };
    // SAFETY: taken out of the pool just now, mapped as data, nobody else's.
    unsafe { heap::add(at..at + bytes.next_multiple_of(HEAP_STEP)) };
    true
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

/// Fills all free memory with zeros: the option for those who do not trust what ran before.
pub(crate) fn scrub_free() {
    let ranges = with_pool(|pool| pool.free_ranges());
    for range in ranges {
        zero(range);
    }
}

/// Takes back a piece of memory that holds nothing secret.
pub(crate) fn give_back(range: Range<u64>) {
    with_pool(|pool| pool.add(range));
}

/// Takes guest memory; what another guest may have left in it is overwritten first.
pub(crate) fn take_guest_memory(bytes: u64, alignments: &[u64]) -> Option<Range<u64>> {
    let Piece { range, dirty } = alignments
        .iter()
        .find_map(|alignment| with_pool(|pool| pool.take(bytes, *alignment)))?;
    for part in dirty {
        zero(part);
    }
    Some(range)
}

/// Returns the bytes of a physical range that somebody else keeps unchanged: the boot loader's images, the device tree.
///
/// # Safety
/// The range is RAM, mapped, and nobody writes to it as long as the system runs.
pub(crate) unsafe fn bytes(range: Range<u64>) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        core::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize)
    }
}
