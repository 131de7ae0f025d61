//! Reading and writing system registers by name, for those that need no bit-field types.
//!
//! `aarch64-cpu` names the registers whose fields matter at start-up; this covers the ones it lacks (GIC, VPIDR_EL2 …) and the
//! plain copies of a world switch.
#![expect(unsafe_code, reason = "system-register access")]

/// Reads a system register by the name the assembler knows it by.
macro_rules! read_register {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading the registers this is used for has no side effect on memory; each exists on every CPU this runs on
        // or is read only after the ID register that announces it.
        #[expect(unsafe_code, reason = "system-register access")]
        let () = unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register by the name the assembler knows it by.
///
/// Not marked `nomem`: the compiler must not move accesses to a guest's state across the write that changes it.
macro_rules! write_register {
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: only EL2 modules use this, each for a register whose effect on EL2 itself it accounts for.
        #[expect(unsafe_code, reason = "system-register access")]
        let () = unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags))
        };
    }};
}

/// Issues an instruction synchronisation barrier.
#[inline(always)]
pub(crate) fn isb() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) }
}

/// Waits until every access before it is complete for the inner-shareable domain.
#[inline(always)]
pub(crate) fn dsb_ish() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dsb ish", options(nostack, preserves_flags)) }
}

/// Waits until every access before it is complete for the whole system.
#[inline(always)]
pub(crate) fn dsb_sy() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// Waits until every store before it is complete for the inner-shareable domain.
#[inline(always)]
pub(crate) fn dsb_ishst() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) }
}

/// Reads ICC_IAR1_EL1 and waits until the acknowledge has had its effect (GIC IHI0069, 4.1.1).
///
/// Without the barrier a load that follows may be done before the read: a message posted in between would be missed, and its kick
/// taken. The write of an interrupt's active state that follows would race with the acknowledge. One block, so that nothing comes between.
#[inline(always)]
pub(crate) fn acknowledge_interrupt() -> u64 {
    let value: u64;
    // SAFETY: the read activates an interrupt, which `gic` ends; memory is not touched.
    unsafe {
        core::arch::asm!("mrs {}, ICC_IAR1_EL1", "dsb sy", out(reg) value, options(nostack, preserves_flags))
    };
    value
}

/// Sleeps until an interrupt is pending; interrupts are masked at EL2, so nothing is taken.
#[inline(always)]
pub(crate) fn wfi() {
    // SAFETY: waiting changes no state; the barrier makes stores visible before the CPU sleeps.
    unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// Lets another CPU go first: on QEMU with one thread for all CPUs, that is what ends this one's turn.
#[inline(always)]
pub(crate) fn yield_hint() {
    // SAFETY: a hint changes no state.
    unsafe { core::arch::asm!("yield", options(nostack, preserves_flags)) }
}

pub(crate) use {read_register, write_register};
