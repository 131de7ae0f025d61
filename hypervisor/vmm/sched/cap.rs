//! Caps: how much of all CPUs together the vCPUs of a VM may use in each period, as cgroup v2's cpu.max says it.
//!
//! A CPU takes time out of the VM's pool in pieces, before the vCPU runs, and gives back what the vCPU did not use. So CPUs meet at the
//! pool once a piece and not at each switch. What a CPU uses beyond its piece, because EL2 came late, is owed: the next period begins
//! with that much less.
//!
//! The pool is one word, so that the time in it and the period it belongs to are never seen apart. Each change is a compare-and-swap of
//! that word alone: nothing else is published by it, so no order is asked for.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use types::counter::CounterRate;

/// Length of a period in nanoseconds: 100 ms, as of Linux's cpu.max and of Kubernetes.
const PERIOD_NS: u64 = 100_000_000;
/// How much a CPU takes at a time at most, in nanoseconds.
const PIECE_NS: u64 = 1_000_000;

/// Bits of the pool that say how many ticks are left; the period's number, modulo a power of two, is above them.
const LEFT_BITS: u32 = 40;
const LEFT_MASK: u64 = (1 << LEFT_BITS) - 1;
/// Added to the ticks that are left, which may be less than nothing.
const BIAS: i64 = 1 << (LEFT_BITS - 1);
const PERIODS: u64 = 1 << (u64::BITS - LEFT_BITS);
/// The most ticks that a period may have: half an hour at 1 GHz, less than the pool holds.
const MAX_QUOTA: i64 = BIAS / 4;
/// No cap.
const NONE: u64 = u64::MAX;
/// No cap, in millicores.
const NO_MILLICORES: u32 = u32::MAX;

/// The cap of a VM, or none.
#[derive(Debug)]
pub struct Cap {
    period_ticks: u64,
    piece_ticks: u64,
    /// As it was set; [`NO_MILLICORES`] for none.
    millicores: AtomicU32,
    quota_ticks: AtomicU64,
    pool: AtomicU64,
    /// For how long it has held vCPUs back, each by itself, since EL2 started.
    throttled_ticks: AtomicU64,
}

/// What is left in a period; the number is modulo [`PERIODS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool {
    number: u64,
    left: i64,
}

impl Pool {
    const fn unpack(word: u64) -> Self {
        Self {
            number: word >> LEFT_BITS,
            left: (word & LEFT_MASK) as i64 - BIAS,
        }
    }

    fn pack(self) -> u64 {
        let left = self.left.clamp(1 - BIAS, BIAS - 1);
        self.number << LEFT_BITS | (left + BIAS) as u64
    }

    /// Returns the pool at a time in a period: replenished, less what is owed. A CPU whose clock was read before another one began the
    /// period finds what is left in that one.
    fn in_period(self, number: u64, quota: i64) -> Self {
        let passed = number.wrapping_sub(self.number) % PERIODS;
        if passed == 0 || passed >= PERIODS / 2 {
            return self;
        }
        let fresh = self
            .left
            .min(0)
            .saturating_add(quota.saturating_mul(passed as i64));
        Self {
            number: number % PERIODS,
            left: fresh.min(quota),
        }
    }
}

impl Cap {
    /// Makes a cap that is not set, on a machine whose counter counts at this rate.
    #[must_use]
    pub const fn at(counter: CounterRate) -> Self {
        Self::new(counter.ticks(PERIOD_NS), counter.ticks(PIECE_NS))
    }

    /// Makes a cap that is not set, with the lengths of a period and a piece in counter ticks.
    pub(super) const fn new(period_ticks: u64, piece_ticks: u64) -> Self {
        Self {
            // A counter without a frequency must not divide by nothing.
            period_ticks: if period_ticks == 0 { 1 } else { period_ticks },
            piece_ticks,
            millicores: AtomicU32::new(NO_MILLICORES),
            quota_ticks: AtomicU64::new(NONE),
            pool: AtomicU64::new(BIAS as u64),
            throttled_ticks: AtomicU64::new(0),
        }
    }

    /// Sets how much may be used, in thousandths of a CPU, or that anything may; from now on, with a whole period's time.
    pub fn set(&self, millicores: Option<u32>, now_ticks: u64) {
        let quota = millicores.map_or(NONE, |millicores| {
            let quota = u128::from(self.period_ticks) * u128::from(millicores) / 1000;
            quota.clamp(1, MAX_QUOTA as u128) as u64
        });
        let shown = millicores.unwrap_or(NO_MILLICORES);
        self.millicores.store(shown, Ordering::Relaxed);
        self.quota_ticks.store(quota, Ordering::Relaxed);
        let pool = Pool {
            number: now_ticks / self.period_ticks % PERIODS,
            left: quota.min(MAX_QUOTA as u64) as i64,
        };
        self.pool.store(pool.pack(), Ordering::Relaxed);
    }

    /// Returns what it was set to, in thousandths of a CPU; `None` for no limit.
    #[must_use]
    pub fn millicores(&self) -> Option<u32> {
        Some(self.millicores.load(Ordering::Relaxed))
            .filter(|millicores| *millicores != NO_MILLICORES)
    }

    /// Returns whether it holds anything back.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.quota_ticks.load(Ordering::Relaxed) != NONE
    }

    /// Notes that it has held a vCPU back for so long.
    pub(super) fn note_throttled(&self, spent_ticks: u64) {
        self.throttled_ticks
            .fetch_add(spent_ticks, Ordering::Relaxed);
    }

    /// Returns for how many counter ticks it has held vCPUs back, each by itself, as far as their CPUs have said so.
    #[must_use]
    pub fn throttled_ticks(&self) -> u64 {
        self.throttled_ticks.load(Ordering::Relaxed)
    }

    fn quota(&self) -> i64 {
        (self.quota_ticks.load(Ordering::Relaxed)).min(MAX_QUOTA as u64) as i64
    }

    /// Takes a piece for a vCPU that begins to run; returns how many ticks, 0 if nothing is left.
    pub(super) fn take(&self, now_ticks: u64) -> u64 {
        let mut piece = 0;
        self.change(now_ticks, |left| {
            piece = left.clamp(0, self.piece_ticks as i64);
            left - piece
        });
        piece as u64
    }

    /// Gives back what a vCPU did not use of its piece; less than nothing if it used more.
    pub(super) fn give_back(&self, unused: i64, now_ticks: u64) {
        let quota = self.quota();
        self.change(now_ticks, |left| left.saturating_add(unused).min(quota));
    }

    /// Returns when there is something to take again; `None` if there is now.
    pub(super) fn replenished_ticks(&self, now_ticks: u64) -> Option<u64> {
        let (quota, number) = (self.quota(), now_ticks / self.period_ticks);
        let pool = Pool::unpack(self.pool.load(Ordering::Relaxed));
        let left = pool.in_period(number % PERIODS, quota).left;
        if left > 0 {
            return None;
        }
        let periods = left.unsigned_abs() / quota.unsigned_abs().max(1) + 1;
        Some((number + periods) * self.period_ticks)
    }

    fn change(&self, now_ticks: u64, mut change: impl FnMut(i64) -> i64) {
        let (quota, number) = (self.quota(), now_ticks / self.period_ticks);
        let changed = |word| {
            let mut pool = Pool::unpack(word).in_period(number % PERIODS, quota);
            pool.left = change(pool.left);
            Some(pool.pack())
        };
        let changed = self
            .pool
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
        debug_assert!(changed.is_ok(), "it always has a new value");
    }
}

#[cfg(test)]
mod tests {
    use super::{Cap, PERIODS};
    use proptest::prelude::*;

    const PERIOD: u64 = 1000;

    fn cap(millicores: u32) -> Cap {
        let cap = Cap::new(PERIOD, 70);
        cap.set(Some(millicores), 0);
        cap
    }

    fn take_all(cap: &Cap, now: u64) -> u64 {
        core::iter::from_fn(|| Some(cap.take(now)).filter(|piece| *piece != 0)).sum()
    }

    #[test]
    fn pieces_are_handed_out_until_nothing_is_left() {
        let cap = cap(200);
        assert_eq!([(); 4].map(|()| cap.take(10)), [70, 70, 60, 0]);
        assert_eq!(cap.replenished_ticks(10), Some(PERIOD));
        assert_eq!(cap.replenished_ticks(PERIOD - 1), Some(PERIOD));
        assert_eq!(cap.replenished_ticks(PERIOD), None);
        assert_eq!(take_all(&cap, 5 * PERIOD), 200, "nothing is saved up");
    }

    #[test]
    fn what_is_not_used_comes_back_and_what_is_overdrawn_is_owed() {
        let cap = cap(200);
        assert_eq!(cap.take(0), 70);
        cap.give_back(30, 40);
        assert_eq!(take_all(&cap, 40), 160);
        cap.give_back(-450, 300);
        assert_eq!(cap.replenished_ticks(300), Some(3 * PERIOD));
        assert_eq!(take_all(&cap, 2 * PERIOD), 0);
        assert_eq!(take_all(&cap, 3 * PERIOD), 150);
        // What a piece of the last period had is not more than a whole period.
        cap.give_back(70, 4 * PERIOD);
        assert_eq!(take_all(&cap, 4 * PERIOD), 200);
    }

    #[test]
    fn a_cap_is_set_and_removed_at_once() {
        let cap = Cap::new(PERIOD, 70);
        assert_eq!((cap.is_set(), cap.millicores()), (false, None));
        cap.set(Some(50), 10);
        assert_eq!((cap.is_set(), cap.millicores()), (true, Some(50)));
        assert_eq!(take_all(&cap, 10), 50);
        cap.set(Some(2500), 20);
        assert_eq!(take_all(&cap, 20), 2500);
        cap.set(None, 30);
        assert!(!cap.is_set());
        assert_eq!((cap.take(40), cap.replenished_ticks(40)), (70, None));
    }

    #[test]
    fn a_clock_that_was_read_late_and_numbers_that_wrap_do_no_harm() {
        let cap = cap(200);
        let wrap = PERIODS * PERIOD;
        cap.set(Some(200), wrap - 1);
        assert_eq!(take_all(&cap, wrap - 1), 200);
        assert_eq!(take_all(&cap, wrap), 200);
        assert_eq!(
            take_all(&cap, wrap - 1),
            0,
            "another CPU has begun the next period"
        );
        assert_eq!(cap.replenished_ticks(wrap + 1), Some(wrap + PERIOD));
        assert_eq!(take_all(&cap, wrap + PERIOD), 200);
    }

    #[test]
    fn a_counter_without_a_frequency_does_not_divide_by_nothing() {
        let cap = Cap::new(0, 0);
        cap.set(Some(50), 7);
        assert_eq!(cap.take(7), 0);
    }

    proptest! {
        #[test]
        fn no_period_gives_more_than_its_quota(
            millicores in 50_u32..4000,
            steps in prop::collection::vec((0_u64..400, -40_i64..=70), 1..200),
        ) {
            let cap = cap(millicores);
            let quota = PERIOD * u64::from(millicores) / 1000;
            let (mut now, mut used) = (0, 0_i64);
            for (passed, unused) in steps {
                now += passed;
                let piece = cap.take(now) as i64;
                if piece == 0 {
                    let until = cap.replenished_ticks(now).unwrap();
                    prop_assert!(until > now);
                    prop_assert_eq!(cap.take(until - 1), 0);
                    continue;
                }
                let unused = unused.min(piece);
                cap.give_back(unused, now);
                used += piece - unused;
            }
            let most = (now / PERIOD + 1) * quota;
            prop_assert!(used <= most as i64 + 40, "{} of {}", used, most);
        }
    }
}
