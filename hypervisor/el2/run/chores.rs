//! What a CPU does besides running guests: starting and stopping VMs, and on the boot CPU the console and what is to be told.

use core::sync::atomic::{AtomicBool, Ordering};
use vmm::ids::PcpuId;
use vmm::vm::kicks::MAX_PCPUS;

use super::Runner;
use crate::percpu;
use crate::sysreg::read_register;
use crate::{clock, timer, vms};

/// How long a CPU that nobody wants does its chores before it looks at everything else.
const IDLE_SHARE_NS: u64 = super::SLICE_NS / 4;
/// What it takes to leave a guest for a piece of such work and to come back.
const TOLL_NS: u64 = 1000;
/// How long what is to be told may wait.
const SOON_NS: u64 = 100_000;

/// CPUs that have something to do besides running guests.
static CHORES: [AtomicBool; MAX_PCPUS] = [const { AtomicBool::new(false) }; MAX_PCPUS];

/// Returns the flag that says whether a CPU has something to do besides running guests.
pub(crate) fn chores_of(id: PcpuId) -> &'static AtomicBool {
    &CHORES[id.index()]
}

/// Asks a CPU to look at its chores.
pub(crate) fn ask_chores(id: PcpuId) {
    chores_of(id).store(true, Ordering::Release);
    percpu::send_kick(id);
}

/// Sets when this CPU looks at its chores by itself; `None` for not at all.
pub(crate) fn set_chore_deadline(ticks: Option<u64>) {
    let ticks = ticks.unwrap_or(timer::NEVER);
    percpu::this().chore_deadline.set(ticks);
}

/// Has the boot CPU look at its chores a little later, so that a guest which waits for this CPU does not wait for that.
pub(crate) fn ask_boot_cpu_soon() {
    let cpu = percpu::this();
    if cpu.id != PcpuId::new(0) {
        return ask_chores(PcpuId::new(0));
    }
    let soon = timer::now() + clock::duration_ticks(SOON_NS);
    cpu.chore_deadline.set(soon.min(cpu.chore_deadline.get()));
    // A guest may go on at once.
    cpu.arm(soon.min(cpu.armed.get()));
}

impl Runner {
    /// Does what there is to do.
    #[cold]
    pub(super) fn do_chores(&mut self) {
        let flag = self.cpu.chores;
        flag.store(false, Ordering::Release);
        let (wanting, begun) = (self.queue.wanting(), timer::now());
        // What is owed from now on does not hold up a step whose time has come.
        let mut may_go_on = self.deferred.may_go_on(wanting, begun);
        vms::attend(self.cpu.id);
        let mut now = timer::now();
        self.owe(now - begun, now);
        let end = now + clock::duration_ticks(IDLE_SHARE_NS);
        let mut more = true;
        // A step is short: an interrupt waits for one at most, and a vCPU that wants to run is owed as much time after each.
        while more && may_go_on {
            let begun = now;
            more = vms::go_on(self.cpu.id, &mut self.deferred_turn);
            now = timer::now();
            self.owe(now - begun, now);
            may_go_on = self.deferred.may_go_on(wanting, now);
            if now >= end || read_register!("isr_el1") != 0 {
                break;
            }
        }
        self.chore_ticks = match more {
            true => self.deferred.due_ticks(),
            false => timer::NEVER,
        };
        self.power_down();
    }

    /// Notes that what was done for VMs beside their turns took the CPU from the vCPUs that want it, until now.
    pub(super) fn owe(&mut self, spent: u64, now: u64) {
        let most = clock::duration_ticks(super::SLICE_NS);
        let spent = spent + clock::duration_ticks(TOLL_NS);
        self.deferred.charge(spent, self.queue.wanting(), now, most);
    }

    /// Has this CPU go on with chores that were begun, now that nobody wants it.
    #[inline]
    pub(super) fn resume_chores(&self) {
        if self.is_busy() {
            self.cpu.chores.store(true, Ordering::Release);
        }
    }

    /// Returns whether chores are left: whoever waits in WFI gives the CPU to them.
    #[inline]
    pub(super) const fn is_busy(&self) -> bool {
        self.chore_ticks != timer::NEVER
    }
}
