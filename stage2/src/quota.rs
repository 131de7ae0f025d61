//! How many table pages mappings take: what a VM's quota is computed from, and what an operation reserves.

use crate::level::Level;
use crate::{AddressSpace, Mapping, PAGE_SIZE};

/// The most pages that one `begin_unmap` or `begin_protect` takes: both ends of the range inside 1 GiB blocks.
pub const MAX_TABLES_PER_CHANGE: usize = 4;

/// Returns how many pages suffice for `mappings` in any order, the root included.
///
/// An upper bound: tables that mappings share are counted for each. A VM whose mappings are later split needs
/// [`MAX_TABLES_PER_CHANGE`] more for each change, and never more than [`tables_needed_in_pages`].
#[must_use]
pub fn tables_needed(space: AddressSpace, mappings: impl IntoIterator<Item = Mapping>) -> usize {
    total(space, mappings, |mapping| {
        mapping.host.get().wrapping_sub(mapping.guest.get())
    })
}

/// Returns how many pages suffice for `mappings` split into single pages, the root included.
#[must_use]
pub fn tables_needed_in_pages(
    space: AddressSpace,
    mappings: impl IntoIterator<Item = Mapping>,
) -> usize {
    total(space, mappings, |_| PAGE_SIZE)
}

fn total(
    space: AddressSpace,
    mappings: impl IntoIterator<Item = Mapping>,
    delta: impl Fn(&Mapping) -> u64,
) -> usize {
    mappings
        .into_iter()
        .fold(space.root_pages(), |sum, mapping| {
            let start = mapping.guest.get().min(space.size());
            let end = mapping
                .guest
                .get()
                .saturating_add(mapping.len)
                .min(space.size());
            sum.saturating_add(tables_below(
                space.start_level(),
                start,
                end,
                delta(&mapping),
            ))
        })
}

/// Counts the tables below empty slots of `level` that mapping `start..end` to itself plus `delta` takes.
pub(crate) fn tables_below(level: Level, start: u64, end: u64, delta: u64) -> usize {
    if start >= end {
        return 0;
    }
    let mut count = 0;
    let mut at = level;
    while let Some(next) = at.next() {
        count += slots_in_need(at, start, end, delta);
        at = next;
    }
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Counts the slots of `level` that `start..end` touches and that a block cannot fill.
fn slots_in_need(level: Level, start: u64, end: u64, delta: u64) -> u64 {
    let shift = level.shift();
    let mask = level.span() - 1;
    let touched = ((end - 1) >> shift) - (start >> shift) + 1;
    if !level.has_leaves() || delta & mask != 0 {
        return touched;
    }
    let whole = (end >> shift).saturating_sub((start + mask) >> shift);
    touched - whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::address::{GuestPhys, HostPhys};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn mapping(guest: u64, host: u64, len: u64) -> Mapping {
        Mapping {
            guest: GuestPhys::new(guest),
            host: HostPhys::new(host),
            len,
        }
    }

    #[test]
    fn counts_known_cases() {
        let space = AddressSpace::new(40, 4).unwrap();
        for (guest, host, len, expected) in [
            (GIB, GIB, 64 * GIB, 0),
            (GIB, 3 * GIB, 512 * MIB, 1),
            (GIB, GIB + 2 * MIB, 2 * GIB, 2),
            (GIB, GIB + PAGE_SIZE, 2 * GIB, 2 + 1024),
            (GIB, GIB, PAGE_SIZE, 2),
            (
                GIB + 511 * PAGE_SIZE,
                GIB + 511 * PAGE_SIZE,
                2 * PAGE_SIZE,
                3,
            ),
            (2 * GIB - PAGE_SIZE, 2 * GIB - PAGE_SIZE, 2 * PAGE_SIZE, 4),
            (u64::MAX, 0, u64::MAX, 0),
            (GIB, 0, 0, 0),
        ] {
            let one = [mapping(guest, host, len)];
            assert_eq!(
                tables_needed(space, one),
                2 + expected,
                "{guest:#x} -> {host:#x}, {len:#x}"
            );
        }
        assert_eq!(
            tables_needed_in_pages(space, [mapping(GIB, GIB, GIB)]),
            2 + 1 + 512
        );
        assert_eq!(
            tables_needed(AddressSpace::new(48, 5).unwrap(), [mapping(GIB, GIB, GIB)]),
            1 + 1
        );
    }
}
