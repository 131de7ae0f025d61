//! The world switch: loading a vCPU's EL1 state into this CPU and taking it out again.
//!
//! A vCPU stays loaded until another one needs the CPU; entering and leaving a loaded vCPU touches general registers only.

use crate::sysreg::{read_register, write_register};
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

// In pairs, so that two of them share one load or store.
macro_rules! write_all {
    ($registers:expr $(, $a:ident $first:literal, $b:ident $second:literal)*) => {{
        $(
            let (first, second) = ($registers.$a, $registers.$b);
            write_register!($first, first);
            write_register!($second, second);
        )*
    }};
}

macro_rules! read_all {
    ($registers:expr $(, $a:ident $first:literal, $b:ident $second:literal)*) => {{
        $(
            let (first, second) = (read_register!($first), read_register!($second));
            ($registers.$a, $registers.$b) = (first, second);
        )*
    }};
}

macro_rules! each_key {
    ($apply:ident, $registers:expr) => {
        $apply!(
            $registers, apia_low "S3_0_C2_C1_0", apia_high "S3_0_C2_C1_1", apib_low "S3_0_C2_C1_2", apib_high "S3_0_C2_C1_3",
            apda_low "S3_0_C2_C2_0", apda_high "S3_0_C2_C2_1", apdb_low "S3_0_C2_C2_2", apdb_high "S3_0_C2_C2_3",
            apga_low "S3_0_C2_C3_0", apga_high "S3_0_C2_C3_1"
        )
    };
}

/// Loads the EL1 registers.
#[inline(always)]
pub(crate) fn load(registers: &SystemRegisters, pointer_authentication: bool) {
    each_register!(write_all, registers);
    if pointer_authentication {
        each_key!(write_all, registers);
    }
}

/// Loads the EL1 registers of a CPU that was just turned on; the compiler knows every value.
#[inline]
pub(crate) fn load_reset(pointer_authentication: bool) {
    load(&SystemRegisters::RESET, pointer_authentication);
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
        each_key!(read_all, registers);
    }
}

/// Sets the traps that may change between two entries of one vCPU.
#[inline]
pub(crate) fn set_hcr(hcr: u64) {
    write_register!("hcr_el2", hcr);
}
