//! A table under construction: the header every ACPI table has, and a body that is appended to (ACPI 6.5, 5.2.6).
//!
//! A table that grows with the machine is written in pieces, and its header last: the checksum there covers all.

use alloc::vec::Vec;

use acpi_tables::AmlSink;
use acpi_tables::sdt::Sdt;

use super::super::Error;
use super::super::writer::Writer;
use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, TABLE_ALIGNMENT};

/// Length of the header.
pub(super) const HEADER_SIZE: usize = 36;
/// Offsets of the two header fields that depend on the body.
const LENGTH: core::ops::Range<usize> = 4..8;
const CHECKSUM: usize = 9;

/// A table whose length and checksum are still open.
pub(super) struct Table(Vec<u8>);

impl Table {
    /// Begins a table, with room for `body` bytes after the header.
    pub(super) fn new(signature: [u8; 4], revision: u8, body: usize) -> Self {
        let header = Sdt::new(
            signature,
            HEADER_SIZE as u32,
            revision,
            OEM_ID,
            OEM_TABLE_ID,
            OEM_REVISION,
        );
        let mut bytes = Vec::with_capacity(HEADER_SIZE + body);
        bytes.extend_from_slice(header.as_slice());
        Self(bytes)
    }

    /// Fills in length and checksum, and returns the finished bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.finish_with(length, 0)
    }

    /// Fills in the length of the whole table and its checksum, of which bytes that are elsewhere have the sum `rest`.
    fn finish_with(self, length: u32, rest: u8) -> Vec<u8> {
        let Self(mut bytes) = self;
        if let Some(field) = bytes.get_mut(LENGTH) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        let sum = sum(&bytes).wrapping_add(rest);
        if let Some(field) = bytes.get_mut(CHECKSUM) {
            *field = field.wrapping_sub(sum);
        }
        bytes
    }
}

/// Adds all bytes, eight at once: as four pairs, whose sum comes to stand in the topmost 16 bits of a product.
fn sum(bytes: &[u8]) -> u8 {
    const LOW_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    const ONES: u64 = 0x0001_0001_0001_0001;
    let (eights, rest) = bytes.as_chunks();
    let sum = rest.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    eights.iter().fold(sum, |sum, eight| {
        let word = u64::from_le_bytes(*eight);
        let pairs = (word & LOW_BYTES) + (word >> 8 & LOW_BYTES);
        sum.wrapping_add((pairs.wrapping_mul(ONES) >> 48) as u8)
    })
}

/// A table that is written piece by piece, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    name: &'static str,
    revision: u8,
    at: u64,
    /// The length and the sum of all bytes so far.
    length: u32,
    sum: u8,
}

impl Pieces {
    /// Sets room aside for the header of a table; its name is its signature.
    pub(super) fn begin(
        name: &'static str,
        revision: u8,
        writer: &mut Writer<'_>,
    ) -> Result<Self, Error> {
        Ok(Self {
            name,
            revision,
            at: writer.reserve(HEADER_SIZE as u64, TABLE_ALIGNMENT)?,
            length: HEADER_SIZE as u32,
            sum: 0,
        })
    }

    /// Writes the next piece of the body; nothing else has been written since the last.
    pub(super) fn add(&mut self, piece: Vec<u8>, writer: &mut Writer<'_>) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        self.length = self.length.saturating_add(piece.len() as u32);
        self.sum = self.sum.wrapping_add(sum(&piece));
        writer.add(piece, 1, self.name)?;
        Ok(())
    }

    /// Writes the header, and returns where the table is.
    pub(super) fn finish(&self, writer: &mut Writer<'_>) -> Result<u64, Error> {
        let signature = self.name.as_bytes().first_chunk().copied();
        let signature = signature.ok_or(Error::Internal(self.name))?;
        let header = Table::new(signature, self.revision, 0).finish_with(self.length, self.sum);
        writer.put(self.at, header, self.name)?;
        Ok(self.at)
    }
}

impl AmlSink for Table {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn vec(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::sum;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        /// Eight bytes at a time come to what one at a time do.
        #[test]
        fn bytes_are_added(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes: Vec<u8> = bytes;
            let expected = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            prop_assert_eq!(sum(&bytes), expected);
        }
    }
}
