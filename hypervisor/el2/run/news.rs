//! vCPUs that came and went, told a little later, so that nobody waits for it.

use vmm::sched::Slot;
use vmm::vm::Vm;

use super::Runner;
use crate::percpu::Loaded;
use crate::{clock, timer, vms};
use core::sync::atomic::Ordering;

/// How long a vCPU's coming or going may wait to be told: longer than it takes to start.
const WAIT_NS: u64 = 100_000;
/// Most that waits to be told.
const MOST: usize = 8;

/// What waits to be told.
pub(super) struct News {
    /// Who, whether it came or went, and when.
    pub(super) items: heapless::Vec<(Slot, bool, u64), MOST>,
    /// When the first of it is to be told.
    pub(super) due_ticks: u64,
    wait_ticks: u64,
}

impl News {
    pub(super) fn new() -> Self {
        Self {
            items: heapless::Vec::new(),
            due_ticks: timer::NEVER,
            wait_ticks: clock::duration_ticks(WAIT_NS),
        }
    }
}

impl Runner {
    /// Notes that a vCPU came or went, if anybody wants to know.
    #[inline]
    pub(super) fn announce(&mut self, vm: &Vm, slot: Slot, on: bool, now: u64) {
        if !vm.watched.load(Ordering::Relaxed) {
            return;
        }
        if self.news.items.is_full() {
            self.tell_news();
        }
        let _has_room = self.news.items.push((slot, on, now));
        self.news.due_ticks = self.news.due_ticks.min(now + self.news.wait_ticks);
    }

    /// Tells which vCPUs came or went.
    #[cold]
    pub(super) fn tell_news(&mut self) {
        self.news.due_ticks = timer::NEVER;
        for (slot, on, ticks) in core::mem::take(&mut self.news.items) {
            if let Some(Some(attached)) = self.attached.get(slot.index()) {
                let Loaded { vm, vcpu } = attached.place;
                vms::vcpu_changed(vm, vcpu, on, ticks);
            }
        }
    }
}
