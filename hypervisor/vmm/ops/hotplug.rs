//! Hot-plug as the guest sees it: its answers in, notifications and the ends of resizes out.

use core::sync::atomic::Ordering;

use super::{Host, Instance, Vms};
use crate::devices::Answer;
use crate::vm::resize::{Effect, Limits, Progress};
use crate::vm::{Kicks, Vcpu, Vm};
use types::devices::DeviceId;
use types::hotplug::Kind;

impl<H: Host> Vms<H> {
    /// Acts on what a guest says about its vCPUs.
    pub(super) fn answered(&self, vm: &Vm, answer: Answer) {
        let instance = self.of(vm);
        let progress = match answer {
            Answer::Listens => return self.listens(vm),
            Answer::Eject(id) => {
                let mut resizer = instance.resizer.lock();
                let progress = resizer.on_eject(vm, id, self.host.now_ns());
                self.meter(instance, &resizer);
                drop(resizer);
                let Some(progress) = progress else { return };
                self.park(vm);
                progress
            }
            Answer::Ost {
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
    fn listens(&self, vm: &Vm) {
        let instance = self.of(vm);
        let mut resizer = instance.resizer.lock();
        vm.devices.hotplug.listen();
        if resizer.is_listening() {
            return;
        }
        let now_ns = self.host.now_ns();
        let progress = resizer.on_listening(vm, now_ns);
        drop(resizer);
        self.carry_out(instance, progress);
        let progress = instance.memory.resizer.lock().on_listening(vm, now_ns);
        self.carry_out_memory(instance, progress);
    }

    /// Presses a VM's power button.
    pub fn press_power_button(&self, vm: &Vm) {
        if vm.devices.hotplug.press_power_button() {
            let mut kicks = Kicks::NONE;
            vm.pulse(DeviceId::Hotplug, &mut kicks);
            self.host.kick(kicks);
        }
    }

    /// Makes a vCPU's CPU look at it, even if the CPU is off, before a move or after.
    pub fn look_at(&self, vm: &Vm, vcpu: &Vcpu) {
        self.host.bring_up(vcpu.at.placement().pcpu());
        let mut kicks = Kicks::NONE;
        vcpu.wake(&mut kicks);
        self.host.kick(kicks);
        self.park(vm);
        self.host.look_again();
    }

    /// Looks at the deadline of a VM's resize; returns when to look again, in nanoseconds since start.
    pub(super) fn look_at_resize(&self, instance: &Instance<H>, kind: Kind) -> Option<u64> {
        let resizer = match kind {
            Kind::Vcpu => &instance.resizer,
            Kind::Slot => &instance.memory.resizer,
        };
        let now_ns = self.host.now_ns();
        let mut one = resizer.lock();
        if one.deadline_ns().is_some_and(|at| at <= now_ns) {
            let progress = one.on_deadline(instance.vm, now_ns);
            drop(one);
            match kind {
                Kind::Vcpu => self.carry_out(instance, progress),
                Kind::Slot => self.carry_out_memory(instance, progress),
            }
            one = resizer.lock();
        }
        one.deadline_ns()
    }

    /// Does what a step of a resize asks for.
    pub fn carry_out(&self, instance: &Instance<H>, progress: Progress) {
        let vm = instance.vm;
        // Before the guest hears of anything: what it turns on because of it counts.
        let resizer = instance.resizer.lock();
        self.meter(instance, &resizer);
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
                        self.host.bring_up(vcpu.at.placement().pcpu());
                        vcpu.wake(&mut kicks);
                    }
                    pulse |= vm.devices.hotplug.request_insert(Kind::Vcpu, id);
                }
                Effect::Eject(vcpu) => pulse |= vm.devices.hotplug.request_eject(Kind::Vcpu, vcpu),
                Effect::Retract(vcpu) => vm.devices.hotplug.cancel(Kind::Vcpu, vcpu),
            }
        }
        if pulse {
            vm.pulse(DeviceId::Hotplug, &mut kicks);
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
pub(super) const fn strict(timeout_s: u32) -> Limits {
    Limits {
        timeout_ns: timeout_s as u64 * 1_000_000_000,
        boot_grace_ns: 0,
    }
}
