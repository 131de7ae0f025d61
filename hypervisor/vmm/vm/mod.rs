//! Virtual machines and their virtual CPUs: the only owner of locks.

pub mod resize;
