//! Register offsets and fields of the GICv3 memory map, with IHI0069's names (sections 12.9 to 12.11).

/// Size of the distributor's frame in bytes.
pub const GICD_SIZE: u64 = 0x1_0000;
/// Offset of SGI_base in a redistributor.
pub const SGI_BASE: u32 = 0x1_0000;

/// Distributor control.
pub const GICD_CTLR: u32 = 0x0000;
/// Distributor type.
pub const GICD_TYPER: u32 = 0x0004;
/// Distributor implementer.
pub const GICD_IIDR: u32 = 0x0008;
/// First SPI's routing register would be at `GICD_IROUTER + 8 * 32`.
pub const GICD_IROUTER: u32 = 0x6000;
/// First offset behind the routing registers.
pub const GICD_IROUTER_END: u32 = 0x8000;
/// Peripheral ID 2, in the distributor and in RD_base.
pub const PIDR2: u32 = 0xffe8;

/// GICD_CTLR.EnableGrp0.
pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
/// GICD_CTLR.EnableGrp1.
pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
/// GICD_CTLR.ARE: affinity routing, always on.
pub const CTLR_ARE: u32 = 1 << 4;
/// GICD_CTLR.DS: one security state.
pub const CTLR_DS: u32 = 1 << 6;

/// GICD_TYPER.IDbits (23:19): ten bits of INTID, minus one.
pub const TYPER_ID_BITS: u32 = 9 << 19;
/// GICD_TYPER.A3V: Aff3 may be non-zero in routing registers.
pub const TYPER_A3V: u32 = 1 << 24;

/// Product `B`, no JEP106 code: this interrupt controller is nobody's silicon.
pub const IIDR: u32 = 0x42 << 24;
/// GICv3, as a GIC of Arm's design says it (ArchRev 3, JEDEC, DES_1 3).
pub const PIDR2_GICV3: u32 = 0x3b;
/// Redistributor implementer.
pub const GICR_IIDR: u32 = 0x0004;
/// Redistributor type, 64 bits.
pub const GICR_TYPER: u32 = 0x0008;
/// Upper half of the redistributor type.
pub const GICR_TYPER_HIGH: u32 = 0x000c;
/// Power management of the redistributor.
pub const GICR_WAKER: u32 = 0x0014;

/// GICR_TYPER.Last: no redistributor follows in this region.
pub const GICR_TYPER_LAST: u64 = 1 << 4;
/// Shift of GICR_TYPER.Processor_Number.
pub const GICR_TYPER_NUMBER_SHIFT: u32 = 8;
/// Shift of GICR_TYPER.Affinity_Value.
pub const GICR_TYPER_AFFINITY_SHIFT: u32 = 32;
/// GICR_WAKER.ProcessorSleep.
pub const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
/// GICR_WAKER.ChildrenAsleep.
pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

/// GICD_IROUTER.Interrupt_Routing_Mode: any one participating PE.
pub const IROUTER_IRM: u64 = 1 << 31;
/// The priority bits implemented: five, the fewest a GICv3 with two security states may have (section 4.8).
pub const PRIORITY_MASK: u8 = 0xf8;
