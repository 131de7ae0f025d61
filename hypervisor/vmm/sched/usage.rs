//! What a vCPU has had of its CPU, as others read it. Its CPU alone writes it: when it switches, when the vCPU leaves, and when asked.

use super::Account;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Time that a vCPU ran and waited since it was last turned on or moved.
#[derive(Debug, Default)]
pub struct Usage {
    ran_ticks: AtomicU64,
    stolen_ticks: AtomicU64,
    /// When it last woke from a sleep in which it kept its CPU, and what is to be added to that, modulo 2^64, to have how long it has
    /// slept like that in all: what it slept before, less when it fell asleep.
    woke_ticks: AtomicU64,
    before_ticks: AtomicU64,
    counts_sleep: AtomicBool,
    /// What was stolen from it since its VM was started or reset, until it was last turned on or moved.
    stolen_before_ticks: AtomicU64,
    /// Whether its guest wants to know what is stolen.
    is_guest_told: AtomicBool,
}

impl Usage {
    /// Begins anew with an empty account. What the last one said of stolen time was published.
    #[inline]
    pub fn begin(&self) {
        if self.stolen_ticks() != 0 {
            self.fold_stolen();
        }
        self.woke_ticks.store(0, Ordering::Relaxed);
        self.before_ticks.store(0, Ordering::Relaxed);
    }

    #[cold]
    fn fold_stolen(&self) {
        let all = self.all_stolen_ticks();
        self.stolen_before_ticks.store(all, Ordering::Relaxed);
        self.stolen_ticks.store(0, Ordering::Relaxed);
    }

    /// Forgets what was stolen: its VM begins anew, and its guest has not asked.
    pub fn reset(&self) {
        self.stolen_before_ticks.store(0, Ordering::Relaxed);
        self.stolen_ticks.store(0, Ordering::Relaxed);
        self.is_guest_told.store(false, Ordering::Relaxed);
    }

    /// Notes that the guest wants to know what is stolen from the vCPU.
    pub fn tell_guest(&self) {
        self.is_guest_told.store(true, Ordering::Relaxed);
    }

    /// Returns whether the guest wants to know what is stolen from the vCPU.
    #[inline]
    #[must_use]
    pub fn is_guest_told(&self) -> bool {
        self.is_guest_told.load(Ordering::Relaxed)
    }

    /// Publishes what the account says of stolen time, as the vCPU gets the CPU.
    pub fn steal(&self, steal_ticks: u64) {
        self.stolen_ticks.store(steal_ticks, Ordering::Relaxed);
    }

    /// Returns for how many counter ticks it could have run and had to wait, since its VM was started or reset.
    #[must_use]
    pub fn all_stolen_ticks(&self) -> u64 {
        let before = self.stolen_before_ticks.load(Ordering::Relaxed);
        before.wrapping_add(self.stolen_ticks())
    }

    /// Notes that the vCPU falls asleep in a WFI that traps while no other vCPU wants its CPU.
    #[inline]
    pub fn fall_asleep(&self, now_ticks: u64) {
        let before = self.slept_ticks().wrapping_sub(now_ticks);
        self.before_ticks.store(before, Ordering::Relaxed);
    }

    /// Notes that it wakes from that: one store, since an interrupt waits.
    #[inline]
    pub fn wake_up(&self, now_ticks: u64) {
        self.woke_ticks.store(now_ticks, Ordering::Relaxed);
    }

    /// Returns how long it has slept like that since [`Usage::begin`].
    #[inline]
    fn slept_ticks(&self) -> u64 {
        let before = self.before_ticks.load(Ordering::Relaxed);
        before.wrapping_add(self.woke_ticks.load(Ordering::Relaxed))
    }

    /// Publishes an account: what was slept of it is no time that the vCPU ran. It is awake, since its CPU does this.
    #[inline]
    pub fn publish(&self, account: Account) {
        let ran = account.run_ticks.saturating_sub(self.slept_ticks());
        self.ran_ticks.store(ran, Ordering::Relaxed);
        self.stolen_ticks
            .store(account.steal_ticks, Ordering::Relaxed);
    }

    /// Notes whether the vCPU's WFI does not trap, so that nothing tells its sleep from its work.
    pub fn set_counts_sleep(&self, counts_sleep: bool) {
        self.counts_sleep.store(counts_sleep, Ordering::Relaxed);
    }

    /// Returns for how many counter ticks it ran.
    #[must_use]
    pub fn ran_ticks(&self) -> u64 {
        self.ran_ticks.load(Ordering::Relaxed)
    }

    /// Returns for how many counter ticks it could have run and had to wait.
    #[must_use]
    pub fn stolen_ticks(&self) -> u64 {
        self.stolen_ticks.load(Ordering::Relaxed)
    }

    /// Returns whether what it slept counts as time that it ran, at present.
    #[must_use]
    pub fn counts_sleep(&self) -> bool {
        self.counts_sleep.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Usage};

    #[test]
    fn sleep_that_traps_is_not_work() {
        let usage = Usage::default();
        let account = |run_ticks| Account {
            run_ticks,
            steal_ticks: 7,
        };
        usage.publish(account(100));
        assert_eq!((usage.ran_ticks(), usage.stolen_ticks()), (100, 7));
        for (asleep, woke) in [(1000, 1030), (1040, 1060)] {
            usage.fall_asleep(asleep);
            usage.wake_up(woke);
        }
        usage.publish(account(160));
        assert_eq!(usage.ran_ticks(), 110);
        // Turned off and on: a new account.
        usage.begin();
        usage.publish(account(5));
        assert_eq!(usage.ran_ticks(), 5);
    }

    #[test]
    fn what_was_stolen_adds_up_until_its_vm_begins_anew() {
        let usage = Usage::default();
        usage.steal(3);
        assert!(!usage.is_guest_told());
        usage.tell_guest();
        assert!(usage.is_guest_told());
        usage.steal(7);
        assert_eq!(usage.all_stolen_ticks(), 7);
        for all in [7, 11] {
            usage.begin();
            assert_eq!((usage.stolen_ticks(), usage.all_stolen_ticks()), (0, all));
            usage.steal(4);
            assert_eq!(usage.all_stolen_ticks(), all + 4);
        }
        usage.reset();
        assert_eq!(usage.all_stolen_ticks(), 0);
        assert!(!usage.is_guest_told());
    }
}
