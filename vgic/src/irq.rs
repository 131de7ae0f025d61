//! Interrupt numbers of a guest: SGI, PPI and SPI (IHI0069 section 2.2.1).
//!
//! LPIs are not offered, so every valid number fits in ten bits.

use types::bits::{BitSet, Numbered};

/// Number of private (SGI and PPI) INTIDs of each vCPU.
pub const PRIVATE_COUNT: u32 = 32;
/// First SPI.
pub const SPI_BASE: u32 = 32;
/// One above the last SPI; 1020 to 1023 are special.
pub(crate) const SPI_END: u32 = 1020;
/// Largest number of SPIs a machine may have: 32 to 991, a whole number of 32-bit register words.
pub const SPI_MAX: u16 = 960;

/// A valid INTID: SGI 0 to 15, PPI 16 to 31, SPI 32 to 1019.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(u16);

impl IntId {
    /// Returns the INTID `id`, or `None` when it is special, extended or an LPI.
    #[must_use]
    #[inline]
    pub const fn new(id: u32) -> Option<Self> {
        if id < SPI_END {
            Some(Self(id as u16))
        } else {
            None
        }
    }

    /// Returns the SGI or PPI whose number is the low five bits of `id`.
    #[must_use]
    #[inline]
    pub const fn private(id: u32) -> Self {
        Self((id & (PRIVATE_COUNT - 1)) as u16)
    }

    /// Returns the SPI with index `index` (INTID minus 32), or `None` above the last one.
    #[must_use]
    #[inline]
    pub const fn spi(index: u16) -> Option<Self> {
        Self::new(SPI_BASE.wrapping_add(index as u32))
    }

    /// Returns the number as the guest writes it.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// Tells whether the interrupt belongs to one vCPU (SGI or PPI).
    #[must_use]
    #[inline]
    pub const fn is_private(self) -> bool {
        self.get() < PRIVATE_COUNT
    }

    /// Returns the bit of a private INTID in a 32-bit register; of an SPI, its bit in its own word.
    #[must_use]
    #[inline]
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }

    /// Returns the index of an SPI (INTID minus 32), `None` for a private interrupt.
    #[must_use]
    #[inline]
    pub const fn spi_index(self) -> Option<u16> {
        self.0.checked_sub(SPI_BASE as u16)
    }
}

impl Numbered for IntId {
    /// Returns the index of an SPI; a private interrupt is in no set.
    #[inline]
    fn number(self) -> usize {
        self.spi_index().map_or(usize::MAX, usize::from)
    }

    #[inline]
    fn from_number(number: usize) -> Option<Self> {
        Self::spi(u16::try_from(number).ok()?)
    }
}

/// A set of SPIs.
pub(crate) type SpiSet = BitSet<IntId, { SPI_MAX as usize / 64 }>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_intid_ranges() {
        for (id, private, spi) in [
            (0, true, None),
            (15, true, None),
            (31, true, None),
            (32, false, Some(0)),
            (1019, false, Some(987)),
        ] {
            let int = IntId::new(id).unwrap();
            assert_eq!(
                (int.get(), int.is_private(), int.spi_index()),
                (id, private, spi)
            );
        }
        for id in [1020, 1023, 1024, 8192, u32::MAX] {
            assert_eq!(IntId::new(id), None);
        }
        assert_eq!(IntId::spi(0), IntId::new(32));
        assert_eq!(IntId::spi(988), None);
        assert_eq!(IntId::new(33).unwrap().bit(), 2);
    }
}
