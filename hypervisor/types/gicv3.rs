//! The GICv3 memory map: register offsets and fields with IHI0069's names (sections 12.9 to 12.11).
//!
//! EL2 drives the machine's distributor by it, and `vgic` emulates a guest's. What only the emulated one says of itself is there.

/// Size of the distributor's frame in bytes.
pub const GICD_SIZE: u64 = 0x1_0000;
/// Size of each frame of a redistributor in bytes; RD_base comes first.
pub const GICR_FRAME: u64 = 0x1_0000;
/// Offset of SGI_base in a redistributor.
pub const SGI_BASE: u32 = GICR_FRAME as u32;

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
/// PIDR2: where the architecture's revision stands, four bits (IHI0069, 12.1.11).
pub const PIDR2_ARCH_SHIFT: u32 = 4;
/// The revision of GICv3.
pub const ARCH_GICV3: u32 = 3;
/// The revision of GICv4.
pub const ARCH_GICV4: u32 = 4;

/// Interrupt groups, a bit each. This and the banks below are in the distributor for SPIs and in SGI_base for SGIs and PPIs.
pub const IGROUPR: u32 = 0x080;
/// Set-enable, a bit each.
pub const ISENABLER: u32 = 0x100;
/// Clear-enable, a bit each.
pub const ICENABLER: u32 = 0x180;
/// Set-pending, a bit each.
pub const ISPENDR: u32 = 0x200;
/// Clear-pending, a bit each.
pub const ICPENDR: u32 = 0x280;
/// Set-active, a bit each.
pub const ISACTIVER: u32 = 0x300;
/// Clear-active, a bit each.
pub const ICACTIVER: u32 = 0x380;
/// Priorities, a byte each.
pub const IPRIORITYR: u32 = 0x400;
/// First offset behind the priorities.
pub const IPRIORITYR_END: u32 = 0x800;
/// Configuration, two bits each.
pub const ICFGR: u32 = 0xc00;
/// First offset behind the configuration.
pub const ICFGR_END: u32 = 0xd00;

/// GICD_CTLR.EnableGrp0, with one security state.
pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
/// GICD_CTLR.EnableGrp1, with one security state.
pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
/// GICD_CTLR.EnableGrp1 as non-secure software sees it with two security states.
pub const CTLR_NS_ENABLE_GRP1: u32 = 1 << 0;
/// GICD_CTLR.EnableGrp1A as non-secure software sees it with two security states.
pub const CTLR_NS_ENABLE_GRP1A: u32 = 1 << 1;
/// GICD_CTLR.ARE: affinity routing; ARE_NS to non-secure software with two security states.
pub const CTLR_ARE: u32 = 1 << 4;
/// GICD_CTLR.DS: one security state.
pub const CTLR_DS: u32 = 1 << 6;
/// GICD_CTLR.RWP: a write is still on its way.
pub const CTLR_RWP: u32 = 1 << 31;

/// GICD_TYPER.ITLinesNumber: words of 32 interrupts, less one.
pub const TYPER_LINES: u32 = 0x1f;
/// GICD_TYPER.IDbits (23:19): ten bits of INTID, minus one.
pub const TYPER_ID_BITS: u32 = 9 << 19;
/// GICD_TYPER.A3V: Aff3 may be non-zero in routing registers.
pub const TYPER_A3V: u32 = 1 << 24;
/// GICD_IROUTER.Interrupt_Routing_Mode: any one participating PE.
pub const IROUTER_IRM: u64 = 1 << 31;

/// Redistributor implementer.
pub const GICR_IIDR: u32 = 0x0004;
/// Redistributor type, 64 bits.
pub const GICR_TYPER: u32 = 0x0008;
/// Upper half of the redistributor type.
pub const GICR_TYPER_HIGH: u32 = 0x000c;
/// Power management of the redistributor.
pub const GICR_WAKER: u32 = 0x0014;

/// GICR_TYPER.VLPIS: two more frames follow, for virtual LPIs.
pub const GICR_TYPER_VLPIS: u64 = 1 << 1;
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
