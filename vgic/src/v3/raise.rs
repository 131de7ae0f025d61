//! Raising private interrupts where the short way of [`Redistributor::raise`] does not do: not open,
//! in the guest's hands already, or no list register free; and emulated level lines.

use super::redistributor::{After, Redistributor, bits};
use crate::{IntId, ListRegister, ListRegisters};

impl Redistributor {
    /// Raises an interrupt that is not open, or while others wait for a list register.
    #[cold]
    pub(super) fn raise_waiting(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        value: ListRegister,
    ) -> After {
        // Cleared, then raised: what is in the list register may stay, a level as the line's.
        if value.wants_eoi() {
            self.soft &= !(self.unpend & intid.bit());
        }
        self.unpend &= !intid.bit();
        if self.open & intid.bit() == 0 {
            self.keep(intid, value);
            return After::Resume;
        }
        if let Some(slot) = self.find(intid) {
            if !lrs.read(slot as usize).is_inactive() {
                return self.merge(lrs, slot, intid, value);
            }
            self.vacate(lrs, slot);
        }
        self.keep(intid, value);
        After::Settle
    }

    /// Raises an interrupt that the guest has in list register `slot`.
    #[cold]
    pub(super) fn merge(
        &mut self,
        lrs: &mut impl ListRegisters,
        slot: u32,
        intid: IntId,
        raised: ListRegister,
    ) -> After {
        let current = lrs.read(slot as usize);
        if current.is_hardware() {
            // The physical interrupt comes again by itself once the guest has ended this one.
            return After::Resume;
        }
        // An edge has to be remembered, a level is looked at again when the guest ends it.
        let set = if raised.wants_eoi() {
            ListRegister::EOI
        } else {
            ListRegister::PENDING
        };
        if !raised.wants_eoi() {
            self.soft |= intid.bit();
        }
        lrs.write(slot as usize, current.with(set, 0));
        // While others wait, what is pending and active may have to wait with them.
        if self.waiting {
            After::Settle
        } else {
            After::Resume
        }
    }

    /// Keeps what is pending in the list register `lr`, unless a write of ICPENDR has cleared it meanwhile.
    pub(super) fn keep_listed(&mut self, intid: IntId, lr: ListRegister) {
        if self.unpend & intid.bit() == 0 || lr.is_hardware() {
            self.keep(intid, lr);
        }
        self.unpend &= !intid.bit();
    }

    /// Keeps an interrupt here.
    pub(super) fn keep(&mut self, intid: IntId, value: ListRegister) {
        if value.wants_eoi() && (self.soft | self.edge) & intid.bit() == 0 {
            return; // A level: `line` remembers it.
        }
        self.latched |= intid.bit();
        if value.is_hardware()
            && let Some(physical) = self.physical.get_mut(intid.get() as usize)
        {
            *physical = value.physical() as u16;
            self.linked |= intid.bit();
        }
    }

    /// Raises an interrupt while every list register has an occupant.
    #[cold]
    pub(super) fn raise_when_full(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        value: ListRegister,
    ) -> After {
        let finished = lrs.empty() & self.used();
        match bits(finished).find(|&slot| self.occupant(slot).is_private()) {
            Some(slot) => {
                self.vacate(lrs, slot);
                self.latched &= !intid.bit();
                self.place(lrs, slot, intid, value);
                After::Resume
            }
            None => {
                self.keep(intid, value);
                After::Settle
            }
        }
    }

    /// Raises a level PPI.
    pub(super) fn raise_level(&mut self, lrs: &mut impl ListRegisters, intid: IntId) -> After {
        if self.soft & intid.bit() != 0 && !lrs.read(self.slot_of(intid)).is_pending() {
            self.soft &= !intid.bit();
        }
        self.raise_as(lrs, intid, self.template(intid).with(ListRegister::EOI, 0))
    }

    /// Follows the falling line of a level PPI.
    pub(super) fn lower(&mut self, lrs: &mut impl ListRegisters, intid: IntId) {
        let Some(slot) = self.find(intid) else { return };
        let lr = lrs.read(slot as usize);
        if !lr.wants_eoi() {
            return;
        }
        // Nothing is to be looked at when it ends; and unless it was latched it is no longer pending.
        let soft = lr.is_pending() && self.soft & intid.bit() != 0;
        let lr = lr.with(
            0,
            ListRegister::EOI | if soft { 0 } else { ListRegister::PENDING },
        );
        if lr.is_inactive() {
            self.vacate(lrs, slot);
        } else {
            lrs.write(slot as usize, lr);
        }
    }
}
