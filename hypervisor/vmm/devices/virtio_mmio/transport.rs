//! The registers of the MMIO transport, version 2 (VIRTIO 1.2, 4.2.2): what a driver and a device agree on before and while they work.
//!
//! Register accesses have 32 bits and a register's own offset; others read zero and write nothing. What a driver writes out of turn
//! is ignored, and a queue that it sets up wrongly makes the device ask for a reset, as the specification allows.

use alloc::boxed::Box;

use super::queue::{Broken, Part, Queue};
use super::spec::{self, feature, interrupt, register, status};
use types::access::AccessWidth;

/// What a device is, for its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Its number (5).
    pub(crate) device_id: u32,
    /// The features that it offers besides [`feature::TRANSPORT`].
    pub(crate) features: u64,
    /// The largest size of each of its queues.
    pub(crate) queues: &'static [u16],
}

/// What a write means to the device behind the transport.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing.
    Nothing,
    /// The driver has made buffers of this queue available.
    Notified(u16),
    /// The driver begins to use the device.
    Started,
    /// The driver has reset the device; the transport is reset already.
    Reset,
    /// The driver has taken this queue back; what was begun in it is forgotten.
    Stopped(u16),
    /// The driver writes to the configuration, at this offset within it.
    Config(u64),
}

/// The registers of one device.
#[derive(Debug)]
pub(crate) struct Transport {
    kind: Kind,
    status: u32,
    interrupts: u32,
    generation: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Box<[Queue]>,
}

impl Transport {
    /// Makes the registers of a device that no driver has found yet.
    #[must_use]
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(
            kind,
            kind.queues.iter().map(|max| Queue::new(*max)).collect(),
        )
    }

    /// Puts registers in their first state in front of queues that are in theirs.
    const fn with(kind: Kind, queues: Box<[Queue]>) -> Self {
        Self {
            kind,
            status: 0,
            interrupts: 0,
            generation: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
        }
    }

    /// Returns the level of the interrupt line.
    #[must_use]
    pub(crate) const fn line(&self) -> bool {
        self.interrupts != 0
    }

    /// Returns whether the driver has begun to use the device, and neither side has given up.
    #[must_use]
    pub(crate) const fn is_live(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET | status::FAILED)
            == status::DRIVER_OK
    }

    /// Returns the features that both sides agreed on.
    #[must_use]
    pub(crate) const fn features(&self) -> u64 {
        self.driver_features
    }

    /// Returns how far the driver has come, in a word.
    #[must_use]
    pub(crate) const fn state(&self) -> &'static str {
        if self.status & status::NEEDS_RESET != 0 {
            "needs-reset"
        } else if self.status & status::FAILED != 0 {
            "failed"
        } else if self.status & status::DRIVER_OK != 0 {
            "live"
        } else {
            "unused"
        }
    }

    /// Returns a queue of a live device.
    #[must_use]
    pub(crate) fn queue(&mut self, index: u16) -> Option<&mut Queue> {
        if !self.is_live() {
            return None;
        }
        self.queues.get_mut(usize::from(index))
    }

    /// Notes that buffers were used which the driver wants to be told of.
    pub(crate) const fn interrupt_used(&mut self) {
        self.interrupts |= interrupt::USED_BUFFER;
    }

    /// Notes that the configuration has changed.
    pub(crate) const fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.status & status::DRIVER_OK != 0 {
            self.interrupts |= interrupt::CONFIG_CHANGE;
        }
    }

    /// Ends all work until the driver resets the device, which has broken the rules (2.1.2).
    pub(crate) const fn needs_reset(&mut self) {
        if self.status & status::NEEDS_RESET == 0 {
            self.status |= status::NEEDS_RESET;
            self.config_changed();
        }
    }

    /// Puts everything back to how it was before a driver found the device.
    pub(crate) fn reset(&mut self) {
        let mut queues = core::mem::take(&mut self.queues);
        queues.iter_mut().for_each(Queue::reset);
        *self = Self::with(self.kind, queues);
    }

    /// Reads a register; `None` for one of the device's configuration, whose offset is the second value.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, width: AccessWidth) -> Option<u32> {
        if offset >= register::CONFIG {
            return None;
        }
        if width != AccessWidth::Word {
            return Some(0);
        }
        let queue = self.queues.get(self.queue_select as usize);
        Some(match offset {
            register::MAGIC_VALUE => spec::MAGIC,
            register::VERSION => spec::VERSION_1,
            register::DEVICE_ID => self.kind.device_id,
            register::VENDOR_ID => spec::VENDOR,
            register::DEVICE_FEATURES => half(self.offered(), self.device_features_select),
            register::QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max())),
            register::QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.is_ready())),
            register::INTERRUPT_STATUS => self.interrupts,
            register::STATUS => self.status,
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.generation,
            _ => 0,
        })
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, offset: u64, width: AccessWidth, value: u32) -> Written {
        if offset >= register::CONFIG {
            return Written::Config(offset.wrapping_sub(register::CONFIG));
        }
        if width != AccessWidth::Word {
            return Written::Nothing;
        }
        match offset {
            register::QUEUE_NOTIFY => {
                return u16::try_from(value)
                    .ok()
                    .filter(|queue| self.is_live() && usize::from(*queue) < self.queues.len())
                    .map_or(Written::Nothing, Written::Notified);
            }
            register::INTERRUPT_ACK => self.interrupts &= !value,
            register::STATUS => return self.write_status(value),
            register::DEVICE_FEATURES_SEL => self.device_features_select = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_select = value,
            register::DRIVER_FEATURES => self.accept(value),
            register::QUEUE_SEL => self.queue_select = value,
            _ => return self.write_queue(offset, value),
        }
        Written::Nothing
    }

    const fn offered(&self) -> u64 {
        self.kind.features | feature::TRANSPORT
    }

    /// Notes 32 features that the driver accepts. They are fixed once both have agreed.
    const fn accept(&mut self, features: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let value = features as u64;
        match self.driver_features_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    /// Writes how far the driver has come. Bits are only ever added, except by a reset, which writes 0 (2.1.1).
    fn write_status(&mut self, value: u32) -> Written {
        if value == 0 {
            self.reset();
            return Written::Reset;
        }
        let mut added = value & status::OF_DRIVER & !self.status;
        // The driver reads the bit back to learn whether its choice is accepted (3.1.1).
        let is_choice_good = self.driver_features & !self.offered() == 0
            && self.driver_features & feature::VERSION_1 != 0;
        if !is_choice_good {
            added &= !status::FEATURES_OK;
        }
        if (self.status | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
        match added & status::DRIVER_OK {
            0 => Written::Nothing,
            _ => Written::Started,
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32) -> Written {
        let (features, agreed) = (self.driver_features, self.status & status::FEATURES_OK != 0);
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else {
            return Written::Nothing;
        };
        match offset {
            register::QUEUE_NUM => queue.set_size(value),
            register::QUEUE_READY if value == 0 => {
                queue.reset();
                // There is such a queue, so its number has 16 bits.
                return Written::Stopped(self.queue_select as u16);
            }
            register::QUEUE_READY if agreed && !queue.is_ready() => {
                let enabled: Result<(), Broken> = queue.enable(features);
                if enabled.is_err() {
                    self.needs_reset();
                }
            }
            register::QUEUE_DESC_LOW => queue.set_address(Part::Descriptors, false, value),
            register::QUEUE_DESC_HIGH => queue.set_address(Part::Descriptors, true, value),
            register::QUEUE_DRIVER_LOW => queue.set_address(Part::Available, false, value),
            register::QUEUE_DRIVER_HIGH => queue.set_address(Part::Available, true, value),
            register::QUEUE_DEVICE_LOW => queue.set_address(Part::Used, false, value),
            register::QUEUE_DEVICE_HIGH => queue.set_address(Part::Used, true, value),
            _ => {}
        }
        Written::Nothing
    }
}

/// Returns the half of the features that is selected; there are no others.
const fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
