//! Round robin: runnable vCPUs take turns in the order of their slots, each for one slice.
//!
//! A vCPU that runs alone has no slice to keep, and loses the CPU at once to one that wakes after the slice's time. One that blocks
//! before its slice is over keeps what is left, less a toll for the switches it costs to come back. If anything is left, the vCPU is
//! *urgent* when it wakes: it interrupts the vCPU whose turn it is, for no longer than that, and the turn goes on after. Only the
//! beginning of a turn, or an idle CPU, gives a slice anew. While one vCPU wants to run, no other one has more than one slice from one of
//! its turns to the next, whenever it takes it, and what it borrows.
//!
//! A vCPU whose word has changed, or that others wait for, is urgent even with nothing left: it borrows from its next turns, one piece
//! at a time and one longest slice in all, and pays with seven eighths of each of them until it owes nothing. So it runs earlier
//! and not longer. One that wakes with nothing left borrows in the same way to overtake those that only spin.
//!
//! A slice is the share of each of those that want to run in a time in which all have had one, twice the longest slice, and no shorter
//! than a floor: it is the floor while some only spin or wait for a word. So with n vCPUs one that wants to run waits 3(n - 1) longest
//! slices at most (what each other one had left, what it borrowed, and its turn); one that never sleeps gets an n-th of the CPU, less
//! 3n - 1 slices once; and in a turn each other one interrupts it `TOLLS` times at most.
//!
//! Where vCPUs have weights, each has its part of what all of them would have had together: a round is as long as before, and a slice as
//! its vCPU's weight is to all of those that want to run. It is no shorter than an eighth of the floor, or switches would eat it up: so a
//! vCPU with a very small weight has more than that.

use super::NEVER;
use super::policy::{Policy, Terms};
use super::set::{MAX_SLOTS, Slot, SlotSet, WORDS};
use alloc::vec::Vec;
use types::ids::DEFAULT_WEIGHT;

/// How many tolls make the longest slice: so many times may a vCPU that wakes interrupt another one before its next turn.
pub(super) const TOLLS: u64 = 512;
/// Which part of a turn is left to a vCPU that pays what it borrowed.
const KEPT_PART: u64 = 8;
/// Which part of the floor a slice has at least, however small its weight.
const LEAST_PART: u64 = 8;

/// Round robin with slices that are shorter the more vCPUs want to run.
#[derive(Debug)]
pub struct RoundRobin {
    /// Those that wait and have something left of their slice: they woke, or it is their turn that was interrupted.
    urgent: SlotSet,
    /// Those that woke with nothing left while one was spinning; empty while none is.
    late: SlotSet,
    /// Those of which the last that was known is that they only spin or wait for a word.
    spinning: SlotSet,
    /// The vCPU whose turn it is or was last, so that the next one's is next even after that one has left. Another one that runs is
    /// urgent.
    pub(super) turn: Slot,
    longest_ticks: u64,
    floor_ticks: u64,
    slice_end_ticks: u64,
    /// The weights of all slots, once one is not the default.
    weights: Vec<u16>,
}

/// What a vCPU has left of its slice while it does not run, be it off or not. The toll is taken when it wakes.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub(super) left_ticks: u64,
    /// What it has borrowed from its next turns, of which `left_ticks` may be a part.
    pub(super) debt_ticks: u64,
    weight: u16,
}

impl RoundRobin {
    /// Makes the policy with slices between these lengths, in counter ticks.
    #[must_use]
    pub const fn new(longest_ticks: u64, floor_ticks: u64) -> Self {
        Self {
            urgent: SlotSet::EMPTY,
            late: SlotSet::EMPTY,
            spinning: SlotSet::EMPTY,
            turn: Slot::from_bit(WORDS - 1, u64::BITS - 1),
            longest_ticks,
            floor_ticks,
            slice_end_ticks: NEVER,
            weights: Vec::new(),
        }
    }

    #[inline]
    const fn toll_ticks(&self) -> u64 {
        self.longest_ticks / TOLLS
    }

    /// Returns how long a turn is while others wait, less what the vCPU pays of what it has borrowed.
    #[cold]
    #[inline(never)]
    fn shared_slice(&self, share: &mut Left, waiting: &SlotSet) -> u64 {
        let slice_ticks = if !waiting.has_several() {
            self.longest_ticks
        } else if !self.spinning.is_empty() {
            self.floor_ticks
        } else {
            let part = self.longest_ticks * 2 / (u64::from(waiting.len()) + 1);
            part.clamp(self.floor_ticks, self.longest_ticks)
        };
        let slice_ticks = self.weighted(slice_ticks, share.weight, waiting);
        // What it borrowed and did not use is given back.
        share.debt_ticks = share.debt_ticks.saturating_sub(share.left_ticks);
        let paid = share.debt_ticks.min(slice_ticks - slice_ticks / KEPT_PART);
        share.debt_ticks -= paid;
        slice_ticks - paid
    }

    /// Returns the slice of a vCPU with this weight, if it were that long with equal ones.
    fn weighted(&self, slice_ticks: u64, weight: u16, waiting: &SlotSet) -> u64 {
        if self.weights.is_empty() {
            return slice_ticks;
        }
        let weight = u64::from(weight);
        let others = waiting.iter().map(|slot| {
            let of_slot = self.weights.get(slot.index());
            u64::from(of_slot.copied().unwrap_or(DEFAULT_WEIGHT))
        });
        let (all, count) = (weight + others.sum::<u64>(), u64::from(waiting.len()) + 1);
        let part = slice_ticks.saturating_mul(count).saturating_mul(weight) / all.max(1);
        part.max(self.floor_ticks / LEAST_PART)
    }

    /// Forgets what is known of a vCPU besides that it waits.
    #[inline(always)]
    fn forget(&mut self, slot: Slot) {
        if !self.spinning.is_empty() {
            self.forget_known(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_known(&mut self, slot: Slot) {
        self.late.remove(slot);
        self.spinning.remove(slot);
        if self.spinning.is_empty() {
            self.late = SlotSet::EMPTY;
        }
    }

    #[cold]
    #[inline(never)]
    fn wakes_late(&mut self, slot: Slot) {
        self.late.insert(slot);
    }
}

impl Policy for RoundRobin {
    type Share = Left;

    fn first_share(&self) -> Left {
        Left {
            left_ticks: self.longest_ticks,
            debt_ticks: 0,
            weight: DEFAULT_WEIGHT,
        }
    }

    #[inline]
    fn holds(&self) -> bool {
        false
    }

    fn agree(&mut self, slot: Slot, share: &mut Left, terms: Terms) {
        share.weight = terms.weight;
        if terms.weight != DEFAULT_WEIGHT {
            self.weights.resize(MAX_SLOTS, DEFAULT_WEIGHT);
        }
        if let Some(weight) = self.weights.get_mut(slot.index()) {
            *weight = terms.weight;
        }
    }

    #[inline]
    fn has_agreed(&self, share: &Left, terms: Terms) -> bool {
        share.weight == terms.weight
    }

    #[inline]
    fn may_hold(&self, _share: &Left) -> bool {
        false
    }

    #[inline]
    fn wake(&mut self, slot: Slot, share: &mut Left) {
        share.left_ticks = share.left_ticks.saturating_sub(self.toll_ticks());
        if share.left_ticks == 0 && !self.spinning.is_empty() {
            self.wakes_late(slot);
        }
    }

    #[inline]
    fn enqueue(&mut self, slot: Slot, share: &Left) {
        if share.left_ticks != 0 {
            self.urgent.insert(slot);
        }
    }

    #[inline(always)]
    fn dequeue(&mut self, slot: Slot) {
        self.urgent.remove(slot);
        self.forget(slot);
    }

    fn favour(&mut self, slot: Slot, share: &mut Left) -> bool {
        share.left_ticks = share.left_ticks.saturating_sub(self.toll_ticks());
        let wanted = self.floor_ticks.saturating_sub(share.left_ticks);
        let borrowed = wanted.min(self.longest_ticks.saturating_sub(share.debt_ticks));
        share.left_ticks += borrowed;
        share.debt_ticks += borrowed;
        self.late.remove(slot);
        if share.left_ticks != 0 {
            self.urgent.insert(slot);
        }
        share.left_ticks != 0
    }

    fn spins(&mut self, slot: Slot, share: &mut Left, gives_up: bool) {
        self.spinning.insert(slot);
        if gives_up {
            share.left_ticks = 0;
        }
    }

    /// The urgent ones first; the vCPU whose turn it is comes last.
    #[inline]
    fn pick(&self, waiting: &SlotSet) -> Option<Slot> {
        let urgent = self.urgent.next_after(self.turn);
        urgent.or_else(|| waiting.next_after(self.turn))
    }

    #[inline]
    fn overtakes(&self, slot: Slot, waiting: &SlotSet) -> Option<Slot> {
        if self.late.is_empty() || !self.spinning.contains(slot) || self.urgent.contains(slot) {
            return None;
        }
        let late = self.late.next_after(self.turn);
        late.filter(|slot| waiting.contains(*slot))
    }

    #[inline]
    fn start<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        share: &mut Left,
        waiting: &SlotSet,
        now_ticks: u64,
    ) {
        let is_alone = waiting.is_empty();
        self.forget(slot);
        if self.urgent.remove(slot) && (slot == self.turn || !is_alone) {
            self.slice_end_ticks = now_ticks.saturating_add(share.left_ticks);
            return;
        }
        self.turn = slot;
        let mut slice_ticks = self.longest_ticks;
        let is_weighted = HOLDS && !self.weights.is_empty();
        if !is_alone && (waiting.has_several() || share.debt_ticks != 0 || is_weighted) {
            slice_ticks = self.shared_slice(share, waiting);
        }
        self.slice_end_ticks = now_ticks.saturating_add(slice_ticks);
    }

    #[inline]
    fn start_idle<const HOLDS: bool>(&mut self, slot: Slot, _share: &mut Left, now_ticks: u64) {
        self.turn = slot;
        self.slice_end_ticks = now_ticks.saturating_add(self.longest_ticks);
    }

    #[inline]
    fn stop<const HOLDS: bool>(&mut self, share: &mut Left, now_ticks: u64) {
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

    fn throttled(&self, _share: &Left, _spent_ticks: u64) {}

    #[inline]
    fn held_until(&mut self, _share: &mut Left, _now_ticks: u64) -> Option<u64> {
        None
    }
}
