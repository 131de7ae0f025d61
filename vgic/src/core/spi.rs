//! The state of one SPI in one 64-bit word, so that one compare-and-swap moves it from one
//! consistent state to another, on whichever CPU.
//!
//! An SPI is *held* while it is in a list register of some vCPU, or active there without one; the
//! holder alone moves it on. Any other vCPU changes the word and tells the holder.

use super::route::Route;
use crate::IntId;
use crate::lr::ListRegister;

/// Group 0 is enabled for the whole machine: a bit of [`super::spis::Spis::groups`].
pub(crate) const ENABLE_GROUP0: u32 = 1 << 0;
/// Group 1 is enabled for the whole machine.
pub(crate) const ENABLE_GROUP1: u32 = 1 << 1;
/// The priority bits implemented: five, as many as the virtual CPU interface of every version has at least.
pub(crate) const PRIORITY_MASK: u8 = 0xf8;

/// The word of one SPI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpiWord(pub(crate) u64);

impl SpiWord {
    const ROUTE: u64 = 0xffff_ffff;
    const HOLDER_SHIFT: u32 = 32;
    /// Index of the holder plus one; zero is none.
    const HOLDER: u64 = 0xfff << Self::HOLDER_SHIFT;
    /// The holder is to drop what is pending.
    pub(crate) const UNPEND: u64 = 1 << 44;
    /// The holder is to deactivate it.
    pub(crate) const DEACTIVATE: u64 = 1 << 45;
    /// What is pending in the list register of a level is not its line alone, so it outlives the line.
    pub(crate) const SOFT: u64 = 1 << 46;
    const PRIORITY_SHIFT: u32 = 48;
    const PRIORITY: u64 = 0xff << Self::PRIORITY_SHIFT;
    /// ISENABLER.
    pub(crate) const ENABLED: u64 = 1 << 56;
    /// ICFGR: edge-triggered.
    pub(crate) const EDGE: u64 = 1 << 57;
    /// IGROUPR.
    pub(crate) const GROUP1: u64 = 1 << 58;
    /// The device's line is high.
    pub(crate) const LINE: u64 = 1 << 59;
    /// An edge, or a write of ISPENDR, waits.
    pub(crate) const LATCHED: u64 = 1 << 60;
    /// Active outside the list registers.
    pub(crate) const ACTIVE: u64 = 1 << 61;
    /// Any one vCPU that takes part.
    pub(crate) const ANY: u64 = 1 << 62;
    /// With [`Self::ANY`]: the route is a set of vCPUs.
    pub(crate) const AMONG: u64 = 1 << 63;

    /// Tells whether all of `bits` are set.
    #[inline]
    pub(crate) const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Returns the word with `set` set and `clear` cleared.
    #[inline]
    pub(crate) const fn with(self, set: u64, clear: u64) -> Self {
        Self((self.0 & !clear) | set)
    }

    /// Returns the index of the vCPU that holds the SPI.
    #[inline]
    pub(crate) const fn holder(self) -> Option<u16> {
        (((self.0 & Self::HOLDER) >> Self::HOLDER_SHIFT) as u16).checked_sub(1)
    }

    /// Returns the word held by the vCPU `index`.
    #[inline]
    pub(crate) const fn held_by(self, index: u16) -> Self {
        Self(
            (self.0 & !Self::HOLDER)
                | (((index as u64).wrapping_add(1)) << Self::HOLDER_SHIFT & Self::HOLDER),
        )
    }

    /// Returns the word without a holder, with nothing left to do for a holder.
    #[inline]
    pub(crate) const fn released(self) -> Self {
        self.with(
            0,
            Self::HOLDER | Self::UNPEND | Self::DEACTIVATE | Self::SOFT,
        )
    }

    /// Returns the priority.
    #[inline]
    pub(crate) const fn priority(self) -> u8 {
        (self.0 >> Self::PRIORITY_SHIFT) as u8
    }

    /// Returns the word with a priority.
    pub(crate) const fn with_priority(self, priority: u8) -> Self {
        Self(
            (self.0 & !Self::PRIORITY)
                | (((priority & PRIORITY_MASK) as u64) << Self::PRIORITY_SHIFT),
        )
    }

    /// Returns the number in the route: the index of a vCPU, or with [`Self::AMONG`] a set.
    #[inline]
    pub(crate) const fn target(self) -> u32 {
        (self.0 & Self::ROUTE) as u32
    }

    /// Returns the route.
    pub(crate) const fn route(self) -> Route {
        if !self.has(Self::ANY) {
            Route::To(self.target())
        } else if self.has(Self::AMONG) {
            Route::Among(self.target())
        } else {
            Route::Any(self.target())
        }
    }

    /// Returns the word with another route.
    pub(crate) const fn with_route(self, route: Route) -> Self {
        let (target, kind) = match route {
            Route::To(index) => (index, 0),
            Route::Any(index) => (index, Self::ANY),
            Route::Among(set) => (set, Self::ANY | Self::AMONG),
        };
        self.with(target as u64 | kind, Self::ROUTE | Self::ANY | Self::AMONG)
    }

    /// Tells whether a level line is what makes the SPI pending.
    #[inline]
    pub(crate) const fn is_level_high(self) -> bool {
        self.0 & (Self::LINE | Self::EDGE) == Self::LINE
    }

    /// Tells whether the SPI is pending outside the list registers.
    #[inline]
    pub(crate) const fn is_pending(self) -> bool {
        self.has(Self::LATCHED) || self.is_level_high()
    }

    /// Tells whether the guest lets the SPI through: enabled, and its group too (`groups` as in GICD_CTLR).
    #[inline]
    pub(crate) const fn is_open(self, groups: u32) -> bool {
        let group = if self.has(Self::GROUP1) {
            ENABLE_GROUP1
        } else {
            ENABLE_GROUP0
        };
        self.has(Self::ENABLED) && groups & group != 0
    }

    /// Tells whether some vCPU should take the SPI now.
    #[inline]
    pub(crate) const fn is_deliverable(self, groups: u32) -> bool {
        self.is_pending() && self.0 & (Self::ACTIVE | Self::HOLDER) == 0 && self.is_open(groups)
    }

    /// Returns the word with what is pending in the list register `last`, and not by the line alone, latched.
    pub(crate) const fn latched_from(self, last: ListRegister) -> Self {
        let keep = last.is_pending()
            && !self.has(Self::UNPEND)
            && (self.has(Self::SOFT) || !last.wants_eoi());
        self.with(
            if keep { Self::LATCHED } else { 0 },
            Self::SOFT | Self::UNPEND,
        )
    }

    /// Returns the list register of the SPI, pending. A level asks for EOI maintenance, to be looked at again.
    pub(crate) const fn list_register(self, intid: IntId) -> ListRegister {
        let lr = ListRegister::pending(intid, self.priority(), self.has(Self::GROUP1));
        if self.is_level_high() {
            lr.asking_for_eoi()
        } else {
            lr
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let word = SpiWord(u64::MAX).released();
        assert_eq!(
            (word.holder(), word.held_by(511).holder()),
            (None, Some(511))
        );
        assert_eq!(word.held_by(511).released(), word);
        assert_eq!(word.with_priority(0x57).priority(), 0x50);
        let routes = [
            Route::To(u32::MAX),
            Route::Any(u32::MAX),
            Route::Among(0x81),
            Route::To(0),
        ];
        for route in routes {
            assert_eq!(word.with_route(route).route(), route);
            let cleared = SpiWord::default().with_route(route).with_priority(0xff);
            let cleared = cleared.with_route(Route::To(0)).with_priority(0);
            assert_eq!(cleared, SpiWord::default());
        }
    }

    #[test]
    fn deliverable_needs_all_of_it() {
        let open = SpiWord::ENABLED | SpiWord::GROUP1;
        let table = [
            (open | SpiWord::LATCHED, 2, true),
            (open | SpiWord::LINE, 2, true),
            (open | SpiWord::LINE | SpiWord::EDGE, 2, false),
            (open, 2, false),
            (open | SpiWord::LATCHED, 1, false),
            (SpiWord::GROUP1 | SpiWord::LATCHED, 2, false),
            (SpiWord::ENABLED | SpiWord::LATCHED, 1, true),
            (open | SpiWord::LATCHED | SpiWord::ACTIVE, 3, false),
            (SpiWord(open | SpiWord::LATCHED).held_by(0).0, 3, false),
        ];
        for (word, groups, expected) in table {
            assert_eq!(
                SpiWord(word).is_deliverable(groups),
                expected,
                "{word:#x} {groups}"
            );
        }
    }
}
