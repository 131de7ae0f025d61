//! What a vCPU has had of its CPU, as others read it. Its CPU alone writes it: when it switches, when the vCPU leaves, and when asked.

use super::Account;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Time that a vCPU ran and waited since EL2 started, and how much of that since other things happened.
#[derive(Debug, Default)]
pub struct Usage {
    ran_ticks: AtomicU64,
    stolen_ticks: AtomicU64,
    /// What they were when it was last turned on or moved.
    begun_ran_ticks: AtomicU64,
    begun_stolen_ticks: AtomicU64,
    /// What was stolen from it when its VM was last started or reset.
    reset_stolen_ticks: AtomicU64,
    /// When it last woke from a sleep in which it kept its CPU, and what is to be added to that, modulo 2^64, to have how long it has
    /// slept like that in all: what it slept before, less when it fell asleep.
    woke_ticks: AtomicU64,
    before_ticks: AtomicU64,
    /// How long it had slept like that when it was last turned on or moved.
    begun_slept_ticks: AtomicU64,
    counts_sleep: AtomicBool,
    /// Whether its guest wants to know what is stolen.
    is_guest_told: AtomicBool,
}

impl Usage {
    /// Notes that the vCPU is turned on, or has moved.
    #[inline]
    pub fn begin(&self) {
        self.begun_slept_ticks
            .store(self.slept_ticks(), Ordering::Relaxed);
    }

    /// Returns what the account of the vCPU goes on with on a CPU that takes it over, and what it was when it was last turned on: its sleep
    /// is accounted for in both.
    #[must_use]
    pub fn take_over(&self) -> [Account; 2] {
        for ticks in [
            &self.woke_ticks,
            &self.before_ticks,
            &self.begun_slept_ticks,
        ] {
            ticks.store(0, Ordering::Relaxed);
        }
        let account = |run: &AtomicU64, steal: &AtomicU64| Account {
            run_ticks: run.load(Ordering::Relaxed),
            steal_ticks: steal.load(Ordering::Relaxed),
        };
        [
            account(&self.ran_ticks, &self.stolen_ticks),
            account(&self.begun_ran_ticks, &self.begun_stolen_ticks),
        ]
    }

    /// Notes that its VM begins anew, and its guest has not asked what is stolen.
    pub fn reset(&self) {
        let stolen = self.stolen_ticks.load(Ordering::Relaxed);
        self.reset_stolen_ticks.store(stolen, Ordering::Relaxed);
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
        self.since(&self.stolen_ticks, &self.reset_stolen_ticks)
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

    fn since(&self, now: &AtomicU64, then: &AtomicU64) -> u64 {
        let then = then.load(Ordering::Relaxed);
        now.load(Ordering::Relaxed).saturating_sub(then)
    }

    /// Returns how long it has slept like that since [`Usage::take_over`].
    #[inline]
    fn slept_ticks(&self) -> u64 {
        let before = self.before_ticks.load(Ordering::Relaxed);
        before.wrapping_add(self.woke_ticks.load(Ordering::Relaxed))
    }

    /// Publishes an account: what was slept of it is no time that the vCPU ran. It is awake, since its CPU does this.
    #[inline]
    pub fn publish(&self, account: Account) {
        let ran = account.run_ticks.wrapping_sub(self.slept_ticks());
        self.ran_ticks.store(ran, Ordering::Relaxed);
        self.stolen_ticks
            .store(account.steal_ticks, Ordering::Relaxed);
    }

    /// Publishes what the account was when the vCPU was last turned on or moved.
    pub fn publish_begun(&self, account: Account) {
        let slept = self.begun_slept_ticks.load(Ordering::Relaxed);
        let ran = account.run_ticks.wrapping_sub(slept);
        self.begun_ran_ticks.store(ran, Ordering::Relaxed);
        self.begun_stolen_ticks
            .store(account.steal_ticks, Ordering::Relaxed);
    }

    /// Notes whether the vCPU's WFI does not trap, so that nothing tells its sleep from its work.
    pub fn set_counts_sleep(&self, counts_sleep: bool) {
        self.counts_sleep.store(counts_sleep, Ordering::Relaxed);
    }

    /// Returns for how many counter ticks it ran since it was last turned on or moved.
    #[must_use]
    pub fn ran_ticks(&self) -> u64 {
        self.since(&self.ran_ticks, &self.begun_ran_ticks)
    }

    /// Returns for how many counter ticks it could have run and had to wait, since it was last turned on or moved.
    #[must_use]
    pub fn stolen_ticks(&self) -> u64 {
        self.since(&self.stolen_ticks, &self.begun_stolen_ticks)
    }

    /// Returns what it ran and waited since EL2 started.
    #[must_use]
    pub fn metered(&self) -> Account {
        Account {
            run_ticks: self.ran_ticks.load(Ordering::Relaxed),
            steal_ticks: self.stolen_ticks.load(Ordering::Relaxed),
        }
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
        // Turned off and on: its account goes on, and what is told of this time on begins anew.
        usage.begin();
        usage.publish(account(165));
        usage.publish_begun(account(160));
        assert_eq!((usage.ran_ticks(), usage.stolen_ticks()), (5, 0));
        assert_eq!(
            usage.metered(),
            Account {
                run_ticks: 115,
                steal_ticks: 7
            }
        );
        // On another CPU it goes on without what it slept.
        let [all, begun] = usage.take_over();
        assert_eq!((all.run_ticks, begun.run_ticks), (115, 110));
        usage.publish(Account {
            run_ticks: 120,
            steal_ticks: 9,
        });
        usage.publish_begun(begun);
        assert_eq!((usage.ran_ticks(), usage.stolen_ticks()), (10, 2));
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
        usage.begin();
        usage.steal(11);
        assert_eq!(usage.all_stolen_ticks(), 11);
        usage.reset();
        assert_eq!(usage.all_stolen_ticks(), 0);
        assert!(!usage.is_guest_told());
        usage.steal(15);
        assert_eq!(usage.all_stolen_ticks(), 4);
        assert_eq!(usage.metered().steal_ticks, 15, "meters never go back");
    }
}
