//! The GICv3 face (IHI0069) of the core: distributor and redistributor registers, SGI generation,
//! and the encoding of list registers.

pub mod distributor;
pub mod list_register;
pub mod redistributor;
pub mod sgi;
mod spec;

#[cfg(test)]
mod distributor_tests;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod redistributor_tests;
