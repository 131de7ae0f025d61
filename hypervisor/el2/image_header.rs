//! The first instructions: the arm64 `Image` header, and what must happen before Rust can run.
//!
//! Entered as a kernel is (Linux Documentation/arch/arm64/booting.rst): MMU off, device tree address in x0, any 2 MiB-aligned
//! base. Relocates the image, clears .bss, takes the boot stack and calls [`crate::boot::start`] with the exception level it found.
#![expect(unsafe_code, reason = "entry code")]

use core::arch::global_asm;

/// SCTLR_EL2 with every RES1 bit set and everything else, the MMU first of all, off (Arm ARM D19.2.119).
const SCTLR_EL2_OFF: u64 = 0x30c5_0830;
/// HCR_EL2 with only RW set: E2H and TGE clear, whatever a boot loader left (some hand over in VHE mode).
const HCR_EL2_PLAIN: u64 = 1 << 31;
/// `CurrentEL` when at EL2.
const CURRENT_EL2: u64 = 2 << 2;
/// Bytes that one bitmap of packed relative relocations covers: 63 words (System V gABI, section type SHT_RELR).
const RELR_BITMAP_BYTES: u64 = 63 * 8;

global_asm!(
    ".pushsection .image_header, \"ax\"",
    ".global image_header",
    "image_header:",
    "    b    1f",
    "    .word 0",
    "    .quad 0",               // text_offset
    "    .quad __image_size",    // image_size, an absolute symbol: no relocation
    "    .quad 0xa",             // little endian, 4 KiB pages, anywhere
    "    .quad 0",
    "    .quad 0",
    "    .quad 0",
    "    .ascii \"ARM\\x64\"",
    "    .word 0",
    "1:  msr  daifset, #0xf",
    "    mov  x19, x0",
    "    mrs  x20, CurrentEL",
    "    cmp  x20, {current_el2}",
    "    b.ne 2f",
    // What follows is written for SP_EL2, and a panic before the CPU's own data is there says so by this zero.
    "    msr  spsel, #1",
    "    msr  tpidr_el2, xzr",
    "    ldr  x1, ={sctlr}",
    "    msr  sctlr_el2, x1",
    "    isb",
    "    mov  x1, {hcr}",
    "    msr  hcr_el2, x1",
    "    isb",
    // Invalidate what may lie in the cache of the image: it is about to be written with the MMU off.
    "2:  adrp x21, __image_start",
    "    adrp x1, __bss_end",
    "    mrs  x2, ctr_el0",
    "    ubfx x2, x2, #16, #4",
    "    mov  x3, #4",
    "    lsl  x3, x3, x2",
    "    mov  x4, x21",
    "3:  dc   civac, x4",
    "    add  x4, x4, x3",
    "    cmp  x4, x1",
    "    b.lo 3b",
    "    dsb  sy",
    // Relocate: an even word is the address of a place, an odd one a bitmap of the 63 places that follow.
    "    adrp x1, __relr_start",
    "    add  x1, x1, :lo12:__relr_start",
    "    adrp x2, __relr_end",
    "    add  x2, x2, :lo12:__relr_end",
    "4:  cmp  x1, x2",
    "    b.hs 20f",
    "    ldr  x3, [x1], #8",
    "    tbnz x3, #0, 5f",
    "    add  x4, x21, x3",
    "    ldr  x5, [x4]",
    "    add  x5, x5, x21",
    "    str  x5, [x4], #8",
    "    b    4b",
    "5:  mov  x6, x4",
    "    add  x4, x4, {bitmap_bytes}",
    "6:  lsr  x3, x3, #1",
    "    cbz  x3, 4b",
    "    tbz  x3, #0, 7f",
    "    ldr  x5, [x6]",
    "    add  x5, x5, x21",
    "    str  x5, [x6]",
    "7:  add  x6, x6, #8",
    "    b    6b",
    // Clear .bss.
    "20: adrp x1, __bss_start",
    "    adrp x2, __bss_end",
    "21: cmp  x1, x2",
    "    b.hs 22f",
    "    stp  xzr, xzr, [x1], #16",
    "    b    21b",
    "22: adrp x1, __boot_stack_end",
    "    add  x1, x1, :lo12:__boot_stack_end",
    "    mov  sp, x1",
    "    mov  x29, xzr",
    "    mov  x0, x19",
    "    lsr  x1, x20, #2",
    "    bl   {start}",
    "23: wfi",
    "    b    23b",
    ".ltorg",
    ".popsection",
    current_el2 = const CURRENT_EL2,
    sctlr = const SCTLR_EL2_OFF,
    hcr = const HCR_EL2_PLAIN,
    bitmap_bytes = const RELR_BITMAP_BYTES,
    start = sym crate::boot::start,
);
