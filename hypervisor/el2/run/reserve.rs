//! A CPU whose vCPUs are all in reserve may be turned off, if their manifests say so.

use psci::State;
use vmm::config::ReserveIdle;
use vmm::ids::PcpuId;
use vmm::sched::Slot;

use super::places::PLACES;
use super::{Runner, ask_chores};
use crate::vms::{self, Slate};
use crate::{smp, timer};

/// Makes the CPUs of a VM's vCPUs in reserve find out whether they are needed at all.
pub(crate) fn park(slate: &'static Slate) {
    if slate.config.reserve_idle != ReserveIdle::PsciOff {
        return;
    }
    for vcpu in &*slate.vm.vcpus {
        if vcpu.power.state() == State::Reserve && !smp::is_off(vcpu.at.home().pcpu()) {
            ask_chores(vcpu.at.home().pcpu());
        }
    }
}

/// Returns whether every vCPU that has its place on a CPU is in reserve, and its manifest lets the CPU be turned off. There are some,
/// and the CPU has no VM to start and stop.
fn is_all_reserve(cpu: PcpuId) -> bool {
    let places = PLACES[cpu.index()].lock();
    let mut places = places.iter().flatten().peekable();
    places.peek().is_some()
        && places.all(|place| {
            place.vcpu.power.state() == State::Reserve
                && vms::slate(place.vm).config.reserve_idle == ReserveIdle::PsciOff
        })
        && vms::all().iter().all(|slate| slate.manager != cpu)
}

impl Runner {
    /// Turns this CPU off for as long as it has nothing but vCPUs in reserve.
    ///
    /// Called when there was a chore, so that nobody pays for the question who has none.
    #[cold]
    pub(super) fn power_down(&mut self) {
        let cpu = self.cpu;
        if self.queue.live() != 0 || !is_all_reserve(cpu.id) {
            return;
        }
        self.tell_news();
        self.unload();
        for slot in (0..self.attached.len()).filter_map(Slot::new) {
            self.let_go(slot);
        }
        // A timer that fires with nobody there stays pending; under `-icount sleep=off` QEMU then waits for the end of time.
        cpu.arm(timer::NEVER);
        let is_wanted = || !cpu.wakes.is_empty() || cpu.has_chores() || !is_all_reserve(cpu.id);
        if smp::power_down(cpu, is_wanted) {
            (self.hcr, self.cptr, self.world) = (0, 0, None);
        }
    }
}
