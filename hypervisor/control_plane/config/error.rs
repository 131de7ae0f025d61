//! What can be wrong with a manifest: always the manifest's author's fault, always said with place and value.

use alloc::string::String;
use core::fmt;

use crate::topology::MAX_PACKAGES;
use types::entitlement::NotEntitled;
use types::ids::MAX_VCPUS_A_CPU;

/// One thing that is wrong with the manifest or the boot options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or "bootargs" for the boot loader's command line.
    pub file: &'static str,
    /// The node's path in it; empty where there are no nodes.
    pub node: String,
    /// The property, option or key; empty when the node itself is wrong.
    pub property: String,
    /// The value found, for people; empty when there is none.
    pub value: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It must be there and is not.
    Missing,
    /// Nothing of this name is known here.
    Unknown,
    /// Something before it has the same name or value.
    Duplicate,
    /// It is not one string.
    NotText,
    /// It is not one number (of one or two cells).
    NotNumber,
    /// It is not a list of numbers (of one cell each), or empty.
    NotList,
    /// It is not one of these words.
    NotOneOf(&'static [&'static str]),
    /// It is outside these limits, both allowed.
    OutOfRange {
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// It is not a least and a most (a cell each), or the least is more than the most.
    NotBounds,
    /// The VM is not entitled to it.
    NotEntitled(NotEntitled),
    /// It is not a multiple of this.
    NotMultipleOf(u64),
    /// It is not the value of `memory` and a multiple of this more.
    NotBlocks(u64),
    /// It is not a name: 1 to 31 of `a` to `z`, `0` to `9` and `-`, the first a letter.
    NotName,
    /// It is not the MAC address of one station: six bytes of two hexadecimal digits with colons between.
    NotMac,
    /// It is not a UUID: 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
    NotUuid,
    /// It is not four numbers that make this many vCPUs, or of too many packages.
    NotTopology {
        /// `max-vcpus`.
        vcpus: u16,
    },
    /// It is longer than this many bytes.
    TooLong(usize),
    /// Its character of this number, counted from 1, is not printable ASCII.
    NotPrintable(usize),
    /// The bundle has no file of this name.
    NoSuchFile,
    /// There are more than so many of these.
    TooMany(usize, &'static str),
    /// It contradicts another key, which has this name.
    Contradicts(&'static str),
    /// This machine does not have what it takes; why.
    NotHere(&'static str),
    /// No other vCPU has room on this CPU.
    CpuFull,
    /// That many vCPUs have no room on all CPUs together.
    CpusFull,
    /// The blob is not a manifest; why.
    NotManifest(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Unknown => f.write_str("is not known"),
            Self::Duplicate => f.write_str("is there twice"),
            Self::NotText => f.write_str("is not one string"),
            Self::NotNumber => f.write_str("is not one number"),
            Self::NotList => f.write_str("is not a list of numbers"),
            Self::NotOneOf(words) => write!(f, "is not one of {}", words.join(", ")),
            Self::OutOfRange { min, max } => write!(f, "is not between {min} and {max}"),
            Self::NotBounds => f.write_str("is not a least and a most, in this order"),
            Self::NotEntitled(NotEntitled(bounds)) => {
                write!(f, "is not within the VM's entitlement, {bounds}")
            }
            Self::NotMultipleOf(unit) => write!(f, "is not a multiple of {unit}"),
            Self::NotName => {
                f.write_str("is not a name (1 to 31 of a-z, 0-9 and -, the first a letter)")
            }
            Self::NotBlocks(block) => write!(
                f,
                "is not `memory` and a multiple of {block} more, of which memory slots are"
            ),
            Self::NotMac => f.write_str(
                "is not the MAC address of a station (such as 02:00:00:00:00:01; the first byte is even)",
            ),
            Self::NotUuid => f.write_str(
                "is not a UUID (32 hexadecimal digits in groups of 8, 4, 4, 4 and 12, with hyphens between)",
            ),
            Self::NotTopology { vcpus } => write!(
                f,
                "is not 4 numbers (packages, at most {MAX_PACKAGES}; clusters in each; cores in each; threads in each) whose product is `max-vcpus` = {vcpus}"
            ),
            Self::TooLong(max) => write!(f, "is longer than {max} bytes"),
            Self::NotPrintable(at) => write!(f, "character {at} is not printable ASCII"),
            Self::NoSuchFile => f.write_str("is not a file of the bundle"),
            Self::TooMany(max, what) => write!(f, "more than {max} {what}"),
            Self::Contradicts(key) => write!(f, "contradicts `{key}`"),
            Self::NotHere(why) => write!(f, "cannot be had: {why}"),
            Self::CpuFull => write!(
                f,
                "is full: {MAX_VCPUS_A_CPU} vCPUs fit on a CPU; name more CPUs or ask for fewer `max-vcpus`"
            ),
            Self::CpusFull => write!(
                f,
                "is more than the CPUs have room for: {MAX_VCPUS_A_CPU} vCPUs fit on each; ask for fewer"
            ),
            Self::NotManifest(why) => write!(f, "not a manifest: {why}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if !self.node.is_empty() {
            write!(f, "{}: ", self.node)?;
        }
        if !self.property.is_empty() {
            write!(f, "`{}` ", self.property)?;
        }
        if !self.value.is_empty() {
            write!(f, "= {} ", self.value)?;
        }
        self.problem.fmt(f)
    }
}
