//! EL2's own use of the CPU interface: acknowledge, drop, deactivate, and the kick from one CPU to another.

use super::frames::{gicc, gicd, gich};
use super::list_registers;
use crate::gic::KICK_SGI;
use crate::mmio::Registers;
use crate::sysreg::{dsb_ishst, dsb_sy, isb};
use types::gicv2;

/// What the software before us has decided about the bypass: bits 8 to 5 of GICC_CTLR (GIC IHI0048, 4.4.1).
const BYPASS: u32 = 0x1e0;
/// SGIs come first.
const FIRST_PPI: u32 = 16;
/// Words of active priorities (GIC IHI0048, 4.4.14).
const ACTIVE_PRIORITIES: u32 = 4;

/// Turns this CPU's interface on for EL2, with nothing active in it, and clears the guest's.
pub(in crate::gic) fn start_cpu() {
    let gicc = gicc();
    let bypass = gicc.read32(gicv2::GICC_CTLR) & BYPASS;
    gicc.write32(gicv2::GICC_CTLR, bypass);
    for word in 0..ACTIVE_PRIORITIES {
        gicc.write32(gicv2::GICC_APR + 4 * word, 0);
        gicc.write32(gicv2::GICC_NSAPR + 4 * word, 0);
    }
    list_registers::start();
    gich().write32(gicv2::GICH_APR, 0);
    gicc.write32(gicv2::GICC_PMR, 0xff);
    gicc.write32(gicv2::GICC_BPR, 0);
    let on = gicv2::GICC_CTLR_ENABLE | gicv2::GICC_CTLR_EOI_MODE;
    gicc.write32(gicv2::GICC_CTLR, bypass | on);
    dsb_sy();
    isb();
}

/// Keeps interrupts from this CPU, which is about to be turned off.
pub(in crate::gic) fn stop_cpu() {
    let gicc = gicc();
    let bypass = gicc.read32(gicv2::GICC_CTLR) & BYPASS;
    gicc.write32(gicv2::GICC_CTLR, bypass);
    dsb_sy();
}

/// Takes the highest-priority pending interrupt. An SGI ends at once: both writes that end it name its sender, which only this knows.
#[inline(always)]
pub(super) fn acknowledge() -> u32 {
    let gicc = gicc();
    let acknowledged = gicc.read32(gicv2::GICC_IAR);
    // As for a GICv3: what was posted before the interrupt was sent is read after.
    dsb_sy();
    let intid = acknowledged & gicv2::IAR_INTID;
    if intid < FIRST_PPI {
        gicc.write32(gicv2::GICC_EOIR, acknowledged);
        gicc.write32(gicv2::GICC_DIR, acknowledged);
    }
    intid
}

/// Lets interrupts of the same priority in again; the interrupt stays active.
#[inline(always)]
pub(super) fn drop_priority(intid: u32) {
    if intid >= FIRST_PPI {
        gicc().write32(gicv2::GICC_EOIR, intid);
    }
}

/// Ends an interrupt whose priority was dropped.
#[inline(always)]
pub(super) fn deactivate(intid: u32) {
    if intid >= FIRST_PPI {
        gicc().write32(gicv2::GICC_DIR, intid);
    }
}

/// Returns how this CPU is kicked: its number as a bit of CPUTargetList, which only the distributor tells (GIC IHI0048, 4.3.12).
pub(in crate::gic) fn kick_bits() -> u32 {
    own_target() << gicv2::SGIR_TARGETS_SHIFT
}

/// Returns the bit of this CPU's interface: its own interrupts go to itself. Some words may be empty of interrupts, and read as zero;
/// all are where there is but one CPU.
fn own_target() -> u32 {
    let words = (0..8).map(|word| gicd().read32(gicv2::GICD_ITARGETSR + 4 * word));
    let all = words.fold(0, |all, word| all | word);
    match (all | all >> 8 | all >> 16 | all >> 24) & 0xff {
        0 => 1,
        target => target,
    }
}

/// Sends the kick SGI to the CPU of [`kick_bits`].
#[inline(always)]
pub(super) fn send_kick(target: u32) {
    dsb_ishst();
    gicd().write32(gicv2::GICD_SGIR, target | KICK_SGI);
}

/// Routes a shared interrupt to this CPU.
pub(in crate::gic) fn route_here(distributor: Registers, intid: u32) {
    let target = own_target() as u8;
    distributor.write8(gicv2::GICD_ITARGETSR + intid, target);
}
