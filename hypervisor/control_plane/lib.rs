//! The rooms that no trap waits for: what is read when EL2 starts, told to a guest before it starts, or said to the operator.
//!
//! Built for size alone, while `vmm`, where traps are decided, is not: a package is the unit in which a compiler tells the two
//! apart. It knows no VM that runs, no lock and no interrupt controller.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod clock;
pub mod config;
pub mod console;
pub mod devicetree;
pub mod firmware;
pub mod host;
pub mod loader;
pub mod ram;
pub mod resize;
pub mod serial;
pub mod topology;
pub mod trace;
pub mod uuid;
