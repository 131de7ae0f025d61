//! Flattens a linked ELF file into the bytes that a boot loader puts into memory: an arm64 `Image`, or a raw binary.
//!
//! The Image header is described in the kernel's `Documentation/arch/arm64/booting.rst`. Its `image_size` is written
//! here, from the program headers: a position-independent link would leave it to a relocation that no loader applies.

use anyhow::{Context, bail, ensure};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD, R_AARCH64_RELATIVE, SHF_ALLOC};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader};

type Elf = FileHeader64<LittleEndian>;

/// Offset of the magic number in an Image header, and the number.
const IMAGE_MAGIC: (usize, &[u8; 4]) = (0x38, b"ARM\x64");
/// Offset of `image_size`, a little-endian u64, in an Image header.
const IMAGE_SIZE_OFFSET: usize = 16;
/// What `image_size` is rounded up to: the largest translation granule, so that nothing shares the last page.
const IMAGE_SIZE_ALIGNMENT: u64 = 0x1_0000;
/// More than this is not a flat image but a mistake in a linker script.
const LARGEST_IMAGE: u64 = 256 << 20;

/// A flat image.
#[derive(Debug)]
pub(crate) struct Flat {
    /// The bytes to load.
    pub(crate) bytes: Vec<u8>,
    /// The memory it takes with its zeroed parts, in bytes.
    pub(crate) memory_size: u64,
    /// Whether it starts with an arm64 Image header.
    pub(crate) has_image_header: bool,
}

/// Flattens an ELF file by the physical addresses of its loadable segments.
///
/// # Errors
/// Fails if the file is not a 64-bit little-endian ELF, holds nothing to load, spreads over too much memory, or
/// needs a relocation other than `R_AARCH64_RELATIVE`, the one that a start-up code can apply by itself.
pub(crate) fn flatten(elf: &[u8]) -> anyhow::Result<Flat> {
    let header = Elf::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("not little-endian")?;
    check_relocations(header, endian, elf)?;
    let segments: Vec<_> = header
        .program_headers(endian, elf)
        .context("bad program headers")?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0)
        .collect();
    let base = segments
        .iter()
        .map(|segment| segment.p_paddr(endian))
        .min()
        .context("nothing to load")?;
    let end = segments
        .iter()
        .map(|segment| {
            segment
                .p_paddr(endian)
                .saturating_add(segment.p_memsz(endian))
        })
        .max()
        .unwrap_or(base);
    let memory_size = (end - base).next_multiple_of(IMAGE_SIZE_ALIGNMENT);
    ensure!(
        memory_size <= LARGEST_IMAGE,
        "the segments spread over {memory_size:#x} bytes from {base:#x}"
    );

    let mut bytes = Vec::new();
    for segment in segments {
        let data = segment
            .data(endian, elf)
            .ok()
            .context("a segment lies outside the file")?;
        let start = usize::try_from(segment.p_paddr(endian) - base)?;
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
    }
    let has_image_header = write_image_size(&mut bytes, memory_size);
    Ok(Flat {
        bytes,
        memory_size,
        has_image_header,
    })
}

fn write_image_size(bytes: &mut [u8], memory_size: u64) -> bool {
    let (magic_offset, magic) = IMAGE_MAGIC;
    if bytes.get(magic_offset..magic_offset + magic.len()) != Some(magic.as_slice()) {
        return false;
    }
    bytes[IMAGE_SIZE_OFFSET..IMAGE_SIZE_OFFSET + 8].copy_from_slice(&memory_size.to_le_bytes());
    true
}

fn check_relocations(header: &Elf, endian: LittleEndian, elf: &[u8]) -> anyhow::Result<()> {
    let sections = header
        .sections(endian, elf)
        .context("bad section headers")?;
    for section in sections.iter() {
        let allocated = section.sh_flags(endian).0 & SHF_ALLOC.0 != 0;
        let Some((entries, _)) = section.rela(endian, elf).context("bad relocations")? else {
            continue;
        };
        for entry in entries.iter().filter(|_| allocated) {
            let kind = entry.r_type(endian, false);
            if kind != R_AARCH64_RELATIVE {
                bail!(
                    "relocation type {kind} at {:#x}: only R_AARCH64_RELATIVE can be applied at start",
                    entry.r_offset(endian)
                );
            }
        }
    }
    Ok(())
}
