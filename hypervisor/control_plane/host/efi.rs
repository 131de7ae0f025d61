//! What EFI firmware says before it goes: where the device tree is, which memory is free, the command line (UEFI 2.10).
//!
//! RAM is what firmware's memory map calls usable once boot services are over. The tree's memory nodes only confirm it: they know
//! nothing of what firmware keeps for itself.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use r_efi::efi;

use super::{Chosen, HostError, HostRange, memory};
use crate::ram::RamPool;

/// What firmware and the boot loader hand over beside the device tree.
#[derive(Clone, Debug)]
pub struct Handover<'a> {
    /// The memory map at the exit, as GetMemoryMap wrote it (UEFI 2.10, 7.2.3).
    pub map: &'a [u8],
    /// Bytes from one descriptor of the map to the next.
    pub descriptor_size: usize,
    /// The bundle, if the boot loader passed one by LoadFile2.
    pub initrd: Option<Range<u64>>,
    /// The bundle of the disk that this program comes from, for when no loader has passed one.
    pub file: Option<Range<u64>>,
    /// The loader's options: text in UCS-2, whose end may be marked (UEFI 2.10, 9.1.1). No text leaves the command line to the tree.
    pub options: &'a [u16],
}

/// Finds the device tree among the configuration tables (UEFI 2.10, 4.6).
///
/// # Errors
/// The sentence for a person when there is none.
pub fn find_tree(tables: &[efi::ConfigurationTable]) -> Result<u64, &'static str> {
    let named = |guid: efi::Guid| {
        let table = tables.iter().find(|table| table.vendor_guid == guid);
        table.map(|table| table.vendor_table.addr() as u64)
    };
    match named(efi::DTB_TABLE_GUID) {
        Some(tree) => Ok(tree),
        None if named(efi::ACPI_20_TABLE_GUID).is_some() => Err(
            "firmware has ACPI and no device tree, which is needed: choose it in firmware's setup (QEMU: -M acpi=off)",
        ),
        None => Err("firmware has no device tree"),
    }
}

/// Reads the loader's options; what is not ASCII becomes `?`.
fn text(options: &[u16]) -> String {
    let units = options.iter().take_while(|unit| **unit != 0);
    let byte = |unit: &u16| u8::try_from(*unit).ok().filter(u8::is_ascii);
    units
        .map(|unit| byte(unit).map_or('?', char::from))
        .collect()
}

/// Leaves out the program's own name, which the EFI shell puts before what was typed behind it.
fn without_program(options: &str) -> &str {
    let options = options.trim();
    let (first, rest) = options.split_once(' ').unwrap_or((options, ""));
    let suffix = first.len().checked_sub(4).and_then(|at| first.get(at..));
    match suffix {
        Some(suffix) if suffix.eq_ignore_ascii_case(".efi") => rest.trim_start(),
        _ => options,
    }
}

impl Handover<'_> {
    /// Puts what the boot loader gave by EFI in the place of what the tree says.
    pub(super) fn add_to(&self, chosen: &mut Chosen) {
        let text = text(self.options);
        let options = without_program(&text);
        if !options.is_empty() {
            chosen.bootargs = options.to_string();
        }
        let of = |range: &Option<Range<u64>>| memory::from_addresses(range.clone()?);
        chosen.initrd = of(&self.initrd)
            .or(chosen.initrd)
            .or_else(|| of(&self.file));
    }

    /// Returns the pieces of RAM, ascending and apart, and warns of those that the tree does not know.
    pub(super) fn ram(
        &self,
        told: &[HostRange],
        warnings: &mut Vec<String>,
    ) -> Result<Vec<HostRange>, HostError> {
        let size = self.descriptor_size.max(size_of::<efi::MemoryDescriptor>());
        let mut pool = RamPool::new();
        for piece in self.map.chunks_exact(size).filter_map(usable) {
            // Firmware may name a piece twice.
            pool.remove(piece.clone());
            pool.add(piece);
        }
        let pieces = pool.free_ranges();
        if pieces.is_empty() {
            return Err(HostError::Missing {
                what: "RAM (the EFI memory map has none that is usable)",
            });
        }
        let known = |piece: &Range<u64>| {
            let mut banks = told.iter().map(|bank| bank.addresses());
            banks.any(|bank| bank.start <= piece.start && piece.end <= bank.end)
        };
        if let Some(piece) = pieces.iter().find(|piece| !known(piece))
            && !told.is_empty()
        {
            warnings.push(format!(
                "no memory node has {:#x}..{:#x}, which EFI calls RAM",
                piece.start, piece.end
            ));
        }
        Ok(pieces
            .into_iter()
            .filter_map(memory::from_addresses)
            .collect())
    }
}

/// Returns what a descriptor is about if it is usable after the exit (UEFI 2.10, table 7.6), can be cached, and is set aside for
/// nothing special.
fn usable(descriptor: &[u8]) -> Option<Range<u64>> {
    const PAGE: u64 = 4096;
    let word = |at: usize| {
        let bytes = descriptor.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let is_free = matches!(
        // The upper half is padding.
        word(0)? as efi::MemoryType,
        efi::LOADER_CODE
            | efi::LOADER_DATA
            | efi::BOOT_SERVICES_CODE
            | efi::BOOT_SERVICES_DATA
            | efi::CONVENTIONAL_MEMORY
    );
    let start = word(8)?;
    let end = start.checked_add(word(24)?.checked_mul(PAGE)?)?;
    let attributes = word(32)? & (efi::MEMORY_WB | efi::MEMORY_SP);
    (is_free && attributes == efi::MEMORY_WB).then_some(start..end)
}
