//! List registers (IHI0069 `ICH_LR<n>_EL2`): their layout, the seam to the hardware that holds
//! them, and the array that stands in for the hardware while a vCPU is not loaded.

use crate::IntId;

/// Largest number of list registers the architecture allows.
pub const LR_MAX: usize = 16;

/// Returns how many list registers to use, from ICH_VTR_EL2 (ListRegs, bits 4:0, is the number minus one).
#[must_use]
pub const fn lr_count_to_use(ich_vtr: u64) -> usize {
    let count = ((ich_vtr & 0x1f) as usize).wrapping_add(1);
    if count > LR_MAX { LR_MAX } else { count }
}

/// Returns how many ends ICH_HCR_EL2.EOIcount tells of (bits 31:27), given ICH_VMCR_EL2 and ICH_VTR_EL2.
///
/// With a separate deactivation (VEOIM, bit 9) a write of ICC_EOIR1_EL1 ends nothing, though QEMU counts it; what ends an interrupt then is a
/// write of ICC_DIR_EL1, which traps ([`Maintenance::TRAP_DIR`]) where it can do so alone (TDS, bit 19), and counts elsewhere (IHI0069, 12.4).
#[must_use]
pub const fn ends_without_entry(ich_hcr: u64, ich_vmcr: u64, ich_vtr: u64) -> u32 {
    const VEOIM: u64 = 1 << 9;
    const TDS: u64 = 1 << 19;
    if ich_vmcr & VEOIM != 0 && ich_vtr & TDS != 0 {
        return 0;
    }
    (ich_hcr >> 27) as u32 & 0x1f
}

/// State of a virtual interrupt in a list register (bits 63:62).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LrState {
    /// Neither pending nor active.
    Inactive,
    /// Waits for the guest to acknowledge it.
    Pending,
    /// Acknowledged, not yet deactivated.
    Active,
    /// Acknowledged, and pending once more.
    PendingActive,
}

impl LrState {
    /// Tells whether the interrupt is pending, perhaps active too.
    #[must_use]
    #[inline]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Pending | Self::PendingActive)
    }

    /// Tells whether the interrupt is active, perhaps pending too.
    #[must_use]
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::PendingActive)
    }
}

/// The value of one list register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListRegister(pub u64);

impl ListRegister {
    /// An unused list register.
    pub const EMPTY: Self = Self(0);
    /// State bit: pending.
    pub const PENDING: u64 = 1 << 62;
    /// State bit: active.
    pub const ACTIVE: u64 = 1 << 63;
    /// Deactivation goes on to the physical interrupt.
    pub const HARDWARE: u64 = 1 << 61;
    /// Interrupt group 1.
    pub const GROUP1: u64 = 1 << 60;
    /// Deactivation asserts a maintenance interrupt (only while HARDWARE is clear).
    pub const EOI: u64 = 1 << 41;
    const PRIORITY_SHIFT: u32 = 48;
    const PHYSICAL_SHIFT: u32 = 32;
    const PHYSICAL_MASK: u64 = 0x3ff;

    /// Returns a pending interrupt.
    #[must_use]
    #[inline]
    pub const fn pending(intid: IntId, priority: u8, group1: bool) -> Self {
        Self(
            Self::PENDING
                | ((group1 as u64) << 60)
                | ((priority as u64) << Self::PRIORITY_SHIFT)
                | intid.get() as u64,
        )
    }

    /// Returns this value with the physical INTID `physical` linked (HW = 1).
    #[must_use]
    #[inline]
    pub const fn linked_to(self, physical: u32) -> Self {
        let field = (physical as u64 & Self::PHYSICAL_MASK) << Self::PHYSICAL_SHIFT;
        Self((self.0 & !(Self::PHYSICAL_MASK << Self::PHYSICAL_SHIFT)) | Self::HARDWARE | field)
    }

    /// Returns this value with the bits `set` set and the bits `clear` cleared.
    #[must_use]
    #[inline]
    pub const fn with(self, set: u64, clear: u64) -> Self {
        Self((self.0 & !clear) | set)
    }

    /// Returns this value with another priority.
    #[must_use]
    #[inline]
    pub const fn with_priority(self, priority: u8) -> Self {
        let mask = 0xff << Self::PRIORITY_SHIFT;
        Self((self.0 & !mask) | ((priority as u64) << Self::PRIORITY_SHIFT))
    }

    /// Returns the state.
    #[must_use]
    #[inline]
    pub const fn state(self) -> LrState {
        match (self.is_pending(), self.is_active()) {
            (false, false) => LrState::Inactive,
            (true, false) => LrState::Pending,
            (false, true) => LrState::Active,
            (true, true) => LrState::PendingActive,
        }
    }

    /// Tells whether the interrupt is pending, perhaps active too.
    #[must_use]
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    /// Tells whether the interrupt is active, perhaps pending too.
    #[must_use]
    #[inline]
    pub const fn is_active(self) -> bool {
        self.0 & Self::ACTIVE != 0
    }

    /// Tells whether the guest has finished with the interrupt, or never got one.
    #[must_use]
    #[inline]
    pub const fn is_inactive(self) -> bool {
        self.0 & (Self::PENDING | Self::ACTIVE) == 0
    }

    /// Tells whether deactivation goes on to a physical interrupt.
    #[must_use]
    #[inline]
    pub const fn is_hardware(self) -> bool {
        self.0 & Self::HARDWARE != 0
    }

    /// Tells whether deactivation asks for a maintenance interrupt.
    #[must_use]
    #[inline]
    pub const fn wants_eoi(self) -> bool {
        self.0 & (Self::HARDWARE | Self::EOI) == Self::EOI
    }

    /// Tells whether the interrupt is in group 1.
    #[must_use]
    #[inline]
    pub const fn is_group1(self) -> bool {
        self.0 & Self::GROUP1 != 0
    }

    /// Returns the number of the virtual interrupt.
    #[cfg(test)]
    pub(crate) const fn intid(self) -> u32 {
        self.0 as u32
    }

    /// Returns the physical INTID; meaningful while [`Self::is_hardware`].
    #[must_use]
    #[inline]
    pub const fn physical(self) -> u32 {
        ((self.0 >> Self::PHYSICAL_SHIFT) & Self::PHYSICAL_MASK) as u32
    }

    /// Returns the priority; a lower value is more urgent.
    #[must_use]
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.0 >> Self::PRIORITY_SHIFT) as u8
    }
}

/// Which events of the virtual CPU interface come to EL2: bits of ICH_HCR_EL2, at their places there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(pub u32);

impl Maintenance {
    /// Nothing beyond the EOI requests in the list registers.
    pub const NONE: Self = Self(0);
    /// UIE: at most one list register holds a valid interrupt.
    pub const UNDERFLOW: u32 = 1 << 1;
    /// LRENPIE: the guest ended an interrupt that is in no list register.
    pub const ENTRY_NOT_PRESENT: u32 = 1 << 2;
    /// NPIE: no list register holds a pending interrupt.
    pub const NO_PENDING: u32 = 1 << 3;
    /// TDIR: the guest's writes of ICC_DIR_EL1 trap.
    pub const TRAP_DIR: u32 = 1 << 14;
    /// Every bit this crate may set; the others of ICH_HCR_EL2 belong to its owner.
    pub const MASK: u32 =
        Self::UNDERFLOW | Self::ENTRY_NOT_PRESENT | Self::NO_PENDING | Self::TRAP_DIR;
}

/// The list registers of one vCPU: the hardware's while it is loaded, an array otherwise.
///
/// Indices passed in are always below [`Self::count`].
pub trait ListRegisters {
    /// Returns the number of list registers, 1 to 16.
    fn count(&self) -> usize;
    /// Reads list register `n` (`ICH_LR<n>_EL2`).
    fn read(&self, n: usize) -> ListRegister;
    /// Writes list register `n`.
    fn write(&mut self, n: usize, value: ListRegister);
    /// Returns which list registers are free to use (ICH_ELRSR_EL2).
    fn empty(&self) -> u32;
    /// Returns which list registers ask for EOI maintenance (ICH_EISR_EL2).
    fn eoi_status(&self) -> u32;
    /// Replaces the bits [`Maintenance::MASK`] of ICH_HCR_EL2.
    fn set_maintenance(&mut self, events: Maintenance);
    /// Returns what ICH_HCR_EL2.EOIcount tells of ([`ends_without_entry`]) and sets it to zero.
    fn take_eoi_count(&mut self) -> u32;
}

/// The list registers of a vCPU that is loaded nowhere.
#[derive(Clone, Debug)]
pub struct SavedListRegisters {
    /// Values, in the order of the hardware's.
    pub values: [ListRegister; LR_MAX],
    /// Events that are to come to EL2, for ICH_HCR_EL2 when the vCPU is loaded again.
    pub maintenance: Maintenance,
    /// EOIcount as it was when the vCPU was unloaded.
    pub eoi_count: u32,
    count: u8,
}

impl SavedListRegisters {
    /// Returns `count` (1 to 16) empty list registers.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        let count = if count == 0 {
            1
        } else if count > LR_MAX {
            LR_MAX as u8
        } else {
            count as u8
        };
        Self {
            values: [ListRegister::EMPTY; LR_MAX],
            maintenance: Maintenance::NONE,
            eoi_count: 0,
            count,
        }
    }

    fn mask_of(&self, test: impl Fn(ListRegister) -> bool) -> u32 {
        let used = self.values.iter().take(self.count());
        used.enumerate()
            .fold(0, |mask, (n, &value)| mask | (u32::from(test(value)) << n))
    }
}

impl ListRegisters for SavedListRegisters {
    #[inline]
    fn count(&self) -> usize {
        usize::from(self.count)
    }

    #[inline]
    fn read(&self, n: usize) -> ListRegister {
        self.values.get(n).copied().unwrap_or_default()
    }

    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        if let Some(slot) = self.values.get_mut(n) {
            *slot = value;
        }
    }

    fn empty(&self) -> u32 {
        self.mask_of(|value| value.is_inactive() && !value.wants_eoi())
    }

    fn eoi_status(&self) -> u32 {
        self.mask_of(|value| value.is_inactive() && value.wants_eoi())
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        self.maintenance = events;
    }

    fn take_eoi_count(&mut self) -> u32 {
        core::mem::take(&mut self.eoi_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_architecture_puts_them() {
        let lr = ListRegister::pending(IntId::private(27), 0xa0, true).linked_to(30);
        assert_eq!(lr.0, 0x70a0_001e_0000_001b);
        assert_eq!(
            (lr.intid(), lr.physical(), lr.priority(), lr.state()),
            (27, 30, 0xa0, LrState::Pending)
        );
        assert!(lr.is_hardware() && lr.is_group1() && !lr.wants_eoi());
        let eoi = ListRegister::pending(IntId::new(33).unwrap(), 0, false)
            .with(ListRegister::EOI | ListRegister::ACTIVE, 0);
        assert_eq!(
            (eoi.0, eoi.state()),
            (0xc000_0200_0000_0021, LrState::PendingActive)
        );
    }

    #[test]
    fn saved_status_follows_the_definitions_of_elrsr_and_eisr() {
        let mut saved = SavedListRegisters::new(4);
        let id = IntId::new(40).unwrap();
        saved.write(0, ListRegister::pending(id, 0, true));
        saved.write(1, ListRegister(ListRegister::EOI | 41));
        saved.write(
            2,
            ListRegister(ListRegister::HARDWARE | ListRegister::EOI | 27),
        );
        assert_eq!((saved.empty(), saved.eoi_status()), (0b1100, 0b0010));
        assert_eq!(
            (lr_count_to_use(3), lr_count_to_use(0x9000_0000_001f)),
            (4, 16)
        );
        assert_eq!(
            (
                SavedListRegisters::new(0).count(),
                SavedListRegisters::new(99).count()
            ),
            (1, 16)
        );
    }

    #[test]
    fn ends_are_counted_unless_they_trap() {
        let hcr = 21 << 27 | 1;
        let (veoim, tds) = (1 << 9, 1 << 19);
        let counts = [(0, 0), (0, tds), (veoim, 0), (veoim, tds)]
            .map(|(vmcr, vtr)| ends_without_entry(hcr, vmcr, vtr));
        assert_eq!(counts, [21, 21, 21, 0]);
    }
}
