//! The seam to the list registers of a CPU, and the array that stands in for them while a vCPU is
//! not loaded.

use crate::lr::{LR_MAX, ListRegister};

/// Which events of the virtual CPU interface come to EL2, besides the ends that list registers ask
/// to hear of. Each version encodes them in its own control register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(u8);

impl Maintenance {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The guest ended an interrupt that is in no list register (ICH_HCR_EL2.LRENPIE).
    pub const ENTRY_NOT_PRESENT: Self = Self(1);
    /// No list register holds a pending interrupt (ICH_HCR_EL2.NPIE).
    pub const NO_PENDING: Self = Self(2);
    /// The guest deactivates an interrupt apart from its priority drop (ICH_HCR_EL2.TDIR).
    pub const DEACTIVATION: Self = Self(4);

    /// Tells whether all of `events` are among these.
    #[must_use]
    #[inline]
    pub const fn has(self, events: Self) -> bool {
        self.0 & events.0 == events.0
    }

    /// Returns these events and `more`.
    #[must_use]
    #[inline]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
}

/// The list registers of one vCPU: the hardware's while it is loaded, an array otherwise.
///
/// Indices passed in are always below [`Self::count`].
pub trait ListRegisters {
    /// Whether the guest may have a GICv3: a GICv2's list registers serve none, and need no code for one.
    const SERVE_GICV3: bool = true;

    /// Returns the number of list registers, 1 to 16.
    fn count(&self) -> usize;
    /// Reads list register `n`.
    fn read(&self, n: usize) -> ListRegister;
    /// Writes list register `n`.
    fn write(&mut self, n: usize, value: ListRegister);
    /// Returns which list registers are free to use (ICH_ELRSR_EL2, GICH_ELRSR).
    fn empty(&self) -> u32;
    /// Returns which list registers ask for EOI maintenance (ICH_EISR_EL2, GICH_EISR).
    fn eoi_status(&self) -> u32;
    /// Replaces the events that come to EL2.
    fn set_maintenance(&mut self, events: Maintenance);
    /// Returns how many interrupts the guest has ended that were in no list register, and sets that count to zero.
    fn take_eoi_count(&mut self) -> u32;
    /// Returns which private interrupts with a physical one behind them have their line high now, a bit each.
    ///
    /// A line that cannot be asked counts as high.
    fn lines(&self) -> u32;
}

/// The list registers of a vCPU that is loaded nowhere.
#[derive(Clone, Debug)]
pub struct SavedListRegisters {
    /// Values, in the order of the hardware's.
    pub values: [ListRegister; LR_MAX],
    /// Events that are to come to EL2 when the vCPU is loaded again.
    pub maintenance: Maintenance,
    /// Ends without a list register, as they were counted when the vCPU was unloaded.
    pub eoi_count: u32,
    count: u8,
}

impl SavedListRegisters {
    /// Returns `count` (1 to 16) empty list registers.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        let count = if count == 0 {
            1
        } else if count > LR_MAX {
            LR_MAX as u8
        } else {
            count as u8
        };
        Self {
            values: [ListRegister::EMPTY; LR_MAX],
            maintenance: Maintenance::NONE,
            eoi_count: 0,
            count,
        }
    }

    fn mask_of(&self, test: impl Fn(ListRegister) -> bool) -> u32 {
        let used = self.values.iter().take(self.count());
        used.enumerate()
            .fold(0, |mask, (n, &value)| mask | (u32::from(test(value)) << n))
    }
}

impl ListRegisters for SavedListRegisters {
    #[inline]
    fn count(&self) -> usize {
        usize::from(self.count)
    }

    #[inline]
    fn read(&self, n: usize) -> ListRegister {
        self.values.get(n).copied().unwrap_or_default()
    }

    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        if let Some(slot) = self.values.get_mut(n) {
            *slot = value;
        }
    }

    fn empty(&self) -> u32 {
        self.mask_of(|value| value.is_inactive() && !value.wants_eoi())
    }

    fn eoi_status(&self) -> u32 {
        self.mask_of(|value| value.is_inactive() && value.wants_eoi())
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        self.maintenance = events;
    }

    fn take_eoi_count(&mut self) -> u32 {
        core::mem::take(&mut self.eoi_count)
    }

    fn lines(&self) -> u32 {
        u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IntId;

    #[test]
    fn saved_status_follows_the_definitions_of_elrsr_and_eisr() {
        let mut saved = SavedListRegisters::new(4);
        let pending = ListRegister::pending(IntId::new(40).unwrap(), 0, true);
        let ended = pending.without_pending();
        saved.write(0, pending);
        saved.write(1, ended.asking_for_eoi());
        saved.write(2, ended.linked_to(ListRegister::LINK_EOI.into()));
        assert_eq!((saved.empty(), saved.eoi_status()), (0b1100, 0b0010));
        assert_eq!(
            (
                SavedListRegisters::new(0).count(),
                SavedListRegisters::new(99).count()
            ),
            (1, 16)
        );
    }
}
