//! The banks of a vCPU's private interrupts.
//!
//! A register write changes this object first. What it means for the list registers follows at
//! once when the caller has them at hand, else when their owner gets a [`super::inbox::Notice::Resync`].

use super::bank::{self, Access, Bank};
use super::list_registers::{ListRegisters, Maintenance};
use super::spi::PRIORITY_MASK;
use super::vcpu::{After, Effect, SGI_MASK, VcpuInterrupts, bits};
use crate::lr::ListRegister;
use crate::{IntId, PRIVATE_COUNT};

impl VcpuInterrupts {
    /// Reads registers of a vCPU whose list registers are `lrs`. What is not private reads as zero.
    pub(crate) fn read_bank(&self, lrs: &impl ListRegisters, access: Access) -> u32 {
        let test = |mask: fn(ListRegister) -> bool| {
            let found =
                bits(self.in_lr).filter(|&n| mask(lrs.read(self.slot_of(IntId::private(n)))));
            found.fold(0, |mask, n| mask | IntId::private(n).bit())
        };
        match access.bank {
            Bank::SetPending | Bank::ClearPending if access.first < PRIVATE_COUNT => {
                self.pending_here(lrs) | test(ListRegister::is_pending)
            }
            Bank::SetActive | Bank::ClearActive if access.first < PRIVATE_COUNT => {
                self.active | test(ListRegister::is_active)
            }
            _ => self.read_bank_remote(access),
        }
    }

    /// Reads registers of a vCPU that is loaded on another CPU. What its list registers have is
    /// not seen in the pending and active registers, nor that a line has fallen.
    pub(crate) fn read_bank_remote(&self, access: Access) -> u32 {
        if access.first >= PRIVATE_COUNT {
            return 0;
        }
        match access.bank {
            Bank::Group => self.group,
            Bank::SetEnable | Bank::ClearEnable => self.enabled,
            Bank::SetPending | Bank::ClearPending => self.latched,
            Bank::SetActive | Bank::ClearActive => self.active,
            Bank::Config => bank::spread_config(self.edge.wrapping_shr(access.first)),
            Bank::Priority => (0..access.count).fold(0, |value, n| {
                let priority = self
                    .template(IntId::private(access.first.wrapping_add(n)))
                    .priority();
                value | u32::from(priority).wrapping_shl(n.wrapping_mul(8))
            }),
            Bank::None => 0,
        }
    }

    /// Writes registers of a vCPU whose list registers are `lrs`. What is not private is ignored.
    pub(crate) fn write_bank(
        &mut self,
        lrs: &mut impl ListRegisters,
        access: Access,
        value: u32,
    ) -> Effect {
        let mut effect = Effect::NONE;
        if self.write_here(access, value) {
            effect.owed = self.apply(lrs);
            if self.backlog() != 0 || self.active != 0 || self.armed != Maintenance::NONE {
                effect.owed.0 |= self.drop_fallen(lrs);
                effect.after = After::Settle;
            }
        }
        effect
    }

    /// Writes registers of a vCPU that is loaded on another CPU, which is to get a
    /// [`super::inbox::Notice::Resync`] if the effect says [`After::Settle`].
    pub(crate) fn write_bank_remote(&mut self, access: Access, value: u32) -> Effect {
        let mut effect = Effect::NONE;
        if self.write_here(access, value) {
            effect.after = After::Settle;
        }
        effect
    }

    /// Writes a bank here; returns whether the list registers may be concerned.
    fn write_here(&mut self, access: Access, value: u32) -> bool {
        if access.first >= PRIVATE_COUNT {
            return false;
        }
        match access.bank {
            Bank::Group => {
                self.group = value;
                self.rebuild_templates();
            }
            Bank::SetEnable => self.enabled |= value,
            Bank::ClearEnable => self.enabled &= !value,
            Bank::SetPending => {
                self.latched |= value;
                self.written |= value & self.linked;
                self.unpend &= !value;
            }
            Bank::ClearPending => {
                // A linked one has its physical interrupt active: that waits for its own end.
                self.latched &= !value | self.linked;
                self.written &= !value;
                self.unpend |= value & self.in_lr;
            }
            Bank::SetActive => self.activate |= value,
            Bank::ClearActive => {
                self.deactivate |= value;
                self.activate &= !value;
            }
            Bank::Config => {
                let mask = 0xffff_u32.wrapping_shl(access.first) & !SGI_MASK;
                let fields = bank::gather_config(value).wrapping_shl(access.first);
                self.edge = (self.edge & !mask) | (fields & mask);
            }
            Bank::Priority => {
                for n in 0..access.count {
                    self.set_priority(
                        access.first.wrapping_add(n),
                        value.wrapping_shr(n.wrapping_mul(8)) as u8,
                    );
                }
            }
            Bank::None => return false,
        }
        self.reopen();
        true
    }

    fn set_priority(&mut self, id: u32, priority: u8) {
        let intid = IntId::private(id);
        let template =
            ListRegister::pending(intid, priority & PRIORITY_MASK, !self.is_group0(intid));
        if let Some(slot) = self.templates.get_mut(id as usize) {
            *slot = template;
        }
    }

    fn rebuild_templates(&mut self) {
        for id in 0..PRIVATE_COUNT {
            self.set_priority(id, self.template(IntId::private(id)).priority());
        }
    }
}
