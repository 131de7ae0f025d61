//! The machine's interrupt controller.
//!
//! Everything is group 1 non-secure. EL2 splits priority drop from deactivation (EOImode 1), so that an interrupt handed to a
//! guest stays active until the guest deactivates it through its list register (GIC IHI0069, 4.8 and 6.2).
//!
//! A version is a folder with the names below. The trap path reaches its list registers by the type that `vmm` is generic over,
//! so a second version takes a second set of vectors, chosen at boot, and no call through a pointer.

mod private;
mod v3;

/// The interrupt controller of the machine, started.
pub(crate) use v3::Gic;
/// How one CPU's list registers and the state around them are reached.
pub(crate) use v3::{
    HardwareListRegisters, count, guest_interface, load_guest, reset_guest, save_guest, start,
};
/// A CPU's private interrupts, and how it is interrupted by others.
pub(crate) use v3::{KickTarget, Redistributor, send_kick};
/// EL2's own interface.
pub(crate) use v3::{
    acknowledge, clear_active_priorities, deactivate, disable_interface, drop_priority,
    enable_interface,
};

pub(crate) use private::Ppis;

/// The SGI by which one CPU asks another to look at its mailboxes.
pub(crate) const KICK_SGI: u32 = 0;
/// INTIDs from here on are shared by all CPUs (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPI: u32 = 32;
/// INTIDs from here on are special: nothing to acknowledge (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPECIAL: u32 = 1020;
