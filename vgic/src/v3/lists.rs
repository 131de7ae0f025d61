//! Moving interrupts into and out of the list registers: filling by priority, taking back,
//! overflow, maintenance, saving and restoring.
//!
//! When more is pending than list registers hold, the most urgent ones have them, and a maintenance
//! interrupt asks for more when none of these is pending any longer (NPIE). When the guest has as
//! many interrupts active as there are list registers, the least urgent one is *parked* here to
//! make room: the guest ends it last, and its end is counted by the hardware (EOIcount) or trapped
//! (ICC_DIR_EL1). So at least one list register is pending whenever anything waits, and the
//! maintenance interrupt cannot storm.

use super::distributor::{Claim, Distributor};
use super::redistributor::{After, Owed, Redistributor, bit, bits, passes};
use super::spi::SpiWord;
use crate::irq::SPI_MAX;
use crate::{
    Inbox, IntId, ListRegister, ListRegisters, Mail, Maintenance, Notice, SavedListRegisters,
};

const SET_WORDS: usize = SPI_MAX as usize / 32;

/// A set of SPIs with a summary of the words that are not zero.
#[derive(Debug)]
pub(super) struct SpiSet {
    summary: u32,
    words: [u32; SET_WORDS],
}

impl SpiSet {
    pub(super) const EMPTY: Self = Self {
        summary: 0,
        words: [0; SET_WORDS],
    };

    fn word_of(spi: IntId) -> u32 {
        u32::from(spi.spi_index().unwrap_or_default() >> 5)
    }

    pub(super) fn insert(&mut self, spi: IntId) {
        let word = Self::word_of(spi);
        if let Some(bits) = self.words.get_mut(word as usize) {
            *bits |= spi.bit();
            self.summary |= bit(word);
        }
    }

    pub(super) fn remove(&mut self, spi: IntId) {
        let word = Self::word_of(spi);
        if let Some(bits) = self.words.get_mut(word as usize) {
            *bits &= !spi.bit();
            if *bits == 0 {
                self.summary &= !bit(word);
            }
        }
    }

    pub(super) fn contains(&self, spi: IntId) -> bool {
        self.words
            .get(Self::word_of(spi) as usize)
            .is_some_and(|bits| bits & spi.bit() != 0)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.summary == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = IntId> {
        bits(self.summary).flat_map(|word| {
            let set = self.words.get(word as usize).copied().unwrap_or_default();
            bits(set).filter_map(move |n| spi_at(word, n))
        })
    }
}

/// Returns the SPI of bit `n` in SPI word `word`.
fn spi_at(word: u32, n: u32) -> Option<IntId> {
    IntId::spi(((word << 5) | n) as u16)
}

/// The most urgent interrupt that waits.
struct Best {
    priority: u8,
    intid: IntId,
}

impl Redistributor {
    /// Fills the list registers by priority and asks for maintenance if more waits.
    #[cold]
    pub fn settle(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) {
        self.reap(distributor, lrs, post);
        let mut waiting = false;
        while let Some(best) = self.best(distributor, post) {
            if self.free == 0 && !self.make_room(distributor, lrs, best.priority, post) {
                self.split(distributor, lrs, best.priority, post);
                waiting = true;
                break;
            }
            self.fill(distributor, lrs, best.intid);
        }
        self.arm(lrs, waiting);
    }

    /// Answers a maintenance interrupt: looks again at the levels that the guest has ended, and refills.
    pub fn maintenance(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let owed = self.count_ends(distributor, lrs, post);
        self.settle(distributor, lrs, post);
        owed
    }

    /// Answers a trapped write of ICC_DIR_EL1 ([`Maintenance::TRAP_DIR`]): ends `intid` wherever it is.
    pub fn deactivate(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let owed = if self.is_parked(intid) {
            self.unpark(distributor, intid, post)
        } else if let Some(slot) = self.find(intid) {
            let lr = lrs.read(slot as usize);
            lrs.write(slot as usize, lr.with(0, ListRegister::ACTIVE));
            Owed(if lr.is_active() && lr.is_hardware() {
                intid.bit()
            } else {
                0
            })
        } else {
            Owed::NONE
        };
        self.settle(distributor, lrs, post);
        owed
    }

    /// Takes a hardware interrupt back whose line fell before the guest acknowledged it.
    pub fn withdraw_hardware(&mut self, lrs: &mut impl ListRegisters, intid: IntId) -> Owed {
        let bit = intid.bit();
        if self.linked & bit != 0 {
            self.linked &= !bit;
            self.latched &= !bit;
            return Owed(bit);
        }
        let Some(slot) = self.find(intid) else {
            return Owed::NONE;
        };
        let lr = lrs.read(slot as usize);
        if !lr.is_hardware() || !lr.is_pending() {
            return Owed::NONE;
        }
        self.vacate(lrs, slot);
        Owed(bit)
    }

    /// Returns the PPIs whose physical interrupt is active on this vCPU's behalf.
    #[must_use]
    pub fn linked(&self, lrs: &impl ListRegisters) -> u32 {
        let in_lists = bits(self.used())
            .map(|slot| (slot, lrs.read(slot as usize)))
            .filter(|(_, lr)| lr.is_hardware() && !lr.is_inactive())
            .fold(0, |mask, (slot, _)| mask | self.occupant(slot).bit());
        in_lists | self.linked | self.parked_linked
    }

    /// Unloads the vCPU: moves its list registers to `saved` and leaves the hardware's empty.
    pub fn save(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        saved: &mut SavedListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let owed = self.maintenance(distributor, lrs, post);
        for slot in bits(self.used()) {
            saved.write(slot as usize, lrs.read(slot as usize));
            lrs.write(slot as usize, ListRegister::EMPTY);
        }
        for slot in bits(self.free) {
            saved.write(slot as usize, ListRegister::EMPTY);
        }
        saved.set_maintenance(self.armed);
        lrs.set_maintenance(Maintenance::NONE);
        owed
    }

    /// Loads the vCPU: moves `saved` to the hardware's list registers, which are empty.
    pub fn restore(&self, lrs: &mut impl ListRegisters, saved: &SavedListRegisters) {
        for slot in bits(self.used()) {
            lrs.write(slot as usize, saved.read(slot as usize));
        }
        if self.armed != Maintenance::NONE {
            let _ = lrs.take_eoi_count();
            lrs.set_maintenance(self.armed);
        }
    }

    /// Turns the vCPU off (CPU_OFF): SPIs that any vCPU may take go to another one, all else is kept.
    pub fn power_off(
        &mut self,
        inbox: &Inbox,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        distributor.leave(self.index);
        let owed = self.deliver(inbox, distributor, lrs, post);
        let more = self.resync(distributor, lrs, post);
        self.settle(distributor, lrs, post);
        Owed(owed.0 | more.0)
    }

    #[cold]
    pub(super) fn deliver_more(
        &mut self,
        mail: Mail,
        inbox: &Inbox,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        for word in bits(mail.spi_words()) {
            for spi in bits(inbox.take_spis(word)).filter_map(|n| spi_at(word, n)) {
                self.look(distributor, lrs, spi, post);
            }
        }
        let owed = if mail.wants_resync() {
            self.resync(distributor, lrs, post)
        } else {
            Owed::NONE
        };
        self.settle(distributor, lrs, post);
        owed
    }

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
    fn keep_listed(&mut self, intid: IntId, lr: ListRegister) {
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

    pub(super) fn backlog_passes(&self, distributor: &Distributor, ich_vmcr: u64) -> bool {
        let private =
            bits(self.backlog()).any(|n| passes(self.template(IntId::private(n)), ich_vmcr));
        private
            || self.candidates.iter().any(
                |spi| matches!(distributor.look(spi, self.index), Claim::Taken(lr) if passes(lr, ich_vmcr)),
            )
    }

    /// Empties a list register and forgets its occupant.
    fn vacate(&mut self, lrs: &mut impl ListRegisters, slot: u32) {
        let intid = self.occupant(slot);
        lrs.write(slot as usize, ListRegister::EMPTY);
        self.free |= bit(slot);
        if intid.is_private() {
            self.in_lr &= !intid.bit();
            self.soft &= !intid.bit();
        }
    }

    /// Gives an SPI back to the distributor; if it comes back here, it is a candidate.
    fn release(
        &mut self,
        distributor: &Distributor,
        spi: IntId,
        last: ListRegister,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (me, candidates) = (self.index, &mut self.candidates);
        distributor.release(spi, last, &mut |vcpu, notice| {
            if vcpu == me {
                candidates.insert(spi)
            } else {
                post(vcpu, notice)
            }
        });
    }

    /// Frees the list registers that the guest has finished with.
    fn reap(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let finished = (lrs.empty() | lrs.eoi_status()) & self.used();
        for slot in bits(finished) {
            let intid = self.occupant(slot);
            self.vacate(lrs, slot);
            if !intid.is_private() {
                self.release(distributor, intid, ListRegister::EMPTY, post);
            }
        }
    }

    /// Returns the most urgent interrupt that waits for a list register; the lower INTID of equals.
    fn best(
        &mut self,
        distributor: &Distributor,
        post: &mut impl FnMut(u16, Notice),
    ) -> Option<Best> {
        let mut best: Option<Best> = None;
        let mut offer = |intid: IntId, priority: u8| {
            if best.as_ref().is_none_or(|best| priority < best.priority) {
                best = Some(Best { priority, intid });
            }
        };
        for intid in bits(self.backlog()).map(IntId::private) {
            offer(intid, self.template(intid).priority());
        }
        let mut stale = SpiSet::EMPTY;
        for spi in self.candidates.iter() {
            match distributor.look(spi, self.index) {
                Claim::Taken(lr) => offer(spi, lr.priority()),
                Claim::Nothing => stale.insert(spi),
                Claim::Elsewhere(vcpu) => {
                    post(vcpu, Notice::Interrupt(spi));
                    stale.insert(spi);
                }
            }
        }
        for spi in stale.iter() {
            self.candidates.remove(spi);
        }
        best
    }

    /// Puts an interrupt that waits into the lowest free list register.
    fn fill(&mut self, distributor: &Distributor, lrs: &mut impl ListRegisters, intid: IntId) {
        let slot = self.free.trailing_zeros();
        if !intid.is_private() {
            // Lost a race: it stays a candidate, and is looked at again.
            if let Claim::Taken(value) = distributor.claim(intid, self.index) {
                self.candidates.remove(intid);
                self.place(lrs, slot, intid, value);
            }
            return;
        }
        let bit = intid.bit();
        let mut value = self.template(intid);
        if self.linked & bit != 0 {
            let physical = self
                .physical
                .get(intid.get() as usize)
                .copied()
                .unwrap_or_default();
            value = value.linked_to(u32::from(physical));
        } else if self.line & !self.edge & bit != 0 {
            value = value.with(ListRegister::EOI, 0);
        }
        self.soft |= self.latched & bit;
        self.latched &= !bit;
        self.linked &= !bit;
        self.place(lrs, slot, intid, value);
    }

    /// Frees a list register for an interrupt of `priority`, if that is right.
    fn make_room(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        priority: u8,
        post: &mut impl FnMut(u16, Notice),
    ) -> bool {
        let (mut pending, mut active) = (None, None);
        for slot in bits(self.used()) {
            let lr = lrs.read(slot as usize);
            let worst = if lr.is_active() {
                &mut active
            } else {
                &mut pending
            };
            if worst.is_none_or(|(_, most)| lr.priority() >= most) {
                *worst = Some((slot, lr.priority()));
            }
        }
        match (pending, active) {
            (Some((slot, least)), _) if least > priority => {
                self.take_back(distributor, lrs, slot, post)
            }
            (Some(_), _) | (None, None) => return false,
            (None, Some((slot, _))) => self.park(distributor, lrs, slot),
        }
        true
    }

    /// Takes back what is pending besides being active, and less urgent than what waits: it must not
    /// come first because it has a list register.
    fn split(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        priority: u8,
        post: &mut impl FnMut(u16, Notice),
    ) {
        for slot in bits(self.used()) {
            let lr = lrs.read(slot as usize);
            if lr.is_active() && lr.is_pending() && lr.priority() >= priority {
                self.take_back(distributor, lrs, slot, post);
            }
        }
    }

    /// Takes a pending interrupt out of its list register; if it is active too, that part stays.
    pub(super) fn take_back(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        slot: u32,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (intid, lr) = (self.occupant(slot), lrs.read(slot as usize));
        if intid.is_private() {
            return self.take_back_private(lrs, slot, lr);
        }
        if lr.is_active() {
            // Another vCPU may have to take what is latched as soon as this one ends.
            lrs.write(
                slot as usize,
                lr.with(ListRegister::EOI, ListRegister::PENDING),
            );
            distributor.retract(intid, lr);
            return;
        }
        self.vacate(lrs, slot);
        self.release(distributor, intid, lr, post);
    }

    pub(super) fn take_back_private(
        &mut self,
        lrs: &mut impl ListRegisters,
        slot: u32,
        lr: ListRegister,
    ) {
        let intid = self.occupant(slot);
        if !lr.is_pending() {
            return;
        }
        self.keep_listed(intid, lr);
        if lr.is_active() {
            lrs.write(
                slot as usize,
                lr.with(ListRegister::EOI, ListRegister::PENDING),
            );
        } else {
            self.vacate(lrs, slot);
        }
    }

    /// Moves an active interrupt from its list register to this object.
    fn park(&mut self, distributor: &Distributor, lrs: &mut impl ListRegisters, slot: u32) {
        let (intid, lr) = (self.occupant(slot), lrs.read(slot as usize));
        if intid.is_private() {
            if lr.is_pending() {
                self.keep_listed(intid, lr);
            }
            self.active |= intid.bit();
            self.parked_linked |= if lr.is_hardware() { intid.bit() } else { 0 };
            self.reopen();
        } else {
            distributor.park(intid, lr);
            self.parked.insert(intid);
        }
        self.vacate(lrs, slot);
    }

    /// Ends a parked interrupt.
    fn unpark(
        &mut self,
        distributor: &Distributor,
        intid: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        if !intid.is_private() {
            self.parked.remove(intid);
            self.release(distributor, intid, ListRegister::EMPTY, post);
            return Owed::NONE;
        }
        let owed = Owed(self.parked_linked & intid.bit());
        self.active &= !intid.bit();
        self.parked_linked &= !intid.bit();
        self.reopen();
        owed
    }

    /// Ends as many parked interrupts as the guest has ended without a list register: the most
    /// urgent first, for that is the order in which priorities drop.
    fn count_ends(
        &mut self,
        distributor: &Distributor,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let mut owed = 0;
        if self.armed.0 & Maintenance::ENTRY_NOT_PRESENT != 0 {
            for _ in 0..lrs.take_eoi_count() {
                let private = bits(self.active)
                    .map(IntId::private)
                    .map(|id| (self.template(id).priority(), id));
                let spis = self
                    .parked
                    .iter()
                    .map(|id| (distributor.word(id).priority(), id));
                let Some((_, intid)) = private.chain(spis).min() else {
                    break;
                };
                owed |= self.unpark(distributor, intid, post).0;
            }
        }
        Owed(owed)
    }

    fn arm(&mut self, lrs: &mut impl ListRegisters, waiting: bool) {
        self.waiting = waiting;
        self.reopen();
        let mut events = 0;
        if waiting {
            events |= Maintenance::NO_PENDING;
        }
        if self.active != 0 || !self.parked.is_empty() {
            events |= Maintenance::ENTRY_NOT_PRESENT | Maintenance::TRAP_DIR;
        }
        if events == self.armed.0 {
            return;
        }
        if events & !self.armed.0 & Maintenance::ENTRY_NOT_PRESENT != 0 {
            // What was counted so far ended nothing.
            let _ = lrs.take_eoi_count();
        }
        self.armed = Maintenance(events);
        lrs.set_maintenance(self.armed);
    }

    /// Looks at one SPI that somebody has changed.
    fn look(
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
        if self.unpend & bit != 0 && !(lr.wants_eoi() && self.line & bit != 0) {
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
