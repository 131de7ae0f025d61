//! Not a guest but firmware: it starts every CPU into a loop that waits for an address, as a Raspberry Pi's does, and then the
//! kernel that lies 60 MiB above it, at EL2 and with the device tree that it was given itself.
//!
//! CPU n waits at [`RELEASE`] + 8 n, and all of them at [`RELEASE`] + 0 too, as U-Boot has them do. What comes out of the loop has
//! nothing in its registers of any use. One CPU wakes another by SEV and is woken so: WFE, no polling.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "all of it is assembly")]

use core::arch::global_asm;

/// Where the CPUs wait: in the first page of RAM but one, which QEMU leaves alone.
const RELEASE: u64 = 0x4000_1000;
/// Where the harness puts a mask of the CPUs that are left to PSCI.
const SPARED: u64 = 0x4000_1800;
/// Where the harness puts a mask of the CPUs that do not go at once.
const LATE: u64 = 0x4000_1808;
/// Where the harness puts the kernel.
const KERNEL: u64 = 0x4400_0000;
/// PSCI's CPU_ON and AFFINITY_INFO (PSCI DEN0022, 5.1).
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
/// CPUs of QEMU's first cluster: their MPIDR is their number.
const CPUS_MAX: u64 = 16;
/// What a register holds without a meaning.
const GARBAGE: u64 = 0xdead_beef_0bad_cafe;

global_asm!(
    r#"
    .section .head, "ax"
    .global _start
_start:
    b       1f
    .long   0
    .quad   0                   // text_offset
    .quad   _end - _start       // image_size
    .quad   0xa                 // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0
1:  msr     daifset, #0xf
    mov     x19, x0
    mov     x20, #1
    // Each CPU, one after the other, until there is none of that number.
2:  ldr     x1, ={spared}
    ldr     x1, [x1]
    lsr     x1, x1, x20
    tbnz    x1, #0, 7f
    ldr     x0, ={cpu_on}
    mov     x1, x20
    adr     x2, pen
    ldr     x3, ={release}
    add     x3, x3, x20, lsl #3
    smc     #0
    cbnz    x0, 4f
3:  ldr     x0, ={affinity_info}
    mov     x1, x20
    mov     x2, xzr
    smc     #0
    cbnz    x0, 3b
7:  add     x20, x20, #1
    cmp     x20, #{cpus_max}
    b.lo    2b
4:  mov     x0, x19
    mov     x1, xzr
    mov     x2, xzr
    mov     x3, xzr
    ldr     x4, ={kernel}
    // The kernel may be entered with either stack pointer selected.
    msr     spsel, #0
    br      x4

    // x0: where this CPU is told where to go.
pen:
    msr     daifset, #0xf
    mov     x19, x0
    ldr     x20, ={release}
5:  wfe
    ldr     x4, [x19]
    cbnz    x4, 6f
    ldr     x4, [x20]
    cbz     x4, 5b
    // Some take two seconds to go.
6:  ldr     x1, ={late}
    ldr     x1, [x1]
    sub     x2, x19, x20
    lsr     x2, x2, #3
    lsr     x1, x1, x2
    tbz     x1, #0, 9f
    mrs     x1, cntpct_el0
    mrs     x2, cntfrq_el0
    add     x1, x1, x2, lsl #1
8:  mrs     x2, cntpct_el0
    cmp     x2, x1
    b.lo    8b
9:  ldr     x0, ={garbage}
    mov     x1, x0
    mov     x2, x0
    mov     x3, x0
    mov     sp, x0
    msr     spsel, #0
    br      x4
    .ltorg
    "#,
    cpu_on = const CPU_ON,
    affinity_info = const AFFINITY_INFO,
    release = const RELEASE,
    spared = const SPARED,
    late = const LATE,
    kernel = const KERNEL,
    cpus_max = const CPUS_MAX,
    garbage = const GARBAGE,
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
