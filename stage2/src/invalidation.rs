//! TLB maintenance as a value: this crate says what, `el2` does it.

use crate::PAGE_SIZE;
use types::address::GuestPhys;

/// What the TLBs must forget about one VM before an operation on its tables is over (Arm ARM D8.16).
///
/// `el2` carries it out for the VMID, inner shareable, and completes it with `DSB ISH`. A VM whose VMID is not of the
/// current generation needs none of it: no TLB entry of it can be hit again.
#[must_use = "stale translations stay until the invalidation has been carried out"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Nothing: no translation that a TLB may hold has changed.
    None,
    /// The stage-2 entries for a few pages: `TLBI IPAS2LE1IS` (leaf only) or `IPAS2E1IS` for each 4 KiB, `DSB ISH`,
    /// then `TLBI VMALLE1IS` for what was combined with stage 1.
    Range {
        /// First guest address.
        start: GuestPhys,
        /// Bytes, a multiple of 4 KiB, at most [`Invalidation::RANGE_LIMIT`].
        len: u64,
        /// No table was unlinked, so walk caches may keep what they have.
        leaf_only: bool,
    },
    /// Everything of the VMID, both stages: `TLBI VMALLS12E1IS`.
    All,
}

impl Invalidation {
    /// The longest [`Invalidation::Range`] in bytes; beyond it one `VMALLS12E1IS` costs less than the single ones,
    /// which drop all of stage 1 at their end anyway.
    pub const RANGE_LIMIT: u64 = 64 * PAGE_SIZE;

    /// Names the maintenance for `len` bytes from `start`.
    pub(crate) const fn range(start: GuestPhys, len: u64, leaf_only: bool) -> Self {
        if len > Self::RANGE_LIMIT {
            Self::All
        } else {
            Self::Range {
                start,
                len,
                leaf_only,
            }
        }
    }

    /// Returns one invalidation that does the work of both.
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, one) | (one, Self::None) => one,
            (Self::All, _) | (_, Self::All) => Self::All,
            (
                Self::Range {
                    start: a,
                    len: a_len,
                    leaf_only: a_leaf,
                },
                Self::Range {
                    start: b,
                    len: b_len,
                    leaf_only: b_leaf,
                },
            ) => {
                let start = a.min(b);
                let end = a
                    .get()
                    .saturating_add(a_len)
                    .max(b.get().saturating_add(b_len));
                Self::range(start, end - start.get(), a_leaf && b_leaf)
            }
        }
    }
}
