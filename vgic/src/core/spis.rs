//! The SPIs of a virtual machine, and which vCPU takes them.
//!
//! There is no lock. Each SPI is one atomic word ([`SpiWord`]), changed by compare-and-swap, and
//! after every change its maker tells the one vCPU that is concerned: the holder if there is
//! one, else the target if the SPI has become deliverable. The vCPU that is told looks at the word
//! again under its own lock, so a notice that comes late or twice does no harm.
//!
//! Words, group enables and participants are accessed sequentially consistent: "change mine, then
//! look at yours" must not miss on both sides. On arm64 that costs nothing over acquire and release.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::inbox::Notice;
use super::route::Route;
use super::spi::SpiWord;
use crate::IntId;
use crate::irq::SPI_MAX;
use crate::lr::ListRegister;

const REGISTER_SPIS: u16 = 32;
const PARTICIPANT_BITS: u16 = 64;

/// The SPIs of one virtual machine.
#[derive(Debug)]
pub struct Spis {
    words: Box<[AtomicU64]>,
    /// [`super::spi::ENABLE_GROUP0`] and [`super::spi::ENABLE_GROUP1`].
    groups: AtomicU32,
    /// vCPUs that take 1-of-N SPIs, a bit each.
    participants: Box<[AtomicU64]>,
    /// Whether a 1-of-N SPI may have found no participant.
    orphans: AtomicBool,
    vcpus: u16,
    /// The word of each SPI after a reset.
    reset: SpiWord,
}

/// What a vCPU got when it reached for an SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It holds the SPI now, and is to put this into a list register.
    Taken(ListRegister),
    /// There is nothing to take.
    Nothing,
    /// The SPI goes to another vCPU.
    Elsewhere(u16),
}

impl Spis {
    /// Returns SPIs in their reset state.
    ///
    /// `spi_count` is rounded up to a multiple of 32 within 32 to 960; `vcpu_count` is the number of
    /// possible vCPUs, held ones included.
    #[must_use]
    pub fn new(spi_count: u16, vcpu_count: u16) -> Self {
        let count = spi_count
            .clamp(REGISTER_SPIS, SPI_MAX)
            .next_multiple_of(REGISTER_SPIS);
        let participant_words = vcpu_count.div_ceil(PARTICIPANT_BITS).max(1);
        Self {
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
            groups: AtomicU32::new(0),
            participants: (0..participant_words).map(|_| AtomicU64::new(0)).collect(),
            orphans: AtomicBool::new(false),
            vcpus: vcpu_count,
            reset: SpiWord::default(),
        }
    }

    /// Returns these SPIs going to no vCPU until the guest says where, as a GICv2's do; without this they go to the first.
    #[must_use]
    pub fn unrouted(self) -> Self {
        let reset = SpiWord::default().with_route(Route::Among(0));
        let spis = Self { reset, ..self };
        spis.reset();
        spis
    }

    /// Returns to the state after a system reset; all lines low, no vCPU participating.
    ///
    /// The caller resets the vCPUs' interrupts and inboxes too, while no vCPU runs.
    pub fn reset(&self) {
        for word in &self.words {
            word.store(self.reset.0, Ordering::Release);
        }
        for word in &self.participants {
            word.store(0, Ordering::Release);
        }
        self.groups.store(0, Ordering::Release);
        self.orphans.store(false, Ordering::Release);
    }

    /// Returns the number of SPIs.
    #[must_use]
    pub fn spi_count(&self) -> u16 {
        self.words.len() as u16
    }

    /// Returns the number of possible vCPUs.
    pub(crate) fn vcpu_count(&self) -> u16 {
        self.vcpus
    }

    /// Makes a vCPU a candidate for SPIs that any one vCPU may take; to be called when it goes on.
    pub fn join(&self, vcpu: u16, post: &mut impl FnMut(u16, Notice)) {
        if let Some(word) = self.participants.get(usize::from(vcpu / PARTICIPANT_BITS)) {
            word.fetch_or(participant_bit(vcpu), Ordering::SeqCst);
        }
        if self.orphans.load(Ordering::SeqCst) && self.orphans.swap(false, Ordering::SeqCst) {
            self.announce_all(post);
        }
    }

    /// Takes a vCPU from the candidates for 1-of-N SPIs; to be called when it goes off, before
    /// [`super::vcpu::VcpuInterrupts::power_off`].
    pub fn leave(&self, vcpu: u16) {
        if let Some(word) = self.participants.get(usize::from(vcpu / PARTICIPANT_BITS)) {
            word.fetch_and(!participant_bit(vcpu), Ordering::SeqCst);
        }
    }

    /// Sets the level of an SPI's line. A rising edge is latched if the guest has configured edges.
    #[inline]
    pub fn set_level(&self, spi: IntId, high: bool, post: &mut impl FnMut(u16, Notice)) {
        self.update(spi, post, |word| match (high, word.has(SpiWord::LINE)) {
            (true, false) if word.has(SpiWord::EDGE) => {
                word.with(SpiWord::LINE | SpiWord::LATCHED, 0)
            }
            (true, false) => word.with(SpiWord::LINE, 0),
            (false, true) => word.with(0, SpiWord::LINE),
            _ => word,
        });
    }

    /// Sends an edge: it is latched, also while the SPI is active or masked, whatever the guest has configured.
    #[inline]
    pub fn pulse(&self, spi: IntId, post: &mut impl FnMut(u16, Notice)) {
        self.update(spi, post, |word| word.with(SpiWord::LATCHED, 0));
    }

    /// Returns the group enables.
    #[inline]
    pub(crate) fn groups(&self) -> u32 {
        self.groups.load(Ordering::SeqCst)
    }

    /// Replaces the group enables; all vCPUs look at everything when they change.
    pub(crate) fn set_groups(&self, groups: u32, post: &mut impl FnMut(u16, Notice)) {
        if self.groups.swap(groups, Ordering::SeqCst) == groups {
            return;
        }
        for vcpu in 0..self.vcpus {
            post(vcpu, Notice::Resync);
        }
        self.announce_all(post);
    }

    /// Returns the word of an SPI; of one that does not exist, one that can never be pending.
    #[inline]
    pub(crate) fn word(&self, spi: IntId) -> SpiWord {
        self.cell(spi).map_or_else(SpiWord::default, |cell| {
            SpiWord(cell.load(Ordering::SeqCst))
        })
    }

    #[inline]
    fn cell(&self, spi: IntId) -> Option<&AtomicU64> {
        self.words.get(usize::from(spi.spi_index()?))
    }

    /// Changes the word of an SPI and tells the vCPU that is concerned.
    #[inline]
    pub(crate) fn update(
        &self,
        spi: IntId,
        post: &mut impl FnMut(u16, Notice),
        change: impl Fn(SpiWord) -> SpiWord,
    ) {
        self.update_inlined(spi, post, change);
    }

    /// As [`Self::update`], on the way that a guest's driver takes most: each face has a copy.
    #[inline(always)]
    pub(super) fn update_inlined(
        &self,
        spi: IntId,
        post: &mut impl FnMut(u16, Notice),
        change: impl Fn(SpiWord) -> SpiWord,
    ) {
        let (old, new) = self.swap(spi, change);
        if old == new {
            return;
        }
        if let Some(holder) = new.holder() {
            post(holder, Notice::Interrupt(spi));
        } else {
            self.announce(spi, new, post);
        }
    }

    /// Changes the word of an SPI; returns it as it was and as it is.
    #[inline]
    pub(crate) fn swap(
        &self,
        spi: IntId,
        change: impl Fn(SpiWord) -> SpiWord,
    ) -> (SpiWord, SpiWord) {
        let Some(cell) = self.cell(spi) else {
            return (SpiWord::default(), SpiWord::default());
        };
        let mut old = cell.load(Ordering::SeqCst);
        loop {
            let new = change(SpiWord(old)).0;
            if new == old {
                return (SpiWord(old), SpiWord(old));
            }
            match cell.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return (SpiWord(old), SpiWord(new)),
                Err(now) => old = now,
            }
        }
    }

    /// Tells the target of an SPI, if it is deliverable.
    #[inline]
    fn announce(&self, spi: IntId, word: SpiWord, post: &mut impl FnMut(u16, Notice)) {
        if !word.is_deliverable(self.groups()) {
            return;
        }
        while let Some(vcpu) = self.target(word) {
            post(vcpu, Notice::Interrupt(spi));
            // A vCPU that leaves empties its inbox afterwards, so it has either seen this notice or
            // is seen to have left here.
            if !word.has(SpiWord::ANY) || self.participates(vcpu) {
                break;
            }
        }
    }

    fn announce_all(&self, post: &mut impl FnMut(u16, Notice)) {
        for spi in (0..self.spi_count()).filter_map(IntId::spi) {
            self.announce(spi, self.word(spi), post);
        }
    }

    /// Returns the vCPU that should take an SPI, `None` if its route leads nowhere now.
    fn target(&self, word: SpiWord) -> Option<u16> {
        if !word.has(SpiWord::ANY) {
            return self.index_of(word);
        }
        let first = self.first_participant(word);
        if first.is_none() {
            // Publish first, look again after: `join` does the opposite.
            self.orphans.store(true, Ordering::SeqCst);
            return self.first_participant(word);
        }
        first
    }

    /// Returns the vCPU that a route without [`SpiWord::ANY`] leads to.
    #[inline]
    fn index_of(&self, word: SpiWord) -> Option<u16> {
        let index = word.target();
        (index < u32::from(self.vcpus)).then_some(index as u16)
    }

    /// Returns the lowest vCPU that takes part, and is in the word's set if it has one.
    fn first_participant(&self, word: SpiWord) -> Option<u16> {
        let mut base = 0_u16;
        for participants in &self.participants {
            let bits = participants.load(Ordering::SeqCst) & set_of(word, base);
            if bits != 0 {
                return Some(base.wrapping_add(bits.trailing_zeros() as u16));
            }
            base = base.wrapping_add(PARTICIPANT_BITS);
        }
        None
    }

    fn participates(&self, vcpu: u16) -> bool {
        let word = self.participants.get(usize::from(vcpu / PARTICIPANT_BITS));
        word.is_some_and(|word| word.load(Ordering::SeqCst) & participant_bit(vcpu) != 0)
    }

    /// Tells whether the vCPU `me` may take the SPI.
    #[inline]
    pub(crate) fn is_for(&self, word: SpiWord, me: u16) -> bool {
        if word.has(SpiWord::ANY) {
            self.participates(me) && in_set(word, me)
        } else {
            self.index_of(word) == Some(me)
        }
    }

    /// Tells whether vCPU `me` should take the SPI now, without taking it.
    pub(crate) fn look(&self, spi: IntId, me: u16) -> Claim {
        let word = self.word(spi);
        if !word.is_deliverable(self.groups()) {
            Claim::Nothing
        } else if self.is_for(word, me) {
            Claim::Taken(word.list_register(spi))
        } else {
            self.target(word).map_or(Claim::Nothing, Claim::Elsewhere)
        }
    }

    /// Takes an SPI for vCPU `me`: what was latched moves to the list register returned.
    pub(crate) fn claim(&self, spi: IntId, me: u16) -> Claim {
        let groups = self.groups();
        let takes = |word: SpiWord| word.is_deliverable(groups) && self.is_for(word, me);
        let (old, _) = self.swap(spi, |word| {
            let soft = if word.has(SpiWord::LATCHED) {
                SpiWord::SOFT
            } else {
                0
            };
            if takes(word) {
                word.with(soft, SpiWord::LATCHED).held_by(me)
            } else {
                word
            }
        });
        if takes(old) {
            Claim::Taken(old.list_register(spi))
        } else {
            self.look(spi, me)
        }
    }

    /// Gives up an SPI that the caller holds, and tells its next taker. `last` is what its list
    /// register said: what is pending there, and not by its line alone, is latched again.
    pub(crate) fn release(
        &self,
        spi: IntId,
        last: ListRegister,
        post: &mut impl FnMut(u16, Notice),
    ) {
        let (_, new) = self.swap(spi, |word| {
            word.latched_from(last).with(0, SpiWord::ACTIVE).released()
        });
        self.announce(spi, new, post);
    }

    /// Takes what is pending back from the list register `last`; the caller holds the SPI further.
    pub(crate) fn retract(&self, spi: IntId, last: ListRegister) {
        self.swap(spi, |word| word.latched_from(last));
    }

    /// Makes the SPI active outside the list register `last`; the caller holds it further.
    pub(crate) fn park(&self, spi: IntId, last: ListRegister) {
        self.swap(spi, |word| word.latched_from(last).with(SpiWord::ACTIVE, 0));
    }
}

/// Returns the vCPUs from `base` on that may take an SPI for any, a bit each.
fn set_of(word: SpiWord, base: u16) -> u64 {
    match (word.has(SpiWord::AMONG), base) {
        (false, _) => u64::MAX,
        (true, 0) => u64::from(word.target()),
        (true, _) => 0,
    }
}

fn in_set(word: SpiWord, vcpu: u16) -> bool {
    let base = vcpu / PARTICIPANT_BITS;
    set_of(word, base) & participant_bit(vcpu) != 0
}

fn participant_bit(vcpu: u16) -> u64 {
    1 << (vcpu % PARTICIPANT_BITS)
}
