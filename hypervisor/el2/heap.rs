//! EL2's heap: small things made at start-up and by the operator's commands; no hot path allocates.
#![expect(unsafe_code, reason = "implements GlobalAlloc")]

use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::NonNull;
use spin::mutex::SpinMutex;

/// Block sizes up to 2^31 bytes.
const ORDERS: usize = 32;

struct LockedHeap(SpinMutex<Heap<ORDERS>>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(SpinMutex::new(Heap::new()));

/// Gives the heap a range of RAM that nobody else uses.
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

// SAFETY: the buddy allocator hands out disjoint blocks of what `add` gave it; the lock makes it one at a time.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .alloc(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller's promise: `pointer` came from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(pointer, layout) }
        }
    }
}
