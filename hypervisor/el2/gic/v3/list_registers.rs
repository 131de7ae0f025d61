//! The hypervisor interface of the loaded vCPU: list registers and the state around them (GIC IHI0069, 12.4).
#![expect(
    unsafe_code,
    reason = "turns the virtual interface and its maintenance interrupts on"
)]

use crate::sysreg;
use vgic::v3::list_register::{self, HCR_EVENTS};
use vgic::{CpuInterface, ListRegister, ListRegisters, Maintenance};
use vmm::vm::GicRegisters;

/// ICH_HCR_EL2.En: the virtual CPU interface is on.
const ENABLE: u64 = 1;
/// ICH_HCR_EL2.EOIcount.
const EOI_COUNT_SHIFT: u64 = 27;

/// The list registers of this CPU, which hold the loaded vCPU's interrupts.
#[derive(Debug)]
pub(crate) struct HardwareListRegisters;

macro_rules! later_list_register {
    ($n:expr, $access:ident $values:tt, $($each:literal)*) => {
        match $n {
            $($each => sysreg::ich_lr_el2::$access::<$each> $values,)*
            _ => sysreg::ich_lr_el2::$access::<15> $values,
        }
    };
}

#[inline(never)]
fn read_later(n: usize) -> u64 {
    later_list_register!(n, read(), 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

#[inline(never)]
fn write_later(n: usize, value: u64) {
    later_list_register!(n, write(value), 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

impl ListRegisters for HardwareListRegisters {
    #[inline]
    fn count(&self) -> usize {
        count()
    }

    #[inline]
    fn read(&self, n: usize) -> ListRegister {
        // The first two are used most, and for most guests alone.
        list_register::decode(match n {
            0 => sysreg::ich_lr_el2::read::<0>(),
            1 => sysreg::ich_lr_el2::read::<1>(),
            _ => read_later(n),
        })
    }

    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        let value = list_register::encode(value);
        match n {
            0 => sysreg::ich_lr_el2::write::<0>(value),
            1 => sysreg::ich_lr_el2::write::<1>(value),
            _ => write_later(n, value),
        }
    }

    #[inline]
    fn empty(&self) -> u32 {
        sysreg::ich_elrsr_el2::read() as u32
    }

    #[inline]
    fn eoi_status(&self) -> u32 {
        sysreg::ich_eisr_el2::read() as u32
    }

    fn set_maintenance(&mut self, maintenance: Maintenance) {
        let control = sysreg::ich_hcr_el2::read() & !HCR_EVENTS;
        // SAFETY: the interface stays on; what is asked for is an interrupt to EL2 that `vmm::dispatch` handles.
        unsafe { sysreg::ich_hcr_el2::write(control | list_register::hcr(maintenance)) };
    }

    fn take_eoi_count(&mut self) -> u32 {
        let control = sysreg::ich_hcr_el2::read();
        // SAFETY: as it was, but for the count.
        unsafe { sysreg::ich_hcr_el2::write(control & ((1 << EOI_COUNT_SHIFT) - 1)) };
        list_register::eoi_count(
            control,
            sysreg::ich_vmcr_el2::read(),
            sysreg::ich_vtr_el2::read(),
        )
    }

    fn lines(&self) -> u32 {
        crate::timer::lines() | crate::pmu::line()
    }
}

/// Returns how many list registers this CPU has.
pub(in crate::gic) fn count() -> usize {
    list_register::count(sysreg::ich_vtr_el2::read())
}

/// Clears the hypervisor interface of this CPU.
pub(super) fn start() {
    let mut lists = HardwareListRegisters;
    for n in 0..count() {
        lists.write(n, ListRegister::EMPTY);
    }
    // SAFETY: the list registers are empty, so no guest is told of an interrupt; no maintenance interrupt is asked for.
    unsafe { sysreg::ich_hcr_el2::write(ENABLE) };
}

/// Loads the interface's registers but for the list registers.
#[inline]
pub(super) fn load_guest(registers: &GicRegisters) {
    sysreg::ich_vmcr_el2::write(registers.vmcr);
    sysreg::ich_ap0r_el2::write::<0>(registers.ap0r);
    sysreg::ich_ap1r_el2::write::<0>(registers.ap1r);
}

/// Resets the interface's registers but for the list registers.
#[inline]
pub(super) fn reset_guest() {
    sysreg::ich_vmcr_el2::write(0);
    sysreg::ich_ap0r_el2::write::<0>(0);
    sysreg::ich_ap1r_el2::write::<0>(0);
}

/// Saves the interface's registers but for the list registers.
#[inline]
pub(super) fn save_guest(registers: &mut GicRegisters) {
    registers.vmcr = sysreg::ich_vmcr_el2::read();
    registers.ap0r = sysreg::ich_ap0r_el2::read::<0>();
    registers.ap1r = sysreg::ich_ap1r_el2::read::<0>();
}

/// Returns what the loaded vCPU's CPU interface lets through.
#[inline]
pub(super) fn guest_interface() -> CpuInterface {
    list_register::cpu_interface(sysreg::ich_vmcr_el2::read())
}
