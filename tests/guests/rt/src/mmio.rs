//! Device registers: one load or store instruction an access, of the kind a hypervisor can decode.
//!
//! A reference or a compiler-chosen addressing mode may become an access without syndrome (ISV = 0), hence assembly.
#![expect(unsafe_code, reason = "device registers")]

use core::arch::asm;

/// Reads a 32-bit register.
#[must_use]
pub fn read32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: callers name device registers, which no Rust object overlaps.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit register.
pub fn write32(address: u64, value: u32) {
    // SAFETY: callers name device registers, which no Rust object overlaps.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a 64-bit register.
#[must_use]
pub fn read64(address: u64) -> u64 {
    let value: u64;
    // SAFETY: callers name device registers, which no Rust object overlaps.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 64-bit register.
pub fn write64(address: u64, value: u64) {
    // SAFETY: callers name device registers, which no Rust object overlaps.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Writes an 8-bit register.
pub fn write8(address: u64, value: u8) {
    // SAFETY: callers name device registers, which no Rust object overlaps.
    unsafe {
        asm!("strb {0:w}, [{1}]", in(reg) u32::from(value), in(reg) address, options(nostack))
    };
}
