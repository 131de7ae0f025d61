//! What all versions of the GIC have in common: the SPI words, a vCPU's private interrupts, the
//! inbox between vCPUs, and the list registers' allocation.
//!
//! A face ([`crate::v3`]) decodes the registers that a guest sees, and calls in here with banks,
//! routes and notices. Nothing here knows an offset, an affinity or an encoding of a version.

pub(crate) mod bank;
pub(crate) mod inbox;
pub(crate) mod interface;
mod lines;
pub(crate) mod list_registers;
mod lists;
mod private_bank;
mod raise;
mod refresh;
pub(crate) mod route;
mod sources;
pub(crate) mod spi;
mod spi_bank;
pub(crate) mod spis;
pub(crate) mod vcpu;
