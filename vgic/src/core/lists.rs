//! Moving interrupts into and out of the list registers: filling by priority, taking back,
//! overflow, maintenance, saving and restoring.
//!
//! When more is pending than list registers hold, the most urgent ones have them, and a maintenance
//! interrupt asks for more when none of these is pending any longer (NPIE). When the guest has as
//! many interrupts active as there are list registers, the least urgent one is *parked* here to
//! make room: the guest ends it last, and its end is counted by the hardware (EOIcount) or trapped
//! ([`Maintenance::DEACTIVATION`]). So at least one list register is pending whenever anything waits, and the
//! maintenance interrupt cannot storm.

use super::inbox::{Inbox, Mail, Notice};
use super::interface::CpuInterface;
use super::list_registers::{ListRegisters, Maintenance, SavedListRegisters};
use super::spis::{Claim, Spis};
use super::vcpu::{Owed, VcpuInterrupts, bit, bits};
use crate::IntId;
use crate::lr::ListRegister;

/// The most urgent interrupt that waits.
struct Best {
    priority: u8,
    intid: IntId,
}

impl VcpuInterrupts {
    /// Fills the list registers by priority and asks for maintenance if more waits.
    #[cold]
    pub fn settle(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) {
        self.reap(spis, lrs, post);
        let mut waiting = false;
        while let Some(best) = self.best(spis, post) {
            if self.free == 0 && !self.make_room(spis, lrs, best.priority, post) {
                self.split(spis, lrs, best.priority, post);
                waiting = true;
                break;
            }
            self.fill(spis, lrs, best.intid);
        }
        self.arm(lrs, waiting);
    }

    /// Answers a maintenance interrupt: looks again at the levels that the guest has ended, and refills.
    pub fn maintenance(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let mut owed = self.count_ends(spis, lrs, post);
        owed.0 |= self.drop_fallen(lrs);
        self.settle(spis, lrs, post);
        owed
    }

    /// Answers a trapped deactivation ([`Maintenance::DEACTIVATION`]): ends `intid` wherever it is.
    pub fn deactivate(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let mut owed = if self.is_parked(intid) {
            self.unpark(spis, intid, post)
        } else if let Some(slot) = self.find(intid) {
            let lr = lrs.read(slot as usize);
            lrs.write(slot as usize, lr.without_active());
            Owed(if lr.is_active() && lr.is_hardware() {
                intid.bit()
            } else {
                0
            })
        } else {
            Owed::NONE
        };
        owed.0 |= self.drop_fallen(lrs);
        self.settle(spis, lrs, post);
        owed
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
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        saved: &mut SavedListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        // The timers are silent by now: their lines cannot be asked.
        let owed = self.count_ends(spis, lrs, post);
        self.settle(spis, lrs, post);
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

    /// Unloads the vCPU if its list registers hold nothing that has to be kept; otherwise [`Self::save`] does it.
    ///
    /// They may be left as they are: what they hold is inactive.
    #[inline]
    #[must_use]
    pub fn unload_quiet(&mut self, lrs: &impl ListRegisters) -> bool {
        let quiet = self.armed == Maintenance::NONE
            && self.linked | self.parked_linked | self.shared | self.used() & !lrs.empty() == 0;
        if quiet {
            self.soft &= !self.in_lr;
            self.free |= self.used();
            self.in_lr = 0;
        }
        quiet
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

    /// Turns the vCPU off (CPU_OFF) if nothing at all is going on here; returns whether that was so.
    ///
    /// The list registers may then be left as they are: what they hold is inactive. Otherwise call [`Self::power_off`] and
    /// [`Self::save`].
    #[inline]
    #[must_use]
    pub fn power_off_quiet(
        &mut self,
        inbox: &Inbox,
        spis: &Spis,
        lrs: &impl ListRegisters,
    ) -> bool {
        let quiet = inbox.is_empty()
            && self.backlog() == 0
            && self.active == 0
            && self.candidates.is_empty()
            && self.parked.is_empty()
            && self.unload_quiet(lrs);
        if quiet {
            spis.leave(self.index);
        }
        quiet
    }

    /// Turns the vCPU off (CPU_OFF): SPIs that any vCPU may take go to another one, all else is kept.
    pub fn power_off(
        &mut self,
        inbox: &Inbox,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        spis.leave(self.index);
        let owed = self.deliver(inbox, spis, lrs, post);
        let more = self.resync(spis, lrs, post);
        self.settle(spis, lrs, post);
        Owed(owed.0 | more.0)
    }

    #[cold]
    pub(super) fn deliver_more(
        &mut self,
        mail: Mail,
        inbox: &Inbox,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        for word in bits(mail.spi_words()) {
            let spi = |n| IntId::spi((word << 5 | n) as u16);
            for spi in bits(inbox.take_spis(word)).filter_map(spi) {
                self.look(spis, lrs, spi, post);
            }
        }
        if mail.has_sourced() {
            self.take_sources(inbox, lrs);
        }
        let mut owed = Owed::NONE;
        if mail.wants_resync() {
            owed = self.resync(spis, lrs, post);
        } else if self.candidates.is_empty()
            && self.backlog() == 0
            && self.armed == Maintenance::NONE
        {
            return owed;
        }
        self.settle(spis, lrs, post);
        owed
    }

    pub(super) fn backlog_passes(&self, spis: &Spis, interface: CpuInterface) -> bool {
        let private =
            bits(self.backlog()).any(|n| interface.passes(self.template(IntId::private(n))));
        private
            || self.candidates.iter().any(
                |spi| matches!(spis.look(spi, self.index), Claim::Taken(lr) if interface.passes(lr)),
            )
    }

    /// Empties a list register and forgets its occupant.
    pub(super) fn vacate(&mut self, lrs: &mut impl ListRegisters, slot: u32) {
        let intid = self.occupant(slot);
        lrs.write(slot as usize, ListRegister::EMPTY);
        self.free |= bit(slot);
        self.shared &= !bit(slot);
        if intid.is_private() {
            self.in_lr &= !intid.bit();
            self.soft &= !intid.bit();
            self.written &= self.linked | !intid.bit();
        }
    }

    /// Gives an SPI back; if it comes back here, it is a candidate.
    pub(super) fn release(
        &mut self,
        spis: &Spis,
        spi: IntId,
        last: ListRegister,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (me, candidates) = (self.index, &mut self.candidates);
        spis.release(spi, last, &mut |vcpu, notice| {
            if vcpu == me {
                candidates.insert(spi);
            } else {
                post(vcpu, notice);
            }
        });
    }

    /// Frees the list registers that the guest has finished with.
    fn reap(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let finished = (lrs.empty() | lrs.eoi_status()) & self.used();
        for slot in bits(finished) {
            let intid = self.occupant(slot);
            self.vacate(lrs, slot);
            if !intid.is_private() {
                self.release(spis, intid, ListRegister::EMPTY, post);
            }
        }
    }

    /// Returns the most urgent interrupt that waits for a list register; the lower INTID of equals.
    fn best(&mut self, spis: &Spis, post: &mut impl FnMut(u16, Notice)) -> Option<Best> {
        let mut best: Option<Best> = None;
        let mut offer = |intid: IntId, priority: u8| {
            if best.as_ref().is_none_or(|best| priority < best.priority) {
                best = Some(Best { priority, intid });
            }
        };
        for intid in bits(self.backlog()).map(IntId::private) {
            offer(intid, self.template(intid).priority());
        }
        let mut next = self.candidates.first_from(0);
        while let Some(spi) = next {
            let above = spi.spi_index().unwrap_or_default().saturating_add(1);
            next = self.candidates.first_from(above);
            match spis.look(spi, self.index) {
                Claim::Taken(lr) => offer(spi, lr.priority()),
                Claim::Nothing => {
                    self.candidates.remove(spi);
                }
                Claim::Elsewhere(vcpu) => {
                    post(vcpu, Notice::Interrupt(spi));
                    self.candidates.remove(spi);
                }
            }
        }
        best
    }

    /// Puts an interrupt that waits into the lowest free list register.
    pub(super) fn fill(&mut self, spis: &Spis, lrs: &mut impl ListRegisters, intid: IntId) {
        let slot = self.free.trailing_zeros();
        if !intid.is_private() {
            // Lost a race: it stays a candidate, and is looked at again.
            if let Claim::Taken(value) = spis.claim(intid, self.index) {
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
        }
        self.soft |= self.latched & bit;
        self.latched &= !bit;
        self.linked &= !bit;
        if self.by_source & bit != 0 {
            value = self.with_next_source(intid, value);
        }
        self.place(lrs, slot, intid, value);
    }

    /// Frees a list register for an interrupt of `priority`, if that is right.
    fn make_room(
        &mut self,
        spis: &Spis,
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
            (Some((slot, least)), _) if least > priority => self.take_back(spis, lrs, slot, post),
            (Some(_), _) | (None, None) => return false,
            (None, Some((slot, _))) => self.park(spis, lrs, slot),
        }
        true
    }

    /// Takes back what is pending besides being active, and less urgent than what waits: it must not
    /// come first because it has a list register.
    fn split(
        &mut self,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        priority: u8,
        post: &mut impl FnMut(u16, Notice),
    ) {
        for slot in bits(self.used()) {
            let lr = lrs.read(slot as usize);
            if lr.is_active() && lr.is_pending() && lr.priority() >= priority {
                self.take_back(spis, lrs, slot, post);
            }
        }
    }

    /// Takes a pending interrupt out of its list register; if it is active too, that part stays.
    pub(super) fn take_back(
        &mut self,
        spis: &Spis,
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
            lrs.write(slot as usize, lr.without_pending().asking_for_eoi());
            spis.retract(intid, lr);
            return;
        }
        self.vacate(lrs, slot);
        self.release(spis, intid, lr, post);
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
            lrs.write(slot as usize, lr.without_pending().asking_for_eoi());
        } else {
            self.vacate(lrs, slot);
        }
    }

    /// Moves an active interrupt from its list register to this object.
    fn park(&mut self, spis: &Spis, lrs: &mut impl ListRegisters, slot: u32) {
        let (intid, lr) = (self.occupant(slot), lrs.read(slot as usize));
        if intid.is_private() {
            return self.park_private(lrs, slot, lr);
        }
        spis.park(intid, lr);
        self.parked.insert(intid);
        self.vacate(lrs, slot);
    }

    pub(super) fn park_private(
        &mut self,
        lrs: &mut impl ListRegisters,
        slot: u32,
        lr: ListRegister,
    ) {
        let intid = self.occupant(slot);
        if lr.is_pending() {
            self.keep_listed(intid, lr);
        }
        self.active |= intid.bit();
        self.parked_linked |= if lr.is_hardware() { intid.bit() } else { 0 };
        self.reopen();
        self.vacate(lrs, slot);
    }

    /// Ends a parked interrupt.
    pub(super) fn unpark(
        &mut self,
        spis: &Spis,
        intid: IntId,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        if !intid.is_private() {
            self.parked.remove(intid);
            self.release(spis, intid, ListRegister::EMPTY, post);
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
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let mut owed = 0;
        if self.armed.has(Maintenance::ENTRY_NOT_PRESENT) {
            for _ in 0..lrs.take_eoi_count() {
                let private = bits(self.active)
                    .map(IntId::private)
                    .map(|id| (self.template(id).priority(), id));
                let shared = self.parked.iter().map(|id| (spis.word(id).priority(), id));
                let Some((_, intid)) = private.chain(shared).min() else {
                    break;
                };
                owed |= self.unpark(spis, intid, post).0;
            }
        }
        Owed(owed)
    }

    fn arm(&mut self, lrs: &mut impl ListRegisters, waiting: bool) {
        self.waiting = waiting;
        self.reopen();
        let mut events = Maintenance::NONE;
        if waiting {
            events = events.and(Maintenance::NO_PENDING);
        }
        if self.active != 0 || !self.parked.is_empty() {
            events = events
                .and(Maintenance::ENTRY_NOT_PRESENT)
                .and(Maintenance::DEACTIVATION);
        }
        if events == self.armed {
            return;
        }
        let counts = Maintenance::ENTRY_NOT_PRESENT;
        if events.has(counts) && !self.armed.has(counts) {
            // What was counted so far ended nothing.
            let _ = lrs.take_eoi_count();
        }
        self.armed = events;
        lrs.set_maintenance(self.armed);
    }
}
