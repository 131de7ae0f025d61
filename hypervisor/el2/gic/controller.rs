//! The interrupt controller as a whole: set up at start, and then only to enable a line.

use alloc::vec::Vec;
use control_plane::host::{self, Line, PrivateInterrupts};
use core::sync::atomic::Ordering;
use types::address::HostPhys;
use types::gicv3;
use types::layout::GicVersion;

use super::{IS_V2, PrivateLines, v2, v3};
use crate::mmio::Registers;

/// The interrupt controller of the machine, started.
#[derive(Debug)]
pub(crate) struct Gic {
    distributor: Registers,
    private: Private,
    gicv: Option<HostPhys>,
}

/// Where the private interrupts' registers are.
#[derive(Debug)]
enum Private {
    /// The same for every CPU, which sees its own there.
    Banked(PrivateLines),
    /// By affinity.
    Redistributors(Vec<(u64, PrivateLines)>),
}

impl Gic {
    /// Maps and initialises the distributor, and finds every CPU's private interrupts.
    ///
    /// # Errors
    /// When there is no translation table left to map the registers.
    pub(crate) fn start(
        found: &host::Gic,
        private: PrivateInterrupts,
    ) -> Result<Self, &'static str> {
        IS_V2.store(found.version() == GicVersion::V2, Ordering::Relaxed);
        let (distributor, lines) = match found {
            host::Gic::V2(found) => {
                let distributor = v2::start(found, private)?;
                let lines = PrivateLines::banked(distributor);
                (distributor, Private::Banked(lines))
            }
            host::Gic::V3(found) => {
                let (distributor, redistributors) = v3::start(found)?;
                (distributor, Private::Redistributors(redistributors))
            }
        };
        Ok(Self {
            distributor,
            private: lines,
            gicv: found.virtual_interface().map(|range| range.base),
        })
    }

    /// Returns the private interrupts of the CPU with these affinity fields of MPIDR_EL1.
    pub(crate) fn private_lines(&self, affinity: u64) -> Option<PrivateLines> {
        match &self.private {
            Private::Banked(lines) => Some(*lines),
            Private::Redistributors(all) => {
                let own = all.iter().find(|(of, _)| *of == affinity);
                own.map(|(_, lines)| *lines)
            }
        }
    }

    /// Enables a shared interrupt, triggered as the tree says, and routes it to this CPU, which has this MPIDR affinity.
    pub(crate) fn enable_shared(&self, line: Line, affinity: u64) {
        let intid = line.intid;
        match self.private {
            Private::Banked(_) => v2::route_here(self.distributor, intid),
            Private::Redistributors(_) => v3::route(self.distributor, intid, affinity),
        }
        let configuration = gicv3::ICFGR + 4 * (intid / 16);
        let before = self.distributor.read32(configuration);
        self.distributor
            .write32(configuration, line.configured(before));
        let (word, bit) = (intid / 32, intid % 32);
        self.distributor
            .write32(gicv3::ISENABLER + 4 * word, 1 << bit);
    }

    /// Returns the first page of the CPU interface that a GICv2's guest uses, if there is one. This CPU is prepared for guests.
    pub(crate) fn gicv(&self) -> Option<HostPhys> {
        let is_native = matches!(self.private, Private::Banked(_));
        self.gicv.filter(|_| is_native || v3::knows_gicv2())
    }
}
