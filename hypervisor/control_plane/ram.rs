//! The machine's free RAM: which ranges are free, and which of them still hold what a guest wrote.
//!
//! Ranges, not pages: a guest's RAM is one contiguous piece in blocks as large as they come. What a guest gives back is marked and
//! scrubbed only when another VM gets it, so neither boot nor stop takes time in proportion to memory.

use alloc::vec::Vec;
use core::ops::Range;

/// A range of free memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Free {
    range: Range<u64>,
    /// Whether a guest has had it.
    used: bool,
}

/// The free ranges of a machine, in ascending order and apart.
#[derive(Debug, Default)]
pub struct RamPool {
    free: Vec<Free>,
}

/// A range that was taken out of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "memory that is dropped is lost"]
pub struct Piece {
    /// Its addresses.
    pub range: Range<u64>,
    /// Parts of it that may still hold what another guest wrote.
    pub dirty: Vec<Range<u64>>,
}

impl RamPool {
    /// Makes a pool without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Adds a range that was never used.
    pub fn add(&mut self, range: Range<u64>) {
        self.put(range, false);
    }

    /// Gives back what a guest had.
    pub fn release(&mut self, range: Range<u64>) {
        self.put(range, true);
    }

    fn put(&mut self, range: Range<u64>, used: bool) {
        if range.is_empty() {
            return;
        }
        let at = self
            .free
            .partition_point(|free| free.range.start < range.start);
        self.free.insert(at, Free { range, used });
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins a range with the one after it if they touch and are alike.
    fn join(&mut self, at: usize) {
        let (Some(this), Some(next)) = (self.free.get(at), self.free.get(at + 1)) else {
            return;
        };
        if this.range.end == next.range.start && this.used == next.used {
            let end = next.range.end;
            self.free.remove(at + 1);
            if let Some(this) = self.free.get_mut(at) {
                this.range.end = end;
            }
        }
    }

    /// Takes a range out, so that no VM gets it.
    pub fn remove(&mut self, range: Range<u64>) {
        let old = core::mem::take(&mut self.free);
        for free in old {
            let below = free.range.start..free.range.end.min(range.start);
            let above = free.range.start.max(range.end)..free.range.end;
            for part in [below, above] {
                if part.start < part.end {
                    self.free.push(Free {
                        range: part,
                        used: free.used,
                    });
                }
            }
        }
    }

    /// Takes `size` bytes at a multiple of `alignment`, a power of two; the lowest that fit.
    #[must_use]
    pub fn take(&mut self, size: u64, alignment: u64) -> Option<Piece> {
        let start = self.runs().find_map(|run| {
            let start = run.start.checked_next_multiple_of(alignment)?;
            (start.checked_add(size)? <= run.end).then_some(start)
        })?;
        let range = start..start + size;
        let dirty = self
            .free
            .iter()
            .filter(|free| free.used)
            .map(|free| free.range.start.max(range.start)..free.range.end.min(range.end))
            .filter(|part| part.start < part.end)
            .collect();
        self.remove(range.clone());
        Some(Piece { range, dirty })
    }

    /// Returns the free memory as runs of adjacent ranges, whatever they were used for.
    fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut rest = self.free.iter().map(|free| free.range.clone()).peekable();
        core::iter::from_fn(move || {
            let mut run = rest.next()?;
            while let Some(next) = rest.next_if(|next| next.start == run.end) {
                run.end = next.end;
            }
            Some(run)
        })
    }

    /// Returns the free ranges.
    #[must_use]
    pub fn free_ranges(&self) -> Vec<Range<u64>> {
        self.free.iter().map(|free| free.range.clone()).collect()
    }

    /// Returns how many bytes are free.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free
            .iter()
            .map(|free| free.range.end - free.range.start)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_guest_had_is_dirty_for_the_next_one() {
        let mut pool = RamPool::new();
        pool.add(0x1000..0x9000);
        let piece = pool.take(0x2000, 0x1000).expect("room");
        assert_eq!(
            (piece.range.clone(), piece.dirty.as_slice()),
            (0x1000..0x3000, &[][..])
        );
        pool.release(piece.range);
        let again = pool.take(0x4000, 0x1000).expect("room");
        assert_eq!(
            (again.range, again.dirty),
            (0x1000..0x5000, core::iter::once(0x1000..0x3000).collect())
        );
    }

    #[test]
    fn alignment_is_kept_and_what_is_left_stays_free() {
        let mut pool = RamPool::new();
        pool.add(0x1000..0x8000);
        assert_eq!(
            pool.take(0x1000, 0x4000).expect("room").range,
            0x4000..0x5000
        );
        assert_eq!(pool.free_bytes(), 0x6000);
        assert!(pool.take(0x7000, 0x1000).is_none());
    }

    #[test]
    fn reserved_ranges_are_never_given() {
        let mut pool = RamPool::new();
        pool.add(0..0x10_000);
        pool.remove(0x2000..0x3000);
        pool.remove(0xf000..0x2_0000);
        assert_eq!(
            pool.take(0x3000, 0x1000).expect("room").range,
            0x3000..0x6000
        );
    }

    proptest! {
        #[test]
        fn bytes_are_neither_lost_nor_doubled(sizes in proptest::collection::vec(1_u64..20, 1..30)) {
            let mut pool = RamPool::new();
            pool.add(0..200 * 4096);
            let mut taken: Vec<Range<u64>> = Vec::new();
            for (turn, size) in sizes.iter().enumerate() {
                if turn % 3 == 2 && !taken.is_empty() {
                    pool.release(taken.swap_remove(turn % taken.len()));
                } else if let Some(piece) = pool.take(size * 4096, 4096) {
                    for other in &taken {
                        prop_assert!(piece.range.end <= other.start || other.end <= piece.range.start);
                    }
                    taken.push(piece.range);
                }
                let out: u64 = taken.iter().map(|range| range.end - range.start).sum();
                prop_assert_eq!(pool.free_bytes() + out, 200 * 4096);
            }
        }
    }
}
