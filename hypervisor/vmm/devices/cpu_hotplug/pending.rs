//! A set of vCPUs whose first member is found in constant time.

use super::spec::MAX_VCPUS;
use crate::ids::VcpuId;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = MAX_VCPUS as usize / WORD_BITS;

/// A set of vCPU ids below [`MAX_VCPUS`]: a bitmap, and one summary bit per bitmap word that is not zero.
#[derive(Debug)]
pub(super) struct VcpuSet {
    summary: u8,
    words: [u64; WORDS],
}

const _: () = assert!(WORDS <= u8::BITS as usize);

impl VcpuSet {
    /// The set without members.
    pub(super) const EMPTY: Self = Self {
        summary: 0,
        words: [0; WORDS],
    };

    /// Returns whether the set has no members.
    pub(super) const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Adds a vCPU; returns whether it was not a member before. An id that the set cannot hold is not added.
    pub(super) fn insert(&mut self, vcpu: VcpuId) -> bool {
        let (index, bit) = position(vcpu);
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        let new = *word & bit == 0;
        *word |= bit;
        self.summary |= 1 << index;
        new
    }

    /// Removes a vCPU if it is a member.
    pub(super) fn remove(&mut self, vcpu: VcpuId) {
        let (index, bit) = position(vcpu);
        let Some(word) = self.words.get_mut(index) else {
            return;
        };
        *word &= !bit;
        if *word == 0 {
            self.summary &= !(1 << index);
        }
    }

    /// Removes and returns the member with the lowest id.
    pub(super) fn take_first(&mut self) -> Option<VcpuId> {
        let index = self.summary.trailing_zeros();
        let word = self.words.get(index as usize)?;
        let vcpu =
            VcpuId::new((index << WORD_BITS.trailing_zeros() | word.trailing_zeros()) as u16);
        self.remove(vcpu);
        Some(vcpu)
    }
}

const fn position(vcpu: VcpuId) -> (usize, u64) {
    (vcpu.index() / WORD_BITS, 1 << (vcpu.index() % WORD_BITS))
}
