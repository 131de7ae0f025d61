//! Running a guest until it leaves, and doing what its exit asks for.

use core::sync::atomic::Ordering;

use super::attach::at;
use super::{Interrupt, Machine, Manager, Pcpu, cause};
use crate::dispatch::Trap;
use crate::dispatch::inject;
use crate::dispatch::slow::{self, Next};
use crate::exit::{Syndrome, class};
use crate::features::hcr;
use crate::sched::{NEVER, Policy, Slot};
use crate::vm::Cause;
use crate::vm::context::Owner;
use types::stats::ExitReason;

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Runs the loaded vCPU and does what its exit asks for.
    #[inline]
    pub(super) fn enter(&mut self, slot: Slot) {
        let trap_wfi = self.traps_wfi();
        let attached = at(&mut self.attached, slot);
        let policy = &attached.place.vm.policy;
        let mut wanted = policy.hcr | if trap_wfi { hcr::TWI } else { 0 };
        if self.crowd.is_looked_at() {
            wanted |= policy.hcr_crowded;
        }
        if self.hcr != wanted {
            self.hcr = wanted;
            self.machine.set_hcr(wanted);
        }
        let cause = self.machine.enter(&mut attached.context.frame);
        // Another vCPU polls for the end of this one.
        if cause == cause::OFF {
            return self.power_off(slot);
        }
        match cause {
            cause::REST => self.queue.block(None, self.machine.now()),
            cause::WAIT => {
                self.interrupt();
                self.wait();
            }
            cause::SYNC => self.synchronous(slot),
            cause::IRQ => self.interrupt(),
            cause::WORK => self.work(slot),
            _ => self.system_error(slot),
        }
    }

    /// Returns whether WFI traps here: others may want the CPU while a guest sleeps, and its sleep is no work.
    #[inline]
    pub(super) fn traps_wfi(&self) -> bool {
        !self.queue.alone() || self.is_busy() || self.queue.is_limited()
    }

    #[cold]
    fn system_error(&mut self, slot: Slot) {
        let Owner { vm, vcpu } = at(&mut self.attached, slot).place;
        vcpu.exits.count(ExitReason::SError);
        log::warn!("{} {}: SError", vm.name, vcpu.id);
        self.machine.manager().system_fail(vm, "SError");
    }

    /// Does what a device has left to be done; the guest goes on where its frame says.
    #[cold]
    fn work(&mut self, slot: Slot) {
        let vm = at(&mut self.attached, slot).place.vm;
        if let Some(work) = self.local.work.take() {
            self.machine.manager().work(vm, work);
        }
    }

    /// Brings what was posted to the loaded vCPU into its list registers.
    #[inline]
    pub(super) fn deliver(&self) {
        with_trap(&self.machine, |trap| trap.deliver());
    }

    /// Returns whether the loaded vCPU has an interrupt that would wake it from WFI.
    #[inline]
    pub(super) fn has_deliverable(&self) -> bool {
        let Some(Owner { vm, vcpu }) = self.local.loaded.get() else {
            return false;
        };
        let lists = self.machine.lists();
        let interrupts = vcpu.gic.lock();
        !interrupts.is_idle(&lists)
            && interrupts.has_deliverable(&vm.gic, &lists, self.machine.cpu_interface())
    }

    /// Handles a synchronous exit that the hot path left.
    fn synchronous(&mut self, slot: Slot) {
        let exit = self.machine.exit();
        let context = &mut *at(&mut self.attached, slot).context;
        let next = with_trap(&self.machine, |trap| {
            trap.vcpu.exits.count(reason(exit.syndrome));
            slow::synchronous(trap, context, exit)
        });
        let Some(next) = next else { return };
        self.act(slot, next, exit.syndrome);
    }

    /// Does what a decision says.
    fn act(&mut self, slot: Slot, next: Next, syndrome: Syndrome) {
        let attached = at(&mut self.attached, slot);
        let vm = attached.place.vm;
        let context = &mut *attached.context;
        match next {
            Next::Resume => {}
            Next::Advance => context.frame.step_over(syndrome),
            Next::Inject(exception) => {
                if inject::is_endless(context, &exception, self.machine.elr_el1()) {
                    self.machine
                        .manager()
                        .is_stuck(vm, attached.place.vcpu.id, context.frame.pc);
                }
                self.machine.inject(&mut context.frame, exception);
            }
            Next::Block => self.wait(),
            Next::WaitForEvent { timed } => {
                context.frame.step_over(syndrome);
                self.waits_for_event(slot, timed);
            }
            Next::UseFp => self.use_fp(slot),
            Next::Lend(unit) => self.machine.lend(&vm.policy, context, unit),
            Next::LoadDebug => {
                self.machine.set_mdscr(context.system.mdscr_el1);
                context.frame.step_over(syndrome);
            }
            Next::Off => self.power_off(slot),
            Next::SystemOff => self.machine.manager().system_off(vm, Cause::Guest),
            Next::SystemReset => self.machine.manager().system_reset(vm, Cause::Guest),
            Next::CleanMemory(set_way) if !self.machine.manager().clean_memory(vm, set_way) => {}
            Next::CleanMemory(_) => context.frame.step_over(syndrome),
            Next::Vendor => self.machine.manager().vendor_call(vm, &mut context.frame),
        }
    }

    /// Puts a vCPU to sleep unless an interrupt waits for it.
    #[inline]
    fn wait(&mut self) {
        self.deliver();
        if !self.has_deliverable() {
            self.queue.block(None, self.machine.now());
        }
    }

    /// Handles an interrupt that the hot path acknowledged and left, if there is one.
    #[inline]
    pub(super) fn interrupt(&mut self) {
        if let Some(intid) = self.local.acknowledged.take() {
            self.take(intid);
        }
    }

    #[inline(never)]
    fn take(&mut self, intid: u32) {
        let interrupt = self.machine.classify(intid);
        if let Some(Owner { vcpu, .. }) = self.local.loaded.get() {
            vcpu.exits.count(match interrupt {
                Interrupt::Timer => ExitReason::HostTimer,
                _ => ExitReason::Maintenance,
            });
        }
        match interrupt {
            Interrupt::Timer => {
                self.machine.arm(NEVER);
                let due = self.local.deferred_deadline.get().min(self.deferred_ticks);
                let is_due = self.machine.now() >= due;
                self.local.deferred.fetch_or(is_due, Ordering::Release);
                if !self.events.items.is_empty() {
                    self.tell_events();
                }
            }
            Interrupt::Maintenance => drop(with_trap(&self.machine, |trap| trap.maintain())),
            Interrupt::Device => self.machine.device(intid),
        }
        self.machine.deactivate(intid);
    }
}

/// Runs a handler on the loaded vCPU's interrupts, if there is one.
#[inline]
pub(super) fn with_trap<M: Machine, R>(
    machine: &M,
    work: impl FnOnce(&mut Trap<'_, M::Lists>) -> R,
) -> Option<R> {
    let Owner { vm, vcpu } = machine.local().loaded.get()?;
    let mut lists = machine.lists();
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    let result = work(&mut trap);
    machine.kick(trap.kicks);
    machine.deactivate_all(trap.owed);
    Some(result)
}

/// Returns under which reason an exit that the hot path left is counted.
#[inline(always)]
fn reason(syndrome: Syndrome) -> ExitReason {
    match syndrome.class() {
        class::WFX if syndrome.is_wfi() => ExitReason::Wfi,
        class::WFX => ExitReason::Wfe,
        class::FP => ExitReason::Fp,
        class::HVC64 | class::SMC64 => ExitReason::Psci,
        class::SYSTEM => ExitReason::SystemRegister,
        class::DATA_ABORT | class::INSTRUCTION_ABORT => ExitReason::Abort,
        _ => ExitReason::Undefined,
    }
}
