//! The private interrupts of this machine: which of them stand behind the guests' timers and PMUs, and the registers of one CPU's.
//!
//! A guest's have the INTIDs that most machines have; a machine's own are those of its device tree.

use control_plane::host::PrivateInterrupts;
use types::gicv3;
use types::layout::{PMU_OVERFLOW, VIRTUAL_TIMER};

use super::distributor::wait_cleared;
use super::{DEFAULT_PRIORITY, KICK_SGI};
use crate::mmio::Registers;

/// Why a CPU can't be used.
const ASLEEP: &str = "its redistributor does not wake (GICR_WAKER.ChildrenAsleep)";

/// The private interrupts that EL2 takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ppis {
    /// The machine's.
    pub(crate) own: PrivateInterrupts,
}

impl Ppis {
    /// Names the machine's private interrupts.
    pub(crate) const fn new(own: PrivateInterrupts) -> Self {
        Self { own }
    }

    /// Returns the interrupts to enable on every CPU, a bit each.
    pub(crate) fn enabled(self) -> u32 {
        let pmu = self.own.pmu.map_or(0, |intid| 1 << intid);
        let bits = self.own.all().map(|intid| 1 << intid);
        bits.iter().fold(1 << KICK_SGI | pmu, |all, bit| all | bit)
    }

    /// Returns the physical interrupt behind a guest's private one.
    #[inline(always)]
    pub(crate) fn behind(&self, guest: u32) -> u32 {
        match guest {
            VIRTUAL_TIMER => self.own.virt,
            PMU_OVERFLOW => self.own.pmu.unwrap_or(self.own.physical),
            _ => self.own.physical,
        }
    }
}

/// The registers of one CPU's SGIs and PPIs: SGI_base of its redistributor, or the first words of a GICv2's distributor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrivateLines {
    banks: Registers,
    /// RD_base of the redistributor, which sleeps at first.
    control: Option<Registers>,
    groups: u32,
}

impl PrivateLines {
    /// Names those of a GICv2, where each CPU sees its own. All are in group 0, which is what non-secure software calls group 1.
    pub(super) const fn banked(distributor: Registers) -> Self {
        Self {
            banks: distributor,
            control: None,
            groups: 0,
        }
    }

    /// Names those of a redistributor. All are in group 1.
    pub(super) const fn redistributor(control: Registers, sgi: Registers) -> Self {
        Self {
            banks: sgi,
            control: Some(control),
            groups: u32::MAX,
        }
    }

    /// Wakes the redistributor, and disables all but those in `enabled`.
    ///
    /// # Errors
    /// When the redistributor stays asleep: nothing of it may be used then (GIC IHI0069, 12.11.42).
    pub(crate) fn start(self, enabled: u32) -> Result<(), &'static str> {
        if let Some(control) = self.control {
            let waker = control.read32(gicv3::GICR_WAKER) & !gicv3::WAKER_PROCESSOR_SLEEP;
            control.write32(gicv3::GICR_WAKER, waker);
            let asleep = gicv3::WAKER_CHILDREN_ASLEEP;
            wait_cleared(control, gicv3::GICR_WAKER, asleep, ASLEEP)?;
        }
        self.banks.write32(gicv3::ICENABLER, u32::MAX);
        self.banks.write32(gicv3::ICACTIVER, u32::MAX);
        self.banks.write32(gicv3::IGROUPR, self.groups);
        for word in 0..8 {
            let at = gicv3::IPRIORITYR + 4 * word;
            self.banks.write32(at, DEFAULT_PRIORITY);
        }
        self.banks.write32(gicv3::ISENABLER, enabled);
        Ok(())
    }

    /// Returns which private interrupts are pending, a bit each, enabled or not.
    pub(crate) fn pending(self) -> u32 {
        self.banks.read32(gicv3::ISPENDR)
    }

    /// Makes a private interrupt active, as it was when its vCPU was last here.
    pub(crate) fn set_active(self, intid: u32) {
        self.banks.write32(gicv3::ISACTIVER, 1 << intid);
    }

    /// Makes a private interrupt inactive, so that the next vCPU can have it.
    pub(crate) fn clear_active(self, intid: u32) {
        self.banks.write32(gicv3::ICACTIVER, 1 << intid);
    }
}
