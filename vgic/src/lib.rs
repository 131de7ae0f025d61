//! The virtual interrupt controller of a guest: SGIs, PPIs and SPIs, without LPIs.
//!
//! The crate decides and holds no lock. Its core knows no version of the GIC:
//!
//! * [`Spis`]: the SPIs, one atomic word each, so that any CPU may raise, route and mask them at once.
//! * [`VcpuInterrupts`]: what belongs to one vCPU - SGIs, PPIs, and what is in its list registers.
//!   Its owner calls it with `&mut`, under that vCPU's lock.
//! * [`Inbox`]: notices for a vCPU that runs elsewhere.
//! * [`ListRegisters`]: the seam to the hardware, whose list registers are fields ([`ListRegister`]).
//!
//! A face is what a guest sees of it: [`v2`] and [`v3`] decode the registers of a GICv2 and a GICv3 and encode their
//! list registers.
//!
//! Calls that may concern another vCPU take a `post` closure of type `FnMut(u16, Notice)`: put the
//! notice into the inbox of that vCPU (by index), and kick it if the inbox says so. A notice for
//! the calling vCPU itself asks for [`VcpuInterrupts::deliver`] before the guest goes on.
//!
//! Any CPU leaves a notice; only the first of several has to kick the vCPU, which takes them all at once:
//!
//! ```
//! use vgic::{Inbox, IntId, Notice};
//!
//! let inbox = Inbox::new();
//! let timer = IntId::private(27);
//! assert!(inbox.post(Notice::Interrupt(timer)), "kick it");
//! assert!(!inbox.post(Notice::Resync), "it knows already");
//!
//! let mail = inbox.take();
//! assert_eq!(mail.private(), timer.bit());
//! assert!(mail.wants_resync());
//! assert!(inbox.is_empty());
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod core;
#[cfg(test)]
mod fake;
mod irq;
mod lr;
pub mod v2;
pub mod v3;

pub use self::core::inbox::{Inbox, Mail, Notice};
pub use self::core::interface::CpuInterface;
pub use self::core::list_registers::{ListRegisters, Maintenance, SavedListRegisters};
pub use self::core::spis::Spis;
pub use self::core::vcpu::{After, Effect, Owed, Sgis, VcpuInterrupts};
pub use irq::{IntId, PRIVATE_COUNT, SPI_BASE, SPI_MAX};
pub use lr::{Fields, LR_MAX, ListRegister, LrState};
