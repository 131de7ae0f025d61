//! The machine's GICv3: the distributor, each CPU's redistributor, and the CPU interface that EL2 and the guests share.
//!
//! Everything is group 1 non-secure. EL2 splits priority drop from deactivation (EOImode 1), so that an interrupt handed to a
//! guest stays active until the guest deactivates it through its list register (GIC IHI0069, 4.8 and 6.2).

mod cpu_interface;
mod distributor;
mod list_registers;

pub(crate) use cpu_interface::{
    acknowledge, deactivate, disable_interface, drop_priority, enable_interface, send_kick,
};
pub(crate) use distributor::{Gic, Redistributor};
pub(crate) use list_registers::{
    HardwareListRegisters, control, count, load_guest, reset_guest, save_guest, start,
};

/// The SGI by which one CPU asks another to look at its mailboxes.
pub(crate) const KICK_SGI: u32 = 0;
/// Maintenance interrupt of the virtual CPU interface (GIC IHI0069, 6.1.2; every board seen).
pub(crate) const MAINTENANCE_PPI: u32 = 25;
/// INTIDs from here on are shared by all CPUs (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPI: u32 = 32;
/// INTIDs from here on are special: nothing to acknowledge (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPECIAL: u32 = 1020;
