//! What happened lately, in bounded memory: the lines of the log, and a limit on how often something is told.
//!
//! Neighbours: `stats` (sums), `console` (shows the log).

/// The last lines of the log, `N` bytes of them with their line feeds.
#[derive(Debug)]
pub struct LogRing<const N: usize> {
    bytes: [u8; N],
    start: usize,
    len: usize,
}

impl<const N: usize> LogRing<N> {
    /// Makes an empty ring.
    #[expect(clippy::new_without_default, reason = "a static wants a constant")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            start: 0,
            len: 0,
        }
    }

    /// Keeps a line in place of as many of the oldest as it takes. A line feed within it makes two lines of it; what of it
    /// exceeds the ring is cut off at a character.
    pub fn push_line(&mut self, line: &str) {
        let most = line.len().min(N.saturating_sub(1));
        let end = (0..=most).rev().find(|&end| line.is_char_boundary(end));
        let line = line.as_bytes();
        let line = end.and_then(|end| line.get(..end)).unwrap_or_default();
        let needed = line.len().saturating_add(1);
        while N.saturating_sub(self.len) < needed && self.len > 0 {
            self.drop_oldest_line();
        }
        line.iter().chain(b"\n").for_each(|&byte| self.push(byte));
    }

    /// Hands out the text from the oldest line to the newest, each ending in a line feed, in at most two pieces.
    #[must_use]
    pub fn as_slices(&self) -> (&[u8], &[u8]) {
        let (head, tail) = self.bytes.split_at_checked(self.start).unwrap_or_default();
        let first = tail.get(..self.len).unwrap_or(tail);
        let second = head
            .get(..self.len.saturating_sub(first.len()))
            .unwrap_or_default();
        (first, second)
    }

    fn push(&mut self, byte: u8) {
        if self.len >= N {
            return;
        }
        let end = self.start.wrapping_add(self.len);
        let end = if end < N { end } else { end.wrapping_sub(N) };
        if let Some(place) = self.bytes.get_mut(end) {
            *place = byte;
            self.len = self.len.wrapping_add(1);
        }
    }

    fn drop_oldest_line(&mut self) {
        let (first, second) = self.as_slices();
        let mut bytes = first.iter().chain(second);
        let length = bytes
            .position(|&byte| byte == b'\n')
            .map_or(self.len, |at| at.saturating_add(1));
        let start = self.start.wrapping_add(length);
        self.start = if start < N {
            start
        } else {
            start.wrapping_sub(N)
        };
        self.len = self.len.saturating_sub(length);
    }
}

/// Lets something happen so many times at once, and so often on average.
///
/// What a guest can cause is told through one of these: `BURST` times at once, and then once every `INTERVAL_NS`.
#[derive(Clone, Debug, Default)]
pub struct RateLimit<const BURST: u32, const INTERVAL_NS: u64> {
    /// Permissions that were used and that time has not given back.
    used: u32,
    /// The time up to which the permissions that time gives have been given back.
    credited_ns: u64,
}

impl<const BURST: u32, const INTERVAL_NS: u64> RateLimit<BURST, INTERVAL_NS> {
    /// Makes one of which nothing is used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            used: 0,
            credited_ns: 0,
        }
    }

    /// Returns whether it may happen now, and counts it if so.
    #[must_use]
    pub fn allow(&mut self, now_ns: u64) -> bool {
        if self.used > 0 {
            self.credit(now_ns);
        } else {
            self.credited_ns = now_ns;
        }
        let allowed = self.used < BURST;
        self.used = self.used.saturating_add(u32::from(allowed));
        allowed
    }

    /// Returns from when on it may happen again, after it was not allowed; in nanoseconds.
    #[must_use]
    pub const fn next_ns(&self) -> u64 {
        self.credited_ns.saturating_add(INTERVAL_NS)
    }

    /// Gives back what the time since the last credit gives.
    fn credit(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.credited_ns);
        let earned = passed_ns.checked_div(INTERVAL_NS).unwrap_or(u64::MAX);
        if earned >= u64::from(self.used) {
            self.used = 0;
            self.credited_ns = now_ns;
        } else {
            self.used = self.used.saturating_sub(earned as u32);
            self.credited_ns = self
                .credited_ns
                .saturating_add(earned.saturating_mul(INTERVAL_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{LogRing, RateLimit};
    use proptest::prelude::*;
    use std::{collections::VecDeque, format, string::String};

    fn text<const N: usize>(ring: &LogRing<N>) -> String {
        let (first, second) = ring.as_slices();
        String::from_utf8([first, second].concat()).expect("whole lines of text")
    }

    #[test]
    fn log_drops_whole_lines() {
        let mut ring = LogRing::<16>::new();
        ring.push_line("one");
        ring.push_line("two");
        ring.push_line("three");
        assert_eq!(text(&ring), "one\ntwo\nthree\n");
        ring.push_line("four");
        assert_eq!(text(&ring), "two\nthree\nfour\n");
        ring.push_line("");
        assert_eq!(text(&ring), "two\nthree\nfour\n\n");
        ring.push_line("a line that is too long");
        assert_eq!(text(&ring), "a line that is \n");
        ring.push_line("with characters\u{e9}");
        assert_eq!(text(&ring), "with characters\n");
        ring.push_line("one that is \u{20ac} dear");
        assert_eq!(text(&ring), "one that is \u{20ac}\n");
        ring.push_line("what is that \u{20ac}?");
        assert_eq!(text(&ring), "what is that \n");
    }

    proptest! {
        /// The ring holds the newest whole lines that fit.
        #[test]
        fn log_agrees_with_a_simple_model(lines in proptest::collection::vec("[a-z]{0,20}", 0..20)) {
            let mut ring = LogRing::<64>::new();
            let mut model = VecDeque::new();
            for line in lines {
                ring.push_line(&line);
                model.push_back(format!("{line}\n"));
                while model.iter().map(String::len).sum::<usize>() > 64 {
                    model.pop_front();
                }
                prop_assert_eq!(text(&ring), model.iter().cloned().collect::<String>());
            }
        }

        /// Whatever the times: never more than the burst and one for every interval that passed.
        #[test]
        fn rate_is_never_exceeded(steps in proptest::collection::vec(0u64..50, 1..200)) {
            let mut limit = RateLimit::<5, 100>::new();
            let (mut now_ns, mut allowed) = (1000, 0);
            for step in steps {
                now_ns += step;
                allowed += u64::from(limit.allow(now_ns));
                prop_assert!(allowed <= 5 + (now_ns - 1000) / 100 + 1);
            }
        }
    }

    #[test]
    fn burst_then_steady_rate_then_burst_again() {
        let mut limit = RateLimit::<3, 100>::new();
        let allowed = |limit: &mut RateLimit<3, 100>, now_ns, tries: u32| {
            (0..tries).filter(|_| limit.allow(now_ns)).count()
        };
        assert_eq!(allowed(&mut limit, 1000, 10), 3);
        assert_eq!(allowed(&mut limit, 1099, 10), 0);
        assert_eq!(limit.next_ns(), 1100);
        assert_eq!(allowed(&mut limit, 1100, 10), 1);
        assert_eq!(allowed(&mut limit, 1350, 10), 2);
        assert_eq!(
            allowed(&mut limit, 1400, 10),
            1,
            "the half interval before was not lost"
        );
        assert_eq!(allowed(&mut limit, u64::MAX, 10), 3);
        assert_eq!(
            allowed(&mut limit, 0, 10),
            0,
            "time that runs backwards allows nothing"
        );
    }
}
