//! How a vCPU's index and its affinity (MPIDR_EL1, GICR_TYPER, GICD_IROUTER, ICC_SGI1R_EL1) map to each other.
//!
//! Sixteen vCPUs share an Aff1, so that the target list of one SGI register write reaches all of
//! them and range selectors are never needed.

/// vCPUs that share an Aff1: one each for the bits of an SGI target list.
pub const CLUSTER: u16 = 1 << CLUSTER_SHIFT;
const CLUSTER_SHIFT: u32 = 4;
const CLUSTER_MASK: u32 = 0xf;

/// Affinity in the packing of GICR_TYPER\[63:32\]: Aff3 in bits 31:24 down to Aff0 in bits 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(u32);

impl Affinity {
    const AFF1_SHIFT: u32 = 8;
    const AFF3_SHIFT: u32 = 24;
    /// Where [`Self::number`] has the upper half of Aff0.
    const SPARE_SHIFT: u32 = 12;

    /// Returns the affinity of the vCPU `index`.
    #[must_use]
    #[inline]
    pub const fn of_index(index: u16) -> Self {
        let index = index as u32;
        Self((index & CLUSTER_MASK) | ((index >> CLUSTER_SHIFT) << Self::AFF1_SHIFT))
    }

    /// Returns the affinity in MPIDR_EL1 or GICD_IROUTER form (Aff3 in bits 39:32, Aff2 to Aff0 in bits 23:0).
    #[must_use]
    #[inline]
    pub const fn from_mpidr(mpidr: u64) -> Self {
        Self((mpidr as u32 & 0x00ff_ffff) | (((mpidr >> 32) as u32 & 0xff) << Self::AFF3_SHIFT))
    }

    /// Returns the packed bits.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns MPIDR_EL1's and GICD_IROUTER's form.
    #[must_use]
    #[inline]
    pub const fn mpidr(self) -> u64 {
        ((self.0 & 0x00ff_ffff) as u64) | (((self.0 >> Self::AFF3_SHIFT) as u64) << 32)
    }

    /// Returns a number that no other affinity has; of a vCPU's affinity its index, of all others
    /// more than any index.
    ///
    /// Aff0's lower half and Aff1 make up the index; the other bits come above them.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u32 {
        let (aff0, aff1, above) = (self.0 & 0xff, (self.0 >> 8) & 0xff, self.0 & 0xffff_0000);
        above
            | (aff0 >> CLUSTER_SHIFT) << Self::SPARE_SHIFT
            | aff1 << CLUSTER_SHIFT
            | (aff0 & CLUSTER_MASK)
    }

    /// Returns the affinity with this [`Self::number`].
    #[must_use]
    #[inline]
    pub const fn of_number(number: u32) -> Self {
        let (aff1, spare) = (
            (number >> CLUSTER_SHIFT) & 0xff,
            (number >> Self::SPARE_SHIFT) & 0xf,
        );
        let aff0 = (number & CLUSTER_MASK) | spare << CLUSTER_SHIFT;
        Self(number & 0xffff_0000 | aff1 << Self::AFF1_SHIFT | aff0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_maps_there_and_back() {
        for index in 0..512 {
            let affinity = Affinity::of_index(index);
            assert_eq!(affinity.number(), u32::from(index));
            assert_eq!(Affinity::of_number(u32::from(index)), affinity);
            assert_eq!(Affinity::from_mpidr(affinity.mpidr()), affinity);
        }
        assert_eq!(Affinity::of_index(37).mpidr(), 0x205);
    }

    #[test]
    fn unknown_affinities_are_no_index() {
        for mpidr in [0x10, 0xff, 0x1_0000, 0x1_0000_0000, 0xff_00ff_ffff] {
            let number = Affinity::from_mpidr(mpidr).number();
            assert!(number >= 4096, "{mpidr:#x}: {number:#x}");
            assert_eq!(Affinity::of_number(number).mpidr(), mpidr);
        }
        assert_eq!(Affinity::from_mpidr(0x12_0034_5678).bits(), 0x1234_5678);
    }
}
