//! Caps over another policy: a vCPU whose VM has one runs for a piece of it at a time, and is held when it is used up.

use super::NEVER;
use super::cap::Cap;
use super::policy::{Policy, Terms};
use super::set::{Slot, SlotSet};
use types::ids::DEFAULT_WEIGHT;

/// A policy under caps, which each VM's vCPUs on all CPUs share.
#[derive(Debug)]
pub struct Capped<P> {
    turns: P,
    /// When the piece of the vCPU that runs is used up.
    limit_ticks: u64,
    /// Whether a vCPU that has been here had a cap, or a weight of its own. Until then, one flag is all that is asked.
    has_terms: bool,
}

/// What is kept for a slot: the other policy's share, and the cap of its VM if that has one.
#[derive(Clone, Debug)]
pub struct Share<S> {
    turns: S,
    cap: Option<&'static Cap>,
}

impl<P> Capped<P> {
    /// Puts a policy under caps.
    #[must_use]
    pub const fn new(turns: P) -> Self {
        Self {
            turns,
            limit_ticks: NEVER,
            has_terms: false,
        }
    }

    /// Takes a piece of the cap; nothing if it is used up.
    #[inline]
    fn grant(&mut self, cap: Option<&'static Cap>, now_ticks: u64) {
        if let Some(cap) = cap {
            self.limit_ticks = now_ticks.saturating_add(cap.take(now_ticks));
        }
    }

    /// Gives back what is left of the piece.
    #[inline]
    fn settle(&mut self, cap: Option<&'static Cap>, now_ticks: u64) {
        if let Some(cap) = cap {
            let limit = core::mem::replace(&mut self.limit_ticks, NEVER);
            cap.give_back(limit.wrapping_sub(now_ticks) as i64, now_ticks);
        }
    }
}

impl<P: Policy> Policy for Capped<P> {
    type Share = Share<P::Share>;

    fn first_share(&self) -> Self::Share {
        Share {
            turns: self.turns.first_share(),
            cap: None,
        }
    }

    #[inline]
    fn holds(&self) -> bool {
        self.has_terms || self.turns.holds()
    }

    fn agree(&mut self, slot: Slot, share: &mut Self::Share, terms: Terms) {
        share.cap = terms.cap;
        self.has_terms |= terms.cap.is_some() || terms.weight != DEFAULT_WEIGHT;
        self.turns.agree(slot, &mut share.turns, terms);
    }

    fn has_agreed(&self, share: &Self::Share, terms: Terms) -> bool {
        let cap = |cap: Option<&'static Cap>| cap.map(core::ptr::from_ref);
        cap(share.cap) == cap(terms.cap) && self.turns.has_agreed(&share.turns, terms)
    }

    #[inline]
    fn may_hold(&self, share: &Self::Share) -> bool {
        share.cap.is_some() || self.turns.may_hold(&share.turns)
    }

    #[inline]
    fn wake(&mut self, slot: Slot, share: &mut Self::Share) {
        self.turns.wake(slot, &mut share.turns);
    }

    #[inline]
    fn enqueue(&mut self, slot: Slot, share: &Self::Share) {
        self.turns.enqueue(slot, &share.turns);
    }

    #[inline]
    fn dequeue(&mut self, slot: Slot) {
        self.turns.dequeue(slot);
    }

    #[inline]
    fn favour(&mut self, slot: Slot, share: &mut Self::Share) -> bool {
        self.turns.favour(slot, &mut share.turns)
    }

    fn spins(&mut self, slot: Slot, share: &mut Self::Share, gives_up: bool) {
        self.turns.spins(slot, &mut share.turns, gives_up);
    }

    #[inline]
    fn overtakes(&self, slot: Slot, waiting: &SlotSet) -> Option<Slot> {
        self.turns.overtakes(slot, waiting)
    }

    #[inline]
    fn pick(&self, waiting: &SlotSet) -> Option<Slot> {
        self.turns.pick(waiting)
    }

    #[inline]
    fn start<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        share: &mut Self::Share,
        waiting: &SlotSet,
        now_ticks: u64,
    ) {
        self.turns
            .start::<HOLDS>(slot, &mut share.turns, waiting, now_ticks);
        if HOLDS {
            self.grant(share.cap, now_ticks);
        }
    }

    #[inline]
    fn start_idle<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        share: &mut Self::Share,
        now_ticks: u64,
    ) {
        self.turns
            .start_idle::<HOLDS>(slot, &mut share.turns, now_ticks);
        if HOLDS {
            self.grant(share.cap, now_ticks);
        }
    }

    #[inline]
    fn stop<const HOLDS: bool>(&mut self, share: &mut Self::Share, now_ticks: u64) {
        self.turns.stop::<HOLDS>(&mut share.turns, now_ticks);
        if HOLDS {
            self.settle(share.cap, now_ticks);
        }
    }

    #[inline]
    fn due_ticks(&self, current: Slot) -> u64 {
        self.turns.due_ticks(current)
    }

    #[inline]
    fn limit_ticks(&self) -> u64 {
        self.limit_ticks
    }

    fn throttled(&self, share: &Self::Share, spent_ticks: u64) {
        if let Some(cap) = share.cap {
            cap.note_throttled(spent_ticks);
        }
    }

    #[inline]
    fn held_until(&mut self, share: &mut Self::Share, now_ticks: u64) -> Option<u64> {
        share.cap?.replenished_ticks(now_ticks)
    }
}
