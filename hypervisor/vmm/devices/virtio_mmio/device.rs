//! A virtio device whole: its transport's registers with what is behind them.
//!
//! Work is done where the driver notifies. If that is more than a trap may do, the guest repeats its instruction: its interrupts and
//! other vCPUs of the CPU get their turn in between, and all of it is the time of the vCPU that asked.

use super::block::{Block, DiskReport};
use super::net::{Handed, Net, NetReport, RECEIVE, TRANSMIT};
use super::queue::Broken;
use super::rng::Rng;
use super::spec::register;
use super::transport::{Kind, Transport, Written};
use super::work::{Budget, Served};
use crate::devices::Surroundings;
use crate::memory::GuestMemory;
use types::access::AccessWidth;

/// What is behind a transport.
#[derive(Debug)]
pub(crate) enum Backend {
    /// A disk.
    Block(Block),
    /// A port of a network.
    Net(Net),
    /// A source of randomness.
    Rng(Rng),
}

impl Backend {
    fn kind(&self) -> Kind {
        match self {
            Self::Block(block) => block.kind(),
            Self::Net(_) => Net::kind(),
            Self::Rng(_) => Rng::kind(),
        }
    }

    /// Forgets what is under way.
    fn forget(&mut self) {
        match self {
            Self::Block(block) => block.forget(),
            Self::Net(net) => net.forget(),
            Self::Rng(_) => {}
        }
    }

    fn reset_counts(&mut self) {
        match self {
            Self::Block(block) => block.reset_counts(),
            Self::Net(net) => net.reset_counts(),
            Self::Rng(_) => {}
        }
    }

    /// Returns eight bytes of the configuration.
    fn config(&self, offset: u64) -> u64 {
        match self {
            Self::Block(block) => eight(&block.config(), offset),
            Self::Net(net) => eight(&net.config(), offset),
            Self::Rng(_) => 0,
        }
    }
}

/// Returns eight bytes from an offset on; what is not there is 0.
fn eight(config: &[u8], offset: u64) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(config.iter().skip(offset as usize)) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
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
    /// If it is a port of a network, what there is to tell of that.
    pub net: Option<NetReport>,
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
        Self {
            transport: Transport::new(backend.kind()),
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
        let (kind, disk, net) = match &self.backend {
            Backend::Block(block) => ("disk", Some(block.report()), None),
            Backend::Net(net) => ("net", None, Some(net.report())),
            Backend::Rng(_) => ("rng", None, None),
        };
        Report {
            kind,
            state: self.transport.state(),
            counts: self.counts,
            disk,
            net,
        }
    }

    /// Reads a register.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        match self.transport.read(offset, width) {
            Some(value) => u64::from(value),
            None => self.backend.config(offset.wrapping_sub(register::CONFIG)),
        }
    }

    /// Writes a register; queues are in the memory of the VM.
    pub(crate) fn write<S: Surroundings>(
        &mut self,
        offset: u64,
        width: AccessWidth,
        value: u64,
        around: &mut S,
    ) -> Outcome {
        let before = self.transport.line();
        let mut outcome = Outcome::default();
        match self.transport.write(offset, width, value as u32) {
            Written::Notified(queue) => outcome = self.notified(queue, around),
            Written::Stopped(_) | Written::Reset => self.backend.forget(),
            Written::Started => {
                if let Backend::Net(net) = &mut self.backend {
                    net.begin(self.transport.features());
                }
            }
            Written::Nothing | Written::Config(_) => {}
        }
        let after = self.transport.line();
        outcome.line = (before != after).then_some(after);
        outcome
    }

    /// Serves a queue in which the driver has made chains available.
    fn notified<S: Surroundings>(&mut self, index: u16, around: &mut S) -> Outcome {
        self.counts.notifications = self.counts.notifications.wrapping_add(1);
        let Some(queue) = self.transport.queue(index) else {
            return Outcome::default();
        };
        let (memory, mut budget) = (around.memory(), Budget::of_a_trap());
        let served = match &mut self.backend {
            Backend::Block(block) => block.serve(queue, &memory, &mut budget),
            Backend::Net(net) if index == TRANSMIT => {
                let now_ns = if net.has_rate() { around.now_ns() } else { 0 };
                net.transmit(queue, &memory, &mut budget, now_ns, |port, frame| {
                    around
                        .peer(port.vm)
                        .map_or(Handed::Over, |(devices, mut there)| {
                            devices.virtio.hand(port.slot, frame, &mut there)
                        })
                })
            }
            Backend::Rng(rng) => rng.serve(queue, &memory, &mut budget, || around.random()),
            // Buffers for what will be received.
            Backend::Net(_) => Ok(Served::default()),
        };
        self.settle(served)
    }

    /// Gives the guest a frame, if this is a port whose driver is there; returns the new level of its line if that moved.
    pub(crate) fn receive<M: GuestMemory>(&mut self, frame: &[u8], memory: &M) -> Outcome {
        let before = self.transport.line();
        let Backend::Net(net) = &mut self.backend else {
            return Outcome::default();
        };
        let Some(queue) = self.transport.queue(RECEIVE) else {
            return Outcome::default();
        };
        let served = net.receive(queue, memory, frame);
        let mut outcome = self.settle(served);
        let after = self.transport.line();
        outcome.line = (before != after).then_some(after);
        outcome
    }

    /// Notes what came of a queue's work.
    fn settle(&mut self, served: Result<Served, Broken>) -> Outcome {
        let mut outcome = Outcome::default();
        match served {
            Ok(served) => {
                self.count(served);
                outcome.repeats = served.is_more;
            }
            Err(broken) => {
                self.counts.broken = self.counts.broken.wrapping_add(1);
                self.backend.forget();
                self.transport.needs_reset();
                outcome.has_news = self.broken.is_none();
                self.broken = self.broken.or(Some(broken));
            }
        }
        if let Backend::Block(block) = &self.backend {
            outcome.has_news |= block.has_full_news();
        }
        outcome
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
        if let Backend::Block(block) = &mut self.backend
            && block.take_full()
        {
            return Some(News::DiskFull);
        }
        let broken = self.broken.filter(|_| !self.has_told)?;
        self.has_told = true;
        Some(News::Broken(broken))
    }

    /// Puts the device into the state in which a guest finds it; what a disk holds stays.
    pub(crate) fn reset(&mut self) {
        self.transport.reset();
        self.backend.forget();
        self.backend.reset_counts();
        self.counts = Counts::default();
        (self.broken, self.has_told) = (None, false);
    }
}
