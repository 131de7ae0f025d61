//! The half of the hypervisor that decides: what an exit means, what a device register holds, what a guest is told.
//!
//! Safe, `no_std`, and testable on any host; `el2`, the binary of this package, does what is decided here. What no trap passes
//! (reading the machine and the manifest, describing, talking) is decided in the crate `control_plane`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bus;
pub mod cpu;
pub mod devices;
pub mod dispatch;
pub mod exit;
pub mod features;
pub mod hypercall;
pub mod memory;
pub mod ops;
pub mod sched;
pub mod spin;
pub mod sync;
pub mod vm;
