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
    ensure!(
        end - base <= LARGEST_IMAGE,
        "the segments spread over {:#x} bytes from {base:#x}",
        end - base
    );
    let memory_size = (end - base).next_multiple_of(IMAGE_SIZE_ALIGNMENT);
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_BYTES: usize = 64;
    const SEGMENT_BYTES: usize = 56;

    /// An ELF file with loadable segments: address, content, size in memory.
    fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = vec![0; HEADER_BYTES];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[3, 0, 183, 0]); // ET_DYN, EM_AARCH64
        file[20] = 1; // e_version
        file[32..40].copy_from_slice(&64_u64.to_le_bytes()); // e_phoff
        file[52..56].copy_from_slice(&[64, 0, 56, 0]); // e_ehsize, e_phentsize
        file[56] = u8::try_from(segments.len()).unwrap(); // e_phnum
        let mut data = Vec::new();
        let data_offset = HEADER_BYTES + SEGMENT_BYTES * segments.len();
        for (address, content, memory) in segments {
            file.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, R and X
            let offset = (data_offset + data.len()) as u64;
            let size = content.len() as u64;
            for field in [offset, *address, *address, size, *memory, 4096] {
                file.extend(field.to_le_bytes());
            }
            data.extend_from_slice(content);
        }
        file.extend(data);
        file
    }

    #[test]
    fn segments_lie_at_their_distance_and_zeros_are_not_in_the_file() {
        let flat = flatten(&elf(&[(0x1000, b"ab", 2), (0x1008, b"c", 0x2_0000)])).unwrap();
        assert_eq!(flat.bytes, b"ab\0\0\0\0\0\0c");
        assert_eq!(flat.memory_size, 0x3_0000, "0x20008 rounded up to 64 KiB");
        assert!(!flat.has_image_header);
    }

    #[test]
    fn an_image_header_gets_the_size_with_the_zeroed_parts() {
        let mut code = [0; 64];
        code[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let flat = flatten(&elf(&[(0, &code, 64), (0x1_0000, b"", 0x1000)])).unwrap();
        assert!(flat.has_image_header);
        assert_eq!(flat.bytes[16..24], 0x2_0000_u64.to_le_bytes());
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        assert!(flatten(b"#!/bin/sh").is_err());
        assert!(flatten(&elf(&[])).is_err());
        let apart = flatten(&elf(&[(0, b"a", 1), (1 << 40, b"b", 1)]));
        assert!(apart.unwrap_err().to_string().contains("spread over"));
        let endless = flatten(&elf(&[(0, b"a", u64::MAX)]));
        assert!(endless.is_err());
    }
}
