//! vCPUs that wait for a time: a blocked one for its timer, one that watches for the end of its patience, a throttled one for its
//! replenishment.

use super::super::NEVER;
use super::super::policy::Policy;
use super::super::set::Slot;
use super::{Account, Run, RunQueue};

impl<P: Policy> RunQueue<P> {
    /// Changes when a blocked vCPU wakes by itself, or when one that watches and hears does so at the latest; does nothing to others.
    /// Returns its account.
    #[inline]
    pub fn set_deadline(&mut self, slot: Slot, deadline_ticks: Option<u64>) -> Account {
        if self.is_watched()
            && let Some(account) = self.bound_watch(slot, deadline_ticks)
        {
            return account;
        }
        let Some(entry) = self.entries.get(slot.index()) else {
            return Account::default();
        };
        let account = entry.account;
        if entry.run != Run::Blocked {
            return account;
        }
        self.forget_deadline(slot);
        if let Some(deadline_ticks) = deadline_ticks
            && let Some(entry) = self.entries.get_mut(slot.index())
        {
            self.waiting.add_deadline(slot, entry, deadline_ticks);
        }
        account
    }

    /// Wakes those whose deadline has come, lets go on those that are replenished, and stops the one that runs if its limit has come; two
    /// comparisons when there are none of these.
    #[inline(always)]
    pub(super) fn expire<const HOLDS: bool>(&mut self, now_ticks: u64) {
        if now_ticks >= self.waiting.earliest_ticks && self.waiting.earliest_ticks != NEVER {
            self.wake_expired::<HOLDS>(now_ticks);
        }
        if HOLDS && now_ticks >= self.waiting.policy.limit_ticks() {
            self.line_up_current::<HOLDS>(now_ticks);
        }
    }

    fn wake_expired<const HOLDS: bool>(&mut self, now_ticks: u64) {
        let waiting = &mut self.waiting;
        let mut earliest_ticks = NEVER;
        waiting.earliest_ticks = NEVER;
        let timed = core::mem::take(&mut waiting.timed);
        for slot in timed.iter() {
            let Some(entry) = self.entries.get_mut(slot.index()) else {
                continue;
            };
            if entry.deadline_ticks > now_ticks {
                earliest_ticks = earliest_ticks.min(entry.deadline_ticks);
                waiting.timed.insert(slot);
                continue;
            }
            entry.deadline_ticks = NEVER;
            waiting.forget_watch(slot);
            if !HOLDS || entry.run != Run::Throttled {
                waiting.policy.wake(slot, &mut entry.share);
            }
            waiting.line_up::<HOLDS>(slot, entry, now_ticks);
        }
        waiting.earliest_ticks = waiting.earliest_ticks.min(earliest_ticks);
    }

    #[inline]
    pub(super) fn forget_deadline(&mut self, slot: Slot) {
        let was = match self.entries.get_mut(slot.index()) {
            Some(entry) => core::mem::replace(&mut entry.deadline_ticks, NEVER),
            None => NEVER,
        };
        if was != NEVER {
            self.forget_timed(slot, was);
        }
    }

    /// Lets a vCPU that waits for a time wait for the CPU instead, or for its replenishment.
    pub(in crate::sched) fn line_up_anew(&mut self, slot: Slot, now_ticks: u64) {
        if let Some(entry) = self.entries.get_mut(slot.index()) {
            let was = core::mem::replace(&mut entry.deadline_ticks, NEVER);
            self.waiting.line_up::<true>(slot, entry, now_ticks);
            self.forget_timed(slot, was);
        }
    }

    pub(in crate::sched) fn forget_timed(&mut self, slot: Slot, was: u64) {
        self.waiting.timed.remove(slot);
        if was == self.waiting.earliest_ticks {
            self.waiting.earliest_ticks = self
                .waiting
                .timed
                .iter()
                .filter_map(|slot| self.entries.get(slot.index()))
                .fold(NEVER, |earliest, entry| earliest.min(entry.deadline_ticks));
        }
    }
}
