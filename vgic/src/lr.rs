//! A list register as fields: what a virtual interrupt in the hands of the hardware is made of, in
//! no version's layout. [`crate::v2::list_register`] and [`crate::v3::list_register`] turn it into what `GICH_LR<n>` and
//! `ICH_LR<n>_EL2` hold.

use crate::IntId;

/// Largest number of list registers the architecture allows.
pub const LR_MAX: usize = 16;

/// State of a virtual interrupt in a list register.
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

/// The fields of a list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Acknowledged, not yet deactivated.
    pub active: bool,
    /// Waits for the guest to acknowledge it.
    pub pending: bool,
    /// Deactivation goes on to a physical interrupt.
    pub hardware: bool,
    /// In group 1.
    pub group1: bool,
    /// A lower value is more urgent.
    pub priority: u8,
    /// The ten bits of [`ListRegister::link`].
    pub link: u16,
    /// Number of the virtual interrupt in bits 9:0, and in bits 12:10 the CPU that sent an SGI, where the guest's GIC tells it
    /// (GICv2): GICH_LR has them so, and so has `ICH_LR<n>_EL2` for a guest without system registers (IHI0069 section 12.4.10).
    pub number: u32,
}

/// The value of one list register.
///
/// Its fields are packed into one word that only this file knows. Each stands where GICv3 has it,
/// so that the compiler finds nothing left to do in that encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListRegister(u64);

impl ListRegister {
    /// An unused list register.
    pub const EMPTY: Self = Self(0);

    const ACTIVE: u64 = 1 << 63;
    const PENDING: u64 = 1 << 62;
    const HARDWARE: u64 = 1 << 61;
    const GROUP1: u64 = 1 << 60;
    const PRIORITY_SHIFT: u32 = 48;
    const LINK_SHIFT: u32 = 32;
    const EOI: u64 = (Self::LINK_EOI as u64) << Self::LINK_SHIFT;

    /// Bit of [`Self::link`]: deactivation asserts a maintenance interrupt.
    pub const LINK_EOI: u16 = 1 << 9;
    const LINK_PHYSICAL: u16 = 0x3ff;
    const INTID: u32 = 0x3ff;
    const SOURCE_SHIFT: u32 = 10;
    const SOURCE: u64 = 7 << Self::SOURCE_SHIFT;

    /// Returns a pending interrupt.
    #[must_use]
    #[inline]
    pub const fn pending(intid: IntId, priority: u8, group1: bool) -> Self {
        let group = if group1 { Self::GROUP1 } else { 0 };
        let priority = (priority as u64) << Self::PRIORITY_SHIFT;
        Self(Self::PENDING | group | priority | intid.get() as u64)
    }

    /// Returns a list register of these fields.
    #[must_use]
    #[inline]
    pub const fn of(fields: Fields) -> Self {
        let flags = ((fields.active as u64) << 63)
            | ((fields.pending as u64) << 62)
            | ((fields.hardware as u64) << 61)
            | ((fields.group1 as u64) << 60);
        let priority = (fields.priority as u64) << Self::PRIORITY_SHIFT;
        let link = (fields.link as u64) << Self::LINK_SHIFT;
        Self(flags | priority | link | fields.number as u64)
    }

    /// Returns the fields, for a face that puts them where its version has them.
    #[must_use]
    #[inline]
    pub const fn fields(self) -> Fields {
        Fields {
            active: self.is_active(),
            pending: self.is_pending(),
            hardware: self.is_hardware(),
            group1: self.is_group1(),
            priority: self.priority(),
            link: self.link(),
            number: self.0 as u32,
        }
    }

    /// Returns this value with the physical INTID `physical` linked, which ends with the virtual one.
    #[must_use]
    #[inline]
    pub const fn linked_to(self, physical: u32) -> Self {
        let link = (physical as u16 & Self::LINK_PHYSICAL) as u64;
        Self(self.without_link().0 | Self::HARDWARE | (link << Self::LINK_SHIFT))
    }

    /// Returns this value, which has no physical interrupt behind it, with another source CPU.
    #[must_use]
    pub const fn from_cpu(self, source: u8) -> Self {
        let field = (source as u64) << Self::SOURCE_SHIFT;
        Self((self.0 & !Self::SOURCE) | (field & Self::SOURCE))
    }

    const fn without_link(self) -> Self {
        Self(self.0 & !((Self::LINK_PHYSICAL as u64) << Self::LINK_SHIFT))
    }

    const fn with(self, set: u64, clear: u64) -> Self {
        Self((self.0 & !clear) | set)
    }

    /// Returns this value made pending, perhaps besides being active.
    #[must_use]
    #[inline]
    pub const fn with_pending(self) -> Self {
        self.with(Self::PENDING, 0)
    }

    /// Returns this value made active, perhaps besides being pending.
    #[must_use]
    #[inline]
    pub const fn with_active(self) -> Self {
        self.with(Self::ACTIVE, 0)
    }

    /// Returns this value as it is when the guest has acknowledged it: active, no longer pending.
    #[must_use]
    #[inline]
    pub const fn acknowledged(self) -> Self {
        self.with(Self::ACTIVE, Self::PENDING)
    }

    /// Returns this value no longer pending.
    #[must_use]
    #[inline]
    pub const fn without_pending(self) -> Self {
        self.with(0, Self::PENDING)
    }

    /// Returns this value no longer active.
    #[must_use]
    #[inline]
    pub const fn without_active(self) -> Self {
        self.with(0, Self::ACTIVE)
    }

    /// Returns this value, which has no physical interrupt behind it, asking for a maintenance
    /// interrupt at its end.
    #[must_use]
    #[inline]
    pub const fn asking_for_eoi(self) -> Self {
        self.with(Self::EOI, 0)
    }

    /// Returns this value, which has no physical interrupt behind it, ending silently.
    #[must_use]
    #[inline]
    pub const fn ending_silently(self) -> Self {
        self.with(0, Self::EOI)
    }

    /// Returns this value with another priority.
    #[must_use]
    #[inline]
    pub const fn with_priority(self, priority: u8) -> Self {
        let mask = 0xff << Self::PRIORITY_SHIFT;
        self.with((priority as u64) << Self::PRIORITY_SHIFT, mask)
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
    #[must_use]
    #[inline]
    pub const fn intid(self) -> u32 {
        self.0 as u32 & Self::INTID
    }

    /// Returns the CPU that sent an SGI, 0 to 7, where the guest's GIC tells it (GICv2).
    #[must_use]
    pub const fn source(self) -> u8 {
        ((self.0 & Self::SOURCE) >> Self::SOURCE_SHIFT) as u8
    }

    /// Returns what stands behind the interrupt: while [`Self::is_hardware`] the physical INTID,
    /// else [`Self::LINK_EOI`]. Every version has these ten bits in one field.
    #[must_use]
    #[inline]
    pub const fn link(self) -> u16 {
        (self.0 >> Self::LINK_SHIFT) as u16
    }

    /// Returns the priority; a lower value is more urgent.
    #[must_use]
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.0 >> Self::PRIORITY_SHIFT) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let intid = IntId::new(1019).unwrap();
        let plain = ListRegister::pending(intid, 0xff, true);
        assert_eq!(
            (plain.intid(), plain.priority(), plain.link()),
            (1019, 0xff, 0)
        );
        assert_eq!(plain.state(), LrState::Pending);
        assert!(plain.is_group1() && !plain.is_hardware() && !plain.wants_eoi());
        let linked = plain.linked_to(0x3ff);
        assert_eq!((linked.link(), linked.intid()), (0x3ff, 1019));
        assert!(linked.is_hardware() && !linked.wants_eoi());
        assert_eq!(linked.linked_to(30).link(), 30);
        let sent = plain.asking_for_eoi().from_cpu(5);
        assert_eq!(
            (sent.link(), sent.source(), sent.intid()),
            (ListRegister::LINK_EOI, 5, 1019)
        );
        assert!(sent.wants_eoi());
        assert_eq!(sent.ending_silently().from_cpu(0), plain);
        assert_eq!(
            plain.with_priority(8).with_priority(0xff).acknowledged(),
            plain.with_active().without_pending()
        );
        assert!(plain.without_pending().is_inactive());
        assert!(plain.acknowledged().without_active().is_inactive());
    }

    #[test]
    fn every_combination_of_fields_comes_back() {
        for flags in 0..16_u8 {
            let fields = Fields {
                active: flags & 1 != 0,
                pending: flags & 2 != 0,
                hardware: flags & 4 != 0,
                group1: flags & 8 != 0,
                priority: 0xa8,
                link: 0x205,
                number: 77 | 5 << 10,
            };
            assert_eq!(ListRegister::of(fields).fields(), fields);
        }
    }
}
