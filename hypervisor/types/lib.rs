//! The facts that several rooms share, each defined once: names for what a machine has several of, addresses, affinities, the
//! guest's map, the maps of registers that are driven and emulated, counters.
//!
//! The lowest room: it knows no other, decides nothing, and depends on core only.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod words;

pub mod access;
pub mod address;
pub mod affinity;
pub mod bits;
pub mod gicv3;
pub mod hotplug;
pub mod ids;
pub mod layout;
pub mod pl011;
pub mod stats;
