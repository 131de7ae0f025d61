//! The world switch: loading a vCPU's EL1 state into this CPU and taking it out again.
//!
//! A vCPU stays loaded until another one needs the CPU; entering and leaving a loaded vCPU touches general registers only.

use crate::sysreg::{isb, read_register, write_register};
use vmm::features::FeaturePolicy;
use vmm::vm::context::SystemRegisters;

macro_rules! each_register {
    ($apply:ident, $registers:expr) => {
        $apply!(
            $registers, sp_el0 "sp_el0", sp_el1 "sp_el1", elr_el1 "elr_el1", spsr_el1 "spsr_el1",
            sctlr_el1 "sctlr_el1", cpacr_el1 "cpacr_el1", ttbr0_el1 "ttbr0_el1", ttbr1_el1 "ttbr1_el1",
            tcr_el1 "tcr_el1", mair_el1 "mair_el1", amair_el1 "amair_el1", vbar_el1 "vbar_el1",
            contextidr_el1 "contextidr_el1", esr_el1 "esr_el1", far_el1 "far_el1", afsr0_el1 "afsr0_el1",
            afsr1_el1 "afsr1_el1", par_el1 "par_el1", tpidr_el0 "tpidr_el0", tpidr_el1 "tpidr_el1",
            tpidrro_el0 "tpidrro_el0", cntkctl_el1 "cntkctl_el1", mdscr_el1 "mdscr_el1", csselr_el1 "csselr_el1"
        )
    };
}

macro_rules! write_all {
    ($registers:expr, $($field:ident $name:literal),*) => {{ $(write_register!($name, $registers.$field);)* }};
}

macro_rules! read_all {
    ($registers:expr, $($field:ident $name:literal),*) => {{ $($registers.$field = read_register!($name);)* }};
}

macro_rules! each_key {
    ($apply:ident, $keys:expr) => {
        $apply!(
            $keys, 0 "S3_0_C2_C1_0", 1 "S3_0_C2_C1_1", 2 "S3_0_C2_C1_2", 3 "S3_0_C2_C1_3", 4 "S3_0_C2_C2_0",
            5 "S3_0_C2_C2_1", 6 "S3_0_C2_C2_2", 7 "S3_0_C2_C2_3", 8 "S3_0_C2_C3_0", 9 "S3_0_C2_C3_1"
        )
    };
}

macro_rules! write_keys {
    ($keys:expr, $($index:literal $name:literal),*) => {{ $(write_register!($name, $keys[$index]);)* }};
}

macro_rules! read_keys {
    ($keys:expr, $($index:literal $name:literal),*) => {{ $($keys[$index] = read_register!($name);)* }};
}

/// Loads the EL1 registers.
#[inline]
pub(crate) fn load(registers: &SystemRegisters, pointer_authentication: bool) {
    each_register!(write_all, registers);
    if pointer_authentication {
        each_key!(write_keys, registers.pauth);
    }
}

/// Loads the EL1 registers of a CPU that was just turned on; the compiler knows every value.
#[inline]
pub(crate) fn load_reset(pointer_authentication: bool) {
    const RESET: SystemRegisters = SystemRegisters::RESET;
    each_register!(write_all, RESET);
    if pointer_authentication {
        each_key!(write_keys, RESET.pauth);
    }
}

/// Sets those EL1 registers that a reset gives a value; the others keep what they have, which a reset leaves unknown.
#[inline]
pub(crate) fn load_known_reset() {
    const RESET: SystemRegisters = SystemRegisters::RESET;
    write_register!("sctlr_el1", RESET.sctlr_el1);
    write_register!("cpacr_el1", RESET.cpacr_el1);
    write_register!("cntkctl_el1", RESET.cntkctl_el1);
    write_register!("mdscr_el1", RESET.mdscr_el1);
}

/// Saves the EL1 registers.
#[inline]
pub(crate) fn save(registers: &mut SystemRegisters, pointer_authentication: bool) {
    each_register!(read_all, registers);
    if pointer_authentication {
        each_key!(read_keys, registers.pauth);
    }
}

/// Loads what a VM's CPUs have in common: its tables, its traps.
#[inline]
pub(crate) fn load_vm(policy: &FeaturePolicy, hcr: u64, vttbr: u64, vtcr: u64) {
    write_register!("hcr_el2", hcr);
    write_register!("vtcr_el2", vtcr);
    write_register!("vttbr_el2", vttbr);
    write_register!("mdcr_el2", policy.mdcr);
    isb();
}

/// Sets the traps that may change between two entries of one vCPU.
#[inline]
pub(crate) fn set_hcr(hcr: u64) {
    write_register!("hcr_el2", hcr);
}
