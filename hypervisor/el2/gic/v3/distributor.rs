//! The physical distributor's registers of this version, and the redistributors.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use alloc::vec::Vec;
use control_plane::host::GicV3;
use types::gicv3;

use crate::gic::PrivateLines;
use crate::gic::distributor::{map, reset_shared, wait_cleared};
use crate::mmio::Registers;

/// Why the interrupt controller can't be used: something else is there.
const NO_GIC: &str = "no GICv3 or GICv4 answers there (GICD_PIDR2)";
/// The same: it never ends what it does.
const BUSY: &str = "its distributor takes no writes (GICD_CTLR.RWP)";

/// The private interrupts of a CPU, by its affinity as MPIDR_EL1 has it.
type OfCpu = (u64, PrivateLines);

/// Maps and initialises the distributor and finds every CPU's redistributor.
///
/// # Errors
/// When something else is there, or there is no translation table left to map the registers.
pub(in crate::gic) fn start(found: &GicV3) -> Result<(Registers, Vec<OfCpu>), &'static str> {
    let at = found.distributor.base.get();
    map(at..at + gicv3::GICD_SIZE)?;
    // SAFETY: mapped just now; the device tree names these as the distributor's registers.
    let distributor = unsafe { Registers::new(at, gicv3::GICD_SIZE) };
    let revision = distributor.read32(gicv3::PIDR2) >> gicv3::PIDR2_ARCH_SHIFT & 0xf;
    if !matches!(revision, gicv3::ARCH_GICV3 | gicv3::ARCH_GICV4) {
        return Err(NO_GIC);
    }
    let mut redistributors = Vec::new();
    for region in &found.redistributors {
        let region = (region.base.get(), region.size);
        find_redistributors(region, found.stride, &mut redistributors)?;
    }
    reset(distributor)?;
    Ok((distributor, redistributors))
}

fn find_redistributors(
    (base, size): (u64, u64),
    stride: Option<u64>,
    all: &mut Vec<OfCpu>,
) -> Result<(), &'static str> {
    map(base..base + size)?;
    let mut at = base;
    while at + 2 * gicv3::GICR_FRAME <= base + size {
        // SAFETY: within the region mapped just now; the device tree names it as redistributor registers.
        let control = unsafe { Registers::new(at, gicv3::GICR_FRAME) };
        // SAFETY: the second frame of the same redistributor, within the same region.
        let sgi = unsafe { Registers::new(at + gicv3::GICR_FRAME, gicv3::GICR_FRAME) };
        let typer = control.read64(gicv3::GICR_TYPER);
        let affinity = unpacked_affinity(typer >> gicv3::GICR_TYPER_AFFINITY_SHIFT);
        all.push((affinity, PrivateLines::redistributor(control, sgi)));
        if typer & gicv3::GICR_TYPER_LAST != 0 {
            break;
        }
        let frames = if typer & gicv3::GICR_TYPER_VLPIS != 0 {
            4
        } else {
            2
        };
        at += stride.unwrap_or(frames * gicv3::GICR_FRAME);
    }
    Ok(())
}

/// Waits until what was written has taken effect.
fn settle(distributor: Registers) -> Result<(), &'static str> {
    wait_cleared(distributor, gicv3::GICD_CTLR, gicv3::CTLR_RWP, BUSY)
}

/// Puts all into group 1 non-secure, with affinity routing.
fn reset(distributor: Registers) -> Result<(), &'static str> {
    distributor.write32(gicv3::GICD_CTLR, 0);
    settle(distributor)?;
    reset_shared(distributor, u32::MAX);
    distributor.write32(
        gicv3::GICD_CTLR,
        gicv3::CTLR_ARE | gicv3::CTLR_NS_ENABLE_GRP1A | gicv3::CTLR_NS_ENABLE_GRP1,
    );
    settle(distributor)
}

/// Routes a shared interrupt to the CPU with this MPIDR affinity.
pub(in crate::gic) fn route(distributor: Registers, intid: u32, affinity: u64) {
    distributor.write64(gicv3::GICD_IROUTER + 8 * intid, affinity);
}

/// Returns affinity fields where MPIDR_EL1 has them; GICR_TYPER has four adjacent bytes.
const fn unpacked_affinity(packed: u64) -> u64 {
    packed & 0xff_ffff | (packed & 0xff00_0000) << 8
}
