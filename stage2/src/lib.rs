//! Stage-2 translation tables: from what a guest calls a physical address to what the machine calls one.
//!
//! Pure: memory for tables comes through a trait, TLB maintenance goes out as values (Arm ARM DDI0487, D8).
#![no_std]
#![forbid(unsafe_code)]

mod address;

pub use address::{GuestPhys, HostPhys};
