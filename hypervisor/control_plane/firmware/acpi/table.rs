//! A table under construction: the header every ACPI table has, and a body that is appended to (ACPI 6.5, 5.2.6).

use alloc::vec::Vec;

use acpi_tables::AmlSink;
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

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
    pub(super) fn finish_with(self, length: u32, rest: u8) -> Vec<u8> {
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

/// Adds all bytes, eight in a row.
pub(super) fn sum(bytes: &[u8]) -> u8 {
    let (eights, rest) = bytes.as_chunks();
    let add = |sum: u8, byte: &u8| sum.wrapping_add(*byte);
    let sum = rest.iter().fold(0, add);
    eights.iter().fold(sum, |sum, [a, b, c, d, e, f, g, h]| {
        let low = add(add(add(add(sum, a), b), c), d);
        add(add(add(add(low, e), f), g), h)
    })
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
