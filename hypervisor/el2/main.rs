//! The half of the hypervisor that acts.
#![no_std]
#![no_main]
