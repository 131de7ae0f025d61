//! The GICv2 memory map: register offsets and fields with IHI0048's names (sections 4.3, 4.4 and 5.3).
//!
//! EL2 drives the machine's controller by it, and `vgic` emulates a guest's distributor. The banks of registers that every version
//! has at the same offsets are in [`crate::gicv3`].

/// Size of the distributor's registers in bytes.
pub const GICD_SIZE: u64 = 0x1000;
/// Distributor control.
pub const GICD_CTLR: u32 = 0x000;
/// Distributor type.
pub const GICD_TYPER: u32 = 0x004;
/// Distributor implementer.
pub const GICD_IIDR: u32 = 0x008;
/// Targets, a byte each.
pub const GICD_ITARGETSR: u32 = 0x800;
/// First offset behind the targets.
pub const GICD_ITARGETSR_END: u32 = 0xc00;
/// Software-generated interrupts.
pub const GICD_SGIR: u32 = 0xf00;
/// Clear-pending of SGIs, a byte of senders each.
pub const GICD_CPENDSGIR: u32 = 0xf10;
/// Set-pending of SGIs, a byte of senders each.
pub const GICD_SPENDSGIR: u32 = 0xf20;
/// First offset behind [`GICD_SPENDSGIR`].
pub const GICD_SPENDSGIR_END: u32 = 0xf30;
/// Peripheral ID 2.
pub const ICPIDR2: u32 = 0xfe8;

/// GICD_CTLR: group 0 is forwarded; to non-secure software with Security Extensions, group 1.
pub const GICD_CTLR_ENABLE: u32 = 1 << 0;
/// GICD_CTLR.EnableGrp1, without Security Extensions.
pub const GICD_CTLR_ENABLE_GRP1: u32 = 1 << 1;
/// GICD_TYPER.ITLinesNumber: words of 32 interrupts, less one.
pub const TYPER_LINES: u32 = 0x1f;
/// Lowest bit of GICD_TYPER.CPUNumber: CPU interfaces, less one.
pub const TYPER_CPUS_SHIFT: u32 = 5;
/// Lowest bit of GICD_SGIR.CPUTargetList.
pub const SGIR_TARGETS_SHIFT: u32 = 16;
/// Lowest bit of GICD_SGIR.TargetListFilter.
pub const SGIR_FILTER_SHIFT: u32 = 24;

/// Size of a CPU interface in bytes: a page, and one for GICC_DIR. GICV is the same.
pub const GICC_SIZE: u64 = 0x2000;
/// CPU interface control.
pub const GICC_CTLR: u32 = 0x0000;
/// Priority mask.
pub const GICC_PMR: u32 = 0x0004;
/// Binary point.
pub const GICC_BPR: u32 = 0x0008;
/// Interrupt acknowledge.
pub const GICC_IAR: u32 = 0x000c;
/// End of interrupt.
pub const GICC_EOIR: u32 = 0x0010;
/// First of four words of active priorities.
pub const GICC_APR: u32 = 0x00d0;
/// First of four words of active priorities of group 1, as secure software sees them.
pub const GICC_NSAPR: u32 = 0x00e0;
/// CPU interface implementer.
pub const GICC_IIDR: u32 = 0x00fc;
/// Deactivate interrupt.
pub const GICC_DIR: u32 = 0x1000;

/// GICC_CTLR: group 0 is signalled; to non-secure software with Security Extensions, group 1.
pub const GICC_CTLR_ENABLE: u32 = 1 << 0;
/// GICC_CTLR.EOImodeNS as non-secure software has it, EOImode without Security Extensions: GICC_EOIR only drops the priority.
pub const GICC_CTLR_EOI_MODE: u32 = 1 << 9;
/// GICC_IAR.Interrupt ID; above it is the CPU that sent an SGI.
pub const IAR_INTID: u32 = 0x3ff;

/// Size of the hypervisor's interface in bytes.
pub const GICH_SIZE: u64 = 0x1000;
/// Hypervisor control.
pub const GICH_HCR: u32 = 0x000;
/// What the virtual interface has.
pub const GICH_VTR: u32 = 0x004;
/// The guest's CPU interface.
pub const GICH_VMCR: u32 = 0x008;
/// Which list registers ask for EOI maintenance.
pub const GICH_EISR: u32 = 0x020;
/// Which list registers are free.
pub const GICH_ELRSR: u32 = 0x030;
/// Active priorities.
pub const GICH_APR: u32 = 0x0f0;
/// First list register.
pub const GICH_LR: u32 = 0x100;
