//! Bringing list registers in line with what has changed behind them: register writes, lines,
//! routes and group enables, by whichever CPU.

use super::inbox::Notice;
use super::list_registers::ListRegisters;
use super::spi::SpiWord;
use super::spis::Spis;
use super::vcpu::{Owed, VcpuInterrupts, bits};
use crate::IntId;
use crate::lr::ListRegister;

impl VcpuInterrupts {
    /// Looks at one SPI whose word has changed.
    pub(super) fn look(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        spi: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) {
        if let Some(slot) = self.find(spi) {
            self.refresh(spis, lrs, slot, post);
        } else if !self.parked.contains(spi) {
            self.candidates.insert(spi);
            // The short way, while list registers are free and nothing waits that may be more urgent.
            if self.free != 0 && !self.waiting {
                self.fill(spis, lrs, spi);
            }
        } else if spis.word(spi).has(SpiWord::DEACTIVATE) {
            let _ = self.unpark(spis, spi, post);
        }
    }

    /// Brings the list register of an SPI in line with what its word says.
    fn refresh(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        slot: u32,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (spi, old) = (self.occupant(slot), lrs.read(slot as usize));
        if old.is_inactive() {
            self.vacate(lrs, slot);
            self.release(spis, spi, ListRegister::EMPTY, post);
            return;
        }
        let asked = SpiWord::UNPEND
            | SpiWord::DEACTIVATE
            | SpiWord::ACTIVE
            | SpiWord::LATCHED
            | SpiWord::SOFT;
        let (word, _) = spis.swap(spi, |word| {
            let soft = if updated(old, word).1 {
                SpiWord::SOFT
            } else {
                0
            };
            word.with(soft, asked)
        });
        let (lr, _) = updated(old, word);
        lrs.write(slot as usize, lr);
        let open = word.is_open(spis.groups()) && spis.is_for(word, self.index);
        if lr.is_inactive() {
            self.vacate(lrs, slot);
            self.release(spis, spi, ListRegister::EMPTY, post);
        } else if lr.is_pending() && !open {
            self.take_back(spis, lrs, slot, post);
        }
    }

    /// Looks at everything: group enables, deferred register writes, every SPI here.
    #[cold]
    pub(super) fn resync(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        self.groups = spis.groups();
        self.reopen();
        let mut owed = self.apply(lrs);
        owed.0 |= self.drop_fallen(lrs);
        for slot in bits(self.used()) {
            if !self.occupant(slot).is_private() {
                self.refresh(spis, lrs, slot, post);
            }
        }
        owed
    }

    /// Brings the list registers of the private interrupts in line with this object.
    pub(super) fn apply(&mut self, lrs: &mut impl ListRegisters) -> Owed {
        let mut owed = 0;
        for intid in bits(self.in_lr).map(IntId::private) {
            let (bit, slot) = (intid.bit(), self.slot_of(intid) as u32);
            let old = lrs.read(slot as usize);
            let lr = self.private_updated(intid, old);
            if old.is_hardware() && !old.is_inactive() && lr.is_inactive() {
                owed |= bit;
            }
            if lr.is_inactive() {
                self.vacate(lrs, slot);
                continue;
            }
            lrs.write(slot as usize, lr);
            if lr.is_active() && lr.is_hardware() && self.latched & bit != 0 {
                // What was written comes after the end of this one, which has to be seen.
                self.park_private(lrs, slot, lr);
            } else if self.open & bit == 0 {
                self.take_back_private(lrs, slot, lr);
            }
        }
        let ended = self.active & self.deactivate;
        owed |= ended & self.parked_linked;
        self.parked_linked &= !ended;
        self.active = (self.active & !ended) | (self.activate & !self.in_lr);
        self.unpend = 0;
        self.deactivate = 0;
        self.activate = 0;
        self.reopen();
        Owed(owed)
    }

    /// Returns the list register of a private interrupt after the register writes that concern it.
    fn private_updated(&mut self, intid: IntId, mut lr: ListRegister) -> ListRegister {
        let bit = intid.bit();
        if !lr.is_active() {
            lr = lr.with_priority(self.template(intid).priority());
        }
        if self.unpend & bit != 0 || !lr.is_pending() {
            self.soft &= !bit;
            self.written &= self.linked | !bit;
        }
        if self.unpend & bit != 0 {
            lr = lr.without_pending();
        }
        self.unpend &= !bit;
        if self.deactivate & bit != 0 {
            lr = lr.without_active();
        }
        if self.activate & bit != 0 && !lr.is_inactive() {
            // Linked interrupts cannot be both (ICH_LR<n>_EL2.State with HW set).
            lr = if lr.is_hardware() {
                self.latched |= self.written & bit;
                self.written &= !bit;
                lr.acknowledged()
            } else {
                lr.with_active()
            };
            self.activate &= !bit;
        }
        // One of another sender, or with a physical one behind it, waits for the end of this one.
        let latched = self.latched & !(self.by_source | self.linked);
        if latched & bit != 0 && lr.is_hardware() && lr.is_pending() {
            self.written |= bit;
            self.latched &= !bit;
        } else if latched & bit != 0 && !lr.is_inactive() && !lr.is_hardware() {
            lr = lr.with_pending();
            self.soft |= bit;
            self.latched &= !bit;
        }
        lr
    }
}

/// Returns the list register of an SPI after what its word asks for, and whether what is pending
/// there outlives the line.
fn updated(mut lr: ListRegister, word: SpiWord) -> (ListRegister, bool) {
    let high = word.is_level_high();
    if !lr.is_active() {
        lr = lr.with_priority(word.priority());
    }
    let mut soft = word.has(SpiWord::SOFT) && lr.is_pending();
    if word.has(SpiWord::UNPEND) {
        soft = false;
        if !(lr.wants_eoi() && high) {
            lr = lr.without_pending();
        }
    }
    if lr.wants_eoi() && !high && !soft {
        lr = lr.without_pending();
    }
    if word.has(SpiWord::DEACTIVATE) {
        lr = lr.without_active();
    }
    if word.has(SpiWord::ACTIVE) {
        lr = lr.with_active();
    }
    if word.has(SpiWord::LATCHED) {
        lr = lr.with_pending();
        soft = true;
    }
    let lr = if high {
        lr.asking_for_eoi()
    } else {
        lr.ending_silently()
    };
    (lr, soft)
}
