//! Why an image cannot be started: the file, or the memory its VM was given, is to blame.

use core::fmt;

/// What is wrong with an image. The caller adds the VM's and the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file has no bytes.
    Empty,
    /// The file is packed; EL2 has no unpacker.
    Packed {
        /// What it is packed as.
        what: &'static str,
        /// The command that unpacks it.
        with: &'static str,
    },
    /// The file is a kernel that unpacks itself for EFI, which only the packing of a bundle can do in EFI's place.
    Zboot,
    /// The file is something else.
    Foreign(&'static str),
    /// A field of the file's header cannot be right.
    Header {
        /// The field's name in the format's specification.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The file ends before a part that its header declares.
    Truncated {
        /// Which part.
        part: &'static str,
    },
    /// A segment of an ELF file would lie outside the guest's RAM.
    Outside {
        /// First address of the segment.
        address: u64,
        /// Its size in memory in bytes.
        bytes: u64,
    },
    /// Two segments of an ELF file share memory.
    Overlap {
        /// First address of the later one.
        address: u64,
    },
    /// The kernel would lie where the firmware's tables are.
    OnFirmware {
        /// Its first address.
        address: u64,
    },
    /// The guest's CPU does not have the pages that the kernel was built for.
    PageSize {
        /// The pages' size in KiB.
        kib: u64,
    },
    /// The guest's RAM is too small.
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// How many bytes it needs.
        needed: u64,
        /// How many bytes are left for it.
        available: u64,
    },
}

impl LoadError {
    /// Blames a field of a header.
    pub(super) const fn header(field: &'static str, value: u64) -> Self {
        Self::Header { field, value }
    }

    /// Says that something does not fit.
    pub(super) const fn no_room(what: &'static str, needed: u64, available: u64) -> Self {
        Self::NoRoom {
            what,
            needed,
            available,
        }
    }

    /// Misses a part.
    pub(super) const fn truncated(part: &'static str) -> Self {
        Self::Truncated { part }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Packed { what, with } => write!(f, "is {what}: unpack it first with `{with}`"),
            Self::Zboot => f.write_str(
                "is an EFI zboot kernel: pack it with `cargo xtask bundle`, which unpacks it",
            ),
            Self::Foreign(what) => write!(f, "is {what}, not an arm64 kernel"),
            Self::Header { field, value } => {
                write!(f, "has a header whose {field} cannot be {value:#x}")
            }
            Self::Truncated { part } => write!(f, "ends before its {part} does"),
            Self::Outside { address, bytes } => {
                write!(
                    f,
                    "has a segment at {address:#x} of {bytes:#x} bytes, which is not in the guest's RAM"
                )
            }
            Self::Overlap { address } => write!(f, "has two segments at {address:#x}"),
            Self::OnFirmware { address } => {
                write!(f, "lies at {address:#x}, where the firmware's tables are")
            }
            Self::PageSize { kib } => {
                write!(f, "needs pages of {kib} KiB, which this CPU does not have")
            }
            Self::NoRoom {
                what,
                needed,
                available,
            } => {
                write!(
                    f,
                    "does not fit the guest's RAM: {what} needs {needed} of {available} free bytes"
                )
            }
        }
    }
}
