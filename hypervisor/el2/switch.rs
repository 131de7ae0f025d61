//! The world switch: loading a vCPU's EL1 state into this CPU and taking it out again.
//!
//! A vCPU stays loaded until another one needs the CPU; entering and leaving a loaded vCPU touches general registers only.
#![expect(unsafe_code, reason = "sets what traps")]

use crate::sysreg;
use vmm::vm::context::SystemRegisters;

macro_rules! each_register {
    ($apply:ident, $registers:expr) => {
        $apply! {
            $registers, sp_el0 sp_el1 elr_el1 spsr_el1 sctlr_el1 cpacr_el1 ttbr0_el1 ttbr1_el1 tcr_el1 mair_el1 amair_el1 vbar_el1
            contextidr_el1 esr_el1 far_el1 afsr0_el1 afsr1_el1 par_el1 tpidr_el0 tpidr_el1 tpidrro_el0 cntkctl_el1 mdscr_el1 csselr_el1
        }
    };
}

macro_rules! each_key {
    ($apply:ident, $registers:expr) => {
        $apply! {
            $registers, apiakeylo_el1 apiakeyhi_el1 apibkeylo_el1 apibkeyhi_el1 apdakeylo_el1 apdakeyhi_el1 apdbkeylo_el1
            apdbkeyhi_el1 apgakeylo_el1 apgakeyhi_el1
        }
    };
}

// In pairs, so that two of them share one load or store.
macro_rules! write_all {
    ($registers:expr, $($a:ident $b:ident)*) => {{
        $(
            let (first, second) = ($registers.$a, $registers.$b);
            sysreg::$a::write(first);
            sysreg::$b::write(second);
        )*
    }};
}

macro_rules! read_all {
    ($registers:expr, $($a:ident $b:ident)*) => {{
        $(
            let (first, second) = (sysreg::$a::read(), sysreg::$b::read());
            ($registers.$a, $registers.$b) = (first, second);
        )*
    }};
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
    sysreg::sctlr_el1::write(RESET.sctlr_el1);
    sysreg::cpacr_el1::write(RESET.cpacr_el1);
    sysreg::cntkctl_el1::write(RESET.cntkctl_el1);
    sysreg::mdscr_el1::write(RESET.mdscr_el1);
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
    // SAFETY: `Pcpu::enter` passes `FeaturePolicy::hcr`, which has stage 2, the routing of interrupts and the traps of `hcr::ALWAYS` and
    // not E2H, with nothing but traps of WFI and WFE added; a test of `vmm::features` holds it.
    unsafe { sysreg::hcr_el2::write(hcr) };
}
