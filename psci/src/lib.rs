//! The psci room of Bullpen.
#![no_std]
#![forbid(unsafe_code)]
