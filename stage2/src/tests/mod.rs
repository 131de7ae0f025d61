//! Known cases, the architecture's rules, and the proof that the fake sees when they are broken.

mod fake;
mod model;
mod properties;

use std::vec::Vec;

use self::fake::{Fake, Violation, guest};
use crate::{
    Access, AddressSpace, Attributes, Error, Invalidation, Mapping, MemoryKind, PAGE_SIZE,
    TableMemory, Tables, tables_needed,
};
use types::address::{GuestPhys, HostPhys};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

// What the hypervisor does not use yet, and the tables can do.
impl Access {
    /// Loads and fetches.
    pub const READ_EXECUTE: Self = Self {
        read: true,
        write: false,
        execute: true,
    };
    /// Loads and stores.
    pub const READ_WRITE: Self = Self {
        read: true,
        write: true,
        execute: false,
    };
    /// Loads only.
    pub const READ: Self = Self {
        read: true,
        write: false,
        execute: false,
    };
}

impl Attributes {
    /// Memory that the guest reads and runs, but cannot change.
    pub const ROM: Self = Self {
        kind: MemoryKind::Normal,
        access: Access::READ_EXECUTE,
    };
}

fn mapping(guest: u64, host: u64, len: u64) -> Mapping {
    Mapping {
        guest: GuestPhys::new(guest),
        host: HostPhys::new(host),
        len,
    }
}

/// Gives all of a VM's tables back; returns in how many pieces.
fn free(tables: Tables, memory: &mut Fake) -> usize {
    let mut rest = Some(tables);
    let mut pieces = 0;
    while let Some(tables) = rest.take() {
        rest = tables.free_some(memory);
        pieces += 1;
    }
    pieces
}

/// Makes empty tables of a 40-bit space (level 1, two concatenated) that walkers see.
fn vm(quota: usize) -> (Fake, Tables) {
    let mut memory = Fake::new(quota);
    let tables = Tables::new(AddressSpace::new(40, 4).unwrap(), &mut memory).unwrap();
    memory.attach(tables.root(), 1);
    (memory, tables)
}

/// Makes tables with one mapping of RAM.
fn vm_with(one: Mapping) -> (Fake, Tables) {
    let (mut memory, mut tables) = vm(64);
    tables.map(&mut memory, one, Attributes::RAM).unwrap();
    (memory, tables)
}

fn sizes(memory: &Fake) -> Vec<(u64, usize)> {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for (_, size, _, _) in memory.live() {
        match runs.last_mut() {
            Some(last) if last.0 == size => last.1 += 1,
            _ => runs.push((size, 1)),
        }
    }
    runs
}

#[test]
fn maps_in_the_largest_blocks_that_fit() {
    for (one, expected) in [
        (mapping(GIB, 5 * GIB, 2 * GIB), &[(GIB, 2)][..]),
        (mapping(GIB, 4 * MIB, 2 * GIB), &[(2 * MIB, 1024)]),
        (mapping(GIB, 64 * KIB, 4 * MIB), &[(4 * KIB, 1024)]),
        (
            mapping(GIB - 4 * KIB, 3 * GIB - 4 * KIB, GIB + 2 * MIB + 12 * KIB),
            &[(4 * KIB, 1), (GIB, 1), (2 * MIB, 1), (4 * KIB, 2)],
        ),
        (mapping(512 * GIB - GIB, GIB, 2 * GIB), &[(GIB, 2)]),
        (
            mapping((1 << 40) - 4 * KIB, (1 << 44) - 4 * KIB, 4 * KIB),
            &[(4 * KIB, 1)],
        ),
    ] {
        let (memory, tables) = vm(2048);
        let (mut memory, mut tables) = (memory, tables);
        tables.map(&mut memory, one, Attributes::RAM).unwrap();
        assert_eq!(sizes(&memory), expected, "{one:?}");
        assert_eq!(
            memory.allocated(),
            tables_needed(tables.space(), [one]),
            "{one:?}"
        );
        for offset in [0, 5, one.len / 2, one.len - 1] {
            let found = tables
                .translate(&memory, guest(one.guest.get() + offset))
                .unwrap();
            assert_eq!(
                (found.host.get(), found.attributes),
                (one.host.get() + offset, Attributes::RAM)
            );
        }
        assert_eq!(
            tables.translate(&memory, guest(one.guest.get() + one.len)),
            None
        );
        assert_eq!(memory.violations(), []);
    }
}

#[test]
fn refuses_bad_ranges_and_changes_nothing() {
    let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, 4 * MIB));
    let before = (memory.live(), memory.allocated());
    for (one, error) in [
        (mapping(0, 0, 0), Error::Misaligned),
        (mapping(1, 0, 4 * KIB), Error::Misaligned),
        (mapping(0, 1, 4 * KIB), Error::Misaligned),
        (mapping(0, 0, 4 * KIB + 1), Error::Misaligned),
        (mapping(1 << 40, 0, 4 * KIB), Error::OutsideGuestSpace),
        (
            mapping((1 << 40) - 4 * KIB, 0, 8 * KIB),
            Error::OutsideGuestSpace,
        ),
        (
            mapping(!(4 * KIB - 1), 0, 4 * KIB),
            Error::OutsideGuestSpace,
        ),
        (
            mapping(0, (1 << 44) - 4 * KIB, 8 * KIB),
            Error::OutsideHostSpace,
        ),
        (mapping(0, !(4 * KIB - 1), 8 * KIB), Error::OutsideHostSpace),
        (mapping(0, 0, 2 * GIB), Error::Overlap(guest(GIB))),
        (
            mapping(GIB + 2 * MIB, 0, 4 * KIB),
            Error::Overlap(guest(GIB + 2 * MIB)),
        ),
        (mapping(8 * GIB, 4 * KIB, GIB), Error::OutOfTables),
    ] {
        assert_eq!(
            tables.map(&mut memory, one, Attributes::RAM),
            Err(error),
            "{one:?}"
        );
        assert_eq!((memory.live(), memory.allocated()), before, "{one:?}");
    }
    let hole = tables
        .begin_protect(&mut memory, guest(GIB), 6 * MIB, Access::READ)
        .unwrap_err();
    assert_eq!(hole, Error::NotMapped(guest(GIB + 4 * MIB)));
    assert_eq!(tables.translate(&memory, guest(1 << 40)), None);
    assert_eq!(tables.translate(&memory, guest(u64::MAX)), None);
    assert_eq!(memory.violations(), []);
}

#[test]
fn one_change_at_a_time() {
    let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, GIB));
    let pending = tables
        .begin_unmap(&mut memory, guest(GIB + 4 * KIB), 4 * KIB)
        .unwrap();
    assert_eq!(pending.invalidation(), Invalidation::All);
    assert_eq!(
        tables.map(&mut memory, mapping(0, 0, 4 * KIB), Attributes::RAM),
        Err(Error::ChangeInProgress)
    );
    assert_eq!(
        tables
            .begin_unmap(&mut memory, guest(0), 4 * KIB)
            .unwrap_err(),
        Error::ChangeInProgress
    );
    // The rest of the block is out of the guest's sight, but part of the mapping: a fault on it is to be retried.
    assert_eq!(memory.live(), []);
    assert_eq!(
        tables
            .translate(&memory, guest(GIB))
            .map(|found| found.block_bytes),
        Some(4 * KIB)
    );
    assert_eq!(tables.translate(&memory, guest(GIB + 4 * KIB)), None);
    memory.invalidate(pending.invalidation());
    tables.finish(&mut memory, pending);
    assert_eq!(sizes(&memory), [(4 * KIB, 511), (2 * MIB, 511)]);
    tables
        .map(
            &mut memory,
            mapping(GIB + 4 * KIB, 0, 4 * KIB),
            Attributes::DEVICE,
        )
        .unwrap();
    memory.settle();
    assert_eq!((memory.violations(), memory.leaked()), (Vec::new(), 0));
}

#[test]
fn permissions_change_in_place_and_only_where_they_differ() {
    let (mut memory, mut tables) = vm_with(mapping(0, 0, 64 * KIB));
    for (start, access, expected) in [
        (8 * KIB, Access::ALL, Invalidation::None),
        (
            8 * KIB,
            Access::READ,
            Invalidation::Range {
                start: guest(8 * KIB),
                len: 8 * KIB,
                leaf_only: true,
            },
        ),
        (
            4 * KIB,
            Access::READ,
            Invalidation::Range {
                start: guest(4 * KIB),
                len: 4 * KIB,
                leaf_only: true,
            },
        ),
    ] {
        let pending = tables
            .begin_protect(&mut memory, guest(start), 8 * KIB, access)
            .unwrap();
        assert_eq!(
            (pending.invalidation(), memory.live().len()),
            (expected, 16)
        );
        memory.invalidate(pending.invalidation());
        tables.finish(&mut memory, pending);
    }
    memory.settle();
    assert_eq!((memory.violations(), memory.allocated()), (Vec::new(), 4));
}

#[test]
fn what_may_be_done_is_read_back_from_the_descriptor() {
    for bits in 0..8_u8 {
        let access = Access {
            read: bits & 1 != 0,
            write: bits & 2 != 0,
            execute: bits & 4 != 0,
        };
        let (mut memory, mut tables) = vm_with(mapping(0, 0, 4 * KIB));
        let pending = tables
            .begin_protect(&mut memory, guest(0), 4 * KIB, access)
            .unwrap();
        memory.invalidate(pending.invalidation());
        tables.finish(&mut memory, pending);
        let found = tables.translate(&memory, guest(0)).map(|it| it.attributes);
        let kind = MemoryKind::Normal;
        assert_eq!(found, Some(Attributes { kind, access }));
        free(tables, &mut memory);
    }
}

#[test]
fn an_unfinished_change_is_freed_with_the_rest() {
    let (mut memory, mut tables) = vm_with(mapping(GIB - 64 * KIB, 0, 2 * MIB));
    let _lost = tables
        .begin_unmap(&mut memory, guest(GIB - 64 * KIB), 128 * KIB)
        .unwrap();
    assert_ne!(memory.leaked(), 0);
    memory.detach();
    memory.invalidate(Invalidation::All);
    free(tables, &mut memory);
    assert_eq!((memory.allocated(), memory.violations()), (0, Vec::new()));
}

/// A large VM whose RAM begins in the middle of a block of the host's: no step of its start or end is long.
#[test]
fn large_tables_are_made_and_given_back_in_pieces() {
    const RAM: u64 = 8 * GIB;
    let (mut memory, mut tables) = vm(16);
    let mut rest = Some(mapping(GIB, 2 * MIB, RAM));
    let mut parts = 0;
    while let Some(mapping) = rest {
        let (part, after) = mapping.split();
        assert!(part.len <= 64 * 2 * MIB, "{part:?}");
        tables.map(&mut memory, part, Attributes::RAM).unwrap();
        (rest, parts) = (after, parts + 1);
    }
    assert_eq!((parts, memory.allocated()), (64, 2 + 8));
    memory.detach();
    memory.invalidate(Invalidation::All);
    let read_before = memory.read_so_far();
    let mut left = Some(tables);
    while let Some(tables) = left.take() {
        let before = memory.read_so_far();
        left = tables.free_some(&mut memory);
        let read = memory.read_so_far() - before;
        assert!(read <= 256, "{read} descriptors in one go");
    }
    assert!(memory.read_so_far() - read_before >= 8 * 512);
    assert_eq!((memory.allocated(), memory.violations()), (0, Vec::new()));
}

#[test]
fn invalidations_merge() {
    let range =
        |start, pages, leaf_only| Invalidation::range(guest(start), pages * PAGE_SIZE, leaf_only);
    let (all, none) = (Invalidation::All, Invalidation::None);
    for (a, b, expected) in [
        (none, none, none),
        (none, all, all),
        (all, range(0, 1, true), all),
        (none, range(0, 1, true), range(0, 1, true)),
        (
            range(0, 1, true),
            range(3 * PAGE_SIZE, 1, true),
            range(0, 4, true),
        ),
        (
            range(0, 4, true),
            range(PAGE_SIZE, 1, false),
            range(0, 4, false),
        ),
        (range(0, 1, true), range(GIB, 1, true), all),
        (range(0, 64, true), range(0, 65, true), all),
    ] {
        assert_eq!(
            (a.merge(b), b.merge(a)),
            (expected, expected),
            "{a:?} {b:?}"
        );
    }
}

/// Sequences that are wrong on purpose: the fake must say so, or the other tests prove nothing.
mod broken {
    use super::*;

    fn faults(memory: &mut Fake) -> Vec<Violation> {
        memory.settle();
        memory.violations()
    }

    #[test]
    fn a_block_overwritten_by_another() {
        let (mut memory, tables) = vm_with(mapping(GIB, GIB, GIB));
        let raw = memory.read(tables.root(), 1);
        memory.write(tables.root(), 1, raw + GIB);
        assert!(
            memory
                .violations()
                .contains(&Violation::BreakBeforeMake(GIB))
        );
    }

    #[test]
    fn broken_and_made_without_invalidation() {
        let (mut memory, tables) = vm_with(mapping(GIB, GIB, GIB));
        let raw = memory.read(tables.root(), 1);
        memory.write(tables.root(), 1, 0);
        memory.write(tables.root(), 1, raw + GIB);
        assert!(
            memory
                .violations()
                .contains(&Violation::BreakBeforeMake(GIB))
        );
    }

    #[test]
    fn unmapped_without_invalidation() {
        let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, GIB));
        let pending = tables.begin_unmap(&mut memory, guest(GIB), GIB).unwrap();
        tables.finish(&mut memory, pending);
        assert_eq!(faults(&mut memory), [Violation::Stale(GIB)]);
    }

    #[test]
    fn split_without_invalidation() {
        let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, GIB));
        let pending = tables
            .begin_protect(&mut memory, guest(GIB), MIB, Access::READ)
            .unwrap();
        tables.finish(&mut memory, pending);
        assert!(
            memory
                .violations()
                .contains(&Violation::BreakBeforeMake(GIB))
        );
    }

    #[test]
    fn table_unlinked_with_only_leaves_invalidated() {
        let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, 8 * KIB));
        let pending = tables
            .begin_unmap(&mut memory, guest(GIB), 8 * KIB)
            .unwrap();
        let range = |leaf_only| Invalidation::Range {
            start: guest(GIB),
            len: 8 * KIB,
            leaf_only,
        };
        assert_eq!(pending.invalidation(), range(false));
        memory.invalidate(range(true));
        tables.finish(&mut memory, pending);
        let found = faults(&mut memory);
        assert!(
            found
                .iter()
                .any(|one| matches!(one, Violation::FreedReachable(_))),
            "{found:?}"
        );
    }

    #[test]
    fn range_too_short() {
        let (mut memory, mut tables) = vm_with(mapping(GIB, GIB, MIB));
        let pending = tables
            .begin_protect(&mut memory, guest(GIB), 8 * KIB, Access::READ)
            .unwrap();
        memory.invalidate(Invalidation::range(guest(GIB), 4 * KIB, true));
        tables.finish(&mut memory, pending);
        assert_eq!(faults(&mut memory), [Violation::Stale(GIB + 4 * KIB)]);
    }

    #[test]
    fn invalidated_before_the_write_is_published() {
        let (mut memory, tables) = vm_with(mapping(GIB, GIB, GIB));
        memory.write(tables.root(), 1, 0);
        memory.invalidate(Invalidation::All);
        assert_eq!(memory.violations(), [Violation::Unpublished]);
    }

    #[test]
    fn freed_while_walkers_may_come() {
        let (mut memory, tables) = vm_with(mapping(GIB, GIB, MIB));
        free(tables, &mut memory);
        assert!(
            memory
                .violations()
                .iter()
                .any(|one| matches!(one, Violation::FreedReachable(_)))
        );
    }

    #[test]
    fn dropped_without_free() {
        let (mut memory, tables) = vm_with(mapping(GIB, GIB, MIB));
        memory.write(tables.root(), 1, 0);
        assert_eq!(memory.leaked(), 2);
        memory.free(HostPhys::new(0), 1);
        assert!(memory.violations().contains(&Violation::NotAllocated(0)));
    }
}
