//! The system counter's rate: ticks as nanoseconds and back.

/// Fraction bits of a number of nanoseconds.
const FRACTION_BITS: u32 = 32;
const NS_A_SECOND: u64 = 1_000_000_000;

/// How fast the system counter counts (CNTFRQ_EL0, Arm ARM D24.10.12).
#[derive(Clone, Copy, Debug)]
pub struct CounterRate {
    hz: u64,
    /// Nanoseconds a tick, as a fixed-point number.
    scale: u64,
}

impl CounterRate {
    /// Names a rate in ticks a second. Of 0, which no machine has, no duration has a tick.
    #[must_use]
    pub const fn new(hz: u64) -> Self {
        let divisor = if hz == 0 { 1 } else { hz };
        Self {
            hz,
            scale: (NS_A_SECOND << FRACTION_BITS) / divisor,
        }
    }

    /// Returns how many nanoseconds so many ticks take; less than a nanosecond a second too few.
    #[must_use]
    pub const fn ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.scale as u128) >> FRACTION_BITS) as u64
    }

    /// Returns how many whole ticks a duration has; the most that there can be if it is longer.
    #[must_use]
    pub const fn ticks(self, ns: u64) -> u64 {
        let part = (ns % NS_A_SECOND).saturating_mul(self.hz) / NS_A_SECOND;
        (ns / NS_A_SECOND)
            .saturating_mul(self.hz)
            .saturating_add(part)
    }
}

#[cfg(test)]
mod tests {
    use super::CounterRate;

    #[test]
    fn centuries_and_any_rate_are_converted_without_overflow() {
        // 1 GHz, 62.5 MHz as on QEMU, 54 MHz as on a Raspberry Pi, and 1 MHz.
        for hz in [1_000_000_000, 62_500_000, 54_000_000, 1_000_000] {
            let rate = CounterRate::new(hz);
            let seconds = 1_250_000_000;
            let (ticks, ns) = (seconds * hz, seconds * 1_000_000_000);
            assert!(ns - rate.ns(ticks) <= seconds, "{hz} Hz");
            assert_eq!(rate.ticks(ns), ticks, "{hz} Hz");
        }
        assert_eq!(CounterRate::new(62_500_000).ns(3), 48);
        assert_eq!(CounterRate::new(62_500_000).ticks(100_000_015), 6_250_000);
        assert_eq!(CounterRate::new(1_000_000_000).ticks(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_rate_of_nothing_divides_by_nothing() {
        let rate = CounterRate::new(0);
        assert_eq!((rate.ticks(u64::MAX), rate.ns(0)), (0, 0));
    }
}
