//! The run queue of one physical CPU: who runs, who wants to, who sleeps until when, and how long each has had and waited.
//!
//! A virtual CPU that has its place here is blocked, runnable or running. Runnable ones take turns in the order of their slots, each for
//! one slice; a running one alone has no slice to keep, and loses the CPU at once to one that wakes after the slice's time. A blocked one
//! may have a deadline (its guest timer): the CPU must wake up for it. A runnable one needs none, since its timer is looked at when it runs.
//!
//! Who blocks before its slice is over keeps what is left, less a toll for the switches it costs to come back. If that is anything, it is
//! *urgent* when it wakes: it interrupts whose turn it is, for no longer than that, and the turn goes on after. Only the beginning of a
//! turn, or an idle CPU, gives a slice anew. While somebody wants to run, nobody else has more than one slice from one of its turns to
//! the next, whenever it takes it. So with n virtual CPUs one that wants to run waits 2(n - 1) slices at most (what each other one had
//! left, and its turn); one that never sleeps gets an n-th of the CPU, less 2n - 1 slices once; and in a turn each other one interrupts it
//! `TOLLS` times at most.

use alloc::vec::Vec;

use super::set::{MAX_SLOTS, Slot, SlotSet};

/// What a virtual CPU has had of its physical CPU since it was attached, in counter ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Time it ran.
    pub run_ticks: u64,
    /// Time it could have run and another one did: what a guest calls stolen.
    pub steal_ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Vacant,
    Blocked,
    Runnable,
    Running,
}

/// How many tolls make a slice: as often can who wakes interrupt somebody before its next turn.
const TOLLS: u64 = 512;
/// No deadline: a time that never comes.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    run: Run,
    /// When a blocked one wakes by itself.
    deadline_ticks: u64,
    /// What it has left of its slice while it does not run, be it off or not. The toll is taken when it wakes.
    left_ticks: u64,
    /// Since when it is what it is.
    since_ticks: u64,
    account: Account,
}

impl Entry {
    const VACANT: Self = Self {
        run: Run::Vacant,
        deadline_ticks: NEVER,
        left_ticks: 0,
        since_ticks: 0,
        account: Account {
            run_ticks: 0,
            steal_ticks: 0,
        },
    };

    /// Books the time since the last change to what the virtual CPU has been doing.
    #[inline]
    fn change(&mut self, run: Run, now_ticks: u64) {
        self.account = self.account_at(now_ticks);
        self.since_ticks = now_ticks;
        self.run = run;
    }

    #[inline]
    fn account_at(&self, now_ticks: u64) -> Account {
        let spent = now_ticks.saturating_sub(self.since_ticks);
        let mut account = self.account;
        match self.run {
            Run::Running => account.run_ticks = account.run_ticks.wrapping_add(spent),
            Run::Runnable => account.steal_ticks = account.steal_ticks.wrapping_add(spent),
            Run::Vacant | Run::Blocked => {}
        }
        account
    }
}

/// The run queue of one physical CPU, used by that CPU only.
#[derive(Debug)]
pub struct RunQueue {
    entries: Vec<Entry>,
    runnable: SlotSet,
    /// Runnable ones that have something left of their slice: who woke, and whose turn they interrupt.
    urgent: SlotSet,
    /// Blocked ones with a deadline, and the earliest of these deadlines.
    timed: SlotSet,
    earliest_ticks: u64,
    current: Option<Slot>,
    /// Whose turn it is or was last, so that the next one's is next even after that one has left. Another one that runs is urgent.
    turn: Slot,
    slice_ticks: u64,
    slice_end_ticks: u64,
    live: u32,
}

impl RunQueue {
    /// Makes an empty queue with slices of this length.
    #[must_use]
    pub const fn new(slice_ticks: u64) -> Self {
        Self {
            entries: Vec::new(),
            runnable: SlotSet::EMPTY,
            urgent: SlotSet::EMPTY,
            timed: SlotSet::EMPTY,
            earliest_ticks: NEVER,
            current: None,
            turn: Slot::from_bit(super::set::WORDS - 1, u64::BITS - 1),
            slice_ticks,
            slice_end_ticks: NEVER,
            live: 0,
        }
    }

    /// Makes room for a slot, which begins with a slice; this alone allocates.
    pub fn reserve(&mut self, slot: Slot) {
        let needed = slot.index() + 1;
        if self.entries.len() < needed {
            debug_assert!(needed <= MAX_SLOTS);
            let left_ticks = self.slice_ticks;
            let vacant = Entry {
                left_ticks,
                ..Entry::VACANT
            };
            self.entries.resize(needed, vacant);
        }
    }

    /// Gives a slot to a virtual CPU, blocked until it is woken; does nothing if the slot has one.
    pub fn attach(&mut self, slot: Slot, now_ticks: u64) {
        self.reserve(slot);
        if let Some(entry) = self.entries.get_mut(slot.index())
            && entry.run == Run::Vacant
        {
            *entry = Entry {
                run: Run::Blocked,
                left_ticks: entry.left_ticks,
                since_ticks: now_ticks,
                ..Entry::VACANT
            };
            self.live += 1;
        }
    }

    /// Gives a slot to a virtual CPU that wants to run at once: it does if nobody else runs or waits, else it gets its turn.
    #[inline(always)]
    pub fn begin(&mut self, slot: Slot, now_ticks: u64) {
        let idle = self.is_idle();
        match self.entries.get_mut(slot.index()) {
            Some(entry) if idle && entry.run == Run::Vacant => {
                entry.change(Run::Running, now_ticks);
                self.live += 1;
                self.take_turn(slot, now_ticks);
            }
            _ => self.begin_later(slot, now_ticks),
        }
    }

    #[cold]
    fn begin_later(&mut self, slot: Slot, now_ticks: u64) {
        self.attach(slot, now_ticks);
        self.wake(slot, now_ticks);
    }

    /// Takes the virtual CPU in a slot off, whatever it is doing; returns its account, or `None` if the slot had none.
    #[inline(always)]
    pub fn detach(&mut self, slot: Slot, now_ticks: u64) -> Option<Account> {
        let entry = self.entries.get_mut(slot.index())?;
        if entry.run == Run::Vacant {
            return None;
        }
        let was = entry.run;
        entry.change(Run::Vacant, now_ticks);
        let account = core::mem::take(&mut entry.account);
        self.live -= 1;
        if was == Run::Running {
            // Nothing else knows of the one that runs.
            self.current = None;
            entry.left_ticks = self.slice_end_ticks.saturating_sub(now_ticks);
        } else {
            self.runnable.remove(slot);
            self.urgent.remove(slot);
            self.forget_deadline(slot);
        }
        Some(account)
    }

    /// Returns whether the slot has a virtual CPU.
    #[inline]
    #[must_use]
    pub fn is_attached(&self, slot: Slot) -> bool {
        self.entries
            .get(slot.index())
            .is_some_and(|entry| entry.run != Run::Vacant)
    }

    /// Makes a blocked virtual CPU runnable; returns whether it was blocked.
    #[inline]
    pub fn wake(&mut self, slot: Slot, now_ticks: u64) -> bool {
        let Some(entry) = self.entries.get(slot.index()) else {
            return false;
        };
        if entry.run != Run::Blocked {
            return false;
        }
        let left_ticks = self.left_after_toll(entry);
        self.line_up(slot, left_ticks, now_ticks);
        self.forget_deadline(slot);
        true
    }

    const fn left_after_toll(&self, entry: &Entry) -> u64 {
        entry.left_ticks.saturating_sub(self.slice_ticks / TOLLS)
    }

    /// Lets a virtual CPU wait for the CPU, with what it has left of its slice.
    fn line_up(&mut self, slot: Slot, left_ticks: u64, now_ticks: u64) {
        if let Some(entry) = self.entries.get_mut(slot.index()) {
            entry.change(Run::Runnable, now_ticks);
            entry.left_ticks = left_ticks;
        }
        self.runnable.insert(slot);
        if left_ticks != 0 {
            self.urgent.insert(slot);
        }
    }

    /// As [`RunQueue::wake`]; if nobody else runs or waits, its turn begins at once.
    #[inline]
    pub fn rouse(&mut self, slot: Slot, now_ticks: u64) -> bool {
        let idle = self.is_idle();
        match self.entries.get_mut(slot.index()) {
            Some(entry) if idle && entry.run == Run::Blocked => {
                entry.change(Run::Running, now_ticks);
                let was = core::mem::replace(&mut entry.deadline_ticks, NEVER);
                self.take_turn(slot, now_ticks);
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
        self.current.is_none() && self.runnable.is_empty()
    }

    /// Begins the turn of one that runs now.
    #[inline]
    const fn take_turn(&mut self, slot: Slot, now_ticks: u64) {
        self.turn = slot;
        self.current = Some(slot);
        self.slice_end_ticks = now_ticks.saturating_add(self.slice_ticks);
    }

    /// Blocks the running virtual CPU until it is woken, or until `deadline_ticks` if it has a timer to wait for.
    ///
    /// The caller has drained the wake-ups first and then found nothing to do for it, so that none is lost.
    #[inline]
    pub fn block(&mut self, deadline_ticks: Option<u64>, now_ticks: u64) {
        let Some(slot) = self.current.take() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(slot.index()) else {
            return;
        };
        entry.change(Run::Blocked, now_ticks);
        entry.left_ticks = self.slice_end_ticks.saturating_sub(now_ticks);
        if let Some(deadline_ticks) = deadline_ticks {
            entry.deadline_ticks = deadline_ticks;
            self.timed.insert(slot);
            self.earliest_ticks = self.earliest_ticks.min(deadline_ticks);
        }
    }

    /// Changes when a blocked virtual CPU wakes by itself; does nothing to one that is not blocked. Returns its account.
    #[inline]
    pub fn set_deadline(&mut self, slot: Slot, deadline_ticks: Option<u64>) -> Account {
        self.forget_deadline(slot);
        let Some(entry) = self.entries.get_mut(slot.index()) else {
            return Account::default();
        };
        if let (Run::Blocked, Some(deadline_ticks)) = (entry.run, deadline_ticks) {
            entry.deadline_ticks = deadline_ticks;
            self.timed.insert(slot);
            self.earliest_ticks = self.earliest_ticks.min(deadline_ticks);
        }
        entry.account
    }

    /// Wakes those whose deadline has come; two comparisons when there are none.
    #[inline]
    pub fn expire(&mut self, now_ticks: u64) {
        if now_ticks >= self.earliest_ticks && self.earliest_ticks != NEVER {
            self.wake_expired(now_ticks);
        }
    }

    fn wake_expired(&mut self, now_ticks: u64) {
        let mut earliest_ticks = NEVER;
        let timed = core::mem::take(&mut self.timed);
        for slot in timed.iter() {
            let Some(entry) = self.entries.get_mut(slot.index()) else {
                continue;
            };
            if entry.deadline_ticks <= now_ticks {
                entry.deadline_ticks = NEVER;
                let entry = *entry;
                self.line_up(slot, self.left_after_toll(&entry), now_ticks);
            } else {
                earliest_ticks = earliest_ticks.min(entry.deadline_ticks);
                self.timed.insert(slot);
            }
        }
        self.earliest_ticks = earliest_ticks;
    }

    /// Returns the virtual CPU that runs.
    #[inline]
    #[must_use]
    pub const fn current(&self) -> Option<Slot> {
        self.current
    }

    /// Returns whether it is time for [`RunQueue::pick_next`]: someone waits, and nobody runs, or the slice is over, or a turn is to be
    /// interrupted.
    #[inline]
    #[must_use]
    pub fn wants_switch(&self, now_ticks: u64) -> bool {
        !self.runnable.is_empty() && now_ticks >= self.due_ticks()
    }

    /// Returns when somebody who waits gets the CPU; 0 for at once. Kept out of the way of those for whom nobody waits.
    #[inline(never)]
    fn due_ticks(&self) -> u64 {
        let is_turn = self.current == Some(self.turn);
        if self.current.is_none() || is_turn && !self.urgent.is_empty() {
            0
        } else {
            self.slice_end_ticks
        }
    }

    /// Begins the next one's turn, or lets one go on that is urgent, instead of the one that runs; `None` if nobody wants to run.
    #[inline]
    pub fn pick_next(&mut self, now_ticks: u64) -> Option<Slot> {
        if let Some(slot) = self.current.take() {
            let left_ticks = self.slice_end_ticks.saturating_sub(now_ticks);
            self.line_up(slot, left_ticks, now_ticks);
        }
        // Whose turn it is comes last.
        let urgent = self.urgent.next_after(self.turn);
        let slot = urgent.or_else(|| self.runnable.next_after(self.turn))?;
        self.runnable.remove(slot);
        self.urgent.remove(slot);
        let entry = self.entries.get_mut(slot.index())?;
        entry.change(Run::Running, now_ticks);
        let left_ticks = entry.left_ticks;
        if urgent.is_some() && (slot == self.turn || !self.runnable.is_empty()) {
            self.current = Some(slot);
            self.slice_end_ticks = now_ticks.saturating_add(left_ticks);
        } else {
            self.take_turn(slot, now_ticks);
        }
        Some(slot)
    }

    /// Returns when the physical CPU has to look at the queue again: at once if somebody is urgent, the slice's end if someone waits for
    /// it, or the earliest deadline.
    #[inline]
    #[must_use]
    pub fn next_wake_ticks(&self) -> Option<u64> {
        if self.runnable.is_empty() {
            return self.next_deadline_ticks();
        }
        Some(self.due_ticks().min(self.earliest_ticks))
    }

    /// As [`RunQueue::next_wake_ticks`], if nobody wants to run.
    #[inline]
    #[must_use]
    pub fn next_deadline_ticks(&self) -> Option<u64> {
        (self.earliest_ticks != NEVER).then_some(self.earliest_ticks)
    }

    /// Returns whether exactly one virtual CPU has its place here, so that its WFI may be the CPU's own.
    #[inline]
    #[must_use]
    pub const fn alone(&self) -> bool {
        self.live == 1
    }

    /// Returns whether somebody waits for the one that runs.
    #[inline]
    #[must_use]
    pub const fn is_crowded(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Returns how many virtual CPUs run or want to.
    #[must_use]
    pub fn wanting(&self) -> u32 {
        self.runnable.iter().count() as u32 + u32::from(self.current.is_some())
    }

    /// Returns how many virtual CPUs have their place here.
    #[inline]
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.live
    }

    #[inline]
    fn forget_deadline(&mut self, slot: Slot) {
        let was = match self.entries.get_mut(slot.index()) {
            Some(entry) => core::mem::replace(&mut entry.deadline_ticks, NEVER),
            None => NEVER,
        };
        if was != NEVER {
            self.forget_timed(slot, was);
        }
    }

    fn forget_timed(&mut self, slot: Slot, was: u64) {
        self.timed.remove(slot);
        if was == self.earliest_ticks {
            self.earliest_ticks = self
                .timed
                .iter()
                .filter_map(|slot| self.entries.get(slot.index()))
                .fold(NEVER, |earliest, entry| earliest.min(entry.deadline_ticks));
        }
    }
}

#[cfg(test)]
mod tests;
