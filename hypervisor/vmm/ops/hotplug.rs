//! Hot-plug as the guest sees it: its register writes in, notifications and the ends of resizes out.

use core::sync::atomic::Ordering;

use super::{Host, Instance, Vms};
use crate::devices::cpu_hotplug::HotplugWrite;
use crate::vm::resize::{Effect, Limits, Progress};
use crate::vm::{Kicks, Vcpu, Vm};
use types::access::AccessWidth;

impl<H: Host> Vms<H> {
    /// Acts on a guest's write to the hot-plug registers.
    pub(super) fn write_hotplug(&self, vm: &Vm, offset: u64, value: u32) {
        let instance = self.of(vm);
        let write = vm
            .hotplug
            .lock()
            .write(offset, AccessWidth::Word, u64::from(value));
        let progress = match write {
            HotplugWrite::Ignored => return,
            HotplugWrite::Eject(id) => {
                let progress = instance.resizer.lock().on_eject(vm, id);
                let Some(progress) = progress else { return };
                self.park(vm);
                progress
            }
            HotplugWrite::Ost {
                vcpu,
                event,
                status,
            } => instance.resizer.lock().on_ost(vm, vcpu, event, status),
        };
        if progress.report.is_some() || !progress.effects.is_empty() {
            self.carry_out(instance, progress);
        }
    }

    /// Hears that a guest reads its event register for the first time.
    pub(super) fn listens(&self, vm: &Vm) {
        let instance = self.of(vm);
        let mut resizer = instance.resizer.lock();
        vm.listening.store(true, Ordering::Release);
        if resizer.is_listening() {
            return;
        }
        let progress = resizer.on_listening(vm, self.host.now_ns());
        drop(resizer);
        self.carry_out(instance, progress);
    }

    /// Makes a vCPU's CPU look at it, even if the CPU is off, before a move or after.
    pub fn look_at(&self, vm: &Vm, vcpu: &Vcpu) {
        self.host.bring_up(vcpu.at.home().pcpu());
        let mut kicks = Kicks::NONE;
        vcpu.wake(&mut kicks);
        self.host.kick(kicks);
        self.park(vm);
        self.host.look_again();
    }

    /// Does what a step of a resize asks for.
    pub fn carry_out(&self, instance: &Instance<H>, progress: Progress) {
        let vm = instance.vm;
        // Before the guest hears of anything: what it turns on because of it counts.
        let resizer = instance.resizer.lock();
        let active = resizer.is_active();
        instance.resizing.store(active, Ordering::Release);
        vm.watched
            .store(active || self.host.is_heard(), Ordering::Release);
        drop(resizer);
        let (mut pulse, mut kicks) = (false, Kicks::NONE);
        for effect in progress.effects {
            match effect {
                Effect::Pulse => pulse = true,
                Effect::Insert(id) => {
                    // Its CPU comes up and prepares while the guest finds out.
                    if let Some(vcpu) = vm.vcpu(id) {
                        self.host.bring_up(vcpu.at.home().pcpu());
                        vcpu.wake(&mut kicks);
                    }
                    pulse |= vm.hotplug.lock().request_insert(id);
                }
                Effect::Eject(vcpu) => pulse |= vm.hotplug.lock().request_eject(vcpu),
                Effect::Retract(vcpu) => vm.hotplug.lock().cancel(vcpu),
            }
        }
        if pulse {
            vm.pulse(vm.layout.hotplug.intid, &mut kicks);
        }
        self.host.kick(kicks);
        if let Some(report) = progress.report {
            self.host.resized(instance, report);
        }
        self.host.look_again();
    }
}

/// Returns limits for a resize with an explicit time-out, in seconds.
#[must_use]
pub const fn strict(timeout_s: u32) -> Limits {
    Limits {
        timeout_ns: timeout_s as u64 * 1_000_000_000,
        boot_grace_ns: 0,
    }
}
