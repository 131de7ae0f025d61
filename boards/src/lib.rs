//! The boards room of Bullpen.
#![no_std]
#![forbid(unsafe_code)]
