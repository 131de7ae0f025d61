//! vCPUs of a run queue that stand in a loop: those that wait for a word, and those that only spin.

use super::policy::Policy;
use super::queue::{Account, Run, RunQueue};
use super::set::Slot;

impl<P: Policy> RunQueue<P> {
    /// Takes the CPU from the vCPU that runs, which waits for a word, until it is [`RunQueue::changed`], the deadline passes, or, if it
    /// `hears`, it is woken.
    pub fn watch(&mut self, hears: bool, deadline_ticks: u64, now_ticks: u64) {
        if let Some(slot) = self.current.take()
            && let Some(entry) = self.entries.get_mut(slot.index())
        {
            let waiting = &mut self.waiting;
            waiting.policy.stop::<true>(&mut entry.share, now_ticks);
            waiting.policy.spins(slot, &mut entry.share, false);
            let run = if hears { Run::Hearing } else { Run::Watching };
            entry.change(run, now_ticks);
            waiting.watching.insert(slot);
            waiting.add_deadline(slot, entry, deadline_ticks);
        }
    }

    /// Takes the CPU from the vCPU that runs, which only spins: the rest of its time is over.
    pub fn give_up(&mut self, now_ticks: u64) {
        if let Some(slot) = self.current.take()
            && let Some(entry) = self.entries.get_mut(slot.index())
        {
            self.waiting
                .policy
                .stop::<true>(&mut entry.share, now_ticks);
            self.waiting.policy.spins(slot, &mut entry.share, true);
            self.waiting.line_up::<true>(slot, entry, now_ticks);
        }
    }

    /// Lets a vCPU whose word has changed wait for the CPU, before others if its policy lets it.
    pub fn changed(&mut self, slot: Slot, now_ticks: u64) {
        self.end_watch(slot, now_ticks);
        self.favour(slot);
    }

    /// Lets a vCPU that waits for the CPU have it before others, if its policy lets it; does nothing to one that does not wait for it.
    pub fn favour(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.index())
            && entry.run == Run::Runnable
        {
            let _may = self.waiting.policy.favour(slot, &mut entry.share);
        }
    }

    /// Lets a vCPU that waits for a word wait for the CPU, whatever the word is; does nothing to another one.
    pub fn end_watch(&mut self, slot: Slot, now_ticks: u64) {
        if let Some(entry) = self.entries.get(slot.index())
            && matches!(entry.run, Run::Watching | Run::Hearing)
        {
            self.waiting.watching.remove(slot);
            self.line_up_anew(slot, now_ticks);
        }
    }

    /// Has one that watches and hears wake by itself at this time at the latest; returns the account of one that watches.
    #[cold]
    #[inline(never)]
    pub(super) fn bound_watch(
        &mut self,
        slot: Slot,
        deadline_ticks: Option<u64>,
    ) -> Option<Account> {
        let entry = self.entries.get_mut(slot.index())?;
        match entry.run {
            Run::Watching => {}
            Run::Hearing => {
                let deadline_ticks = deadline_ticks.map_or(entry.deadline_ticks, |ticks| {
                    ticks.min(entry.deadline_ticks)
                });
                self.waiting.add_deadline(slot, entry, deadline_ticks);
            }
            _ => return None,
        }
        Some(entry.account)
    }

    /// Returns for how long the vCPU that runs has had the CPU.
    #[must_use]
    pub fn current_ran_ticks(&self, now_ticks: u64) -> u64 {
        let entry = self.current.and_then(|slot| self.entries.get(slot.index()));
        entry.map_or(0, |entry| now_ticks.saturating_sub(entry.since_ticks))
    }

    /// Returns whether one waits for a word.
    #[inline]
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        !self.waiting.watching.is_empty()
    }

    /// Returns how many wait for a word.
    #[must_use]
    pub fn watching(&self) -> u16 {
        self.waiting.watching.len()
    }

    /// Returns the one that waits for a word and comes after a slot, going round at the end.
    #[must_use]
    pub fn next_watching(&self, after: Slot) -> Option<Slot> {
        self.waiting.watching.next_after(after)
    }
}
