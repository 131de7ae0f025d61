//! A set of SPIs, cheap to find empty.

use super::redistributor::{bit, bits};
use crate::IntId;
use crate::irq::SPI_MAX;

const SET_WORDS: usize = SPI_MAX as usize / 32;

/// A set of SPIs with a summary of the words that are not zero.
#[derive(Debug)]
pub(super) struct SpiSet {
    summary: u32,
    words: [u32; SET_WORDS],
}

impl SpiSet {
    pub(super) const EMPTY: Self = Self {
        summary: 0,
        words: [0; SET_WORDS],
    };

    fn word_of(spi: IntId) -> u32 {
        u32::from(spi.spi_index().unwrap_or_default() >> 5)
    }

    pub(super) fn insert(&mut self, spi: IntId) {
        let word = Self::word_of(spi);
        if let Some(bits) = self.words.get_mut(word as usize) {
            *bits |= spi.bit();
            self.summary |= bit(word);
        }
    }

    pub(super) fn remove(&mut self, spi: IntId) {
        let word = Self::word_of(spi);
        if let Some(bits) = self.words.get_mut(word as usize) {
            *bits &= !spi.bit();
            if *bits == 0 {
                self.summary &= !bit(word);
            }
        }
    }

    pub(super) fn contains(&self, spi: IntId) -> bool {
        self.words
            .get(Self::word_of(spi) as usize)
            .is_some_and(|bits| bits & spi.bit() != 0)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Returns the lowest member that has this index or a higher one, counting from the first SPI.
    pub(super) fn first_from(&self, index: u16) -> Option<IntId> {
        let word = u32::from(index >> 5);
        let here = self.words.get(word as usize)? & u32::MAX << (index & 31);
        if here != 0 {
            return spi_at(word, here.trailing_zeros());
        }
        let later = self.summary & !(u32::MAX >> (31 & !word));
        let word = later.trailing_zeros();
        spi_at(word, self.words.get(word as usize)?.trailing_zeros())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = IntId> {
        bits(self.summary).flat_map(|word| {
            let set = self.words.get(word as usize).copied().unwrap_or_default();
            bits(set).filter_map(move |n| spi_at(word, n))
        })
    }
}

/// Returns the SPI of bit `n` in SPI word `word`.
pub(super) fn spi_at(word: u32, n: u32) -> Option<IntId> {
    IntId::spi(((word << 5) | n) as u16)
}
