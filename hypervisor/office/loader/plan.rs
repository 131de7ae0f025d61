//! Where a guest's kernel, initrd and firmware tables go in its memory.
//!
//! From the start of RAM: the kernel where its format says, then the initrd, and the firmware tables at the top, where
//! they are in nobody's way. An ELF program instead finds its tables at the very start of RAM if that is free, as under
//! QEMU. Linux wants its initrd within 32 GiB of the kernel, so that follows the kernel and not the tables.

use alloc::vec::Vec;
use core::ops::Range;

use stage2::GuestPhys;

use super::elf::Elf;
use super::error::LoadError;
use super::image::{BASE_ALIGNMENT, PageSize};
use super::{Kernel, RAW_OFFSET, recognise};

/// The firmware tables start at a multiple of this: the largest page of a guest.
pub(super) const FIRMWARE_ALIGNMENT: u64 = 64 << 10;
/// A raw binary's own memory after its file is nobody's business to know: its initrd goes this far from the start of
/// RAM, or half way, as under QEMU.
const RAW_INITRD_OFFSET: u64 = 128 << 20;

/// A range of a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// First address.
    pub base: GuestPhys,
    /// Length in bytes.
    pub size: u64,
}

impl GuestRange {
    /// Returns the address after the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base.get().saturating_add(self.size)
    }

    /// Returns whether all of `other` is inside.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.base.get() <= other.base.get() && other.end() <= self.end()
    }

    /// Returns whether the two ranges share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base.get() < other.end() && other.base.get() < self.end()
    }
}

/// What is to be placed where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The guest's RAM; its base is a multiple of 2 MiB.
    pub ram: GuestRange,
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// The initrd's size in bytes; 0 for none.
    pub initrd_bytes: u64,
    /// Room for the firmware tables in bytes.
    pub firmware_bytes: u64,
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

/// Where everything goes. No two of the ranges overlap, and all are in the guest's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// What to copy.
    pub copies: Vec<Copy>,
    /// What must be zero before the guest starts (an ELF file's BSS).
    pub zeros: Vec<GuestRange>,
    /// The first instruction.
    pub entry: GuestPhys,
    /// The kernel with the memory it needs for itself, as far as its file tells.
    pub kernel: GuestRange,
    /// Memory that the guest may use before it turns its caches on: no cache may hold a dirty line of it when the guest starts.
    ///
    /// Of an `Image` the kernel with what it needs for itself (Linux, Documentation/arch/arm64/booting.rst); of others, which
    /// promise nothing, all RAM.
    pub uncached: GuestRange,
    /// The initrd.
    pub initrd: Option<GuestRange>,
    /// Room for the firmware tables: what was asked for, rounded up to 64 KiB.
    pub firmware: GuestRange,
    /// The granule that the kernel needs.
    pub page_size: PageSize,
}

/// Decides where a guest's images go.
///
/// # Errors
/// A [`LoadError`] when the kernel is not one, or when not everything fits.
#[inline(never)]
pub fn plan(request: &Request<'_>) -> Result<LoadPlan, LoadError> {
    let kernel = recognise(request.kernel)?;
    let ram = request.ram;
    if ram.base.get().checked_add(ram.size).is_none() || !ram.base.is_aligned(BASE_ALIGNMENT) {
        return Err(LoadError::Header {
            field: "RAM base",
            value: ram.base.get(),
        });
    }
    let placed = match &kernel {
        Kernel::Image(image) => {
            Placed::file(request, image.offset, image.memory_bytes, image.page_size)?
        }
        Kernel::Raw => Placed::file(
            request,
            RAW_OFFSET,
            request.kernel.len() as u64,
            PageSize::Unspecified,
        )?,
        Kernel::Elf(elf) => Placed::elf(ram, elf)?,
    };
    let firmware = place_firmware(request, &kernel, placed.range)?;
    let initrd = place_initrd(request, &kernel, placed.range, firmware)?;
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
        firmware,
        page_size: placed.page_size,
    })
}

/// A kernel that has its place.
struct Placed {
    range: GuestRange,
    copies: Vec<Copy>,
    zeros: Vec<GuestRange>,
    entry: GuestPhys,
    page_size: PageSize,
}

impl Placed {
    /// Places a file as a whole, entered at its first byte.
    fn file(
        request: &Request<'_>,
        offset: u64,
        bytes: u64,
        page_size: PageSize,
    ) -> Result<Self, LoadError> {
        let ram = request.ram;
        let available = ram.size.saturating_sub(offset);
        let base = ram.base.checked_add(offset).filter(|_| bytes <= available);
        let base = base.ok_or(LoadError::NoRoom {
            what: "the kernel",
            needed: bytes,
            available,
        })?;
        let copy = Copy {
            source: Source::Kernel,
            range: 0..request.kernel.len(),
            to: base,
        };
        let range = GuestRange { base, size: bytes };
        Ok(Self {
            range,
            copies: Vec::from([copy]),
            zeros: Vec::new(),
            entry: base,
            page_size,
        })
    }

    /// Places segments where they say.
    fn elf(ram: GuestRange, elf: &Elf) -> Result<Self, LoadError> {
        let (mut copies, mut zeros) = (Vec::new(), Vec::new());
        for segment in &elf.segments {
            let base = GuestPhys::new(segment.address);
            if !ram.contains(GuestRange {
                base,
                size: segment.memory_bytes,
            }) {
                return Err(LoadError::Outside {
                    address: segment.address,
                    bytes: segment.memory_bytes,
                });
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
                zeros.push(GuestRange {
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
        let range = GuestRange {
            base: GuestPhys::new(first),
            size: end.saturating_sub(first),
        };
        let entry = GuestPhys::new(elf.entry);
        Ok(Self {
            range,
            copies,
            zeros,
            entry,
            page_size: PageSize::Unspecified,
        })
    }
}

/// Rounds up to a multiple of `alignment`; what cannot be is more than any memory.
const fn align_up(value: u64, alignment: u64) -> u64 {
    match value.checked_next_multiple_of(alignment) {
        Some(aligned) => aligned,
        None => u64::MAX,
    }
}

/// Places the firmware tables: for an ELF program at the start of RAM if they fit there, else at the top.
fn place_firmware(
    request: &Request<'_>,
    kernel: &Kernel,
    taken: GuestRange,
) -> Result<GuestRange, LoadError> {
    let ram = request.ram;
    let size = align_up(request.firmware_bytes, FIRMWARE_ALIGNMENT);
    let low = GuestRange {
        base: ram.base,
        size,
    };
    if matches!(kernel, Kernel::Elf(_)) && low.end() <= taken.base.get() {
        return Ok(low);
    }
    let available = ram.end().saturating_sub(taken.end());
    let no_room = LoadError::NoRoom {
        what: "firmware",
        needed: size,
        available,
    };
    let base =
        ram.end().checked_sub(size).ok_or(no_room.clone())? & !FIRMWARE_ALIGNMENT.wrapping_sub(1);
    match base >= taken.end() {
        true => Ok(GuestRange {
            base: GuestPhys::new(base),
            size,
        }),
        false => Err(no_room),
    }
}

/// Places the initrd after the kernel.
fn place_initrd(
    request: &Request<'_>,
    kernel: &Kernel,
    taken: GuestRange,
    firmware: GuestRange,
) -> Result<Option<GuestRange>, LoadError> {
    let (ram, size) = (request.ram, request.initrd_bytes);
    if size == 0 {
        return Ok(None);
    }
    let after = align_up(taken.end(), BASE_ALIGNMENT);
    let start = match kernel {
        Kernel::Raw => after.max(align_up(
            ram.base
                .get()
                .saturating_add(RAW_INITRD_OFFSET.min(ram.size / 2)),
            BASE_ALIGNMENT,
        )),
        Kernel::Image(_) | Kernel::Elf(_) => after,
    };
    // The firmware tables are at the top, or below the kernel.
    let limit = if firmware.base.get() >= taken.end() {
        firmware.base.get()
    } else {
        ram.end()
    };
    let available = limit.saturating_sub(start);
    match size <= available {
        true => Ok(Some(GuestRange {
            base: GuestPhys::new(start),
            size,
        })),
        false => Err(LoadError::NoRoom {
            what: "the initrd",
            needed: size,
            available,
        }),
    }
}
