//! The alarms of guests' clocks: the CPU that manages a VM keeps its own timer for them, wherever the VM's vCPUs are and sleep.

use types::ids::PcpuId;

use super::{Host, Vms};
use crate::vm::{Kicks, Vm};

impl<H: Host> Vms<H> {
    /// Has the CPU that manages a VM look at its alarm, which has come nearer.
    #[cold]
    #[inline(never)]
    pub fn alarm_set(&self, vm: &Vm) {
        self.host.ask(self.of(vm).manager);
    }

    /// Rings the alarms that are due of the VMs that a CPU manages; returns when to look again, in nanoseconds since start.
    pub(super) fn ring_alarms(&self, cpu: PcpuId) -> Option<u64> {
        let own = self.instances.iter().filter(|one| one.manager == cpu);
        own.filter_map(|instance| self.ring_if_due(instance.vm))
            .min()
    }

    fn ring_if_due(&self, vm: &Vm) -> Option<u64> {
        let now_ns = self.host.now_ns();
        if vm.alarm.take_due(now_ns) {
            let mut rtc = vm.rtc.lock();
            let line = rtc.tick(now_ns).line;
            let next = rtc.alarm_ns();
            drop(rtc);
            // A vCPU that sets an alarm after this look sees that it is earlier, and asks again.
            let _earlier = vm.alarm.set(next, now_ns);
            if let Some(high) = line {
                let mut kicks = Kicks::NONE;
                vm.set_line(vm.layout.rtc.intid, high, &mut kicks);
                self.host.kick(kicks);
            }
        }
        vm.alarm.look_ns()
    }
}
