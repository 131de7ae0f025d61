//! Physical interrupts behind virtual ones, where the hardware forgets them.
//!
//! When a guest ends an interrupt whose list register has HW set, the physical one ends with it, and comes again if its line is high.
//! QEMU's GICv2 (10.0 and 11.1, hw/intc/arm_gic.c) looks at the line only after an access to the distributor or to a physical CPU
//! interface, so a timer that is due again by then is lost. There such a list register asks for a maintenance interrupt at its end
//! instead ([`ends`]), and EL2 ends the physical interrupt. GICC_IIDR tells: it is that of the 32-bit Cortex-A15, which no CPU with an
//! AArch64 EL2 has beside it.

use control_plane::host::PrivateInterrupts;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use types::gicv2;
use vgic::v2::ends;

use super::frames::{gicc, gich, list_register_at};

/// GICC_IIDR of QEMU's.
const FORGETFUL: u32 = 0x0002_043b;

static IS_FORGETFUL: AtomicBool = AtomicBool::new(false);
static VIRTUAL: AtomicU32 = AtomicU32::new(0);
static PHYSICAL: AtomicU32 = AtomicU32::new(0);
/// No PPI where there is none.
static PMU: AtomicU32 = AtomicU32::new(0);

/// Finds out how it is here.
pub(super) fn start(private: PrivateInterrupts) {
    VIRTUAL.store(private.virt, Ordering::Relaxed);
    PHYSICAL.store(private.physical, Ordering::Relaxed);
    PMU.store(private.pmu.unwrap_or(0), Ordering::Relaxed);
    let forgets = gicc().read32(gicv2::GICC_IIDR) == FORGETFUL;
    IS_FORGETFUL.store(forgets, Ordering::Relaxed);
}

/// Returns whether EL2 ends physical interrupts here.
#[inline(always)]
pub(super) fn are_kept() -> bool {
    IS_FORGETFUL.load(Ordering::Relaxed)
}

/// The physical interrupts behind the guests': of two timers and of the PMU.
fn physical() -> [u32; 3] {
    [&VIRTUAL, &PHYSICAL, &PMU].map(|intid| intid.load(Ordering::Relaxed))
}

/// Returns what the hardware gets for a list register.
#[cold]
#[inline(never)]
pub(super) fn hidden(value: u32) -> u32 {
    ends::hide(value, physical())
}

/// Returns the list register at this offset as it was meant.
#[cold]
#[inline(never)]
pub(super) fn read(at: u32) -> u32 {
    end();
    ends::show(gich().read32(at), physical())
}

/// Ends the physical interrupts behind those that the guest has ended.
#[cold]
#[inline(never)]
pub(super) fn end() {
    let mut ended = gich().read32(gicv2::GICH_EISR);
    while ended != 0 {
        let at = list_register_at(ended.trailing_zeros() as usize);
        if let Some(intid) = ends::behind(gich().read32(at), physical()) {
            gich().write32(at, 0);
            gicc().write32(gicv2::GICC_DIR, intid);
        }
        ended &= ended - 1;
    }
}
