//! A port's rate limit: tokens for bytes, which come back with time.

/// How long a burst at full speed may be, at the rate's own speed: a tenth of a second.
const BURST_PARTS: u64 = 10;
/// Tokens for a byte: so many come in a second for each byte of the rate, one each microsecond.
const TOKENS_A_BYTE: u64 = 1_000_000;
const NS_PER_US: u64 = 1000;
/// After so long a bucket is full whatever its rate.
const FULL_US: u64 = 1_000_000;

/// A bucket of tokens; without a rate it is never empty.
#[derive(Debug)]
pub(super) struct Rate {
    /// Bytes in a second, at most 2^40; 0 for no limit.
    bytes_per_s: u64,
    tokens: u64,
    filled_ns: u64,
}

impl Rate {
    pub(super) const fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s,
            tokens: most(bytes_per_s),
            filled_ns: 0,
        }
    }

    /// Returns whether so many bytes may be sent at this time, and takes their tokens.
    pub(super) fn take(&mut self, bytes: u64, now_ns: u64) -> bool {
        if self.bytes_per_s == 0 {
            return true;
        }
        let passed_us = now_ns.saturating_sub(self.filled_ns) / NS_PER_US;
        let spent_ns = passed_us.saturating_mul(NS_PER_US);
        self.filled_ns = self.filled_ns.saturating_add(spent_ns);
        let new = passed_us.min(FULL_US).saturating_mul(self.bytes_per_s);
        self.tokens = self.tokens.saturating_add(new).min(most(self.bytes_per_s));
        let wanted = bytes.saturating_mul(TOKENS_A_BYTE);
        match self.tokens.checked_sub(wanted) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

/// Returns how many tokens there are at most; enough for a frame even if the rate is low.
const fn most(bytes_per_s: u64) -> u64 {
    let burst = bytes_per_s / BURST_PARTS;
    let least = u16::MAX as u64;
    let bytes = if burst > least { burst } else { least };
    bytes.saturating_mul(TOKENS_A_BYTE)
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn a_port_without_a_rate_is_never_held() {
        let mut rate = Rate::new(0);
        assert!((0..1000).all(|_| rate.take(u64::from(u32::MAX), 0)));
    }

    #[test]
    fn over_time_no_more_than_the_rate_goes_through() {
        for rate_per_s in [1_000, 1_000_000, 1_000_000_000] {
            let mut rate = Rate::new(rate_per_s);
            let (mut sent, mut now) = (0, 0);
            while now < 10_000_000_000 {
                if rate.take(1500, now) {
                    sent += 1500;
                }
                now += 10_007;
            }
            let most = 10 * rate_per_s + (rate_per_s / 10).max(65_535);
            assert!(sent <= most, "{sent} of {most}");
            let least = (10 * rate_per_s).min(1500 * 10_000_000_000 / 10_007) * 9 / 10;
            assert!(sent >= least, "{sent} of at least {least}");
        }
    }
}
