//! A GICv3 (GIC IHI0069): the distributor, each CPU's redistributor, and the CPU interface in system registers, which EL2 and the
//! guests share.

mod cpu_interface;
mod distributor;
mod list_registers;
mod priorities;

pub(crate) use cpu_interface::{
    KickTarget, acknowledge, deactivate, disable_interface, drop_priority, enable_interface,
    send_kick,
};
pub(crate) use distributor::{Gic, Redistributor};
pub(crate) use list_registers::{
    HardwareListRegisters, count, guest_interface, load_guest, reset_guest, save_guest, start,
};
pub(crate) use priorities::clear_active_priorities;
