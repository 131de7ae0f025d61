//! A redistributor's registers (IHI0069 sections 12.10 and 12.11): RD_base, and SGI_base 64 KiB
//! above it. No LPIs (GICR_TYPER.PLPIS = 0): their registers, and all else, are RAZ/WI.
//!
//! A register write changes this object first. What it means for the list registers follows at
//! once when the caller has them at hand, else when their owner gets a [`crate::Notice::Resync`].

use super::bank::{Access, Bank};
use super::redistributor::{After, Effect, Owed, Redistributor, SGI_MASK, bits};
use super::{bank, spec};
use crate::{IntId, ListRegister, ListRegisters, Maintenance};
use types::access::AccessWidth;
use types::affinity::Affinity;
use types::gicv3;

impl Redistributor {
    /// Reads a register of a vCPU whose list registers are `lrs`.
    #[must_use]
    pub fn read(&self, lrs: &impl ListRegisters, offset: u32, width: AccessWidth) -> u64 {
        let test = |mask: fn(ListRegister) -> bool| {
            let found =
                bits(self.in_lr).filter(|&n| mask(lrs.read(self.slot_of(IntId::private(n)))));
            found.fold(0, |mask, n| mask | IntId::private(n).bit())
        };
        self.read_frame(offset, width, |bank| match bank {
            Bank::SetPending | Bank::ClearPending => test(ListRegister::is_pending),
            Bank::SetActive | Bank::ClearActive => test(ListRegister::is_active),
            _ => 0,
        })
    }

    /// Reads a register of a vCPU that is loaded on another CPU. What its list registers have is
    /// not seen in the pending and active registers.
    #[must_use]
    pub fn read_remote(&self, offset: u32, width: AccessWidth) -> u64 {
        self.read_frame(offset, width, |_| 0)
    }

    /// Writes a register of a vCPU whose list registers are `lrs`.
    pub fn write(
        &mut self,
        lrs: &mut impl ListRegisters,
        offset: u32,
        width: AccessWidth,
        value: u64,
    ) -> Effect {
        let mut effect = Effect {
            after: After::Resume,
            owed: Owed::NONE,
        };
        if self.write_frame(offset, width, value) {
            effect.owed = self.apply(lrs);
            if self.backlog() != 0 || self.active != 0 || self.armed != Maintenance::NONE {
                effect.after = After::Settle;
            }
        }
        effect
    }

    /// Writes a register of a vCPU that is loaded on another CPU, which is to get a
    /// [`crate::Notice::Resync`] if the effect says [`After::Settle`].
    pub fn write_remote(&mut self, offset: u32, width: AccessWidth, value: u64) -> Effect {
        let after = match self.write_frame(offset, width, value) {
            true => After::Settle,
            false => After::Resume,
        };
        let owed = Owed::NONE;
        Effect { after, owed }
    }

    fn read_frame(&self, offset: u32, width: AccessWidth, listed: impl Fn(Bank) -> u32) -> u64 {
        if let Some(offset) = offset.checked_sub(gicv3::SGI_BASE) {
            let access =
                bank::decode(offset, width).filter(|access| access.first < crate::PRIVATE_COUNT);
            return access.map_or(0, |access| {
                u64::from(self.read_bank(access, listed(access.bank)))
            });
        }
        match (offset, width) {
            (gicv3::GICR_IIDR, AccessWidth::Word) => u64::from(spec::IIDR),
            (gicv3::GICR_TYPER, AccessWidth::Double) => self.typer(),
            (gicv3::GICR_TYPER, AccessWidth::Word) => self.typer() & 0xffff_ffff,
            (gicv3::GICR_TYPER_HIGH, AccessWidth::Word) => self.typer() >> 32,
            (gicv3::GICR_WAKER, AccessWidth::Word) if self.asleep => {
                u64::from(gicv3::WAKER_PROCESSOR_SLEEP | gicv3::WAKER_CHILDREN_ASLEEP)
            }
            (gicv3::PIDR2, AccessWidth::Word) => u64::from(spec::PIDR2_GICV3),
            _ => 0,
        }
    }

    fn typer(&self) -> u64 {
        let last = if self.last { gicv3::GICR_TYPER_LAST } else { 0 };
        let number = u64::from(self.index) << gicv3::GICR_TYPER_NUMBER_SHIFT;
        last | number
            | (u64::from(Affinity::of_index(self.index).bits()) << gicv3::GICR_TYPER_AFFINITY_SHIFT)
    }

    fn read_bank(&self, access: Access, listed: u32) -> u32 {
        match access.bank {
            Bank::Group => self.group,
            Bank::SetEnable | Bank::ClearEnable => self.enabled,
            Bank::SetPending | Bank::ClearPending => self.latched | listed,
            Bank::SetActive | Bank::ClearActive => self.active | listed,
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

    /// Writes a register here; returns whether the list registers may be concerned.
    fn write_frame(&mut self, offset: u32, width: AccessWidth, value: u64) -> bool {
        let Some(sgi_offset) = offset.checked_sub(gicv3::SGI_BASE) else {
            if (offset, width) == (gicv3::GICR_WAKER, AccessWidth::Word) {
                self.asleep = value as u32 & gicv3::WAKER_PROCESSOR_SLEEP != 0;
            }
            return false;
        };
        let access =
            bank::decode(sgi_offset, width).filter(|access| access.first < crate::PRIVATE_COUNT);
        access.is_some_and(|access| self.write_bank(access, value as u32))
    }

    fn write_bank(&mut self, access: Access, value: u32) -> bool {
        match access.bank {
            Bank::Group => {
                self.group = value;
                self.rebuild_templates();
            }
            Bank::SetEnable => self.enabled |= value,
            Bank::ClearEnable => self.enabled &= !value,
            Bank::SetPending => {
                self.latched |= value;
                self.unpend &= !value;
            }
            Bank::ClearPending => {
                // A linked one has its physical interrupt active: that waits for its own end.
                self.latched &= !value | self.linked;
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
        let template = ListRegister::pending(
            intid,
            priority & spec::PRIORITY_MASK,
            !self.is_group0(intid),
        );
        if let Some(slot) = self.templates.get_mut(id as usize) {
            *slot = template;
        }
    }

    fn rebuild_templates(&mut self) {
        for id in 0..crate::PRIVATE_COUNT {
            self.set_priority(id, self.template(IntId::private(id)).priority());
        }
    }
}
