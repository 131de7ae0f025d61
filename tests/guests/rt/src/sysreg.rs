//! System registers by name, for the run-time and the guests.

/// What the assembler calls a system register: its encoding where the name comes with a feature that the target is built without.
#[macro_export]
macro_rules! assembler_name {
    ("apiakeylo_el1") => {
        "S3_0_C2_C1_0"
    };
    ("apgakeyhi_el1") => {
        "S3_0_C2_C3_1"
    };
    ("fpcr") => {
        "S3_3_C4_C4_0"
    };
    ($name:tt) => {
        $name
    };
}

/// Reads a system register by the manual's name.
#[macro_export]
macro_rules! mrs {
    ($name:tt) => {{
        let value: u64;
        #[expect(unsafe_code, reason = "a guest reads its own CPU's registers")]
        // SAFETY: reading a register of this exception level has no effect on memory that Rust knows.
        unsafe {
            core::arch::asm!(concat!("mrs {0}, ", $crate::assembler_name!($name)), out(reg) value, options(nostack))
        };
        value
    }};
}

/// Writes a system register by the manual's name, and synchronises.
#[macro_export]
macro_rules! msr {
    ($name:tt, $value:expr) => {{
        let value: u64 = $value;
        #[expect(unsafe_code, reason = "a guest owns its CPU's registers")]
        // SAFETY: callers write registers that do not change how Rust's memory is mapped.
        unsafe {
            core::arch::asm!(concat!("msr ", $crate::assembler_name!($name), ", {0}"), "isb", in(reg) value, options(nostack))
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
