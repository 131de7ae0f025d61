//! What devices have to do at times: the CPU that manages a VM keeps its own timer for them, wherever the VM's vCPUs are and sleep.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_plane::config::mac_text;
use control_plane::console::{DeviceRow, DiskRow, NetRow, What};
use types::devices::DeviceId;
use types::ids::PcpuId;

use super::{Host, Instance, Vms};
use crate::devices::{News, Report};
use crate::vm::{Around, Kicks, Vm};

impl<H: Host> Vms<H> {
    /// Has the devices of the VMs that a CPU manages do what is due; returns when to look again, in nanoseconds since start.
    pub(super) fn attend_devices(&self, cpu: PcpuId) -> Option<u64> {
        let own = self.instances.iter().filter(|one| one.manager == cpu);
        own.filter_map(|instance| self.attend_devices_of(instance))
            .min()
    }

    /// Gives the devices of a VM that is about to start the memory that they need.
    ///
    /// # Errors
    /// Says for which there is none.
    pub(super) fn give_device_memory(&self, instance: &Instance<H>) -> Result<(), String> {
        let take = |bytes| self.host.take_device_memory(bytes);
        let slots = &instance.vm.devices.virtio;
        slots.give_memory(take).map_err(|(slot, bytes)| {
            let name = instance.device_name(slot);
            format!(
                "memory: no {} KiB of contiguous RAM are free for disk {name}",
                bytes >> 10
            )
        })
    }

    /// Takes back the memory of a VM's devices.
    pub(super) fn release_device_memory(&self, vm: &Vm) {
        let release = |memory| self.host.release_device_memory(memory);
        vm.devices.virtio.take_memory(release);
    }

    /// Tells the operator what the devices of a VM have to tell.
    fn tell_of_devices(&self, instance: &Instance<H>) {
        while let Some((slot, news)) = instance.vm.devices.virtio.take_news() {
            let name = instance.device_name(slot).to_string();
            let what = match news {
                News::DiskFull => What::DiskFull(name),
                News::Broken(why) => What::DeviceBroken(name, why.name()),
            };
            self.event(instance.vm, what);
        }
    }

    fn attend_devices_of(&self, instance: &Instance<H>) -> Option<u64> {
        let vm = instance.vm;
        self.tell_of_devices(instance);
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

impl<H: Host> Instance<H> {
    /// Describes its virtio devices for the operator.
    #[must_use]
    pub fn device_rows(&self) -> Vec<DeviceRow> {
        let reports = (0..).zip(self.vm.devices.virtio.reports());
        let rows = reports.map(
            |(
                slot,
                Report {
                    kind,
                    state,
                    counts,
                    ..
                },
            )| DeviceRow {
                slot,
                name: self.device_name(slot).to_string(),
                kind,
                state,
                notifications: counts.notifications,
                chains: counts.chains,
                interrupts: counts.interrupts,
                suppressed: counts.suppressed,
                broken: counts.broken,
            },
        );
        rows.collect()
    }

    /// Describes its disks for the operator.
    #[must_use]
    pub fn disk_rows(&self) -> Vec<DiskRow> {
        let reports = (0..).zip(self.vm.devices.virtio.reports());
        let rows = reports.filter_map(|(slot, report)| {
            let disk = report.disk?;
            Some(DiskRow {
                vm: self.vm.id,
                name: self.device_name(slot).to_string(),
                bytes: disk.bytes,
                replaced: disk.replaced,
                read_bytes: disk.read_bytes,
                written_bytes: disk.written_bytes,
                errors: disk.errors,
            })
        });
        rows.collect()
    }

    /// Describes its ports of networks for the operator.
    #[must_use]
    pub fn net_rows(&self) -> Vec<NetRow> {
        let reports = self.vm.devices.virtio.reports().into_iter();
        let nets = reports.filter_map(|report| report.net);
        let rows = self
            .config
            .nets
            .iter()
            .zip(nets)
            .map(|(config, net)| NetRow {
                vm: self.vm.id,
                name: config.name.clone(),
                network: config.network.clone(),
                mac: mac_text(net.mac),
                sent: net.sent,
                sent_bytes: net.sent_bytes,
                received: net.received,
                received_bytes: net.received_bytes,
                dropped: net.dropped,
                refused: net.refused,
            });
        rows.collect()
    }

    /// Returns the name of the virtio device in a slot.
    fn device_name(&self, slot: u16) -> &str {
        let (disks, nets) = (&self.config.disks, &self.config.nets);
        let slot = usize::from(slot);
        let net = || nets.get(slot - disks.len()).map_or("rng", |net| &net.name);
        disks.get(slot).map_or_else(net, |disk| &disk.name)
    }
}
