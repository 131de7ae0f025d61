//! The end of the machine's run, when the operator asks for it: by the firmware or, where there is none, by the board's watchdog, once
//! the operator has been answered.
#![expect(unsafe_code, reason = "uses the address of the device tree's watchdog")]

use control_plane::console::HostPower;
use control_plane::host::{self, HostRange};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use psci::id;

use crate::mmio::Registers;
use crate::mmu::{self, Use};
use crate::{clock, console, deferred, machine, smc, timer};

/// What was asked for.
const NOTHING: u8 = 0;
const REBOOT: u8 = 1;
const OFF: u8 = 2;
/// How long a UART has to send what its FIFO holds: 64 bytes at 9,600 baud are 67 ms. A watchdog has as long to do its work.
const FIFO_NS: u64 = 100_000_000;
/// How long what waits for a UART may keep the machine on: the other end of a wire may have stopped it.
const PATIENCE_NS: u64 = 2_000_000_000;

static ASKED: AtomicU8 = AtomicU8::new(NOTHING);
/// When it was asked for, in nanoseconds since start.
static SINCE_NS: AtomicU64 = AtomicU64::new(0);

/// Returns whether the machine has a way to end its run.
pub(crate) fn can_end() -> bool {
    smc::has_firmware() || watchdog().is_some()
}

/// Returns where the board's watchdog is.
fn watchdog() -> Option<HostRange> {
    machine::HOST.get()?.watchdog
}

/// Has the watchdog end the machine's run, and waits for that.
fn end_by_watchdog(place: HostRange, power: HostPower) {
    if mmu::map_identity(place.addresses(), Use::Device).is_err() {
        return;
    }
    // SAFETY: mapped just now; the device tree names these as the watchdog's registers.
    let registers = unsafe { Registers::new(place.base.get(), place.size) };
    host::end_by_watchdog(&registers, power);
    let deadline = timer::now() + clock::duration_ticks(FIFO_NS);
    while timer::now() < deadline {
        core::hint::spin_loop();
    }
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
    let (power, function) = if asked == REBOOT {
        (HostPower::Reboot, id::SYSTEM_RESET)
    } else {
        (HostPower::Off, id::SYSTEM_OFF)
    };
    // Once: a call that returns is answered by the log, not repeated.
    ASKED.store(NOTHING, Ordering::Relaxed);
    if let Some(code) = smc::system(function) {
        log::error!("the firmware did not end the machine's run: PSCI {code}");
    } else if let Some(place) = watchdog() {
        end_by_watchdog(place, power);
        log::error!("the watchdog did not end the machine's run");
    }
    None
}
