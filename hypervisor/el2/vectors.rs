//! The exception vectors: the first and the last instructions of every trap (Arm ARM D1.3.1).
//!
//! While a guest runs, SP_EL2 points at its [`Frame`]. A trap saves the registers that the procedure call standard lets a function
//! clobber, takes this CPU's stack, and asks a hot handler. Either that was all, and the guest goes on, or the remaining
//! registers are saved too and [`crate::switch::enter`] returns to its caller with the cause.
#![expect(unsafe_code, reason = "exception entry")]

use core::arch::global_asm;
use core::mem::offset_of;

use vmm::exit::class;
use vmm::vm::context::Frame;

/// Causes that leave the guest, as `enter` returns them.
pub(crate) mod cause {
    /// A synchronous exception that the hot path did not settle.
    pub(crate) const SYNC: u64 = 1;
    /// An interrupt that needs more than the hot path does.
    pub(crate) const IRQ: u64 = 2;
    /// A system error.
    pub(crate) const SERROR: u64 = 3;
}

const X: usize = offset_of!(Frame, x);
const PC: usize = offset_of!(Frame, pc);
const HOST_STACK: usize = offset_of!(Frame, host_stack);
const _: () = assert!(X == 0 && size_of::<Frame>().is_multiple_of(16));
const _: () = assert!(offset_of!(Frame, pstate) == PC + 8);

global_asm!(
    // The registers a Rust function may clobber: x0-x18 and x30.
    ".macro SAVE_VOLATILE",
    "    stp  x0, x1, [sp, #0]",
    "    stp  x2, x3, [sp, #16]",
    "    stp  x4, x5, [sp, #32]",
    "    stp  x6, x7, [sp, #48]",
    "    stp  x8, x9, [sp, #64]",
    "    stp  x10, x11, [sp, #80]",
    "    stp  x12, x13, [sp, #96]",
    "    stp  x14, x15, [sp, #112]",
    "    stp  x16, x17, [sp, #128]",
    "    str  x18, [sp, #144]",
    "    str  x30, [sp, #240]",
    ".endm",
    ".macro RESTORE_VOLATILE",
    "    ldp  x0, x1, [sp, #0]",
    "    ldp  x2, x3, [sp, #16]",
    "    ldp  x4, x5, [sp, #32]",
    "    ldp  x6, x7, [sp, #48]",
    "    ldp  x8, x9, [sp, #64]",
    "    ldp  x10, x11, [sp, #80]",
    "    ldp  x12, x13, [sp, #96]",
    "    ldp  x14, x15, [sp, #112]",
    "    ldp  x16, x17, [sp, #128]",
    "    ldr  x18, [sp, #144]",
    "    ldr  x30, [sp, #240]",
    ".endm",
    // One slot: 0x80 bytes. The handlers are `handler(frame, esr) -> (frame, cause or 0)`.
    ".macro SYNC_FROM_GUEST",
    ".balign 0x80",
    "    SAVE_VOLATILE",
    "    mov  x0, sp",
    "    ldr  x2, [sp, {host_stack}]",
    "    mrs  x1, esr_el2",
    "    mov  sp, x2",
    "    b    sync_from_guest",
    ".endm",
    ".macro FROM_GUEST handler",
    ".balign 0x80",
    "    SAVE_VOLATILE",
    "    mov  x0, sp",
    "    ldr  x1, [sp, {host_stack}]",
    "    mov  sp, x1",
    "    bl   \\handler",
    "    cbnz x1, 8f",
    "    mov  sp, x0",
    "    RESTORE_VOLATILE",
    "    eret",
    "8:  b    leave_guest",
    ".endm",
    ".macro FROM_EL2 kind",
    ".balign 0x80",
    "    sub  sp, sp, #272",
    "    SAVE_VOLATILE",
    "    mov  x0, {bad_kind_base}",
    "    add  x0, x0, \\kind",
    "    mov  x1, sp",
    "    b    {el2_exception}",
    ".endm",
    //
    ".pushsection .vectors, \"ax\"",
    ".balign 0x800",
    ".global exception_vectors",
    "exception_vectors:",
    "    FROM_EL2 0",
    "    FROM_EL2 1",
    "    FROM_EL2 2",
    "    FROM_EL2 3",
    "    FROM_EL2 4",
    "    FROM_EL2 5",
    "    FROM_EL2 6",
    "    FROM_EL2 7",
    "    SYNC_FROM_GUEST",
    "    FROM_GUEST {irq}",
    "    FROM_GUEST {irq}",
    "    FROM_GUEST {serror}",
    "    SYNC_FROM_GUEST",
    "    FROM_GUEST {irq}",
    "    FROM_GUEST {irq}",
    "    FROM_GUEST {serror}",
    ".balign 0x80",
    // Calls get the shortest way. An instruction that names x16 or above (bit 4 of its register field) needs all registers in
    // the frame; so does whatever is rare.
    "sync_from_guest:",
    "    lsr  x2, x1, #26",
    "    cmp  x2, {class_hvc}",
    "    b.ne 2f",
    "    bl   {hypercall}",
    "1:  cbnz x1, leave_guest",
    "    mov  sp, x0",
    "    RESTORE_VOLATILE",
    "    eret",
    "2:  cmp  x2, {class_data_abort}",
    "    b.ne 3f",
    "    tbnz x1, #20, 4f",
    "    bl   {data_abort}",
    "    b    1b",
    "3:  cmp  x2, {class_system}",
    "    b.ne 4f",
    "    tbnz x1, #9, 4f",
    "    bl   {system}",
    "    b    1b",
    "4:  stp  x19, x20, [x0, #152]",
    "    stp  x21, x22, [x0, #168]",
    "    stp  x23, x24, [x0, #184]",
    "    stp  x25, x26, [x0, #200]",
    "    stp  x27, x28, [x0, #216]",
    "    str  x29, [x0, #232]",
    "    bl   {sync}",
    "    cbnz x1, leave_guest",
    "    ldp  x19, x20, [x0, #152]",
    "    ldp  x21, x22, [x0, #168]",
    "    ldp  x23, x24, [x0, #184]",
    "    ldp  x25, x26, [x0, #200]",
    "    ldp  x27, x28, [x0, #216]",
    "    ldr  x29, [x0, #232]",
    "    mov  sp, x0",
    "    RESTORE_VOLATILE",
    "    eret",
    // x0 = frame, x1 = cause. Saves the rest and returns from `enter` to its caller.
    "leave_guest:",
    "    stp  x19, x20, [x0, #152]",
    "    stp  x21, x22, [x0, #168]",
    "    stp  x23, x24, [x0, #184]",
    "    stp  x25, x26, [x0, #200]",
    "    stp  x27, x28, [x0, #216]",
    "    str  x29, [x0, #232]",
    "    mrs  x2, elr_el2",
    "    mrs  x3, spsr_el2",
    "    stp  x2, x3, [x0, {pc}]",
    "    mov  x0, x1",
    "    ldp  x19, x20, [sp], #16",
    "    ldp  x21, x22, [sp], #16",
    "    ldp  x23, x24, [sp], #16",
    "    ldp  x25, x26, [sp], #16",
    "    ldp  x27, x28, [sp], #16",
    "    ldp  x29, x30, [sp], #16",
    "    ret",
    // enter(frame: *mut Frame) -> cause
    ".global enter_guest",
    "enter_guest:",
    "    stp  x29, x30, [sp, #-16]!",
    "    stp  x27, x28, [sp, #-16]!",
    "    stp  x25, x26, [sp, #-16]!",
    "    stp  x23, x24, [sp, #-16]!",
    "    stp  x21, x22, [sp, #-16]!",
    "    stp  x19, x20, [sp, #-16]!",
    "    mov  x1, sp",
    "    str  x1, [x0, {host_stack}]",
    "    ldp  x2, x3, [x0, {pc}]",
    "    msr  elr_el2, x2",
    "    msr  spsr_el2, x3",
    "    ldp  x19, x20, [x0, #152]",
    "    ldp  x21, x22, [x0, #168]",
    "    ldp  x23, x24, [x0, #184]",
    "    ldp  x25, x26, [x0, #200]",
    "    ldp  x27, x28, [x0, #216]",
    "    ldr  x29, [x0, #232]",
    "    mov  sp, x0",
    "    RESTORE_VOLATILE",
    "    eret",
    ".popsection",
    host_stack = const HOST_STACK,
    pc = const PC,
    bad_kind_base = const 0,
    el2_exception = sym crate::panic::el2_exception,
    class_hvc = const class::HVC64,
    class_data_abort = const class::DATA_ABORT,
    class_system = const class::SYSTEM,
    hypercall = sym crate::hot::hypercall,
    data_abort = sym crate::hot::data_abort,
    system = sym crate::hot::system,
    sync = sym crate::hot::sync,
    irq = sym crate::hot::irq,
    serror = sym crate::hot::serror,
);

unsafe extern "C" {
    static exception_vectors: u8;
    fn enter_guest(frame: *mut Frame) -> u64;
}

/// Returns the address of the vector table.
pub(crate) fn address() -> u64 {
    (&raw const exception_vectors).addr() as u64
}

/// Runs the guest whose general registers are in `frame` until something happens that the hot path does not settle.
///
/// Returns one of [`cause`]; the frame then holds every general register, the PC and the PSTATE.
#[inline]
pub(crate) fn enter(frame: &mut Frame) -> u64 {
    // SAFETY: the caller has loaded the rest of this vCPU's state and its stage-2 root; the frame is exclusively borrowed
    // until the function returns, and the vectors give the stack back as they found it.
    unsafe { enter_guest(frame) }
}
