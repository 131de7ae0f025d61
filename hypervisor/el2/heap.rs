//! EL2's heap: small things made at start-up and by the operator's commands; no hot path allocates.
//!
//! It grows by itself: the boot CPU keeps a reserve in it, and what is larger than that is fetched when it is asked for. Guests
//! cannot make it grow, and what a VM's start takes is given back at its end.
#![expect(unsafe_code, reason = "implements GlobalAlloc")]

use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;
use vmm::sync::FairMutex;

use crate::memory;

/// Bytes by which the heap grows.
const STEP: u64 = 64 * 1024;
/// Free bytes below which the boot CPU adds some.
const RESERVE: usize = 128 * 1024;

/// Block sizes up to 2^31 bytes.
const ORDERS: usize = 32;

struct LockedHeap(FairMutex<Heap<ORDERS>>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(FairMutex::new(Heap::new()));

/// Gives the heap a range of RAM that nothing else uses.
///
/// # Safety
/// The range is mapped writable and belongs to the heap from here on.
pub(crate) unsafe fn add(range: Range<u64>) {
    // SAFETY: the caller's promise.
    unsafe {
        HEAP.0
            .lock()
            .add_to_heap(range.start as usize, range.end as usize)
    }
}

/// Makes the heap larger by at least `bytes`, a power of two in one block; returns whether there was memory for that.
pub(crate) fn grow(bytes: u64) -> bool {
    let bytes = bytes.next_multiple_of(STEP);
    let alignment = if bytes.is_power_of_two() { bytes } else { STEP };
    let Some(range) = memory::try_take_pages(bytes, alignment) else {
        return false;
    };
    // SAFETY: taken out of the pool just now, mapped as data, used by nothing else.
    unsafe { add(range) };
    true
}

impl LockedHeap {
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.lock().alloc(layout).ok()
    }
}

/// Makes sure that there is a reserve.
pub(crate) fn refill() {
    let heap = HEAP.0.lock();
    let free = heap.stats_total_bytes() - heap.stats_alloc_actual();
    drop(heap);
    if free < RESERVE && !grow(RESERVE as u64) {
        log::warn!("memory for EL2 itself is short: {free} bytes are left");
    }
}

// SAFETY: the buddy allocator hands out disjoint blocks of what `add` gave it; the lock makes it one at a time.
unsafe impl GlobalAlloc for LockedHeap {
    // A call costs less than a copy of this wherever something is allocated.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.take(layout).or_else(|| {
            // A buddy is as large as the next power of two, and aligned to its size.
            let bytes = layout.size().max(layout.align()).next_power_of_two();
            grow(bytes as u64).then(|| self.take(layout))?
        });
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller's promise: `pointer` came from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(pointer, layout) }
        }
    }
}
