//! PSCI (Arm DEN0022) and SMCCC (DEN0028) as a caller reads them.
#![expect(unsafe_code, reason = "hvc and smc")]

use crate::machine::{self, Conduit};
use core::arch::asm;

/// PSCI_VERSION.
pub const VERSION: u64 = 0x8400_0000;
/// CPU_SUSPEND, 64-bit convention.
pub const CPU_SUSPEND: u64 = 0xc400_0001;
/// CPU_OFF.
pub const CPU_OFF: u64 = 0x8400_0002;
/// CPU_ON, 64-bit convention.
pub const CPU_ON: u64 = 0xc400_0003;
/// CPU_ON, 32-bit convention.
pub const CPU_ON_32: u64 = 0x8400_0003;
/// AFFINITY_INFO, 64-bit convention.
pub const AFFINITY_INFO: u64 = 0xc400_0004;
/// MIGRATE_INFO_TYPE.
pub const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
/// SYSTEM_OFF.
pub const SYSTEM_OFF: u64 = 0x8400_0008;
/// SYSTEM_RESET.
pub const SYSTEM_RESET: u64 = 0x8400_0009;
/// PSCI_FEATURES.
pub const FEATURES: u64 = 0x8400_000a;

/// SUCCESS.
pub const SUCCESS: i64 = 0;
/// NOT_SUPPORTED, also SMCCC's unknown function.
pub const NOT_SUPPORTED: i64 = -1;
/// INVALID_PARAMETERS.
pub const INVALID_PARAMETERS: i64 = -2;
/// DENIED.
pub const DENIED: i64 = -3;
/// ALREADY_ON.
pub const ALREADY_ON: i64 = -4;
/// ON_PENDING.
pub const ON_PENDING: i64 = -5;
/// INVALID_ADDRESS.
pub const INVALID_ADDRESS: i64 = -9;

/// AFFINITY_INFO: the CPU is on.
pub const AFFINITY_ON: i64 = 0;
/// AFFINITY_INFO: the CPU is off.
pub const AFFINITY_OFF: i64 = 1;
/// AFFINITY_INFO: the CPU is being turned on.
pub const AFFINITY_ON_PENDING: i64 = 2;

/// All registers that a call takes and leaves, x0 to x17.
pub type Registers = [u64; 18];

/// Makes a call by `hvc #0` with all of x0 to x17 given, and returns what they hold afterwards.
#[must_use]
pub fn hvc(registers: Registers) -> Registers {
    let mut r = registers;
    // SAFETY: SMCCC lets a call change x0 to x17 and nothing else.
    unsafe {
        asm!("hvc #0",
            inout("x0") r[0], inout("x1") r[1], inout("x2") r[2], inout("x3") r[3], inout("x4") r[4], inout("x5") r[5],
            inout("x6") r[6], inout("x7") r[7], inout("x8") r[8], inout("x9") r[9], inout("x10") r[10],
            inout("x11") r[11], inout("x12") r[12], inout("x13") r[13], inout("x14") r[14], inout("x15") r[15],
            inout("x16") r[16], inout("x17") r[17], options(nostack))
    };
    r
}

/// Makes a call by `smc #0` with all of x0 to x17 given, and returns what they hold afterwards.
#[must_use]
pub fn smc(registers: Registers) -> Registers {
    let mut r = registers;
    // SAFETY: SMCCC lets a call change x0 to x17 and nothing else.
    unsafe {
        asm!("smc #0",
            inout("x0") r[0], inout("x1") r[1], inout("x2") r[2], inout("x3") r[3], inout("x4") r[4], inout("x5") r[5],
            inout("x6") r[6], inout("x7") r[7], inout("x8") r[8], inout("x9") r[9], inout("x10") r[10],
            inout("x11") r[11], inout("x12") r[12], inout("x13") r[13], inout("x14") r[14], inout("x15") r[15],
            inout("x16") r[16], inout("x17") r[17], options(nostack))
    };
    r
}

/// Makes a call by the conduit that the device tree names; returns x0.
#[must_use]
pub fn call(function: u64, x1: u64, x2: u64, x3: u64) -> i64 {
    let mut registers = [0; 18];
    (registers[0], registers[1], registers[2], registers[3]) = (function, x1, x2, x3);
    let result = match machine::conduit() {
        Conduit::Hvc => hvc(registers),
        Conduit::Smc => smc(registers),
    };
    // PSCI results are 32-bit: the upper half of x0 is not defined for the 32-bit convention.
    i64::from(result[0] as i32)
}

/// Asks for the version: major in bits 31:16.
#[must_use]
pub fn version() -> i64 {
    call(VERSION, 0, 0, 0)
}

/// Starts a CPU.
#[must_use]
pub fn cpu_on(mpidr: u64, entry: u64, context: u64) -> i64 {
    call(CPU_ON, mpidr, entry, context)
}

/// Asks for the state of a CPU.
#[must_use]
pub fn affinity_info(mpidr: u64) -> i64 {
    call(AFFINITY_INFO, mpidr, 0, 0)
}

/// Turns the calling CPU off; returns only if that was refused.
pub fn cpu_off() -> i64 {
    call(CPU_OFF, 0, 0, 0)
}

/// Powers the machine off.
pub fn system_off() -> ! {
    let _ = call(SYSTEM_OFF, 0, 0, 0);
    loop {
        crate::insn!("wfi");
    }
}

/// Resets the machine.
pub fn system_reset() -> ! {
    let _ = call(SYSTEM_RESET, 0, 0, 0);
    loop {
        crate::insn!("wfi");
    }
}
