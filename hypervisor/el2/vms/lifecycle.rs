//! Starts and stops: who asks for them, and what is put back when a VM's last vCPU has left.
//!
//! `vmm::vm::life` says who wins when several ask at once. All that takes time is done by the VM's manager, the CPU that its
//! first vCPU was made for, between the turns of the guests there.

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::Ordering;
use vmm::config::OnReset;
use vmm::console::What;
use vmm::devices::Device;
use vmm::ids::VcpuId;
use vmm::vm::life::Resume;
use vmm::vm::resize::{AfterReset, Progress};
use vmm::vm::vcpu::request;
use vmm::vm::{Cause, Kicks, Phase, Vcpu, Vm};

use super::start::{release, release_tables, step};
use super::{Slate, State, carry_out, events, park, slate};
use crate::{clock, deferred, percpu, timer};

/// Begins a VM's start; returns whether it was off.
pub(crate) fn start(slate: &'static Slate) -> bool {
    let begun = slate.vm.life.start();
    if begun {
        *slate.note.lock() = None;
        slate.resizer.lock().on_start(clock::now_ns());
        deferred::ask(slate.manager);
    }
    begun
}

/// Turns a VM off, whoever wants it; returns whether it was on.
pub(crate) fn system_off(vm: &'static Vm, cause: Cause) -> bool {
    let left = vm.life.stop(cause);
    if left {
        let note = (cause == Cause::AllVcpusOff).then(|| "every vCPU is off".to_string());
        leave(vm, "off", cause, note);
    }
    left
}

/// Turns a VM off that did what it must not.
pub(crate) fn system_fail(vm: &'static Vm, what: &'static str) {
    if vm.life.stop(Cause::Failed) {
        leave(vm, "off", Cause::Failed, Some(what.to_string()));
    }
}

/// Notes, once in a VM's life, that a vCPU faults without end. Its other vCPUs may do without it, so the VM goes on.
#[cold]
pub(crate) fn is_stuck(vm: &'static Vm, vcpu: VcpuId, pc: u64) {
    let mut note = slate(vm).note.lock();
    if note.is_none() {
        let text = format!("vCPU {} faults at {pc:#x} without end", vcpu.get());
        log::warn!("{}: {text}", vm.name);
        *note = Some(text);
    }
}

/// Starts a VM anew; returns whether it was on.
pub(crate) fn system_reset(vm: &'static Vm, cause: Cause) -> bool {
    let left = vm.life.reset(cause);
    if left {
        leave(vm, "reset", cause, None);
    }
    left
}

/// Makes the vCPUs leave; the last one that does makes the manager go on.
fn leave(vm: &'static Vm, what: &str, cause: Cause, note: Option<String>) {
    log::info!("{}: {what} ({})", vm.name, cause.name());
    *slate(vm).note.lock() = note;
    tell(vm, request::STOP);
    if vm.is_left() {
        deferred::ask(slate(vm).manager);
    }
}

/// Makes every vCPU look at what the VM is doing.
fn tell(vm: &'static Vm, request: u32) {
    let mut kicks = Kicks::NONE;
    vm.request_all(request, &mut kicks);
    percpu::kick(kicks);
}

/// Hears that no vCPU of a VM is on a CPU any more.
pub(crate) fn all_left(vm: &'static Vm) {
    match vm.phase() {
        Phase::Stopping | Phase::Resetting => deferred::ask(slate(vm).manager),
        // A vCPU that is about to be started counts as on.
        Phase::Running
            if vm
                .vcpus
                .iter()
                .all(|vcpu| vcpu.power.affinity_info() == psci::AFFINITY_OFF) =>
        {
            system_off(vm, Cause::AllVcpusOff);
        }
        _ => {}
    }
}

/// Pauses a VM; its clock stands still too.
pub(crate) fn pause(slate: &'static Slate) -> bool {
    let vm = slate.vm;
    let paused = vm.life.pause(timer::now());
    if paused {
        tell(vm, request::PAUSE);
        events::push(vm, What::VmPaused);
    }
    paused
}

/// Lets a paused VM go on, as soon as all its vCPUs have come to rest.
pub(crate) fn resume(slate: &'static Slate) -> bool {
    let asked = slate.vm.life.ask_resume();
    if asked {
        deferred::ask(slate.manager);
    }
    asked
}

/// Ends a pause if somebody wants that; returns whether to try again.
fn end_pause(vm: &'static Vm) -> bool {
    let set_back = |ticks| {
        vm.counter_offset.fetch_add(ticks, Ordering::AcqRel);
    };
    match vm.life.resume(timer::now(), set_back) {
        Resume::NotAsked => false,
        Resume::Wait => true,
        Resume::Done { .. } => {
            // vCPUs notice that the pause is over when they look at their requests.
            tell(vm, request::PAUSE);
            events::push(vm, What::VmResumed);
            if vm.life.attached() == 0 {
                all_left(vm);
            }
            false
        }
    }
}

/// Does the next step of what a VM is in the middle of; returns whether there is more at once.
pub(super) fn go_on(slate: &'static Slate) -> bool {
    let vm = slate.vm;
    match vm.phase() {
        Phase::Starting => step(slate),
        Phase::Paused => end_pause(vm),
        Phase::Stopping if vm.is_left() => {
            turn_off(slate);
            false
        }
        Phase::Resetting if vm.is_left() => {
            begin_again(slate);
            true
        }
        _ => false,
    }
}

/// Ends a VM's life.
fn turn_off(slate: &'static Slate) {
    let vm = slate.vm;
    rewind(vm);
    let progress = give_up(slate, &mut slate.state.lock());
    let cause = vm.life.cause();
    // A start that follows forgets the note.
    let note = slate.note.lock().clone();
    vm.life.left();
    events::push(vm, What::VmOff(cause.name(), note));
    carry_out(slate, progress);
    park(slate);
}

/// Ends a start that has gone wrong.
pub(super) fn start_failed(slate: &'static Slate, state: &mut State, why: String) -> Progress {
    let vm = slate.vm;
    log::error!("vm {}: not started: {why}", vm.name);
    rewind(vm);
    let progress = give_up(slate, state);
    *slate.note.lock() = Some(why.clone());
    vm.life.failed();
    events::push(vm, What::VmOff(Cause::Failed.name(), Some(why)));
    progress
}

/// Gives back what a VM has, and forgets what the operator wanted of it.
fn give_up(slate: &'static Slate, state: &mut State) -> Progress {
    release(state);
    let progress = slate.resizer.lock().on_vm_off(slate.vm);
    slate
        .target
        .store(slate.config.boot_vcpus, Ordering::Release);
    progress
}

/// Begins a VM's next life in the same memory.
fn begin_again(slate: &'static Slate) {
    let vm = slate.vm;
    rewind(vm);
    release_tables(&mut slate.state.lock());
    let after = match slate.config.on_reset {
        OnReset::KeepTarget => AfterReset::KeepTarget,
        OnReset::BootSet => AfterReset::BootSet,
    };
    let progress =
        slate
            .resizer
            .lock()
            .on_reset(vm, after, events::DEFAULT_LIMITS, clock::now_ns());
    events::push(vm, What::VmReset(vm.life.cause().name()));
    vm.life.left();
    carry_out(slate, progress);
}

/// Puts every virtual device and vCPU back to how it was before a start; no vCPU is attached.
fn rewind(vm: &'static Vm) {
    for vcpu in &*vm.vcpus {
        reset_vcpu(vcpu);
    }
    vm.gic.reset();
    vm.uart.lock().reset();
    vm.rtc.lock().reset();
    vm.hotplug.lock().reset();
    vm.listening.store(false, Ordering::Release);
}

fn reset_vcpu(vcpu: &Vcpu) {
    let mut context = vcpu.context.lock();
    let _physical = vcpu.gic.lock().reset(&mut context.gic.list);
    let _dropped = vcpu.inbox.take();
    vcpu.requests.store(0, Ordering::SeqCst);
    vcpu.exits.clear();
    let reset = vcpu.power.apply(psci::Event::Reset);
    assert!(reset.is_ok(), "every power state can be reset");
}
