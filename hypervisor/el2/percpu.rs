//! What each CPU keeps to itself, found through TPIDR_EL2, and the little that others need to reach it.
#![expect(unsafe_code, reason = "turns TPIDR_EL2 into a reference")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;
use types::ids::{MAX_PCPUS, PcpuId};
use types::layout::GicVersion;
use vmm::cpu::{Local, Placements};
use vmm::sched::{NEVER, WakeSet};
use vmm::vm::{Kicks, Wakes};

use crate::gic::{KickTarget, Ppis, PrivateLines, V2, V3, Version};
use crate::sysreg;
use crate::{clock, gic, timer};

/// One CPU's own data.
#[derive(Debug)]
pub(crate) struct Percpu {
    /// What its state machine and its hot path tell each other.
    pub(crate) local: Local,
    /// Affinity fields of its MPIDR_EL1.
    pub(crate) affinity: u64,
    /// Its private interrupts, which are every CPU's.
    pub(crate) ppis: Ppis,
    /// The registers of its private interrupts.
    pub(crate) private_lines: PrivateLines,
    /// How many list registers it has.
    pub(crate) list_registers: usize,
    patience_ticks: u64,
}

/// How long a vCPU may run on that has woken another one of its CPU: mostly it waits for the answer before that.
const PATIENCE_NS: u64 = 50_000;

impl Percpu {
    /// Makes EL2's timer fire at `deadline_ticks`, or never.
    #[inline]
    pub(crate) fn arm(&self, deadline_ticks: u64) {
        if self.local.armed.replace(deadline_ticks) == deadline_ticks {
            return;
        }
        if deadline_ticks == NEVER {
            timer::disarm()
        } else {
            timer::arm(deadline_ticks)
        }
    }
}

/// What other CPUs reach of each CPU that the machine has.
#[derive(Debug)]
struct Shared {
    /// The mailboxes.
    wakes: &'static Wakes,
    /// Which vCPUs are placed on which CPU.
    placements: Placements,
}

static SHARED: Once<Shared> = Once::new();

/// Makes room for so many CPUs, before the first of them is prepared.
pub(crate) fn make_room(cpus: usize) {
    let wakes: Vec<WakeSet> = core::iter::repeat_with(WakeSet::new).take(cpus).collect();
    SHARED.call_once(|| Shared {
        wakes: wakes.leak(),
        placements: Placements::new(cpus),
    });
}

fn shared() -> &'static Shared {
    SHARED.get().expect("made before any CPU is prepared")
}

/// Returns the mailboxes of all CPUs.
pub(crate) fn wakes() -> &'static Wakes {
    shared().wakes
}

/// Returns which vCPUs are placed on which CPU.
pub(crate) fn placements() -> &'static Placements {
    &shared().placements
}

/// The bits of all CPUs' [`KickTarget`]; zero for those that are not there.
static KICK_TARGETS: [AtomicU64; MAX_PCPUS] = [const { AtomicU64::new(0) }; MAX_PCPUS];

/// CPUs that have something to do besides running guests.
static DEFERRED: [AtomicBool; MAX_PCPUS] = [const { AtomicBool::new(false) }; MAX_PCPUS];

/// Returns the flag that says whether a CPU has something to do besides running guests.
pub(crate) fn deferred_flag(id: PcpuId) -> &'static AtomicBool {
    &DEFERRED[id.index()]
}

/// Returns the affinity fields of this CPU's MPIDR_EL1: Aff3 in bits 39:32, the rest in 23:0.
pub(crate) fn own_affinity() -> u64 {
    sysreg::mpidr_el1::read() & 0xff_00ff_ffff
}

/// Makes this CPU's data and points TPIDR_EL2 at it.
pub(crate) fn start(
    id: PcpuId,
    private_lines: PrivateLines,
    list_registers: usize,
) -> &'static Percpu {
    let affinity = own_affinity();
    let data = Box::leak(Box::new(Percpu {
        local: Local::new(id, &wakes()[id.index()], deferred_flag(id)),
        affinity,
        ppis: crate::machine::private_interrupts(),
        private_lines,
        list_registers,
        patience_ticks: clock::duration_ticks(PATIENCE_NS),
    }));
    KICK_TARGETS[id.index()].store(KickTarget::own(affinity).bits(), Ordering::Release);
    attach(data);
    data
}

/// Points TPIDR_EL2 at this CPU's data.
fn attach(data: &'static Percpu) {
    // SAFETY: the data of this CPU, which is there for good: what `this` expects.
    unsafe { sysreg::tpidr_el2::write((&raw const *data).addr() as u64) };
}

/// Before this CPU is turned off: no CPU can kick it; returns what [`allow_kicks`] wants.
pub(crate) fn forbid_kicks(id: PcpuId) -> u64 {
    KICK_TARGETS[id.index()].swap(0, Ordering::AcqRel)
}

/// This CPU is up again: it can be kicked.
pub(crate) fn allow_kicks(cpu: &'static Percpu, target: u64) {
    attach(cpu);
    KICK_TARGETS[cpu.local.id.index()].store(target, Ordering::Release);
}

/// Returns whether a CPU can be kicked.
pub(crate) fn takes_kicks(id: PcpuId) -> bool {
    KICK_TARGETS[id.index()].load(Ordering::Acquire) != 0
}

/// Returns this CPU's data.
#[inline(always)]
pub(crate) fn this() -> &'static Percpu {
    let pointer = sysreg::tpidr_el2::read() as *const Percpu;
    // SAFETY: `start` ran on this CPU before the first guest; it leaked the data, and only this CPU reads TPIDR_EL2.
    unsafe { &*pointer }
}

/// Interrupts every CPU in a set; one that is not up is skipped: it looks at its mail when it comes.
pub(crate) fn kick(kicks: Kicks) {
    match gic::version() {
        GicVersion::V2 => kick_by::<V2>(kicks),
        GicVersion::V3 => kick_by::<V3>(kicks),
    }
}

/// As [`kick`], where the interrupt controller is known.
#[inline(always)]
pub(crate) fn kick_by<V: Version>(mut kicks: Kicks) {
    while let Some(id) = kicks.pop() {
        send_kick::<V>(id);
    }
}

/// Interrupts a CPU; one that is not up is skipped.
#[inline(always)]
fn send_kick<V: Version>(id: PcpuId) {
    let target = KICK_TARGETS[id.index()].load(Ordering::Relaxed);
    if let Some(target) = KickTarget::from_bits(target) {
        V::send_kick(target);
    }
}

/// As [`kick_by`], on behalf of the guest that runs here. Another vCPU of this CPU that it wakes does not interrupt it at once, and what was
/// posted to its own inbox and has been delivered does not at all.
#[inline(always)]
pub(crate) fn kick_in_passing<V: Version>(mut kicks: Kicks) {
    while let Some(id) = kicks.pop() {
        let cpu = this();
        if id != cpu.local.id {
            send_kick::<V>(id);
        } else if !cpu.local.wakes.is_empty() {
            // It looks at its mail soon, if it does not by itself.
            let soon = timer::now() + cpu.patience_ticks;
            cpu.arm(soon.min(cpu.local.armed.get()));
        } else if cpu
            .local
            .loaded
            .get()
            .is_none_or(|owner| !owner.vcpu.inbox.is_empty())
        {
            send_kick::<V>(id);
        }
    }
}

/// Says which CPU this is and what it runs, even before it has data of its own.
pub(crate) fn describe() -> impl fmt::Display {
    struct Description;
    impl fmt::Display for Description {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if sysreg::tpidr_el2::read() == 0 {
                return write!(f, "the boot CPU");
            }
            let cpu = this();
            write!(f, "{}", cpu.local.id)?;
            match cpu.local.loaded.get() {
                Some(loaded) => write!(f, " (vm {}, {})", loaded.vm.name, loaded.vcpu.id),
                None => write!(f, " (no guest)"),
            }
        }
    }
    Description
}
