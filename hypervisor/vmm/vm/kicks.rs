//! The CPUs that have mail: a decision's effect on other CPUs, carried out when no lock is held.

use core::sync::atomic::{AtomicU64, Ordering};
use types::ids::{MAX_PCPUS, PcpuId};

/// The bit for all CPUs from this one on, of which few machines have any: these are noted in [`FURTHER`], so that a set is one word
/// and a trap costs the same however many CPUs there may be.
const FIRST_FURTHER: u16 = u64::BITS as u16 - 1;
const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = MAX_PCPUS / WORD_BITS;

/// The further CPUs that some set names, a bit each. Every CPU that kicks takes whatever it finds: whatever notes a CPU here has left
/// its mail before, so the kick of another sender does as well as its own.
static FURTHER: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// A set of physical CPUs to interrupt.
#[must_use = "a CPU that is not kicked may sleep over its mail"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicks(u64);

impl Kicks {
    /// No CPU.
    pub const NONE: Self = Self(0);

    /// Adds a CPU.
    #[inline]
    pub fn add(&mut self, pcpu: PcpuId) {
        if pcpu.get() < FIRST_FURTHER {
            self.0 |= 1 << pcpu.get();
        } else {
            self.add_further(pcpu);
        }
    }

    /// Takes a CPU out of the set, the lowest-numbered first.
    #[inline]
    pub fn pop(&mut self) -> Option<PcpuId> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros() as u16;
        self.0 &= self.0 - 1;
        if index == FIRST_FURTHER {
            return self.pop_further();
        }
        Some(PcpuId::new(index))
    }

    /// In line, as [`Self::pop_further`]: a call would have the traps that may kick save registers that they do not need.
    #[inline(always)]
    fn add_further(&mut self, pcpu: PcpuId) {
        self.0 |= 1 << FIRST_FURTHER;
        let (word, bit) = (pcpu.index() / WORD_BITS % WORDS, pcpu.index() % WORD_BITS);
        // After the mail, before the kick; in one order with the other senders' notes.
        FURTHER[word].fetch_or(1 << bit, Ordering::SeqCst);
    }

    #[inline(always)]
    fn pop_further(&mut self) -> Option<PcpuId> {
        let mut words = FURTHER.iter().zip(0_u16..);
        let (word, index, found) = words.find_map(|(word, index)| {
            let found = word.load(Ordering::SeqCst);
            (found != 0).then_some((word, index, found))
        })?;
        // The last one finds nothing, and ends the set.
        self.0 = 1 << FIRST_FURTHER;
        let bit = found.trailing_zeros() as u16;
        word.fetch_and(!(1 << bit), Ordering::SeqCst);
        Some(PcpuId::new(index * WORD_BITS as u16 + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::Kicks;
    use alloc::vec::Vec;
    use types::ids::PcpuId;

    fn all(mut kicks: Kicks) -> Vec<u16> {
        core::iter::from_fn(|| kicks.pop())
            .map(PcpuId::get)
            .collect()
    }

    #[test]
    fn every_cpu_added_comes_out_once() {
        let mut kicks = Kicks::NONE;
        for index in [5, 62, 0, 5] {
            kicks.add(PcpuId::new(index));
        }
        assert_eq!(all(kicks), [0, 5, 62]);
        // What is beyond is noted for all senders, of which this test is the only one.
        for index in [511, 63, 64, 511, 100] {
            kicks.add(PcpuId::new(index));
        }
        assert_eq!(all(kicks), [0, 5, 62, 63, 64, 100, 511]);
        assert_eq!(all(kicks), [0, 5, 62], "they were taken");
        let mut other = Kicks::NONE;
        other.add(PcpuId::new(200));
        kicks.add(PcpuId::new(201));
        assert_eq!(all(other), [200, 201], "the first that kicks takes all");
        assert_eq!(all(kicks), [0, 5, 62]);
    }
}
