//! A byte queue of the depth that the PL011's FIFOs have.

use super::spec::FIFO_DEPTH;

const INDEX_MASK: usize = FIFO_DEPTH - 1;
const _: () = assert!(FIFO_DEPTH.is_power_of_two());

/// First in, first out; at most [`FIFO_DEPTH`] bytes.
#[derive(Debug)]
pub(super) struct Fifo {
    bytes: [u8; FIFO_DEPTH],
    head: usize,
    len: usize,
}

impl Fifo {
    pub(super) const EMPTY: Self = Self {
        bytes: [0; FIFO_DEPTH],
        head: 0,
        len: 0,
    };

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends a byte unless all places are taken; the caller refuses bytes at the depth that the guest chose.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        if self.len < FIFO_DEPTH
            && let Some(place) = self
                .bytes
                .get_mut(self.head.wrapping_add(self.len) & INDEX_MASK)
        {
            *place = byte;
            self.len = self.len.wrapping_add(1);
        }
    }

    /// Takes the oldest byte.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<u8> {
        let left = self.len.checked_sub(1)?;
        let byte = self.bytes.get(self.head & INDEX_MASK).copied();
        self.head = self.head.wrapping_add(1) & INDEX_MASK;
        self.len = left;
        byte
    }
}
