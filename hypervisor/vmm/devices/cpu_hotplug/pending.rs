//! A set of vCPUs whose first and last members are found in constant time.

use types::ids::{MAX_VCPUS, VcpuId};

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = MAX_VCPUS as usize / WORD_BITS;

/// A set of vCPU ids below [`MAX_VCPUS`]: a bitmap, and one summary bit per bitmap word that is not zero.
#[derive(Debug, Default)]
pub(crate) struct VcpuSet {
    summary: u8,
    len: u16,
    words: [u64; WORDS],
}

const _: () = assert!(WORDS == u8::BITS as usize);

impl VcpuSet {
    /// The set without members.
    pub(crate) const EMPTY: Self = Self {
        summary: 0,
        len: 0,
        words: [0; WORDS],
    };

    /// Returns whether the set has no members.
    pub(crate) const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns how many members it has.
    pub(crate) const fn len(&self) -> u16 {
        self.len
    }

    /// Adds a vCPU or removes it; returns whether that changed anything. An id that the set cannot hold is not added.
    pub(crate) fn put(&mut self, vcpu: VcpuId, member: bool) -> bool {
        let (index, bit) = position(vcpu);
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        if (*word & bit != 0) == member {
            return false;
        }
        *word ^= bit;
        let full = u8::from(*word != 0) << index;
        self.summary = self.summary & !(1 << index) | full;
        let change = if member { 1 } else { -1 };
        self.len = self.len.wrapping_add_signed(change);
        true
    }

    /// Adds a vCPU; returns whether it was not a member before.
    pub(crate) fn insert(&mut self, vcpu: VcpuId) -> bool {
        self.put(vcpu, true)
    }

    /// Removes a vCPU if it is a member.
    pub(crate) fn remove(&mut self, vcpu: VcpuId) {
        self.put(vcpu, false);
    }

    /// Removes and returns the member with the lowest id.
    pub(crate) fn take_first(&mut self) -> Option<VcpuId> {
        let first = self.first_from(0)?;
        self.remove(first);
        Some(first)
    }

    /// Returns the member with the lowest id from this one on.
    pub(crate) fn first_from(&self, id: u16) -> Option<VcpuId> {
        let (mut index, bit) = position(VcpuId::new(id));
        let mut word = self.words.get(index)? & bit.wrapping_neg();
        if word == 0 {
            let later = self.summary & !(u8::MAX.wrapping_shr(!(index as u32)));
            index = later.trailing_zeros() as usize;
            word = *self.words.get(index)?;
        }
        Some(member(index, word.trailing_zeros()))
    }

    /// Returns the member with the highest id below this one.
    pub(crate) fn last_below(&self, id: u16) -> Option<VcpuId> {
        let (mut index, bit) = position(VcpuId::new(id));
        let word = self.words.get(index).copied().unwrap_or(0);
        let mut word = word & bit.wrapping_sub(1);
        if word == 0 {
            let earlier = u32::from(self.summary) & !(u32::MAX << index.min(WORDS));
            index = earlier.checked_ilog2()? as usize;
            word = *self.words.get(index)?;
        }
        Some(member(index, word.checked_ilog2()?))
    }
}

const fn member(index: usize, bit: u32) -> VcpuId {
    VcpuId::new((index << WORD_BITS.trailing_zeros()) as u16 | bit as u16)
}

const fn position(vcpu: VcpuId) -> (usize, u64) {
    (vcpu.index() / WORD_BITS, 1 << (vcpu.index() % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::{MAX_VCPUS, VcpuId, VcpuSet};
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        /// A set is what a set of the standard library is, whatever is put in and taken out.
        #[test]
        fn members_are_those_put_in(steps in prop::collection::vec((0..MAX_VCPUS + 8, any::<bool>()), 0..200)) {
            let (mut set, mut model) = (VcpuSet::EMPTY, BTreeSet::new());
            for (id, member) in steps {
                let vcpu = VcpuId::new(id);
                let changed = id < MAX_VCPUS && if member { model.insert(vcpu) } else { model.remove(&vcpu) };
                prop_assert_eq!(set.put(vcpu, member), changed);
                prop_assert_eq!(usize::from(set.len()), model.len());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.first_from(0), model.first().copied());
                prop_assert_eq!(set.last_below(MAX_VCPUS), model.last().copied());
                prop_assert_eq!(set.first_from(id), model.range(vcpu..).next().copied());
                prop_assert_eq!(set.last_below(id), model.range(..vcpu).next_back().copied());
            }
            let taken: BTreeSet<_> = core::iter::from_fn(|| set.take_first()).collect();
            prop_assert_eq!(taken, model);
        }
    }
}
