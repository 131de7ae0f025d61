//! `memcpy` and `memset`, which the compiler calls for every larger copy and for zeros.
//!
//! The compiler's own are built for strictly aligned memory and take 22 instructions for 8 bytes between different alignments.
#![expect(unsafe_code, reason = "copies memory on the compiler's behalf")]

/// Copies `count` bytes; the ranges do not overlap. Returns `to`.
///
/// # Safety
/// As the C standard has it. While the MMU is off memory is of Device type and takes no unaligned access (Arm ARM B2.7): then
/// what is not aligned goes byte by byte.
// SAFETY: this is the function of that name, and nothing else here has it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    core::arch::naked_asm!(
        "mov x3, x0; cmp x2, #16; b.lo 5f; orr x4, x0, x1; tst x4, #7; b.eq 1f; mrs x4, sctlr_el2; tbz x4, #0, 6f",
        "1: subs x2, x2, #64; b.lo 3f; 2: ldp x4, x5, [x1], #16; ldp x6, x7, [x1], #16; ldp x8, x9, [x1], #16",
        "ldp x10, x11, [x1], #16; stp x4, x5, [x3], #16; stp x6, x7, [x3], #16; stp x8, x9, [x3], #16; stp x10, x11, [x3], #16",
        "subs x2, x2, #64; b.hs 2b; 3: tbz x2, #5, 8f; ldp x4, x5, [x1], #16; ldp x6, x7, [x1], #16; stp x4, x5, [x3], #16",
        "stp x6, x7, [x3], #16; 8: tbz x2, #4, 4f; ldp x4, x5, [x1], #16; stp x4, x5, [x3], #16",
        "4: and x2, x2, #15; tbz x2, #3, 5f; ldr x4, [x1], #8; str x4, [x3], #8; and x2, x2, #7",
        "5: cbz x2, 7f; 6: ldrb w4, [x1], #1; strb w4, [x3], #1; subs x2, x2, #1; b.ne 6b; 7: ret",
    )
}

/// Fills `count` bytes with the lowest byte of `value`. Returns `to`.
///
/// # Safety
/// As for [`memcpy`].
// SAFETY: this is the function of that name, and nothing else here has it.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    core::arch::naked_asm!(
        "mov x3, x0; cmp x2, #16; b.lo 5f; tst x0, #7; b.eq 1f; mrs x4, sctlr_el2; tbz x4, #0, 6f",
        "1: and x1, x1, #0xff; orr x1, x1, x1, lsl #8; orr x1, x1, x1, lsl #16; orr x1, x1, x1, lsl #32",
        "subs x2, x2, #32; b.lo 3f; 2: stp x1, x1, [x3], #16; stp x1, x1, [x3], #16; subs x2, x2, #32; b.hs 2b",
        "3: tbz x2, #4, 4f; stp x1, x1, [x3], #16; 4: and x2, x2, #15; 5: cbz x2, 7f; 6: strb w1, [x3], #1; subs x2, x2, #1; b.ne 6b; 7: ret",
    )
}
