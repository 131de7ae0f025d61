//! Raising private interrupts where the short way of [`VcpuInterrupts::raise`] does not do: not open,
//! in the guest's hands already, or no list register free.

use super::list_registers::ListRegisters;
use super::vcpu::{After, VcpuInterrupts, bits};
use crate::IntId;
use crate::lr::ListRegister;

impl VcpuInterrupts {
    /// Raises an interrupt that is not open, or while others wait for a list register.
    #[cold]
    pub(super) fn raise_waiting(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        value: ListRegister,
    ) -> After {
        // Cleared, then raised: what is in the list register may stay.
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
        value: ListRegister,
    ) -> After {
        let current = lrs.read(slot as usize);
        if current.is_hardware() {
            // The physical interrupt comes again by itself once the guest has ended this one.
            return After::Resume;
        }
        if value.is_hardware() {
            self.link_listed(lrs, slot, current, value);
            return After::Resume;
        }
        self.soft |= intid.bit();
        lrs.write(slot as usize, current.with_pending());
        // While others wait, what is pending and active may have to wait with them.
        if self.waiting {
            After::Settle
        } else {
            After::Resume
        }
    }

    /// Puts a physical interrupt behind what the guest has in a list register by its own writes.
    fn link_listed(
        &mut self,
        lrs: &mut impl ListRegisters,
        slot: u32,
        current: ListRegister,
        value: ListRegister,
    ) {
        let intid = self.occupant(slot);
        if current.is_active() {
            // The physical one comes after the end of this one, and has its own.
            self.keep(intid, value);
            lrs.write(slot as usize, current.asking_for_eoi());
        } else {
            self.written |= intid.bit();
            lrs.write(slot as usize, current.linked_to(value.link().into()));
        }
        self.reopen();
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
        let bit = intid.bit();
        // Both the line and a write: whichever was here first.
        self.written |= bit
            & if value.is_hardware() {
                self.latched & !self.linked
            } else {
                self.linked
            };
        self.latched |= bit;
        if self.by_source & intid.bit() != 0 {
            self.keep_source(intid, value);
        }
        if value.is_hardware()
            && let Some(physical) = self.physical.get_mut(intid.get() as usize)
        {
            *physical = value.link();
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
}
