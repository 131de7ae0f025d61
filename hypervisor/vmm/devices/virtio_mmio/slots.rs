//! The slots of a VM: a window of registers each, as many as QEMU's `virt` has, the first of them with a device.
//!
//! Software made for that machine looks into the slots at their fixed addresses, without asking a device tree. A driver leaves one
//! alone whose DeviceID is 0 (VIRTIO 1.2, 4.2.2), so an empty one needs no state.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::block::Block;
use super::device::{Backend, News, Outcome, Report, Virtio};
use super::net::{Handed, Net};
use super::rng::Rng;
use super::spec::{self, register};
use crate::devices::{Access, Device, Parts, Surroundings, Work};
use crate::sync::FairMutex;
use types::access::AccessWidth;
use types::devices::DeviceId;

/// Bytes a slot.
const WINDOW_BYTES: u64 = {
    let row = DeviceId::Virtio.row();
    row.registers.size / row.windows as u64
};

/// The devices of one VM, each in the slot of its number.
#[derive(Debug)]
pub struct Slots {
    devices: Box<[FairMutex<Virtio>]>,
    /// A device may have something to tell the operator.
    has_news: AtomicBool,
}

impl Slots {
    /// Returns a device's slot and what it tells the operator, if one has something to tell.
    pub fn take_news(&self) -> Option<(u16, News)> {
        // Taken before the devices are asked: news of one that was asked already sets it again.
        if !self.has_news.load(Ordering::Acquire) || !self.has_news.swap(false, Ordering::AcqRel) {
            return None;
        }
        let found = (0..).zip(&self.devices).find_map(|(slot, device)| {
            let news = device.lock().take_news()?;
            Some((slot, news))
        });
        if found.is_some() {
            // Another may have something too.
            self.has_news.store(true, Ordering::Release);
        }
        found
    }

    /// Describes each device, in the order of the slots.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.devices
            .iter()
            .map(|device| device.lock().report())
            .collect()
    }

    /// Gives every disk the memory that it needs while the VM is on, as `take` finds it; one that has it keeps it.
    ///
    /// # Errors
    /// The slot and the size for which there is none.
    pub fn give_memory(
        &self,
        mut take: impl FnMut(u64) -> Option<&'static mut [u8]>,
    ) -> Result<(), (u16, u64)> {
        for (slot, device) in (0..).zip(&self.devices) {
            let mut device = device.lock();
            if let Backend::Block(block) = device.backend()
                && block.wanted_bytes() != 0
            {
                let bytes = block.wanted_bytes();
                block.give(take(bytes).ok_or((slot, bytes))?);
            }
        }
        Ok(())
    }

    /// Waits until no device is at work that has begun before.
    pub fn settle(&self) {
        for device in &self.devices {
            drop(device.lock());
        }
    }

    /// Takes all memory back.
    pub fn take_memory(&self, mut release: impl FnMut(&'static mut [u8])) {
        for device in &self.devices {
            let mut device = device.lock();
            if let Backend::Block(block) = device.backend()
                && let Some(memory) = block.take()
            {
                release(memory);
            }
        }
    }

    /// Gives the port in a slot a frame, before which there is room for a header, unless another CPU works with it; called for another device.
    pub(super) fn hand(&self, slot: u16, frame: &[u8], around: &mut impl Surroundings) -> Handed {
        let Some(device) = self.devices.get(usize::from(slot)) else {
            return Handed::Over;
        };
        // The lock of the device that sends is held: waiting here could be for each other.
        let Some(mut device) = device.try_lock() else {
            return Handed::Busy;
        };
        let outcome = device.receive(frame, &around.memory());
        self.note(slot, outcome, around);
        Handed::Over
    }

    /// Moves the line of a slot, and remembers that there is something to tell.
    fn note(&self, slot: u16, outcome: Outcome, around: &mut impl Surroundings) {
        if let Some(high) = outcome.line {
            around.set_line(slot, high);
        }
        if outcome.has_news {
            self.has_news.store(true, Ordering::Release);
        }
    }

    fn find(&self, offset: u64) -> (u16, Option<&FairMutex<Virtio>>) {
        let slot = offset / WINDOW_BYTES;
        (slot as u16, self.devices.get(slot as usize))
    }
}

impl Device for Slots {
    fn new(parts: &Parts<'_>) -> Self {
        let disks = parts.disks.iter().map(|disk| {
            let block = Block::new(&disk.name, disk.image, disk.quota);
            Backend::Block(block)
        });
        let nets = parts.nets.iter().map(|net| Backend::Net(Net::new(*net)));
        let rng = parts.has_rng.then(|| Backend::Rng(Rng::new()));
        let devices = disks.chain(nets).chain(rng);
        Self {
            devices: devices
                .map(|backend| FairMutex::new(Virtio::new(backend)))
                .collect(),
            has_news: AtomicBool::new(false),
        }
    }

    #[inline(never)]
    fn read(&self, access: Access, _: &mut impl Surroundings) -> Result<u64, Work> {
        let within = access.offset % WINDOW_BYTES;
        Ok(match self.find(access.offset).1 {
            Some(device) => device.lock().read(within, access.width),
            None => u64::from(read_empty(within, access.width)),
        })
    }

    // Not among the shorter paths of other devices.
    #[inline(never)]
    fn write(&self, access: Access, value: u64, around: &mut impl Surroundings) -> Option<Work> {
        let (slot, device) = self.find(access.offset);
        let within = access.offset % WINDOW_BYTES;
        let mut device = device?.lock();
        let outcome = device.write(within, access.width, value, around);
        self.note(slot, outcome, around);
        drop(device);
        match (outcome.repeats, outcome.has_news) {
            (true, _) => Some(Work::Repeat),
            (false, true) => Some(Work::Attend),
            (false, false) => None,
        }
    }

    fn reset(&self) {
        for device in &self.devices {
            device.lock().reset();
        }
        self.has_news.store(false, Ordering::Release);
    }
}

/// Reads a register of an empty slot. DeviceID and all others are 0; control registers have no width but 32 bits.
const fn read_empty(offset: u64, width: AccessWidth) -> u32 {
    match (offset, width) {
        (register::MAGIC_VALUE, AccessWidth::Word) => spec::MAGIC,
        (register::VERSION, AccessWidth::Word) => spec::VERSION_1,
        _ => 0,
    }
}
