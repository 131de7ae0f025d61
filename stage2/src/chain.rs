//! A list of pages that are in no tree, linked through their own first descriptor.
//!
//! Without an allocator this holds both the pages reserved before an operation, so that it cannot fail halfway,
//! and the pages retired by one, until the TLBs have forgotten them. A link is an invalid descriptor: a walk that
//! still reaches a retired page through a walk cache faults on it and goes nowhere else.

use crate::descriptor::{staged_table, staged_target};
use crate::{Error, TableMemory};
use types::address::HostPhys;

/// The descriptor that carries the link.
const LINK: usize = 0;

/// A list of single pages; to be emptied by [`Chain::pop`] (reserved are exactly as many as will be taken) or
/// [`Chain::free`].
#[derive(Debug)]
pub(crate) struct Chain {
    head: Option<HostPhys>,
}

impl Chain {
    /// Makes an empty list.
    pub(crate) const fn new() -> Self {
        Self { head: None }
    }

    /// Allocates `count` pages, or none at all.
    pub(crate) fn reserve<M: TableMemory + ?Sized>(
        memory: &mut M,
        count: usize,
    ) -> Result<Self, Error> {
        let mut chain = Self::new();
        for _ in 0..count {
            match memory.allocate(1) {
                Some(page) => chain.push(memory, page),
                None => {
                    chain.free(memory);
                    return Err(Error::OutOfTables);
                }
            }
        }
        Ok(chain)
    }

    /// Adds a page, overwriting its first descriptor.
    pub(crate) fn push<M: TableMemory + ?Sized>(&mut self, memory: &mut M, page: HostPhys) {
        memory.write(page, LINK, self.head.map_or(0, staged_table));
        self.head = Some(page);
    }

    /// Takes a page out, its first descriptor zero.
    pub(crate) fn pop<M: TableMemory + ?Sized>(&mut self, memory: &mut M) -> Option<HostPhys> {
        let page = self.head?;
        self.head = staged_target(memory.read(page, LINK));
        memory.write(page, LINK, 0);
        Some(page)
    }

    /// Gives all pages back.
    pub(crate) fn free<M: TableMemory + ?Sized>(mut self, memory: &mut M) {
        while let Some(page) = self.pop(memory) {
            memory.free(page, 1);
        }
    }
}
