//! Which vCPUs are placed on each CPU: a slot is taken when a vCPU is made or is about to move, and freed when it has moved away.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use psci::State;

use crate::sched::Slot;
use crate::sync::FairMutex;
use crate::vm::context::Owner;
use crate::vm::{Placement, Vm};
use types::ids::PcpuId;

/// The vCPUs that are placed on each CPU, or are about to be, by slot.
#[derive(Debug)]
pub struct Placements {
    slots: Vec<FairMutex<Vec<Option<Owner>>>>,
    /// How many of all these slots have been freed: while there is none, there is no search for one.
    freed: AtomicUsize,
}

impl Placements {
    /// Makes the table of so many CPUs, on which nothing is placed.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        let none = || FairMutex::new(Vec::new());
        Self {
            slots: core::iter::repeat_with(none).take(cpus).collect(),
            freed: AtomicUsize::new(0),
        }
    }

    /// Keeps a slot of a CPU for a vCPU; `None` if all 512 are taken.
    #[must_use]
    pub fn take(&self, place: Owner, pcpu: PcpuId) -> Option<Placement> {
        let mut slots = self.slots[pcpu.index()].lock();
        let mut free = None;
        if self.freed.load(Ordering::Relaxed) != 0 {
            free = slots.iter().position(Option::is_none);
        }
        let slot = Slot::new(free.unwrap_or(slots.len()))?;
        match free {
            Some(_) => _ = self.freed.fetch_sub(1, Ordering::Relaxed),
            None => slots.push(None),
        }
        slots[slot.index()] = Some(place);
        Some(Placement::new(pcpu, slot))
    }

    /// Lets other vCPUs have a slot.
    pub fn free(&self, placement: Placement) {
        self.slots[placement.pcpu().index()].lock()[placement.slot().index()] = None;
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the vCPU for which a slot is kept.
    #[inline(always)]
    pub(super) fn get(&self, pcpu: PcpuId, slot: Slot) -> Option<Owner> {
        let slots = self.slots[pcpu.index()].lock();
        slots.get(slot.index()).copied().flatten()
    }

    /// Returns whether every vCPU that is placed on a CPU is in reserve, and `may_power_down` says of its VM that the CPU may be turned
    /// off. There are some.
    pub(super) fn is_all_reserve(
        &self,
        pcpu: PcpuId,
        may_power_down: impl Fn(&Vm) -> bool,
    ) -> bool {
        let slots = self.slots[pcpu.index()].lock();
        let mut places = slots.iter().flatten().peekable();
        places.peek().is_some()
            && places
                .all(|place| place.vcpu.power.state() == State::Reserve && may_power_down(place.vm))
    }
}
