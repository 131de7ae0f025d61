//! Random sequences against the reference, walkers and TLBs watching every write.

use std::vec::Vec;

use proptest::prelude::*;

use super::fake::{Fake, guest};
use super::model::{Model, join};
use super::{GIB, MIB, mapping};
use crate::{
    Access, AddressSpace, Attributes, ENTRIES_PER_TABLE, Error, Invalidation, Mapping, PAGE_SIZE,
    Tables, tables_needed, tables_needed_in_pages,
};

#[derive(Clone, Copy, Debug)]
enum Op {
    Map { shift: u64, attributes: Attributes },
    Unmap,
    Protect(Access),
}

/// Addresses and lengths near the edges of pages and blocks of each size.
fn offset(gib: u64) -> impl Strategy<Value = u64> {
    let small = prop_oneof![3 => Just(0_u64), 1 => 1_u64..4, 1 => 509_u64..512];
    (0..gib, small.clone(), small).prop_map(|(g, m, p)| g * GIB + m * 2 * MIB + p * PAGE_SIZE)
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (offset(3), offset(2)).prop_map(|(start, len)| (start, len.max(PAGE_SIZE)))
}

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(std::vec![
        Access::ALL,
        Access::READ,
        Access::READ_WRITE,
        Access::READ_EXECUTE
    ])
}

fn op() -> impl Strategy<Value = Op> {
    let shift =
        prop_oneof![4 => Just(0_u64), 2 => Just(GIB), 1 => Just(2 * MIB), 1 => Just(PAGE_SIZE)];
    let attributes = prop::sample::select(std::vec![
        Attributes::RAM,
        Attributes::ROM,
        Attributes::DEVICE
    ]);
    prop_oneof![
        4 => (shift, attributes).prop_map(|(shift, attributes)| Op::Map { shift, attributes }),
        3 => Just(Op::Unmap),
        3 => access().prop_map(Op::Protect),
    ]
}

/// Space, start level, and where in the space the test happens: at the bottom or across a root table's end.
fn places() -> impl Strategy<Value = (AddressSpace, u32, u64)> {
    let small = (AddressSpace::new(40, 4).unwrap(), 1);
    let large = (AddressSpace::new(48, 5).unwrap(), 0);
    let base = prop::sample::select(std::vec![0, 512 * GIB - 2 * GIB]);
    (prop::sample::select(std::vec![small, large]), base)
        .prop_map(|((space, level), base)| (space, level, base))
}

struct Bench {
    memory: Fake,
    tables: Tables,
    model: Model,
}

impl Bench {
    fn new((space, level, _): (AddressSpace, u32, u64), quota: usize) -> Self {
        let mut memory = Fake::new(quota);
        let tables = Tables::new(space, &mut memory).unwrap();
        memory.attach(tables.root(), level);
        Self {
            memory,
            tables,
            model: Model::default(),
        }
    }

    /// Does one operation on tables and reference; a refusal must be right, and leave no trace.
    fn apply(&mut self, op: Op, start: u64, len: u64) -> Result<(), Error> {
        let before = (self.memory.live(), self.memory.allocated());
        let end = start + len;
        let result = match op {
            Op::Map { shift, attributes } => {
                self.map(mapping(start, start + shift, len), attributes)
            }
            Op::Unmap => {
                let begun = self.tables.begin_unmap(&mut self.memory, guest(start), len);
                begun.map(|pending| {
                    self.model.unmap(start, end);
                    self.finish(pending, start, end);
                })
            }
            Op::Protect(access) => {
                let begun = self
                    .tables
                    .begin_protect(&mut self.memory, guest(start), len, access);
                assert_eq!(
                    matches!(begun, Err(Error::NotMapped(_))),
                    !self.model.all_mapped(start, end)
                );
                begun.map(|pending| {
                    self.model.protect(start, end, access);
                    self.finish(pending, start, end);
                })
            }
        };
        if result.is_err() {
            assert_eq!((self.memory.live(), self.memory.allocated()), before);
        }
        self.check();
        result
    }

    fn map(&mut self, one: Mapping, attributes: Attributes) -> Result<(), Error> {
        let (start, end) = (one.guest.get(), one.guest.get() + one.len);
        let result = self.tables.map(&mut self.memory, one, attributes);
        assert_eq!(
            matches!(result, Err(Error::Overlap(_))),
            self.model.any_mapped(start, end)
        );
        if result.is_ok() {
            self.model.map(start, end, one.host.get(), attributes);
        }
        result
    }

    fn finish(&mut self, pending: crate::Pending, start: u64, end: u64) {
        self.probe(start, end);
        self.memory.invalidate(pending.invalidation());
        self.tables.finish(&mut self.memory, pending);
        self.probe(start, end);
    }

    /// Compares lookups on both sides of both ends of a range, and a block away from them.
    fn probe(&self, start: u64, end: u64) {
        for edge in [start, end] {
            for address in [
                edge,
                edge + 7,
                edge + 2 * MIB,
                edge.wrapping_sub(1),
                edge.wrapping_sub(2 * MIB),
            ] {
                let found = self.tables.translate(&self.memory, guest(address));
                assert_eq!(
                    found.map(|f| (f.host.get(), f.attributes)),
                    self.model.lookup(address),
                    "{address:#x}"
                );
            }
        }
    }

    fn check(&mut self) {
        self.memory.settle();
        assert_eq!(self.memory.violations(), []);
        assert_eq!(self.memory.leaked(), 0);
        let live = self
            .memory
            .live()
            .into_iter()
            .map(|(base, size, host, a)| (base, base + size, host, a));
        assert_eq!(join(live), self.model.joined());
    }

    fn end(mut self) {
        self.memory.detach();
        self.memory.invalidate(Invalidation::All);
        super::free(self.tables, &mut self.memory);
        assert_eq!(
            (self.memory.allocated(), self.memory.violations()),
            (0, Vec::new())
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_is_safe(
        place in places(),
        quota in 6_usize..24,
        ops in prop::collection::vec((op(), range()), 1..16),
    ) {
        let mut bench = Bench::new(place, quota);
        for (op, (start, len)) in ops {
            let result = bench.apply(op, place.2 + start, len);
            prop_assert!(matches!(
                result,
                Ok(()) | Err(Error::Overlap(_) | Error::NotMapped(_) | Error::OutOfTables)
            ));
        }
        bench.end();
    }

    #[test]
    fn unmapping_everything_frees_every_table(place in places(), ops in prop::collection::vec((op(), range()), 1..8)) {
        let mut bench = Bench::new(place, 24);
        for (op, (start, len)) in ops {
            let _ = bench.apply(op, place.2 + start, len);
        }
        prop_assert_eq!(bench.apply(Op::Unmap, 0, place.0.size()), Ok(()));
        prop_assert_eq!(bench.memory.allocated(), place.0.root_pages());
        bench.end();
    }

    /// A quota computed beforehand suffices whatever the order, and one mapping alone takes exactly that.
    #[test]
    fn the_estimate_suffices(place in places(), shift in 0_u64..2, ranges in prop::collection::vec(range(), 1..5)) {
        let all = ranges.iter().map(|&(start, len)| {
            let start = place.2 + start;
            mapping(start, start + shift * 2 * MIB, len)
        });
        let mut bench = Bench::new(place, tables_needed(place.0, all.clone()));
        for (count, one) in all.enumerate() {
            let result = bench.map(one, Attributes::RAM);
            prop_assert!(matches!(result, Ok(()) | Err(Error::Overlap(_))), "{:?}", result);
            if count == 0 {
                prop_assert_eq!(bench.memory.allocated(), tables_needed(place.0, [one]));
                check_largest(&bench.memory, one);
            }
        }
        bench.check();
        bench.end();
    }

    /// A mapping that is made part by part is made of the same blocks, in as many tables, and no part is long.
    #[test]
    fn parts_make_what_the_whole_makes(place in places(), shift in 0_u64..3, (start, len) in range()) {
        let delta = [0, 2 * MIB, PAGE_SIZE][shift as usize];
        let start = place.2 + start;
        let whole = mapping(start, start + delta, len.min(if delta == PAGE_SIZE { 8 * MIB } else { u64::MAX }));
        let (mut at_once, mut in_parts) = (Bench::new(place, 64), Bench::new(place, 64));
        prop_assert_eq!(at_once.map(whole, Attributes::RAM), Ok(()));
        let mut rest = Some(whole);
        while let Some(one) = rest {
            let (part, after) = one.split();
            let before = in_parts.memory.live().len();
            prop_assert_eq!(in_parts.map(part, Attributes::RAM), Ok(()));
            prop_assert!(in_parts.memory.live().len() - before <= 64, "{part:?}");
            rest = after;
        }
        prop_assert_eq!(in_parts.memory.live(), at_once.memory.live());
        prop_assert_eq!(in_parts.memory.allocated(), at_once.memory.allocated());
        at_once.end();
        in_parts.end();
    }

    /// The quota for single pages covers any splitting of what is mapped.
    #[test]
    fn the_estimate_in_pages_covers_splits(
        place in places(),
        ops in prop::collection::vec((access(), 0_u64..2048, 1_u64..64), 1..12),
    ) {
        let one = mapping(place.2, place.2, 8 * MIB + 64 * PAGE_SIZE);
        let mut bench = Bench::new(place, tables_needed_in_pages(place.0, [one]));
        prop_assert_eq!(bench.map(one, Attributes::RAM), Ok(()));
        for (access, page, pages) in ops {
            let start = place.2 + page * PAGE_SIZE;
            prop_assert_eq!(bench.apply(Op::Protect(access), start, pages * PAGE_SIZE), Ok(()));
        }
        bench.end();
    }
}

/// Checks that no leaf could be part of a larger block.
fn check_largest(memory: &Fake, one: Mapping) {
    for (base, size, host, _) in memory.live() {
        let larger = size * ENTRIES_PER_TABLE as u64;
        let (start, end) = (base & !(larger - 1), (base | (larger - 1)) + 1);
        let inside = one.guest.get() <= start && end <= one.guest.get() + one.len;
        let congruent = (host ^ base) & (larger - 1) == 0;
        assert!(
            size == GIB || !(inside && congruent),
            "{base:#x} {size:#x} of {one:?}"
        );
    }
}
