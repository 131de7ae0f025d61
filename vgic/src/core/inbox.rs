//! The mailbox through which any CPU tells a vCPU of interrupts, without a lock.
//!
//! A notice is a hint, never a state: it says "look at this interrupt". The vCPU's owner looks,
//! and finds out from [`super::spis::Spis`] what is true by then. So notices may come late,
//! twice, or after the fact. For SGIs and edge PPIs the notice is the interrupt, as it is on the
//! wires of a GIC.
//!
//! One 64-bit word says it all: bits 31:0 are the private interrupts, bits 61:32 tell which words
//! of SPI bits have something, bit 62 tells of SGIs that wait by sender, bit 63 asks for a look at
//! everything. A post sets the SPI's bit
//! first and releases the summary; a take swaps the summary with acquire and the words after it.
//! A bit that is set between the two is announced by its own summary bit: it may be taken early,
//! and then an empty word is found later, which is harmless.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::IntId;
use crate::irq::SPI_MAX;

/// What an [`Inbox`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A private interrupt was raised; or something about an SPI changed: look at it.
    Interrupt(IntId),
    /// Another vCPU sent an SGI that waits by sender ([`super::vcpu::Sgis::BySource`]).
    Sgi {
        /// Which.
        intid: IntId,
        /// The sender, 0 to 7.
        source: u8,
    },
    /// Enables or groups changed: look at everything.
    Resync,
}

const SPI_WORDS: usize = SPI_MAX as usize / 32;
const SPI_SHIFT: u32 = 32;
const SPI_WORD_0: u64 = 1 << SPI_SHIFT;
const SOURCED: u64 = 1 << 62;
const RESYNC: u64 = 1 << 63;
/// Words of senders: a byte an SGI.
const SOURCE_WORDS: usize = 2;

/// The mailbox of one vCPU.
#[derive(Debug)]
pub struct Inbox {
    summary: AtomicU64,
    spis: [AtomicU32; SPI_WORDS],
    sources: [AtomicU64; SOURCE_WORDS],
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Returns an empty mailbox.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            summary: AtomicU64::new(0),
            spis: [const { AtomicU32::new(0) }; SPI_WORDS],
            sources: [const { AtomicU64::new(0) }; SOURCE_WORDS],
        }
    }

    /// Tells whether nothing has come since the last [`Self::take`].
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.summary.load(Ordering::SeqCst) == 0
    }

    /// Posts a notice; returns whether the mailbox was empty, that is, whether the owner needs a kick.
    #[must_use = "the first notice in an empty mailbox needs a kick"]
    #[inline]
    pub fn post(&self, notice: Notice) -> bool {
        match notice {
            Notice::Interrupt(intid) if intid.is_private() => self.post_private(intid),
            Notice::Interrupt(intid) => self.post_spi(intid),
            Notice::Sgi { intid, source } => self.post_sgi(intid, source),
            Notice::Resync => self.announce(RESYNC),
        }
    }

    /// Posts the SGI or PPI `intid`; returns as [`Self::post`] does.
    #[must_use = "the first notice in an empty mailbox needs a kick"]
    #[inline]
    pub fn post_private(&self, intid: IntId) -> bool {
        self.announce(u64::from(intid.bit()))
    }

    /// Posts the SPI `intid`; returns as [`Self::post`] does. SPIs above the 960th are ignored.
    #[must_use = "the first notice in an empty mailbox needs a kick"]
    #[inline]
    pub fn post_spi(&self, intid: IntId) -> bool {
        let Some(index) = intid.spi_index() else {
            return false;
        };
        let word = usize::from(index / 32);
        let Some(bits) = self.spis.get(word) else {
            return false;
        };
        bits.fetch_or(intid.bit(), Ordering::Relaxed);
        self.announce(SPI_WORD_0.wrapping_shl(word as u32))
    }

    fn post_sgi(&self, intid: IntId, source: u8) -> bool {
        let Some((word, shift)) = self.sources_of(intid) else {
            return false;
        };
        word.fetch_or(1 << (shift | u32::from(source & 7)), Ordering::Relaxed);
        self.announce(SOURCED)
    }

    fn sources_of(&self, intid: IntId) -> Option<(&AtomicU64, u32)> {
        let id = intid.get();
        let word = self.sources.get((id >> 3) as usize)?;
        Some((word, (id & 7) << 3))
    }

    #[inline]
    fn announce(&self, bits: u64) -> bool {
        self.summary.fetch_or(bits, Ordering::SeqCst) == 0
    }

    /// Takes everything that was announced; the SPIs' bits follow by [`Self::take_spis`].
    #[must_use]
    #[inline]
    pub fn take(&self) -> Mail {
        if self.summary.load(Ordering::Relaxed) == 0 {
            return Mail(0);
        }
        Mail(self.summary.swap(0, Ordering::AcqRel))
    }

    /// Forgets everything, at a system reset.
    pub fn clear(&self) {
        let _ = self.take();
        for bits in &self.spis {
            bits.store(0, Ordering::Release);
        }
        for bytes in &self.sources {
            bytes.store(0, Ordering::Release);
        }
    }

    /// Takes the senders of an SGI, a bit each.
    pub(super) fn take_sources(&self, intid: IntId) -> u8 {
        self.sources_of(intid).map_or(0, |(word, shift)| {
            let taken = word.fetch_and(!(0xff << shift), Ordering::AcqRel);
            (taken >> shift) as u8
        })
    }

    /// Takes the bits of SPI word `word` (SPIs `32 * word` to `32 * word + 31` by index).
    #[must_use]
    pub fn take_spis(&self, word: u32) -> u32 {
        self.spis
            .get(word as usize)
            .map_or(0, |bits| bits.swap(0, Ordering::AcqRel))
    }
}

/// What a [`Inbox::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mail(u64);

impl Mail {
    /// Tells whether there is nothing but private interrupts.
    #[must_use]
    #[inline]
    pub const fn is_private_only(self) -> bool {
        self.0 >> SPI_SHIFT == 0
    }

    /// Returns the private interrupts, a bit each.
    #[must_use]
    #[inline]
    pub const fn private(self) -> u32 {
        self.0 as u32
    }

    /// Returns which SPI words have something, a bit each.
    #[must_use]
    #[inline]
    pub const fn spi_words(self) -> u32 {
        ((self.0 & !(RESYNC | SOURCED)) >> SPI_SHIFT) as u32
    }

    /// Tells whether SGIs wait by sender.
    #[must_use]
    #[inline]
    pub const fn has_sourced(self) -> bool {
        self.0 & SOURCED != 0
    }

    /// Tells whether enables or groups have changed behind the owner's back.
    #[must_use]
    #[inline]
    pub const fn wants_resync(self) -> bool {
        self.0 & RESYNC != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn posts_come_out_once() {
        let inbox = Inbox::new();
        assert!(inbox.is_empty() && inbox.take() == Mail(0));
        assert!(inbox.post(Notice::Interrupt(IntId::private(3))));
        assert!(!inbox.post(Notice::Interrupt(IntId::private(3))));
        assert!(!inbox.post(Notice::Interrupt(IntId::new(991).unwrap())));
        assert!(!inbox.post(Notice::Resync));
        let mail = inbox.take();
        assert_eq!(
            (mail.private(), mail.spi_words(), mail.wants_resync()),
            (8, 1 << 29, true)
        );
        assert!(!mail.is_private_only());
        assert_eq!(
            (
                inbox.take_spis(29),
                inbox.take_spis(29),
                inbox.take_spis(30)
            ),
            (1 << 31, 0, 0)
        );
        assert!(inbox.is_empty());
        assert!(inbox.post(Notice::Interrupt(IntId::new(40).unwrap())));
        inbox.clear();
        assert!(inbox.is_empty() && inbox.take_spis(0) == 0);
    }

    #[test]
    fn senders_of_an_sgi_come_out_apart() {
        let inbox = Inbox::new();
        let sgi = |id, source| Notice::Sgi {
            intid: IntId::private(id),
            source,
        };
        assert!(inbox.post(sgi(15, 7)));
        assert!(!inbox.post(sgi(15, 0)));
        assert!(!inbox.post(sgi(8, 3)));
        let mail = inbox.take();
        assert!(mail.has_sourced() && !mail.is_private_only() && !mail.wants_resync());
        assert_eq!((mail.private(), mail.spi_words()), (0, 0));
        let taken = [15, 15, 8, 0].map(|id| inbox.take_sources(IntId::private(id)));
        assert_eq!(taken, [0x81, 0, 8, 0]);
        assert!(inbox.post(sgi(1, 1)));
        inbox.clear();
        assert_eq!(inbox.take_sources(IntId::private(1)), 0);
    }

    #[test]
    fn spis_beyond_the_last_are_ignored() {
        let inbox = Inbox::new();
        assert!(!inbox.post_spi(IntId::new(992).unwrap()));
        assert!(!inbox.post_spi(IntId::private(1)));
        assert!(inbox.is_empty());
    }

    /// Posters on several threads; every notice of a thread's own interrupt must arrive before the
    /// thread sends the next one, so a lost notice hangs the thread and fails by the count.
    #[test]
    fn no_notice_is_lost_between_threads() {
        const ROUNDS: u32 = 2_000;
        const POSTERS: u32 = 4;
        let inbox = Arc::new(Inbox::new());
        let flags: Arc<Vec<AtomicBool>> =
            Arc::new((0..POSTERS).map(|_| AtomicBool::new(false)).collect());
        let posters: Vec<_> = (0..POSTERS)
            .map(|n| {
                let (inbox, flags) = (inbox.clone(), flags.clone());
                // Two private ones, two in the same SPI word.
                let intid = if n < 2 {
                    IntId::private(n)
                } else {
                    IntId::new(32 + n).unwrap()
                };
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        flags[n as usize].store(true, Ordering::Relaxed);
                        let _kick = inbox.post(Notice::Interrupt(intid));
                        while flags[n as usize].load(Ordering::Acquire) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut taken = 0;
        for _ in 0..200_000_000_u64 {
            if taken == ROUNDS * POSTERS {
                break;
            }
            let mail = inbox.take();
            let mut seen = mail.private();
            if mail.spi_words() & 1 != 0 {
                seen |= inbox.take_spis(0);
            }
            for n in 0..POSTERS {
                if seen & (1 << n) != 0 && flags[n as usize].swap(false, Ordering::AcqRel) {
                    taken += 1;
                }
            }
            if seen == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(taken, ROUNDS * POSTERS);
        for poster in posters {
            poster.join().unwrap();
        }
    }
}
