//! The EFI memory map: what a kernel may use, and what it must leave alone (UEFI 2.10, 7.2.3).
//!
//! It replaces all other descriptions of memory. Registers are not in it: a kernel maps what the map does not name as
//! Device memory. Everything is a multiple of 64 KiB, the largest page a kernel may use.

use alloc::vec::Vec;

use super::super::Machine;
use types::layout::GRANULE;

/// Size and version of a descriptor.
pub(super) const DESCRIPTOR_SIZE: u32 = 40;
pub(super) const DESCRIPTOR_VERSION: u32 = 1;

/// The first bank is in three parts: tables, runtime services, free.
const PARTS: usize = 3;

/// Types of memory (UEFI 2.10, 7.2.1).
const RUNTIME_SERVICES_CODE: u32 = 5;
const CONVENTIONAL: u32 = 7;
const ACPI_RECLAIM: u32 = 9;

/// Attributes of memory: write-back, and mapped for the runtime services.
const WRITE_BACK: u64 = 1 << 3;
const RUNTIME: u64 = 1 << 63;

/// EFI counts in pages of 4 KiB, whatever the granule.
const PAGE_SHIFT: u32 = 12;

/// Returns the size in bytes of the map of a machine with this many RAM banks.
pub(super) fn size(banks: usize) -> u32 {
    (banks.saturating_sub(1) + PARTS) as u32 * DESCRIPTOR_SIZE
}

/// Draws the map; the runtime services are one granule at `runtime`, everything below them is tables.
pub(super) fn draw(machine: &Machine<'_>, runtime: u64) -> Vec<u8> {
    let mut map = Vec::with_capacity(size(machine.memory.len()) as usize);
    let free = runtime + GRANULE;
    for (index, bank) in machine.memory.iter().enumerate() {
        let (start, end) = (bank.base.get(), bank.base.get().saturating_add(bank.size));
        if index == 0 {
            descriptor(&mut map, ACPI_RECLAIM, start, runtime, WRITE_BACK);
            descriptor(
                &mut map,
                RUNTIME_SERVICES_CODE,
                runtime,
                free,
                WRITE_BACK | RUNTIME,
            );
            descriptor(&mut map, CONVENTIONAL, free, end, WRITE_BACK);
        } else {
            descriptor(&mut map, CONVENTIONAL, start, end, WRITE_BACK);
        }
    }
    map
}

/// Appends one descriptor; virtual addresses are the physical ones.
fn descriptor(map: &mut Vec<u8>, kind: u32, start: u64, end: u64, attributes: u64) {
    let pages = end.saturating_sub(start) >> PAGE_SHIFT;
    for word in [u64::from(kind), start, start, pages, attributes] {
        map.extend_from_slice(&word.to_le_bytes());
    }
}
