//! The private interrupts of this machine, and which of them stand behind the guests' timers.
//!
//! A guest's timers have the INTIDs that most machines have; a machine's own are those of its device tree.

use control_plane::host::PrivateInterrupts;
use types::layout::VIRTUAL_TIMER;

use super::KICK_SGI;

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
        let bits = self.own.all().map(|intid| 1 << intid);
        bits.iter().fold(1 << KICK_SGI, |all, bit| all | bit)
    }

    /// Returns the physical interrupt behind a guest's private one.
    #[inline(always)]
    pub(crate) fn behind(&self, guest: u32) -> u32 {
        match guest {
            VIRTUAL_TIMER => self.own.virt,
            _ => self.own.physical,
        }
    }
}
