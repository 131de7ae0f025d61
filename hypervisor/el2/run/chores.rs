//! What a CPU does besides running guests: starting and stopping VMs, and on the boot CPU the console and what is to be told.

use core::sync::atomic::{AtomicBool, Ordering};
use vmm::ids::PcpuId;
use vmm::vm::kicks::MAX_PCPUS;

use super::Runner;
use crate::percpu;
use crate::sysreg::read_register;
use crate::{clock, timer, vms};

/// How long a CPU does its chores, and then runs guests, while it has both to do.
const SHARE_NS: u64 = super::SLICE_NS / 4;
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
        let share = clock::duration_ticks(SHARE_NS);
        let end = timer::now() + share;
        let (mut more, mut now) = (vms::chores(self.cpu.id), timer::now());
        // A step is short: whatever happens meanwhile, and whoever wants to run, waits for one at most.
        while more && now < end && !self.queue.wants_switch(now) && read_register!("isr_el1") == 0 {
            (more, now) = (vms::chores(self.cpu.id), timer::now());
        }
        self.chore_ticks = if more { now + share } else { timer::NEVER };
        flag.fetch_or(more, Ordering::Release);
        self.power_down();
    }

    /// Returns whether chores are left: whoever waits in WFI gives the CPU to them.
    #[inline]
    pub(super) const fn is_busy(&self) -> bool {
        self.chore_ticks != timer::NEVER
    }
}
