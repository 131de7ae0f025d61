//! Table memory with an architecture around it: walkers and TLBs at their most retentive.
//!
//! Whatever a walk could ever have seen is cached at once and stays until an invalidation removes it (Arm ARM D8.16
//! allows both). Descriptors are decoded here from the manual once more, not with the crate's own code.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use crate::{
    Access, Attributes, ENTRIES_PER_TABLE, Invalidation, MemoryKind, PAGE_SIZE, TableMemory,
};
use types::address::{GuestPhys, HostPhys};

/// Bits that may change in a valid descriptor without break-before-make: S2AP and XN.
const PERMISSIONS: u64 = 0b11 << 6 | 1 << 54;
const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;
const FIRST_PAGE: u64 = 0x10_0000;

/// What the crate under test has done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// A new output, size or table became visible while a walk could still hit the old one.
    BreakBeforeMake(u64),
    /// A table was freed that a walk could still read.
    FreedReachable(u64),
    /// A translation or table pointer is cached that the tables no longer contain.
    Stale(u64),
    /// TLB maintenance began, or an operation ended, with writes that walks need not see yet.
    Unpublished,
    /// A page was used that is not allocated, or freed with another size.
    NotAllocated(u64),
}

/// A live block or page: guest address, size, host address, attributes.
pub(super) type LiveLeaf = (u64, u64, u64, Attributes);

#[derive(Clone, Copy)]
enum Seen {
    Nothing,
    Table(u64),
    Leaf(u64),
}

/// The memory, one VM's walkers and TLBs.
pub(super) struct Fake {
    pages: BTreeMap<u64, Vec<u64>>,
    runs: BTreeMap<u64, usize>,
    quota: usize,
    next: u64,
    root: Option<(u64, u32)>,
    tables_cached: BTreeMap<(u32, u64), u64>,
    places: BTreeMap<u64, BTreeSet<(u32, u64)>>,
    leaves_cached: BTreeMap<(u64, u64), BTreeSet<u64>>,
    unpublished: bool,
    violations: BTreeSet<Violation>,
    reads: Cell<usize>,
}

fn span(level: u32) -> u64 {
    PAGE_SIZE << (9 * (3 - level))
}

fn see(raw: u64, level: u32) -> Seen {
    match (raw & 0b11, level) {
        (0b11, 0..=2) => Seen::Table(raw & ADDRESS),
        (0b11, 3) | (0b01, 1 | 2) => Seen::Leaf(raw),
        _ => Seen::Nothing,
    }
}

fn attributes(raw: u64) -> Attributes {
    let kind = match (raw >> 2 & 0xF, raw >> 8 & 0b11) {
        (0b1111, 0b11) => MemoryKind::Normal,
        (0b0001, _) => MemoryKind::Device,
        other => panic!("memory type {other:?}"),
    };
    assert!(raw >> 10 & 1 == 1, "access flag");
    let access = Access {
        read: raw >> 6 & 1 == 1,
        write: raw >> 7 & 1 == 1,
        execute: raw >> 53 & 0b11 == 0,
    };
    Attributes { kind, access }
}

impl Fake {
    pub(super) fn new(quota: usize) -> Self {
        Self {
            pages: BTreeMap::new(),
            runs: BTreeMap::new(),
            quota,
            next: FIRST_PAGE,
            root: None,
            tables_cached: BTreeMap::new(),
            places: BTreeMap::new(),
            leaves_cached: BTreeMap::new(),
            unpublished: false,
            violations: BTreeSet::new(),
            reads: Cell::new(0),
        }
    }

    /// Loads VTTBR_EL2: from here on walkers see everything.
    pub(super) fn attach(&mut self, root: HostPhys, start_level: u32) {
        self.root = Some((root.get(), start_level));
        self.walk_all();
    }

    /// Takes the root out of VTTBR_EL2. The TLBs keep what they have.
    pub(super) fn detach(&mut self) {
        self.root = None;
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.violations.iter().copied().collect()
    }

    pub(super) fn allocated(&self) -> usize {
        self.pages.len()
    }

    /// Returns how many descriptors have been read.
    pub(super) fn read_so_far(&self) -> usize {
        self.reads.get()
    }

    /// Counts pages that are allocated and not part of the tree.
    pub(super) fn leaked(&self) -> usize {
        let mut in_tree = self.root.map_or(0, |(root, _)| self.runs[&root]);
        self.visit(&mut |_, _, seen| in_tree += usize::from(matches!(seen, Seen::Table(_))));
        self.pages.len() - in_tree
    }

    /// Lists what the tree maps, in address order.
    pub(super) fn live(&self) -> Vec<LiveLeaf> {
        let mut found = Vec::new();
        self.visit(&mut |level, base, seen| {
            if let Seen::Leaf(raw) = seen {
                found.push((
                    base,
                    span(level),
                    raw & ADDRESS & !(span(level) - 1),
                    attributes(raw),
                ));
            }
        });
        found
    }

    /// Carries out TLB maintenance; walks go on at once and cache what is there now.
    pub(super) fn invalidate(&mut self, invalidation: Invalidation) {
        if self.unpublished {
            self.violations.insert(Violation::Unpublished);
        }
        match invalidation {
            Invalidation::None => {}
            Invalidation::All => {
                self.leaves_cached.clear();
                self.tables_cached.clear();
                self.places.clear();
            }
            Invalidation::Range {
                start,
                len,
                leaf_only,
            } => {
                let (start, end) = (start.get(), start.get() + len);
                self.leaves_cached
                    .retain(|&(base, size), _| base >= end || base + size <= start);
                if !leaf_only {
                    self.tables_cached
                        .retain(|&(level, base), _| base >= end || base + span(level) <= start);
                    self.places.clear();
                    for (&place, &table) in &self.tables_cached {
                        self.places.entry(table).or_default().insert(place);
                    }
                }
            }
        }
        self.walk_all();
    }

    /// Checks, when an operation says that it is over, that no access could hit a stale translation.
    pub(super) fn settle(&mut self) {
        let mut live = BTreeMap::new();
        let mut linked = BTreeMap::new();
        self.visit(&mut |level, base, seen| match seen {
            Seen::Leaf(raw) => drop(live.insert((base, span(level)), raw)),
            Seen::Table(table) => drop(linked.insert((level, base), table)),
            Seen::Nothing => {}
        });
        for (place, cached) in &self.leaves_cached {
            if cached.iter().any(|raw| live.get(place) != Some(raw)) {
                self.violations.insert(Violation::Stale(place.0));
            }
        }
        for (place, table) in &self.tables_cached {
            if linked.get(place) != Some(table) {
                self.violations.insert(Violation::Stale(place.1));
            }
        }
        if self.unpublished {
            self.violations.insert(Violation::Unpublished);
        }
    }

    /// Calls `each` with level, guest address and content of every valid descriptor in the tree.
    fn visit(&self, each: &mut dyn FnMut(u32, u64, Seen)) {
        if let Some((root, level)) = self.root {
            for page in 0..self.runs[&root] as u64 {
                self.visit_table(
                    root + page * PAGE_SIZE,
                    level,
                    page * 512 * span(level),
                    each,
                );
            }
        }
    }

    fn visit_table(&self, page: u64, level: u32, base: u64, each: &mut dyn FnMut(u32, u64, Seen)) {
        for (index, &raw) in self.pages.get(&page).into_iter().flatten().enumerate() {
            let base = base + index as u64 * span(level);
            let seen = see(raw, level);
            if !matches!(seen, Seen::Nothing) {
                each(level, base, seen);
            }
            if let Seen::Table(child) = seen {
                self.visit_table(child, level + 1, base, each);
            }
        }
    }

    fn walk_all(&mut self) {
        let mut found = Vec::new();
        self.visit(&mut |level, base, seen| found.push((level, base, seen)));
        for (level, base, seen) in found {
            self.cache(level, base, seen);
        }
    }

    /// Caches what a walk has found, after checking that it does not contradict what is cached.
    fn cache(&mut self, level: u32, base: u64, seen: Seen) {
        let key = (base, span(level));
        let clash = match seen {
            Seen::Nothing => false,
            Seen::Leaf(raw) => {
                let inside = self.leaves_cached.range((base, 0)..(base + span(level), 0));
                let around = (1..level).map(|at| (base & !(span(at) - 1), span(at)));
                let other =
                    |raws: &BTreeSet<u64>| raws.iter().any(|old| (old ^ raw) & !PERMISSIONS != 0);
                let clash = inside
                    .into_iter()
                    .any(|(at, raws)| *at != key || other(raws))
                    || around
                        .into_iter()
                        .any(|at| self.leaves_cached.contains_key(&at))
                    || self.tables_cached.contains_key(&(level, base));
                self.leaves_cached.entry(key).or_default().insert(raw);
                clash
            }
            Seen::Table(table) => {
                let old = self.tables_cached.insert((level, base), table);
                self.places.entry(table).or_default().insert((level, base));
                self.leaves_cached.contains_key(&key) || old.is_some_and(|old| old != table)
            }
        };
        if clash {
            self.violations.insert(Violation::BreakBeforeMake(base));
        }
    }

    /// Returns level and first guest address of a page, for each way in which a walk can come to it.
    fn ways_to(&self, page: u64) -> Vec<(u32, u64)> {
        let cached = self.places.get(&page).into_iter().flatten();
        let mut ways: Vec<_> = cached.map(|&(level, base)| (level + 1, base)).collect();
        if let Some((root, level)) = self.root
            && (root..root + self.runs[&root] as u64 * PAGE_SIZE).contains(&page)
        {
            ways.push((level, (page - root) / PAGE_SIZE * 512 * span(level)));
        }
        ways
    }

    fn observe(&mut self, level: u32, base: u64, raw: u64) {
        let seen = see(raw, level);
        self.cache(level, base, seen);
        if let Seen::Table(table) = seen {
            let mut below = Vec::new();
            self.visit_table(table, level + 1, base, &mut |level, base, seen| {
                below.push((level, base, seen))
            });
            for (level, base, seen) in below {
                self.cache(level, base, seen);
            }
        }
    }
}

impl TableMemory for Fake {
    fn allocate(&mut self, pages: usize) -> Option<HostPhys> {
        if self.pages.len() + pages > self.quota {
            return None;
        }
        let first = self.next.next_multiple_of(pages as u64 * PAGE_SIZE);
        self.next = first + pages as u64 * PAGE_SIZE;
        for page in (first..self.next).step_by(PAGE_SIZE as usize) {
            self.pages.insert(page, std::vec![0; ENTRIES_PER_TABLE]);
        }
        self.runs.insert(first, pages);
        Some(HostPhys::new(first))
    }

    fn free(&mut self, table: HostPhys, pages: usize) {
        let first = table.get();
        if self.runs.get(&first) != Some(&pages) {
            self.violations.insert(Violation::NotAllocated(first));
            return;
        }
        for page in (first..).step_by(PAGE_SIZE as usize).take(pages) {
            if !self.ways_to(page).is_empty() {
                self.violations.insert(Violation::FreedReachable(page));
            }
        }
        self.runs.remove(&first);
        for page in (first..).step_by(PAGE_SIZE as usize).take(pages) {
            self.pages.remove(&page);
        }
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.pages[&table.get()][index]
    }

    fn write(&mut self, table: HostPhys, index: usize, descriptor: u64) {
        let Some(page) = self.pages.get_mut(&table.get()) else {
            self.violations.insert(Violation::NotAllocated(table.get()));
            return;
        };
        page[index] = descriptor;
        // What no walk can reach needs no barrier before the link to it, which is a release store.
        for (level, base) in self.ways_to(table.get()) {
            self.unpublished = true;
            self.observe(level, base + index as u64 * span(level), descriptor);
        }
    }

    fn publish(&mut self) {
        self.unpublished = false;
    }
}

/// Returns the guest address as the crate's type.
pub(super) fn guest(address: u64) -> GuestPhys {
    GuestPhys::new(address)
}
