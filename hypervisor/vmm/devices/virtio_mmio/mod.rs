//! Virtio devices behind the MMIO transport (VIRTIO 1.2): queues in the guest's memory, from which a device copies and to which it copies.
//!
//! No VM's memory is mapped to another one. `slots` is the table's device: every transport of a VM. `transport` is the registers of
//! one, `queue` the rings, `chain` a request, `work` how much is done at once; `device` puts a transport and what is behind it together:
//! `block`, a disk, `net`, a port of a network, or `rng`, a source of randomness.

mod block;
mod chain;
mod device;
mod net;
mod queue;
mod rng;
mod slots;
mod spec;
#[cfg(test)]
mod tests;
mod transport;
mod work;

pub use device::{News, Report};
pub use net::{Mac, NetParts, NetReport, Network, Port};
pub use queue::Broken;
pub(super) use slots::Slots;
