//! Starts and stops: what asks for them, and what is put back when a VM's last vCPU has left.

use alloc::format;
use alloc::string::{String, ToString};
use control_plane::config::OnReset;
use control_plane::console::What;
use core::sync::atomic::Ordering;
use types::ids::VcpuId;

use super::{DEFAULT_LIMITS, Host, Instance, State, Vms};
use crate::vm::resize::{AfterReset, Progress};
use crate::vm::{Cause, Kicks, Phase, Resume, Vcpu, Vm, request};

/// vCPUs that are put back in one step: about 4,000 instructions.
const REWOUND_VCPUS: usize = 4;

impl<H: Host> Vms<H> {
    /// Begins a VM's start; returns whether it was off.
    pub fn start(&self, instance: &Instance<H>) -> bool {
        let begun = instance.vm.life.start();
        if begun {
            instance.record.lock().note = None;
            let now_ns = self.host.now_ns();
            let mut resizer = instance.resizer.lock();
            resizer.on_start(now_ns);
            self.meter(instance, &resizer);
            drop(resizer);
            self.begin_without_slots(instance, now_ns);
            self.host.ask(instance.manager);
        }
        begun
    }

    /// Turns a VM off, wherever it was asked for; returns whether it was on.
    pub fn stop(&self, vm: &Vm, cause: Cause) -> bool {
        let left = vm.life.stop(cause);
        if left {
            let note = (cause == Cause::AllVcpusOff).then(|| "every vCPU is off".to_string());
            self.leave(vm, Phase::Stopping, cause, note);
        }
        left
    }

    /// Turns a VM off that did what it must not.
    pub(super) fn fail(&self, vm: &Vm, what: &'static str) {
        if vm.life.stop(Cause::Failed) {
            self.leave(vm, Phase::Stopping, Cause::Failed, Some(what.to_string()));
        }
    }

    /// Notes, once in a VM's life, that a vCPU faults without end. Its other vCPUs may do without it, so the VM goes on.
    #[cold]
    pub(super) fn note_faults(&self, vm: &Vm, vcpu: VcpuId, pc: u64) {
        let mut record = self.of(vm).record.lock();
        if record.note.is_none() {
            let text = format!("vCPU {} faults at {pc:#x} without end", vcpu.get());
            log::warn!("{}: {text}", vm.name);
            record.go_wrong(self.host.now_ns(), text);
        }
    }

    /// Starts a VM anew; returns whether it was on.
    pub fn reset(&self, vm: &Vm, cause: Cause) -> bool {
        let left = vm.life.reset(cause);
        if left {
            self.leave(vm, Phase::Resetting, cause, None);
        }
        left
    }

    /// Makes the vCPUs leave; the last one that does makes the manager go on.
    fn leave(&self, vm: &Vm, phase: Phase, cause: Cause, note: Option<String>) {
        let is_reset = phase == Phase::Resetting;
        let what = if is_reset { "reset" } else { "off" };
        log::info!("{}: {what} ({})", vm.name, cause.name());
        let now_ns = self.host.now_ns();
        let mut record = self.of(vm).record.lock();
        record.end(now_ns, is_reset, cause, note);
        drop(record);
        self.tell(vm, request::STOP);
        if vm.is_left() {
            self.host.ask(self.of(vm).manager);
        }
    }

    /// Limits what a VM's vCPUs may use of all CPUs together, in thousandths of a CPU, from now on; no limit for `None`.
    pub fn cap(&self, vm: &Vm, millicores: Option<u32>) {
        vm.cap.set(millicores, self.host.now_ticks());
        self.tell(vm, request::AGREE);
    }

    /// Says how much of a CPU each of a VM's vCPUs has beside others that want it, from now on.
    pub(super) fn weigh(&self, vm: &Vm, weight: u16) {
        vm.weight.store(weight, Ordering::Relaxed);
        self.tell(vm, request::AGREE);
    }

    /// Makes every vCPU look at what the VM is doing.
    fn tell(&self, vm: &Vm, request: u32) {
        let mut kicks = Kicks::NONE;
        vm.request_all(request, &mut kicks);
        self.host.kick(kicks);
    }

    /// Hears that no vCPU of a VM is on a CPU any more.
    pub(super) fn last_left(&self, vm: &Vm) {
        match vm.phase() {
            Phase::Stopping | Phase::Resetting => self.host.ask(self.of(vm).manager),
            // A vCPU that is about to be started counts as on.
            Phase::Running
                if vm
                    .vcpus
                    .iter()
                    .all(|vcpu| vcpu.power.affinity_info() == psci::AFFINITY_OFF) =>
            {
                self.stop(vm, Cause::AllVcpusOff);
            }
            _ => {}
        }
    }

    /// Pauses a VM; its clock stands still too.
    pub fn pause(&self, instance: &Instance<H>) -> bool {
        let vm = instance.vm;
        let paused = vm.life.pause(self.host.now_ticks());
        if paused {
            self.tell(vm, request::PAUSE);
            self.event(vm, What::VmPaused);
        }
        paused
    }

    /// Lets a paused VM go on, as soon as all its vCPUs have come to rest.
    pub fn resume(&self, instance: &Instance<H>) -> bool {
        let asked = instance.vm.life.ask_resume();
        if asked {
            self.host.ask(instance.manager);
        }
        asked
    }

    /// Ends a pause if that was asked for; returns whether to try again.
    fn end_pause(&self, vm: &Vm) -> bool {
        let set_back = |ticks| {
            vm.counter_offset.fetch_add(ticks, Ordering::AcqRel);
        };
        match vm.life.resume(self.host.now_ticks(), set_back) {
            Resume::NotAsked => false,
            Resume::Wait => true,
            Resume::Done { .. } => {
                // vCPUs notice that the pause is over when they look at their requests.
                self.tell(vm, request::PAUSE);
                self.event(vm, What::VmResumed);
                if vm.life.attached() == 0 {
                    self.last_left(vm);
                }
                // The pause may have come before all of its CPUs had heard of its start.
                vm.phase() == Phase::Running
            }
        }
    }

    /// Does the next step of what a VM is in the middle of; returns whether there is more at once.
    pub(super) fn continue_lifecycle(&self, instance: &Instance<H>) -> bool {
        let vm = instance.vm;
        match vm.phase() {
            Phase::Starting => self.step(instance),
            Phase::Paused => self.end_pause(vm),
            Phase::Running => self.wake_some(instance) || self.make_memory(instance),
            Phase::Stopping if vm.is_left() => {
                let is_back = !self.release_slots(instance) && self.put_back(instance);
                if is_back {
                    self.turn_off(instance);
                }
                !is_back
            }
            Phase::Resetting if vm.is_left() => {
                if self.put_back(instance) {
                    self.begin_again(instance);
                }
                true
            }
            _ => false,
        }
    }

    /// Does a step of putting devices, vCPUs and tables back to how they were before a start; returns whether all are. No vCPU is
    /// attached.
    ///
    /// The devices come first: from then on none of them has anything to tell a vCPU.
    fn put_back(&self, instance: &Instance<H>) -> bool {
        let vm = instance.vm;
        let mut state = instance.state.lock();
        let Some(first) = state.rewound else {
            state.rewound = Some(0);
            drop(state);
            vm.devices.reset();
            vm.gic.reset();
            return false;
        };
        if let Some(rest) = vm.vcpus.get(first..).filter(|rest| !rest.is_empty()) {
            state.rewound = Some(first + REWOUND_VCPUS);
            drop(state);
            for vcpu in rest.iter().take(REWOUND_VCPUS) {
                reset_vcpu(vcpu);
                vm.stolen_time.write(vcpu.id, 0);
            }
            return false;
        }
        let is_back = self.release_tables(&mut state);
        if is_back {
            state.rewound = None;
            state.job = None;
            state.swept = 0;
        }
        is_back
    }

    /// Ends a VM's life.
    fn turn_off(&self, instance: &Instance<H>) {
        let vm = instance.vm;
        let progress = self.give_up(instance, &mut instance.state.lock());
        let memory = instance.memory.resizer.lock().on_vm_off(vm);
        let cause = vm.life.cause();
        // A start that follows forgets the note.
        let note = instance.record.lock().note.clone();
        vm.life.left();
        self.event(vm, What::VmOff(cause.name(), note));
        self.carry_out(instance, progress);
        self.carry_out_memory(instance, memory);
        self.park(vm);
    }

    /// Does a step of ending a start that has gone wrong; returns whether there are more.
    pub(super) fn fail_start(&self, instance: &Instance<H>) -> bool {
        if self.release_slots(instance) || !self.put_back(instance) {
            return true;
        }
        let vm = instance.vm;
        let mut state = instance.state.lock();
        let why = state.failed.take().unwrap_or_default();
        log::error!("vm {}: not started: {why}", vm.name);
        let progress = self.give_up(instance, &mut state);
        drop(state);
        let memory = instance.memory.resizer.lock().on_vm_off(vm);
        let now_ns = self.host.now_ns();
        let mut record = instance.record.lock();
        record.end(now_ns, false, Cause::Failed, Some(why.clone()));
        drop(record);
        vm.life.failed();
        self.event(vm, What::VmOff(Cause::Failed.name(), Some(why)));
        self.carry_out(instance, progress);
        self.carry_out_memory(instance, memory);
        false
    }

    /// Gives back what a VM has, and forgets what the operator wanted of it.
    fn give_up(&self, instance: &Instance<H>, state: &mut State<H>) -> Progress {
        self.release_device_memory(instance.vm);
        self.release(instance.vm, state);
        state.failed = None;
        let progress = instance.resizer.lock().on_vm_off(instance.vm);
        instance
            .target
            .store(instance.config.boot_vcpus, Ordering::Release);
        progress
    }

    /// Begins a VM's next life in the same memory.
    fn begin_again(&self, instance: &Instance<H>) {
        let vm = instance.vm;
        let after = match instance.config.on_reset {
            OnReset::KeepTarget => AfterReset::KeepTarget,
            OnReset::BootSet => AfterReset::BootSet,
        };
        let progress =
            instance
                .resizer
                .lock()
                .on_reset(vm, after, DEFAULT_LIMITS, self.host.now_ns());
        self.event(vm, What::VmReset(vm.life.cause().name()));
        vm.life.left();
        self.carry_out(instance, progress);
        self.keep_memory(instance);
    }
}

/// Puts a vCPU back to how it was before a start; it is not attached.
fn reset_vcpu(vcpu: &Vcpu) {
    let mut context = vcpu.context.lock();
    let _physical = vcpu.gic.lock().reset(&mut context.gic.list);
    vcpu.inbox.clear();
    vcpu.requests.store(0, Ordering::SeqCst);
    vcpu.exits.clear();
    vcpu.usage.reset();
    let reset = vcpu.power.apply(psci::Event::Reset);
    assert!(reset.is_ok(), "every power state can be reset");
}
