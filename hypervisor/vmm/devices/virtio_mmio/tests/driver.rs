//! A guest's memory that watches how it is read, and a driver's side of a queue in it, written from the specification alone.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use crate::devices::virtio_mmio::queue::Part;
use crate::devices::virtio_mmio::queue::Queue;
use crate::memory::{GuestFault, GuestMemory};
use types::address::GuestPhys;

/// Where RAM begins, and how much there is.
pub(crate) const BASE: u64 = 0x4000_0000;
pub(crate) const BYTES: u64 = 0x4_0000;

/// What another vCPU of the guest does right before a read: it gets the memory and the address.
type Race = Box<dyn FnMut(&mut Vec<u8>, u64)>;

/// A guest's RAM.
#[derive(Default)]
pub(crate) struct Ram {
    bytes: RefCell<Vec<u8>>,
    /// How often each address was read since [`Ram::forget_reads`].
    reads: RefCell<BTreeMap<u64, u32>>,
    race: RefCell<Option<Race>>,
    pub(crate) copied: Cell<u64>,
}

impl Ram {
    pub(crate) fn new() -> Self {
        Self {
            bytes: RefCell::new(vec![0; BYTES as usize]),
            ..Self::default()
        }
    }

    /// Lets another vCPU write before each read of the device.
    pub(crate) fn race(&self, race: impl FnMut(&mut Vec<u8>, u64) + 'static) {
        *self.race.borrow_mut() = Some(Box::new(race));
    }

    pub(crate) fn forget_reads(&self) {
        self.reads.borrow_mut().clear();
    }

    /// Returns how often the device read the most read byte of a range.
    pub(crate) fn most_reads(&self, from: u64, bytes: u64) -> u32 {
        let reads = self.reads.borrow();
        reads
            .range(from..from + bytes)
            .map(|(_, n)| *n)
            .max()
            .unwrap_or(0)
    }

    fn place(address: GuestPhys, bytes: usize) -> Result<usize, GuestFault> {
        let offset = address.get().wrapping_sub(BASE);
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= BYTES => Ok(offset as usize),
            _ => Err(GuestFault { address }),
        }
    }

    /// Writes as the guest does.
    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        let at = (at - BASE) as usize;
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads as the guest does.
    pub(crate) fn get(&self, at: u64, bytes: usize) -> Vec<u8> {
        let at = (at - BASE) as usize;
        self.bytes.borrow()[at..at + bytes].to_vec()
    }

    pub(crate) fn get16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.get(at, 2).try_into().unwrap())
    }

    pub(crate) fn put16(&self, at: u64, value: u16) {
        self.put(at, &value.to_le_bytes());
    }
}

impl GuestMemory for Ram {
    fn read_half(&self, address: GuestPhys) -> Result<u16, GuestFault> {
        assert!(
            address.is_aligned(2),
            "{address}: one access needs alignment"
        );
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn write_half(&self, address: GuestPhys, value: u16) -> Result<(), GuestFault> {
        assert!(
            address.is_aligned(2),
            "{address}: one access needs alignment"
        );
        self.write(address, &value.to_le_bytes())
    }

    fn read(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), GuestFault> {
        let at = Self::place(address, into.len())?;
        if let Some(race) = &mut *self.race.borrow_mut() {
            race(&mut self.bytes.borrow_mut(), address.get());
        }
        let mut reads = self.reads.borrow_mut();
        for n in 0..into.len() as u64 {
            *reads.entry(address.get() + n).or_default() += 1;
        }
        into.copy_from_slice(&self.bytes.borrow()[at..at + into.len()]);
        self.copied.set(self.copied.get() + into.len() as u64);
        Ok(())
    }

    fn write(&self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault> {
        let at = Self::place(address, bytes.len())?;
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.copied.set(self.copied.get() + bytes.len() as u64);
        Ok(())
    }
}

/// A buffer of a request: address, length, and whether the device writes it.
pub(crate) type Buffer = (u64, u32, bool);

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A driver's side of one queue.
pub(crate) struct Driver {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    /// Where tables of indirect descriptors are put, one for each head.
    pub(crate) tables: u64,
    free: Vec<u16>,
    /// The descriptors of each chain that the device has.
    chains: BTreeMap<u16, Vec<u16>>,
    pub(crate) next_avail: u16,
    seen_used: u16,
}

impl Driver {
    pub(crate) fn new(size: u16) -> Self {
        Self {
            size,
            desc: BASE,
            avail: BASE + 0x2000,
            used: BASE + 0x3000,
            tables: BASE + 0x8000,
            free: (0..size).rev().collect(),
            chains: BTreeMap::new(),
            next_avail: 0,
            seen_used: 0,
        }
    }

    /// Sets up the device's side for these features.
    pub(crate) fn queue(&self, features: u64) -> Queue {
        let mut queue = Queue::new(256);
        queue.set_size(u32::from(self.size));
        for (part, address) in [
            (Part::Descriptors, self.desc),
            (Part::Available, self.avail),
            (Part::Used, self.used),
        ] {
            queue.set_address(part, false, address as u32);
            queue.set_address(part, true, (address >> 32) as u32);
        }
        queue.enable(features).expect("a queue that is set up well");
        queue
    }

    /// Writes one descriptor of a table.
    pub(crate) fn describe(
        ram: &Ram,
        table: u64,
        index: u16,
        (at, bytes, flags, next): (u64, u32, u16, u16),
    ) {
        let place = table + 16 * u64::from(index);
        ram.put(place, &at.to_le_bytes());
        ram.put(place + 8, &bytes.to_le_bytes());
        ram.put(place + 12, &flags.to_le_bytes());
        ram.put(place + 14, &next.to_le_bytes());
    }

    /// Makes a chain of buffers available; returns its head, or `None` if there is no room.
    pub(crate) fn add(&mut self, ram: &Ram, buffers: &[Buffer], indirect: bool) -> Option<u16> {
        let wanted = if indirect { 1 } else { buffers.len() };
        if self.free.len() < wanted {
            return None;
        }
        let taken = self.free.split_off(self.free.len() - wanted);
        let head = taken[0];
        let table = self.tables + u64::from(head) * 16 * u64::from(self.size);
        for (n, (at, bytes, is_written)) in buffers.iter().enumerate() {
            let more = n + 1 < buffers.len();
            let flags = if more { NEXT } else { 0 } | if *is_written { WRITE } else { 0 };
            let (table, index, next) = match indirect {
                true => (table, n as u16, n as u16 + 1),
                false => (self.desc, taken[n], taken.get(n + 1).copied().unwrap_or(0)),
            };
            Self::describe(ram, table, index, (*at, *bytes, flags, next));
        }
        if indirect {
            let bytes = 16 * buffers.len() as u32;
            Self::describe(ram, self.desc, head, (table, bytes, INDIRECT, 0));
        }
        self.chains.insert(head, taken);
        self.offer(ram, head);
        Some(head)
    }

    /// Puts a head into the available ring.
    pub(crate) fn offer(&mut self, ram: &Ram, head: u16) {
        ram.put16(
            self.avail + 4 + 2 * u64::from(self.next_avail % self.size),
            head,
        );
        self.next_avail = self.next_avail.wrapping_add(1);
        ram.put16(self.avail + 2, self.next_avail);
    }

    /// Takes what the device has used: heads and lengths in its order.
    pub(crate) fn take_used(&mut self, ram: &Ram) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        while self.seen_used != ram.get16(self.used + 2) {
            let entry = ram.get(self.used + 4 + 8 * u64::from(self.seen_used % self.size), 8);
            let (head, bytes) = entry.split_at(4);
            let head = u32::from_le_bytes(head.try_into().unwrap());
            let chain = self
                .chains
                .remove(&(head as u16))
                .expect("a head that the device has");
            self.free.extend(chain);
            taken.push((head, u32::from_le_bytes(bytes.try_into().unwrap())));
            self.seen_used = self.seen_used.wrapping_add(1);
        }
        taken
    }

    /// Asks to be interrupted once the used ring goes past what was taken.
    pub(crate) fn want_interrupt(&self, ram: &Ram) {
        ram.put16(self.avail + 4 + 2 * u64::from(self.size), self.seen_used);
    }

    /// Returns whether a driver with EVENT_IDX tells the device, after it went from `before` to now.
    pub(crate) fn would_notify(&self, ram: &Ram, before: u16) -> bool {
        let event = ram.get16(self.used + 4 + 8 * u64::from(self.size));
        self.next_avail.wrapping_sub(event).wrapping_sub(1) < self.next_avail.wrapping_sub(before)
    }
}
