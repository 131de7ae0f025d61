//! Stage-2 descriptors, bit by bit (Arm ARM D8.3, VMSAv8-64, 4 KiB granule, HCR_EL2.FWB = 0).

use crate::level::Level;
use crate::{Access, Attributes, MemoryKind};
use types::address::HostPhys;

/// The walk may use the descriptor.
const VALID: u64 = 1 << 0;
/// A table at levels 0 to 2, a page at level 3; clear for a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// MemAttr[3:0]: Normal, outer and inner write-back cacheable.
const MEM_ATTR_NORMAL: u64 = 0b1111 << 2;
/// MemAttr[3:0]: Device-nGnRE.
const MEM_ATTR_DEVICE_NGNRE: u64 = 0b0001 << 2;
/// The field MemAttr[3:0].
const MEM_ATTR_MASK: u64 = 0b1111 << 2;
/// S2AP[0]: reads are allowed.
const S2AP_READ: u64 = 1 << 6;
/// S2AP[1]: writes are allowed.
const S2AP_WRITE: u64 = 1 << 7;
/// SH[1:0]: inner shareable.
const INNER_SHAREABLE: u64 = 0b11 << 8;
/// Access flag; clear would fault, since VTCR_EL2.HA is clear.
const ACCESS_FLAG: u64 = 1 << 10;
/// XN: no instruction fetch; with FEAT_XNX, XN[1:0] = 0b10 means the same.
const EXECUTE_NEVER: u64 = 1 << 54;
/// Output address or next-level table address, bits [47:12].
const ADDRESS_MASK: u64 = 0x0000_FFFF_FFFF_F000;

/// What the walk finds in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing; an access faults.
    Empty,
    /// The table of the next level. A staged one counts: it is part of the tree, only hardware does not see it yet.
    Table(HostPhys),
    /// A block or a page.
    Leaf(Leaf),
}

/// A block or page descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf(u64);

impl Entry {
    /// Decodes what a table of `level` holds.
    #[inline]
    pub(crate) const fn decode(raw: u64, level: Level) -> Self {
        if raw == 0 {
            Self::Empty
        } else if raw & TABLE_OR_PAGE != 0 && !matches!(level, Level::Three) {
            Self::Table(HostPhys::new(raw & ADDRESS_MASK))
        } else {
            Self::Leaf(Leaf(raw))
        }
    }
}

/// Encodes a link to the table of the next level.
pub(crate) const fn table(next: HostPhys) -> u64 {
    staged_table(next) | VALID
}

/// Encodes a link that hardware takes for an invalid descriptor until [`table`] replaces it: hardware ignores
/// bits [63:1] of an invalid descriptor (Arm ARM D8.3), so the tree can remember what will stand there.
pub(crate) const fn staged_table(next: HostPhys) -> u64 {
    next.get() & ADDRESS_MASK | TABLE_OR_PAGE
}

/// Decodes what [`staged_table`] encoded, `None` for zero.
pub(crate) const fn staged_target(raw: u64) -> Option<HostPhys> {
    if raw == 0 {
        None
    } else {
        Some(HostPhys::new(raw & ADDRESS_MASK))
    }
}

impl Leaf {
    /// Encodes the mapping of one slot of `level` to `host`.
    pub(crate) const fn new(level: Level, host: HostPhys, attributes: Attributes) -> Self {
        let form = if matches!(level, Level::Three) {
            VALID | TABLE_OR_PAGE
        } else {
            VALID
        };
        let kind = match attributes.kind {
            MemoryKind::Normal => MEM_ATTR_NORMAL | INNER_SHAREABLE,
            MemoryKind::Device => MEM_ATTR_DEVICE_NGNRE,
        };
        let plain = Self(host.get() & ADDRESS_MASK | form | kind | ACCESS_FLAG);
        plain.with_access(attributes.access)
    }

    /// Returns the same mapping with other permissions.
    pub(crate) const fn with_access(self, access: Access) -> Self {
        let mut raw = self.0 & !(S2AP_READ | S2AP_WRITE | EXECUTE_NEVER);
        if access.read {
            raw |= S2AP_READ;
        }
        if access.write {
            raw |= S2AP_WRITE;
        }
        if !access.execute {
            raw |= EXECUTE_NEVER;
        }
        Self(raw)
    }

    /// Returns the descriptor as hardware reads it.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the first host address of the block or page.
    #[inline]
    pub(crate) const fn host(self) -> HostPhys {
        HostPhys::new(self.0 & ADDRESS_MASK)
    }

    /// Returns memory type and permissions.
    #[inline]
    pub(crate) const fn attributes(self) -> Attributes {
        Attributes {
            kind: if self.0 & MEM_ATTR_MASK == MEM_ATTR_NORMAL {
                MemoryKind::Normal
            } else {
                MemoryKind::Device
            },
            access: Access {
                read: self.0 & S2AP_READ != 0,
                write: self.0 & S2AP_WRITE != 0,
                execute: self.0 & EXECUTE_NEVER == 0,
            },
        }
    }
}
