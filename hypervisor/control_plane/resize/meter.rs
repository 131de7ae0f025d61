//! What a VM has held and been entitled to over time, and how its resizes went: meters that only grow while the host is up.

use super::Outcome;

/// How many classes of latency there are: below 1 ms, 2 ms, 4 ms and so on, and all that took longer.
pub const LATENCIES: usize = 16;
const NS_PER_MS: u64 = 1_000_000;

/// How many resizes ended in one way, by how long they took: the last class has no upper end.
pub type Latencies = [u32; LATENCIES];

/// The meters of one VM. A VM that is off holds nothing and is entitled to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    since_ns: u64,
    held: u16,
    /// The sum over its vCPUs of the time that it held each, in nanoseconds.
    pub held_ns: u64,
    /// The same of those that it could have held.
    pub entitled_ns: u64,
    /// The operator's resizes, by [`Outcome`].
    pub resizes: [Latencies; Outcome::ALL.len()],
}

impl Meter {
    /// Notes how many vCPUs a VM holds from now on, of so many that it may be given; none of one that is off.
    pub fn hold(&mut self, held: u16, entitled: u16, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.since_ns);
        let could = if self.held == 0 { 0 } else { entitled };
        let time = |count: u16| passed.saturating_mul(count.into());
        self.held_ns = self.held_ns.saturating_add(time(self.held));
        self.entitled_ns = self.entitled_ns.saturating_add(time(could));
        self.since_ns = self.since_ns.max(now_ns);
        self.held = held;
    }

    /// Returns how many vCPUs the VM holds, as far as was noted.
    #[must_use]
    pub const fn held(&self) -> u16 {
        self.held
    }

    /// Returns the meters as they are now.
    #[must_use]
    pub fn read(mut self, entitled: u16, now_ns: u64) -> Self {
        self.hold(self.held, entitled, now_ns);
        self
    }

    /// Counts a resize of the operator that took so long.
    pub fn resized(&mut self, outcome: Outcome, latency_ns: u64) {
        let ms = latency_ns / NS_PER_MS;
        let class = ms.checked_ilog2().map_or(0, |log| log.saturating_add(1)) as usize;
        let classes = self.resizes.get_mut(outcome as usize);
        let last = LATENCIES.saturating_sub(1);
        if let Some(count) = classes.and_then(|classes| classes.get_mut(class.min(last))) {
            *count = count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LATENCIES, Meter, NS_PER_MS, Outcome};

    #[test]
    fn what_is_held_is_summed_up_while_the_vm_is_on() {
        let mut meter = Meter::default();
        let read = |meter: &Meter, now_ns| {
            let meter = meter.read(8, now_ns);
            (meter.held_ns, meter.entitled_ns)
        };
        assert_eq!(read(&meter, 50), (0, 0), "it has never been on");
        meter.hold(2, 8, 100);
        assert_eq!(read(&meter, 110), (20, 80));
        meter.hold(3, 8, 110);
        assert_eq!(read(&meter, 120), (50, 160));
        meter.hold(0, 8, 120);
        assert_eq!(read(&meter, 1000), (50, 160), "it is off");
        meter.hold(1, 8, 1000);
        assert_eq!(read(&meter, 1001), (51, 168));
        // A clock that was read before another CPU wrote adds nothing, and takes nothing.
        assert_eq!(read(&meter, 900), (50, 160));
        meter.hold(4, 8, 900);
        assert_eq!(read(&meter, 1000), (50, 160));
    }

    #[test]
    fn latencies_are_counted_by_powers_of_two() {
        let mut meter = Meter::default();
        let ms = |ms: u64| ms * NS_PER_MS;
        for latency_ns in [0, ms(1) - 1, ms(1), ms(2), ms(3), ms(4), ms(3_600_000)] {
            meter.resized(Outcome::Done, latency_ns);
        }
        meter.resized(Outcome::TimedOut, ms(10_000));
        let [done, partly, refused, timed_out] = meter.resizes;
        assert_eq!(done[..4], [2, 1, 2, 1]);
        assert_eq!(done[LATENCIES - 1], 1);
        assert_eq!((partly, refused), ([0; LATENCIES], [0; LATENCIES]));
        assert_eq!(timed_out.iter().position(|count| *count == 1), Some(14));
    }
}
