//! A set of run-queue slots in which the next member after a given one is found in a few instructions, however many there are.

use types::ids::MAX_VCPUS_A_CPU;

/// How many virtual CPUs one physical CPU can hold.
pub const MAX_SLOTS: usize = MAX_VCPUS_A_CPU as usize;
pub(super) const WORDS: usize = MAX_SLOTS / WORD_BITS;
pub(super) const WORD_BITS: usize = u64::BITS as usize;

/// A virtual CPU's place on one physical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
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

/// A set of slots: a bitmap, and a summary with a bit for every word that is not empty.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    words: [u64; WORDS],
    summary: u64,
}

impl SlotSet {
    /// Makes the empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            words: [0; WORDS],
            summary: 0,
        }
    }

    /// Returns whether no slot is in the set.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns whether the slot is in the set.
    #[cfg(test)]
    pub const fn contains(&self, slot: Slot) -> bool {
        self.words[slot.word()] & slot.mask() != 0
    }

    /// Puts a slot in; returns whether it was not there.
    #[inline]
    pub const fn insert(&mut self, slot: Slot) -> bool {
        let word = &mut self.words[slot.word()];
        let was = *word;
        *word |= slot.mask();
        self.summary |= 1 << slot.word();
        was & slot.mask() == 0
    }

    /// Takes a slot out; returns whether it was there.
    #[inline]
    pub const fn remove(&mut self, slot: Slot) -> bool {
        let word = &mut self.words[slot.word()];
        let was = *word;
        *word &= !slot.mask();
        if *word == 0 {
            self.summary &= !(1 << slot.word());
        }
        was & slot.mask() != 0
    }

    /// Finds the next slot after `slot`, going round at the end; `slot` itself comes last.
    #[inline]
    #[must_use]
    pub const fn next_after(&self, slot: Slot) -> Option<Slot> {
        const ABOVE: u64 = !1;
        let word = slot.word();
        let same = self.words[word] & ABOVE << slot.bit();
        if same != 0 {
            return Some(Slot::from_bit(word, same.trailing_zeros()));
        }
        let later = self.summary & ABOVE << word;
        let words = if later != 0 { later } else { self.summary };
        if words == 0 {
            return None;
        }
        let word = words.trailing_zeros() as usize % WORDS;
        Some(Slot::from_bit(word, self.words[word].trailing_zeros()))
    }

    /// Lists the slots by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(word, &bits)| Bits(bits).map(move |bit| Slot::from_bit(word, bit)))
    }
}

/// The numbers of the bits that are set in a word, ascending.
#[derive(Clone, Debug)]
pub(super) struct Bits(pub(super) u64);

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SLOTS, Slot, SlotSet};
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn slot(index: usize) -> Slot {
        Slot::new(index).expect("a slot")
    }

    #[test]
    fn slots_end_where_the_bitmap_ends() {
        assert!(Slot::new(MAX_SLOTS - 1).is_some());
        assert!(Slot::new(MAX_SLOTS).is_none());
    }

    #[test]
    fn the_only_member_comes_after_itself() {
        for index in [0, 1, 63, 64, 300, MAX_SLOTS - 1] {
            let mut set = SlotSet::new();
            assert_eq!(set.next_after(slot(index)), None);
            assert!(set.insert(slot(index)));
            assert!(!set.insert(slot(index)));
            assert_eq!(set.next_after(slot(index)), Some(slot(index)));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_an_ordered_set(steps in prop::collection::vec((0..MAX_SLOTS, any::<bool>(), 0..MAX_SLOTS), 1..200)) {
            let (mut set, mut model) = (SlotSet::new(), BTreeSet::new());
            for (index, add, after) in steps {
                if add {
                    prop_assert_eq!(set.insert(slot(index)), model.insert(index));
                } else {
                    prop_assert_eq!(set.remove(slot(index)), model.remove(&index));
                }
                let next = model.range(after + 1..).next().or_else(|| model.first()).copied();
                prop_assert_eq!(set.next_after(slot(after)).map(Slot::index), next);
                prop_assert_eq!(set.contains(slot(after)), model.contains(&after));
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            prop_assert_eq!(set.iter().map(Slot::index).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
