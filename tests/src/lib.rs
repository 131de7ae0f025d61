//! Tests of the whole system: they see QEMU, consoles and the guest protocol, never the hypervisor from inside.
//!
//! `source` reads this repository for the rules test, `calls` finds the callers of its functions. `artefacts` finds what
//! `cargo xtask` built, `manifest` says what VMs a bundle holds, `machine` starts QEMU, `console` and `control` are the two ways to
//! talk to it, `guest` follows the protocol of the bare-metal guests, `versions` has them run on both versions of the GIC, `linux` talks to the demo's shell, `neighbour` to a guest
//! that watches what others do to it.
#![forbid(unsafe_code)]

mod armstub;
pub mod artefacts;
pub mod calls;
pub mod console;
pub mod control;
pub mod guest;
pub mod imports;
pub mod linux;
pub mod machine;
pub mod manifest;
pub mod neighbour;
mod slots;
pub mod source;
pub mod tree;
pub mod versions;

pub use machine::{Machine, Running};
pub use manifest::{Manifest, Vm};
