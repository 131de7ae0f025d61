//! The banks of per-interrupt registers, which every version has at the same offsets, 0x080 to
//! 0xdff: in the distributor, and in GICv3 for SGIs and PPIs in a redistributor's SGI_base.

use types::access::AccessWidth;
use types::gicv3;

/// A bank of registers with one field an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bank {
    /// IGROUPR, a bit each.
    Group,
    /// ISENABLER, a bit each.
    SetEnable,
    /// ICENABLER, a bit each.
    ClearEnable,
    /// ISPENDR, a bit each.
    SetPending,
    /// ICPENDR, a bit each.
    ClearPending,
    /// ISACTIVER, a bit each.
    SetActive,
    /// ICACTIVER, a bit each.
    ClearActive,
    /// IPRIORITYR, a byte each.
    Priority,
    /// ICFGR, two bits each.
    Config,
    /// Not in every version, or reserved: the face's own business.
    None,
}

/// Returns the row of [`BANKS`] that an offset is in.
const fn row(offset: u32) -> usize {
    (offset >> 7) as usize
}

/// One row for each 0x80 bytes.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const BANKS: [Bank; 32] = {
    let mut rows = [Bank::None; 32];
    rows[row(gicv3::IGROUPR)] = Bank::Group;
    rows[row(gicv3::ISENABLER)] = Bank::SetEnable;
    rows[row(gicv3::ICENABLER)] = Bank::ClearEnable;
    rows[row(gicv3::ISPENDR)] = Bank::SetPending;
    rows[row(gicv3::ICPENDR)] = Bank::ClearPending;
    rows[row(gicv3::ISACTIVER)] = Bank::SetActive;
    rows[row(gicv3::ICACTIVER)] = Bank::ClearActive;
    let mut at = row(gicv3::IPRIORITYR);
    while at < row(gicv3::IPRIORITYR_END) {
        rows[at] = Bank::Priority;
        at += 1;
    }
    let mut at = row(gicv3::ICFGR);
    while at < row(gicv3::ICFGR_END) {
        rows[at] = Bank::Config;
        at += 1;
    }
    rows
};

/// One access to a bank: which, and the interrupts that its value covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The bank.
    pub(crate) bank: Bank,
    /// INTID of the field in the value's lowest bits.
    pub(crate) first: u32,
    /// How many fields the value has.
    pub(crate) count: u32,
}

/// Decodes an access; `None` is RAZ/WI: a hole, unaligned, or of a width the bank does not take.
///
/// Words everywhere; bytes for priorities too (IHI0069 section 12.1.3).
#[inline]
pub(crate) fn decode(offset: u32, width: AccessWidth) -> Option<Access> {
    let bank = *BANKS.get(row(offset))?;
    let aligned_word = width == AccessWidth::Word && offset & 3 == 0;
    let (first, count) = match bank {
        Bank::None => return None,
        Bank::Priority if width == AccessWidth::Byte => (offset & 0x3ff, 1),
        _ if !aligned_word => return None,
        Bank::Priority => (offset & 0x3ff, 4),
        Bank::Config => ((offset & 0xff) << 2, 16),
        _ => ((offset & 0x7f) << 3, 32),
    };
    Some(Access { bank, first, count })
}

/// Returns the bits of `fields` (one each) spread to the upper bit of two-bit fields, as ICFGR has them.
pub(crate) fn spread_config(fields: u32) -> u32 {
    let mut spread = fields & 0xffff;
    for (shift, mask) in [
        (8, 0x00ff_00ff),
        (4, 0x0f0f_0f0f),
        (2, 0x3333_3333),
        (1, 0x5555_5555),
    ] {
        spread = (spread | (spread << shift)) & mask;
    }
    spread << 1
}

/// Returns the upper bits of the two-bit fields of an ICFGR value, one bit each.
pub(crate) fn gather_config(value: u32) -> u32 {
    let mut fields = (value >> 1) & 0x5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333),
        (2, 0x0f0f_0f0f),
        (4, 0x00ff_00ff),
        (8, 0x0000_ffff),
    ] {
        fields = (fields | (fields >> shift)) & mask;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_select_banks() {
        let table = [
            (0x080, AccessWidth::Word, Some((Bank::Group, 0, 32))),
            (0x104, AccessWidth::Word, Some((Bank::SetEnable, 32, 32))),
            (0x1fc, AccessWidth::Word, Some((Bank::ClearEnable, 992, 32))),
            (0x400, AccessWidth::Word, Some((Bank::Priority, 0, 4))),
            (0x421, AccessWidth::Byte, Some((Bank::Priority, 33, 1))),
            (0x7ff, AccessWidth::Byte, Some((Bank::Priority, 1023, 1))),
            (0xc08, AccessWidth::Word, Some((Bank::Config, 32, 16))),
            (0xcfc, AccessWidth::Word, Some((Bank::Config, 1008, 16))),
            (0x000, AccessWidth::Word, None),
            (0x102, AccessWidth::Word, None),
            (0x104, AccessWidth::Byte, None),
            (0x104, AccessWidth::Double, None),
            (0x420, AccessWidth::Half, None),
            (0x800, AccessWidth::Word, None),
            (0xd00, AccessWidth::Word, None),
            (0x1080, AccessWidth::Word, None),
            (u32::MAX, AccessWidth::Byte, None),
        ];
        for (offset, width, expected) in table {
            let found =
                decode(offset, width).map(|access| (access.bank, access.first, access.count));
            assert_eq!(found, expected, "{offset:#x} {width:?}");
        }
    }

    #[test]
    fn config_fields_spread_and_gather() {
        assert_eq!(spread_config(0xffff), 0xaaaa_aaaa);
        assert_eq!(spread_config(0x8001), 0x8000_0002);
        for fields in 0..=0xffff {
            assert_eq!(gather_config(spread_config(fields) | 0x5555_5555), fields);
        }
    }
}
