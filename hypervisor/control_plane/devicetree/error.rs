//! Why a blob is not a device tree.

use core::fmt;

use super::{MAGIC, MAX_BYTES, MAX_DEPTH, VERSION};

/// Why a blob is not a device tree that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The first word is not [`MAGIC`]; the word found.
    Magic(u32),
    /// The blob ends before the tree it declares; bytes declared and bytes there.
    Truncated {
        /// Size that the header declares, in bytes.
        declared: u64,
        /// Size of what was handed over, in bytes.
        present: u64,
    },
    /// The tree is larger than [`MAX_BYTES`]; bytes declared.
    TooLarge(u64),
    /// The format version is not one this reader understands; the version found.
    Version(u32),
    /// A block of the tree lies outside the blob, or is too small.
    Block(&'static str),
    /// The structure block holds something that is not a token, name or property where one must be; nodes read before.
    Structure {
        /// How many nodes had been read.
        nodes: usize,
    },
    /// There is no room for the list of nodes; how many there are.
    NoRoom {
        /// How many nodes the tree has.
        nodes: usize,
    },
    /// Nodes nested deeper than any real tree.
    TooDeep,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(word) => write!(
                f,
                "not a device tree: first word is {word:#010x}, not {MAGIC:#010x}"
            ),
            Self::Truncated { declared, present } => {
                write!(
                    f,
                    "device tree cut short: header says {declared} bytes, {present} are there"
                )
            }
            Self::TooLarge(bytes) => {
                write!(f, "device tree of {bytes} bytes is larger than {MAX_BYTES}")
            }
            Self::Version(version) => {
                write!(f, "device tree format version {version} is not {VERSION}")
            }
            Self::Block(name) => write!(f, "device tree's {name} block lies outside the tree"),
            Self::Structure { nodes } => write!(
                f,
                "device tree's structure block is malformed after {nodes} nodes"
            ),
            Self::NoRoom { nodes } => write!(
                f,
                "too large for the memory set aside to read it: {nodes} nodes"
            ),
            Self::TooDeep => write!(f, "device tree nests deeper than {MAX_DEPTH} levels"),
        }
    }
}
