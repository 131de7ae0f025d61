//! A split virtqueue as its device sees it: takes chains that the driver made available, gives them back as used (VIRTIO 1.2, 2.7).
//!
//! The order of accesses, since the driver runs at the same time: `avail.idx` is read before the ring's element and the descriptors
//! (acquire); the element of the used ring and all data are written before `used.idx` (release); between `used.idx` and the driver's
//! wish for an interrupt, and between `avail_event` and another look at `avail.idx`, stands a full barrier (2.7.7.1, 2.7.10).
//!
//! A driver that breaks the rules gets [`Broken`], whatever it did; the device then asks for a reset.

use core::sync::atomic::{Ordering, fence};

use super::chain::{Chain, MAX_SEGMENTS, Table};
use super::spec::{feature, ring};
use crate::memory::{GuestFault, GuestMemory};
use types::address::GuestPhys;

types::words! {
    /// What a driver did that it must not.
    Broken:
    /// The size of a queue is no power of two, or larger than its largest; or a part of it is not aligned.
    Queue = "queue",
    /// It made more chains available than the queue has entries.
    Available = "available-index",
    /// The index of a descriptor is not in its table.
    Index = "descriptor-index",
    /// A chain has more descriptors than its queue, or a loop.
    TooLong = "chain-too-long",
    /// A chain has 4 GiB or more to read, or to write.
    TooLarge = "chain-too-large",
    /// A buffer that the device reads follows one that it writes.
    Order = "buffer-order",
    /// A table of descriptors within another one, without an end of its own, too large, or not agreed on.
    Indirect = "indirect-table",
    /// It named memory that is not the guest's RAM.
    Memory = "memory",
    /// A request of this device is not formed as it has to be.
    Request = "request",
}

impl From<GuestFault> for Broken {
    fn from(_: GuestFault) -> Self {
        Self::Memory
    }
}

/// Which of a queue's three addresses is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The descriptor table.
    Descriptors,
    /// The available ring.
    Available,
    /// The used ring.
    Used,
}

/// A virtqueue.
#[derive(Debug)]
pub(crate) struct Queue {
    max: u16,
    size: u32,
    descriptors: u64,
    available: u64,
    used: u64,
    is_ready: bool,
    has_event_index: bool,
    has_indirect: bool,
    /// The next element of the available ring.
    next_available: u16,
    /// How far the driver was seen to have filled it.
    seen_available: u16,
    /// From which index on the driver is asked to tell: what `avail_event` says.
    announced: u16,
    /// Where the next used element goes.
    next_used: u16,
    /// What `used.idx` says.
    published: u16,
}

impl Queue {
    /// Makes a queue that is not set up; `max` entries are the most that it may have, a power of two.
    #[must_use]
    pub(crate) const fn new(max: u16) -> Self {
        assert!(
            max.is_power_of_two() && max <= MAX_SEGMENTS,
            "a queue's size"
        );
        Self {
            max,
            size: 0,
            descriptors: 0,
            available: 0,
            used: 0,
            is_ready: false,
            has_event_index: false,
            has_indirect: false,
            next_available: 0,
            seen_available: 0,
            // Not yet: the ring holds what the driver left there.
            announced: u16::MAX,
            next_used: 0,
            published: 0,
        }
    }

    /// Puts it back to how it was made.
    pub(super) const fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// Returns the most entries that it may have.
    #[must_use]
    pub(crate) const fn max(&self) -> u16 {
        self.max
    }

    /// Returns whether the driver has set it up.
    #[must_use]
    pub(crate) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Sets how many entries it has; what is wrong with that is found when it is used.
    pub(super) const fn set_size(&mut self, size: u32) {
        if !self.is_ready {
            self.size = size;
        }
    }

    /// Sets the low or the high half of one of its addresses.
    pub(super) const fn set_address(&mut self, part: Part, is_high: bool, half: u32) {
        if self.is_ready {
            return;
        }
        let address = match part {
            Part::Descriptors => &mut self.descriptors,
            Part::Available => &mut self.available,
            Part::Used => &mut self.used,
        };
        *address = if is_high {
            *address & 0xffff_ffff | (half as u64) << 32
        } else {
            *address & !0xffff_ffff | half as u64
        };
    }

    /// Begins to use the queue as it was set up, under the features that were agreed on.
    ///
    /// # Errors
    /// [`Broken::Queue`] if it was set up wrongly.
    pub(super) const fn enable(&mut self, features: u64) -> Result<(), Broken> {
        let is_sized = self.size.is_power_of_two() && self.size <= self.max as u32;
        let is_aligned = self.descriptors.is_multiple_of(ring::DESCRIPTOR_ALIGNMENT)
            && self.available.is_multiple_of(ring::AVAILABLE_ALIGNMENT)
            && self.used.is_multiple_of(ring::USED_ALIGNMENT);
        if !is_sized || !is_aligned {
            return Err(Broken::Queue);
        }
        self.has_event_index = features & feature::EVENT_IDX != 0;
        self.has_indirect = features & feature::INDIRECT_DESC != 0;
        self.is_ready = true;
        Ok(())
    }

    /// Takes the next chain that the driver has made available; returns whether there was one.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn pop<M: GuestMemory>(
        &mut self,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<bool, Broken> {
        if !self.has_available(memory)? {
            return Ok(false);
        }
        let slot = self.next_available & self.mask();
        let head = memory.read_half(element(self.available, slot, ring::AVAILABLE_BYTES)?)?;
        let table = Table {
            address: self.descriptors,
            entries: self.mask().wrapping_add(1),
        };
        chain.fetch(memory, table, head, self.has_indirect)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(true)
    }

    /// Returns whether [`Queue::pop`] would find a chain. If not, the driver has been asked to tell of the next one.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn has_available<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, Broken> {
        if !self.is_ready {
            return Ok(false);
        }
        if self.seen_available == self.next_available {
            if self.has_event_index && self.announced != self.next_available {
                // The driver looks here after it has filled the ring, this side looks at the ring after it has written here.
                let event = element(self.used, self.mask().wrapping_add(1), ring::USED_BYTES)?;
                memory.write_half(event, self.next_available)?;
                self.announced = self.next_available;
                fence(Ordering::SeqCst);
            }
            self.look(memory)?;
        }
        Ok(self.seen_available != self.next_available)
    }

    /// Reads how far the driver has filled the available ring.
    fn look<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Broken> {
        let index = memory.read_half(at(self.available, ring::INDEX)?)?;
        fence(Ordering::Acquire);
        if u32::from(index.wrapping_sub(self.next_available)) > self.size {
            return Err(Broken::Available);
        }
        self.seen_available = index;
        Ok(())
    }

    /// Takes back that so many chains were taken last; none of them was given back.
    pub(crate) const fn give_back(&mut self, chains: usize) {
        self.next_available = self.next_available.wrapping_sub(chains as u16);
    }

    /// Gives a chain back into which `written` bytes were written; the driver sees it after [`Queue::publish`].
    ///
    /// # Errors
    /// [`Broken::Memory`] if the ring is not in RAM.
    pub(crate) fn push<M: GuestMemory>(
        &mut self,
        memory: &M,
        head: u16,
        written: u32,
    ) -> Result<(), Broken> {
        let slot = self.next_used & self.mask();
        let entry = u64::from(head) | u64::from(written) << 32;
        let to = element(self.used, slot, ring::USED_BYTES)?;
        memory.write(to, &entry.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Returns whether chains were given back that the driver does not see yet.
    #[must_use]
    pub(crate) const fn has_unpublished(&self) -> bool {
        self.published != self.next_used
    }

    /// Shows the driver what was given back; returns whether it wants an interrupt for that.
    ///
    /// # Errors
    /// [`Broken::Memory`] if the ring is not in RAM.
    #[must_use = "the driver may want an interrupt"]
    pub(crate) fn publish<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, Broken> {
        let (before, now) = (self.published, self.next_used);
        if !self.has_unpublished() {
            return Ok(false);
        }
        fence(Ordering::Release);
        memory.write_half(at(self.used, ring::INDEX)?, now)?;
        self.published = now;
        fence(Ordering::SeqCst);
        if !self.has_event_index {
            return Ok(memory.read_half(at(self.available, 0)?)? & ring::NO_INTERRUPT == 0);
        }
        let after = self.mask().wrapping_add(1);
        let event = memory.read_half(element(self.available, after, ring::AVAILABLE_BYTES)?)?;
        // Whether the step from `before` to `now` went over `event` (2.7.10.1).
        Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
    }

    /// The size less one: a queue that is ready has a power of two.
    const fn mask(&self) -> u16 {
        (self.size as u16).wrapping_sub(1)
    }
}

/// Returns an address within a ring.
fn at(ring: u64, offset: u64) -> Result<GuestPhys, Broken> {
    ring.checked_add(offset)
        .map(GuestPhys::new)
        .ok_or(Broken::Memory)
}

/// Returns the address of a ring's element.
fn element(ring: u64, index: u16, bytes: u64) -> Result<GuestPhys, Broken> {
    at(
        ring,
        ring::ELEMENTS.wrapping_add(u64::from(index).wrapping_mul(bytes)),
    )
}
