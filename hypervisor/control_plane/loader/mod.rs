//! Kernel images and where they go in a guest's memory.
//!
//! [`recognise`] tells what a file is, [`plan`] decides where everything goes; nothing is copied here. The plan is a
//! list of copies and ranges to clear, so that an image goes from the bundle to the guest in one copy.
//! The formats are [`image`] (arm64 Linux) and [`elf`]; anything else without a known signature is a raw binary.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod elf;
mod error;
mod image;
mod plan;
#[cfg(test)]
mod tests;

pub use elf::{Elf, Segment};
pub use error::LoadError;
pub use image::{Image, PageSize};
pub use plan::{Copy, LoadPlan, Request, Source, plan};

/// What a kernel file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// An uncompressed arm64 Linux Image, or another program with that header.
    Image(Image),
    /// A 64-bit Arm ELF executable.
    Elf(Elf),
    /// A binary without any header: runs from its first byte, [`RAW_OFFSET`] above the start of RAM.
    Raw,
}

/// Where QEMU's `virt` puts a raw binary, counted from the start of RAM in bytes.
pub const RAW_OFFSET: u64 = 0x8_0000;

/// How a file begins (at an offset) that is certainly not a kernel for this machine, and what it is.
const FOREIGN: &[(usize, &[u8], LoadError)] = &[
    (4, b"zimg", LoadError::Zboot),
    (
        0,
        b"\x1f\x8b",
        LoadError::Packed {
            what: "a gzip file",
            with: "gunzip",
        },
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        LoadError::Packed {
            what: "a zstd file",
            with: "unzstd",
        },
    ),
    (
        0,
        b"\xfd7zXZ\0",
        LoadError::Packed {
            what: "an xz file",
            with: "unxz",
        },
    ),
    (
        0,
        b"\x5d\0\0",
        LoadError::Packed {
            what: "an lzma file",
            with: "unlzma",
        },
    ),
    (
        0,
        b"BZh",
        LoadError::Packed {
            what: "a bzip2 file",
            with: "bunzip2",
        },
    ),
    (
        0,
        b"\x04\x22\x4d\x18",
        LoadError::Packed {
            what: "an lz4 file",
            with: "lz4 -d",
        },
    ),
    (
        0,
        b"\x02\x21\x4c\x18",
        LoadError::Packed {
            what: "an lz4 file",
            with: "lz4 -d",
        },
    ),
    (
        0,
        b"\x89LZO",
        LoadError::Packed {
            what: "an lzop file",
            with: "lzop -d",
        },
    ),
    (
        0,
        b"ANDROID!",
        LoadError::Packed {
            what: "an Android boot image",
            with: "unpack_bootimg --boot_img",
        },
    ),
    (0x28, b"_FVH", LoadError::Foreign("a UEFI firmware volume")),
    (
        0x24,
        b"\x18\x28\x6f\x01",
        LoadError::Foreign("a 32-bit Arm zImage"),
    ),
    (0x202, b"HdrS", LoadError::Foreign("an x86 Linux kernel")),
    (
        0x30,
        b"RISCV\0\0\0",
        LoadError::Foreign("a RISC-V Linux kernel"),
    ),
    (0, b"070701", LoadError::Foreign("a cpio archive")),
    (0, b"\xd0\x0d\xfe\xed", LoadError::Foreign("a device tree")),
    (0, b"\x27\x05\x19\x56", LoadError::Foreign("a U-Boot image")),
    (0, b"#!", LoadError::Foreign("a script")),
    (0, b"!<arch>", LoadError::Foreign("an archive")),
];

/// Tells what a kernel file is.
///
/// # Errors
/// A [`LoadError`] when it is empty, packed, made for another machine, or its header cannot be right.
pub fn recognise(file: &[u8]) -> Result<Kernel, LoadError> {
    if file.is_empty() {
        return Err(LoadError::Empty);
    }
    let is_at = |offset: usize, bytes: &[u8]| {
        file.get(offset..)
            .is_some_and(|rest| rest.starts_with(bytes))
    };
    if let Some((.., error)) = FOREIGN
        .iter()
        .find(|(offset, bytes, _)| is_at(*offset, bytes))
    {
        return Err(error.clone());
    }
    if is_at(image::MAGIC_OFFSET, image::MAGIC) {
        return Image::parse(file).map(Kernel::Image);
    }
    if is_at(0, elf::MAGIC) {
        return Elf::parse(file).map(Kernel::Elf);
    }
    if is_at(0, b"MZ") {
        return Err(LoadError::Foreign(
            "an EFI application without an arm64 Image header",
        ));
    }
    Ok(Kernel::Raw)
}
