//! Ticks of the system counter as nanoseconds since EL2 started, and what time of day that was.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;
use types::counter::CounterRate;

use crate::timer;

static RATE: Once<CounterRate> = Once::new();
/// The counter when EL2 started.
static START: AtomicU64 = AtomicU64::new(0);

/// The time of day when EL2 started, in seconds since 1970, and whether it is known.
static EPOCH_S: AtomicU64 = AtomicU64::new(0);
static IS_EPOCH_KNOWN: AtomicBool = AtomicBool::new(false);

/// Reads the counter's rate; time begins now.
pub(crate) fn start() {
    RATE.call_once(|| CounterRate::new(timer::frequency()));
    START.store(timer::now(), Ordering::Relaxed);
}

/// Returns the counter's rate.
pub(crate) fn rate() -> CounterRate {
    let rate = RATE.get().copied();
    rate.unwrap_or_else(|| CounterRate::new(timer::frequency()))
}

/// Converts a number of ticks.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    rate().ns(ticks)
}

/// Converts a value of the counter to nanoseconds since EL2 started.
pub(crate) fn ticks_to_time_ns(counter: u64) -> u64 {
    ticks_to_ns(counter.wrapping_sub(START.load(Ordering::Relaxed)))
}

/// Returns nanoseconds since EL2 started.
pub(crate) fn now_ns() -> u64 {
    ticks_to_time_ns(timer::now())
}

/// Converts nanoseconds since EL2 started to a value of the counter; what it will never reach becomes its last.
pub(crate) fn ns_to_ticks(ns: u64) -> u64 {
    START
        .load(Ordering::Relaxed)
        .saturating_add(duration_ticks(ns))
}

/// Returns how many ticks a duration has.
pub(crate) fn duration_ticks(ns: u64) -> u64 {
    rate().ticks(ns)
}

/// Sets the time of day when EL2 started, in seconds since 1970.
pub(crate) fn set_epoch_s(seconds: u64) {
    EPOCH_S.store(seconds, Ordering::Relaxed);
    IS_EPOCH_KNOWN.store(true, Ordering::Release);
}

/// Returns it, if the machine's clock or the operator has told it.
pub(crate) fn epoch_s() -> Option<u64> {
    let is_known = IS_EPOCH_KNOWN.load(Ordering::Acquire);
    is_known.then(|| EPOCH_S.load(Ordering::Relaxed))
}
