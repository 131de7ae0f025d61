//! Where a vCPU has its place, whether its registers are there, and how it moves to another CPU without losing what it is told.
//!
//! A CPU that tells a vCPU something first leaves it (in its inbox, its requests, its power cell), then looks at `loaded`, then at the
//! placement.
//! A CPU that moves it lets go of its registers, stores the new placement and only then tells the CPU there; that one looks at everything there
//! can be. So of these two, one sees the other: a sender that still saw the old placement left its message before the new CPU looks.
//! All of that is sequentially consistent. Model-checked by loom: `RUSTFLAGS="--cfg loom" cargo test -p hypervisor --release --lib model`.

#[cfg(not(all(loom, test)))]
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::sched::Slot;
use types::ids::{MAX_PCPUS, PcpuId};

/// A CPU, and a place in that CPU's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement(u32);

impl Placement {
    /// No place at all.
    pub const NOWHERE: Self = Self(0);
    /// Set in every other.
    const IS_PLACE: u32 = 1 << 31;
    const PCPU_SHIFT: u32 = 16;

    /// Names a place of a CPU.
    #[must_use]
    pub const fn new(pcpu: PcpuId, slot: Slot) -> Self {
        Self(Self::IS_PLACE | (pcpu.get() as u32) << Self::PCPU_SHIFT | slot.index() as u32)
    }

    /// Returns the physical CPU.
    #[inline(always)]
    #[must_use]
    pub const fn pcpu(self) -> PcpuId {
        PcpuId::new((self.0 >> Self::PCPU_SHIFT) as u16 % MAX_PCPUS as u16)
    }

    /// Returns the place in its queue.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot::from_low_bits(self.0 as u16)
    }
}

/// Where a vCPU is and where it is to go: nowhere at first.
#[derive(Debug, Default)]
pub struct PlacementCell {
    current: AtomicU32,
    /// Where a pending migration leads, or nowhere.
    pending: AtomicU32,
    /// Whether its registers are in its CPU, so that an interrupt there is enough for it to look at its inbox. The CPU that changes it
    /// looks for what others have left after.
    pub loaded: Loaded,
}

/// Where the registers of a vCPU are: at first in no CPU.
#[derive(Debug, Default)]
pub struct Loaded(AtomicU8);

impl Loaded {
    const AWAY: u8 = 0;
    const HERE: u8 = 1;
    const DISPLACED: u8 = 2;

    /// Returns whether they are in its CPU.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order) & Self::HERE != 0
    }

    /// Notes that they are in its CPU, or that it has none.
    #[inline(always)]
    pub fn store(&self, is_loaded: bool, order: Ordering) {
        let state = if is_loaded { Self::HERE } else { Self::AWAY };
        self.0.store(state, order);
    }

    /// Notes that its CPU has saved them, for another vCPU: what is asked of this one may have to hurry.
    #[inline(always)]
    pub fn displace(&self, order: Ordering) {
        self.0.store(Self::DISPLACED, order);
    }

    /// Returns whether its CPU has saved them.
    #[inline(always)]
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::DISPLACED != 0
    }
}

impl PlacementCell {
    /// Returns its place: from there on it runs only once that CPU has been told.
    #[inline(always)]
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement(self.current.load(Ordering::SeqCst))
    }

    /// Asks for its migration to a place that is kept free for it, if `from` is nowhere, and then its CPU is to be asked; or calls the
    /// migration off, if `to` is nowhere. Returns whether that could be: none was pending, or it had not been carried out.
    pub fn change_pending(&self, from: Placement, to: Placement) -> bool {
        self.pending
            .compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Returns whether a migration is pending.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst) != Placement::NOWHERE.0
    }

    /// Carries a pending migration out; returns the place that is free now. Its old CPU calls this, holding nothing of
    /// it any more, and tells the new one after.
    pub fn leave(&self) -> Option<Placement> {
        let to = self.pending.swap(Placement::NOWHERE.0, Ordering::SeqCst);
        (to != Placement::NOWHERE.0).then(|| Placement(self.current.swap(to, Ordering::SeqCst)))
    }
}

#[cfg(all(loom, test))]
mod model;

#[cfg(test)]
mod tests {
    use super::{MAX_PCPUS, PcpuId, Placement, PlacementCell, Slot};
    use crate::sched::MAX_SLOTS;

    fn place(pcpu: usize, slot: usize) -> Placement {
        Placement::new(PcpuId::new(pcpu as u16), Slot::new(slot).unwrap())
    }

    #[test]
    fn every_place_is_itself() {
        for (pcpu, slot) in [(0, 0), (MAX_PCPUS - 1, MAX_SLOTS - 1), (5, 300)] {
            let found = place(pcpu, slot);
            let named = (found.pcpu().index(), found.slot().index());
            assert_eq!(named, (pcpu, slot));
            assert_ne!(found, Placement::NOWHERE);
        }
    }

    #[test]
    fn one_migration_is_pending_at_a_time_and_carried_out_once() {
        const NOWHERE: Placement = Placement::NOWHERE;
        let at = PlacementCell::default();
        assert!(at.change_pending(NOWHERE, place(1, 2)));
        assert_eq!((at.leave(), at.placement()), (Some(NOWHERE), place(1, 2)));
        assert_eq!(at.leave(), None);
        assert!(at.change_pending(NOWHERE, place(3, 4)));
        assert!(
            !at.change_pending(NOWHERE, place(5, 6)),
            "the first one holds"
        );
        assert_eq!(at.placement(), place(1, 2), "its CPU decides when");
        assert!(at.is_pending() && !at.change_pending(place(5, 6), NOWHERE));
        assert_eq!(
            (at.leave(), at.placement()),
            (Some(place(1, 2)), place(3, 4))
        );
        assert!(!at.is_pending() && !at.change_pending(place(3, 4), NOWHERE));
        assert!(at.change_pending(NOWHERE, place(1, 2)) && at.change_pending(place(1, 2), NOWHERE));
        assert_eq!((at.leave(), at.placement()), (None, place(3, 4)));
    }
}
