//! System registers by name, for the run-time and the guests.

/// Reads a system register that the assembler knows by this name.
#[macro_export]
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        #[expect(unsafe_code, reason = "a guest reads its own CPU's registers")]
        // SAFETY: reading a register of this exception level has no effect on memory that Rust knows.
        unsafe {
            core::arch::asm!(concat!("mrs {0}, ", $name), out(reg) value, options(nostack))
        };
        value
    }};
}

/// Writes a system register that the assembler knows by this name, and synchronises.
#[macro_export]
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        #[expect(unsafe_code, reason = "a guest owns its CPU's registers")]
        // SAFETY: callers write registers that do not change how Rust's memory is mapped.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {0}"), "isb", in(reg) value, options(nostack))
        };
    }};
}

/// Runs one instruction without operands, such as a barrier or `wfi`.
#[macro_export]
macro_rules! insn {
    ($text:literal) => {{
        #[expect(unsafe_code, reason = "a barrier or hint")]
        // SAFETY: barriers and hints change no register and no memory.
        unsafe {
            core::arch::asm!($text, options(nostack))
        };
    }};
}
