//! Wake-ups from other physical CPUs: a set that every CPU may add to and its owner empties, without a lock.

use core::sync::atomic::{AtomicU64, Ordering};

use types::bits::Bits;

use super::set::{Slot, WORDS};

/// The slots of one physical CPU that others have asked it to look at.
///
/// Few CPUs have more than 64: these are in the first word, which speaks for itself. No CPU's shares a cache line with another's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WakeSet {
    words: [AtomicU64; WORDS],
    /// A bit for each further word that may not be empty; set after the word, so a drain that misses it leaves it for the next.
    summary: AtomicU64,
}

impl WakeSet {
    /// Makes the empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
            summary: AtomicU64::new(0),
        }
    }

    /// Adds a slot; returns whether it was not there, in which case the owner has to be kicked.
    ///
    /// What the caller wrote before is visible to the owner once it has drained the slot.
    #[inline]
    #[must_use = "a slot that is newly set is seen only after a kick"]
    pub fn set(&self, slot: Slot) -> bool {
        let was = self.words[slot.word()].fetch_or(slot.mask(), Ordering::AcqRel);
        if was & slot.mask() != 0 {
            return false;
        }
        if slot.word() != 0 {
            self.summary.fetch_or(1 << slot.word(), Ordering::Release);
        }
        true
    }

    /// Returns whether there is nothing to drain; two loads, for the owner's hot path.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words[0].load(Ordering::Relaxed) | self.summary.load(Ordering::Relaxed) == 0
    }

    /// Takes `slot` out if it is the only one in the set, and one of the first 64; returns whether it was. Called by the owner.
    #[inline]
    #[must_use]
    pub fn take_alone(&self, slot: Slot) -> bool {
        let (word, mask) = (&self.words[0], slot.mask());
        slot.word() == 0
            && self.summary.load(Ordering::Relaxed) == 0
            && word
                .compare_exchange(mask, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes every slot out and hands each to `wake`, ascending. Called by the owner.
    #[inline]
    pub fn drain(&self, mut wake: impl FnMut(Slot)) {
        let mut further = 0;
        if self.summary.load(Ordering::Relaxed) != 0 {
            further = self.summary.swap(0, Ordering::Acquire);
        }
        let mut word = 0;
        loop {
            if self.words[word].load(Ordering::Relaxed) != 0 {
                for bit in Bits(self.words[word].swap(0, Ordering::AcqRel)) {
                    wake(Slot::from_bit(word, bit));
                }
            }
            if further == 0 {
                return;
            }
            word = further.trailing_zeros() as usize % WORDS;
            further &= further - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::set::MAX_SLOTS;
    use super::{Slot, WakeSet};
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    fn slot(index: usize) -> Slot {
        Slot::new(index).expect("a slot")
    }

    fn drained(set: &WakeSet) -> Vec<usize> {
        let mut all = Vec::new();
        set.drain(|slot| all.push(slot.index()));
        all
    }

    #[test]
    fn a_slot_is_new_once_and_drained_once() {
        let set = WakeSet::new();
        assert!(set.is_empty());
        for index in [511, 0, 64, 63] {
            assert!(set.set(slot(index)));
            assert!(!set.set(slot(index)));
        }
        assert!(!set.is_empty());
        assert_eq!(drained(&set), [0, 63, 64, 511]);
        assert!(set.is_empty());
        assert!(drained(&set).is_empty());
        assert!(set.set(slot(64)));
    }

    #[test]
    fn a_slot_is_taken_alone_only_when_it_is() {
        let set = WakeSet::new();
        assert!(!set.take_alone(slot(3)), "not there");
        assert!(set.set(slot(3)));
        assert!(set.take_alone(slot(3)) && set.is_empty());
        for other in [4, 100] {
            assert!(set.set(slot(3)) && set.set(slot(other)));
            assert!(!set.take_alone(slot(3)));
            assert_eq!(drained(&set), [3, other], "nothing is lost");
        }
        assert!(set.set(slot(64)) && !set.take_alone(slot(64)) && !set.take_alone(slot(0)));
        assert_eq!(drained(&set), [64], "the short way is for few");
    }

    #[test]
    fn nothing_set_by_two_threads_is_lost_or_doubled() {
        const ROUNDS: usize = 20_000;
        let set = WakeSet::new();
        let (fresh, seen) = (AtomicU32::new(0), AtomicU32::new(0));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let setters: Vec<_> = (0..2)
                .map(|seed| {
                    let (set, fresh) = (&set, &fresh);
                    scope.spawn(move || {
                        for round in 0..ROUNDS {
                            if set.set(slot((round * 7 + seed) % MAX_SLOTS)) {
                                fresh.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    set.drain(|_| {
                        seen.fetch_add(1, Ordering::Relaxed);
                    });
                    thread::yield_now();
                }
            });
            for setter in setters {
                setter.join().expect("setter");
            }
            done.store(true, Ordering::Release);
        });
        set.drain(|_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(fresh.into_inner(), seen.into_inner());
    }
}
