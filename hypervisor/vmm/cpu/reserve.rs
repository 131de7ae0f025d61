//! A CPU whose vCPUs are all in reserve may be turned off, if their manifests say so.

use super::{Machine, Manager, Pcpu};
use crate::sched::{NEVER, Policy, Slot};

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Turns this CPU off for as long as it has nothing but vCPUs in reserve.
    ///
    /// Called after deferred work, so that a CPU without any does not pay for the question.
    #[cold]
    pub(super) fn power_down(&mut self) {
        if self.queue.live() != 0 || !self.is_all_reserve() {
            return;
        }
        self.tell_events();
        self.unload();
        for slot in (0..self.attached.len()).filter_map(Slot::new) {
            self.let_go(slot);
        }
        // A timer that fires while the CPU is off stays pending; under `-icount sleep=off` QEMU then waits for the end of time.
        self.machine.arm(NEVER);
        let is_wanted =
            || !self.local.wakes.is_empty() || self.local.has_deferred() || !self.is_all_reserve();
        if self.machine.power_down(is_wanted) {
            (self.hcr, self.cptr, self.world) = (0, 0, None);
        }
    }

    /// Returns whether this CPU has nothing but vCPUs in reserve, which its VMs let it sleep for, and no VM to start and stop.
    fn is_all_reserve(&self) -> bool {
        let cpu = self.local.id;
        let may_power_down = |vm: &_| self.machine.manager().may_power_down(vm);
        self.placements.is_all_reserve(cpu, may_power_down)
            && !self.machine.manager().is_manager(cpu)
    }
}
