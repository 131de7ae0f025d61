//! Stage-2 translation tables: from what a guest calls a physical address to what the machine calls one.
//!
//! Pure: memory for tables comes through [`TableMemory`], TLB maintenance goes out as values ([`Invalidation`]),
//! because only `el2` may touch either (Arm ARM DDI0487, D8). Read on in this order: `space` (geometry and
//! VTCR_EL2), `tables` (map, translate), `change` (unmap and protect, in two phases), `quota`, `vmid`.
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
