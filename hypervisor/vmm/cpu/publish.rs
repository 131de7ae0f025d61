//! What a CPU keeps to itself for a while, because nothing on a trap's path shall wait for it, and publishes when it is asked.

use super::{Machine, Manager, Pcpu};
use crate::features::hcr;
use crate::sched::{Policy, Slot};
use crate::vm::context::Owner;

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Publishes what this CPU keeps, if it was asked.
    pub(super) fn publish(&mut self) {
        let id = self.local.id;
        let Some(round) = self.machine.manager().asked(id) else {
            return;
        };
        self.tell_events();
        for slot in (0..self.attached.len()).filter_map(Slot::new) {
            self.publish_account(slot);
        }
        self.machine.manager().published(id, round);
    }

    /// Publishes what a vCPU has had of this CPU until now, or until it went off.
    #[cold]
    pub(super) fn publish_account(&mut self, slot: Slot) {
        if let Some(Some(attached)) = self.attached.get(slot.index())
            && let Some([account, begun]) = self.queue.book(slot, self.machine.now())
        {
            let Owner { vm, vcpu } = attached.place;
            let usage = &vcpu.usage;
            usage.publish_begun(begun);
            let counts_sleep = !self.traps_wfi() && vm.policy.hcr & hcr::TWI == 0;
            usage.publish(account);
            usage.set_counts_sleep(counts_sleep);
        }
    }
}
