//! The exception vectors: the first and the last instructions of every trap (Arm ARM D1.3.1).
//!
//! While a guest runs, SP_EL2 points at its [`Frame`]. A trap saves the registers that the procedure call standard lets a function
//! clobber, takes this CPU's stack, and asks a hot handler. Either that was all, and the guest goes on, or the remaining
//! registers are saved too and [`crate::switch::enter`] returns to its caller with the cause.
#![expect(unsafe_code, reason = "exception entry")]

use core::arch::global_asm;
use core::ffi::c_void;
use core::mem::offset_of;

use types::layout::GicVersion;
use vmm::cpu::cause;
use vmm::exit::{class, system_register};
use vmm::vm::context::Frame;

use crate::gic::{self, V2, V3};
use crate::mmu;

const X: usize = offset_of!(Frame, x);
const PC: usize = offset_of!(Frame, pc);
/// Bits of an address within the window of stacks.
const WINDOW_SHIFT: u64 = 40;
const HOST_STACK: usize = offset_of!(Frame, host_stack);
const _: () = assert!(X == 0 && size_of::<Frame>().is_multiple_of(16));
const _: () = assert!(offset_of!(Frame, pstate) == PC + 8);

global_asm!(
    // The registers a Rust function may clobber: x0-x18 and x30, which lies in x19's place until the rest is saved.
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
    "    stp  x18, x30, [sp, #144]",
    ".endm",
    // Back to the guest with x18 and x30 as SAVE_VOLATILE left them.
    ".macro RESUME",
    "    mov  sp, x0",
    "    ldp  x18, x30, [sp, #144]",
    "    RESTORE_X0_TO_X17",
    "    eret",
    ".endm",
    ".macro RESTORE_X0_TO_X17",
    "    ldp  x0, x1, [sp, #0]",
    "    ldp  x2, x3, [sp, #16]",
    "    ldp  x4, x5, [sp, #32]",
    "    ldp  x6, x7, [sp, #48]",
    "    ldp  x8, x9, [sp, #64]",
    "    ldp  x10, x11, [sp, #80]",
    "    ldp  x12, x13, [sp, #96]",
    "    ldp  x14, x15, [sp, #112]",
    "    ldp  x16, x17, [sp, #128]",
    ".endm",
    // Puts everything a function keeps into the frame in x0, and x30 in its own place.
    ".macro SAVE_REST",
    "    ldr  x2, [x0, #152]",
    "    str  x2, [x0, #240]",
    "    stp  x19, x20, [x0, #152]",
    "    stp  x21, x22, [x0, #168]",
    "    stp  x23, x24, [x0, #184]",
    "    stp  x25, x26, [x0, #200]",
    "    stp  x27, x28, [x0, #216]",
    "    str  x29, [x0, #232]",
    ".endm",
    // Back to the guest with every register from the frame in x0.
    ".macro RESUME_ALL",
    "    mov  sp, x0",
    "    ldp  x18, x19, [sp, #144]",
    "    ldp  x20, x21, [sp, #160]",
    "    ldp  x22, x23, [sp, #176]",
    "    ldp  x24, x25, [sp, #192]",
    "    ldp  x26, x27, [sp, #208]",
    "    ldp  x28, x29, [sp, #224]",
    "    ldr  x30, [sp, #240]",
    "    RESTORE_X0_TO_X17",
    "    eret",
    ".endm",
    // One slot: 0x80 bytes. The handlers are `handler(frame, esr) -> (frame, cause or 0)`.
    ".macro SYNC_FROM_GUEST version, hypercall",
    ".balign 0x80",
    "    SAVE_VOLATILE",
    "    mov  x0, sp",
    "    ldr  x2, [sp, {host_stack}]",
    "    mrs  x1, esr_el2",
    "    mov  sp, x2",
    "    lsr  x2, x1, #26",
    "    cmp  x2, {class_hvc}",
    "    b.ne not_a_hypercall_\\version",
    "    bl   \\hypercall",
    "    b    after_hot_\\version",
    ".endm",
    ".macro FROM_GUEST handler",
    ".balign 0x80",
    "    SAVE_VOLATILE",
    "    mov  x0, sp",
    "    ldr  x1, [sp, {host_stack}]",
    "    mov  sp, x1",
    "    bl   \\handler",
    "    cbnz x1, leave_guest",
    "    RESUME",
    ".endm",
    // The CPU stops after this, so a guest's TPIDR_EL0 may go. A stack of the window may be full: it is left for the other one there.
    ".macro FROM_EL2 kind",
    ".balign 0x80",
    "    msr  tpidr_el0, x0",
    "    mov  x0, sp",
    "    lsr  x0, x0, {window_shift}",
    "    cmp  x0, {window}",
    "    b.ne 1f",
    "    mov  x0, sp",
    "    and  x0, x0, {stride_mask}",
    "    add  x0, x0, {last_stack_pages}, lsl #12",
    "    mov  sp, x0",
    "1:  mrs  x0, tpidr_el0",
    "    sub  sp, sp, #272",
    "    SAVE_VOLATILE",
    "    mov  x0, {bad_kind_base}",
    "    add  x0, x0, \\kind",
    "    mov  x1, sp",
    "    b    {el2_exception}",
    ".endm",
    //
    // A whole table: one for each version of the interrupt controller, whose handlers these are.
    ".macro VECTORS version, hypercall, system, data_abort, wait, sync, irq",
    ".balign 0x800",
    ".global exception_vectors_\\version",
    "exception_vectors_\\version:",
    ".irp kind, 0,1,2,3,4,5,6,7",
    "    FROM_EL2 \\kind",
    ".endr",
    "    SYNC_FROM_GUEST \\version, \\hypercall",
    "    FROM_GUEST \\irq",
    "    FROM_GUEST \\irq",
    "    FROM_GUEST {serror}",
    "    SYNC_FROM_GUEST \\version, \\hypercall",
    "    FROM_GUEST \\irq",
    "    FROM_GUEST \\irq",
    "    FROM_GUEST {serror}",
    ".balign 0x80",
    "after_hot_\\version:",
    "    cbnz x1, leave_guest",
    "    RESUME",
    // An instruction that names x16 or above (bit 4 of its register field) needs all registers in the frame; so does
    // whatever is rare.
    "not_a_hypercall_\\version:",
    "    cmp  x2, {class_system}",
    "    b.ne 2f",
    "    tbnz x1, #9, 3f",
    // CRn and op1 zero, op0 3: only the feature registers trap there.
    "    tst  x1, {not_feature}",
    "    b.ne 1f",
    "    tbz  x1, #20, 1f",
    "    bl   {feature_register}",
    "    RESUME",
    "1:  bl   \\system",
    "    cbnz x1, leave_guest",
    "    RESUME",
    "2:  cmp  x2, {class_data_abort}",
    "    b.ne 4f",
    "    tbnz x1, #20, 3f",
    // What is not described (ISV) and big-endian data go the long way.
    "    tbz  x1, #24, 3f",
    "    mrs  x2, sctlr_el1",
    "    tst  x2, {big_endian}",
    "    b.ne 3f",
    "    bl   \\data_abort",
    "    cbnz x1, leave_guest",
    "    RESUME",
    "4:  cmp  x2, {class_wfx}",
    "    b.ne 3f",
    "    bl   \\wait",
    "    cbnz x1, leave_guest",
    "    RESUME",
    "3:  SAVE_REST",
    "    bl   \\sync",
    "    cbnz x1, leave_guest_saved",
    "    RESUME_ALL",
    ".endm",
    //
    ".pushsection .vectors, \"ax\"",
    "    VECTORS v2, {hypercall_v2}, {system_v2}, {data_abort_v2}, {wait_v2}, {sync_v2}, {irq_v2}",
    "    VECTORS v3, {hypercall_v3}, {system_v3}, {data_abort_v3}, {wait_v3}, {sync_v3}, {irq_v3}",
    // x0 = frame, x1 = cause. Saves the rest and returns from `enter` to its caller.
    "leave_guest:",
    // A CPU that turns itself off leaves its registers behind.
    "    tbnz x1, {off_bit}, leave_guest_saved",
    "    SAVE_REST",
    "leave_guest_saved:",
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
    "    RESUME_ALL",
    ".popsection",
    host_stack = const HOST_STACK,
    pc = const PC,
    bad_kind_base = const 0,
    window_shift = const WINDOW_SHIFT,
    window = const mmu::STACK_WINDOW >> WINDOW_SHIFT,
    stride_mask = const !(mmu::STACK_STRIDE - 1),
    last_stack_pages = const mmu::LAST_STACK_TOP / mmu::PAGE,
    el2_exception = sym crate::panic::el2_exception,
    class_hvc = const class::HVC64,
    class_data_abort = const class::DATA_ABORT,
    class_system = const class::SYSTEM,
    class_wfx = const class::WFX,
    off_bit = const cause::OFF.trailing_zeros(),
    big_endian = const vmm::exit::BIG_ENDIAN_DATA,
    hypercall_v2 = sym crate::hot::hypercall::<V2>,
    hypercall_v3 = sym crate::hot::hypercall::<V3>,
    data_abort_v2 = sym crate::hot::data_abort::<V2>,
    data_abort_v3 = sym crate::hot::data_abort::<V3>,
    system_v2 = sym crate::hot::system::<V2>,
    system_v3 = sym crate::hot::system::<V3>,
    feature_register = sym crate::hot::feature_register,
    not_feature = const system_register(0, 7, 15, 0, 0),
    sync_v2 = sym crate::hot::sync::<V2>,
    sync_v3 = sym crate::hot::sync::<V3>,
    wait_v2 = sym crate::hot::wait::<V2>,
    wait_v3 = sym crate::hot::wait::<V3>,
    irq_v2 = sym crate::hot::irq::<V2>,
    irq_v3 = sym crate::hot::irq::<V3>,
    serror = sym crate::hot::serror,
);

unsafe extern "C" {
    static exception_vectors_v2: u8;
    static exception_vectors_v3: u8;
    fn enter_guest(frame: *mut c_void) -> u64;
}

/// Returns the address of the vector table for the machine's interrupt controller.
pub(crate) fn address() -> u64 {
    let table = match gic::version() {
        GicVersion::V2 => &raw const exception_vectors_v2,
        GicVersion::V3 => &raw const exception_vectors_v3,
    };
    table.addr() as u64
}

/// Runs the guest whose general registers are in `frame` until something happens that the hot path does not settle.
///
/// Returns one of [`cause`]; the frame then holds every general register, the PC and the PSTATE.
#[inline]
pub(crate) fn enter(frame: &mut Frame) -> u64 {
    // SAFETY: the caller has loaded the rest of this vCPU's state and its stage-2 root; the frame is exclusively borrowed
    // until the function returns, and the vectors give the stack back as they found it.
    unsafe { enter_guest((&raw mut *frame).cast()) }
}
