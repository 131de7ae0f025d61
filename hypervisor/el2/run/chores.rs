//! What a CPU has to do besides running guests, and how the two share its time. What there is to do, `vms` knows.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm::features::hcr;
use vmm::ids::PcpuId;
use vmm::vm::Kicks;
use vmm::vm::kicks::MAX_PCPUS;

use super::{NEVER, Runner, SLICE_NS};
use crate::sysreg::read_register;
use crate::{clock, percpu, timer, vms};

/// How long a CPU does its chores, and then runs guests, while it has both to do.
const TURN_NS: u64 = SLICE_NS / 4;

/// CPUs that have something to do besides running guests.
static CHORES: [AtomicBool; MAX_PCPUS] = [const { AtomicBool::new(false) }; MAX_PCPUS];
/// When the boot CPU has to look at its chores by itself, in counter ticks.
static DEADLINE: AtomicU64 = AtomicU64::new(NEVER);

/// Returns whether this CPU has something to do besides running guests.
#[inline(always)]
pub(crate) fn has_chores(id: PcpuId) -> bool {
    CHORES[id.index()].load(Ordering::Acquire)
}

/// Asks a CPU to look at its chores.
pub(crate) fn ask_chores(id: PcpuId) {
    CHORES[id.index()].store(true, Ordering::Release);
    let mut kicks = Kicks::NONE;
    kicks.add(id);
    percpu::kick(kicks);
}

/// Sets when the boot CPU looks at its chores by itself; `None` for not at all.
pub(crate) fn set_chore_deadline(ticks: Option<u64>) {
    DEADLINE.store(ticks.unwrap_or(NEVER), Ordering::Release);
}

/// Returns when the boot CPU has to look at its chores by itself, in counter ticks.
#[inline(always)]
pub(super) fn deadline() -> u64 {
    DEADLINE.load(Ordering::Acquire)
}

/// Returns how long guests run between two turns of the chores.
pub(super) fn turn_ticks() -> u64 {
    clock::duration_ticks(TURN_NS)
}

impl Runner {
    #[inline(always)]
    pub(super) fn do_chores(&mut self) {
        let id = self.cpu.id;
        let due = id.index() == 0 && timer::now() >= deadline();
        if has_chores(id) || due {
            self.do_some_chores();
        }
    }

    /// Does chores for a turn's time; what is left is done after the guests had theirs.
    #[cold]
    fn do_some_chores(&mut self) {
        let flag = &CHORES[self.cpu.id.index()];
        flag.store(false, Ordering::Release);
        let end = timer::now() + turn_ticks();
        let (mut more, mut now) = (vms::chores(self.cpu.id), timer::now());
        // A step is short: whatever happens meanwhile, and whoever wants to run, waits for one at most.
        let idle = || read_register!("isr_el1") == 0;
        while more && now < end && !self.queue.wants_switch(now) && idle() {
            (more, now) = (vms::chores(self.cpu.id), timer::now());
        }
        if more {
            flag.store(true, Ordering::Release);
        }
        // Whoever waits in WFI gives the CPU to what is left to do.
        self.alone_hcr = if more { hcr::TWI } else { 0 };
        self.power_down();
    }
}
