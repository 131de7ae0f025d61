//! Where tables live: the one thing this crate asks of its user.

use types::address::HostPhys;

/// Bytes in a page, and in a translation table of the 4 KiB granule (Arm ARM D8.2).
pub const PAGE_SIZE: u64 = 4096;

/// Descriptors in one 4 KiB table.
pub const ENTRIES_PER_TABLE: usize = 512;

/// Memory for the tables of one VM, within that VM's quota.
///
/// Everything here is called on pages that came from [`TableMemory::allocate`] of the same object, with
/// `index < ENTRIES_PER_TABLE`.
pub trait TableMemory {
    /// Takes `pages` physically contiguous pages, all zero, aligned to their total size.
    ///
    /// `pages` is a power of two up to 16; above 1 only for the root (concatenated tables, Arm ARM D8.2).
    /// The zeros must be visible to table walks before the page can be linked, so before the first release store.
    /// Returns `None` when the quota or the memory is used up; the VM then keeps what it has.
    fn allocate(&mut self, pages: usize) -> Option<HostPhys>;

    /// Gives back what `allocate(pages)` returned. No walk can reach the pages any more.
    fn free(&mut self, table: HostPhys, pages: usize);

    /// Reads a descriptor: one 64-bit load.
    fn read(&self, table: HostPhys, index: usize) -> u64;

    /// Writes a descriptor: one single-copy atomic 64-bit store with release semantics, so that a walk which sees
    /// a link also sees the table behind it (Arm ARM D8.2). Walks must see it without cache maintenance
    /// (inner-shareable write-back memory, as [`crate::AddressSpace::vtcr`] tells the walker).
    fn write(&mut self, table: HostPhys, index: usize, descriptor: u64);

    /// Completes all earlier writes for walks of every CPU: `DSB ISHST`, and an `ISB` unless the caller will `ERET`.
    ///
    /// Called once at the end of each operation that wrote, so before any TLB maintenance for it.
    fn publish(&mut self);
}
