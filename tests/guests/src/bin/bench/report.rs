//! Samples and what is said of them.

use guest_rt::{print, println, timer};

/// Most samples of a row.
pub const SAMPLES_MAX: usize = 4096;

/// The samples of one row, in nanoseconds.
pub struct Samples {
    values: [u64; SAMPLES_MAX],
    count: usize,
}

impl Samples {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self {
            values: [0; SAMPLES_MAX],
            count: 0,
        }
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a sample, given in nanoseconds; more than fit are dropped.
    pub fn add(&mut self, value_ns: u64) {
        if let Some(slot) = self.values.get_mut(self.count) {
            *slot = value_ns;
            self.count += 1;
        }
    }

    /// Prints the row; returns whether there was anything to print.
    pub fn print(&mut self, row: &str, suffix: &str) -> bool {
        let Some(values) = self.values.get_mut(..self.count) else {
            return false;
        };
        values.sort_unstable();
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            println!("BENCH-FAILED {row}{suffix}: no samples");
            return false;
        };
        let at = |percent: usize| {
            values
                .get(values.len() * percent / 100)
                .copied()
                .unwrap_or(max)
        };
        println!(
            "BENCH {row}{suffix} {min} {} {} {max} {} {}",
            at(50),
            at(99),
            max - min,
            values.len()
        );
        print!("BENCH-HISTOGRAM {row}{suffix}");
        for group in values.chunk_by(|one, next| one == next) {
            if let Some(value) = group.first() {
                print!(" {value}:{}", group.len());
            }
        }
        print!("\n");
        true
    }
}

/// Converts counter ticks to nanoseconds.
pub fn nanoseconds(ticks: u64) -> u64 {
    ticks * 1_000_000_000 / timer::frequency()
}

/// Converts nanoseconds to counter ticks, at least one.
pub fn ticks(nanoseconds: u64) -> u64 {
    (nanoseconds * (timer::frequency() / 1000) / 1_000_000).max(1)
}
