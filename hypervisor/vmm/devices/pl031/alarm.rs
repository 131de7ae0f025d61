//! When the clock of a VM has to be looked at because its alarm may ring: one atomic word, lowered by the vCPU that sets the alarm and
//! cleared by the CPU that keeps a timer for the VM.

use core::sync::atomic::{AtomicU64, Ordering};

/// No alarm.
const NEVER_NS: u64 = u64::MAX;
/// The clock of a VM that has set an alarm is looked at this often at least, in nanoseconds: so a guest that brings its alarm forward
/// second by second does not call the timer's CPU for each of them.
const MOST_NS: u64 = 60_000_000_000;

/// When to look at a VM's clock, at the latest.
#[derive(Debug)]
pub(super) struct Alarm(AtomicU64);

impl Alarm {
    /// No time.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(NEVER_NS))
    }

    /// Notes when the alarm rings as the clock is now; returns whether the CPU that keeps the timer has to be told, because it would
    /// come too late. One that comes too early finds that out.
    #[must_use]
    pub(super) fn set(&self, ring_ns: Option<u64>, now_ns: u64) -> bool {
        let Some(ring_ns) = ring_ns else { return false };
        let look_ns = ring_ns.min(now_ns.saturating_add(MOST_NS));
        self.0.fetch_min(look_ns, Ordering::AcqRel) > look_ns
    }

    /// Forgets when to look: the clock has been reset, so that no alarm is set.
    pub(super) fn forget(&self) {
        self.0.store(NEVER_NS, Ordering::Release);
    }

    /// Returns when to look at the clock.
    #[must_use]
    pub(super) fn look_ns(&self) -> Option<u64> {
        let look_ns = self.0.load(Ordering::Acquire);
        (look_ns != NEVER_NS).then_some(look_ns)
    }

    /// Returns whether it is time to look at the clock, and forgets it: the CPU that looks calls [`Alarm::set`] after.
    #[must_use]
    pub(super) fn take_due(&self, now_ns: u64) -> bool {
        let is_due = self.look_ns().is_some_and(|look_ns| look_ns <= now_ns);
        if is_due {
            self.0.store(NEVER_NS, Ordering::Release);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarm, MOST_NS};

    #[test]
    fn only_an_earlier_alarm_is_told() {
        let alarm = Alarm::new();
        assert!(!alarm.set(None, 0));
        assert_eq!(alarm.look_ns(), None);
        assert!(alarm.set(Some(50), 0));
        assert!(!alarm.set(Some(70), 1), "a look at 50 finds out");
        assert!(!alarm.set(None, 2), "a look at 50 finds out");
        assert!(alarm.set(Some(40), 3));
        assert!(!alarm.take_due(39));
        assert_eq!(alarm.look_ns(), Some(40));
        assert!(alarm.take_due(40));
        assert!(!alarm.take_due(41), "once");
        assert!(alarm.set(Some(90), 41));
    }

    #[test]
    fn a_far_alarm_that_comes_nearer_is_told_once() {
        let alarm = Alarm::new();
        let told = (1..1_000_000).rev();
        let told = told.filter(|second| alarm.set(Some(MOST_NS + second * 1_000_000_000), 5));
        assert_eq!(told.count(), 1);
        assert_eq!(alarm.look_ns(), Some(MOST_NS + 5));
    }
}
