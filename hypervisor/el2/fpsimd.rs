//! The FP and SIMD registers, switched only when a vCPU uses them while another's values are in the unit.
#![expect(unsafe_code, reason = "moves registers that EL2 never uses")]

use crate::sysreg::{self, isb};
use vmm::vm::context::FpRegisters;

macro_rules! with_all {
    ($instruction:literal, $pointer:expr) => {
        core::arch::asm!(
            ".arch_extension simd",
            concat!($instruction, " {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{0}], #64"),
            concat!($instruction, " {{v4.2d, v5.2d, v6.2d, v7.2d}}, [{0}], #64"),
            concat!($instruction, " {{v8.2d, v9.2d, v10.2d, v11.2d}}, [{0}], #64"),
            concat!($instruction, " {{v12.2d, v13.2d, v14.2d, v15.2d}}, [{0}], #64"),
            concat!($instruction, " {{v16.2d, v17.2d, v18.2d, v19.2d}}, [{0}], #64"),
            concat!($instruction, " {{v20.2d, v21.2d, v22.2d, v23.2d}}, [{0}], #64"),
            concat!($instruction, " {{v24.2d, v25.2d, v26.2d, v27.2d}}, [{0}], #64"),
            concat!($instruction, " {{v28.2d, v29.2d, v30.2d, v31.2d}}, [{0}]"),
            inout(reg) $pointer => _,
            options(nostack, preserves_flags)
        )
    };
}

/// Saves the unit's registers; the FP trap must be off.
pub(crate) fn save(registers: &mut FpRegisters) {
    let pointer = registers.v.as_mut_ptr();
    // SAFETY: `v` is 512 writable bytes, 16-byte aligned; EL2 is built without FP, so no live value is read.
    unsafe { with_all!("st1", pointer) };
    registers.fpcr = sysreg::fpcr::read();
    registers.fpsr = sysreg::fpsr::read();
}

/// Loads the unit's registers; the FP trap must be off.
pub(crate) fn load(registers: &FpRegisters) {
    let pointer = registers.v.as_ptr();
    // SAFETY: `v` is 512 readable bytes, 16-byte aligned; EL2 is built without FP, so no live value is lost.
    unsafe { with_all!("ld1", pointer) };
    sysreg::fpcr::write(registers.fpcr);
    sysreg::fpsr::write(registers.fpsr);
}

/// Sets CPTR_EL2, which decides whether the guest's FP instructions trap.
#[inline]
pub(crate) fn set_trap(cptr: u64) {
    // SAFETY: one of the two values of a `FeaturePolicy`, or 0 where no guest runs: EL2 uses none of what it traps, but for `save` and
    // `load`, whose callers have the FP trap off.
    unsafe { sysreg::cptr_el2::write(cptr) };
    isb();
}
