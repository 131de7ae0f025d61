//! The slots of a run queue, and sets of them.

use types::bits::{BitSet, Numbered};
use types::ids::MAX_VCPUS_A_CPU;

/// How many virtual CPUs one physical CPU can hold.
pub const MAX_SLOTS: usize = MAX_VCPUS_A_CPU as usize;
pub(super) const WORDS: usize = MAX_SLOTS / WORD_BITS;
pub(super) const WORD_BITS: usize = u64::BITS as usize;

/// A virtual CPU's place on one physical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with the lowest index.
    pub const FIRST: Self = Self(0);

    /// Makes the slot with this index; `None` if no physical CPU has so many.
    #[inline]
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_SLOTS {
            Some(Self(index as u16))
        } else {
            None
        }
    }

    /// Makes the slot whose index these bits begin with; others are dropped.
    #[inline]
    pub(crate) const fn from_low_bits(bits: u16) -> Self {
        Self(bits % MAX_SLOTS as u16)
    }

    /// Makes the slot for a bit of a word of a bitmap; both wrap, so that the result always is a slot.
    #[inline]
    pub(super) const fn from_bit(word: usize, bit: u32) -> Self {
        Self(((word % WORDS) * WORD_BITS + bit as usize % WORD_BITS) as u16)
    }

    /// Returns the index of the slot.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns which word of a bitmap the slot is in, below [`WORDS`].
    #[inline]
    pub(super) const fn word(self) -> usize {
        self.0 as usize / WORD_BITS % WORDS
    }

    /// Returns which bit of its word the slot is.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        self.0 as u32 % WORD_BITS as u32
    }

    /// Returns the slot as a one-bit mask in its word.
    #[inline]
    pub(super) const fn mask(self) -> u64 {
        1 << self.bit()
    }
}

impl Numbered for Slot {
    #[inline]
    fn number(self) -> usize {
        self.index()
    }

    #[inline]
    fn from_number(number: usize) -> Option<Self> {
        Self::new(number)
    }
}

/// A set of slots of one physical CPU.
pub type SlotSet = BitSet<Slot, WORDS>;

#[cfg(test)]
mod tests {
    use super::{MAX_SLOTS, Slot};

    #[test]
    fn slots_end_where_the_bitmap_ends() {
        assert!(Slot::new(MAX_SLOTS - 1).is_some());
        assert!(Slot::new(MAX_SLOTS).is_none());
    }
}
