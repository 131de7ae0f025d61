//! Where a GICv2's frames are. They are the same for all CPUs, so they are statics, and reached without a look at per-CPU data.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use control_plane::host::{GicV2, HostRange};
use core::sync::atomic::{AtomicU64, Ordering};
use types::{gicv2, gicv3};

use crate::gic::distributor::{map, reset_shared};
use crate::mmio::Registers;

/// Why the interrupt controller can't be used: something else is there.
const NO_GIC: &str = "no GICv2 answers there (ICPIDR2)";
/// ICPIDR2.ArchRev of a GICv2.
const ARCH_GICV2: u32 = 2;

static GICD: AtomicU64 = AtomicU64::new(0);
static GICC: AtomicU64 = AtomicU64::new(0);
static GICH: AtomicU64 = AtomicU64::new(0);

/// Size of a frame of which each 4 KiB are there sixteen times, so that the pages of 64 KiB have one each (GIC-400, DDI 0471, 3.2).
const ALIASED_SIZE: u64 = 0x2_0000;
/// The list registers that `vgic` uses.
const LIST_REGISTERS: usize = 0xf;
/// Where the last copy of its first 4 KiB is: the second 4 KiB follow.
const LAST_COPY: u64 = 0xf000;

/// Maps the frames and initialises the distributor, whose registers are returned.
///
/// # Errors
/// When there is no translation table left to map the registers.
pub(super) fn start(found: &GicV2) -> Result<Registers, &'static str> {
    let (distributor, hypervisor) = (found.distributor, found.hypervisor_interface);
    let (gicd_at, gich_at) = (distributor.base.get(), hypervisor.base.get());
    map(gicd_at..gicd_at + gicv2::GICD_SIZE)?;
    map(gich_at..gich_at + gicv2::GICH_SIZE)?;
    GICD.store(gicd_at, Ordering::Relaxed);
    GICH.store(gich_at, Ordering::Relaxed);
    GICC.store(cpu_interface(found.cpu_interface)?, Ordering::Relaxed);
    let gicd = gicd();
    if gicd.read32(gicv2::ICPIDR2) >> gicv3::PIDR2_ARCH_SHIFT & 0xf != ARCH_GICV2 {
        return Err(NO_GIC);
    }
    gicd.write32(gicv2::GICD_CTLR, 0);
    reset_shared(gicd, 0);
    gicd.write32(gicv2::GICD_CTLR, gicv2::GICD_CTLR_ENABLE);
    Ok(gicd)
}

/// Maps the CPU interface and returns where its two pages are next to each other.
fn cpu_interface(found: HostRange) -> Result<u64, &'static str> {
    let base = found.base.get();
    let is_large = found.size >= ALIASED_SIZE;
    let size = if is_large {
        ALIASED_SIZE
    } else {
        gicv2::GICC_SIZE
    };
    map(base..base + size)?;
    // SAFETY: mapped just now; the device tree names these as the CPU interface's registers.
    let registers = unsafe { Registers::new(base, size) };
    let who = |copy: u64| registers.read32(copy + u64::from(gicv2::GICC_IIDR));
    let is_aliased = is_large && who(0) == who(LAST_COPY);
    Ok(if is_aliased { base + LAST_COPY } else { base })
}

/// Returns the distributor.
#[inline(always)]
pub(super) fn gicd() -> Registers {
    // SAFETY: `start` has mapped this range of the device tree's before anything asks.
    unsafe { Registers::new(GICD.load(Ordering::Relaxed), gicv2::GICD_SIZE) }
}

/// Returns this CPU's interface.
#[inline(always)]
pub(super) fn gicc() -> Registers {
    // SAFETY: `start` has mapped this range of the device tree's before anything asks.
    unsafe { Registers::new(GICC.load(Ordering::Relaxed), gicv2::GICC_SIZE) }
}

/// Returns this CPU's hypervisor interface.
#[inline(always)]
pub(super) fn gich() -> Registers {
    // SAFETY: `start` has mapped this range of the device tree's before anything asks.
    unsafe { Registers::new(GICH.load(Ordering::Relaxed), gicv2::GICH_SIZE) }
}

/// Returns where the list register of this number is in [`gich`].
#[inline(always)]
pub(super) const fn list_register_at(n: usize) -> u32 {
    gicv2::GICH_LR + 4 * (n & LIST_REGISTERS) as u32
}
