//! Hot-plug as the guest sees it: its register writes in, notifications and the ends of resizes out.

use core::sync::atomic::Ordering;
use vmm::devices::AccessWidth;
use vmm::devices::cpu_hotplug::HotplugWrite;
use vmm::vm::context::Frame;
use vmm::vm::resize::{Effect, Limits, Progress};
use vmm::vm::{Kicks, Vcpu, Vm};

use super::{Slate, events, park, slate};
use crate::{clock, console, percpu, smp};

/// Answers a call of Bullpen's own.
pub(crate) fn vendor_call(vm: &'static Vm, frame: &mut Frame) {
    vmm::hypercall::answer(frame, &mut vm.rtc.lock(), clock::now_ns());
}

/// Acts on a guest's write to the hot-plug registers.
pub(crate) fn hotplug_write(vm: &'static Vm, offset: u64, value: u32) {
    let slate = slate(vm);
    let write = vm
        .hotplug
        .lock()
        .write(offset, AccessWidth::Word, u64::from(value));
    let progress = match write {
        HotplugWrite::Ignored => return,
        HotplugWrite::Eject(id) => {
            let progress = slate.resizer.lock().on_eject(vm, id);
            let Some(progress) = progress else { return };
            park(slate);
            progress
        }
        HotplugWrite::Ost {
            vcpu,
            event,
            status,
        } => slate.resizer.lock().on_ost(vm, vcpu, event, status),
    };
    if progress.report.is_some() || !progress.effects.is_empty() {
        carry_out(slate, progress);
    }
}

/// Hears that a guest reads its event register for the first time.
pub(crate) fn listening(vm: &'static Vm) {
    let slate = slate(vm);
    let mut resizer = slate.resizer.lock();
    vm.listening.store(true, Ordering::Release);
    if resizer.is_listening() {
        return;
    }
    let progress = resizer.on_listening(vm, clock::now_ns());
    drop(resizer);
    carry_out(slate, progress);
}

/// Makes a vCPU's CPU look at it, even if the CPU is off, before a move or after.
pub(crate) fn call(vm: &Vm, vcpu: &Vcpu) {
    smp::bring_up(vcpu.at.home().pcpu());
    let mut kicks = Kicks::NONE;
    vcpu.wake(&mut kicks);
    percpu::kick(kicks);
    park(slate(vm));
    events::look_again();
}

/// Does what a step of a resize asks for.
pub(crate) fn carry_out(slate: &'static Slate, progress: Progress) {
    let vm = slate.vm;
    // Before the guest hears of anything: what it turns on because of it counts.
    let resizer = slate.resizer.lock();
    let active = resizer.is_active();
    slate.resizing.store(active, Ordering::Release);
    vm.watched
        .store(active || console::is_heard(), Ordering::Release);
    drop(resizer);
    let (mut pulse, mut kicks) = (false, Kicks::NONE);
    for effect in progress.effects {
        match effect {
            Effect::Pulse => pulse = true,
            Effect::Insert(id) => {
                // Its CPU comes up and prepares while the guest finds out.
                if let Some(vcpu) = vm.vcpu(id) {
                    smp::bring_up(vcpu.at.home().pcpu());
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
    percpu::kick(kicks);
    if let Some(report) = progress.report {
        events::resized(slate, report);
    }
    events::look_again();
}

/// Returns limits for a resize with an explicit time-out.
pub(crate) fn strict(timeout_s: u32) -> Limits {
    Limits {
        timeout_ns: u64::from(timeout_s) * 1_000_000_000,
        boot_grace_ns: 0,
    }
}
