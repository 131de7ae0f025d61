//! The GICv3 face (IHI0069): distributor, redistributors, SGI generation.

mod bank;
mod distributor;
mod distributor_mmio;
mod lists;
mod raise;
mod redistributor;
mod redistributor_mmio;
mod refresh;
pub mod sgi;
pub mod spec;
mod spi;

#[cfg(test)]
mod distributor_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod redistributor_tests;

pub use distributor::Distributor;
pub use redistributor::{After, Effect, Owed, Redistributor};
