//! What VMs exist: the manifest, parsed once and validated into types.
//!
//! A bundle is one file that the boot loader passes as initrd: an [`Archive`] with a device tree named
//! [`MANIFEST_FILE`] and the images it names. `docs/manifest.md` is the schema; `cargo xtask bundle` packs one and
//! checks it with this very code. A VM that is wrong does not keep the others from starting.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod archive;
mod devices;
mod entitlement;
mod error;
mod manifest;
mod options;
pub mod schema;
mod slots;
#[cfg(test)]
mod tests;
mod vm;

use core::fmt;

pub use archive::{Archive, ArchiveError};
pub use devices::{DiskConfig, MAX_DISK_NAME, MAX_DISKS, MAX_NETS, NetConfig, mac_text};
pub use error::{ConfigError, Problem};
pub use manifest::{COMPATIBLE, MAX_COMMAND_LINE, Manifest};
pub use options::{Options, Scrub};
pub use slots::CpuSlots;
pub use vm::{
    DEFAULT_MEMORY_BASE, DEFAULT_SPIS, GicChoice, Idle, MAX_BLOCK, MAX_NAME, MAX_SPIS,
    MAX_VCPUS_GICV2, MEMORY_LIMIT, MEMORY_UNIT, MIN_BLOCK, MIN_MEMORY, MIN_SPIS, OnReset,
    Placement, ReserveIdle, VmConfig, VmName,
};

/// Name of the manifest in a bundle.
pub const MANIFEST_FILE: &str = "manifest.dtb";

/// An opened bundle.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    /// The files.
    pub archive: Archive<'a>,
    /// What they are for.
    pub manifest: Manifest,
}

impl<'a> Bundle<'a> {
    /// Opens what the boot loader passed as initrd.
    ///
    /// # Errors
    /// A [`BundleError`] when that is no bundle, or its manifest is no manifest at all; errors inside the manifest are
    /// in [`Manifest::vms`] and [`Manifest::problems`].
    #[inline(never)]
    pub fn open(initrd: &'a [u8]) -> Result<Self, BundleError> {
        if let Some(what) = other_format(initrd) {
            return Err(BundleError::NotBundle { what });
        }
        let archive = Archive::parse(initrd).map_err(BundleError::Archive)?;
        let dtb = archive.file(MANIFEST_FILE).ok_or(BundleError::NoManifest)?;
        let manifest = Manifest::parse(dtb, |name| archive.file(name).is_some())
            .map_err(BundleError::Manifest)?;
        Ok(Self { archive, manifest })
    }
}

/// Why what the boot loader passed as initrd is no bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It is some other kind of file.
    NotBundle {
        /// What it looks like.
        what: &'static str,
    },
    /// It is an archive without a manifest: most likely a guest's own initramfs.
    NoManifest,
    /// It begins like an archive but cannot be read.
    Archive(ArchiveError),
    /// Its manifest is not one.
    Manifest(ConfigError),
}

/// What a person is told to do about it.
const REMEDY: &str = "pass the file that `cargo xtask bundle` writes as initrd";

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBundle { what } => write!(f, "the initrd is {what}, not a bundle: {REMEDY}"),
            Self::NoManifest => write!(
                f,
                "the initrd is an archive without {MANIFEST_FILE}, not a bundle: {REMEDY}"
            ),
            Self::Archive(error) => write!(f, "the initrd is a damaged bundle: {error}"),
            Self::Manifest(error) => error.fmt(f),
        }
    }
}

/// What other files begin with that people pass as initrd by mistake.
const OTHER_FORMATS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x02!L\x18", "an lz4 file"),
    (b"\xd0\x0d\xfe\xed", "a device tree"),
    (b"MZ", "a kernel"),
    (b"\x7fELF", "an ELF file"),
    (b"[", "a text file, perhaps the manifest's source"),
    (b"#", "a text file, perhaps the manifest's source"),
];

/// Names what a file is that is certainly no bundle.
fn other_format(file: &[u8]) -> Option<&'static str> {
    if file.is_empty() {
        return Some("empty");
    }
    OTHER_FORMATS
        .iter()
        .find(|(start, _)| file.starts_with(start))
        .map(|(_, what)| *what)
}
