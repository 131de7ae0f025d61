//! vCPUs that may be held back, or stopped although they are alone: what their VM's contract says, and exceptions from it.

use super::super::NEVER;
use super::super::policy::{Policy, Terms};
use super::super::set::Slot;
use super::{Run, RunQueue};

impl<P: Policy> RunQueue<P> {
    /// Tells the policy what the contract of a vCPU's VM says from now on, if that is new.
    pub fn agree(&mut self, slot: Slot, terms: Terms, now_ticks: u64) {
        let policy = &mut self.waiting.policy;
        let entry = self.entries.get_mut(slot.index());
        let Some(entry) = entry.filter(|entry| !policy.has_agreed(&entry.share, terms)) else {
            return;
        };
        let runs = entry.run == Run::Running;
        if runs {
            policy.stop(&mut entry.share, now_ticks);
        }
        policy.agree(&mut entry.share, terms);
        if runs {
            policy.start_idle(slot, &mut entry.share, now_ticks);
        } else if entry.run == Run::Throttled {
            self.line_up_anew(slot, now_ticks);
        }
    }

    /// Returns whether the vCPU in a slot may ever be throttled.
    #[inline]
    #[must_use]
    pub fn may_hold(&self, slot: Slot) -> bool {
        P::THROTTLES
            && self
                .entries
                .get(slot.index())
                .is_some_and(|entry| self.waiting.policy.may_hold(&entry.share))
    }

    /// Gives a vCPU the CPU once in its turn although it may be throttled, so that what others ask of it is done. It finds no time there
    /// that it may use.
    pub fn exempt(&mut self, slot: Slot, now_ticks: u64) {
        let Some(entry) = self.entries.get_mut(slot.index()) else {
            return;
        };
        entry.exempt = true;
        if entry.run == Run::Throttled {
            self.line_up_anew(slot, now_ticks);
        }
    }

    /// Returns whether the vCPU that runs has to stop at a time although no other one may wait: then its sleep must not count as work.
    #[inline]
    #[must_use]
    pub fn is_limited(&self) -> bool {
        P::THROTTLES && self.waiting.policy.limit_ticks() != NEVER
    }
}
