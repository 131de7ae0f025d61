//! What devices have to do at times: the CPU that manages a VM keeps its own timer for them, wherever the VM's vCPUs are and sleep.

use types::devices::DeviceId;
use types::ids::PcpuId;

use super::{Host, Vms};
use crate::vm::{Around, Kicks, Vm};

impl<H: Host> Vms<H> {
    /// Has the devices of the VMs that a CPU manages do what is due; returns when to look again, in nanoseconds since start.
    pub(super) fn attend_devices(&self, cpu: PcpuId) -> Option<u64> {
        let own = self.instances.iter().filter(|one| one.manager == cpu);
        own.filter_map(|instance| self.attend_devices_of(instance.vm))
            .min()
    }

    fn attend_devices_of(&self, vm: &Vm) -> Option<u64> {
        let mut kicks = Kicks::NONE;
        let next = DeviceId::ALL
            .into_iter()
            .filter_map(|device| {
                let mut around = Around::new(vm, device, &self.host, &mut kicks);
                vm.devices.attend(device, &mut around)
            })
            .min();
        self.host.kick(kicks);
        next
    }
}
