//! Calls to the firmware: PSCI, by the conduit that the device tree names and by no other.
#![expect(unsafe_code, reason = "SMC and HVC instructions")]

use core::sync::atomic::{AtomicU8, Ordering};
use psci::id;
use vmm::sync::FairMutex;

const NONE: u8 = 0;
const SMC: u8 = 1;

/// CPU_OFF, which does not return.
pub(crate) const CPU_OFF: u64 = id::CPU_OFF as u64;

static CONDUIT: AtomicU8 = AtomicU8::new(NONE);
/// Serialises CPU_ON: some firmware (QEMU's) loses calls that race.
static CPU_ON_LOCK: FairMutex<()> = FairMutex::new(());

/// Declares that the firmware takes PSCI calls by SMC.
pub(crate) fn use_smc() {
    CONDUIT.store(SMC, Ordering::Relaxed);
}

/// Calls the firmware; `None` where there is none to call.
fn call(function: u64, a: u64, b: u64, c: u64) -> Option<i64> {
    if CONDUIT.load(Ordering::Relaxed) == NONE {
        return None;
    }
    let result: u64;
    // SAFETY: the device tree says that EL3 takes PSCI calls by SMC; SMCCC lets it clobber x0-x17.
    unsafe {
        core::arch::asm!(
            "smc #0",
            inlateout("x0") function => result, inlateout("x1") a => _, inlateout("x2") b => _, inlateout("x3") c => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack)
        );
    }
    Some(result as i64)
}

/// Returns whether there is firmware to call.
pub(crate) fn has_firmware() -> bool {
    CONDUIT.load(Ordering::Relaxed) != NONE
}

/// Calls SYSTEM_OFF or SYSTEM_RESET (DEN0022, 5.9 and 5.10), which do not return if they succeed; returns PSCI's code.
pub(crate) fn system(function: u32) -> Option<i64> {
    call(u64::from(function), 0, 0, 0)
}

/// Turns a CPU on at a physical address with a value in x0; returns PSCI's code, or `None` without PSCI.
pub(crate) fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Option<i64> {
    let _serial = CPU_ON_LOCK.lock();
    call(u64::from(id::CPU_ON | id::SMC64), mpidr, entry, context)
}
