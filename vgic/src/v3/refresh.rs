//! Bringing list registers in line with what has changed behind them: register writes, lines,
//! routes and group enables, by whichever CPU.

use super::distributor::Distributor;
use super::redistributor::{Owed, Redistributor, bits};
use super::spi::SpiWord;
use crate::{IntId, ListRegister, ListRegisters, Notice};

impl Redistributor {
    /// Looks at one SPI that somebody has changed.
    pub(super) fn look(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        spi: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) {
        if let Some(slot) = self.find(spi) {
            self.refresh(distributor, lrs, slot, post);
        } else if !self.parked.contains(spi) {
            self.candidates.insert(spi);
            // The short way, while list registers are free and nothing waits that may be more urgent.
            if self.free != 0 && !self.waiting {
                self.fill(distributor, lrs, spi);
            }
        } else if distributor.word(spi).has(SpiWord::DEACTIVATE) {
            let _ = self.unpark(distributor, spi, post);
        }
    }

    /// Brings the list register of an SPI in line with what the distributor says.
    fn refresh(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        slot: u32,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (spi, old) = (self.occupant(slot), lrs.read(slot as usize));
        if old.is_inactive() {
            self.vacate(lrs, slot);
            self.release(distributor, spi, ListRegister::EMPTY, post);
            return;
        }
        let asked = SpiWord::UNPEND
            | SpiWord::DEACTIVATE
            | SpiWord::ACTIVE
            | SpiWord::LATCHED
            | SpiWord::SOFT;
        let (word, _) = distributor.swap(spi, |word| {
            let soft = if updated(old, word).1 {
                SpiWord::SOFT
            } else {
                0
            };
            word.with(soft, asked)
        });
        let (lr, _) = updated(old, word);
        lrs.write(slot as usize, lr);
        let open = word.is_open(distributor.groups()) && distributor.is_for(word, self.index);
        if lr.is_inactive() {
            self.vacate(lrs, slot);
            self.release(distributor, spi, ListRegister::EMPTY, post);
        } else if lr.is_pending() && !open {
            self.take_back(distributor, lrs, slot, post);
        }
    }

    /// Looks at everything: group enables, deferred register writes, every SPI here.
    #[cold]
    pub(super) fn resync(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        self.groups = distributor.groups();
        self.reopen();
        let owed = self.apply(lrs);
        for slot in bits(self.used()) {
            if !self.occupant(slot).is_private() {
                self.refresh(distributor, lrs, slot, post);
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
            if self.open & bit == 0 {
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
        }
        if self.unpend & bit != 0 {
            lr = lr.with(0, ListRegister::PENDING);
        }
        self.unpend &= !bit;
        if self.deactivate & bit != 0 {
            lr = lr.with(0, ListRegister::ACTIVE);
        }
        if self.activate & bit != 0 && !lr.is_inactive() {
            // Linked interrupts cannot be both (ICH_LR<n>_EL2.State with HW set).
            let clear = if lr.is_hardware() {
                ListRegister::PENDING
            } else {
                0
            };
            lr = lr.with(ListRegister::ACTIVE, clear);
            self.activate &= !bit;
        }
        if self.latched & bit != 0 && !lr.is_inactive() && !lr.is_hardware() {
            lr = lr.with(ListRegister::PENDING, 0);
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
            lr = lr.with(0, ListRegister::PENDING);
        }
    }
    if lr.wants_eoi() && !high && !soft {
        lr = lr.with(0, ListRegister::PENDING);
    }
    if word.has(SpiWord::DEACTIVATE) {
        lr = lr.with(0, ListRegister::ACTIVE);
    }
    if word.has(SpiWord::ACTIVE) {
        lr = lr.with(ListRegister::ACTIVE, 0);
    }
    if word.has(SpiWord::LATCHED) {
        lr = lr.with(ListRegister::PENDING, 0);
        soft = true;
    }
    (
        lr.with(if high { ListRegister::EOI } else { 0 }, ListRegister::EOI),
        soft,
    )
}
