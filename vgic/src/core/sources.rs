//! SGIs that are told apart by their sender ([`super::vcpu::Sgis::BySource`]): each sender's waits for
//! itself here, and they take turns in one list register, the lowest sender first.

use super::inbox::Inbox;
use super::list_registers::ListRegisters;
use super::vcpu::{SGI_MASK, VcpuInterrupts, bit, bits};
use crate::IntId;
use crate::lr::ListRegister;

impl VcpuInterrupts {
    /// Takes the SGIs that others have sent by [`super::inbox::Notice::Sgi`].
    #[cold]
    pub(super) fn take_sources(&mut self, inbox: &Inbox, lrs: &mut impl ListRegisters) {
        for intid in bits(self.by_source).map(IntId::private) {
            let sources = inbox.take_sources(intid);
            if sources != 0 {
                self.change_sources(lrs, intid, sources, 0);
            }
        }
    }

    /// Makes an SGI pending for the senders in `set`, and not for those in `clear`; `settle` follows.
    pub(crate) fn change_sources(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        set: u8,
        clear: u8,
    ) {
        let mut set = set;
        if let Some(slot) = self.find(intid) {
            let mut lr = lrs.read(slot as usize);
            if lr.is_pending() {
                let listed = 1_u8.wrapping_shl(source_of(lr));
                set &= !listed;
                if clear & listed != 0 {
                    lr = lr.without_pending();
                }
            }
            if lr.is_inactive() {
                self.vacate(lrs, slot);
            } else {
                lrs.write(slot as usize, lr.asking_for_eoi());
            }
        }
        let waiting = self.sources_of(intid) & !clear | set;
        self.set_sources(intid, waiting);
    }

    /// Returns the senders whose SGI waits here, a bit each; one more may be in the list register.
    pub(crate) fn sources_of(&self, intid: IntId) -> u8 {
        self.sources
            .get(intid.get() as usize)
            .copied()
            .unwrap_or_default()
    }

    fn set_sources(&mut self, intid: IntId, waiting: u8) {
        if let Some(sources) = self.sources.get_mut(intid.get() as usize) {
            *sources = waiting;
            let bit = intid.bit() & SGI_MASK;
            self.latched = (self.latched & !bit) | if waiting != 0 { bit } else { 0 };
        }
    }

    /// Returns the list register of the next sender, and keeps the SGI latched for those after it.
    pub(super) fn with_next_source(&mut self, intid: IntId, value: ListRegister) -> ListRegister {
        let waiting = self.sources_of(intid);
        let next = waiting.trailing_zeros();
        let rest = waiting & waiting.wrapping_sub(1);
        self.set_sources(intid, rest);
        let value = value.from_cpu(next as u8);
        if rest != 0 {
            value.asking_for_eoi()
        } else {
            value
        }
    }

    /// Keeps what is pending in a list register by its sender.
    pub(super) fn keep_source(&mut self, intid: IntId, value: ListRegister) {
        let waiting = self.sources_of(intid) | bit(source_of(value)) as u8;
        self.set_sources(intid, waiting);
    }
}

fn source_of(lr: ListRegister) -> u32 {
    u32::from(lr.source())
}
