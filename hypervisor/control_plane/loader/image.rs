//! The header of an arm64 Linux Image (Linux Documentation/arch/arm64/booting.rst).

use super::error::LoadError;

/// Where the magic number is, and what it is.
pub(super) const MAGIC_OFFSET: usize = 0x38;
pub(super) const MAGIC: &[u8] = b"ARM\x64";
/// Size of the header in bytes.
const HEADER_BYTES: usize = 64;
/// Offset of `text_offset` where `image_size` is 0: kernels before 3.17.
const LEGACY_TEXT_OFFSET: u64 = 0x8_0000;
/// Images are placed at a multiple of this plus `text_offset`.
pub(super) const BASE_ALIGNMENT: u64 = 2 << 20;
/// Image offsets below this get [`BASE_ALIGNMENT`] added: QEMU's `virt` keeps the start of RAM for itself, and what
/// runs there unchanged runs here.
const MIN_OFFSET: u64 = 0x1000;
/// `flags` bit 0: the kernel is big-endian. Bits 2:1: the page size.
const FLAG_BIG_ENDIAN: u64 = 1;
const PAGE_SIZE_SHIFT: u64 = 1;
const PAGE_SIZE_MASK: u64 = 3;

/// The translation granule that a kernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// The header does not say.
    Unspecified,
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl PageSize {
    /// Refuses a granule that ID_AA64MMFR0_EL1 does not offer (Arm ARM D19.2.64, TGran4, TGran64 and TGran16).
    pub(super) const fn check(self, mmfr0: u64) -> Result<(), LoadError> {
        const NONE: u64 = 0xf;
        let (kib, offered) = match self {
            Self::Unspecified => return Ok(()),
            Self::K4 => (4, mmfr0 >> 28 & 0xf != NONE),
            Self::K16 => (16, mmfr0 >> 20 & 0xf != 0),
            Self::K64 => (64, mmfr0 >> 24 & 0xf != NONE),
        };
        match offered {
            true => Ok(()),
            false => Err(LoadError::PageSize { kib }),
        }
    }
}

/// What an Image's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where the image goes, counted from the start of RAM in bytes.
    pub offset: u64,
    /// Memory it needs from there on in bytes: what is after the file's end is for its BSS.
    pub memory_bytes: u64,
    /// The granule it uses; a CPU without that granule cannot run it.
    pub page_size: PageSize,
    /// Whether it runs big-endian.
    pub big_endian: bool,
}

impl Image {
    /// Reads the header of `file`.
    pub(super) fn parse(file: &[u8]) -> Result<Self, LoadError> {
        if file.len() < HEADER_BYTES {
            return Err(LoadError::truncated("Image header"));
        }
        let field = |offset: usize| {
            let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
            bytes
                .map(|bytes| u64::from_le_bytes(*bytes))
                .ok_or(LoadError::truncated("Image header"))
        };
        let (text_offset, image_size, flags) = (field(8)?, field(16)?, field(24)?);
        if text_offset >= BASE_ALIGNMENT && image_size != 0 {
            return Err(LoadError::header("text_offset", text_offset));
        }
        let offset = match image_size {
            0 => LEGACY_TEXT_OFFSET,
            _ if text_offset < MIN_OFFSET => text_offset.saturating_add(BASE_ALIGNMENT),
            _ => text_offset,
        };
        Ok(Self {
            offset,
            memory_bytes: image_size.max(file.len() as u64),
            page_size: match flags >> PAGE_SIZE_SHIFT & PAGE_SIZE_MASK {
                1 => PageSize::K4,
                2 => PageSize::K16,
                3 => PageSize::K64,
                _ => PageSize::Unspecified,
            },
            big_endian: flags & FLAG_BIG_ENDIAN != 0,
        })
    }
}
