//! The hypervisor interface of the loaded vCPU: list registers and their control (GIC IHI0048, 5.3).

use types::gicv2;
use vgic::v2::list_register::{self, HCR_EVENTS};
use vgic::{ListRegister, ListRegisters, Maintenance};

use super::frames::{gich, list_register_at};
use super::links;

/// GICH_HCR.En: the virtual CPU interface is on.
const ENABLE: u32 = 1;
/// GICH_HCR.EOICount.
const EOI_COUNT: u32 = 0x1f << 27;

/// The list registers of this CPU, which hold the loaded vCPU's interrupts.
#[derive(Debug)]
pub(crate) struct HardwareListRegisters;

impl ListRegisters for HardwareListRegisters {
    const SERVE_GICV3: bool = false;

    #[inline]
    fn count(&self) -> usize {
        count()
    }

    #[inline]
    fn read(&self, n: usize) -> ListRegister {
        let value = if links::are_kept() {
            links::read(list_register_at(n))
        } else {
            gich().read32(list_register_at(n))
        };
        list_register::decode(value)
    }

    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        let mut value = list_register::encode(value);
        if links::are_kept() {
            value = links::hidden(value);
        }
        gich().write32(list_register_at(n), value);
    }

    #[inline]
    fn empty(&self) -> u32 {
        if links::are_kept() {
            links::end();
        }
        gich().read32(gicv2::GICH_ELRSR)
    }

    #[inline]
    fn eoi_status(&self) -> u32 {
        if links::are_kept() {
            links::end();
        }
        gich().read32(gicv2::GICH_EISR)
    }

    fn set_maintenance(&mut self, maintenance: Maintenance) {
        let control = gich().read32(gicv2::GICH_HCR) & !HCR_EVENTS;
        let events = list_register::hcr(maintenance);
        gich().write32(gicv2::GICH_HCR, control | events);
    }

    fn take_eoi_count(&mut self) -> u32 {
        let control = gich().read32(gicv2::GICH_HCR);
        gich().write32(gicv2::GICH_HCR, control & !EOI_COUNT);
        list_register::eoi_count(control, gich().read32(gicv2::GICH_VMCR))
    }

    fn lines(&self) -> u32 {
        crate::timer::lines() | crate::pmu::line()
    }
}

/// Returns how many list registers this CPU has.
pub(in crate::gic) fn count() -> usize {
    list_register::count(gich().read32(gicv2::GICH_VTR))
}

/// Empties the list registers and turns the virtual CPU interface on.
pub(super) fn start() {
    let mut lists = HardwareListRegisters;
    for n in 0..count() {
        lists.write(n, ListRegister::EMPTY);
    }
    gich().write32(gicv2::GICH_HCR, ENABLE);
}
