//! The half of the hypervisor that decides: what an exit means, what a device register holds, what a guest is told.
//!
//! Safe, `no_std`, and testable on any host; `el2`, the binary of this package, does what is decided here.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bus;
pub mod clock;
pub mod config;
pub mod console;
pub mod devices;
pub mod devicetree;
pub mod dispatch;
pub mod exit;
pub mod features;
pub mod firmware;
pub mod host;
pub mod hypercall;
pub mod ids;
pub mod layout;
pub mod loader;
pub mod memory;
pub mod ram;
pub mod sched;
pub mod stats;
pub mod sysreg;
pub mod trace;
pub mod vm;
