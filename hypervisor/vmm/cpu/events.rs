//! vCPUs that were turned on or off, told a little later, so that no guest waits for it.

use core::sync::atomic::Ordering;

use super::{Machine, Manager, Pcpu};
use crate::sched::{NEVER, Policy, Slot};
use crate::vm::Vm;
use crate::vm::context::Owner;

/// How long it may wait to be told that a vCPU was turned on or off: longer than it takes to start one.
const WAIT_NS: u64 = 100_000;
/// How many such events wait at most.
const MOST: usize = 8;

/// Events that wait to be told.
#[derive(Debug)]
pub(super) struct Events {
    /// The vCPU, whether it was turned on, and when.
    pub(super) items: heapless::Vec<(Slot, bool, u64), MOST>,
    /// When the first of them is to be told, in counter ticks.
    pub(super) due_ticks: u64,
    wait_ticks: u64,
}

impl Events {
    pub(super) fn new<M: Machine>(machine: &M) -> Self {
        Self {
            items: heapless::Vec::new(),
            due_ticks: NEVER,
            wait_ticks: machine.ticks(WAIT_NS),
        }
    }
}

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Notes that a vCPU was turned on or off, if the operator or a resize wants to know.
    #[inline(always)]
    pub(super) fn announce(&mut self, vm: &Vm, slot: Slot, on: bool, now: u64) {
        if !vm.watched.load(Ordering::Relaxed) {
            return;
        }
        if self.events.items.is_full() {
            self.tell_events();
        }
        let _has_room = self.events.items.push((slot, on, now));
        self.events.due_ticks = self.events.due_ticks.min(now + self.events.wait_ticks);
    }

    /// Tells which vCPUs were turned on or off.
    #[cold]
    pub(super) fn tell_events(&mut self) {
        self.events.due_ticks = NEVER;
        for (slot, on, ticks) in core::mem::take(&mut self.events.items) {
            if let Some(Some(attached)) = self.attached.get(slot.index()) {
                let Owner { vm, vcpu } = attached.place;
                self.machine.manager().vcpu_changed(vm, vcpu, on, ticks);
            }
        }
    }
}
