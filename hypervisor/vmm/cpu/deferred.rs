//! What a CPU does besides running guests: starting and stopping VMs, and on the boot CPU the console and events.

use core::sync::atomic::Ordering;

use super::{Machine, Manager, Pcpu, SLICE_NS};
use crate::sched::{NEVER, Policy};

/// How long a CPU that no vCPU wants does its deferred work before it looks at everything else.
const IDLE_SHARE_NS: u64 = SLICE_NS / 4;
/// What it takes to leave a guest for a piece of such work and to come back.
const SWITCH_NS: u64 = 2000;

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Does deferred work for as long as its share of the CPU lasts.
    #[cold]
    pub(super) fn do_deferred(&mut self) {
        self.local.deferred.store(false, Ordering::Release);
        let (wanting, begun) = (self.queue.wanting(), self.machine.now());
        // What is owed from now on does not hold up a step whose time has come.
        let mut may_go_on = self.deferred.may_go_on(wanting, begun);
        self.publish();
        self.machine.manager().attend(self.local.id);
        let mut now = self.machine.now();
        self.owe(now - begun, now);
        let end = now + self.machine.ticks(IDLE_SHARE_NS);
        let mut more = true;
        // A step is short: an interrupt waits for one at most, and a vCPU that wants to run is owed as much time after each.
        while more && may_go_on {
            let begun = now;
            more = self
                .machine
                .manager()
                .go_on(self.local.id, &mut self.deferred_turn);
            now = self.machine.now();
            self.owe(now - begun, now);
            may_go_on = self.deferred.may_go_on(wanting, now);
            if now >= end || self.machine.is_interrupted() {
                break;
            }
        }
        self.deferred_ticks = match more {
            true => self.deferred.due_ticks(),
            false => NEVER,
        };
        self.power_down();
    }

    /// Notes that what was done for VMs beside their turns took the CPU from the vCPUs that want it, until now.
    pub(super) fn owe(&mut self, spent: u64, now: u64) {
        let most = self.machine.ticks(SLICE_NS);
        let spent = spent + self.machine.ticks(SWITCH_NS);
        self.deferred.charge(spent, self.queue.wanting(), now, most);
    }

    /// Has this CPU go on with deferred work that was begun, now that no vCPU wants it.
    #[inline]
    pub(super) fn resume_deferred(&self) {
        if self.is_busy() {
            self.local.deferred.store(true, Ordering::Release);
        }
    }

    /// Returns whether deferred work is left: a vCPU that waits in WFI gives the CPU to it.
    #[inline]
    pub(super) const fn is_busy(&self) -> bool {
        self.deferred_ticks != NEVER
    }
}
