//! What a guest's interrupt controller says of itself; the map of its registers is `types::gicv3`.

/// GICD_IIDR and GICR_IIDR: product `B`, no JEP106 code: this interrupt controller is nobody's silicon.
pub const IIDR: u32 = 0x42 << 24;
/// PIDR2: GICv3, as a GIC of Arm's design says it (ArchRev 3, JEDEC, DES_1 3).
pub const PIDR2_GICV3: u32 = 0x3b;
/// The priority bits implemented: five, the fewest a GICv3 with two security states may have (section 4.8).
pub const PRIORITY_MASK: u8 = 0xf8;
