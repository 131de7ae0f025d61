//! The hypervisor interface of the loaded vCPU: list registers and the state around them (GIC IHI0069, 12.4).

use crate::sysreg::{read_register, write_register};
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
    ($n:expr, $apply:ident $(, $value:expr)?) => {
        match $n {
            2 => $apply!("ICH_LR2_EL2" $(, $value)?),
            3 => $apply!("ICH_LR3_EL2" $(, $value)?),
            4 => $apply!("ICH_LR4_EL2" $(, $value)?),
            5 => $apply!("ICH_LR5_EL2" $(, $value)?),
            6 => $apply!("ICH_LR6_EL2" $(, $value)?),
            7 => $apply!("ICH_LR7_EL2" $(, $value)?),
            8 => $apply!("ICH_LR8_EL2" $(, $value)?),
            9 => $apply!("ICH_LR9_EL2" $(, $value)?),
            10 => $apply!("ICH_LR10_EL2" $(, $value)?),
            11 => $apply!("ICH_LR11_EL2" $(, $value)?),
            12 => $apply!("ICH_LR12_EL2" $(, $value)?),
            13 => $apply!("ICH_LR13_EL2" $(, $value)?),
            14 => $apply!("ICH_LR14_EL2" $(, $value)?),
            _ => $apply!("ICH_LR15_EL2" $(, $value)?),
        }
    };
}

#[inline(never)]
fn read_later(n: usize) -> u64 {
    later_list_register!(n, read_register)
}

#[inline(never)]
fn write_later(n: usize, value: u64) {
    later_list_register!(n, write_register, value);
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
            0 => read_register!("ICH_LR0_EL2"),
            1 => read_register!("ICH_LR1_EL2"),
            _ => read_later(n),
        })
    }

    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        let value = list_register::encode(value);
        match n {
            0 => write_register!("ICH_LR0_EL2", value),
            1 => write_register!("ICH_LR1_EL2", value),
            _ => write_later(n, value),
        }
    }

    #[inline]
    fn empty(&self) -> u32 {
        read_register!("ICH_ELRSR_EL2") as u32
    }

    #[inline]
    fn eoi_status(&self) -> u32 {
        read_register!("ICH_EISR_EL2") as u32
    }

    fn set_maintenance(&mut self, maintenance: Maintenance) {
        let control = read_register!("ICH_HCR_EL2") & !HCR_EVENTS;
        write_register!("ICH_HCR_EL2", control | list_register::hcr(maintenance));
    }

    fn take_eoi_count(&mut self) -> u32 {
        let control = read_register!("ICH_HCR_EL2");
        write_register!("ICH_HCR_EL2", control & ((1 << EOI_COUNT_SHIFT) - 1));
        list_register::eoi_count(
            control,
            read_register!("ICH_VMCR_EL2"),
            read_register!("ICH_VTR_EL2"),
        )
    }

    fn lines(&self) -> u32 {
        crate::timer::lines()
    }
}

/// Returns how many list registers this CPU has.
pub(in crate::gic) fn count() -> usize {
    list_register::count(read_register!("ICH_VTR_EL2"))
}

/// Clears the hypervisor interface of this CPU.
pub(super) fn start() {
    let mut lists = HardwareListRegisters;
    for n in 0..count() {
        lists.write(n, ListRegister::EMPTY);
    }
    write_register!("ICH_HCR_EL2", ENABLE);
}

/// Loads the interface's registers but for the list registers.
#[inline]
pub(super) fn load_guest(registers: &GicRegisters) {
    write_register!("ICH_VMCR_EL2", registers.vmcr);
    write_register!("ICH_AP0R0_EL2", registers.ap0r);
    write_register!("ICH_AP1R0_EL2", registers.ap1r);
}

/// Resets the interface's registers but for the list registers.
#[inline]
pub(super) fn reset_guest() {
    write_register!("ICH_VMCR_EL2", 0);
    write_register!("ICH_AP0R0_EL2", 0);
    write_register!("ICH_AP1R0_EL2", 0);
}

/// Saves the interface's registers but for the list registers.
#[inline]
pub(super) fn save_guest(registers: &mut GicRegisters) {
    registers.vmcr = read_register!("ICH_VMCR_EL2");
    registers.ap0r = read_register!("ICH_AP0R0_EL2");
    registers.ap1r = read_register!("ICH_AP1R0_EL2");
}

/// Returns what the loaded vCPU's CPU interface lets through.
#[inline]
pub(super) fn guest_interface() -> CpuInterface {
    list_register::cpu_interface(read_register!("ICH_VMCR_EL2"))
}
