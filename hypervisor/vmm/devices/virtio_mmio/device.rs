//! A virtio device whole: its transport's registers with what is behind them.
//!
//! Work is done where the driver notifies. If that is more than a trap may do, the guest repeats its instruction: its interrupts and
//! whoever else wants the CPU get their turn in between, and all of it is the time of the vCPU that asked.

use super::block::{Block, DiskReport};
use super::queue::Broken;
use super::spec::register;
use super::transport::{Transport, Written};
use super::work::{Budget, Served};
use crate::memory::GuestMemory;
use types::access::AccessWidth;

/// What is behind a transport.
#[derive(Debug)]
pub(crate) enum Backend {
    /// A disk.
    Block(Block),
}

/// What a write to a register causes.
#[must_use = "the interrupt line may have moved, and work may be left"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The new level of the interrupt line, if it moved.
    pub(crate) line: Option<bool>,
    /// The access has not had its whole effect: the guest is to repeat it.
    pub(crate) repeats: bool,
    /// Something has happened that the operator is to be told of; see [`Virtio::take_news`].
    pub(crate) has_news: bool,
}

/// What a device tells the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A disk has no memory for another page that is written.
    DiskFull,
    /// The driver broke the rules; the device waits for a reset.
    Broken(Broken),
}

/// Counts since the VM started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes to QueueNotify, those that were repeated for the rest of the work among them.
    pub notifications: u64,
    /// Chains that were taken.
    pub chains: u64,
    /// Interrupts that were asked for.
    pub interrupts: u64,
    /// Batches of used chains after which the driver wanted none.
    pub suppressed: u64,
    /// How often the driver broke the rules.
    pub broken: u64,
}

/// What the operator is told of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it is.
    pub kind: &'static str,
    /// How far its driver has come.
    pub state: &'static str,
    /// Its counts.
    pub counts: Counts,
    /// If it is a disk, what there is to tell of that.
    pub disk: Option<DiskReport>,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Virtio {
    transport: Transport,
    backend: Backend,
    counts: Counts,
    /// What the driver did that it must not, first, and whether the operator knows.
    broken: Option<Broken>,
    has_told: bool,
}

impl Virtio {
    /// Makes a device that no driver has found yet.
    #[must_use]
    pub(crate) fn new(backend: Backend) -> Self {
        let kind = match &backend {
            Backend::Block(block) => block.kind(),
        };
        Self {
            transport: Transport::new(kind),
            backend,
            counts: Counts::default(),
            broken: None,
            has_told: false,
        }
    }

    /// Returns what is behind the transport.
    #[must_use]
    pub(crate) const fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// Describes it for the operator.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        let Backend::Block(block) = &self.backend;
        Report {
            kind: "disk",
            state: self.transport.state(),
            counts: self.counts,
            disk: Some(block.report()),
        }
    }

    /// Reads a register.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        match self.transport.read(offset, width) {
            Some(value) => u64::from(value),
            None => self.read_config(offset.wrapping_sub(register::CONFIG)),
        }
    }

    /// Reads eight bytes of the configuration; the caller takes as many as its access has.
    fn read_config(&self, offset: u64) -> u64 {
        let Backend::Block(block) = &self.backend;
        let config = block.config();
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(config.iter().skip(offset as usize)) {
            *to = *from;
        }
        u64::from_le_bytes(bytes)
    }

    /// Writes a register; queues are in `memory`.
    pub(crate) fn write<M: GuestMemory>(
        &mut self,
        offset: u64,
        width: AccessWidth,
        value: u64,
        memory: &M,
    ) -> Outcome {
        let before = self.transport.line();
        let mut outcome = Outcome::default();
        match self.transport.write(offset, width, value as u32) {
            Written::Notified(queue) => outcome = self.notified(queue, memory),
            Written::Stopped(_) | Written::Reset => self.forget(),
            Written::Nothing | Written::Started | Written::Config(_) => {}
        }
        let after = self.transport.line();
        outcome.line = (before != after).then_some(after);
        outcome
    }

    /// Serves a queue in which the driver has made chains available.
    fn notified<M: GuestMemory>(&mut self, index: u16, memory: &M) -> Outcome {
        self.counts.notifications = self.counts.notifications.wrapping_add(1);
        let Some(queue) = self.transport.queue(index) else {
            return Outcome::default();
        };
        let mut budget = Budget::of_a_trap();
        let Backend::Block(block) = &mut self.backend;
        let served = block.serve(queue, memory, &mut budget);
        let has_news = block.has_full_news();
        match served {
            Ok(served) => {
                self.count(served);
                Outcome {
                    repeats: served.is_more,
                    has_news,
                    line: None,
                }
            }
            Err(broken) => {
                self.counts.broken = self.counts.broken.wrapping_add(1);
                self.forget();
                self.transport.needs_reset();
                let is_first = self.broken.is_none();
                self.broken = self.broken.or(Some(broken));
                Outcome {
                    has_news: has_news || is_first,
                    ..Outcome::default()
                }
            }
        }
    }

    fn count(&mut self, served: Served) {
        let counts = &mut self.counts;
        counts.chains = counts.chains.wrapping_add(u64::from(served.chains));
        if served.interrupts {
            counts.interrupts = counts.interrupts.wrapping_add(1);
            self.transport.interrupt_used();
        } else if served.has_used {
            counts.suppressed = counts.suppressed.wrapping_add(1);
        }
    }

    /// Returns what the operator has not been told yet.
    pub(crate) fn take_news(&mut self) -> Option<News> {
        let Backend::Block(block) = &mut self.backend;
        if block.take_full() {
            return Some(News::DiskFull);
        }
        let broken = self.broken.filter(|_| !self.has_told)?;
        self.has_told = true;
        Some(News::Broken(broken))
    }

    /// Puts the device into the state in which a guest finds it; what a disk holds stays.
    pub(crate) fn reset(&mut self) {
        self.transport.reset();
        self.forget();
        let Backend::Block(block) = &mut self.backend;
        block.reset_counts();
        self.counts = Counts::default();
        (self.broken, self.has_told) = (None, false);
    }

    fn forget(&mut self) {
        let Backend::Block(block) = &mut self.backend;
        block.forget();
    }
}
