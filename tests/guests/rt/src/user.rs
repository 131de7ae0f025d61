//! Single instructions at EL0, in both execution states: run one, learn its result or the exception it takes.
//!
//! As [`crate::probe`], with the instruction in a page that EL0 sees and an SVC behind it. It may use registers 0 and 1.
#![expect(unsafe_code, reason = "runs instructions that are made at run time")]

use crate::cpu;
use crate::mmu::{self, Memory};
use crate::probe::Observation;
use core::arch::{asm, global_asm};

/// An execution state, with the PSTATE it is entered in: interrupts masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// AArch64.
    A64,
    /// AArch32, 32-bit instructions.
    A32,
    /// AArch32, 32-bit instructions, big-endian data.
    A32BigEndian,
    /// AArch32, 16-bit instructions or pairs of them, the first in the lower half.
    T32,
}

impl State {
    /// SPSR_EL1 (DDI0487 C5.2.19): M[4] is AArch32, E is bit 9, T is bit 5.
    const fn spsr(self) -> u64 {
        match self {
            Self::A64 => 0x3c0,
            Self::A32 => 0x1d0,
            Self::A32BigEndian => 0x3d0,
            Self::T32 => 0x1f0,
        }
    }

    /// `svc #0`, and what fills the rest of its word.
    const fn svc(self) -> u32 {
        match self {
            Self::A64 => 0xd400_0001,
            Self::A32 | Self::A32BigEndian => 0xef00_0000,
            Self::T32 => 0xdf00_df00,
        }
    }
}

/// Exception classes of an SVC from AArch32 and AArch64.
const SVC: [u64; 2] = [0x11, 0x15];
/// The GiB of the identity map that EL0 sees its code in.
const CODE_WINDOW: u64 = 3;

global_asm!(
    r#"
    .section .text.user, "ax"
rt_user:
    stp     x29, x30, [sp, #-16]!
    stp     x27, x28, [sp, #-16]!
    stp     x25, x26, [sp, #-16]!
    stp     x23, x24, [sp, #-16]!
    stp     x21, x22, [sp, #-16]!
    stp     x19, x20, [sp, #-16]!
    msr     elr_el1, x2
    msr     spsr_el1, x3
    eret
    // AArch32 has cut registers short that it cannot name.
rt_user_resume:
    ldp     x19, x20, [sp], #16
    ldp     x21, x22, [sp], #16
    ldp     x23, x24, [sp], #16
    ldp     x25, x26, [sp], #16
    ldp     x27, x28, [sp], #16
    ldp     x29, x30, [sp], #16
    ret
    "#
);

#[repr(C)]
struct Pair {
    x0: u64,
    x1: u64,
}

unsafe extern "C" {
    fn rt_user(x0: u64, x1: u64, code: u64, spsr: u64) -> Pair;
    fn rt_user_resume();
}

/// Returns where the exception handler continues after EL0.
pub(crate) fn resume_address() -> u64 {
    rt_user_resume as *const () as u64
}

/// Lets EL0 see the image, so that [`run`] works.
pub fn open() {
    let _ = mmu::user_window(
        CODE_WINDOW,
        cpu::current().code_slot() as u64,
        Memory::Normal,
    );
}

/// Runs one instruction at EL0 with these values of registers 0 and 1; [`open`] comes first.
#[must_use]
pub fn run(state: State, instruction: u32, x0: u64, x1: u64) -> Observation {
    let cpu = cpu::current();
    let slot = cpu.code_slot();
    // SAFETY: this CPU's own slot, of two instructions.
    unsafe {
        slot.cast::<[u32; 2]>()
            .write_volatile([instruction, state.svc()])
    };
    // SAFETY: makes the slot's new contents visible to instruction fetch (DDI0487 B2.4.4).
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ialluis", "dsb ish", "isb", in(reg) slot, options(nostack))
    };
    let code = CODE_WINDOW * mmu::GIB + slot as u64 % mmu::GIB;
    cpu.arm_probe();
    // SAFETY: the instruction and the SVC behind it run at EL0, where they reach registers 0 and 1 only; the SVC, or an
    // exception before it, comes back to `rt_user_resume`.
    let pair = unsafe { rt_user(x0, x1, code, state.spsr()) };
    let fault = cpu.recorded();
    let done = SVC.contains(&fault.class()) && fault.elr != code;
    Observation {
        x0: pair.x0,
        x1: pair.x1,
        fault: (!done).then_some(fault),
        exact: fault.elr == code,
        behind: fault.elr.wrapping_sub(code),
    }
}
