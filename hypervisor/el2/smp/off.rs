//! A CPU that has nothing but vCPUs in reserve: off by the host's PSCI, and back when one of them is offered.
//!
//! It goes to sleep in the middle of a function and returns from it when it is up again: its stack and what its scheduler
//! knows stay in memory. Nothing but an offer can give it work, since CPU_ON of a vCPU in reserve is denied and none has been
//! attached; so the CPU that offers turns it on and waits, and the hot path need not know that a CPU can be off.
#![expect(unsafe_code, reason = "the way out of and back into a CPU's life")]

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use psci::ReturnCode;
use types::ids::{MAX_PCPUS, PcpuId};
use vmm::cpu::Presence;

use super::{Handover, ONLINE, START_TIMEOUT_NS, prepare_registers, secondary_entry};
use crate::percpu::Percpu;
use crate::{clock, gic, percpu, smc, timer};

/// Where each secondary CPU's [`Handover`] is; zero for the others.
static HANDOVERS: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];
static PRESENCE: [Presence; MAX_PCPUS] = [const { Presence::new() }; MAX_PCPUS];
/// The firmware does not turn CPUs off.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Notes where a CPU finds what it needs to come back.
pub(super) fn register(id: PcpuId, handover: u64) {
    HANDOVERS[id.index()].store(handover, Ordering::Release);
}

/// Returns whether a CPU runs, in its own word.
pub(super) fn presence(id: PcpuId) -> &'static Presence {
    &PRESENCE[id.index()]
}

/// Returns whether a CPU is off, or on its way there.
pub(crate) fn is_off(id: PcpuId) -> bool {
    presence(id).is_off()
}

/// Returns whether a CPU runs, or would if it had anything to do.
pub(crate) fn is_there(id: PcpuId) -> bool {
    PRESENCE.get(id.index()).is_some_and(Presence::is_there)
}

/// Turns this CPU off until there is work for it, unless `is_wanted` says that there is.
///
/// Its registers are as after `prepare` when this returns true, and as they were when it returns false.
pub(crate) fn power_down(cpu: &'static Percpu, is_wanted: impl FnOnce() -> bool) -> bool {
    let handover = HANDOVERS[cpu.local.id.index()].load(Ordering::Acquire);
    if handover == 0 || REFUSED.load(Ordering::Relaxed) {
        return false;
    }
    let target = percpu::forbid_kicks(cpu.local.id);
    let presence = presence(cpu.local.id);
    presence.leave();
    let stays = is_wanted() && presence.stay();
    if !stays {
        log::debug!("{}: off", cpu.local.id);
        ONLINE.fetch_sub(1, Ordering::Release);
        gic::stop_cpu();
        // SAFETY: the address is that of this CPU's handover block, which was leaked and which no other CPU writes.
        let code = unsafe { leave(handover, smc::CPU_OFF) };
        ONLINE.fetch_add(1, Ordering::Release);
        if let Err(why) = prepare_registers() {
            log::error!("{}: {why}", cpu.local.id);
        }
        if code != 0 {
            log::warn!("firmware refused CPU_OFF ({code}): CPUs of vCPUs in reserve wait in WFI");
            REFUSED.store(true, Ordering::Relaxed);
        }
    }
    percpu::allow_kicks(cpu, target);
    if !stays {
        presence.come();
    }
    !stays
}

/// Turns a CPU on if it is off, after one of its vCPUs was offered, and waits until it can be kicked.
pub(crate) fn bring_up(id: PcpuId) {
    let presence = presence(id);
    // A CPU that comes second waits for the first.
    let mut asked = !presence.claim();
    let deadline = timer::now() + clock::duration_ticks(START_TIMEOUT_NS);
    while !percpu::takes_kicks(id) {
        if !asked {
            let handover = HANDOVERS[id.index()].load(Ordering::Acquire);
            // SAFETY: a CPU is marked as off only after its block was registered; it was leaked and its MPIDR never changes.
            let mpidr = unsafe { (*(handover as *const Handover)).mpidr };
            match smc::cpu_on(mpidr, secondary_entry as *const () as u64, handover) {
                Some(0) => asked = true,
                // It has not quite left.
                Some(code) if code == ReturnCode::AlreadyOn as i64 => {}
                code => {
                    presence.lose();
                    let code = code.unwrap_or_default();
                    return log::error!("{id}: firmware does not turn it on again ({code})");
                }
            }
        }
        if timer::now() > deadline {
            presence.lose();
            return log::error!("{id}: did not come up again within 1 s");
        }
        core::hint::spin_loop();
    }
}

/// Saves what a function must keep, tells the way back, and calls the firmware's `function`; returns zero when this CPU has
/// been turned on again, or the firmware's code.
///
/// # Safety
/// `handover` is the address of this CPU's own handover block. The CPU's registers of EL2 are lost.
#[unsafe(naked)]
unsafe extern "C" fn leave(handover: u64, function: u64) -> i64 {
    naked_asm!(
        "stp  x29, x30, [sp, #-96]!",
        "stp  x19, x20, [sp, #16]",
        "stp  x21, x22, [sp, #32]",
        "stp  x23, x24, [sp, #48]",
        "stp  x25, x26, [sp, #64]",
        "stp  x27, x28, [sp, #80]",
        "mov  x2, sp",
        "str  x2, [x0, {resume}]",
        // Read again with the MMU off.
        "dc   civac, x0",
        "add  x2, x0, {resume}",
        "dc   civac, x2",
        "dsb  sy",
        "mov  x0, x1",
        "smc  #0",
        // Refused. SMCCC keeps x18 to x30.
        "ldp  x29, x30, [sp], #96",
        "ret",
        resume = const offset_of!(Handover, resume),
    )
}
