//! Which vCPU's registers this CPU holds: loading and unloading them, the FP unit's owner, and exceptions given to the guest.

use core::sync::atomic::Ordering;
use vmm::dispatch::inject::{self, Exception};
use vmm::features::hcr;
use vmm::sched::Slot;
use vmm::vm::context::FpRegisters;
use vmm::vm::{Kicks, VcpuContext};

use super::Runner;
use crate::gic::{self, HardwareListRegisters};
use crate::percpu::{self, Loaded};
use crate::sysreg::{isb, read_register, write_register};
use crate::{fpsimd, lent, switch, timer};

impl Runner {
    /// Loads a vCPU's registers.
    pub(super) fn load(&mut self, slot: Slot) {
        self.resident = None;
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        let context = &mut *attached.context;
        let policy = &vm.policy;
        self.hcr = policy.hcr | if self.queue.alone() { 0 } else { hcr::TWI };
        switch::load_vm(
            policy,
            self.hcr,
            vm.vttbr.load(Ordering::Acquire),
            vm.vtcr.load(Ordering::Acquire),
        );
        write_register!("vmpidr_el2", vcpu.mpidr());
        if core::mem::take(&mut context.fresh) {
            switch::load_reset(policy.pointer_authentication);
        } else {
            switch::load(&context.system, policy.pointer_authentication);
        }
        if !context.lent.is_none() {
            lent::load(policy, context, context.lent);
        }
        gic::load_guest(&context.gic);
        let mut lists = HardwareListRegisters;
        let redistributor = vcpu.gic.lock();
        redistributor.restore(&mut lists, &context.gic.list);
        let mut linked = redistributor.linked(&lists);
        drop(redistributor);
        while linked != 0 {
            self.cpu.redistributor.set_active(linked.trailing_zeros());
            linked &= linked - 1;
        }
        timer::load(&context.timers, vm.counter_offset.load(Ordering::Acquire));
        fpsimd::set_trap(if self.fp_owner == Some(slot) {
            policy.cptr
        } else {
            policy.cptr_fp_trapped
        });
        self.cpu.loaded.set(Some(attached.place));
        self.loaded = Some(slot);
        vcpu.loaded.store(true, Ordering::SeqCst);
        isb();
    }

    /// Saves the loaded vCPU's registers, if there is one.
    pub(super) fn unload(&mut self) {
        let Some(slot) = self.loaded.take() else {
            return;
        };
        self.cpu.loaded.set(None);
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        let context = &mut *attached.context;
        timer::save(&mut context.timers);
        switch::save(&mut context.system, vm.policy.pointer_authentication);
        if !context.lent.is_none() {
            lent::save(&vm.policy, context);
        }
        gic::save_guest(&mut context.gic);
        let timers = context.timers;
        self.save_interrupts(slot);
        vcpu.loaded.store(false, Ordering::SeqCst);
        if let Some(account) = self.queue.account(slot, timer::now()) {
            vcpu.ran_ticks.store(account.run_ticks, Ordering::Relaxed);
            vcpu.stolen_ticks
                .store(account.steal_ticks, Ordering::Relaxed);
        }
        let deadline = timer::next_deadline(&timers, vm.counter_offset.load(Ordering::Acquire));
        self.queue.set_deadline(slot, deadline);
        // Whoever posted before `loaded` was cleared only sent an interrupt.
        if !vcpu.inbox.is_empty() {
            self.queue.wake(slot, timer::now());
        }
    }

    /// Saves the loaded vCPU's list registers and lets go of the physical interrupts behind them.
    pub(super) fn save_interrupts(&mut self, slot: Slot) {
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        let mut lists = HardwareListRegisters;
        let mut kicks = Kicks::NONE;
        let mut redistributor = vcpu.gic.lock();
        let mut linked = redistributor.linked(&lists);
        let saved = &mut attached.context.gic.list;
        let owed = redistributor.save(&vm.gic, &mut lists, saved, &mut vm.poster(&mut kicks));
        drop(redistributor);
        linked |= owed.0;
        while linked != 0 {
            self.cpu.redistributor.clear_active(linked.trailing_zeros());
            linked &= linked - 1;
        }
        percpu::kick(kicks);
    }

    /// Gives the FP unit to the loaded vCPU.
    pub(super) fn use_fp(&mut self, slot: Slot) {
        let Some(place) = self.attached[slot.index()]
            .as_ref()
            .map(|attached| attached.place)
        else {
            return;
        };
        fpsimd::set_trap(place.vm.policy.cptr);
        if let Some(owner) = self.fp_owner.replace(slot)
            && owner != slot
            && let Some(owner) = &mut self.attached[owner.index()]
        {
            fpsimd::save(&mut owner.context.fp);
        }
        if let Some(attached) = &mut self.attached[slot.index()] {
            let context = &mut *attached.context;
            if core::mem::take(&mut context.fresh_fp) {
                context.fp = FpRegisters::default();
            }
            fpsimd::load(&context.fp);
        }
    }
}

/// Makes the loaded vCPU take an exception at EL1.
pub(super) fn inject_exception(context: &mut VcpuContext, exception: Exception) {
    let frame = &mut context.frame;
    write_register!("elr_el1", frame.pc);
    write_register!("spsr_el1", frame.pstate);
    write_register!("esr_el1", exception.esr);
    if let Some(far) = exception.far {
        write_register!("far_el1", far);
    }
    let entry = inject::enter_el1(
        frame.pstate,
        read_register!("vbar_el1"),
        read_register!("sctlr_el1"),
    );
    frame.pc = entry.pc;
    frame.pstate = entry.pstate;
}
