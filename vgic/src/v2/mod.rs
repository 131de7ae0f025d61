//! The GICv2 face (IHI0048) of the core: distributor registers, which send SGIs too, and the encoding of list registers.
//!
//! The CPU interface is the hardware's GICV, which the guest reaches without EL2. Its second page is not: a write of
//! GICC_DIR there comes to [`crate::VcpuInterrupts::deactivate`].

pub mod distributor;
pub mod ends;
pub mod list_register;

#[cfg(test)]
mod model_tests;
