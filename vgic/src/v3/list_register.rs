//! GICv3's list registers and what stands around them: `ICH_LR<n>_EL2`, ICH_HCR_EL2, ICH_VMCR_EL2
//! and ICH_VTR_EL2 (IHI0069 section 12.4), to and from the core's fields.

use crate::lr::{Fields, LR_MAX};
use crate::{CpuInterface, ListRegister, Maintenance};

const ACTIVE: u64 = 1 << 63;
const PENDING: u64 = 1 << 62;
const HARDWARE: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
const PRIORITY_SHIFT: u32 = 48;
const LINK_SHIFT: u32 = 32;

const HCR_LRENPIE: u64 = 1 << 2;
const HCR_NPIE: u64 = 1 << 3;
const HCR_TDIR: u64 = 1 << 14;
const HCR_EOI_COUNT_SHIFT: u32 = 27;
const HCR_EOI_COUNT: u64 = 0x1f;

const VMCR_VENG0: u64 = 1 << 0;
const VMCR_VENG1: u64 = 1 << 1;
const VMCR_VEOIM: u64 = 1 << 9;
const VMCR_VPMR_SHIFT: u32 = 24;

const VTR_LIST_REGISTERS: u64 = 0x1f;
const VTR_TDS: u64 = 1 << 19;

/// Bits of ICH_HCR_EL2 that [`hcr`] gives; the others belong to the register's owner.
pub const HCR_EVENTS: u64 = HCR_LRENPIE | HCR_NPIE | HCR_TDIR;

/// Returns the value of `ICH_LR<n>_EL2`.
#[must_use]
#[inline]
pub const fn encode(lr: ListRegister) -> u64 {
    let fields = lr.fields();
    let flags = (if fields.active { ACTIVE } else { 0 })
        | (if fields.pending { PENDING } else { 0 })
        | (if fields.hardware { HARDWARE } else { 0 })
        | (if fields.group1 { GROUP1 } else { 0 });
    let priority = (fields.priority as u64) << PRIORITY_SHIFT;
    flags | priority | ((fields.link as u64) << LINK_SHIFT) | fields.number as u64
}

/// Returns the list register that `ICH_LR<n>_EL2` holds.
#[must_use]
#[inline]
pub const fn decode(value: u64) -> ListRegister {
    ListRegister::of(Fields {
        active: value & ACTIVE != 0,
        pending: value & PENDING != 0,
        hardware: value & HARDWARE != 0,
        group1: value & GROUP1 != 0,
        priority: (value >> PRIORITY_SHIFT) as u8,
        link: (value >> LINK_SHIFT) as u16,
        number: value as u32,
    })
}

/// Returns the bits of ICH_HCR_EL2 that ask for `events`, within [`HCR_EVENTS`].
#[must_use]
pub const fn hcr(events: Maintenance) -> u64 {
    let mut bits = 0;
    if events.has(Maintenance::ENTRY_NOT_PRESENT) {
        bits |= HCR_LRENPIE;
    }
    if events.has(Maintenance::NO_PENDING) {
        bits |= HCR_NPIE;
    }
    if events.has(Maintenance::DEACTIVATION) {
        bits |= HCR_TDIR;
    }
    bits
}

/// Returns what the guest's CPU interface lets through (VENG0, VENG1 and VPMR).
#[must_use]
#[inline]
pub const fn cpu_interface(ich_vmcr: u64) -> CpuInterface {
    CpuInterface {
        group0: ich_vmcr & VMCR_VENG0 != 0,
        group1: ich_vmcr & VMCR_VENG1 != 0,
        priority_mask: (ich_vmcr >> VMCR_VPMR_SHIFT) as u8,
    }
}

/// Returns how many list registers to use (ICH_VTR_EL2.ListRegs is the number minus one).
#[must_use]
pub const fn count(ich_vtr: u64) -> usize {
    let count = ((ich_vtr & VTR_LIST_REGISTERS) as usize).wrapping_add(1);
    if count > LR_MAX { LR_MAX } else { count }
}

/// Returns how many ends without a list register ICH_HCR_EL2.EOIcount tells of.
///
/// With a separate deactivation (VEOIM) a write of ICC_EOIR1_EL1 ends nothing, though QEMU counts
/// it; what ends an interrupt then is a write of ICC_DIR_EL1, which traps
/// ([`Maintenance::DEACTIVATION`]) where it can do so alone (TDS), and counts elsewhere.
#[must_use]
pub const fn eoi_count(ich_hcr: u64, ich_vmcr: u64, ich_vtr: u64) -> u32 {
    if ich_vmcr & VMCR_VEOIM != 0 && ich_vtr & VTR_TDS != 0 {
        return 0;
    }
    ((ich_hcr >> HCR_EOI_COUNT_SHIFT) & HCR_EOI_COUNT) as u32
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
                ListRegister::pending(IntId::private(27), 0xa0, true).linked_to(30),
                0x70a0_001e_0000_001b,
            ),
            (
                ListRegister::pending(id, 0, false)
                    .with_active()
                    .asking_for_eoi(),
                0xc000_0200_0000_0021,
            ),
            (
                ListRegister::pending(id, 0xf8, true).acknowledged(),
                0x90f8_0000_0000_0021,
            ),
        ];
        for (lr, value) in table {
            assert_eq!((encode(lr), decode(value)), (value, lr), "{value:#x}");
        }
    }

    #[test]
    fn events_stand_where_the_architecture_puts_them() {
        assert_eq!(hcr(Maintenance::NONE), 0);
        assert_eq!(hcr(Maintenance::ENTRY_NOT_PRESENT), 1 << 2);
        assert_eq!(hcr(Maintenance::NO_PENDING), 1 << 3);
        let all = Maintenance::NO_PENDING
            .and(Maintenance::ENTRY_NOT_PRESENT)
            .and(Maintenance::DEACTIVATION);
        assert_eq!(hcr(all), HCR_EVENTS);
    }

    #[test]
    fn registers_of_the_interface_are_read_by_field() {
        let interface = cpu_interface(0xf0 << 24 | 2);
        assert_eq!(interface.priority_mask, 0xf0);
        assert!(interface.group1 && !interface.group0);
        assert_eq!((count(3), count(0x9000_0000_001f)), (4, 16));
    }

    #[test]
    fn ends_are_counted_unless_they_trap() {
        let hcr = 21 << 27 | 1;
        let counts = [(0, 0), (0, VTR_TDS), (VMCR_VEOIM, 0), (VMCR_VEOIM, VTR_TDS)]
            .map(|(vmcr, vtr)| eoi_count(hcr, vmcr, vtr));
        assert_eq!(counts, [21, 21, 21, 0]);
    }
}
