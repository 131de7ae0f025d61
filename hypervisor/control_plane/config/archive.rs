//! The bundle's container: a cpio archive in the "newc" format, which every boot loader passes as an initrd.
//!
//! Names map to byte ranges of the archive itself: nothing is copied. The format is that of Linux
//! Documentation/driver-api/early-userspace/buffer-format.rst; a name may be followed by further NULs, which is how
//! `cargo xtask bundle` puts the contents on a page boundary.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Size of an entry's header in bytes: the magic and 13 fields of 8 hexadecimal digits.
const HEADER_BYTES: usize = 110;
/// What a header begins with; the second form adds a checksum, which is not looked at.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
/// Where the fields that matter are in the header.
const MODE: usize = 1;
const FILE_SIZE: usize = 6;
const NAME_SIZE: usize = 11;
/// The file type in `mode`: a mask, and the value of a regular file (POSIX `sys/stat.h`).
const TYPE_MASK: u32 = 0o170_000;
const TYPE_REGULAR: u32 = 0o100_000;
/// Headers and contents start at multiples of this.
const ALIGNMENT: usize = 4;
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Most entries accepted.
const MAX_ENTRIES: usize = 1024;
/// Longest name accepted in bytes, its NULs included: Linux's own limit.
const MAX_NAME: usize = 4096;

/// Why a file is not an archive that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// There is no archive header at this offset.
    Magic {
        /// Where in the file.
        offset: usize,
    },
    /// A header's digits, or an entry's name, cannot be what they are.
    Header {
        /// Where in the file.
        offset: usize,
    },
    /// The file ends inside this entry.
    Truncated {
        /// The entry's name, if it could be read.
        name: String,
    },
    /// Two entries have this name.
    Duplicate {
        /// The name.
        name: String,
    },
    /// More than 1024 entries.
    TooMany,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { offset } => write!(f, "no cpio (newc) header at byte {offset}"),
            Self::Header { offset } => write!(f, "malformed cpio header at byte {offset}"),
            Self::Truncated { name } => write!(f, "archive ends inside entry \"{name}\""),
            Self::Duplicate { name } => write!(f, "archive has two entries named \"{name}\""),
            Self::TooMany => write!(f, "archive has more than {MAX_ENTRIES} entries"),
        }
    }
}

/// A file in an [`Archive`].
#[derive(Clone, Debug)]
struct ArchiveFile<'a> {
    /// Its name, without a leading `./` or `/`.
    name: &'a str,
    /// Where its contents are in the archive.
    range: Range<usize>,
}

/// The list of an archive's regular files.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    files: Vec<ArchiveFile<'a>>,
}

impl<'a> Archive<'a> {
    /// Lists the archive at the start of `bytes`; what follows its trailer is ignored.
    ///
    /// # Errors
    /// An [`ArchiveError`] when the bytes are not a whole archive with distinct names.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let mut files: Vec<ArchiveFile<'a>> = Vec::new();
        let mut offset = 0;
        for _ in 0..MAX_ENTRIES {
            let entry = Entry::parse(bytes, offset)?;
            if entry.name == TRAILER {
                return Ok(Self { bytes, files });
            }
            if entry.is_file {
                if files.iter().any(|file| file.name == entry.name) {
                    return Err(ArchiveError::Duplicate {
                        name: entry.name.to_string(),
                    });
                }
                files.push(ArchiveFile {
                    name: entry.name,
                    range: entry.contents,
                });
            }
            offset = entry.next;
        }
        Err(ArchiveError::TooMany)
    }

    /// Returns the contents of the file with this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        let file = self.files.iter().find(|file| file.name == name)?;
        self.bytes.get(file.range.clone())
    }
}

/// One entry, found.
struct Entry<'a> {
    name: &'a str,
    is_file: bool,
    contents: Range<usize>,
    next: usize,
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8], offset: usize) -> Result<Self, ArchiveError> {
        let malformed = || ArchiveError::Header { offset };
        let rest = bytes.get(offset..).unwrap_or_default();
        if !MAGICS.iter().any(|magic| rest.starts_with(magic)) {
            return Err(ArchiveError::Magic { offset });
        }
        let header = rest.get(..HEADER_BYTES).ok_or(ArchiveError::Truncated {
            name: String::new(),
        })?;
        let field = |index| field(header, index).ok_or_else(malformed);
        let (mode, size, name_size) = (
            field(MODE)?,
            field(FILE_SIZE)? as usize,
            field(NAME_SIZE)? as usize,
        );
        if name_size == 0 || name_size > MAX_NAME {
            return Err(malformed());
        }
        let name_end = HEADER_BYTES.checked_add(name_size).ok_or_else(malformed)?;
        let name = rest
            .get(HEADER_BYTES..name_end)
            .ok_or(ArchiveError::Truncated {
                name: String::new(),
            })?;
        let name = core::ffi::CStr::from_bytes_until_nul(name)
            .ok()
            .and_then(|name| name.to_str().ok());
        let mut name = name.ok_or_else(malformed)?;
        while let Some(rest) = name.strip_prefix("./") {
            name = rest;
        }
        let name = name.trim_start_matches('/');
        let truncated = || ArchiveError::Truncated {
            name: name.to_string(),
        };
        let start =
            aligned(offset.checked_add(name_end).ok_or_else(malformed)?).ok_or_else(malformed)?;
        let end = start.checked_add(size).ok_or_else(malformed)?;
        if end > bytes.len() {
            return Err(truncated());
        }
        let next = aligned(end).ok_or_else(malformed)?;
        Ok(Self {
            name,
            is_file: mode & TYPE_MASK == TYPE_REGULAR,
            contents: start..end,
            next,
        })
    }
}

/// Reads a header's field: 8 hexadecimal digits.
fn field(header: &[u8], index: usize) -> Option<u32> {
    const DIGITS: usize = 8;
    const MAGIC_BYTES: usize = 6;
    let digits = header.get(MAGIC_BYTES..)?.chunks_exact(DIGITS).nth(index)?;
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

/// Rounds an offset up to where the next part starts.
fn aligned(offset: usize) -> Option<usize> {
    offset.checked_next_multiple_of(ALIGNMENT)
}
