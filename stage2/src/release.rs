//! Giving a VM's tables back, some at a time: those of a large VM have thousands of descriptors, and whatever ends the VM does other
//! work between two looks.

use crate::descriptor::Entry;
use crate::{TableMemory, Tables};

/// Most descriptors that are looked at in one go.
const DESCRIPTORS: usize = 256;
/// Most pages that an unfinished change holds back and that are given back in one go.
const HELD_BACK: usize = 64;
/// Levels of lookup.
const LEVELS: usize = 4;

impl Tables {
    /// Gives some of the pages back, after a look at no more than a few hundred descriptors. Returns the rest of the tables, or `None`
    /// once every page is given back, the root and those that an unfinished change holds back included.
    ///
    /// The caller has seen to it that no CPU walks these tables any more: none has the root in VTTBR_EL2, and the
    /// VMID has been invalidated ([`crate::Invalidation::All`]). What is left is good for nothing but to be given back too.
    #[must_use = "the rest of the tables has to be given back too"]
    pub fn free_some<M: TableMemory + ?Sized>(mut self, memory: &mut M) -> Option<Self> {
        if let Some(held) = &mut self.in_flight {
            for _ in 0..HELD_BACK {
                let Some(page) = held.retired.pop(memory) else {
                    self.in_flight = None;
                    break;
                };
                memory.free(page, 1);
            }
            return Some(self);
        }
        let first = self.space().start_level();
        // The table of each level on the way to the first descriptor that is left.
        let mut way = [self.root(); LEVELS];
        let mut level = first;
        for _ in 0..DESCRIPTORS {
            if self.freed >= self.space().size() {
                memory.free(self.root(), self.space().root_pages());
                return None;
            }
            match self.entry(memory, way[level as usize], level, self.freed) {
                Entry::Table(table) => match level.next() {
                    // What is below may be tables as well.
                    Some(below) if below.next().is_some() => {
                        way[below as usize] = table;
                        level = below;
                        continue;
                    }
                    _ => memory.free(table, 1),
                },
                Entry::Empty | Entry::Leaf(_) => {}
            }
            self.freed += level.span();
            // Tables that end here have been gone through.
            while let Some(above) = level.above()
                && level != first
                && self.freed.is_multiple_of(above.span())
            {
                memory.free(way[level as usize], 1);
                level = above;
            }
        }
        Some(self)
    }
}
