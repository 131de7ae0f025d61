//! One request of a driver: a chain of descriptors, read once and checked, and the walk over its bytes (VIRTIO 1.2, 2.7).
//!
//! A chain ends after as many descriptors as its queue has entries, whatever the table says. Each descriptor is copied out of the
//! guest's memory once; what the guest writes there later changes nothing. Addresses are checked where bytes move.

use alloc::boxed::Box;
use alloc::vec;

use super::queue::Broken;
use super::spec::ring;
use crate::memory::{GuestFault, GuestMemory};
use types::address::GuestPhys;

/// Most descriptors of one chain, and the largest size of a queue.
pub(crate) const MAX_SEGMENTS: u16 = 256;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first address.
    pub(super) address: u64,
    /// Its length in bytes.
    pub(super) bytes: u32,
}

/// A table of descriptors and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) address: u64,
    pub(super) entries: u16,
}

/// A descriptor as it was read.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    segment: Segment,
    flags: u16,
    next: u16,
}

impl Table {
    /// Reads one descriptor; one outside the table is an error.
    fn read<M: GuestMemory>(self, memory: &M, index: u16) -> Result<Descriptor, Broken> {
        if index >= self.entries {
            return Err(Broken::Index);
        }
        let offset = u64::from(index).wrapping_mul(ring::DESCRIPTOR_BYTES);
        let at = self.address.checked_add(offset).ok_or(Broken::Memory)?;
        let mut bytes = [0; ring::DESCRIPTOR_BYTES as usize];
        memory.read(GuestPhys::new(at), &mut bytes)?;
        let value = u128::from_le_bytes(bytes);
        Ok(Descriptor {
            segment: Segment {
                address: value as u64,
                bytes: (value >> 64) as u32,
            },
            flags: (value >> 96) as u16,
            next: (value >> 112) as u16,
        })
    }
}

/// A chain of a queue: first what the device reads, then what it writes.
#[derive(Debug)]
pub(crate) struct Chain {
    /// As many as a chain may have. On the heap from the start: EL2's stacks are small.
    segments: Box<[Segment]>,
    count: u16,
    /// How many of the segments the device reads.
    readable: u16,
    /// Where it began; the driver knows it by this number.
    head: u16,
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Chain {
    /// Makes an empty chain with room for as many descriptors.
    pub(crate) fn new(descriptors: u16) -> Self {
        Self {
            segments: vec![Segment::default(); usize::from(descriptors)].into_boxed_slice(),
            count: 0,
            readable: 0,
            head: 0,
            readable_bytes: 0,
            writable_bytes: 0,
        }
    }

    /// Returns the number that the driver knows the chain by.
    #[must_use]
    pub(crate) const fn head(&self) -> u16 {
        self.head
    }

    /// Returns how many descriptors with a buffer it has.
    #[must_use]
    pub(crate) const fn descriptors(&self) -> u16 {
        self.count
    }

    /// Returns how many bytes the device may read.
    #[must_use]
    pub(crate) const fn readable_bytes(&self) -> u32 {
        self.readable_bytes
    }

    /// Returns how many bytes the device may write.
    #[must_use]
    pub(crate) const fn writable_bytes(&self) -> u32 {
        self.writable_bytes
    }

    /// Returns where the device begins to read.
    #[must_use]
    pub(crate) const fn reader(&self) -> Cursor {
        Cursor::new(0, self.readable)
    }

    /// Returns where the device begins to write.
    #[must_use]
    pub(crate) const fn writer(&self) -> Cursor {
        Cursor::new(self.readable, self.count)
    }

    /// Returns the address of the last byte that the device may write.
    pub(super) fn last_writable(&self) -> Option<GuestPhys> {
        let written = self
            .segments
            .get(usize::from(self.readable)..usize::from(self.count))?;
        let last = written.iter().rev().find(|segment| segment.bytes != 0)?;
        let offset = u64::from(last.bytes.wrapping_sub(1));
        Some(GuestPhys::new(last.address.wrapping_add(offset)))
    }

    /// Reads the chain that begins at a descriptor.
    pub(super) fn fetch<M: GuestMemory>(
        &mut self,
        memory: &M,
        table: Table,
        head: u16,
        is_indirect_allowed: bool,
    ) -> Result<(), Broken> {
        (self.head, self.count, self.readable) = (head, 0, 0);
        (self.readable_bytes, self.writable_bytes) = (0, 0);
        let (limit, mut table, mut index, mut is_inside) = (table.entries, table, head, false);
        // A loop is longer than any chain.
        for _ in 0..=limit {
            let descriptor = table.read(memory, index)?;
            if descriptor.flags & ring::INDIRECT != 0 {
                if is_inside || !is_indirect_allowed || descriptor.flags & ring::NEXT != 0 {
                    return Err(Broken::Indirect);
                }
                (table, index, is_inside) = (indirect(descriptor.segment, limit)?, 0, true);
                continue;
            }
            if self.count >= limit {
                return Err(Broken::TooLong);
            }
            self.add(descriptor)?;
            if descriptor.flags & ring::NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(Broken::TooLong)
    }

    fn add(&mut self, descriptor: Descriptor) -> Result<(), Broken> {
        let (segment, is_written) = (descriptor.segment, descriptor.flags & ring::WRITE != 0);
        if !is_written && self.readable != self.count {
            return Err(Broken::Order);
        }
        let sum = match is_written {
            true => &mut self.writable_bytes,
            false => &mut self.readable_bytes,
        };
        *sum = sum.checked_add(segment.bytes).ok_or(Broken::TooLarge)?;
        let place = self.segments.get_mut(usize::from(self.count));
        *place.ok_or(Broken::TooLong)? = segment;
        self.count = self.count.wrapping_add(1);
        if !is_written {
            self.readable = self.count;
        }
        Ok(())
    }
}

/// Takes a buffer for a table of descriptors.
fn indirect(buffer: Segment, limit: u16) -> Result<Table, Broken> {
    const BYTES: u32 = ring::DESCRIPTOR_BYTES as u32;
    let entries = buffer.bytes / BYTES;
    if entries == 0 || !buffer.bytes.is_multiple_of(BYTES) || entries > u32::from(limit) {
        return Err(Broken::Indirect);
    }
    Ok(Table {
        address: buffer.address,
        entries: entries as u16,
    })
}

/// A place within what the device reads of a chain, or within what it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    segment: u16,
    end: u16,
    offset: u32,
}

impl Cursor {
    const fn new(segment: u16, end: u16) -> Self {
        Self {
            segment,
            end,
            offset: 0,
        }
    }

    /// Returns the next bytes that lie together, at most `limit`, and steps over them; `None` at the end.
    pub(super) fn next(&mut self, chain: &Chain, limit: u32) -> Option<Segment> {
        while self.segment < self.end {
            let segment = chain.segments.get(usize::from(self.segment))?;
            let rest = segment.bytes.wrapping_sub(self.offset);
            if rest == 0 {
                self.segment = self.segment.wrapping_add(1);
                self.offset = 0;
                continue;
            }
            let bytes = rest.min(limit);
            let address = segment.address.wrapping_add(u64::from(self.offset));
            self.offset = self.offset.wrapping_add(bytes);
            return (bytes != 0).then_some(Segment { address, bytes });
        }
        None
    }

    /// Returns the addresses of two bytes, `offset` bytes further on and the one after it.
    pub(super) fn places(mut self, chain: &Chain, offset: usize) -> [Option<GuestPhys>; 2] {
        let mut left = clamp(offset);
        while left != 0
            && let Some(piece) = self.next(chain, left)
        {
            left = left.wrapping_sub(piece.bytes);
        }
        [(); 2].map(|()| {
            let piece = self.next(chain, 1).filter(|_| left == 0)?;
            Some(GuestPhys::new(piece.address))
        })
    }

    /// Copies what comes next in the chain into `into`; returns how many bytes there were.
    ///
    /// # Errors
    /// A [`GuestFault`] if the guest named memory that it does not have.
    pub(crate) fn read<M: GuestMemory>(
        &mut self,
        chain: &Chain,
        memory: &M,
        into: &mut [u8],
    ) -> Result<usize, GuestFault> {
        let mut rest = into;
        let mut done: usize = 0;
        while let Some(piece) = self.next(chain, clamp(rest.len())) {
            let Some((now, later)) = rest.split_at_mut_checked(piece.bytes as usize) else {
                break;
            };
            memory.read(GuestPhys::new(piece.address), now)?;
            done = done.wrapping_add(now.len());
            rest = later;
        }
        Ok(done)
    }

    /// Copies `bytes` to what comes next in the chain; returns how many had room.
    ///
    /// # Errors
    /// A [`GuestFault`] if the guest named memory that it does not have.
    pub(crate) fn write<M: GuestMemory>(
        &mut self,
        chain: &Chain,
        memory: &M,
        bytes: &[u8],
    ) -> Result<usize, GuestFault> {
        let mut rest = bytes;
        let mut done: usize = 0;
        while let Some(piece) = self.next(chain, clamp(rest.len())) {
            let Some((now, later)) = rest.split_at_checked(piece.bytes as usize) else {
                break;
            };
            memory.write(GuestPhys::new(piece.address), now)?;
            done = done.wrapping_add(now.len());
            rest = later;
        }
        Ok(done)
    }
}

/// Returns a length as a descriptor has it; no buffer of EL2 is longer.
const fn clamp(length: usize) -> u32 {
    if length > u32::MAX as usize {
        u32::MAX
    } else {
        length as u32
    }
}
