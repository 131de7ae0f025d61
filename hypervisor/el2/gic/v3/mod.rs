//! A GICv3 (GIC IHI0069): the distributor, each CPU's redistributor, and the CPU interface in system registers, which EL2 and the
//! guests share. Everything is group 1 non-secure.

mod cpu_interface;
mod distributor;
mod list_registers;
mod priorities;

use types::layout::GicVersion;
use vgic::CpuInterface;
use vmm::vm::GicRegisters;

use super::{KickTarget, Version};

pub(super) use cpu_interface::{kick_bits, knows_gicv2, start_cpu, stop_cpu};
pub(super) use distributor::{route, start};
pub(super) use list_registers::count;

/// This version.
pub(crate) struct V3;

impl Version for V3 {
    type Lists = list_registers::HardwareListRegisters;

    #[inline(always)]
    fn lists() -> Self::Lists {
        list_registers::HardwareListRegisters
    }

    #[inline(always)]
    fn acknowledge() -> u32 {
        cpu_interface::acknowledge()
    }

    #[inline(always)]
    fn drop_priority(intid: u32) {
        cpu_interface::drop_priority(intid);
    }

    #[inline(always)]
    fn deactivate(intid: u32) {
        cpu_interface::deactivate(intid);
    }

    #[inline(always)]
    fn send_kick(target: KickTarget) {
        cpu_interface::send_kick(target.bits());
    }

    #[inline(always)]
    fn load_vm(guest: GicVersion) {
        let wanted = guest == GicVersion::V3;
        if cpu_interface::are_registers_given() != wanted {
            cpu_interface::give_registers(wanted);
        }
    }

    #[inline(always)]
    fn load_guest(registers: &GicRegisters) {
        list_registers::load_guest(registers);
    }

    #[inline(always)]
    fn reset_guest() {
        list_registers::reset_guest();
    }

    #[inline(always)]
    fn save_guest(registers: &mut GicRegisters) {
        list_registers::save_guest(registers);
    }

    #[inline(always)]
    fn guest_interface() -> CpuInterface {
        list_registers::guest_interface()
    }
}
