//! Where a guest's kernel, initrd and firmware tables go in its memory.
//!
//! The kernel where its format says, then the initrd. The firmware's tables have a place of their own, which is in the way of
//! no kernel that runs on QEMU's `virt`; one that wants it all the same is refused.

use alloc::vec::Vec;
use core::ops::Range;

use types::address::GuestPhys;

use super::elf::Elf;
use super::error::LoadError;
use super::image::BASE_ALIGNMENT;
use super::{Kernel, RAW_OFFSET, recognise};
use types::layout::Region;

/// A raw binary's own memory after its file is not known here: its initrd goes this far from the start of
/// RAM, or half way, as under QEMU.
const RAW_INITRD_OFFSET: u64 = 128 << 20;

/// What is to be placed where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The guest's RAM; its base is a multiple of 2 MiB.
    pub ram: Region,
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// The initrd's size in bytes; 0 for none.
    pub initrd_bytes: u64,
    /// Where the firmware's tables will be.
    pub firmware: Region,
    /// ID_AA64MMFR0_EL1 as the guest reads it: the granules that there are.
    pub mmfr0: u64,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's file.
    Kernel,
    /// The initrd's file.
    Initrd,
}

/// Bytes to copy into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which file.
    pub source: Source,
    /// Which bytes of it.
    pub range: Range<usize>,
    /// Where their first one goes.
    pub to: GuestPhys,
}

/// Where everything goes. No two of the ranges overlap, and all are in the guest's RAM and clear of the firmware's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// What to copy.
    pub copies: Vec<Copy>,
    /// What must be zero before the guest starts (an ELF file's BSS).
    pub zeros: Vec<Region>,
    /// The first instruction.
    pub entry: GuestPhys,
    /// The kernel with the memory it needs for itself, as far as its file tells.
    pub kernel: Region,
    /// Memory that the guest may use before it turns its caches on: no cache may hold a dirty line of it when the guest starts.
    ///
    /// Of an `Image` the kernel with what it needs for itself (Linux, Documentation/arch/arm64/booting.rst); of others, which
    /// promise nothing, all RAM.
    pub uncached: Region,
    /// The initrd.
    pub initrd: Option<Region>,
}

/// Decides where a guest's images go.
///
/// # Errors
/// A [`LoadError`] when the kernel is not one, or when not everything fits.
pub fn plan(request: &Request<'_>) -> Result<LoadPlan, LoadError> {
    let kernel = recognise(request.kernel)?;
    let ram = request.ram;
    if ram.base.get().checked_add(ram.size).is_none() || !ram.base.is_aligned(BASE_ALIGNMENT) {
        return Err(LoadError::header("RAM base", ram.base.get()));
    }
    let placed = match &kernel {
        Kernel::Image(image) => {
            image.page_size.check(request.mmfr0)?;
            Placed::file(request, image.offset, image.memory_bytes)?
        }
        Kernel::Raw => Placed::file(request, RAW_OFFSET, request.kernel.len() as u64)?,
        Kernel::Elf(elf) => Placed::elf(ram, elf)?,
    };
    if placed.range.overlaps(request.firmware) {
        let address = placed.range.base.get();
        return Err(LoadError::OnFirmware { address });
    }
    let initrd = place_initrd(request, &kernel, placed.range)?;
    let mut copies = placed.copies;
    copies.extend(initrd.map(|range| Copy {
        source: Source::Initrd,
        range: 0..request.initrd_bytes as usize,
        to: range.base,
    }));
    let uncached = match kernel {
        Kernel::Image(_) => placed.range,
        Kernel::Raw | Kernel::Elf(_) => ram,
    };
    Ok(LoadPlan {
        uncached,
        copies,
        zeros: placed.zeros,
        entry: placed.entry,
        kernel: placed.range,
        initrd,
    })
}

/// A kernel that has its place.
struct Placed {
    range: Region,
    copies: Vec<Copy>,
    zeros: Vec<Region>,
    entry: GuestPhys,
}

impl Placed {
    /// Places a file as a whole, entered at its first byte.
    fn file(request: &Request<'_>, offset: u64, bytes: u64) -> Result<Self, LoadError> {
        let ram = request.ram;
        let available = ram.size.saturating_sub(offset);
        let base = ram.base.checked_add(offset).filter(|_| bytes <= available);
        let base = base.ok_or(LoadError::no_room("the kernel", bytes, available))?;
        let copy = Copy {
            source: Source::Kernel,
            range: 0..request.kernel.len(),
            to: base,
        };
        let range = Region { base, size: bytes };
        Ok(Self {
            range,
            copies: Vec::from([copy]),
            zeros: Vec::new(),
            entry: base,
        })
    }

    /// Places segments where they say.
    fn elf(ram: Region, elf: &Elf) -> Result<Self, LoadError> {
        let (mut copies, mut zeros) = (Vec::new(), Vec::new());
        for segment in &elf.segments {
            let base = GuestPhys::new(segment.address);
            if !ram.covers(Region {
                base,
                size: segment.memory_bytes,
            }) {
                let (address, bytes) = (segment.address, segment.memory_bytes);
                return Err(LoadError::Outside { address, bytes });
            }
            let file_bytes = segment.file.len() as u64;
            if file_bytes != 0 {
                copies.push(Copy {
                    source: Source::Kernel,
                    range: segment.file.clone(),
                    to: base,
                });
            }
            if let Some(base) = base
                .checked_add(file_bytes)
                .filter(|_| segment.memory_bytes > file_bytes)
            {
                zeros.push(Region {
                    base,
                    size: segment.memory_bytes.saturating_sub(file_bytes),
                });
            }
        }
        let first = elf.segments.first().map_or(0, |segment| segment.address);
        let end = elf
            .segments
            .last()
            .map_or(0, |last| last.address.saturating_add(last.memory_bytes));
        let range = Region {
            base: GuestPhys::new(first),
            size: end.saturating_sub(first),
        };
        let entry = GuestPhys::new(elf.entry);
        Ok(Self {
            range,
            copies,
            zeros,
            entry,
        })
    }
}

/// Returns the address after the last byte of a region, which may be empty.
const fn end(region: Region) -> u64 {
    region.base.get().saturating_add(region.size)
}

/// Rounds up to a multiple of `alignment`; what cannot be is more than any memory.
const fn align_up(value: u64, alignment: u64) -> u64 {
    match value.checked_next_multiple_of(alignment) {
        Some(aligned) => aligned,
        None => u64::MAX,
    }
}

/// Places the initrd after the kernel.
fn place_initrd(
    request: &Request<'_>,
    kernel: &Kernel,
    taken: Region,
) -> Result<Option<Region>, LoadError> {
    let (ram, size) = (request.ram, request.initrd_bytes);
    if size == 0 {
        return Ok(None);
    }
    let after = align_up(end(taken), BASE_ALIGNMENT);
    let start = match kernel {
        Kernel::Raw => after.max(align_up(
            ram.base
                .get()
                .saturating_add(RAW_INITRD_OFFSET.min(ram.size / 2)),
            BASE_ALIGNMENT,
        )),
        Kernel::Image(_) | Kernel::Elf(_) => after,
    };
    let available = end(ram).saturating_sub(start);
    match size <= available {
        true => Ok(Some(Region {
            base: GuestPhys::new(start),
            size,
        })),
        false => Err(LoadError::no_room("the initrd", size, available)),
    }
}
