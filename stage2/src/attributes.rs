//! What a mapping is like, in words; `descriptor` has the bits.

/// The memory type stage 2 asks for; the stricter of it and the guest's own wins (Arm ARM D8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Normal, inner and outer write-back cacheable, inner shareable.
    Normal,
    /// Device-nGnRE.
    Device,
}

/// What a guest may do with a mapping. All false is a mapping that always faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Loads and table walks are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed, at EL1 and EL0.
    pub execute: bool,
}

impl Access {
    /// Loads, stores and fetches.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };
}

/// Memory type and permissions of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The memory type.
    pub kind: MemoryKind,
    /// The permissions.
    pub access: Access,
}

impl Attributes {
    /// Memory that a guest may only load from.
    pub const READ_ONLY: Self = Self {
        kind: MemoryKind::Normal,
        access: Access {
            read: true,
            write: false,
            execute: false,
        },
    };

    /// Guest RAM.
    pub const RAM: Self = Self {
        kind: MemoryKind::Normal,
        access: Access::ALL,
    };

    /// A device's registers that the guest reaches itself.
    pub const DEVICE: Self = Self {
        kind: MemoryKind::Device,
        access: Access {
            read: true,
            write: true,
            execute: false,
        },
    };
}
