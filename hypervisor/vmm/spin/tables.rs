//! A guest's stage-1 tables, walked in software (Arm ARM D8.2).
//!
//! The AT instructions would ask the hardware. They are not used: on Cortex-A55, A57, A72 and A76 a speculative AT at EL2 can leave
//! translations in the TLB that mix two worlds (errata 1530923, 1319537, 1319367, 1165522), and KVM works around that at each world
//! switch. A walk here reads four descriptors at most, each from the guest's RAM by its checked address, and leaves nothing behind.

use super::Sight;
use types::access::AccessWidth;
use types::address::GuestPhys;

/// SCTLR_EL1.M.
const MMU: u64 = 1;
/// TCR_EL1.DS: addresses of 52 bits, whose descriptors have another form.
const LPA2: u64 = 1 << 59;
/// Bits 47:0, the addresses that are understood.
const ADDRESS_BITS: u32 = 48;
/// Descriptor: valid.
const VALID: u64 = 1;
/// Descriptor: a table, or a page at the last level.
const TABLE: u64 = 2;

/// One half of the address space.
struct Half {
    table: u64,
    /// TnSZ.
    size: u64,
    /// Log2 of the granule.
    granule: u32,
    tags: bool,
    off: bool,
}

impl Half {
    fn of(sight: &Sight, address: u64) -> Option<Self> {
        let tcr = sight.tcr_el1;
        if address >> 55 & 1 == 0 {
            return Some(Self {
                table: sight.ttbr0_el1,
                size: tcr & 0x3f,
                granule: [12, 16, 14].get((tcr >> 14 & 3) as usize).copied()?,
                tags: tcr >> 37 & 1 != 0,
                off: tcr >> 7 & 1 != 0,
            });
        }
        Some(Self {
            table: sight.ttbr1_el1,
            size: tcr >> 16 & 0x3f,
            granule: [0, 14, 12, 16].get((tcr >> 30 & 3) as usize).copied()?,
            tags: tcr >> 38 & 1 != 0,
            off: tcr >> 23 & 1 != 0,
        })
    }
}

/// Keeps bits `high - 1` to `low`.
const fn bits(value: u64, high: u32, low: u32) -> u64 {
    value & ((1 << high) - 1) & !((1 << low) - 1)
}

/// Translates a guest's virtual address by its tables; `None` if they do not map it, or are of a form that is not understood.
pub(super) fn translate(
    sight: &Sight,
    address: u64,
    read: impl Fn(GuestPhys, AccessWidth) -> Option<u64>,
) -> Option<GuestPhys> {
    if sight.sctlr_el1 & MMU == 0 {
        return (address >> ADDRESS_BITS == 0).then(|| GuestPhys::new(address));
    }
    let half = Half::of(sight, address)?;
    let (granule, width) = (half.granule, 64 - half.size as u32);
    if half.off || sight.tcr_el1 & LPA2 != 0 || granule == 0 {
        return None;
    }
    if !(granule + 1..=ADDRESS_BITS).contains(&width) {
        return None;
    }
    // The bits above are copies of bit 55, but for a tag.
    let tag = if half.tags { 8 } else { 0 };
    if !matches!((address << tag) as i64 >> tag >> width, 0 | -1) {
        return None;
    }
    let stride = granule - 3;
    let mut table = bits(half.table, ADDRESS_BITS, 6);
    for level in (0..(width - granule).div_ceil(stride)).rev() {
        let low = granule + level * stride;
        let index = bits(address, (low + stride).min(width), low) >> low;
        let entry = read(GuestPhys::new(table + index * 8), AccessWidth::Double)?;
        if entry & VALID == 0 {
            return None;
        }
        match (level, entry & TABLE != 0) {
            (0, false) => return None,
            (1.., true) => table = bits(entry, ADDRESS_BITS, granule),
            _ => {
                let base = bits(entry, ADDRESS_BITS, low);
                return Some(GuestPhys::new(base | bits(address, low, 0)));
            }
        }
    }
    None
}
