//! Running a guest until it leaves, and doing what its exit asks for.

use core::sync::atomic::Ordering;
use vmm::dispatch::Trap;
use vmm::dispatch::inject;
use vmm::dispatch::slow::{self, Exit, Next};
use vmm::exit::{Syndrome, class, fault_address};
use vmm::features::hcr;
use vmm::sched::Slot;
use vmm::stats::ExitReason;
use vmm::vm::Cause;

use super::places::at;
use super::{Runner, world};
use crate::gic::{self, HardwareListRegisters};
use crate::percpu::{self, Loaded, Percpu};
use crate::sysreg::{read_register, write_register};
use crate::vectors::{self, cause};
use crate::{hot, lent, switch, timer, vms};

impl Runner {
    /// Runs the loaded vCPU and does what its exit asks for.
    #[inline]
    pub(super) fn enter(&mut self, slot: Slot) {
        let trap_wfi = !self.queue.alone() || self.is_busy();
        let attached = at(&mut self.attached, slot);
        let wanted = attached.place.vm.policy.hcr | if trap_wfi { hcr::TWI } else { 0 };
        if self.hcr != wanted {
            self.hcr = wanted;
            switch::set_hcr(wanted);
        }
        let cause = vectors::enter(&mut attached.context.frame);
        // Somebody polls for the end of this one.
        if cause == cause::OFF {
            return self.power_off(slot);
        }
        match cause {
            cause::REST => self.queue.block(None, timer::now()),
            cause::WAIT => {
                self.interrupt();
                self.wait();
            }
            cause::SYNC => self.synchronous(slot),
            cause::IRQ => self.interrupt(),
            _ => self.system_error(slot),
        }
    }

    #[cold]
    fn system_error(&mut self, slot: Slot) {
        let Loaded { vm, vcpu } = at(&mut self.attached, slot).place;
        vcpu.exits.count(ExitReason::SError);
        log::warn!("{} {}: SError", vm.name, vcpu.id);
        vms::system_fail(vm, "SError");
    }

    /// Brings what was posted to the loaded vCPU into its list registers.
    #[inline]
    pub(super) fn deliver(&self) {
        with_trap(self.cpu, |trap| trap.deliver());
    }

    /// Returns whether the loaded vCPU has an interrupt that would wake it from WFI.
    #[inline]
    pub(super) fn has_deliverable(&self) -> bool {
        let Some(Loaded { vm, vcpu }) = self.cpu.loaded.get() else {
            return false;
        };
        let lists = HardwareListRegisters;
        let redistributor = vcpu.gic.lock();
        !redistributor.is_idle(&lists)
            && redistributor.has_deliverable(&vm.gic, &lists, gic::control())
    }

    /// Handles a synchronous exit that the hot path left.
    fn synchronous(&mut self, slot: Slot) {
        let far = read_register!("far_el2");
        let exit = Exit {
            syndrome: Syndrome::new(read_register!("esr_el2")),
            far,
            address: fault_address(read_register!("hpfar_el2"), far),
        };
        let context = &mut *at(&mut self.attached, slot).context;
        let next = with_trap(self.cpu, |trap| {
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
                if inject::is_endless(context, &exception, read_register!("elr_el1")) {
                    vms::is_stuck(vm, attached.place.vcpu.id, context.frame.pc);
                }
                world::inject_exception(context, exception);
            }
            Next::Block => self.wait(),
            Next::UseFp => self.use_fp(slot),
            Next::Lend(unit) => lent::lend(&vm.policy, context, unit),
            Next::LoadDebug => {
                write_register!("mdscr_el1", context.system.mdscr_el1);
                context.frame.step_over(syndrome);
            }
            Next::Off => self.power_off(slot),
            Next::SystemOff => {
                vms::system_off(vm, Cause::Guest);
            }
            Next::SystemReset => {
                vms::system_reset(vm, Cause::Guest);
            }
            Next::Hotplug { offset, value } => {
                let big = is_big_endian(context.frame.pstate);
                let value = if big { value.swap_bytes() } else { value };
                context.frame.step_over(syndrome);
                vms::hotplug_write(vm, offset, value);
            }
            Next::CleanMemory(set_way) if !vms::clean_memory(vm, set_way) => {}
            Next::CleanMemory(_) => context.frame.step_over(syndrome),
            Next::Listen => vms::listening(vm),
            Next::Vendor => vms::vendor_call(vm, &mut context.frame),
        }
    }

    /// Puts a vCPU to sleep unless an interrupt waits for it.
    #[inline]
    fn wait(&mut self) {
        self.deliver();
        if !self.has_deliverable() {
            self.queue.block(None, timer::now());
        }
    }

    /// Handles an interrupt that the hot path acknowledged and left, if there is one.
    #[inline]
    pub(super) fn interrupt(&mut self) {
        if let Some(intid) = self.cpu.acknowledged.take() {
            self.take(intid);
        }
    }

    #[inline(never)]
    fn take(&mut self, intid: u32) {
        gic::drop_priority(intid);
        if let Some(Loaded { vcpu, .. }) = self.cpu.loaded.get() {
            vcpu.exits.count(match intid {
                timer::HYPERVISOR_PPI => ExitReason::HostTimer,
                _ => ExitReason::Maintenance,
            });
        }
        match intid {
            timer::HYPERVISOR_PPI => {
                self.cpu.arm(timer::NEVER);
                let due = self.cpu.chore_deadline.get().min(self.chore_ticks);
                let is_due = timer::now() >= due;
                self.cpu.chores.fetch_or(is_due, Ordering::Release);
                if !self.news.items.is_empty() {
                    self.tell_news();
                }
            }
            gic::MAINTENANCE_PPI => drop(with_trap(self.cpu, |trap| trap.maintain())),
            _ => crate::console::interrupt(intid),
        }
        gic::deactivate(intid);
    }
}

/// Runs a handler on the loaded vCPU's interrupts, if there is one.
#[inline]
pub(super) fn with_trap<R>(
    cpu: &Percpu,
    work: impl FnOnce(&mut Trap<'_, HardwareListRegisters>) -> R,
) -> Option<R> {
    let Loaded { vm, vcpu } = cpu.loaded.get()?;
    let mut lists = HardwareListRegisters;
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    let result = work(&mut trap);
    percpu::kick(trap.kicks);
    hot::deactivate(trap.owed);
    Some(result)
}

/// Returns whether the loaded vCPU's instruction, trapped from this PSTATE, accesses data in big-endian order.
pub(crate) fn is_big_endian(pstate: u64) -> bool {
    vmm::exit::is_big_endian(pstate, read_register!("sctlr_el1"))
}

/// Returns under which reason an exit that the hot path left is counted.
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
