//! Entry of the image: boot header, EL2 to EL1, relocation, `.bss`, stacks; and the entry of a secondary CPU.
//!
//! Header and register contract: Linux's documentation of booting AArch64. Runs with the MMU off until [`crate::mmu`].
#![expect(unsafe_code, reason = "the first instructions of the image")]

use crate::{cpu, machine, mmu, psci};
use core::arch::global_asm;

/// Size of each CPU's stack in bytes.
const STACK_SIZE: usize = 16 * 1024;

/// The stacks of all CPUs, never cleared.
#[repr(C, align(4096))]
struct Stacks(core::cell::UnsafeCell<[[u8; STACK_SIZE]; cpu::MAX_CPUS]>);

// SAFETY: each CPU uses only the stack of its own index, and only through SP.
unsafe impl Sync for Stacks {}

// SAFETY: a section that the linker script keeps out of the file; nothing reads its first contents.
#[unsafe(link_section = ".uninit.stacks")]
static STACKS: Stacks = Stacks(core::cell::UnsafeCell::new(
    [[0; STACK_SIZE]; cpu::MAX_CPUS],
));

/// SCTLR_EL1 with everything off: its RES1 bits (DDI0487 D24.2.175).
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// HCR_EL2.RW: EL1 is AArch64.
const HCR_EL2_RW: u64 = 1 << 31;
/// SPSR_EL2 for EL1h with D, A, I and F masked.
const SPSR_EL1H_MASKED: u64 = 0x3c5;
/// CPACR_EL1.FPEN = 0b11: FP and SIMD do not trap.
const CPACR_FPEN: u64 = 3 << 20;

global_asm!(
    r#"
    .section .head, "ax"
    .global _start
_start:
    b       rt_primary
    .long   0
    .quad   0                   // text_offset
    .quad   _end - _start       // image_size: resolved while linking, no relocation
    .quad   0xa                 // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

    .section .text.entry, "ax"
rt_primary:
    mov     x19, x0
    bl      rt_to_el1
    adrp    x20, _start         // linked at 0: the load address is the displacement
    add     x20, x20, :lo12:_start
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1]
    ldr     x5, [x1, #16]
    add     x1, x1, #24
    cmp     w4, #1027           // R_AARCH64_RELATIVE
    b.ne    1b
    add     x5, x5, x20
    str     x5, [x20, x3]
    b       1b
2:  adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
3:  cmp     x1, x2
    b.hs    4f
    dc      ivac, x1
    stp     xzr, xzr, [x1], #16
    b       3b
4:  dsb     sy
    adrp    x1, {stacks}
    add     x1, x1, :lo12:{stacks}
    add     sp, x1, #{stack_size}
    adrp    x1, {cpus}
    add     x1, x1, :lo12:{cpus}
    msr     tpidr_el1, x1
    adrp    x1, rt_vectors
    add     x1, x1, :lo12:rt_vectors
    msr     vbar_el1, x1
    isb
    mov     x0, x19
    mov     x1, x20
    adrp    x2, _end
    add     x2, x2, :lo12:_end
    bl      {start}
    b       .

    // A secondary CPU: x0 is the address of its `Cpu`. No memory is touched before the caches are on.
    .global rt_secondary
rt_secondary:
    mov     x19, x0
    bl      rt_to_el1
    adrp    x1, rt_vectors
    add     x1, x1, :lo12:rt_vectors
    msr     vbar_el1, x1
    bl      rt_mmu_on
    msr     tpidr_el1, x19
    ldr     x1, [x19, #{cpu_index}]
    add     x1, x1, #1
    mov     x2, #{stack_size}
    adrp    x3, {stacks}
    add     x3, x3, :lo12:{stacks}
    madd    x1, x1, x2, x3
    mov     sp, x1
    bl      {secondary}
    b       .

    // Returns at EL1 with the MMU off and interrupts masked, from EL2 or EL1; clobbers x1.
rt_to_el1:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    1f
    mov     x1, #{hcr_rw}
    msr     hcr_el2, x1
    isb
    mrs     x1, cnthctl_el2
    orr     x1, x1, #3          // EL1PCTEN, EL1PCEN
    msr     cnthctl_el2, x1
    msr     cntvoff_el2, xzr
    mov     x1, #0x33ff
    msr     cptr_el2, x1
    msr     hstr_el2, xzr
    msr     mdcr_el2, xzr
    mrs     x1, midr_el1
    msr     vpidr_el2, x1
    mrs     x1, mpidr_el1
    msr     vmpidr_el2, x1
    mrs     x1, id_aa64pfr0_el1
    ubfx    x1, x1, #24, #4     // GIC system registers
    cbz     x1, 2f
    mrs     x1, ICC_SRE_EL2
    orr     x1, x1, #1          // SRE
    orr     x1, x1, #8          // Enable
    msr     ICC_SRE_EL2, x1
    isb
2:  msr     elr_el2, x30
    mov     x1, #{spsr}
    msr     spsr_el2, x1
    ldr     x1, ={sctlr}
    msr     sctlr_el1, x1
    mov     x1, #{fpen}
    msr     cpacr_el1, x1
    isb
    eret
1:  ldr     x1, ={sctlr}
    msr     sctlr_el1, x1
    mov     x1, #{fpen}
    msr     cpacr_el1, x1
    isb
    ret

    // Turns the MMU and the caches on with the values that `mmu` left in MMU_CONFIG; clobbers x1 to x5.
    .global rt_mmu_on
rt_mmu_on:
    adrp    x1, {mmu_config}
    add     x1, x1, :lo12:{mmu_config}
    ldp     x2, x3, [x1]
    ldp     x4, x5, [x1, #16]
    msr     mair_el1, x2
    msr     tcr_el1, x3
    msr     ttbr0_el1, x4
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x5
    isb
    ret
    .ltorg
    "#,
    stacks = sym STACKS,
    stack_size = const STACK_SIZE,
    cpus = sym cpu::CPUS,
    cpu_index = const cpu::INDEX_OFFSET,
    start = sym start,
    secondary = sym cpu::secondary_start,
    mmu_config = sym mmu::CONFIG,
    hcr_rw = const HCR_EL2_RW,
    spsr = const SPSR_EL1H_MASKED,
    sctlr = const SCTLR_EL1_RESET,
    fpen = const CPACR_FPEN,
);

unsafe extern "Rust" {
    fn guest_main();
}

/// Runs on the boot CPU's stack with the MMU off: turns it on, learns the machine, and runs the guest.
extern "C" fn start(dtb: u64, image: u64, image_end: u64) -> ! {
    mmu::init(image, dtb);
    machine::discover(dtb, image, image_end);
    cpu::init_boot();
    // SAFETY: defined by the `guest!` of the program this run-time is linked into.
    unsafe { guest_main() };
    match machine::machine().value("end") {
        Some("cpu-off") => psci::cpu_off(),
        Some("reset") => psci::system_reset(),
        _ => psci::system_off(),
    };
    psci::system_off()
}
