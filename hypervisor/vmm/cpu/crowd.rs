//! A CPU that more vCPUs want than it can run: those that only wait are found and do not run before what they wait for is there.
//!
//! While others wait, the vCPU that runs is looked at a while after it got the CPU and then at intervals, and at each WFE where that
//! traps (`crate::spin`). One that waits for a word of memory is not run again until the word has changed, which is seen when
//! another one is looked at or leaves the CPU, or when the CPU has nothing else to do; until an interrupt comes that it would take; or until a deadline,
//! since memory is all that is compared: a word may have changed and changed back.

use alloc::vec::Vec;

use super::attach::at;
use super::{Machine, Pcpu};
use crate::sched::{NEVER, Policy, Slot};
use crate::spin::{self, Doing, Word, Words};
use crate::vm::context::{Owner, PSTATE_I};
use crate::vm::request;

/// How long after a vCPU got the CPU it is looked at, in nanoseconds.
const FIRST_LOOK_NS: u64 = 100_000;
/// How long after that it is looked at again at the earliest: a look takes some 6,600 instructions with its exit.
const NEXT_LOOK_NS: u64 = 300_000;
/// How many times as long as a look took passes before the CPU has the next one: so one on which looks take long, as on an emulator that
/// shares its host, spends no more than an eighth of its time on them.
const LOOK_PART: u64 = 8;
/// How long a vCPU waits for a word at most, if an interrupt may end its wait.
const PATIENCE_NS: u64 = 4_000_000;
/// The same with interrupts masked: only the word ends it.
const MASKED_PATIENCE_NS: u64 = 20_000_000;
/// How long a CPU watches words if there is nothing else to do, before it runs one of those that wait for them.
const WATCH_NS: u64 = 100_000;
/// The words of how many vCPUs are compared at a time.
const MOST_COMPARED: u16 = 64;

/// When the vCPU that runs is looked at, and whose turn it is among those that wait for words.
#[derive(Debug)]
pub(super) struct Crowd {
    /// In counter ticks.
    pub(super) look_ticks: u64,
    first_look_ticks: u64,
    /// No look before that time, in counter ticks.
    rest_until_ticks: u64,
    /// How long a look takes, as far as is known: no more than twice what it took before, since a CPU may be stopped in the middle of one.
    look_takes_ticks: u64,
    /// What each vCPU waits for, while it is watching.
    words: Vec<Words>,
    /// The one whose words were compared last.
    compared: Slot,
    /// The one that was run last although its words had not changed.
    released: Slot,
}

impl Crowd {
    pub(super) fn new<M: Machine>(machine: &M) -> Self {
        Self {
            look_ticks: NEVER,
            first_look_ticks: machine.ticks(FIRST_LOOK_NS),
            rest_until_ticks: 0,
            look_takes_ticks: 0,
            words: Vec::new(),
            compared: Slot::FIRST,
            released: Slot::FIRST,
        }
    }
}

impl Crowd {
    /// Returns whether the vCPU that runs is looked at: others wait.
    #[inline]
    pub(super) const fn is_looked_at(&self) -> bool {
        self.look_ticks != NEVER
    }

    /// Notes that a look was over at a time, and how long it took.
    fn note_look(&mut self, now: u64, took_ticks: u64) {
        let most = (self.look_takes_ticks * 2).max(self.first_look_ticks / LOOK_PART);
        self.look_takes_ticks = took_ticks.min(most);
        self.rest_until_ticks = now + self.look_takes_ticks * LOOK_PART;
        self.look_ticks = self.look_ticks.max(self.rest_until_ticks);
    }

    /// Makes room for what the vCPU in a slot may wait for; this alone allocates.
    pub(super) fn reserve(&mut self, slot: Slot) {
        if self.words.len() <= slot.index() {
            self.words.resize_with(slot.index() + 1, Words::new);
        }
    }
}

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Sets when the vCPU that runs is looked at, if it is not set; returns when.
    #[inline]
    pub(super) fn plan_look(&mut self, now: u64) -> u64 {
        if self.crowd.look_ticks == NEVER {
            let first = now + self.crowd.first_look_ticks;
            self.crowd.look_ticks = first.max(self.crowd.rest_until_ticks);
        }
        self.crowd.look_ticks
    }

    /// Looks at the vCPU that ran until now, and at the words that others wait for.
    ///
    /// One that gets on is looked at again after as long as it has run, so that it hardly pays for that; sooner only while others wait for
    /// words, which it may change.
    #[cold]
    pub(super) fn look_around(&mut self, now: u64) {
        let soon = self.machine.ticks(NEXT_LOOK_NS);
        let wait = match self.queue.is_watched() {
            true => soon,
            false => soon.max(self.queue.current_ran_ticks(now)),
        };
        self.crowd.look_ticks = now + wait;
        if let Some(slot) = self
            .queue
            .current()
            .filter(|slot| self.loaded == Some(*slot))
        {
            self.look(slot, now);
            let end = self.machine.now();
            self.crowd.note_look(end, end.saturating_sub(now));
        }
        self.compare_words(now);
    }

    /// Looks at a vCPU that executed a WFE which trapped, if others wait; `timed` says that it would have slept for a time.
    #[cold]
    pub(super) fn waits_for_event(&mut self, slot: Slot, timed: bool) {
        let now = self.machine.now();
        if !self.queue.is_crowded() {
            return;
        }
        self.look(slot, now);
        if timed && self.queue.current().is_some() {
            self.queue.give_up(now);
        }
    }

    /// As [`Self::has_deliverable`], of which there is one here for all that is seldom.
    #[cold]
    #[inline(never)]
    fn has_something_to_take(&self) -> bool {
        self.has_deliverable()
    }

    /// Finds out what the loaded vCPU does, and takes the CPU from it if it only waits.
    fn look(&mut self, slot: Slot, now: u64) {
        let attached = at(&mut self.attached, slot);
        let Owner { vm, vcpu } = attached.place;
        let context = &attached.context;
        if vcpu.requested() != 0 || context.suspended.is_some() {
            return;
        }
        let sight = self.machine.sight();
        let read = |address, width| self.machine.read_ram(vm, address, width);
        match spin::look(&context.frame, &sight, &read) {
            Doing::Running => {}
            Doing::Spinning => self.queue.give_up(now),
            Doing::Waiting(words) => {
                let hears = context.frame.pstate & PSTATE_I == 0;
                // It was looked at before it could take one: what was posted since has not been delivered either.
                if hears && (!vcpu.inbox.is_empty() || self.has_something_to_take()) {
                    return;
                }
                let patience = if hears {
                    PATIENCE_NS
                } else {
                    MASKED_PATIENCE_NS
                };
                if let Some(place) = self.crowd.words.get_mut(slot.index()) {
                    *place = words;
                }
                let deadline = now + self.machine.ticks(patience);
                self.queue.watch(hears, deadline, now);
            }
        }
    }

    /// Compares the words that vCPUs wait for with what they were; lets those run whose words have changed. Returns whether there are
    /// such.
    pub(super) fn compare_words(&mut self, now: u64) -> bool {
        let mut found = false;
        for _ in 0..self.queue.watching().min(MOST_COMPARED) {
            let Some(slot) = self.queue.next_watching(self.crowd.compared) else {
                break;
            };
            self.crowd.compared = slot;
            let vm = at(&mut self.attached, slot).place.vm;
            let words = self.crowd.words.get(slot.index());
            let differs = |word: &Word| {
                let value = self.machine.read_ram(vm, word.address, word.width);
                value != Some(word.value)
            };
            if words.is_some_and(|words| words.iter().any(differs)) {
                self.queue.changed(slot, now);
                found = true;
            }
        }
        found
    }

    /// Watches words while all that want to run wait for one, for a while; then lets one run whatever its word is.
    #[cold]
    #[inline(never)]
    pub(super) fn watch_words(&mut self) {
        self.crowd.look_ticks = NEVER;
        self.arm_for(false, self.queue.next_deadline_ticks());
        let end = self.machine.now() + self.machine.ticks(WATCH_NS);
        loop {
            if !self.local.wakes.is_empty() || self.local.has_deferred() {
                return;
            }
            if self.machine.is_interrupted() {
                if self.machine.acknowledge() {
                    self.interrupt();
                }
                if let Some(slot) = self.loaded
                    && self.has_something_to_take()
                    && self.queue.wake(slot, self.machine.now())
                {
                    return;
                }
            }
            let now = self.machine.now();
            let deadline = self.queue.next_deadline_ticks();
            if self.compare_words(now) || now >= deadline {
                return;
            }
            if now >= end {
                break;
            }
            self.machine.relax();
        }
        if let Some(slot) = self.queue.next_watching(self.crowd.released) {
            self.crowd.released = slot;
            self.queue.end_watch(slot, self.machine.now());
        }
    }

    /// Does what others ask of a vCPU that was not blocked.
    #[cold]
    pub(super) fn heed(&mut self, slot: Slot, now: u64) {
        let vcpu = at(&mut self.attached, slot).place.vcpu;
        if vcpu.take_request(request::HURRY) {
            self.queue.favour(slot);
        }
        if vcpu.requested() != 0 {
            // Not before its word changes would be too late.
            self.queue.end_watch(slot, now);
        }
    }
}
