//! GICv2's list registers and what stands around them: `GICH_LR<n>`, GICH_HCR, GICH_VMCR and GICH_VTR
//! (IHI0048 section 5.3), to and from the core's fields.

use crate::lr::{Fields, LR_MAX};
use crate::{CpuInterface, ListRegister, Maintenance};

const HARDWARE: u32 = 1 << 31;
const GROUP1: u32 = 1 << 30;
const ACTIVE: u32 = 1 << 29;
const PENDING: u32 = 1 << 28;
const PRIORITY_SHIFT: u32 = 23;
const PRIORITY: u32 = 0x1f;
const LINK_SHIFT: u32 = 10;
const LINK: u32 = 0x3ff;
/// Virtual ID and, above it, CPUID, which an interrupt with a physical one behind it does not have.
const NUMBER: u32 = 0x1fff;
const VIRTUAL_ID: u32 = 0x3ff;
/// Five bits of priority, the upper ones of eight.
const PRIORITY_BITS: u32 = 3;

const HCR_LRENPIE: u32 = 1 << 2;
const HCR_NPIE: u32 = 1 << 3;
const HCR_EOI_COUNT_SHIFT: u32 = 27;

const VMCR_GROUP0: u32 = 1 << 0;
const VMCR_GROUP1: u32 = 1 << 1;
const VMCR_VEM: u32 = 1 << 9;
const VMCR_MASK_SHIFT: u32 = 27;

const VTR_LIST_REGISTERS: u32 = 0x3f;

/// Bits of GICH_HCR that [`hcr`] gives; the others belong to the register's owner.
pub const HCR_EVENTS: u32 = HCR_LRENPIE | HCR_NPIE;

/// Returns the value of `GICH_LR<n>`.
#[must_use]
#[inline]
pub const fn encode(lr: ListRegister) -> u32 {
    let fields = lr.fields();
    let flags = (if fields.hardware { HARDWARE } else { 0 })
        | (if fields.group1 { GROUP1 } else { 0 })
        | (if fields.active { ACTIVE } else { 0 })
        | (if fields.pending { PENDING } else { 0 });
    let priority = ((fields.priority >> PRIORITY_BITS) as u32) << PRIORITY_SHIFT;
    let link = (fields.link as u32 & LINK) << LINK_SHIFT;
    flags | priority | link | (fields.number & NUMBER)
}

/// Returns the list register that `GICH_LR<n>` holds.
#[must_use]
#[inline]
pub const fn decode(value: u32) -> ListRegister {
    let hardware = value & HARDWARE != 0;
    let link = (value >> LINK_SHIFT & LINK) as u16;
    ListRegister::of(Fields {
        hardware,
        group1: value & GROUP1 != 0,
        active: value & ACTIVE != 0,
        pending: value & PENDING != 0,
        priority: ((value >> PRIORITY_SHIFT & PRIORITY) << PRIORITY_BITS) as u8,
        link: if hardware {
            link
        } else {
            link & ListRegister::LINK_EOI
        },
        number: value & if hardware { VIRTUAL_ID } else { NUMBER },
    })
}

/// Returns the bits of GICH_HCR that ask for `events`, within [`HCR_EVENTS`].
///
/// [`Maintenance::DEACTIVATION`] has none: the page with GICV_DIR is not mapped, so that each deactivation apart traps.
#[must_use]
pub const fn hcr(events: Maintenance) -> u32 {
    let mut bits = 0;
    if events.has(Maintenance::ENTRY_NOT_PRESENT) {
        bits |= HCR_LRENPIE;
    }
    if events.has(Maintenance::NO_PENDING) {
        bits |= HCR_NPIE;
    }
    bits
}

/// Returns what the guest's CPU interface lets through (VMGrp0En, VMGrp1En and VMPriMask).
#[must_use]
#[inline]
pub const fn cpu_interface(gich_vmcr: u32) -> CpuInterface {
    CpuInterface {
        group0: gich_vmcr & VMCR_GROUP0 != 0,
        group1: gich_vmcr & VMCR_GROUP1 != 0,
        priority_mask: ((gich_vmcr >> VMCR_MASK_SHIFT) << PRIORITY_BITS) as u8,
    }
}

/// Returns how many list registers to use (GICH_VTR.ListRegs is the number minus one, 64 at most).
#[must_use]
pub const fn count(gich_vtr: u32) -> usize {
    let count = ((gich_vtr & VTR_LIST_REGISTERS) as usize).wrapping_add(1);
    if count > LR_MAX { LR_MAX } else { count }
}

/// Returns how many ends without a list register GICH_HCR.EOICount tells of.
///
/// With a separate deactivation (VEM) a write of GICV_EOIR ends nothing, though QEMU counts it; GICV_DIR traps.
#[must_use]
pub const fn eoi_count(gich_hcr: u32, gich_vmcr: u32) -> u32 {
    if gich_vmcr & VMCR_VEM != 0 {
        return 0;
    }
    gich_hcr >> HCR_EOI_COUNT_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IntId;

    #[test]
    fn fields_stand_where_the_architecture_puts_them() {
        let id = IntId::new(33).unwrap();
        let table = [
            (ListRegister::EMPTY, 0),
            (
                ListRegister::pending(IntId::private(3), 0xa0, true)
                    .from_cpu(5)
                    .asking_for_eoi(),
                0x5a08_1403,
            ),
            (
                ListRegister::pending(IntId::private(27), 0xf8, false)
                    .linked_to(30)
                    .acknowledged(),
                0xaf80_781b,
            ),
            (
                ListRegister::pending(IntId::private(27), 0, false).linked_to(0x3ff),
                0x900f_fc1b,
            ),
            (
                ListRegister::pending(id, 0, false)
                    .with_active()
                    .asking_for_eoi(),
                0x3008_0021,
            ),
        ];
        for (lr, value) in table {
            assert_eq!((encode(lr), decode(value)), (value, lr), "{value:#x}");
        }
    }

    #[test]
    fn registers_of_the_interface_are_read_by_field() {
        assert_eq!(hcr(Maintenance::NONE), 0);
        assert_eq!(hcr(Maintenance::DEACTIVATION), 0);
        let all = Maintenance::NO_PENDING.and(Maintenance::ENTRY_NOT_PRESENT);
        assert_eq!((hcr(all), HCR_EVENTS), (0xc, 0xc));
        let interface = cpu_interface(0xf000_0002);
        assert_eq!(interface.priority_mask, 0xf0);
        assert!(interface.group1 && !interface.group0);
        assert!(cpu_interface(1).group0);
        assert_eq!((count(0x9000_0003), count(0x9000_003f)), (4, 16));
    }

    #[test]
    fn ends_are_counted_unless_they_trap() {
        let hcr = 21 << 27 | 1;
        assert_eq!(eoi_count(hcr, 0x1ff), 21);
        assert_eq!(eoi_count(hcr, VMCR_VEM), 0);
    }
}
