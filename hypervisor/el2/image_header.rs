//! The first instructions: the headers of the image, and what must happen before Rust can run.
//!
//! One file is two programs, as Linux's is. A boot loader enters it as a kernel (Linux Documentation/arch/arm64/booting.rst): MMU off,
//! device tree address in x0. Firmware enters it as an EFI application (PE/COFF; UEFI 2.10, 2.1.1 and 2.3.6): MMU on, the firmware's
//! stack, image handle and system table in x0 and x1. Either way any page-aligned base will do: the image relocates itself.
//!
//! The headers have a page of their own, which firmware may map read-only, as it may the code behind them: nothing but what follows
//! the code is written.
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
/// The bit that every EFI error has and no address (UEFI 2.10, appendix D).
const EFI_ERROR_BIT: u64 = 63;

// What is 0 where nothing is said: no relocation table, since the image needs none; no symbols; no checksum. The sizes are
// differences that the linker script names, so that they need no relocation themselves.
global_asm!(
    ".pushsection .image_header, \"a\"",
    ".global image_header",
    "image_header:",
    "    ccmp x18, #0, #0xd, pl", // does nothing; its first two bytes are "MZ", as a PE file begins
    "    b    __entry",
    "    .quad 0",            // text_offset
    "    .quad __image_size", // image_size, an absolute symbol: no relocation
    "    .quad 0xa",          // little endian, 4 KiB pages, anywhere
    "    .quad 0",
    "    .quad 0",
    "    .quad 0",
    "    .ascii \"ARM\\x64\"",
    "    .word 30f - image_header", // where a PE file has the offset of what follows
    // The COFF header (Microsoft PE format, "COFF File Header").
    "30: .ascii \"PE\\0\\0\"",
    "    .hword 0xaa64", // machine: arm64
    "    .hword 2",      // sections
    "    .word 0, 0, 0",
    "    .hword 32f - 31f", // size of the optional header
    "    .hword 0x226",     // executable, no line numbers, large addresses, no debug data
    // The optional header, PE32+.
    "31: .hword 0x20b",
    "    .hword 0",
    "    .word __text_size",
    "    .word __data_size",
    "    .word 0",
    "    .word __efi_entry_offset",
    "    .word __text_offset",
    "    .quad 0",             // the preferred base: none
    "    .word 0x1000, 0x200", // alignment of sections and in the file
    "    .word 0",
    "    .hword 1, 0", // image version: from 1 on GRUB passes an initrd by LoadFile2
    "    .word 0, 0",
    "    .word __image_size",
    "    .word __text_offset", // size of the headers
    "    .word 0",
    "    .hword 10",    // subsystem: EFI application
    "    .hword 0x100", // NX_COMPAT: what is data need not be executable, nor code writable
    "    .quad 0, 0, 0, 0",
    "    .word 0",
    "    .word 6", // data directories, all empty; some loaders look at the sixth without counting
    "    .quad 0, 0, 0, 0, 0, 0",
    "32: .ascii \".text\\0\\0\\0\"",
    "    .word __text_size, __text_offset, __text_size, __text_offset",
    "    .word 0, 0, 0",
    "    .word 0x60000020", // code, executable, readable
    "    .ascii \".data\\0\\0\\0\"",
    "    .word __data_size, __data_offset, __data_file_size, __data_offset",
    "    .word 0, 0, 0",
    "    .word 0xc0000040", // data, readable, writable
    ".popsection",
);

global_asm!(
    ".pushsection .entry, \"ax\"",
    ".global __entry",
    "__entry:",
    "    msr  daifset, #0xf",
    "    mov  x19, x0",
    "    bl   40f",
    "    bl   50f",
    "    bl   60f",
    "10: adrp x1, __boot_stack_end",
    "    add  x1, x1, :lo12:__boot_stack_end",
    "    mov  sp, x1",
    "    mov  x29, xzr",
    "    mov  x0, x19",
    "    lsr  x1, x20, #2",
    "    bl   {start}",
    "11: wfi",
    "    b    11b",
    // As an EFI application: an error goes back to who has started it, a device tree means that firmware is gone.
    ".global __efi_entry",
    "__efi_entry:",
    "    stp  x29, x30, [sp, #-48]!",
    "    stp  x19, x20, [sp, #16]",
    "    str  x21, [sp, #32]",
    "    mov  x19, x0",
    "    mov  x20, x1",
    "    bl   60f",
    "    mov  x0, x19",
    "    mov  x1, x20",
    "    mrs  x2, CurrentEL",
    "    lsr  x2, x2, #2",
    "    bl   {efi}",
    "    tbnz x0, #{error}, 12f",
    // What was written with caches on is in memory before they go off; the next instructions are fetched from there.
    "    msr  daifset, #0xf",
    "    mov  x19, x0",
    "    bl   50f",
    "    bl   40f",
    "    b    10b",
    "12: ldr  x21, [sp, #32]",
    "    ldp  x19, x20, [sp, #16]",
    "    ldp  x29, x30, [sp], #48",
    "    ret",
    // Takes EL2 over, if this is EL2: x20 becomes CurrentEL.
    "40: mrs  x20, CurrentEL",
    "    cmp  x20, {current_el2}",
    "    b.ne 41f",
    // What follows is written for SP_EL2, and a panic before the CPU's own data is there says so by this zero.
    "    msr  spsel, #1",
    "    msr  tpidr_el2, xzr",
    "    ldr  x1, ={sctlr}",
    "    msr  sctlr_el2, x1",
    "    isb",
    "    mov  x1, {hcr}",
    "    msr  hcr_el2, x1",
    "    isb",
    "41: ret",
    // Cleans and invalidates what may lie in the cache of the image: with the MMU off only memory is read and written.
    "50: adrp x4, __image_start",
    "    adrp x1, __bss_end",
    "    mrs  x2, ctr_el0",
    "    ubfx x2, x2, #16, #4",
    "    mov  x3, #4",
    "    lsl  x3, x3, x2",
    "51: dc   civac, x4",
    "    add  x4, x4, x3",
    "    cmp  x4, x1",
    "    b.lo 51b",
    "    dsb  sy",
    "    ret",
    // Relocates: an even word is the address of a place, an odd one a bitmap of the 63 places that follow.
    "60: adrp x21, __image_start",
    "    adrp x1, __relr_start",
    "    add  x1, x1, :lo12:__relr_start",
    "    adrp x2, __relr_end",
    "    add  x2, x2, :lo12:__relr_end",
    "61: cmp  x1, x2",
    "    b.hs 65f",
    "    ldr  x3, [x1], #8",
    "    tbnz x3, #0, 62f",
    "    add  x4, x21, x3",
    "    ldr  x5, [x4]",
    "    add  x5, x5, x21",
    "    str  x5, [x4], #8",
    "    b    61b",
    "62: mov  x6, x4",
    "    add  x4, x4, {bitmap_bytes}",
    "63: lsr  x3, x3, #1",
    "    cbz  x3, 61b",
    "    tbz  x3, #0, 64f",
    "    ldr  x5, [x6]",
    "    add  x5, x5, x21",
    "    str  x5, [x6]",
    "64: add  x6, x6, #8",
    "    b    63b",
    // Clears .bss.
    "65: adrp x1, __bss_start",
    "    adrp x2, __bss_end",
    "66: cmp  x1, x2",
    "    b.hs 67f",
    "    stp  xzr, xzr, [x1], #16",
    "    b    66b",
    "67: ret",
    ".ltorg",
    ".popsection",
    current_el2 = const CURRENT_EL2,
    sctlr = const SCTLR_EL2_OFF,
    hcr = const HCR_EL2_PLAIN,
    bitmap_bytes = const RELR_BITMAP_BYTES,
    error = const EFI_ERROR_BIT,
    start = sym crate::boot::start,
    efi = sym crate::efi::enter,
);
