//! A network card (VIRTIO 1.2, 5.1): a port of a switch between VMs.
//!
//! A frame is copied out of the sender's memory once, into a buffer of its port, and from there to each port that gets it. The sender
//! does that, in the trap of its notification. The device of a port that gets a frame is only tried to be locked: its VM waits for no other,
//! and two senders never wait for each other. What has no room is dropped, as on any wire.

mod rate;
mod spec;
mod switch;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;

pub(super) use spec::{RECEIVE, TRANSMIT};

use super::chain::Chain;
use super::queue::{Broken, Queue};
use super::transport::Kind;
use super::work::{Budget, Served};
use crate::memory::GuestMemory;
use rate::Rate;
use spec::{ETHERNET_BYTES, HEADER_BYTES, NUM_BUFFERS, VLAN_BYTES, config, feature};
use switch::Target;
pub use switch::{Mac, Network, Port};

/// The size of both queues.
const QUEUE_SIZE: u16 = 256;
/// Most chains of the receive queue that a frame takes.
const MAX_BUFFERS: usize = 16;
/// How often a port that is busy is tried before a frame for it is dropped.
const MAX_TRIES: u8 = 64;
/// What handing over a frame costs beside its bytes, in bytes.
const FRAME_COST: u32 = 512;

/// What a port is made from.
#[derive(Clone, Copy, Debug)]
pub struct NetParts {
    /// Its network.
    pub network: &'static Network,
    /// Its number there.
    pub port: u16,
    /// Largest packet.
    pub mtu: u16,
    /// Bytes that it may send in a second; 0 for no limit.
    pub rate: u64,
}

/// What the operator is told of a port. Counts are since the VM's start or reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetReport {
    /// Its address.
    pub mac: Mac,
    /// Frames that the guest has sent, and their bytes.
    pub sent: u64,
    /// See `sent`.
    pub sent_bytes: u64,
    /// Frames that the guest has received, and their bytes.
    pub received: u64,
    /// See `received`.
    pub received_bytes: u64,
    /// Frames for the guest for which its driver had no room.
    pub dropped: u64,
    /// Frames of the guest that were not let through: too long or too short, faster than its rate, from an address that is not its own.
    pub refused: u64,
}

/// What a port says of a frame for it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It is over: the guest has the frame, or has no room for it.
    Over,
    /// Another CPU works with the device.
    Busy,
}

/// A network card.
#[derive(Debug)]
pub(crate) struct Net {
    parts: NetParts,
    rate: Rate,
    chain: Chain,
    /// The frame that is sent, behind the header of its driver.
    frame: Box<[u8]>,
    work: Option<Work>,
    has_mergeable: bool,
    counts: NetReport,
}

/// A frame on its way.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Bytes of the buffer that are the header and the frame.
    bytes: usize,
    target: Target,
    /// The port that is next, and how often it was tried.
    next: u16,
    tries: u8,
}

impl Net {
    /// Makes a port.
    pub(crate) fn new(parts: NetParts) -> Self {
        let most = HEADER_BYTES + ETHERNET_BYTES + VLAN_BYTES;
        let frame = vec![0; most.saturating_add(usize::from(parts.mtu))];
        Self {
            rate: Rate::new(parts.rate),
            parts,
            chain: Chain::new(QUEUE_SIZE),
            frame: frame.into_boxed_slice(),
            work: None,
            has_mergeable: false,
            counts: NetReport::default(),
        }
    }

    /// Returns what its transport says of it.
    pub(crate) const fn kind() -> Kind {
        Kind {
            device_id: spec::DEVICE_ID,
            features: feature::MTU | feature::MAC | feature::MRG_RXBUF | feature::STATUS,
            queues: &[QUEUE_SIZE, QUEUE_SIZE],
        }
    }

    /// Returns whether [`Net::transmit`] has to know the time.
    pub(crate) const fn has_rate(&self) -> bool {
        self.parts.rate != 0
    }

    /// Notes what both sides agreed on.
    pub(crate) const fn begin(&mut self, features: u64) {
        self.has_mergeable = features & feature::MRG_RXBUF != 0;
    }

    /// Forgets the frame that is on its way.
    pub(crate) const fn forget(&mut self) {
        self.work = None;
    }

    /// Begins to count anew.
    pub(crate) fn reset_counts(&mut self) {
        self.counts = NetReport::default();
    }

    /// Describes the port for the operator.
    pub(crate) fn report(&self) -> NetReport {
        NetReport {
            mac: self.mac(),
            ..self.counts
        }
    }

    fn mac(&self) -> Mac {
        let port = self.parts.network.port(self.parts.port);
        port.map_or([0; 6], |port| port.mac)
    }

    /// Reads the bytes of the configuration.
    pub(crate) fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        let mut put = |at: usize, value: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(at).zip(value) {
                *to = *from;
            }
        };
        put(config::MAC, &self.mac());
        put(config::STATUS, &spec::LINK_UP.to_le_bytes());
        put(config::QUEUE_PAIRS, &1_u16.to_le_bytes());
        put(config::MTU, &self.parts.mtu.to_le_bytes());
        bytes
    }

    /// Sends what the driver has made available; `hand` gives a frame, with room for a header before it, to another port.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn transmit<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        budget: &mut Budget,
        now_ns: u64,
        mut hand: impl FnMut(&Port, &[u8]) -> Handed,
    ) -> Result<Served, Broken> {
        let mut served = Served::default();
        loop {
            if self.work.is_none() {
                if !served.take(queue, memory, &mut self.chain, budget)? {
                    break;
                }
                self.work = self.take_frame(memory, now_ns)?;
                // The buffer is the driver's again: the frame was copied.
                queue.push(memory, self.chain.head(), 0)?;
            }
            if !self.carry_on(budget, &mut hand) {
                served.is_more = true;
                break;
            }
            if budget.is_spent() {
                served.is_more = queue.has_available(memory)?;
                break;
            }
        }
        served.publish(queue, memory)?;
        Ok(served)
    }

    /// Copies a frame out of the chain and decides where it goes.
    fn take_frame<M: GuestMemory>(
        &mut self,
        memory: &M,
        now_ns: u64,
    ) -> Result<Option<Work>, Broken> {
        let bytes = self.chain.readable_bytes() as usize;
        let least = HEADER_BYTES + ETHERNET_BYTES;
        let Some(buffer) = self.frame.get_mut(..bytes).filter(|_| bytes >= least) else {
            self.counts.refused = self.counts.refused.wrapping_add(1);
            return Ok(None);
        };
        self.chain.reader().read(&self.chain, memory, buffer)?;
        let (_, frame) = buffer.split_at(HEADER_BYTES);
        let target = addresses(frame).and_then(|(destination, source)| {
            let from = self.parts.port;
            self.parts.network.switch(from, destination, source)
        });
        let length = frame.len() as u64;
        match target.filter(|_| self.rate.take(length, now_ns)) {
            None => self.counts.refused = self.counts.refused.wrapping_add(1),
            Some(target) => {
                self.counts.sent = self.counts.sent.wrapping_add(1);
                self.counts.sent_bytes = self.counts.sent_bytes.wrapping_add(length);
                return Ok(Some(Work {
                    bytes,
                    target,
                    next: 0,
                    tries: 0,
                }));
            }
        }
        Ok(None)
    }

    /// Hands the frame to the ports that get it; returns whether all have it.
    fn carry_on(
        &mut self,
        budget: &mut Budget,
        hand: &mut impl FnMut(&Port, &[u8]) -> Handed,
    ) -> bool {
        while let Some(mut work) = self.work {
            let Some((number, port)) = next_port(&self.parts, work) else {
                self.work = None;
                break;
            };
            if budget.is_spent() {
                return false;
            }
            let frame = self.frame.get(..work.bytes).unwrap_or(&[]);
            budget.spend(FRAME_COST.saturating_add(work.bytes as u32));
            work.tries = work.tries.wrapping_add(1);
            let is_over = hand(port, frame) == Handed::Over || work.tries >= MAX_TRIES;
            if is_over {
                (work.next, work.tries) = (number.wrapping_add(1), 0);
            }
            self.work = Some(work);
            if !is_over {
                return false;
            }
        }
        true
    }

    /// Gives the guest a frame, before which there is room for a header; returns whether its driver wants an interrupt.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn receive<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        frame: &[u8],
    ) -> Result<Served, Broken> {
        let mut served = Served::default();
        match self.fill(queue, memory, frame)? {
            0 => self.counts.dropped = self.counts.dropped.wrapping_add(1),
            chains => {
                served.chains = chains;
                let length = frame.len().wrapping_sub(HEADER_BYTES) as u64;
                self.counts.received = self.counts.received.wrapping_add(1);
                self.counts.received_bytes = self.counts.received_bytes.wrapping_add(length);
            }
        }
        served.publish(queue, memory)?;
        Ok(served)
    }

    /// Copies header and frame into chains of the receive queue; returns how many it took, or 0 if it has no room.
    fn fill<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        frame: &[u8],
    ) -> Result<u32, Broken> {
        let (mut used, mut count) = ([(0, 0); MAX_BUFFERS], 0_usize);
        let (header, mut rest) = ([0; HEADER_BYTES], frame.get(HEADER_BYTES..).unwrap_or(&[]));
        let mut places = [None; 2];
        let most = if self.has_mergeable { MAX_BUFFERS } else { 1 };
        while count == 0 || !rest.is_empty() {
            let slot = used.get_mut(..most).and_then(|used| used.get_mut(count));
            let (Some(slot), true) = (slot, queue.pop(memory, &mut self.chain)?) else {
                queue.give_back(count);
                return Ok(0);
            };
            let (mut writer, mut written) = (self.chain.writer(), 0);
            if count == 0 {
                places = writer.places(&self.chain, NUM_BUFFERS);
                written = writer.write(&self.chain, memory, &header)?;
                if written != HEADER_BYTES {
                    return Err(Broken::Request);
                }
            }
            let copied = writer.write(&self.chain, memory, rest)?;
            rest = rest.get(copied..).unwrap_or(&[]);
            *slot = (self.chain.head(), written.wrapping_add(copied) as u32);
            count = count.wrapping_add(1);
            if copied == 0 && !rest.is_empty() {
                queue.give_back(count);
                return Ok(0);
            }
        }
        for (place, byte) in places.into_iter().zip((count as u16).to_le_bytes()) {
            memory.write(place.ok_or(Broken::Request)?, &[byte])?;
        }
        for (head, bytes) in used.into_iter().take(count) {
            queue.push(memory, head, bytes)?;
        }
        Ok(count as u32)
    }
}

/// Returns the next port that a frame goes to.
fn next_port(parts: &NetParts, work: Work) -> Option<(u16, &'static Port)> {
    let number = match work.target {
        Target::None => return None,
        Target::One(port) if work.next <= port => port,
        Target::One(_) => return None,
        Target::All if work.next == parts.port => work.next.wrapping_add(1),
        Target::All => work.next,
    };
    Some((number, parts.network.port(number)?))
}

/// Returns the addresses of destination and source of a frame.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let destination = frame.first_chunk()?;
    let source = frame.get(6..)?.first_chunk()?;
    Some((*destination, *source))
}
