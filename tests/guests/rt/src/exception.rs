//! Exceptions: one vector table, a frame with every register, and what becomes of each kind.
//!
//! A synchronous exception or SError inside [`crate::probe`] is recorded and skipped; an IRQ is handed to
//! [`crate::gic::dispatch`]; anything else ends the guest with a report.
#![expect(unsafe_code, reason = "exception vectors")]

use crate::{cpu, gic, psci};
use core::arch::global_asm;

/// The registers of the interrupted code, as the vectors save them.
#[repr(C)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// ELR_EL1: where it was interrupted.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    padding: u64,
}

/// A recorded exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; only meaningful for aborts.
    pub far: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// Which of the sixteen vectors it came by, from 0 in the table's order.
    pub vector: u64,
}

impl Fault {
    /// Exception class of an unknown or undefined instruction.
    pub const UNDEFINED: u64 = 0x00;
    /// Exception class of a trapped system register at the same level.
    pub const TRAPPED: u64 = 0x18;
    /// Exception class of a software step without change of level.
    pub const SOFTWARE_STEP: u64 = 0x33;
    /// Exception class of an instruction abort without change of level.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// Exception class of a data abort without change of level.
    pub const DATA_ABORT: u64 = 0x25;
    /// Fault status code of a synchronous external abort, not on a table walk.
    pub const SYNCHRONOUS_EXTERNAL: u64 = 0x10;

    /// Returns the exception class, ESR_EL1.EC.
    #[must_use]
    pub const fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Returns the fault status code of an abort, ESR_EL1.xFSC.
    #[must_use]
    pub const fn status(&self) -> u64 {
        self.esr & 0x3f
    }
}

global_asm!(
    r#"
    .macro rt_vector kind
    .balign 128
    sub     sp, sp, #{frame_size}
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       rt_exception
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global rt_vectors
rt_vectors:
    rt_vector 0
    rt_vector 1
    rt_vector 2
    rt_vector 3
    rt_vector 4
    rt_vector 5
    rt_vector 6
    rt_vector 7
    rt_vector 8
    rt_vector 9
    rt_vector 10
    rt_vector 11
    rt_vector 12
    rt_vector 13
    rt_vector 14
    rt_vector 15
    .balign 128

rt_exception:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    mrs     x4, esr_el1
    mrs     x5, far_el1
    stp     x30, x2, [sp, #240]
    stp     x3, x4, [sp, #256]
    str     x5, [sp, #272]
    mov     x1, x0
    mov     x0, sp
    bl      {handle}
    ldp     x30, x2, [sp, #240]
    ldr     x3, [sp, #256]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x0, x1, [sp]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    add     sp, sp, #{frame_size}
    eret
    "#,
    frame_size = const size_of::<Frame>(),
    handle = sym handle,
);

/// The vector's place within its group of four.
const SYNCHRONOUS: u64 = 0;
const IRQ: u64 = 1;
const SERROR: u64 = 3;
/// The first vector for exceptions from EL0.
const FROM_EL0: u64 = 8;
/// SPSR_EL1 for EL1h with D, A, I and F masked.
const EL1H_MASKED: u64 = 0x3c5;

/// SPSR_EL1.D: debug exceptions are masked.
const SPSR_D: u64 = 1 << 9;

extern "C" fn handle(frame: &mut Frame, kind: u64) {
    let cpu = cpu::current();
    match kind & 3 {
        IRQ => gic::dispatch(),
        SYNCHRONOUS | SERROR if cpu.take_probe() => {
            cpu.record(Fault {
                esr: frame.esr,
                far: frame.far,
                elr: frame.elr,
                vector: kind,
            });
            // What was stepped goes on without.
            if frame.esr >> 26 == Fault::SOFTWARE_STEP {
                frame.spsr |= SPSR_D;
            }
            if kind < FROM_EL0 {
                frame.elr = crate::probe::resume_address();
            } else {
                frame.elr = crate::user::resume_address();
                frame.spsr = EL1H_MASKED;
            }
        }
        _ => fatal(frame, kind, cpu.index()),
    }
}

fn fatal(frame: &Frame, kind: u64, cpu: usize) -> ! {
    println!(
        "PANIC exception kind {kind} on CPU {cpu}: ESR {:#x} ELR {:#x} FAR {:#x} SPSR {:#x} x30 {:#x}",
        frame.esr, frame.elr, frame.far, frame.spsr, frame.x[30]
    );
    println!("DONE 0 passed, 1 failed, 0 ignored");
    psci::system_off()
}

/// Unmasks IRQs on this CPU.
pub fn unmask() {
    insn!("msr daifclr, #2");
    insn!("isb");
}

/// Masks IRQs on this CPU.
pub fn mask() {
    insn!("msr daifset, #2");
    insn!("isb");
}

use crate::insn;
