//! The facts that several rooms share, each defined once: names for what a machine has several of, addresses, affinities, the
//! guest's map, the maps of registers that are driven and emulated, counters.
//!
//! The lowest room: it knows no other, decides nothing, and depends on core only.
//!
//! ```
//! use types::ids::VcpuId;
//! use types::layout::GuestLayout;
//!
//! // Sixteen vCPUs share an Aff1, and 123 redistributors fit below RAM.
//! let vcpu = VcpuId::new(124);
//! assert_eq!(vcpu.affinity(), 0x070c);
//! assert_eq!(VcpuId::from_affinity(0x070c), Some(vcpu));
//!
//! let redistributors = GuestLayout::default().redistributors(200);
//! let second = redistributors.regions().nth(1).expect("another range");
//! let frame = second.base.checked_add(0x2_0000).expect("an address");
//! assert_eq!(redistributors.find(frame), Some((vcpu, 0)));
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod words;

pub mod access;
pub mod address;
pub mod affinity;
pub mod bits;
pub mod counter;
pub mod devices;
pub mod entitlement;
pub mod gicv2;
pub mod gicv3;
pub mod hotplug;
pub mod ids;
pub mod layout;
pub mod pl011;
pub mod stats;
