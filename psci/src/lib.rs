//! PSCI and SMCCC: what a guest's firmware call says, and the life of the virtual CPU it is said about.
//!
//! `smccc` names functions and return codes, `call` decodes registers into a [`Call`], `power` is the pure state machine of one
//! virtual CPU between the reserve and its running, and `cell` the one atomic word that holds its state. This crate knows neither VMs
//! nor CPUs: `vmm` resolves an MPIDR to a cell, carries out what a [`Call`] asks for, and wakes what [`PowerCell::cpu_on`] has started.
//!
//! Specifications: Arm DEN0022F (PSCI 1.3), Arm DEN0028 (SMCCC 1.2), Arm DEN0057A (paravirtualised time), ACPI 6.5 §6.3, §8.4. Arm's are
//! cited by the name of the function, since the numbers of their sections change from issue to issue.
//!
//! A guest turns on a vCPU that the operator has offered:
//!
//! ```
//! use psci::{Call, EntryPoint, Event, PowerCell, ReturnCode, Role, State, decode, id};
//!
//! let cell = PowerCell::new(Role::Hotplug);
//! let entry = EntryPoint { address: 0x4020_0000, context_id: 7 };
//! assert_eq!(cell.cpu_on(entry), ReturnCode::Denied, "it is in reserve");
//!
//! assert_eq!(cell.apply(Event::Offer), Ok(State::EnabledOff));
//! let cpu_on = u64::from(id::CPU_ON | id::SMC64);
//! assert_eq!(decode(cpu_on, 0x100, entry.address, 7), Call::CpuOn { target: 0x100, entry });
//! assert_eq!(cell.cpu_on(entry), ReturnCode::Success);
//! assert_eq!(cell.start(), Some(entry));
//! assert_eq!(cell.state(), State::On);
//! ```
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
