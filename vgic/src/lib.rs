//! The virtual interrupt controller of a guest: a GICv3 with SGIs, PPIs and SPIs, without LPIs.
//!
//! The crate decides and holds no lock; `ListRegisters` is the seam through which it reaches the
//! hardware, and [`Inbox`] the one door through which other CPUs reach a vCPU:
//!
//! * [`v3::Distributor`]: the SPIs, one atomic word each, so that any CPU may raise, route and
//!   mask them at once.
//! * [`v3::Redistributor`]: what belongs to one vCPU - SGIs, PPIs, and what is in its list
//!   registers. Its owner calls it with `&mut`, under that vCPU's lock.
//! * [`Inbox`]: notices for a vCPU that runs elsewhere.
//!
//! Calls that may concern another vCPU take a `post` closure of type `FnMut(u16, Notice)`: put the
//! notice into the inbox of that vCPU (by index), and kick it if the inbox says so. A notice for
//! the calling vCPU itself asks for [`v3::Redistributor::deliver`] before the guest goes on.
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

#[cfg(test)]
mod fake;
mod inbox;
mod irq;
mod list_register;
pub mod v3;

pub use inbox::{Inbox, Mail};
pub use irq::{IntId, PRIVATE_COUNT, SPI_BASE, SPI_MAX};
pub use list_register::{
    LR_MAX, ListRegister, ListRegisters, LrState, Maintenance, SavedListRegisters,
    ends_without_entry, lr_count_to_use,
};

/// What an [`Inbox`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A private interrupt was raised; or something about an SPI changed: look at it.
    Interrupt(IntId),
    /// Enables or groups changed: look at everything.
    Resync,
}
