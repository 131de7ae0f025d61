//! Round robin: runnable vCPUs take turns in the order of their slots, each for one slice.
//!
//! A vCPU that runs alone has no slice to keep, and loses the CPU at once to one that wakes after the slice's time. One that blocks
//! before its slice is over keeps what is left, less a toll for the switches it costs to come back. If anything is left, the vCPU is
//! *urgent* when it wakes: it interrupts the vCPU whose turn it is, for no longer than that, and the turn goes on after. Only the
//! beginning of a turn, or an idle CPU, gives a slice anew. While one vCPU wants to run, no other one has more than one slice from one of
//! its turns to the next, whenever it takes it. So with n vCPUs one that wants to run waits 2(n - 1) slices at most (what each other one
//! had left, and its turn); one that never sleeps gets an n-th of the CPU, less 2n - 1 slices once; and in a turn each other one
//! interrupts it `TOLLS` times at most.

use super::NEVER;
use super::policy::{Policy, Terms};
use super::set::{Slot, SlotSet, WORDS};

/// How many tolls make a slice: so many times may a vCPU that wakes interrupt another one before its next turn.
pub(super) const TOLLS: u64 = 512;

/// Round robin with slices of one length.
#[derive(Debug)]
pub struct RoundRobin {
    /// Those that wait and have something left of their slice: they woke, or it is their turn that was interrupted.
    urgent: SlotSet,
    /// The vCPU whose turn it is or was last, so that the next one's is next even after that one has left. Another one that runs is
    /// urgent.
    pub(super) turn: Slot,
    slice_ticks: u64,
    slice_end_ticks: u64,
}

/// What a vCPU has left of its slice while it does not run, be it off or not. The toll is taken when it wakes.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub(super) left_ticks: u64,
}

impl RoundRobin {
    /// Makes the policy with slices of this length, in counter ticks.
    #[must_use]
    pub const fn new(slice_ticks: u64) -> Self {
        Self {
            urgent: SlotSet::EMPTY,
            turn: Slot::from_bit(WORDS - 1, u64::BITS - 1),
            slice_ticks,
            slice_end_ticks: NEVER,
        }
    }
}

impl Policy for RoundRobin {
    type Share = Left;

    const THROTTLES: bool = false;

    fn first_share(&self) -> Left {
        Left {
            left_ticks: self.slice_ticks,
        }
    }

    #[inline]
    fn agree(&self, _share: &mut Left, _terms: Terms) {}

    #[inline]
    fn has_agreed(&self, _share: &Left, _terms: Terms) -> bool {
        true
    }

    #[inline]
    fn may_hold(&self, _share: &Left) -> bool {
        false
    }

    #[inline]
    fn wake(&self, share: &mut Left) {
        share.left_ticks = share.left_ticks.saturating_sub(self.slice_ticks / TOLLS);
    }

    #[inline]
    fn enqueue(&mut self, slot: Slot, share: &Left) {
        if share.left_ticks != 0 {
            self.urgent.insert(slot);
        }
    }

    #[inline]
    fn dequeue(&mut self, slot: Slot) {
        self.urgent.remove(slot);
    }

    /// The urgent ones first; the vCPU whose turn it is comes last.
    #[inline]
    fn pick(&self, waiting: &SlotSet) -> Option<Slot> {
        let urgent = self.urgent.next_after(self.turn);
        urgent.or_else(|| waiting.next_after(self.turn))
    }

    #[inline]
    fn start(&mut self, slot: Slot, share: &mut Left, is_alone: bool, now_ticks: u64) {
        if self.urgent.remove(slot) && (slot == self.turn || !is_alone) {
            self.slice_end_ticks = now_ticks.saturating_add(share.left_ticks);
        } else {
            self.start_idle(slot, share, now_ticks);
        }
    }

    #[inline]
    fn start_idle(&mut self, slot: Slot, _share: &mut Left, now_ticks: u64) {
        self.turn = slot;
        self.slice_end_ticks = now_ticks.saturating_add(self.slice_ticks);
    }

    #[inline]
    fn stop(&mut self, share: &mut Left, now_ticks: u64) {
        share.left_ticks = self.slice_end_ticks.saturating_sub(now_ticks);
    }

    #[inline]
    fn due_ticks(&self, current: Slot) -> u64 {
        if current == self.turn && !self.urgent.is_empty() {
            0
        } else {
            self.slice_end_ticks
        }
    }

    #[inline]
    fn limit_ticks(&self) -> u64 {
        NEVER
    }

    #[inline]
    fn held_until(&mut self, _share: &mut Left, _now_ticks: u64) -> Option<u64> {
        None
    }
}
