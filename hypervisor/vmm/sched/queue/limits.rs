//! vCPUs that may be held back, or stopped although they are alone: what their VM's contract says, and exceptions from it.

use super::super::NEVER;
use super::super::policy::{Policy, Terms};
use super::super::set::Slot;
use super::{Account, Run, RunQueue};

impl<P: Policy> RunQueue<P> {
    /// Tells the policy what the contract of a vCPU's VM says from now on, if that is new.
    pub fn agree(&mut self, slot: Slot, terms: Terms, now_ticks: u64) {
        let policy = &self.waiting.policy;
        let entry = self.entries.get_mut(slot.index());
        let Some(entry) = entry.filter(|entry| !policy.has_agreed(&entry.share, terms)) else {
            return;
        };
        let runs = entry.run == Run::Running;
        self.waiting.book_throttled(entry, now_ticks);
        let policy = &mut self.waiting.policy;
        if runs {
            policy.stop::<true>(&mut entry.share, now_ticks);
        }
        policy.agree(slot, &mut entry.share, terms);
        if runs {
            policy.start_idle::<true>(slot, &mut entry.share, now_ticks);
        } else if entry.run == Run::Throttled {
            self.line_up_anew(slot, now_ticks);
        }
    }

    /// Returns whether the vCPU in a slot may ever be throttled.
    #[inline]
    #[must_use]
    pub fn may_hold(&self, slot: Slot) -> bool {
        self.waiting.policy.holds()
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
        self.waiting.policy.limit_ticks() != NEVER
    }

    #[cold]
    #[inline(never)]
    pub(super) fn choose_held(&mut self, now_ticks: u64) -> Option<Slot> {
        self.choose_if::<true>(now_ticks)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wake_held(&mut self, slot: Slot, now_ticks: u64) -> bool {
        self.wake_if::<true>(slot, now_ticks)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn block_held(&mut self, deadline_ticks: Option<u64>, now_ticks: u64) {
        self.block_if::<true>(deadline_ticks, now_ticks);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn detach_held(&mut self, slot: Slot, now_ticks: u64) -> Option<Account> {
        self.detach_if::<true>(slot, now_ticks)
    }
}
