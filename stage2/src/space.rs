//! The geometry of a guest's physical address space, and what VTCR_EL2 and VTTBR_EL2 say about it.

use crate::level::Level;
use crate::vmid::{Vmid, VmidWidth};
use crate::{ENTRIES_PER_TABLE, Error};
use types::address::HostPhys;

/// VTCR_EL2 fields (Arm ARM D24.2, VTCR_EL2). T0SZ is at bit 0; TG0 = 0 (4 KiB), HA, HD and DS stay clear.
mod vtcr {
    pub(super) const SL0_SHIFT: u32 = 6;
    pub(super) const SL0_LEVEL_1: u64 = 0b01;
    pub(super) const SL0_LEVEL_0: u64 = 0b10;
    /// Walks are inner write-back, read- and write-allocate cacheable.
    pub(super) const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
    /// Walks are outer write-back, read- and write-allocate cacheable.
    pub(super) const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
    /// Walks are inner shareable.
    pub(super) const SH0_INNER: u64 = 0b11 << 12;
    pub(super) const PS_SHIFT: u32 = 16;
    /// VMIDs have 16 bits.
    pub(super) const VS_16_BIT: u64 = 1 << 19;
    pub(super) const RES1: u64 = 1 << 31;
}

/// VTTBR_EL2.VMID (Arm ARM D24.2).
const VTTBR_VMID_SHIFT: u32 = 48;

/// Bits of physical address by ID_AA64MMFR0_EL1.PARange (Arm ARM D24.2).
pub const PA_BITS: [u32; 8] = [32, 36, 40, 42, 44, 48, 52, 56];
/// PARange of 48 bits: the most that 4 KiB descriptors express without FEAT_LPA2.
pub const PA_RANGE_48: u64 = 5;
/// The smallest guest address space; starting at level 1 needs more than 30 bits.
const MIN_IPA_BITS: u32 = 32;
/// The most bits that level 1 resolves with 16 concatenated tables (Arm ARM D8.2).
const MAX_LEVEL_1_BITS: u32 = 43;

/// A guest's intermediate physical address space: its size and the walk that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    ipa_bits: u32,
    physical_size: u64,
    ps: u64,
}

impl AddressSpace {
    /// Describes a space of `ipa_bits` (32 to 48) on a CPU whose ID_AA64MMFR0_EL1.PARange is `pa_range`; on a
    /// machine of several kinds of CPU, the smallest.
    ///
    /// # Errors
    /// [`Error::UnsupportedIpaSize`] if the CPU has fewer bits (Arm ARM D8.2) or stage 2 cannot express them.
    pub fn new(ipa_bits: u32, pa_range: u8) -> Result<Self, Error> {
        let ps = u64::from(pa_range).min(PA_RANGE_48);
        let pa_bits = PA_BITS
            .get(ps as usize)
            .copied()
            .ok_or(Error::UnsupportedIpaSize)?;
        if (MIN_IPA_BITS..=pa_bits).contains(&ipa_bits) {
            Ok(Self {
                ipa_bits,
                physical_size: 1 << pa_bits,
                ps,
            })
        } else {
            Err(Error::UnsupportedIpaSize)
        }
    }

    /// Returns the size of the space in bytes: the first guest address beyond it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        1 << self.ipa_bits
    }

    /// Returns how many contiguous pages the root takes.
    #[must_use]
    pub const fn root_pages(&self) -> usize {
        let slots = self.size() >> self.start_level().shift();
        (slots as usize).div_ceil(ENTRIES_PER_TABLE)
    }

    /// Returns the value of VTCR_EL2.
    #[must_use]
    pub const fn vtcr(&self, width: VmidWidth) -> u64 {
        let sl0 = match self.start_level() {
            Level::Zero => vtcr::SL0_LEVEL_0,
            _ => vtcr::SL0_LEVEL_1,
        };
        let vs = match width {
            VmidWidth::Bits8 => 0,
            VmidWidth::Bits16 => vtcr::VS_16_BIT,
        };
        (u64::BITS - self.ipa_bits) as u64
            | sl0 << vtcr::SL0_SHIFT
            | vtcr::IRGN0_WRITE_BACK
            | vtcr::ORGN0_WRITE_BACK
            | vtcr::SH0_INNER
            | self.ps << vtcr::PS_SHIFT
            | vs
            | vtcr::RES1
    }

    /// Returns the value of VTTBR_EL2 for a root and a VMID; CnP is clear.
    #[must_use]
    pub const fn vttbr(root: HostPhys, vmid: Vmid) -> u64 {
        (vmid.number() as u64) << VTTBR_VMID_SHIFT | root.get()
    }

    /// Returns the size of the machine's address space in bytes, as far as descriptors reach.
    pub(crate) const fn physical_size(&self) -> u64 {
        self.physical_size
    }

    /// Returns the level where the walk starts: the lowest that covers the space and still has 1 GiB blocks.
    pub(crate) const fn start_level(&self) -> Level {
        if self.ipa_bits <= MAX_LEVEL_1_BITS {
            Level::One
        } else {
            Level::Zero
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_follows_the_size() {
        for (ipa_bits, pa_range, root_pages, vtcr) in [
            (32, 0, 1, 0x8000_3560),
            (39, 2, 1, 0x8002_3559),
            (40, 2, 2, 0x8002_3558),
            (43, 4, 16, 0x8004_3555),
            (44, 4, 1, 0x8004_3594),
            (48, 5, 1, 0x8005_3590),
            (48, 6, 1, 0x8005_3590),
        ] {
            let space = AddressSpace::new(ipa_bits, pa_range).unwrap();
            assert_eq!(space.root_pages(), root_pages, "{ipa_bits} bits");
            assert_eq!(space.vtcr(VmidWidth::Bits8), vtcr, "{ipa_bits} bits");
            assert_eq!(space.vtcr(VmidWidth::Bits16), vtcr | 1 << 19);
            assert_eq!(space.size(), 1 << ipa_bits);
        }
    }

    #[test]
    fn sizes_beyond_the_cpu_are_refused() {
        for (ipa_bits, pa_range) in [
            (31, 5),
            (33, 0),
            (41, 2),
            (45, 4),
            (49, 5),
            (49, 6),
            (52, 7),
            (u32::MAX, 255),
        ] {
            assert_eq!(
                AddressSpace::new(ipa_bits, pa_range),
                Err(Error::UnsupportedIpaSize),
                "{ipa_bits} {pa_range}"
            );
        }
    }

    #[test]
    fn vttbr_has_root_and_vmid() {
        let vmid = crate::VmidAllocator::<1>::new(VmidWidth::Bits16).assign(0, || ());
        assert_eq!(
            AddressSpace::vttbr(HostPhys::new(0x8_4000_2000), vmid.expect("one")),
            0x0001_0008_4000_2000
        );
    }
}
