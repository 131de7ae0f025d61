//! The physical distributor and redistributors: set up at start, and then only to enable a line or move an active bit.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use crate::mmio::Registers;
use crate::mmu::{self, Use};
use alloc::vec::Vec;

/// Register offsets and bits (GIC IHI0069, 12.9 and 12.11).
mod spec {
    pub(super) const GICD_SIZE: u64 = 0x1_0000;
    pub(super) const GICD_CTLR: u64 = 0;
    pub(super) const GICD_CTLR_RWP: u32 = 1 << 31;
    pub(super) const GICD_CTLR_ARE_NS: u32 = 1 << 4;
    pub(super) const GICD_CTLR_ENABLE_G1A: u32 = 1 << 1;
    pub(super) const GICD_CTLR_ENABLE_G1: u32 = 1;
    pub(super) const GICD_TYPER: u64 = 4;
    pub(super) const IGROUPR: u64 = 0x80;
    pub(super) const ISENABLER: u64 = 0x100;
    pub(super) const ICENABLER: u64 = 0x180;
    pub(super) const ISACTIVER: u64 = 0x300;
    pub(super) const ICACTIVER: u64 = 0x380;
    pub(super) const IPRIORITYR: u64 = 0x400;
    pub(super) const IROUTER: u64 = 0x6000;
    pub(super) const GICR_FRAME: u64 = 0x1_0000;
    pub(super) const GICR_TYPER: u64 = 8;
    pub(super) const GICR_TYPER_LAST: u64 = 1 << 4;
    pub(super) const GICR_TYPER_VLPIS: u64 = 1 << 1;
    pub(super) const GICR_WAKER: u64 = 0x14;
    pub(super) const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
    pub(super) const DEFAULT_PRIORITY: u32 = 0xa0a0_a0a0;
}

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

/// Why the interrupt controller can't be used: there is no translation table left.
const NOT_MAPPED: &str = "its registers can't be mapped";

impl Gic {
    /// Maps and initialises the distributor and finds every CPU's redistributor.
    ///
    /// # Errors
    /// When there is no translation table left to map the registers.
    pub(crate) fn start(
        distributor: u64,
        regions: impl Iterator<Item = (u64, u64)>,
    ) -> Result<Self, &'static str> {
        mmu::map_identity(distributor..distributor + spec::GICD_SIZE, Use::Device)
            .map_err(|_| NOT_MAPPED)?;
        // SAFETY: mapped just now; the device tree names these as the distributor's registers.
        let registers = unsafe { Registers::new(distributor, spec::GICD_SIZE) };
        let mut gic = Self {
            distributor: registers,
            redistributors: Vec::new(),
        };
        for (base, size) in regions {
            gic.find_redistributors(base, size)?;
        }
        gic.reset();
        Ok(gic)
    }

    fn find_redistributors(&mut self, base: u64, size: u64) -> Result<(), &'static str> {
        mmu::map_identity(base..base + size, Use::Device).map_err(|_| NOT_MAPPED)?;
        let mut at = base;
        while at + 2 * spec::GICR_FRAME <= base + size {
            // SAFETY: within the region mapped just now; the device tree names it as redistributor registers.
            let control = unsafe { Registers::new(at, spec::GICR_FRAME) };
            // SAFETY: the second frame of the same redistributor, within the same region.
            let sgi = unsafe { Registers::new(at + spec::GICR_FRAME, spec::GICR_FRAME) };
            let typer = control.read64(spec::GICR_TYPER);
            self.redistributors
                .push((typer >> 32, Redistributor { control, sgi }));
            if typer & spec::GICR_TYPER_LAST != 0 {
                break;
            }
            let frames = if typer & spec::GICR_TYPER_VLPIS != 0 {
                4
            } else {
                2
            };
            at += frames * spec::GICR_FRAME;
        }
        Ok(())
    }

    fn wait(&self) {
        while self.distributor.read32(spec::GICD_CTLR) & spec::GICD_CTLR_RWP != 0 {
            core::hint::spin_loop();
        }
    }

    fn reset(&self) {
        let gicd = self.distributor;
        gicd.write32(spec::GICD_CTLR, 0);
        self.wait();
        let words = u64::from(gicd.read32(spec::GICD_TYPER) & 0x1f) + 1;
        for word in 1..words {
            gicd.write32(spec::ICENABLER + 4 * word, u32::MAX);
            gicd.write32(spec::ICACTIVER + 4 * word, u32::MAX);
            gicd.write32(spec::IGROUPR + 4 * word, u32::MAX);
            for byte_word in 0..8 {
                gicd.write32(
                    spec::IPRIORITYR + 32 * word + 4 * byte_word,
                    spec::DEFAULT_PRIORITY,
                );
            }
        }
        gicd.write32(
            spec::GICD_CTLR,
            spec::GICD_CTLR_ARE_NS | spec::GICD_CTLR_ENABLE_G1A | spec::GICD_CTLR_ENABLE_G1,
        );
        self.wait();
    }

    /// Finds the redistributor of the CPU with this affinity (Aff3.Aff2.Aff1.Aff0 as in GICR_TYPER).
    pub(crate) fn redistributor(&self, affinity: u64) -> Option<Redistributor> {
        self.redistributors
            .iter()
            .find(|(of, _)| *of == affinity)
            .map(|(_, redistributor)| *redistributor)
    }

    /// Enables a shared interrupt and routes it to the CPU with this MPIDR affinity.
    pub(crate) fn enable_shared(&self, intid: u32, affinity: u64) {
        let (word, bit) = (u64::from(intid / 32), intid % 32);
        self.distributor
            .write64(spec::IROUTER + 8 * u64::from(intid), affinity);
        self.distributor
            .write32(spec::ISENABLER + 4 * word, 1 << bit);
    }
}

impl Redistributor {
    /// Wakes the redistributor and puts its SGIs and PPIs into group 1, disabled but for those in `enabled`.
    pub(crate) fn start(self, enabled: u32) {
        let waker = self.control.read32(spec::GICR_WAKER) & !spec::WAKER_PROCESSOR_SLEEP;
        self.control.write32(spec::GICR_WAKER, waker);
        while self.control.read32(spec::GICR_WAKER) & spec::WAKER_CHILDREN_ASLEEP != 0 {
            core::hint::spin_loop();
        }
        self.sgi.write32(spec::ICENABLER, u32::MAX);
        self.sgi.write32(spec::ICACTIVER, u32::MAX);
        self.sgi.write32(spec::IGROUPR, u32::MAX);
        for word in 0..8 {
            self.sgi
                .write32(spec::IPRIORITYR + 4 * word, spec::DEFAULT_PRIORITY);
        }
        self.sgi.write32(spec::ISENABLER, enabled);
    }

    /// Makes a private interrupt active, as it was when its vCPU was last here.
    pub(crate) fn set_active(self, intid: u32) {
        self.sgi.write32(spec::ISACTIVER, 1 << intid);
    }

    /// Makes a private interrupt inactive, so that the next vCPU can have it.
    pub(crate) fn clear_active(self, intid: u32) {
        self.sgi.write32(spec::ICACTIVER, 1 << intid);
    }
}
