//! Decoding of the SGI generation registers ICC_SGI1R_EL1, ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 (IHI0069 section 12.2).

use crate::IntId;
use types::affinity::CLUSTER;

const TARGET_LIST: u64 = 0xffff;
const AFF1_SHIFT: u32 = 16;
const INTID_SHIFT: u32 = 24;
const AFF2: u64 = 0xff << 32;
const IRM: u64 = 1 << 40;
const RANGE_SELECTOR: u64 = 0xf << 44;
const AFF3: u64 = 0xff << 48;

/// The vCPUs that an SGI goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an SGI that is decoded is to be sent"]
pub enum SgiTargets {
    /// To none: no target exists.
    None,
    /// One vCPU, by index.
    One(u16),
    /// vCPU `base + n` for every bit n of `mask`, each of which exists.
    List {
        /// Index of bit 0.
        base: u16,
        /// One bit a vCPU.
        mask: u16,
    },
    /// Every vCPU that is on, but the sender.
    AllButSelf,
}

/// Returns the SGI's INTID.
#[must_use]
#[inline]
pub const fn intid(value: u64) -> IntId {
    IntId::private((value >> INTID_SHIFT) as u32 & 0xf)
}

/// Decodes the targets of an SGI among `count` vCPUs. What no vCPU answers to is ignored (IHI0069 section 12.2.14).
#[inline]
pub const fn targets(value: u64, count: u16) -> SgiTargets {
    if value & (RANGE_SELECTOR | IRM | AFF3 | AFF2) != 0 {
        // With IRM set, the affinity fields and the range selector are not used.
        return if value & IRM != 0 {
            SgiTargets::AllButSelf
        } else {
            SgiTargets::None
        };
    }
    let base = ((value >> AFF1_SHIFT) as u16 & 0xff).wrapping_mul(CLUSTER);
    let Some(room) = count.checked_sub(base) else {
        return SgiTargets::None;
    };
    let exists = if room >= CLUSTER {
        TARGET_LIST
    } else {
        1_u64.wrapping_shl(room as u32).wrapping_sub(1)
    };
    let mask = (value & exists) as u16;
    if mask == 0 {
        SgiTargets::None
    } else if mask & mask.wrapping_sub(1) == 0 {
        SgiTargets::One(base | mask.trailing_zeros() as u16)
    } else {
        SgiTargets::List { base, mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SgiTargets::{AllButSelf, List, None as Nobody, One};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn targets_of_worked_examples() {
        let table = [
            (0x0000_0000_0000_0001, 8, One(0)),
            (0x0000_0000_0500_0080, 8, One(7)),
            (0x0000_0000_0000_0100, 8, Nobody),
            (
                0x0000_0000_0000_ffff,
                8,
                List {
                    base: 0,
                    mask: 0xff,
                },
            ),
            (0x0000_0000_0000_0000, 8, Nobody),
            (0x0000_0000_0001_0002, 18, One(17)),
            (0x0000_0000_0001_0006, 18, One(17)),
            (0x0000_0000_0001_0004, 18, Nobody),
            (0x0000_0000_0002_0001, 18, Nobody),
            (
                0x0000_0000_001f_8001,
                512,
                List {
                    base: 496,
                    mask: 0x8001,
                },
            ),
            (0x0000_0000_00ff_ffff, 512, Nobody),
            (0x0000_0001_0000_0001, 8, Nobody),
            (0x0001_0000_0000_0001, 8, Nobody),
            (0x0000_1000_0000_0001, 8, Nobody),
            (0x0000_0100_0000_0000, 8, AllButSelf),
            (0xffff_ffff_ffff_ffff, 8, AllButSelf),
        ];
        for (value, count, expected) in table {
            assert_eq!(targets(value, count), expected, "{value:#x}");
        }
        assert_eq!(intid(0xffff_ffff_f5ff_ffff).get(), 5);
    }

    proptest! {
        #[test]
        fn every_target_exists_and_was_asked_for(value: u64, count in 1_u16..=512) {
            let asked = |index: u16| {
                value & (RANGE_SELECTOR | IRM | AFF3 | AFF2) == 0
                    && (value >> 16) & 0xff == u64::from(index / 16)
                    && value & (1 << (index % 16)) != 0
            };
            let found: Vec<u16> = match targets(value, count) {
                Nobody => vec![],
                One(index) => vec![index],
                List { base, mask } => (0..16).filter(|n| mask & (1 << n) != 0).map(|n| base + n).collect(),
                AllButSelf => { prop_assert!(value & IRM != 0); return Ok(()); }
            };
            prop_assert!(value & IRM == 0);
            prop_assert_eq!(found, (0..count).filter(|&n| asked(n)).collect::<Vec<_>>());
        }
    }
}
