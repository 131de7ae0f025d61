//! The run queue of one physical CPU: what each vCPU does, until when it sleeps, and how long each has run and waited.
//!
//! A vCPU that has its place here is blocked, runnable, watching, throttled or running. A blocked one may have a deadline (its guest
//! timer): the CPU must wake up for it. A runnable one needs none, since its timer is looked at when it runs. One that is watching
//! stands in a loop until a word of its memory changes: it does not run before, an interrupt that it hears comes, or its deadline
//! passes. A throttled one wants to run and may not before its replenishment, whatever wakes it. Which vCPU runs, for how long and
//! which is throttled is a [`Policy`]'s to decide.
//!
//! A policy may stop a vCPU that is alone on its CPU, whose WFI does not trap and for which no slice ends: the time at which it has to
//! stop is among those that EL2's timer is armed for, and that interrupt ends the WFI.

use alloc::vec::Vec;

use super::NEVER;
use super::policy::Policy;
use super::set::{MAX_SLOTS, Slot, SlotSet};

/// What a vCPU has had of physical CPUs since EL2 started, in counter ticks; it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Time it ran.
    pub run_ticks: u64,
    /// Time it could have run and another one did, it was watching, or throttled: what a guest calls stolen.
    pub steal_ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Vacant,
    Blocked,
    Runnable,
    Watching,
    /// Watching with interrupts that are not masked: one ends its loop.
    Hearing,
    Throttled,
    Running,
}

#[derive(Clone, Debug)]
pub(super) struct Entry<S> {
    pub(super) run: Run,
    /// It gets the CPU once whatever the policy says.
    exempt: bool,
    /// When a blocked or watching one wakes by itself, or a throttled one is replenished.
    pub(super) deadline_ticks: u64,
    /// What the policy keeps for the slot.
    pub(super) share: S,
    /// Since when it is what it is.
    pub(super) since_ticks: u64,
    pub(super) account: Account,
    /// What that was when it was last turned on, or came here.
    begun: Account,
}

impl<S> Entry<S> {
    /// An entry without a vCPU.
    const fn vacant(share: S) -> Self {
        const NOTHING: Account = Account {
            run_ticks: 0,
            steal_ticks: 0,
        };
        Self {
            run: Run::Vacant,
            exempt: false,
            deadline_ticks: NEVER,
            share,
            since_ticks: 0,
            account: NOTHING,
            begun: NOTHING,
        }
    }

    /// Returns whether the vCPU does this, and nothing but the others keeps it from running.
    #[inline]
    fn starts_at_once<P: Policy<Share = S>>(&self, run: Run, policy: &P) -> bool {
        self.run == run && !(policy.holds() && policy.may_hold(&self.share))
    }

    /// Books the time since the last change to what the vCPU has been doing.
    #[inline]
    pub(super) fn change(&mut self, run: Run, now_ticks: u64) {
        self.account = self.account_at(now_ticks);
        self.since_ticks = now_ticks;
        self.run = run;
    }

    /// As [`Entry::change`], of one that is known to do this: which time it books need not be looked up.
    #[inline(always)]
    fn change_from(&mut self, was: Run, run: Run, now_ticks: u64) {
        debug_assert_eq!(self.run, was);
        self.run = was;
        self.change(run, now_ticks);
    }

    #[inline]
    fn account_at(&self, now_ticks: u64) -> Account {
        let spent = now_ticks.saturating_sub(self.since_ticks);
        let mut account = self.account;
        match self.run {
            Run::Running => account.run_ticks = account.run_ticks.wrapping_add(spent),
            Run::Runnable | Run::Watching | Run::Hearing | Run::Throttled => {
                account.steal_ticks = account.steal_ticks.wrapping_add(spent)
            }
            Run::Vacant | Run::Blocked => {}
        }
        account
    }
}

/// The run queue of one physical CPU, used by that CPU only.
#[derive(Debug)]
pub struct RunQueue<P: Policy> {
    pub(super) entries: Vec<Entry<P::Share>>,
    pub(super) waiting: Waiting<P>,
    pub(super) current: Option<Slot>,
    live: u32,
}

/// Those that wait, for the CPU or for a time.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    runnable: SlotSet,
    pub(super) watching: SlotSet,
    /// Blocked ones with a deadline, watching and throttled ones, and the earliest of these deadlines.
    timed: SlotSet,
    earliest_ticks: u64,
    pub(super) policy: P,
}

impl<P: Policy> Waiting<P> {
    /// Lets a vCPU that wants to run wait for the CPU, or for its replenishment.
    pub(super) fn line_up<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        entry: &mut Entry<P::Share>,
        now_ticks: u64,
    ) {
        if HOLDS {
            self.book_throttled(entry, now_ticks);
        }
        if HOLDS
            && !entry.exempt
            && let Some(until_ticks) = self.policy.held_until(&mut entry.share, now_ticks)
        {
            entry.change(Run::Throttled, now_ticks);
            self.add_deadline(slot, entry, until_ticks);
            return;
        }
        entry.change(Run::Runnable, now_ticks);
        self.runnable.insert(slot);
        self.policy.enqueue(slot, &entry.share);
    }

    /// Tells the policy for how long a vCPU has been throttled until now, if it is.
    pub(super) fn book_throttled(&self, entry: &mut Entry<P::Share>, now_ticks: u64) {
        if entry.run == Run::Throttled {
            let spent = now_ticks.saturating_sub(entry.since_ticks);
            self.policy.throttled(&entry.share, spent);
            entry.change(Run::Throttled, now_ticks);
        }
    }

    /// Forgets that a vCPU watches, if it does.
    #[inline(always)]
    fn forget_watch(&mut self, slot: Slot) {
        if !self.watching.is_empty() {
            self.forget_watching(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_watching(&mut self, slot: Slot) {
        self.watching.remove(slot);
    }

    #[inline]
    pub(super) fn add_deadline(
        &mut self,
        slot: Slot,
        entry: &mut Entry<P::Share>,
        deadline_ticks: u64,
    ) {
        entry.deadline_ticks = deadline_ticks;
        self.timed.insert(slot);
        self.earliest_ticks = self.earliest_ticks.min(deadline_ticks);
    }
}

impl<P: Policy> RunQueue<P> {
    /// Makes an empty queue with this policy.
    #[must_use]
    pub const fn new(policy: P) -> Self {
        Self {
            entries: Vec::new(),
            waiting: Waiting {
                runnable: SlotSet::EMPTY,
                watching: SlotSet::EMPTY,
                timed: SlotSet::EMPTY,
                earliest_ticks: NEVER,
                policy,
            },
            current: None,
            live: 0,
        }
    }

    /// Keeps a slot, which begins with what the policy gives first, for a vCPU that has had this, and this when it was last turned on.
    pub fn reserve(&mut self, slot: Slot, account: Account, begun: Account) {
        self.make_room(slot);
        if let Some(entry) = self.entries.get_mut(slot.index())
            && entry.run == Run::Vacant
        {
            (entry.account, entry.begun) = (account, begun);
        }
    }

    /// Makes room for a slot; this alone allocates.
    fn make_room(&mut self, slot: Slot) {
        let needed = slot.index() + 1;
        if self.entries.len() < needed {
            debug_assert!(needed <= MAX_SLOTS);
            let vacant = Entry::vacant(self.waiting.policy.first_share());
            self.entries.resize(needed, vacant);
        }
    }

    /// Gives a slot to a vCPU, blocked until it is woken; does nothing if the slot has one.
    pub fn attach(&mut self, slot: Slot, now_ticks: u64) {
        self.make_room(slot);
        if let Some(entry) = self.entries.get_mut(slot.index())
            && entry.run == Run::Vacant
        {
            entry.run = Run::Blocked;
            entry.deadline_ticks = NEVER;
            entry.since_ticks = now_ticks;
            entry.begun = entry.account;
            self.live += 1;
        }
    }

    /// Gives a slot to a vCPU that wants to run at once; returns whether it does, since no other one runs or waits. If not, its turn comes
    /// later.
    #[inline(always)]
    pub fn begin(&mut self, slot: Slot, now_ticks: u64) -> bool {
        let idle = self.is_idle();
        match self.entries.get_mut(slot.index()) {
            Some(entry) if idle && entry.starts_at_once(Run::Vacant, &self.waiting.policy) => {
                entry.begun = entry.account;
                entry.change_from(Run::Vacant, Run::Running, now_ticks);
                self.live += 1;
                self.current = Some(slot);
                self.waiting
                    .policy
                    .start_idle::<false>(slot, &mut entry.share, now_ticks);
                true
            }
            _ => self.begin_later(slot, now_ticks),
        }
    }

    #[cold]
    fn begin_later(&mut self, slot: Slot, now_ticks: u64) -> bool {
        self.attach(slot, now_ticks);
        self.wake(slot, now_ticks);
        false
    }

    /// Takes the vCPU in a slot off, whatever it is doing; returns its account, or `None` if the slot had none.
    #[inline(always)]
    pub fn detach(&mut self, slot: Slot, now_ticks: u64) -> Option<Account> {
        match self.waiting.policy.holds() {
            true => self.detach_held(slot, now_ticks),
            false => self.detach_if::<false>(slot, now_ticks),
        }
    }

    #[inline(always)]
    fn detach_if<const HOLDS: bool>(&mut self, slot: Slot, now_ticks: u64) -> Option<Account> {
        let entry = self.entries.get_mut(slot.index())?;
        if entry.run == Run::Vacant {
            return None;
        }
        let was = entry.run;
        if HOLDS {
            self.waiting.book_throttled(entry, now_ticks);
        }
        entry.change(Run::Vacant, now_ticks);
        let account = entry.account;
        self.live -= 1;
        if was == Run::Running {
            // Nothing else knows of the one that runs.
            self.current = None;
            self.waiting
                .policy
                .stop::<HOLDS>(&mut entry.share, now_ticks);
        } else {
            self.waiting.runnable.remove(slot);
            self.waiting.forget_watch(slot);
            self.waiting.policy.dequeue(slot);
            self.forget_deadline(slot);
        }
        Some(account)
    }

    /// Returns what the vCPU in a slot has had until now, what it is doing included, or had until it was taken off; and what that was when
    /// it was last turned on. What it was throttled is told to the policy.
    pub fn book(&mut self, slot: Slot, now_ticks: u64) -> Option<[Account; 2]> {
        let entry = self.entries.get_mut(slot.index())?;
        self.waiting.book_throttled(entry, now_ticks);
        Some([entry.account_at(now_ticks), entry.begun])
    }

    /// Returns for how long the vCPU in a slot could have run and had to wait, until it last began to do what it does.
    #[inline]
    #[must_use]
    pub fn stolen_ticks(&self, slot: Slot) -> u64 {
        self.entries
            .get(slot.index())
            .map_or(0, |entry| entry.account.steal_ticks)
    }

    /// Returns whether the slot has a vCPU.
    #[inline]
    #[must_use]
    pub fn is_attached(&self, slot: Slot) -> bool {
        self.entries
            .get(slot.index())
            .is_some_and(|entry| entry.run != Run::Vacant)
    }

    /// Returns whether the vCPU in a slot wants to run and may not before its replenishment.
    #[inline]
    #[must_use]
    pub fn is_throttled(&self, slot: Slot) -> bool {
        self.waiting.policy.holds()
            && self
                .entries
                .get(slot.index())
                .is_some_and(|entry| entry.run == Run::Throttled)
    }

    /// Makes a vCPU that is blocked, or watches and hears, want to run; returns whether it did not.
    #[inline]
    pub fn wake(&mut self, slot: Slot, now_ticks: u64) -> bool {
        match self.waiting.policy.holds() {
            true => self.wake_held(slot, now_ticks),
            false => self.wake_if::<false>(slot, now_ticks),
        }
    }

    #[inline(always)]
    fn wake_if<const HOLDS: bool>(&mut self, slot: Slot, now_ticks: u64) -> bool {
        let Some(entry) = self.entries.get_mut(slot.index()) else {
            return false;
        };
        if entry.run != Run::Blocked {
            if entry.run != Run::Hearing {
                return false;
            }
            self.waiting.forget_watch(slot);
        }
        let was = core::mem::replace(&mut entry.deadline_ticks, NEVER);
        let waiting = &mut self.waiting;
        waiting.policy.wake(slot, &mut entry.share);
        waiting.line_up::<HOLDS>(slot, entry, now_ticks);
        if was != NEVER {
            self.forget_timed(slot, was);
        }
        true
    }

    /// As [`RunQueue::wake`]; one that the policy never holds back runs at once if no other one runs or waits.
    #[inline(always)]
    pub fn wake_at_once(&mut self, slot: Slot, now_ticks: u64) -> bool {
        let idle = self.is_idle();
        match self.entries.get_mut(slot.index()) {
            Some(entry) if idle && entry.starts_at_once(Run::Blocked, &self.waiting.policy) => {
                entry.change_from(Run::Blocked, Run::Running, now_ticks);
                let was = core::mem::replace(&mut entry.deadline_ticks, NEVER);
                self.current = Some(slot);
                self.waiting
                    .policy
                    .start_idle::<false>(slot, &mut entry.share, now_ticks);
                if was != NEVER {
                    self.forget_timed(slot, was);
                }
                true
            }
            _ => self.wake(slot, now_ticks),
        }
    }

    #[inline]
    const fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.runnable.is_empty()
    }

    /// Blocks the running vCPU until it is woken, or until `deadline_ticks` if it has a timer to wait for.
    ///
    /// The caller has drained the wake-ups first and then found nothing to do for it, so that none is lost.
    #[inline]
    pub fn block(&mut self, deadline_ticks: Option<u64>, now_ticks: u64) {
        match self.waiting.policy.holds() {
            true => self.block_held(deadline_ticks, now_ticks),
            false => self.block_if::<false>(deadline_ticks, now_ticks),
        }
    }

    #[inline(always)]
    fn block_if<const HOLDS: bool>(&mut self, deadline_ticks: Option<u64>, now_ticks: u64) {
        let Some(slot) = self.current.take() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(slot.index()) else {
            return;
        };
        entry.change_from(Run::Running, Run::Blocked, now_ticks);
        self.waiting
            .policy
            .stop::<HOLDS>(&mut entry.share, now_ticks);
        if let Some(deadline_ticks) = deadline_ticks {
            self.waiting.add_deadline(slot, entry, deadline_ticks);
        }
    }

    /// Takes the CPU from the vCPU that runs.
    #[inline(always)]
    fn line_up_current<const HOLDS: bool>(&mut self, now_ticks: u64) {
        if let Some(slot) = self.current.take()
            && let Some(entry) = self.entries.get_mut(slot.index())
        {
            entry.change_from(Run::Running, Run::Runnable, now_ticks);
            self.waiting
                .policy
                .stop::<HOLDS>(&mut entry.share, now_ticks);
            self.waiting.line_up::<HOLDS>(slot, entry, now_ticks);
        }
    }

    /// Looks at the clock and returns the vCPU that runs from now on: the same as before, or the one that the policy chooses; `None` if
    /// none may run.
    #[inline(always)]
    pub fn choose(&mut self, now_ticks: u64) -> Option<Slot> {
        match self.waiting.policy.holds() {
            true => self.choose_held(now_ticks),
            false => self.choose_if::<false>(now_ticks),
        }
    }

    #[inline(always)]
    fn choose_if<const HOLDS: bool>(&mut self, now_ticks: u64) -> Option<Slot> {
        self.expire::<HOLDS>(now_ticks);
        if self.wants_switch(now_ticks) {
            self.pick_next::<HOLDS>(now_ticks);
        }
        self.current
    }

    /// Returns the vCPU that runs.
    #[inline]
    #[must_use]
    pub const fn current(&self) -> Option<Slot> {
        self.current
    }

    /// Returns whether it is time for [`RunQueue::pick_next`]: one waits, and none runs or the policy says that its time has come.
    #[inline]
    fn wants_switch(&self, now_ticks: u64) -> bool {
        !self.waiting.runnable.is_empty() && now_ticks >= self.due_ticks()
    }

    /// Returns when one that waits gets the CPU; 0 for at once. Kept out of the way of a vCPU for which no other one waits.
    #[inline(never)]
    fn due_ticks(&self) -> u64 {
        self.current
            .map_or(0, |slot| self.waiting.policy.due_ticks(slot))
    }

    /// Gives the CPU to the vCPU that the policy chooses, instead of the one that runs; `None` if none may run.
    #[inline(always)]
    fn pick_next<const HOLDS: bool>(&mut self, now_ticks: u64) -> Option<Slot> {
        self.line_up_current::<HOLDS>(now_ticks);
        let waiting = &mut self.waiting;
        loop {
            let mut slot = waiting.policy.pick(&waiting.runnable)?;
            if let Some(other) = waiting.policy.overtakes(slot, &waiting.runnable)
                && let Some(entry) = self.entries.get_mut(other.index())
                && waiting.policy.favour(other, &mut entry.share)
            {
                slot = other;
            }
            waiting.runnable.remove(slot);
            let entry = self.entries.get_mut(slot.index())?;
            let may_hold = HOLDS && waiting.policy.may_hold(&entry.share);
            if may_hold && !core::mem::take(&mut entry.exempt) {
                // While it waited, another vCPU of its VM may have used up on another CPU what both may use.
                let held_until = waiting.policy.held_until(&mut entry.share, now_ticks);
                if held_until.is_some() {
                    waiting.policy.dequeue(slot);
                    waiting.line_up::<HOLDS>(slot, entry, now_ticks);
                    continue;
                }
            }
            waiting
                .policy
                .start::<HOLDS>(slot, &mut entry.share, &waiting.runnable, now_ticks);
            entry.change_from(Run::Runnable, Run::Running, now_ticks);
            self.current = Some(slot);
            return Some(slot);
        }
    }

    /// Returns when the physical CPU has to look at the queue again: when one that waits gets the CPU, when the one that runs has to stop,
    /// or at the earliest deadline; [`NEVER`] for not at all.
    #[inline]
    #[must_use]
    pub fn next_wake_ticks(&self) -> u64 {
        let waiting = &self.waiting;
        let mut wake_ticks = waiting.earliest_ticks.min(waiting.policy.limit_ticks());
        if !waiting.runnable.is_empty() {
            wake_ticks = wake_ticks.min(self.due_ticks());
        }
        wake_ticks
    }

    /// As [`RunQueue::next_wake_ticks`], if none runs or waits for the CPU.
    #[inline]
    #[must_use]
    pub const fn next_deadline_ticks(&self) -> u64 {
        self.waiting.earliest_ticks
    }

    /// Returns whether exactly one vCPU has its place here, so that its WFI may be the CPU's own.
    #[inline]
    #[must_use]
    pub const fn alone(&self) -> bool {
        self.live == 1
    }

    /// Returns whether another one waits for the CPU, or for a word.
    #[inline]
    #[must_use]
    pub const fn is_crowded(&self) -> bool {
        !self.waiting.runnable.is_empty() || !self.waiting.watching.is_empty()
    }

    /// Returns how many vCPUs run or want to.
    #[must_use]
    pub fn wanting(&self) -> u32 {
        let waiting = self.waiting.runnable.len() + self.waiting.watching.len();
        u32::from(waiting) + u32::from(self.current.is_some())
    }

    /// Returns how many vCPUs have their place here.
    #[inline]
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.live
    }
}

mod deadlines;
mod limits;
#[cfg(test)]
mod tests;
