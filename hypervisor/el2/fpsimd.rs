//! The FP and SIMD registers, switched only when a vCPU uses them while another's values are in the unit.
#![expect(
    unsafe_code,
    reason = "moves the FP registers, which EL2 itself never uses"
)]

use crate::sysreg::{isb, write_register};
use vmm::vm::context::FpRegisters;

macro_rules! with_pairs {
    ($instruction:literal, $pointer:expr) => {
        core::arch::asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            concat!($instruction, " q0, q1, [{0}, #0]"),
            concat!($instruction, " q2, q3, [{0}, #32]"),
            concat!($instruction, " q4, q5, [{0}, #64]"),
            concat!($instruction, " q6, q7, [{0}, #96]"),
            concat!($instruction, " q8, q9, [{0}, #128]"),
            concat!($instruction, " q10, q11, [{0}, #160]"),
            concat!($instruction, " q12, q13, [{0}, #192]"),
            concat!($instruction, " q14, q15, [{0}, #224]"),
            concat!($instruction, " q16, q17, [{0}, #256]"),
            concat!($instruction, " q18, q19, [{0}, #288]"),
            concat!($instruction, " q20, q21, [{0}, #320]"),
            concat!($instruction, " q22, q23, [{0}, #352]"),
            concat!($instruction, " q24, q25, [{0}, #384]"),
            concat!($instruction, " q26, q27, [{0}, #416]"),
            concat!($instruction, " q28, q29, [{0}, #448]"),
            concat!($instruction, " q30, q31, [{0}, #480]"),
            in(reg) $pointer,
            options(nostack, preserves_flags)
        )
    };
}

/// Saves the unit's registers; the FP trap must be off.
pub(crate) fn save(registers: &mut FpRegisters) {
    let pointer = registers.v.as_mut_ptr();
    // SAFETY: `v` is 512 writable bytes, 16-byte aligned; EL2 is built without FP, so no live value is read.
    unsafe { with_pairs!("stp", pointer) };
    registers.fpcr = crate::sysreg::read_register!("S3_3_C4_C4_0");
    registers.fpsr = crate::sysreg::read_register!("S3_3_C4_C4_1");
}

/// Loads the unit's registers; the FP trap must be off.
pub(crate) fn load(registers: &FpRegisters) {
    let pointer = registers.v.as_ptr();
    // SAFETY: `v` is 512 readable bytes, 16-byte aligned; EL2 is built without FP, so no live value is lost.
    unsafe { with_pairs!("ldp", pointer) };
    write_register!("S3_3_C4_C4_0", registers.fpcr);
    write_register!("S3_3_C4_C4_1", registers.fpsr);
}

/// Sets CPTR_EL2, which decides whether the guest's FP instructions trap.
#[inline]
pub(crate) fn set_trap(cptr: u64) {
    write_register!("cptr_el2", cptr);
    isb();
}
