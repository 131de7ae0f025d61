//! A set of numbered things in which the next member is found in a few instructions, however many there are.

use core::marker::PhantomData;

const WORD_BITS: usize = u64::BITS as usize;

/// Something that a [`BitSet`] can hold: a value that stands for a number.
pub trait Numbered: Copy {
    /// Returns the number; one that the set has no room for makes no member.
    fn number(self) -> usize;

    /// Returns the value with this number, if there is one.
    fn from_number(number: usize) -> Option<Self>;
}

/// A set of what has a number below 64 times `WORDS`, which is at most 64: a bitmap, and a summary with a bit for every word that
/// is not zero.
#[derive(Clone, Debug)]
pub struct BitSet<T, const WORDS: usize> {
    summary: u64,
    words: [u64; WORDS],
    of: PhantomData<T>,
}

impl<T: Numbered, const WORDS: usize> Default for BitSet<T, WORDS> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T: Numbered, const WORDS: usize> BitSet<T, WORDS> {
    /// The set without members.
    pub const EMPTY: Self = Self {
        summary: 0,
        words: [0; WORDS],
        of: PhantomData,
    };

    /// Returns whether the set has no members.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns whether it has two members or more.
    #[inline]
    #[must_use]
    pub fn has_several(&self) -> bool {
        let word = self.words.get(self.summary.trailing_zeros() as usize);
        let word = word.copied().unwrap_or(0);
        self.summary & self.summary.wrapping_sub(1) | word & word.wrapping_sub(1) != 0
    }

    /// Returns how many members it has, counting all words.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.words.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Returns whether this is a member.
    #[inline]
    #[must_use]
    pub fn contains(&self, item: T) -> bool {
        let (word, bit) = position(item);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds a member; returns whether it was none before.
    #[inline]
    pub fn insert(&mut self, item: T) -> bool {
        let (word, bit) = position(item);
        let Some(bits) = self.words.get_mut(word) else {
            return false;
        };
        let was = *bits;
        *bits |= bit;
        self.summary |= 1 << (word % WORD_BITS);
        was & bit == 0
    }

    /// Takes a member out; returns whether it was one.
    #[inline]
    pub fn remove(&mut self, item: T) -> bool {
        let (word, bit) = position(item);
        let Some(bits) = self.words.get_mut(word) else {
            return false;
        };
        let was = *bits;
        *bits &= !bit;
        if *bits == 0 {
            self.summary &= !(1 << (word % WORD_BITS));
        }
        was & bit != 0
    }

    /// Adds a member or takes one out; returns whether that changed anything.
    pub fn put(&mut self, item: T, is_member: bool) -> bool {
        if is_member {
            self.insert(item)
        } else {
            self.remove(item)
        }
    }

    /// Takes the member with the lowest number out and returns it.
    pub fn take_first(&mut self) -> Option<T> {
        let first = self.first_from(0)?;
        self.remove(first);
        Some(first)
    }

    /// Returns the member with the lowest number from this one on.
    #[inline]
    #[must_use]
    pub fn first_from(&self, number: u16) -> Option<T> {
        let number = usize::from(number);
        let word = number / WORD_BITS;
        let here = self.words.get(word)? & u64::MAX << (number % WORD_BITS);
        if here != 0 {
            return member(word, here.trailing_zeros());
        }
        let later = self.summary & (u64::MAX - 1) << (word % WORD_BITS);
        let word = later.trailing_zeros() as usize;
        member(word, self.words.get(word)?.trailing_zeros())
    }

    /// Returns the member that comes after a number, going round at the end; the one with the number itself comes last.
    #[inline]
    #[must_use]
    pub fn next_after(&self, item: T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let next = self.first_from(item.number().wrapping_add(1) as u16);
        next.or_else(|| self.first_from(0))
    }

    /// Returns the member with the highest number below this one.
    #[must_use]
    pub fn last_below(&self, number: u16) -> Option<T> {
        let number = usize::from(number);
        let word = number / WORD_BITS;
        let bits = self.words.get(word).copied().unwrap_or(0);
        let here = bits & !(u64::MAX << (number % WORD_BITS));
        if let Some(bit) = here.checked_ilog2() {
            return member(word, bit);
        }
        let earlier = self.summary & !(u64::MAX << word.min(WORD_BITS - 1));
        let word = earlier.checked_ilog2()? as usize;
        member(word, self.words.get(word)?.checked_ilog2()?)
    }

    /// Lists the members by ascending number.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        Bits(self.summary).flat_map(|word| {
            let bits = self.words.get(word as usize).copied().unwrap_or(0);
            Bits(bits).filter_map(move |bit| member(word as usize, bit))
        })
    }
}

#[inline]
fn position<T: Numbered>(item: T) -> (usize, u64) {
    let number = item.number();
    (number / WORD_BITS, 1 << (number % WORD_BITS))
}

#[inline]
fn member<T: Numbered>(word: usize, bit: u32) -> Option<T> {
    T::from_number(word * WORD_BITS + bit as usize)
}

/// The numbers of the bits that are set in a word, ascending.
#[derive(Clone, Debug)]
pub struct Bits(pub u64);

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
    use super::{BitSet, Numbered};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const WORDS: usize = 8;
    const ROOM: usize = WORDS * 64;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Item(usize);

    impl Numbered for Item {
        fn number(self) -> usize {
            self.0
        }

        fn from_number(number: usize) -> Option<Self> {
            Some(Self(number))
        }
    }

    #[test]
    fn the_only_member_comes_after_itself() {
        for item in [0, 1, 63, 64, 300, ROOM - 1].map(Item) {
            let mut set = BitSet::<Item, WORDS>::EMPTY;
            assert_eq!(set.next_after(item), None);
            assert!(set.insert(item) && !set.insert(item));
            assert_eq!(set.next_after(item), Some(item));
        }
    }

    proptest! {
        /// A set is what a set of the standard library is, whatever is put in and taken out.
        #[test]
        fn members_are_those_put_in(
            steps in prop::collection::vec((0..ROOM + 8, any::<bool>(), 0..ROOM + 8), 1..200)
        ) {
            let (mut set, mut model) = (BitSet::<Item, WORDS>::EMPTY, BTreeSet::new());
            for (number, add, other) in steps {
                let item = Item(number);
                if add {
                    prop_assert_eq!(set.insert(item), number < ROOM && model.insert(item));
                } else {
                    prop_assert_eq!(set.remove(item), model.remove(&item));
                }
                let (from, below) = (model.range(Item(other)..), model.range(..Item(other)));
                let after = model.range(Item(other + 1)..).next().or_else(|| model.first());
                prop_assert_eq!(set.first_from(other as u16), from.copied().next());
                prop_assert_eq!(set.last_below(other as u16), below.copied().next_back());
                prop_assert_eq!(set.next_after(Item(other)), after.copied());
                prop_assert_eq!(set.contains(Item(other)), model.contains(&Item(other)));
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(usize::from(set.len()), model.len());
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let taken: BTreeSet<_> = core::iter::from_fn(|| set.take_first()).collect();
            prop_assert_eq!(taken, model);
        }
    }
}
