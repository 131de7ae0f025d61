//! One VM's tables: making them, mapping, looking up, and giving everything back.
//!
//! Mapping only ever turns invalid descriptors into valid ones, so it needs no TLB maintenance. What does is in
//! `change`. Every operation first looks, then reserves the tables it will take, then writes: when it is refused,
//! nothing has happened.

use crate::chain::Chain;
use crate::change::HeldBack;
use crate::descriptor::{Entry, Leaf};
use crate::level::{Level, Slot};
use crate::quota::tables_below;
use crate::{AddressSpace, Attributes, ENTRIES_PER_TABLE, Error, TableMemory, descriptor};
use types::address::{GuestPhys, HostPhys};

/// A run of guest memory and the host memory behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First guest address.
    pub guest: GuestPhys,
    /// First host address. Blocks need it aligned like `guest`, up to the block's size.
    pub host: HostPhys,
    /// Bytes, a multiple of 4 KiB.
    pub len: u64,
}

/// Most descriptors that map a part of a mapping.
const LEAVES_A_PART: u64 = 64;

impl Mapping {
    /// Splits off a beginning that a few blocks or pages of one size map; returns it, and the rest if there is one.
    ///
    /// [`Tables::map`] makes the same of the parts, one after the other, as of the whole, and does so in pieces.
    #[must_use]
    pub fn split(self) -> (Self, Option<Self>) {
        let (guest, delta) = (
            self.guest.get(),
            self.host.get().wrapping_sub(self.guest.get()),
        );
        let mut most = self.len;
        for level in [Level::One, Level::Two, Level::Three] {
            let span = level.span();
            if delta & (span - 1) != 0 {
                continue;
            }
            let beyond = guest & (span - 1);
            if beyond == 0 && most >= span {
                most = (most & !(span - 1)).min(LEAVES_A_PART * span);
                break;
            }
            // Larger blocks may begin at the next multiple.
            most = most.min(span - beyond);
        }
        let rest = |len| {
            Some(Self {
                guest: self.guest.checked_add(most)?,
                host: self.host.checked_add(most)?,
                len,
            })
        };
        let left = self.len - most;
        let rest = (left != 0).then(|| rest(left)).flatten();
        (Self { len: most, ..self }, rest)
    }
}

/// What a guest address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The host address of the very byte asked for.
    pub host: HostPhys,
    /// Memory type and permissions.
    pub attributes: Attributes,
    /// Bytes of the block or page around it: 1 GiB, 2 MiB or 4 KiB.
    pub block_bytes: u64,
}

/// The stage-2 tables of one VM.
///
/// Holds no memory itself: every method is given the same [`TableMemory`], which outlives the tables. To be ended by
/// [`Tables::free_some`]; dropping it leaks the pages from the VM's quota.
#[derive(Debug)]
#[must_use = "dropping tables leaks their pages; end them by free_some"]
pub struct Tables {
    space: AddressSpace,
    root: HostPhys,
    /// What a change that has begun holds back until it is finished.
    pub(crate) in_flight: Option<HeldBack>,
    /// The guest address below which no tables are left, while they are being given back.
    pub(crate) freed: u64,
}

impl Tables {
    /// Makes tables that map nothing.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] if there is no room for the root.
    pub fn new<M: TableMemory + ?Sized>(
        space: AddressSpace,
        memory: &mut M,
    ) -> Result<Self, Error> {
        let root = memory
            .allocate(space.root_pages())
            .ok_or(Error::OutOfTables)?;
        memory.publish();
        Ok(Self {
            space,
            root,
            in_flight: None,
            freed: 0,
        })
    }

    /// Returns the root for VTTBR_EL2.BADDR ([`AddressSpace::vttbr`]).
    #[must_use]
    pub const fn root(&self) -> HostPhys {
        self.root
    }

    /// Returns the address space, which knows VTCR_EL2.
    #[must_use]
    pub const fn space(&self) -> AddressSpace {
        self.space
    }

    /// Maps guest memory in the largest blocks that fit. No TLB maintenance is needed.
    ///
    /// # Errors
    /// [`Error::Overlap`] if any of it is mapped already, [`Error::OutOfTables`], [`Error::ChangeInProgress`], or what
    /// is wrong with the ranges. Nothing has changed then.
    pub fn map<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        mapping: Mapping,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let (start, end) = self.check_change(mapping.guest, mapping.len)?;
        if !mapping.host.is_aligned(crate::PAGE_SIZE) {
            return Err(Error::Misaligned);
        }
        match mapping.host.checked_add(mapping.len) {
            Some(end) if end.get() <= self.space.physical_size() => {}
            _ => return Err(Error::OutsideHostSpace),
        }
        let fill = Fill {
            delta: mapping.host.get().wrapping_sub(mapping.guest.get()),
            attributes,
        };
        let count = self.count_missing(
            memory,
            self.root,
            self.space.start_level(),
            (start, end),
            &fill,
        )?;
        let mut spare = Chain::reserve(memory, count)?;
        self.fill(
            memory,
            &mut spare,
            self.root,
            self.space.start_level(),
            (start, end),
            &fill,
        );
        memory.publish();
        Ok(())
    }

    /// Looks up where `guest` leads, `None` if nowhere.
    ///
    /// Shows a change from its `begin_*` on. When a guest faults on an access that this allows, another CPU has
    /// changed or is changing the tables, and the access is to be retried.
    #[must_use]
    pub fn translate<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        guest: GuestPhys,
    ) -> Option<Translation> {
        let address = guest.get();
        if address >= self.space.size() {
            return None;
        }
        let mut table = self.root;
        let mut level = self.space.start_level();
        loop {
            match self.entry(memory, table, level, address) {
                Entry::Empty => return None,
                Entry::Table(next) => {
                    table = next;
                    level = level.next()?;
                }
                Entry::Leaf(leaf) => {
                    let offset = address & (level.span() - 1);
                    return Some(Translation {
                        host: HostPhys::new(leaf.host().get() | offset),
                        attributes: leaf.attributes(),
                        block_bytes: level.span(),
                    });
                }
            }
        }
    }

    /// Checks a range that an operation is to change and returns it as start and end.
    pub(crate) fn check_change(&self, guest: GuestPhys, len: u64) -> Result<(u64, u64), Error> {
        if len == 0 || !guest.is_aligned(crate::PAGE_SIZE) || !len.is_multiple_of(crate::PAGE_SIZE)
        {
            return Err(Error::Misaligned);
        }
        match guest.checked_add(len) {
            Some(end) if end.get() <= self.space.size() => {}
            _ => return Err(Error::OutsideGuestSpace),
        }
        if self.in_flight.is_some() {
            return Err(Error::ChangeInProgress);
        }
        Ok((guest.get(), guest.get() + len))
    }

    /// Returns the page and index of the descriptor for `address` in the table of `level`; the root may be several
    /// pages, which count as one long table.
    #[inline]
    pub(crate) fn locate(&self, table: HostPhys, level: Level, address: u64) -> (HostPhys, usize) {
        let slot = (address >> level.shift()) as usize;
        let index = slot % ENTRIES_PER_TABLE;
        if level > self.space.start_level() {
            return (table, index);
        }
        let page = (slot / ENTRIES_PER_TABLE) as u64;
        (HostPhys::new(table.get() + page * crate::PAGE_SIZE), index)
    }

    /// Reads the descriptor for `address` in the table of `level`.
    #[inline]
    pub(crate) fn entry<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        table: HostPhys,
        level: Level,
        address: u64,
    ) -> Entry {
        let (page, index) = self.locate(table, level, address);
        Entry::decode(memory.read(page, index), level)
    }

    /// Writes the descriptor for `address` in the table of `level`.
    pub(crate) fn set<M: TableMemory + ?Sized>(
        &self,
        memory: &mut M,
        table: HostPhys,
        level: Level,
        address: u64,
        descriptor: u64,
    ) {
        let (page, index) = self.locate(table, level, address);
        memory.write(page, index, descriptor);
    }

    /// Counts the tables that [`Tables::fill`] will take, and finds what is in its way.
    fn count_missing<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        table: HostPhys,
        level: Level,
        (start, end): (u64, u64),
        fill: &Fill,
    ) -> Result<usize, Error> {
        let mut count = 0;
        for slot in level.slots(start, end) {
            count += match (self.entry(memory, table, level, slot.base), level.next()) {
                (Entry::Empty, _) => tables_below(level, slot.start, slot.end, fill.delta),
                (Entry::Table(child), Some(next)) => {
                    self.count_missing(memory, child, next, (slot.start, slot.end), fill)?
                }
                _ => return Err(Error::Overlap(GuestPhys::new(slot.start))),
            };
        }
        Ok(count)
    }

    /// Writes the mapping. A new table is linked when it is complete.
    fn fill<M: TableMemory + ?Sized>(
        &self,
        memory: &mut M,
        spare: &mut Chain,
        table: HostPhys,
        level: Level,
        (start, end): (u64, u64),
        fill: &Fill,
    ) {
        for slot in level.slots(start, end) {
            if let Some(leaf) = fill.leaf(level, &slot) {
                self.set(memory, table, level, slot.base, leaf.raw());
                continue;
            }
            let next = level.next().expect("a page always fits");
            if let Entry::Table(child) = self.entry(memory, table, level, slot.base) {
                self.fill(memory, spare, child, next, (slot.start, slot.end), fill);
            } else {
                let child = spare
                    .pop(memory)
                    .expect("count_missing has counted this table");
                self.fill(memory, spare, child, next, (slot.start, slot.end), fill);
                self.set(memory, table, level, slot.base, descriptor::table(child));
            }
        }
    }
}

/// What to fill a range with: guest address plus `delta` is the host address.
struct Fill {
    delta: u64,
    attributes: Attributes,
}

impl Fill {
    /// Returns the block or page that fills the slot, if one can.
    fn leaf(&self, level: Level, slot: &Slot) -> Option<Leaf> {
        let aligned = self.delta & (slot.span - 1) == 0;
        if !level.has_leaves() || !slot.is_whole() || !aligned {
            return None;
        }
        let host = HostPhys::new(slot.base.wrapping_add(self.delta));
        Some(Leaf::new(level, host, self.attributes))
    }
}

/// Puts an unlinked table of `level` and all tables below it on the list.
pub(crate) fn retire<M: TableMemory + ?Sized>(
    memory: &mut M,
    retired: &mut Chain,
    table: HostPhys,
    level: Option<Level>,
) {
    if let Some(level) = level
        && level.next().is_some()
    {
        for index in 0..ENTRIES_PER_TABLE {
            if let Entry::Table(child) = Entry::decode(memory.read(table, index), level) {
                retire(memory, retired, child, level.next());
            }
        }
    }
    retired.push(memory, table);
}
