//! The interrupts of one vCPU: its SGIs and PPIs, and everything that waits for its list registers.
//!
//! The calls that a trap makes on its way back to the guest are here; what is seldom needed, and
//! the moving of interrupts into and out of the list registers, is in `lists`.
//!
//! A private interrupt is in exactly one place: in a list register (`in_lr`), or here (`latched`,
//! `active`). A list register that the guest has finished with keeps its occupant until
//! another needs it, so that the next SGI of the same number finds its place at once.

use super::inbox::{Inbox, Notice};
use super::interface::CpuInterface;
use super::list_registers::{ListRegisters, Maintenance};
use super::spi::{ENABLE_GROUP0, ENABLE_GROUP1};
use super::spis::Spis;
use crate::IntId;
use crate::irq::SpiSet;
use crate::lr::{LR_MAX, ListRegister, LrState};

const PRIVATE: usize = crate::PRIVATE_COUNT as usize;
const SGIS: usize = 16;

/// What is left to do before the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an interrupt may be waiting for `settle`"]
pub enum After {
    /// Nothing.
    Resume,
    /// [`VcpuInterrupts::settle`]: more waits than fits by itself.
    Settle,
}

/// Private interrupts, a bit each, whose linked physical interrupt is to be deactivated by software.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a physical interrupt that stays active never fires again"]
pub struct Owed(pub u32);

impl Owed {
    /// Nothing to deactivate.
    pub const NONE: Self = Self(0);
}

/// What a register write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Effect {
    /// What is left to do for the vCPU whose register was written.
    pub after: After,
    /// Physical interrupts to deactivate.
    pub owed: Owed,
}

/// How a guest's GIC tells SGIs of one number from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sgis {
    /// Not at all: one is pending or not (GICv3).
    ByNumber,
    /// By the CPU that sent them: each waits for itself, and says where it comes from (GICv2).
    BySource,
}

/// The private interrupts and the list-register bookkeeping of one vCPU.
#[derive(Debug)]
pub struct VcpuInterrupts {
    /// Private interrupts that may go to a list register at once: `open`,
    /// nothing waits that may be more urgent, and no write of ICPENDR or ISPENDR is still to be seen to.
    pub(super) ready: u32,
    /// Private interrupts that may go to the guest: enabled, their group too, not in `active`.
    pub(super) open: u32,
    /// Private interrupts that occupy a list register.
    pub(super) in_lr: u32,
    /// List registers without an occupant.
    pub(super) free: u32,
    /// List registers that SPIs occupy.
    pub(super) shared: u32,
    /// Edges, SGIs and writes of ISPENDR that wait here.
    pub(super) latched: u32,
    pub(super) slot_of: [u8; PRIVATE],
    pub(super) occupants: [u16; LR_MAX],
    /// The list register of each private interrupt when it becomes pending.
    pub(super) templates: [ListRegister; PRIVATE],
    /// Active, but in no list register.
    pub(super) active: u32,
    pub(super) enabled: u32,
    pub(super) group: u32,
    pub(super) edge: u32,
    /// SGIs of which [`Self::sources`] tells the senders: all or none.
    pub(super) by_source: u32,
    /// Senders whose SGI waits here, a bit each.
    pub(super) sources: [u8; SGIS],
    /// GICD_CTLR's group enables, as of the last resync.
    pub(super) groups: u32,
    /// Levels whose list register is pending not by their line alone, so that it outlives the line.
    pub(super) soft: u32,
    /// Interrupts with a physical one behind them that the guest has made pending besides, by a
    /// write of ISPENDR: in `linked`, or pending in a list register.
    pub(super) written: u32,
    /// Latched interrupts that come from `physical`.
    pub(super) linked: u32,
    /// Active interrupts here whose physical interrupt is active too.
    pub(super) parked_linked: u32,
    pub(super) physical: [u16; PRIVATE],
    /// Writes of ICPENDR, ICACTIVER and ISACTIVER that concern list registers not at hand.
    pub(super) unpend: u32,
    pub(super) deactivate: u32,
    pub(super) activate: u32,
    /// SPIs to look at when a list register is free.
    pub(super) candidates: SpiSet,
    /// SPIs that are active here, but in no list register.
    pub(super) parked: SpiSet,
    pub(super) armed: Maintenance,
    /// More waits than list registers hold.
    pub(super) waiting: bool,
    pub(super) index: u16,
    /// Bits that the face keeps for registers of its own; zero after a reset.
    pub(crate) face: u32,
    lr_mask: u32,
}

impl Effect {
    /// Nothing is left to do.
    pub const NONE: Self = Self {
        after: After::Resume,
        owed: Owed::NONE,
    };
}

impl VcpuInterrupts {
    /// Returns the interrupts of vCPU `index` in their reset state, over `lr_count` list registers.
    #[must_use]
    pub fn new(index: u16, sgis: Sgis, lr_count: usize) -> Self {
        let count = lr_count.clamp(1, LR_MAX) as u32;
        let lr_mask = (1_u32.wrapping_shl(count)).wrapping_sub(1);
        Self {
            ready: 0,
            open: 0,
            waiting: false,
            in_lr: 0,
            free: lr_mask,
            shared: 0,
            latched: 0,
            slot_of: [0; PRIVATE],
            occupants: [0; LR_MAX],
            templates: core::array::from_fn(|n| {
                ListRegister::pending(IntId::private(n as u32), 0, false)
            }),
            active: 0,
            // SGIs that are told apart have no enable of their own at first (IHI0048 section 4.3.5).
            enabled: match sgis {
                Sgis::ByNumber => 0,
                Sgis::BySource => SGI_MASK,
            },
            group: 0,
            edge: SGI_MASK,
            by_source: match sgis {
                Sgis::ByNumber => 0,
                Sgis::BySource => SGI_MASK,
            },
            sources: [0; SGIS],
            groups: 0,
            soft: 0,
            written: 0,
            linked: 0,
            parked_linked: 0,
            physical: [0; PRIVATE],
            unpend: 0,
            deactivate: 0,
            activate: 0,
            candidates: SpiSet::EMPTY,
            parked: SpiSet::EMPTY,
            armed: Maintenance::NONE,
            index,
            face: 0,
            lr_mask,
        }
    }

    /// Returns to the reset state at a system reset; nothing else resets these, neither CPU_OFF
    /// nor the ejection of the vCPU.
    pub fn reset(&mut self, lrs: &mut impl ListRegisters) -> Owed {
        let owed = Owed(self.linked(lrs));
        for slot in bits(self.used()) {
            lrs.write(slot as usize, ListRegister::EMPTY);
        }
        lrs.set_maintenance(Maintenance::NONE);
        let sgis = match self.by_source {
            0 => Sgis::ByNumber,
            _ => Sgis::BySource,
        };
        *self = Self::new(self.index, sgis, self.lr_mask.count_ones() as usize);
        owed
    }

    /// Returns the index of the vCPU.
    #[must_use]
    #[inline]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Tells whether a private interrupt is in group 0: SGIs sent to
    /// group 0 reach no others.
    #[must_use]
    #[inline]
    pub fn is_group0(&self, intid: IntId) -> bool {
        self.group & intid.bit() == 0
    }

    /// Raises an SGI or an edge-triggered PPI.
    #[inline]
    pub fn raise(&mut self, lrs: &mut impl ListRegisters, intid: IntId) -> After {
        self.raise_as(lrs, intid, self.template(intid))
    }

    /// Raises a PPI that a physical interrupt stands behind, which is active until the guest deactivates this one.
    ///
    /// While the virtual interrupt is disabled it waits here and the physical one stays active, until
    /// [`ListRegisters::lines`] says that the line has fallen.
    #[inline]
    pub fn raise_hardware(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        physical: u32,
    ) -> After {
        self.raise_as(lrs, intid, self.template(intid).linked_to(physical))
    }

    #[inline]
    pub(super) fn raise_as(
        &mut self,
        lrs: &mut impl ListRegisters,
        intid: IntId,
        value: ListRegister,
    ) -> After {
        let bit = intid.bit();
        if self.ready & bit == 0 {
            return self.raise_waiting(lrs, intid, value);
        }
        if self.in_lr & bit != 0 {
            let slot = self.slot_of(intid);
            if !lrs.read(slot).is_inactive() {
                return self.merge(lrs, slot as u32, intid, value);
            }
            lrs.write(slot, value);
            return After::Resume;
        }
        if self.free == 0 {
            return self.raise_when_full(lrs, intid, value);
        }
        self.latched &= !bit;
        self.place(lrs, self.free.trailing_zeros(), intid, value);
        After::Resume
    }

    /// Moves what came into `inbox` to the list registers. To be called after a kick, when the vCPU
    /// is loaded, and before the guest goes on if something was posted to itself.
    #[inline]
    pub fn deliver(
        &mut self,
        inbox: &Inbox,
        spis: &Spis,
        lrs: &mut impl ListRegisters,
        post: &mut impl FnMut(u16, Notice),
    ) -> Owed {
        let mail = inbox.take();
        let mut after = After::Resume;
        let mut private = mail.private();
        while private != 0 {
            let intid = IntId::private(private.trailing_zeros());
            private &= private.wrapping_sub(1);
            if self.raise(lrs, intid) == After::Settle {
                after = After::Settle;
            }
        }
        if mail.is_private_only() && after == After::Resume {
            return Owed::NONE;
        }
        self.deliver_more(mail, inbox, spis, lrs, post)
    }

    /// Tells whether an interrupt waits that the guest's CPU interface lets through: pending, open,
    /// its group enabled there and its priority above the mask.
    ///
    /// [`Self::deliver`] comes first, this second; then the vCPU is marked as blocked, and blocks
    /// only if its inbox is still empty.
    #[must_use]
    #[inline]
    pub fn has_deliverable(
        &self,
        spis: &Spis,
        lrs: &impl ListRegisters,
        interface: CpuInterface,
    ) -> bool {
        let mut used = self.used();
        while used != 0 {
            let lr = lrs.read(used.trailing_zeros() as usize);
            used &= used.wrapping_sub(1);
            if lr.is_pending() && interface.passes(lr) {
                return true;
            }
        }
        (self.backlog() != 0 || !self.candidates.is_empty()) && self.backlog_passes(spis, interface)
    }

    /// Tells whether nothing is pending or active in a list register, and nothing waits for one: nothing can wake the vCPU.
    ///
    /// What comes into its inbox meanwhile comes with an interrupt.
    #[must_use]
    #[inline]
    pub fn is_idle(&self, lrs: &impl ListRegisters) -> bool {
        self.used() & !lrs.empty() == 0 && self.backlog() == 0 && self.candidates.is_empty()
    }

    /// Returns the list registers that have an occupant.
    #[inline]
    pub(super) fn used(&self) -> u32 {
        self.lr_mask & !self.free
    }

    /// Returns the private interrupts that wait for a list register.
    #[inline]
    pub(super) fn backlog(&self) -> u32 {
        self.latched & self.open & !self.in_lr
    }

    #[inline]
    pub(super) fn template(&self, intid: IntId) -> ListRegister {
        self.templates
            .get(intid.get() as usize & (PRIVATE - 1))
            .copied()
            .unwrap_or_default()
    }

    #[inline]
    pub(super) fn slot_of(&self, intid: IntId) -> usize {
        usize::from(
            self.slot_of
                .get(intid.get() as usize & (PRIVATE - 1))
                .copied()
                .unwrap_or_default(),
        ) & (LR_MAX - 1)
    }

    /// Puts an interrupt into the free list register `slot`.
    #[inline]
    pub(super) fn place(
        &mut self,
        lrs: &mut impl ListRegisters,
        slot: u32,
        intid: IntId,
        value: ListRegister,
    ) {
        self.free &= !bit(slot);
        if let Some(occupant) = self.occupants.get_mut(slot as usize) {
            *occupant = intid.get() as u16;
        }
        if intid.is_private() {
            self.in_lr |= intid.bit();
            if let Some(place) = self.slot_of.get_mut(intid.get() as usize) {
                *place = slot as u8;
            }
        } else {
            self.shared |= bit(slot);
        }
        lrs.write(slot as usize, value);
    }
}

/// Bits of the SGIs in a private register.
pub(super) const SGI_MASK: u32 = 0xffff;

#[inline]
pub(super) fn bit(n: u32) -> u32 {
    1_u32.wrapping_shl(n)
}

/// Returns the numbers of the bits set in `mask`, ascending.
#[inline]
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let n = mask.trailing_zeros();
        if n >= u32::BITS {
            return None;
        }
        mask &= mask.wrapping_sub(1);
        Some(n)
    })
}

impl VcpuInterrupts {
    /// Tells what list registers and this object say of an interrupt.
    #[must_use]
    pub fn held(&self, lrs: &impl ListRegisters, intid: IntId) -> LrState {
        match self.find(intid) {
            Some(slot) => lrs.read(slot as usize).state(),
            None if self.is_parked(intid) => LrState::Active,
            None => LrState::Inactive,
        }
    }

    /// Returns the list register that an interrupt occupies, as it is now.
    pub(crate) fn listed(&self, lrs: &impl ListRegisters, intid: IntId) -> Option<ListRegister> {
        self.find(intid).map(|slot| lrs.read(slot as usize))
    }

    pub(super) fn is_parked(&self, intid: IntId) -> bool {
        if intid.is_private() {
            self.active & intid.bit() != 0
        } else {
            self.parked.contains(intid)
        }
    }

    /// Returns the list register that an interrupt occupies.
    pub(super) fn find(&self, intid: IntId) -> Option<u32> {
        if intid.is_private() {
            return (self.in_lr & intid.bit() != 0).then(|| self.slot_of(intid) as u32);
        }
        bits(self.used()).find(|&slot| self.occupant(slot) == intid)
    }

    /// Returns the occupant of a used list register.
    pub(super) fn occupant(&self, slot: u32) -> IntId {
        let id = self
            .occupants
            .get(slot as usize)
            .copied()
            .unwrap_or_default();
        IntId::new(u32::from(id)).unwrap_or(IntId::private(0))
    }

    /// Takes over GICD_CTLR's group enables and works out which private interrupts are open.
    pub(super) fn reopen(&mut self) {
        let group1 = if self.groups & ENABLE_GROUP1 != 0 {
            self.group
        } else {
            0
        };
        let group0 = if self.groups & ENABLE_GROUP0 != 0 {
            !self.group
        } else {
            0
        };
        self.open = self.enabled & (group0 | group1) & !self.active;
        self.ready = if self.waiting {
            0
        } else {
            self.open & !(self.unpend | self.written)
        };
    }
}
