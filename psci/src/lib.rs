//! PSCI and SMCCC: what a guest's firmware call says, and the life of the virtual CPU it is said about.
//!
//! `smccc` names functions and return codes, `call` decodes registers into a [`Call`], `power` is the pure state machine of one
//! virtual CPU between the reserve and its running, and `cell` the one atomic word that holds its state. This crate knows neither VMs
//! nor CPUs: `vmm` resolves an MPIDR to a cell, carries out what a [`Call`] asks for, and wakes what [`PowerCell::cpu_on`] has started.
//!
//! Specifications: Arm DEN0022F (PSCI 1.3), Arm DEN0028 (SMCCC 1.2), Arm DEN0057A (paravirtualised time), ACPI 6.5 §6.3, §8.4. Arm's are
//! cited by the name of the function, since the numbers of their sections change from issue to issue.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod call;
mod cell;
mod power;
mod smccc;

pub use call::{
    Answer, Call, EntryPoint, HW_OFF, HW_ON, Offered, Quick, Reset, Suspend, Workaround,
    WorkaroundState, decode, quick,
};
pub use cell::PowerCell;
pub use power::{AFFINITY_OFF, Event, Refusal, Role, STA_DISABLED, STA_ENABLED, State, transition};
pub use smccc::{FunctionId, NOT_SUPPORTED, PSCI_VERSION_1_3, ReturnCode, id};
