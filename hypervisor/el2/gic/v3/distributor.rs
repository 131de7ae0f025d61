//! The physical distributor and redistributors: set up at start, and then only to enable a line or move an active bit.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use crate::mmio::Registers;
use crate::mmu::{self, Use};
use alloc::vec::Vec;
use control_plane::host::GicV3;
use types::gicv3;

/// The priority of all of EL2's interrupts, four bytes at a time.
const DEFAULT_PRIORITY: u32 = 0xa0a0_a0a0;

/// The physical distributor.
#[derive(Debug)]
pub(crate) struct Gic {
    distributor: Registers,
    redistributors: Vec<(u64, Redistributor)>,
}

/// One CPU's physical redistributor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redistributor {
    control: Registers,
    sgi: Registers,
}

/// Why the interrupt controller can't be used: there is no translation table left, or something else is there.
const NOT_MAPPED: &str = "its registers can't be mapped";
const NO_GIC: &str = "no GICv3 or GICv4 answers there (GICD_PIDR2)";

impl Gic {
    /// Maps and initialises the distributor and finds every CPU's redistributor.
    ///
    /// # Errors
    /// When there is no translation table left to map the registers.
    pub(crate) fn start(found: &GicV3) -> Result<Self, &'static str> {
        let distributor = found.distributor.base.get();
        mmu::map_identity(distributor..distributor + gicv3::GICD_SIZE, Use::Device)
            .map_err(|_| NOT_MAPPED)?;
        // SAFETY: mapped just now; the device tree names these as the distributor's registers.
        let registers = unsafe { Registers::new(distributor, gicv3::GICD_SIZE) };
        let revision = registers.read32(gicv3::PIDR2) >> gicv3::PIDR2_ARCH_SHIFT & 0xf;
        if !matches!(revision, gicv3::ARCH_GICV3 | gicv3::ARCH_GICV4) {
            return Err(NO_GIC);
        }
        let mut gic = Self {
            distributor: registers,
            redistributors: Vec::new(),
        };
        for region in &found.redistributors {
            gic.find_redistributors(region.base.get(), region.size, found.stride)?;
        }
        gic.reset();
        Ok(gic)
    }

    fn find_redistributors(
        &mut self,
        base: u64,
        size: u64,
        stride: Option<u64>,
    ) -> Result<(), &'static str> {
        mmu::map_identity(base..base + size, Use::Device).map_err(|_| NOT_MAPPED)?;
        let mut at = base;
        while at + 2 * gicv3::GICR_FRAME <= base + size {
            // SAFETY: within the region mapped just now; the device tree names it as redistributor registers.
            let control = unsafe { Registers::new(at, gicv3::GICR_FRAME) };
            // SAFETY: the second frame of the same redistributor, within the same region.
            let sgi = unsafe { Registers::new(at + gicv3::GICR_FRAME, gicv3::GICR_FRAME) };
            let typer = control.read64(gicv3::GICR_TYPER);
            self.redistributors.push((
                typer >> gicv3::GICR_TYPER_AFFINITY_SHIFT,
                Redistributor { control, sgi },
            ));
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

    fn wait(&self) {
        while self.distributor.read32(gicv3::GICD_CTLR) & gicv3::CTLR_RWP != 0 {
            core::hint::spin_loop();
        }
    }

    fn reset(&self) {
        let gicd = self.distributor;
        gicd.write32(gicv3::GICD_CTLR, 0);
        self.wait();
        let words = (gicd.read32(gicv3::GICD_TYPER) & gicv3::TYPER_LINES) + 1;
        for word in 1..words {
            gicd.write32(gicv3::ICENABLER + 4 * word, u32::MAX);
            gicd.write32(gicv3::ICACTIVER + 4 * word, u32::MAX);
            gicd.write32(gicv3::IGROUPR + 4 * word, u32::MAX);
            for byte_word in 0..8 {
                gicd.write32(
                    gicv3::IPRIORITYR + 32 * word + 4 * byte_word,
                    DEFAULT_PRIORITY,
                );
            }
        }
        gicd.write32(
            gicv3::GICD_CTLR,
            gicv3::CTLR_ARE | gicv3::CTLR_NS_ENABLE_GRP1A | gicv3::CTLR_NS_ENABLE_GRP1,
        );
        self.wait();
    }

    /// Finds the redistributor of the CPU with these affinity fields of MPIDR_EL1.
    pub(crate) fn redistributor(&self, affinity: u64) -> Option<Redistributor> {
        let affinity = packed_affinity(affinity);
        self.redistributors
            .iter()
            .find(|(of, _)| *of == affinity)
            .map(|(_, redistributor)| *redistributor)
    }

    /// Enables a shared interrupt and routes it to the CPU with this MPIDR affinity.
    pub(crate) fn enable_shared(&self, intid: u32, affinity: u64) {
        let (word, bit) = (intid / 32, intid % 32);
        self.distributor
            .write64(gicv3::GICD_IROUTER + 8 * intid, affinity);
        self.distributor
            .write32(gicv3::ISENABLER + 4 * word, 1 << bit);
    }
}

impl Redistributor {
    /// Wakes the redistributor and puts its SGIs and PPIs into group 1, disabled but for those in `enabled`.
    pub(crate) fn start(self, enabled: u32) {
        let waker = self.control.read32(gicv3::GICR_WAKER) & !gicv3::WAKER_PROCESSOR_SLEEP;
        self.control.write32(gicv3::GICR_WAKER, waker);
        while self.control.read32(gicv3::GICR_WAKER) & gicv3::WAKER_CHILDREN_ASLEEP != 0 {
            core::hint::spin_loop();
        }
        self.sgi.write32(gicv3::ICENABLER, u32::MAX);
        self.sgi.write32(gicv3::ICACTIVER, u32::MAX);
        self.sgi.write32(gicv3::IGROUPR, u32::MAX);
        for word in 0..8 {
            self.sgi
                .write32(gicv3::IPRIORITYR + 4 * word, DEFAULT_PRIORITY);
        }
        self.sgi.write32(gicv3::ISENABLER, enabled);
    }

    /// Returns which private interrupts are pending, a bit each, enabled or not.
    pub(crate) fn pending(self) -> u32 {
        self.sgi.read32(gicv3::ISPENDR)
    }

    /// Makes a private interrupt active, as it was when its vCPU was last here.
    pub(crate) fn set_active(self, intid: u32) {
        self.sgi.write32(gicv3::ISACTIVER, 1 << intid);
    }

    /// Makes a private interrupt inactive, so that the next vCPU can have it.
    pub(crate) fn clear_active(self, intid: u32) {
        self.sgi.write32(gicv3::ICACTIVER, 1 << intid);
    }
}

/// Packs affinity fields as GICR_TYPER has them: four adjacent bytes.
const fn packed_affinity(affinity: u64) -> u64 {
    affinity & 0xff_ffff | affinity >> 8 & 0xff00_0000
}
