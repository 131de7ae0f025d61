//! What a CPU keeps to itself for a while, because nothing on a trap's path shall wait for it, and publishes when it is asked.

use super::{Machine, Manager, Pcpu};

impl<M: Machine> Pcpu<M> {
    /// Publishes what this CPU keeps, if it was asked.
    pub(super) fn publish(&mut self) {
        let id = self.local.id;
        let Some(round) = self.machine.manager().asked(id) else {
            return;
        };
        self.tell_events();
        self.machine.manager().published(id, round);
    }
}
