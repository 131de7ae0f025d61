//! Levels of lookup and the slots that a range of addresses touches on each (Arm ARM D8.2, 4 KiB granule).

use crate::PAGE_SIZE;

/// Address bits that one level of lookup resolves.
const BITS_PER_LEVEL: u32 = 9;

/// A level of lookup, 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// 512 GiB a slot; tables only.
    Zero,
    /// 1 GiB a slot.
    One,
    /// 2 MiB a slot.
    Two,
    /// 4 KiB a slot; pages only.
    Three,
}

impl Level {
    /// Returns the binary logarithm of the bytes that one slot covers.
    pub(crate) const fn shift(self) -> u32 {
        PAGE_SIZE.trailing_zeros() + BITS_PER_LEVEL * (Self::Three as u32 - self as u32)
    }

    /// Returns the bytes that one slot covers.
    pub(crate) const fn span(self) -> u64 {
        1 << self.shift()
    }

    /// Returns the level below, or `None` below the last.
    pub(crate) const fn next(self) -> Option<Self> {
        match self {
            Self::Zero => Some(Self::One),
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }

    /// Returns the level above, or `None` above the first.
    pub(crate) const fn above(self) -> Option<Self> {
        match self {
            Self::Zero => None,
            Self::One => Some(Self::Zero),
            Self::Two => Some(Self::One),
            Self::Three => Some(Self::Two),
        }
    }

    /// Returns whether a slot can hold a block or a page.
    pub(crate) const fn has_leaves(self) -> bool {
        !matches!(self, Self::Zero)
    }

    /// Lists the slots that `start..end` touches.
    pub(crate) fn slots(self, start: u64, end: u64) -> impl Iterator<Item = Slot> {
        let span = self.span();
        let first = start & !(span - 1);
        (first..end).step_by(span as usize).map(move |base| Slot {
            base,
            span,
            start: base.max(start),
            end: (base + span).min(end),
        })
    }
}

/// One slot of a table, and the part of a range that falls into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// First guest address of the slot.
    pub(crate) base: u64,
    /// Bytes the slot covers.
    pub(crate) span: u64,
    /// First address of the range in the slot.
    pub(crate) start: u64,
    /// End of the range in the slot, exclusive.
    pub(crate) end: u64,
}

impl Slot {
    /// Returns whether the range covers all of the slot.
    pub(crate) const fn is_whole(&self) -> bool {
        self.end - self.start == self.span
    }
}
