//! Gives out the addresses that firmware's blobs go to, and passes the blobs on.

use alloc::vec::Vec;

use types::address::GuestPhys;

use super::{Blob, Error};
use types::layout::Region;

/// A range that is filled from the bottom up.
pub(super) struct Writer<'a> {
    base: u64,
    next: u64,
    limit: u64,
    emit: &'a mut dyn FnMut(Blob) -> Result<(), Error>,
}

impl<'a> Writer<'a> {
    /// Goes on at `next` in `region`; blobs go to `emit` as they are made.
    pub(super) fn new(
        region: Region,
        next: u64,
        emit: &'a mut dyn FnMut(Blob) -> Result<(), Error>,
    ) -> Self {
        let base = region.base.get();
        Self {
            base,
            next,
            limit: base.saturating_add(region.size),
            emit,
        }
    }

    /// Returns where the next blob may begin.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Sets `size` bytes aside for a blob whose contents are not known yet, and returns their address.
    pub(super) fn reserve(&mut self, size: u64, alignment: u64) -> Result<u64, Error> {
        let start = self
            .next
            .checked_next_multiple_of(alignment)
            .unwrap_or(u64::MAX);
        let end = start.saturating_add(size);
        if end > self.limit {
            return Err(Error::TooBig {
                size: end.saturating_sub(self.base),
            });
        }
        self.next = end;
        Ok(start)
    }

    /// Passes on a blob that belongs at an address set aside before.
    pub(super) fn put(&mut self, at: u64, bytes: Vec<u8>, what: &'static str) -> Result<(), Error> {
        (self.emit)(Blob {
            address: GuestPhys::new(at),
            bytes,
            what,
        })
    }

    /// Passes on a blob at the next free address, and returns that.
    pub(super) fn add(
        &mut self,
        bytes: Vec<u8>,
        alignment: u64,
        what: &'static str,
    ) -> Result<u64, Error> {
        let address = self.reserve(bytes.len() as u64, alignment)?;
        self.put(address, bytes, what)?;
        Ok(address)
    }
}
