//! Stage-2 translation tables: from what a guest calls a physical address to what the machine calls one.
//!
//! Pure: memory for tables comes through [`TableMemory`], TLB maintenance goes out as values ([`Invalidation`]),
//! because only `el2` may touch either (Arm ARM DDI0487, D8). Read on in this order: `space` (geometry and
//! VTCR_EL2), `tables` (map, translate), `change` (unmap and protect, in two phases), `quota`, `vmid`.
//!
//! A VM's memory is mapped and looked up; the tables lie in a vector here, in pages of the machine at EL2:
//!
//! ```
//! use stage2::{Access, AddressSpace, Attributes, Mapping, MemoryKind, TableMemory, Tables};
//! use types::address::{GuestPhys, HostPhys};
//!
//! #[derive(Default)]
//! struct Pages(Vec<[u64; 512]>);
//!
//! impl TableMemory for Pages {
//!     fn allocate(&mut self, pages: usize) -> Option<HostPhys> {
//!         let first = self.0.len().next_multiple_of(pages);
//!         self.0.resize(first + pages, [0; 512]);
//!         Some(HostPhys::new(first as u64 * 4096))
//!     }
//!     fn free(&mut self, _table: HostPhys, _pages: usize) {}
//!     fn read(&self, table: HostPhys, index: usize) -> u64 {
//!         self.0[table.get() as usize / 4096][index]
//!     }
//!     fn write(&mut self, table: HostPhys, index: usize, descriptor: u64) {
//!         self.0[table.get() as usize / 4096][index] = descriptor;
//!     }
//!     fn publish(&mut self) {}
//! }
//!
//! let mut memory = Pages::default();
//! let space = AddressSpace::new(40, 2)?;
//! let mut tables = Tables::new(space, &mut memory)?;
//! let ram = Mapping {
//!     guest: GuestPhys::new(0x4000_0000),
//!     host: HostPhys::new(0x8020_0000),
//!     len: 4 << 20,
//! };
//! let attributes = Attributes { kind: MemoryKind::Normal, access: Access::ALL };
//! tables.map(&mut memory, ram, attributes)?;
//!
//! let found = tables.translate(&memory, GuestPhys::new(0x4020_0123)).expect("mapped");
//! assert_eq!(found.host, HostPhys::new(0x8040_0123));
//! assert_eq!(found.block_bytes, 2 << 20);
//! assert!(tables.translate(&memory, GuestPhys::new(0x4040_0000)).is_none());
//! let mut rest = Some(tables);
//! while let Some(tables) = rest.take() {
//!     rest = tables.free_some(&mut memory);
//! }
//! # Ok::<(), stage2::Error>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod attributes;
mod chain;
mod change;
mod descriptor;
mod error;
mod invalidation;
mod level;
mod memory;
mod quota;
mod release;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod vmid;

pub use attributes::{Access, Attributes, MemoryKind};
pub use change::Pending;
pub use error::Error;
pub use invalidation::Invalidation;
pub use memory::{ENTRIES_PER_TABLE, PAGE_SIZE, TableMemory};
pub use quota::{MAX_TABLES_PER_CHANGE, tables_needed, tables_needed_in_pages};
pub use space::{AddressSpace, PA_BITS, PA_RANGE_48};
pub use tables::{Mapping, Tables, Translation};
pub use vmid::{Vmid, VmidAllocator, VmidWidth};
