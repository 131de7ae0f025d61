//! What a guest's interrupt controller says of itself; the map of its registers is `types::gicv3`.

/// GICD_IIDR and GICR_IIDR: product `B`, no JEP106 code: this interrupt controller is no maker's silicon.
pub(super) const IIDR: u32 = 0x42 << 24;
/// PIDR2: GICv3, as a GIC of Arm's design says it (ArchRev 3, JEDEC, DES_1 3).
pub(super) const PIDR2_GICV3: u32 = 0x3b;
