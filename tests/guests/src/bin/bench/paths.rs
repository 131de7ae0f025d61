//! The measured code, in assembly, so that what is counted is what is written here.
//!
//! Interrupts are unmasked only inside these paths. The IRQ vector's first instruction reads the counter into x15; it
//! then ends the interrupt, stops the virtual timer and returns, masked, to the address in x16.
#![expect(unsafe_code, reason = "measured instruction sequences")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::machine::{Conduit, machine};
use guest_rt::stub::{self, Mailbox};
use guest_rt::{cpu, gic, msr, psci, timer};

global_asm!(
    r#"
    .section .text.bench, "ax"
    .balign 2048
bench_vectors:
    .rept 5                     // from the current level with SP_EL0, and a synchronous exception with SP_ELx
    .balign 128
    b       rt_vectors + 0x200
    .endr
    .balign 128
    mrs     x15, cntvct_el0
    mrs     x14, ICC_IAR1_EL1
    msr     cntv_ctl_el0, xzr
    isb
    msr     ICC_EOIR1_EL1, x14
    msr     elr_el1, x16
    mov     x14, #0x3c5         // EL1h, all masked
    msr     spsr_el1, x14
    eret
    .rept 10
    .balign 128
    b       rt_vectors + 0x200
    .endr
    .balign 128

    "#
);

/// Where a GICv2's CPU interface is, for the vectors.
static INTERFACE: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .section .text.bench, "ax"
    .balign 2048
bench_vectors_of_gicv2:
    .rept 5
    .balign 128
    b       rt_vectors + 0x200
    .endr
    .balign 128
    mrs     x15, cntvct_el0
    stp     x12, x13, [sp, #-16]!
    adrp    x12, {interface}
    ldr     x12, [x12, :lo12:{interface}]
    ldr     w13, [x12, #0xc]    // GICC_IAR
    msr     cntv_ctl_el0, xzr
    isb
    str     w13, [x12, #0x10]   // GICC_EOIR
    ldp     x12, x13, [sp], #16
    msr     elr_el1, x16
    mov     x14, #0x3c5         // EL1h, all masked
    msr     spsr_el1, x14
    eret
    .rept 10
    .balign 128
    b       rt_vectors + 0x200
    .endr
    .balign 128

    "#,
    interface = sym INTERFACE,
);

/// The mailbox of the two-CPU rows.
pub static MAILBOX: Mailbox = Mailbox::new();

unsafe extern "C" {
    fn bench_vectors();
    fn bench_vectors_of_gicv2();
}

/// Makes this CPU use the bench's vectors.
pub fn install_vectors() {
    if gic::is_v2() {
        INTERFACE.store(machine().cpu_interface(), Ordering::Relaxed);
        msr!("vbar_el1", bench_vectors_of_gicv2 as *const () as u64);
    } else {
        msr!("vbar_el1", bench_vectors as *const () as u64);
    }
}

/// Does what it is given with the instruction that sends an SGI of a word `v`, and with the operands that it needs besides.
macro_rules! sending {
    ($by:ident) => {
        if gic::is_v2() {
            $by!("str {v:w}, [{sgir}]", sgir = in(reg) gic::sgir(),)
        } else {
            $by!("msr ICC_SGI1R_EL1, {v}",)
        }
    };
}

/// Measures `count` round trips of an instruction sequence; returns ticks, counted as the loop without its first MRS.
macro_rules! round_trips {
    ($count:expr, $($line:literal),+ ; $($operands:tt)*) => {{
        let (start, end): (u64, u64);
        // SAFETY: the sequence is a call or an access to a device register; SMCCC's registers are declared changed.
        unsafe {
            asm!(
                "isb",
                "mrs {start}, cntvct_el0",
                "2:",
                $($line,)+
                "subs {count}, {count}, #1",
                "b.ne 2b",
                "mrs {end}, cntvct_el0",
                start = out(reg) start,
                end = out(reg) end,
                count = inout(reg) $count => _,
                $($operands)*
                options(nostack)
            )
        };
        end - start
    }};
}

/// Round trips of a call with three register operands set in the loop.
pub fn call3(function: u64, x1: u64, x2: u64, count: u64) -> u64 {
    macro_rules! by {
        ($conduit:literal) => {
            round_trips!(count, "mov x0, {f}", "mov x1, {a}", "mov x2, {b}", $conduit;
                f = in(reg) function, a = in(reg) x1, b = in(reg) x2,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
                out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
                out("x15") _, out("x16") _, out("x17") _,)
        };
    }
    match machine().conduit() {
        Conduit::Hvc => by!("hvc #0"),
        Conduit::Smc => by!("smc #0"),
    }
}

/// Round trips of a call that only names its function.
pub fn call1(function: u64, count: u64) -> u64 {
    macro_rules! by {
        ($conduit:literal) => {
            round_trips!(count, "mov x0, {f}", $conduit;
                f = in(reg) function,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
                out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
                out("x15") _, out("x16") _, out("x17") _,)
        };
    }
    match machine().conduit() {
        Conduit::Hvc => by!("hvc #0"),
        Conduit::Smc => by!("smc #0"),
    }
}

/// Reads of a 32-bit register.
pub fn load32(address: u64, count: u64) -> u64 {
    round_trips!(count, "ldr {v:w}, [{a}]"; a = in(reg) address, v = out(reg) _,)
}

/// Writes of a 32-bit register.
pub fn store32(address: u64, value: u64, count: u64) -> u64 {
    round_trips!(count, "str {v:w}, [{a}]"; a = in(reg) address, v = in(reg) value,)
}

/// Reads of ID_AA64PFR0_EL1.
pub fn id_register(count: u64) -> u64 {
    round_trips!(count, "mrs {v}, id_aa64pfr0_el1"; v = out(reg) _,)
}

/// Writes of the physical timer's compare value, which a hypervisor that emulates this timer traps.
pub fn physical_timer(count: u64) -> u64 {
    round_trips!(count, "msr cntp_cval_el0, {v}"; v = in(reg) u64::MAX,)
}

/// Sends an SGI to this CPU; returns the count before the barrier and at the handler's first instruction.
pub fn sgi_to_self(word: u64) -> (u64, u64) {
    let (start, end): (u64, u64);
    macro_rules! by {
        ($send:literal, $($operand:tt)*) => {
            // SAFETY: the vector returns to label 2 with x14 and x15 changed.
            unsafe {
                asm!("adr x16, 2f", "isb", "mrs {start}, cntvct_el0", "dsb ishst", $send, "isb",
                    "msr daifclr, #2", "3: b 3b", "2:", $($operand)*
                    start = out(reg) start, v = in(reg) word, out("x14") _, out("x15") end, out("x16") _, options(nostack))
            }
        };
    }
    sending!(by);
    (start, end)
}

/// Spins until the virtual timer's interrupt at `deadline`; returns the handler's count.
pub fn timer_spinning(deadline: u64) -> u64 {
    let end: u64;
    // SAFETY: as in `sgi_to_self`.
    unsafe {
        asm!("adr x16, 2f", "msr cntv_cval_el0, {d}", "msr cntv_ctl_el0, {one}", "isb", "msr daifclr, #2", "3: b 3b",
            "2:", d = in(reg) deadline, one = in(reg) 1u64,
            out("x14") _, out("x15") end, out("x16") _, options(nostack))
    };
    end
}

/// Waits in WFI until the virtual timer's interrupt at `deadline`; returns the handler's count.
pub fn timer_waiting(deadline: u64) -> u64 {
    let end: u64;
    // SAFETY: as in `sgi_to_self`.
    unsafe {
        asm!("adr x16, 2f", "msr cntv_cval_el0, {d}", "msr cntv_ctl_el0, {one}", "isb", "msr daifclr, #2",
            "3: wfi", "b 3b", "2:", d = in(reg) deadline, one = in(reg) 1u64,
            out("x14") _, out("x15") end, out("x16") _, options(nostack))
    };
    end
}

/// Waits in WFI for any interrupt; returns the handler's count.
pub fn wait() -> u64 {
    let end: u64;
    // SAFETY: as in `sgi_to_self`.
    unsafe {
        asm!("adr x16, 2f", "msr daifclr, #2", "3: wfi", "b 3b", "2:",
            out("x14") _, out("x15") end, out("x16") _, options(nostack))
    };
    end
}

/// Sends an SGI and waits in WFI for an interrupt; returns the counts before sending and in the handler.
pub fn send_and_wait(word: u64) -> (u64, u64) {
    let (start, end): (u64, u64);
    macro_rules! by {
        ($send:literal, $($operand:tt)*) => {
            // SAFETY: as in `sgi_to_self`.
            unsafe {
                asm!("adr x16, 2f", "isb", "mrs {start}, cntvct_el0", "dsb ishst", $send, "isb",
                    "msr daifclr, #2", "3: wfi", "b 3b", "2:", $($operand)*
                    start = out(reg) start, v = in(reg) word, out("x14") _, out("x15") end, out("x16") _, options(nostack))
            }
        };
    }
    sending!(by);
    (start, end)
}

/// Answers every interrupt with an SGI, for ever: the far side of the ping-pong. The last one received ends it.
pub fn echo(word: u64, rounds: u64) {
    macro_rules! by {
        ($send:literal, $($operand:tt)*) => {
            for _ in 0..rounds {
                // SAFETY: as in `sgi_to_self`.
                unsafe {
                    asm!("adr x16, 2f", "msr daifclr, #2", "3: wfi", "b 3b", "2:", $send, "isb", $($operand)*
                        v = in(reg) word, out("x14") _, out("x15") _, out("x16") _, options(nostack))
                };
            }
        };
    }
    sending!(by);
}

/// Turns a CPU on at [`stub`] and waits in WFI for the armed timer; returns the count before the call and
/// PSCI's answer.
pub fn cpu_on(mpidr: u64) -> (u64, i64) {
    macro_rules! by {
        ($conduit:literal) => {{
            let (start, result): (u64, u64);
            // SAFETY: SMCCC's registers and those of the vector are declared changed.
            unsafe {
                asm!("isb", "mrs {start}, cntvct_el0", $conduit, "adr x16, 2f", "msr daifclr, #2", "3: wfi", "b 3b",
                    "2:", start = out(reg) start,
                    inout("x0") psci::CPU_ON => result, inout("x1") mpidr => _, inout("x2") stub::address() => _,
                    inout("x3") MAILBOX.address() => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _,
                    out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
                    out("x16") _, out("x17") _, options(nostack))
            };
            (start, i64::from(result as i32))
        }};
    }
    match machine().conduit() {
        Conduit::Hvc => by!("hvc #0"),
        Conduit::Smc => by!("smc #0"),
    }
}

/// Leaves the count in the mailbox and turns this CPU off; returns only if that is refused.
pub fn stamp_and_off() {
    macro_rules! by {
        ($conduit:literal) => {
            // SAFETY: does not return when it works; declared changes as in `cpu_on`.
            unsafe {
                asm!("mrs x1, cntvct_el0", "str x1, [{m}]", $conduit, m = in(reg) MAILBOX.address(),
                    inout("x0") psci::CPU_OFF => _, out("x1") _, clobber_abi("C"), options(nostack))
            }
        };
    }
    match machine().conduit() {
        Conduit::Hvc => by!("hvc #0"),
        Conduit::Smc => by!("smc #0"),
    }
}

/// Sends an SGI, then asks for a CPU's state, yielding before each question, until it is off; returns the count then.
pub fn poll_until_off(word: u64, mpidr: u64) -> u64 {
    macro_rules! send {
        ($send:literal, $($operand:tt)*) => {
            // SAFETY: as in `sgi_to_self`; interrupts are masked.
            unsafe { asm!("dsb ishst", $send, "isb", $($operand)* v = in(reg) word, options(nostack)) }
        };
    }
    sending!(send);
    macro_rules! by {
        ($conduit:literal) => {{
            let end: u64;
            // SAFETY: SMCCC's registers are declared changed.
            unsafe {
                asm!("2: yield", "mov x0, {f}", "mov x1, {m}", "mov x2, xzr", $conduit, "cmp w0, #1", "b.ne 2b",
                    "mrs {end}, cntvct_el0", end = out(reg) end, f = in(reg) psci::AFFINITY_INFO,
                    m = in(reg) mpidr, out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
                    out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
                    out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack))
            };
            end
        }};
    }
    match machine().conduit() {
        Conduit::Hvc => by!("hvc #0"),
        Conduit::Smc => by!("smc #0"),
    }
}

/// Calls CPU_SUSPEND for a standby state until the timer at `deadline`; returns the count when it has returned.
pub fn suspend(deadline: u64) -> Option<u64> {
    timer::arm_virtual(deadline);
    let answer = psci::call(psci::CPU_SUSPEND, 0, 0, 0);
    let end = guest_rt::mrs!("cntvct_el0");
    let early = end < deadline;
    // The interrupt that ended it is still to be taken: the vector stops the timer.
    let _ = wait();
    if answer == psci::SUCCESS && !early {
        Some(end)
    } else {
        None
    }
}

/// Sends an SGI without waiting for anything.
pub fn send(index: usize, intid: u32) {
    if let Some(&affinity) = machine().cpus().get(index) {
        gic::send_sgi(affinity, intid);
    }
}

/// Prepares a secondary CPU of a two-CPU row: its vectors and its SGI.
pub fn prepare_secondary() {
    install_vectors();
    gic::enable(rows_sgi());
    let _ = cpu::current();
}

/// The SGI that the rows use.
pub const fn rows_sgi() -> u32 {
    1
}
