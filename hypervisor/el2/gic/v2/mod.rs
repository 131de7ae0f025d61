//! A GICv2 with virtualization extensions (GIC IHI0048), all in memory: each CPU sees its own CPU interface (GICC), hypervisor
//! interface (GICH) and guest's interface (GICV) at the same address.
//!
//! Interrupts are in group 0 where there are no Security Extensions; where there are, non-secure software sees its group 1 as if it
//! were that, so both are the same to EL2.

mod cpu_interface;
mod frames;
mod links;
mod list_registers;

use control_plane::host::{self, PrivateInterrupts};
use types::layout::GicVersion;
use vgic::CpuInterface;
use vgic::v2::list_register;
use vmm::vm::GicRegisters;

use super::{KickTarget, Version};
use crate::mmio::Registers;
use types::gicv2;

pub(super) use cpu_interface::{kick_bits, route_here, start_cpu, stop_cpu};
pub(super) use list_registers::count;

/// Maps the frames and initialises the distributor, whose registers are returned.
///
/// # Errors
/// When there is no translation table left to map the registers.
pub(super) fn start(
    found: &host::GicV2,
    private: PrivateInterrupts,
) -> Result<Registers, &'static str> {
    let distributor = frames::start(found)?;
    links::start(private);
    Ok(distributor)
}

/// This version.
pub(crate) struct V2;

impl Version for V2 {
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
        cpu_interface::send_kick(target.bits() as u32);
    }

    /// All guests of a GICv2 have one.
    #[inline(always)]
    fn load_vm(_: GicVersion) {}

    #[inline]
    fn load_guest(registers: &GicRegisters) {
        let gich = frames::gich();
        gich.write32(gicv2::GICH_VMCR, registers.vmcr as u32);
        gich.write32(gicv2::GICH_APR, registers.ap0r as u32);
    }

    #[inline]
    fn reset_guest() {
        let gich = frames::gich();
        gich.write32(gicv2::GICH_VMCR, 0);
        gich.write32(gicv2::GICH_APR, 0);
    }

    #[inline]
    fn save_guest(registers: &mut GicRegisters) {
        let gich = frames::gich();
        registers.vmcr = gich.read32(gicv2::GICH_VMCR).into();
        registers.ap0r = gich.read32(gicv2::GICH_APR).into();
    }

    #[inline]
    fn guest_interface() -> CpuInterface {
        list_register::cpu_interface(frames::gich().read32(gicv2::GICH_VMCR))
    }
}
