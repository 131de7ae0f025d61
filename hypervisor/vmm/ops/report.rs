//! What is told of VMs: in lists, on a page of its own, and as samples of what they have had of the CPUs.

use alloc::boxed::Box;
use alloc::string::String;
use control_plane::console::{MeterRow, Reply, Sample, VcpuRow, VmPage, VmRow};
use core::sync::atomic::Ordering;
use types::ids::PcpuSet;

use super::{Host, Instance, Vms};
use crate::vm::{Cause, Phase, Vcpu, Vm};

/// The most vCPUs in a sample: it is taken each second, and its tables show fewer than twenty.
const SAMPLED_VCPUS: usize = 1024;

/// What has become of a VM, for people. Times are nanoseconds since EL2 started.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Why it is off, if not because the operator or the guest wanted it; of one that runs, what is wrong with it.
    pub(super) note: Option<String>,
    /// When the guest began that runs now.
    pub(super) started_ns: Option<u64>,
    resets: u32,
    last_reset: Option<(u64, &'static str)>,
    last_off: Option<(u64, &'static str)>,
    last_error: Option<(u64, String)>,
}

impl Record {
    /// Notes that a VM ends, or begins anew, because of `cause`; what went wrong is in the note.
    pub(super) fn end(&mut self, time_ns: u64, is_reset: bool, cause: Cause, note: Option<String>) {
        let past = Some((time_ns, cause.name()));
        if is_reset {
            self.resets = self.resets.saturating_add(1);
            self.last_reset = past;
        } else {
            self.last_off = past;
        }
        self.started_ns = None;
        self.note = None;
        if let Some(why) = note {
            self.go_wrong(time_ns, why);
        }
    }

    /// Notes that something went wrong.
    pub(super) fn go_wrong(&mut self, time_ns: u64, why: String) {
        self.note = Some(why.clone());
        self.last_error = Some((time_ns, why));
    }
}

impl<H: Host> Vms<H> {
    /// Returns the list of VMs.
    #[must_use]
    pub fn list(&self) -> Reply {
        Reply::VmList(self.instances.iter().map(row).collect())
    }

    /// Returns a VM's vCPUs with what the CPUs have published of them.
    #[must_use]
    pub fn vcpu_list(&self, vm: &Vm) -> Reply {
        Reply::VcpuList {
            vm: vm.id,
            vcpus: vm.vcpus.iter().map(|vcpu| self.vcpu_row(vcpu)).collect(),
        }
    }

    /// Returns everything about a VM.
    #[must_use]
    pub fn show(&self, instance: &'static Instance<H>) -> Reply {
        let (vm, config) = (instance.vm, &instance.config);
        let row = row(instance);
        let on = vm.vcpus.iter().filter(|vcpu| vcpu.power.state().is_on());
        let mut cpus = PcpuSet::EMPTY;
        for vcpu in on {
            cpus.insert(vcpu.at.placement().pcpu());
        }
        let exits = vm.vcpus.iter().map(|vcpu| vcpu.exits.snapshot().total());
        let record = instance.record.lock();
        Reply::VmShow(Box::new(VmPage {
            boot: config.boot_vcpus,
            max_memory_bytes: vm.memory.size + vm.hot.slots.region().size,
            cpus: cpus.iter().collect(),
            cap: vm.cap.millicores(),
            weight: vm.weight.load(Ordering::Relaxed),
            entitlement: config.entitlement,
            kernel: &config.kernel,
            initrd: config.initrd.as_deref(),
            command_line: &config.command_line,
            firmware: config.firmware.name(),
            exits: exits.fold(0, u64::wrapping_add),
            time_ns: self.host.now_ns(),
            started_ns: record.started_ns,
            resets: record.resets,
            last_reset: record.last_reset,
            last_off: record.last_off,
            last_error: record.last_error.clone(),
            way_out: way_out(vm, &row),
            row,
        }))
    }

    /// Returns what VMs and the vCPUs that are on have had, as the CPUs have published it.
    #[must_use]
    pub fn sample(&self) -> Reply {
        let mut sample = Sample {
            time_ns: self.host.now_ns(),
            ..Sample::default()
        };
        for instance in &self.instances {
            sample.vms.push(row(instance));
            for vcpu in &*instance.vm.vcpus {
                match vcpu.power.state().is_on() {
                    true if sample.vcpus.len() < SAMPLED_VCPUS => {
                        sample.vcpus.push((instance.vm.id, self.vcpu_row(vcpu)));
                    }
                    is_on => sample.left_out += u32::from(is_on),
                }
            }
        }
        Reply::Top(sample)
    }

    /// Returns the meters of one VM or of all, as the CPUs have published them.
    #[must_use]
    pub fn usage(&self, vm: Option<&Vm>) -> Reply {
        let wanted = |instance: &&Instance<H>| vm.is_none_or(|vm| vm.id == instance.vm.id);
        Reply::Usage {
            time_ns: self.host.now_ns(),
            vms: self
                .instances
                .iter()
                .filter(wanted)
                .map(|one| self.meter_row(one))
                .collect(),
        }
    }

    pub(super) fn meter_row(&self, instance: &Instance<H>) -> MeterRow {
        let vm = instance.vm;
        let (mut ran, mut stolen, mut counts_sleep) = (0_u64, 0_u64, false);
        for vcpu in &*vm.vcpus {
            let account = vcpu.usage.metered();
            ran = ran.saturating_add(account.run_ticks);
            stolen = stolen.saturating_add(account.steal_ticks);
            counts_sleep |= vcpu.power.state().is_on() && vcpu.usage.counts_sleep();
        }
        let meter = *instance.meter.lock();
        MeterRow {
            vm: vm.id,
            meter: meter.read(instance.config.entitled_vcpus(), self.host.now_ns()),
            ran_ns: self.host.ns(ran),
            counts_sleep,
            stolen_ns: self.host.ns(stolen),
            throttled_ns: self.host.ns(vm.cap.throttled_ticks()),
        }
    }

    fn vcpu_row(&self, vcpu: &Vcpu) -> VcpuRow {
        let (state, usage) = (vcpu.power.state(), &vcpu.usage);
        VcpuRow {
            vcpu: vcpu.id,
            state: state.word(),
            cpu: vcpu.at.placement().pcpu(),
            exits: vcpu.exits.snapshot().total(),
            ran_ns: self.host.ns(usage.ran_ticks()),
            counts_sleep: state.is_on() && usage.counts_sleep(),
            stolen_ns: self.host.ns(usage.stolen_ticks()),
        }
    }
}

fn row<H: Host>(instance: &Instance<H>) -> VmRow {
    let vm = instance.vm;
    let on = vm.vcpus.iter().filter(|vcpu| vcpu.power.state().is_on());
    VmRow {
        vm: vm.id,
        state: vm.phase().state(vm.life.cause()),
        on: on.count() as u16,
        target: instance.target.load(Ordering::Acquire),
        possible: vm.vcpus.len() as u16,
        memory_bytes: vm.memory.size + vm.hot.bytes(),
        note: instance.record.lock().note.clone(),
    }
}

/// Returns what the operator can do for a VM that does not run, or runs and goes wrong.
fn way_out(vm: &Vm, row: &VmRow) -> Option<[&'static str; 2]> {
    Some(match vm.phase() {
        Phase::Paused => ["`vm resume ", "` lets it run on"],
        Phase::Off if vm.life.cause() == Cause::Failed => {
            ["mend what the last error names, then `vm start ", "`"]
        }
        Phase::Off => ["`vm start ", "` starts it"],
        Phase::Running if row.note.is_some() => ["`vm reset ", "` starts it anew"],
        _ => return None,
    })
}
