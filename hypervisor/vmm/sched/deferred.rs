//! When a CPU that runs guests goes on with its deferred work (starting and stopping VMs): that work takes turns with the vCPUs like one
//! more of them, so that what it costs them does not depend on how often a guest causes it.

/// The time that deferred work owes to the vCPUs of one physical CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deferred {
    /// Until then the vCPUs have the CPU.
    paid_ticks: u64,
}

impl Deferred {
    /// Owes nothing.
    pub const NONE: Self = Self { paid_ticks: 0 };

    /// Returns whether the next piece may be done, while so many vCPUs want the CPU. Without any it always may.
    #[must_use]
    pub const fn may_go_on(&self, wanting: u32, now_ticks: u64) -> bool {
        wanting == 0 || now_ticks >= self.paid_ticks
    }

    /// Notes that a piece took the CPU for `spent_ticks` until now, while so many vCPUs wanted it: each is owed as much.
    ///
    /// What is owed already counts up to `most_ticks`, so that no other VM's work waits without end.
    pub fn charge(&mut self, spent_ticks: u64, wanting: u32, now_ticks: u64, most_ticks: u64) {
        let owed = self.paid_ticks.saturating_sub(now_ticks).min(most_ticks);
        let share = spent_ticks.saturating_mul(u64::from(wanting));
        self.paid_ticks = now_ticks.saturating_add(owed.saturating_add(share));
    }

    /// Notes that a vCPU whose VM is being ended had the CPU for `ran_ticks` until now: as [`Deferred::charge`], and what it took of the
    /// time that was owed to the others is owed to them again.
    pub fn charge_turn(&mut self, ran_ticks: u64, wanting: u32, now_ticks: u64, most_ticks: u64) {
        let began = now_ticks.saturating_sub(ran_ticks);
        let overlap = self.paid_ticks.saturating_sub(began).min(ran_ticks);
        self.charge(ran_ticks + overlap, wanting, now_ticks, most_ticks);
    }

    /// Returns when the next piece may be done although vCPUs want the CPU, in counter ticks.
    #[must_use]
    pub const fn due_ticks(&self) -> u64 {
        self.paid_ticks
    }
}

#[cfg(test)]
mod tests {
    use super::Deferred;

    /// Runs pieces of this length as early as they may for 1,000,000 ticks; returns the time that the vCPUs had.
    fn left_for_vcpus(piece_ticks: u64, wanting: u32) -> u64 {
        let (mut work, mut now, mut left) = (Deferred::NONE, 0, 0);
        while now < 1_000_000 {
            if work.may_go_on(wanting, now) {
                now += piece_ticks;
                work.charge(piece_ticks, wanting, now, 1000);
            } else {
                now += 1;
                left += 1;
            }
        }
        left
    }

    #[test]
    fn deferred_work_has_one_share_among_those_that_want_the_cpu() {
        for piece in [1, 20, 5_000, 100_000] {
            for wanting in [1, 2, 5] {
                let fair = 1_000_000 * u64::from(wanting) / u64::from(wanting + 1);
                let left = left_for_vcpus(piece, wanting);
                assert!(
                    left + piece >= fair,
                    "{left} beside pieces of {piece}, {wanting} wanting"
                );
            }
        }
        assert_eq!(left_for_vcpus(20, 0), 0, "nobody to leave it to");
    }

    #[test]
    fn a_turn_inside_of_the_owed_time_is_owed_twice() {
        let mut work = Deferred::NONE;
        work.charge(100, 1, 1000, 1000);
        work.charge_turn(30, 1, 1030, 1000);
        assert_eq!(work.due_ticks(), 1160, "70 are left of 100, and 30 and 30");
        work.charge_turn(50, 1, 1200, 1000);
        assert_eq!(work.due_ticks(), 1260, "10 of these 50 were in it");
        work.charge_turn(50, 1, 9000, 1000);
        assert_eq!(work.due_ticks(), 9050);
    }

    #[test]
    fn a_debt_outlives_the_work() {
        let mut work = Deferred::NONE;
        work.charge(160, 1, 1000, 100);
        assert_eq!(work.due_ticks(), 1160);
        assert!(!work.may_go_on(1, 1159) && work.may_go_on(0, 1159) && work.may_go_on(2, 1160));
        work.charge(32, 1, 1060, 100);
        assert_eq!(work.due_ticks(), 1192, "what was owed and what is new");
        work.charge(32, 2, 1080, 100);
        assert_eq!(
            work.due_ticks(),
            1244,
            "no more of the old debt than it may be"
        );
    }
}
