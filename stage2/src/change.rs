//! Unmapping and protecting, in two phases with the TLB maintenance between them.
//!
//! `begin_*` takes translations away and returns a [`Pending`] with the [`Invalidation`] they need. The caller
//! carries that out, with no lock held if it likes, and hands the token to [`Tables::finish`], which alone
//! writes the entries that break-before-make holds back and frees the tables that walks might have cached
//! (Arm ARM D8.16; FEAT_BBM level 0 is assumed). Two phases instead of a call-back: the maintenance stays a value that
//! `vmm::cpu` acts on, and since only `finish` frees, a lost token costs pages but never frees a table under a walk.
//!
//! Only a block that is split is broken and made. An unmapped slot needs no making, and a change of permissions
//! alone needs no breaking (D8.16, "Using break-before-make").

use crate::chain::Chain;
use crate::descriptor::{Entry, Leaf};
use crate::level::{Level, Slot};
use crate::quota::tables_below;
use crate::tables::retire;
use crate::{Access, ENTRIES_PER_TABLE, Error, Invalidation, TableMemory, Tables, descriptor};
use types::address::{GuestPhys, HostPhys};

/// The blocks that one change splits at most: one at either end of its range.
const MAX_SPLITS: usize = 2;

/// A change that is done but for TLB maintenance: the right to finish it.
///
/// Until [`Tables::finish`] the tables refuse other changes, and accesses next to the range may fault when a
/// block was split; they succeed when retried afterwards. A lost token leaves the tables at that for good.
#[derive(Debug)]
#[must_use = "carry out the invalidation, then give it to Tables::finish"]
pub struct Pending {
    root: HostPhys,
    invalidation: Invalidation,
}

/// What must wait for the TLB maintenance of a change.
#[derive(Debug)]
pub(crate) struct HeldBack {
    /// Tables out of use that walks may have cached.
    pub(crate) retired: Chain,
    splits: [Option<Split>; MAX_SPLITS],
}

/// A slot whose block is gone and whose table waits to be linked.
#[derive(Clone, Copy, Debug)]
struct Split {
    page: HostPhys,
    index: usize,
    child: HostPhys,
}

/// What a change does to each leaf in its range.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Unmap,
    Protect(Access),
}

impl Edit {
    /// Returns the descriptor that takes the place of `leaf`.
    fn apply(self, leaf: Leaf) -> u64 {
        match self {
            Self::Unmap => 0,
            Self::Protect(access) => leaf.with_access(access).raw(),
        }
    }

    /// Returns whether all tables below a slot go with its content.
    fn drops_tables(self) -> bool {
        matches!(self, Self::Unmap)
    }
}

impl Pending {
    /// Returns the TLB maintenance to carry out before [`Tables::finish`].
    pub fn invalidation(&self) -> Invalidation {
        self.invalidation
    }
}

impl Tables {
    /// Begins to unmap `len` bytes from `guest`; what is not mapped there is passed over. The range is gone from
    /// [`Tables::translate`] at once, and from the guest when the invalidation has been carried out.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] if a block would have to be split, [`Error::ChangeInProgress`], or what is wrong with
    /// the range. Nothing has changed then.
    pub fn begin_unmap<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        guest: GuestPhys,
        len: u64,
    ) -> Result<Pending, Error> {
        let range = self.check_change(guest, len)?;
        self.begin(memory, range, Edit::Unmap)
    }

    /// Begins to change the permissions of `len` bytes from `guest`; the memory type stays.
    ///
    /// # Errors
    /// [`Error::NotMapped`] if any of it is not mapped, and the errors of [`Tables::begin_unmap`]. Nothing has changed
    /// then.
    pub fn begin_protect<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        guest: GuestPhys,
        len: u64,
        access: Access,
    ) -> Result<Pending, Error> {
        let range = self.check_change(guest, len)?;
        self.check_mapped(memory, range)?;
        self.begin(memory, range, Edit::Protect(access))
    }

    /// Ends a change after its invalidation has been carried out: links the tables of split blocks and frees the
    /// tables that are out of use.
    ///
    /// # Panics
    /// If the change was begun on other tables: a bug of ours.
    pub fn finish<M: TableMemory + ?Sized>(&mut self, memory: &mut M, pending: Pending) {
        assert!(pending.root == self.root(), "change of other tables");
        let held_back = self
            .in_flight
            .take()
            .expect("a token stands for a change in flight");
        for split in held_back.splits.into_iter().flatten() {
            memory.write(split.page, split.index, descriptor::table(split.child));
        }
        held_back.retired.free(memory);
        memory.publish();
    }

    fn begin<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        range: (u64, u64),
        edit: Edit,
    ) -> Result<Pending, Error> {
        let count = self.count_splits(memory, range, edit);
        let mut spare = Chain::reserve(memory, count)?;
        let mut change = Change {
            tables: self,
            memory,
            edit,
            spare: &mut spare,
            held_back: HeldBack {
                retired: Chain::new(),
                splits: [None; MAX_SPLITS],
            },
            invalidation: Invalidation::None,
        };
        change.walk(self.root(), self.space().start_level(), range);
        let Change {
            held_back,
            invalidation,
            ..
        } = change;
        memory.publish();
        self.in_flight = Some(held_back);
        Ok(Pending {
            root: self.root(),
            invalidation,
        })
    }

    /// Counts the tables that splitting takes. Only the leaves at the two ends of the range can be covered in part.
    fn count_splits<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        (start, end): (u64, u64),
        edit: Edit,
    ) -> usize {
        let mut count = 0;
        let mut seen = None;
        for at in [start, end - 1] {
            let Some((level, base, leaf)) = self.find_leaf(memory, at) else {
                continue;
            };
            if seen != Some(base) && edit.apply(leaf) != leaf.raw() {
                let slot_end = base + level.span();
                count += tables_below(level, start.max(base), end.min(slot_end), 0);
            }
            seen = Some(base);
        }
        count
    }

    /// Finds the leaf that maps `address`: its level, first guest address and descriptor.
    fn find_leaf<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        address: u64,
    ) -> Option<(Level, u64, Leaf)> {
        let mut table = self.root();
        let mut level = self.space().start_level();
        loop {
            match self.entry(memory, table, level, address) {
                Entry::Empty => return None,
                Entry::Leaf(leaf) => return Some((level, address & !(level.span() - 1), leaf)),
                Entry::Table(next) => {
                    table = next;
                    level = level.next()?;
                }
            }
        }
    }

    fn check_mapped<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        (start, end): (u64, u64),
    ) -> Result<(), Error> {
        let mut at = start;
        while at < end {
            let Some((level, base, _)) = self.find_leaf(memory, at) else {
                return Err(Error::NotMapped(GuestPhys::new(at)));
            };
            at = base + level.span();
        }
        Ok(())
    }
}

/// A walk that edits a range; what it needs has been reserved, so it cannot fail.
struct Change<'a, M: ?Sized> {
    tables: &'a Tables,
    memory: &'a mut M,
    edit: Edit,
    spare: &'a mut Chain,
    held_back: HeldBack,
    invalidation: Invalidation,
}

impl<M: TableMemory + ?Sized> Change<'_, M> {
    fn walk(&mut self, table: HostPhys, level: Level, (start, end): (u64, u64)) {
        for slot in level.slots(start, end) {
            match self.tables.entry(self.memory, table, level, slot.base) {
                Entry::Empty => {}
                Entry::Leaf(leaf) => self.edit_leaf(table, level, &slot, leaf),
                Entry::Table(child) => self.edit_table(table, level, &slot, child),
            }
        }
    }

    fn edit_table(&mut self, table: HostPhys, level: Level, slot: &Slot, child: HostPhys) {
        let next = level.next().expect("level 3 has no tables");
        if !(self.edit.drops_tables() && slot.is_whole()) {
            self.walk(child, next, (slot.start, slot.end));
            if !self.edit.drops_tables() || !self.is_empty(child) {
                return;
            }
        }
        self.tables.set(self.memory, table, level, slot.base, 0);
        retire(self.memory, &mut self.held_back.retired, child, Some(next));
        // Beside the range the table held nothing, and any address behind it reaches the cached link to it.
        self.invalidate(slot.start, slot.end, false);
    }

    fn edit_leaf(&mut self, table: HostPhys, level: Level, slot: &Slot, leaf: Leaf) {
        let edited = self.edit.apply(leaf);
        if edited == leaf.raw() {
            return;
        }
        self.invalidate(slot.base, slot.base + slot.span, true);
        if slot.is_whole() {
            self.tables
                .set(self.memory, table, level, slot.base, edited);
            return;
        }
        let child = self.split(level, slot, leaf);
        let (page, index) = self.tables.locate(table, level, slot.base);
        self.memory
            .write(page, index, descriptor::staged_table(child));
        self.hold_back(Split { page, index, child });
    }

    /// Builds the table that replaces `leaf`, the edit applied to the part of it that is in range.
    fn split(&mut self, level: Level, slot: &Slot, leaf: Leaf) -> HostPhys {
        let next = level.next().expect("a page is never covered in part");
        let table = self
            .spare
            .pop(self.memory)
            .expect("count_splits has counted this table");
        for part in next.slots(slot.base, slot.base + slot.span) {
            let host = HostPhys::new(leaf.host().get() + (part.base - slot.base));
            let piece = Leaf::new(next, host, leaf.attributes());
            let inner = Slot {
                start: part.start.max(slot.start),
                end: part.end.min(slot.end),
                ..part
            };
            let content = if inner.start >= inner.end {
                piece.raw()
            } else if inner.is_whole() {
                self.edit.apply(piece)
            } else {
                descriptor::table(self.split(next, &inner, piece))
            };
            self.tables
                .set(self.memory, table, next, part.base, content);
        }
        table
    }

    fn invalidate(&mut self, start: u64, end: u64, leaf_only: bool) {
        let one = Invalidation::range(GuestPhys::new(start), end - start, leaf_only);
        self.invalidation = self.invalidation.merge(one);
    }

    fn hold_back(&mut self, split: Split) {
        let free = self
            .held_back
            .splits
            .iter_mut()
            .find(|place| place.is_none());
        *free.expect("a range has two ends") = Some(split);
    }

    fn is_empty(&self, table: HostPhys) -> bool {
        (0..ENTRIES_PER_TABLE).all(|index| self.memory.read(table, index) == 0)
    }
}
