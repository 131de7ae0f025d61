//! A second policy for the tests: round robin under caps, each shared by the vCPUs of a VM on any CPU, as a contract for CPU time is.

use super::round_robin::{Left, RoundRobin};
use super::{NEVER, Policy, Slot, SlotSet};
use alloc::rc::Rc;
use core::cell::Cell;

pub(crate) const PERIOD: u64 = 1000;
/// How much of its VM's quota a vCPU takes at a time.
pub(crate) const PIECE: u64 = 70;

/// What the vCPUs of a VM may use together in each period.
#[derive(Debug)]
pub(crate) struct Cap {
    quota: u64,
    period: Cell<u64>,
    /// Less than nothing is owed to the next period.
    pub(super) left: Cell<i64>,
}

impl Cap {
    pub(crate) fn new(quota: u64) -> Rc<Self> {
        Rc::new(Self {
            quota,
            period: Cell::new(0),
            left: Cell::new(quota as i64),
        })
    }

    /// Returns what is left in the period.
    fn left(&self, now: u64) -> i64 {
        let passed = now / PERIOD - self.period.replace(now / PERIOD);
        if passed != 0 {
            let owed = self.left.get().min(0);
            let fresh = owed + (passed * self.quota) as i64;
            self.left.set(fresh.min(self.quota as i64));
        }
        self.left.get()
    }
}

/// Round robin for those that may run, and a cap for those that have one.
#[derive(Debug)]
pub(crate) struct Capped {
    turns: RoundRobin,
    /// What each vCPU begins with.
    first: Option<Rc<Cap>>,
    limit: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Share {
    left: Left,
    pub(super) cap: Option<Rc<Cap>>,
}

impl Capped {
    pub(crate) fn new(slice: u64, first: Option<Rc<Cap>>) -> Self {
        Self {
            turns: RoundRobin::new(slice),
            first,
            limit: NEVER,
        }
    }

    /// Takes a piece of the cap, which is not used up.
    fn grant(&mut self, share: &Share, now: u64) {
        self.limit = NEVER;
        if let Some(cap) = &share.cap {
            let piece = cap.left(now).min(PIECE as i64);
            cap.left.set(cap.left.get() - piece);
            self.limit = now + piece as u64;
        }
    }
}

impl Policy for Capped {
    type Share = Share;

    const THROTTLES: bool = true;

    fn first_share(&self) -> Share {
        Share {
            left: self.turns.first_share(),
            cap: self.first.clone(),
        }
    }

    fn wake(&self, share: &mut Share) {
        self.turns.wake(&mut share.left);
    }

    fn enqueue(&mut self, slot: Slot, share: &Share) {
        self.turns.enqueue(slot, &share.left);
    }

    fn dequeue(&mut self, slot: Slot) {
        self.turns.dequeue(slot);
    }

    fn pick(&self, waiting: &SlotSet) -> Option<Slot> {
        self.turns.pick(waiting)
    }

    fn start(&mut self, slot: Slot, share: &mut Share, is_alone: bool, now: u64) {
        self.turns.start(slot, &mut share.left, is_alone, now);
        self.grant(share, now);
    }

    fn start_idle(&mut self, slot: Slot, share: &mut Share, now: u64) {
        self.turns.start_idle(slot, &mut share.left, now);
        self.grant(share, now);
    }

    fn stop(&mut self, share: &mut Share, now: u64) {
        self.turns.stop(&mut share.left, now);
        if let Some(cap) = &share.cap {
            let unused = self.limit as i64 - now as i64;
            cap.left.set(cap.left(now) + unused);
        }
    }

    fn due_ticks(&self, current: Slot) -> u64 {
        self.turns.due_ticks(current)
    }

    fn limit_ticks(&self) -> u64 {
        self.limit
    }

    fn held_until(&mut self, share: &mut Share, now: u64) -> Option<u64> {
        let cap = share.cap.as_ref()?;
        (cap.left(now) <= 0).then_some((now / PERIOD + 1) * PERIOD)
    }
}
