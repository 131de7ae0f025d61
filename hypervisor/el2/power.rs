//! The end of the machine's run, when the operator asks for it: by the firmware, once the operator has been answered.

use control_plane::console::HostPower;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use psci::id;

use crate::{clock, console, deferred, smc};

/// What was asked for.
const NOTHING: u8 = 0;
const REBOOT: u8 = 1;
const OFF: u8 = 2;
/// How long a UART has to send what its FIFO holds: 64 bytes at 9,600 baud are 67 ms.
const FIFO_NS: u64 = 100_000_000;
/// How long what waits for a UART may keep the machine on: the other end of a wire may have stopped it.
const PATIENCE_NS: u64 = 2_000_000_000;

static ASKED: AtomicU8 = AtomicU8::new(NOTHING);
/// When it was asked for, in nanoseconds since start.
static SINCE_NS: AtomicU64 = AtomicU64::new(0);

/// Returns whether the machine has a way to end its run.
pub(crate) fn can_end() -> bool {
    smc::has_firmware()
}

/// Has the boot CPU end the machine's run soon.
pub(crate) fn ask(power: HostPower) {
    let wanted = match power {
        HostPower::Reboot => REBOOT,
        HostPower::Off => OFF,
    };
    SINCE_NS.store(clock::now_ns(), Ordering::Relaxed);
    ASKED.store(wanted, Ordering::Release);
    deferred::ask_boot_cpu_soon();
}

/// Ends the machine's run if that was asked for and the answer is on its way; returns when to look again. For the boot CPU.
pub(crate) fn attend() -> Option<u64> {
    let asked = ASKED.load(Ordering::Acquire);
    if asked == NOTHING {
        return None;
    }
    let since_ns = SINCE_NS.load(Ordering::Relaxed);
    let now_ns = clock::now_ns();
    let limit_ns = match console::is_busy() {
        true => PATIENCE_NS,
        false => FIFO_NS,
    };
    if now_ns < since_ns.saturating_add(limit_ns) {
        return Some(now_ns.saturating_add(FIFO_NS));
    }
    let function = if asked == REBOOT {
        id::SYSTEM_RESET
    } else {
        id::SYSTEM_OFF
    };
    // Once: a call that returns is answered by the log, not repeated.
    ASKED.store(NOTHING, Ordering::Relaxed);
    let code = smc::system(function).unwrap_or(0);
    log::error!("the firmware did not end the machine's run: PSCI {code}");
    None
}
