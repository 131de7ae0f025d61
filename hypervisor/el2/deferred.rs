//! Which CPUs have work besides running guests, and when the boot CPU looks at its own by itself.

use core::sync::atomic::Ordering;
use types::ids::PcpuId;
use vmm::sched::NEVER;
use vmm::vm::Kicks;

use crate::{clock, percpu, timer};

/// How long events and answers may wait, in nanoseconds.
const SOON_NS: u64 = 100_000;

/// Asks a CPU to look at its deferred work.
pub(crate) fn ask(id: PcpuId) {
    percpu::deferred_flag(id).store(true, Ordering::Release);
    let mut kicks = Kicks::NONE;
    kicks.add(id);
    percpu::kick(kicks);
}

/// Sets when this CPU looks at its deferred work by itself, in counter ticks; `None` for not at all.
pub(crate) fn set_deadline(ticks: Option<u64>) {
    let local = &percpu::this().local;
    local.deferred_deadline.set(ticks.unwrap_or(NEVER));
}

/// Has the boot CPU look at its deferred work a little later, so that a guest which waits for this CPU does not wait for that.
pub(crate) fn ask_boot_cpu_soon() {
    let cpu = percpu::this();
    if cpu.local.id != PcpuId::new(0) {
        return ask(PcpuId::new(0));
    }
    let soon = timer::now() + clock::duration_ticks(SOON_NS);
    let deadline = &cpu.local.deferred_deadline;
    deadline.set(soon.min(deadline.get()));
    // A guest may go on at once.
    cpu.arm(soon.min(cpu.local.armed.get()));
}
