//! Tests of the whole system: they see QEMU, consoles and the guest protocol, never the hypervisor from inside.
//!
//! `source` reads this repository for the rules test; the other modules start machines and talk to them.
#![forbid(unsafe_code)]

pub mod source;
