//! Which vCPU's registers this CPU holds: loading and unloading them, the FP unit's owner, and exceptions given to the guest.

use core::sync::atomic::Ordering;
use vgic::SavedListRegisters;
use vgic::v3::Redistributor;
use vmm::config::MAX_VMS;
use vmm::dispatch::inject::{self, Exception};
use vmm::sched::Slot;
use vmm::vm::context::FpRegisters;
use vmm::vm::{Kicks, VcpuContext, Vm};

use super::Runner;
use super::places::at;
use crate::gic::{self, HardwareListRegisters};
use crate::percpu::{self, Loaded, Percpu};
use crate::sysreg::{isb, read_register, write_register};
use crate::{fpsimd, lent, switch, timer, tlb};

impl Runner {
    /// Loads a vCPU's registers.
    #[inline(always)]
    pub(super) fn load(&mut self, slot: Slot) {
        self.resident = None;
        let attached = at(&mut self.attached, slot);
        let place = attached.place;
        let Loaded { vm, vcpu } = place;
        let context = &mut *attached.context;
        let policy = &vm.policy;
        let is_same_vm = self.world.is_some_and(|world| core::ptr::eq(world, vm));
        if !is_same_vm {
            self.world = Some(vm);
            load_vm(vm);
            if let Some(Loaded { vm, vcpu }) = self.guest {
                self.last[vm.id.index() % MAX_VMS] = vcpu.id;
            }
        }
        self.guest = Some(place);
        // What the TLB has of a VM here is its last vCPU's.
        if is_same_vm || self.last[vm.id.index() % MAX_VMS] != vcpu.id {
            tlb::forget_sibling();
        }
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
        if core::mem::take(&mut context.gic.kept) {
            restore_interrupts(self.cpu, &vcpu.gic.lock(), &context.gic.list);
        }
        timer::load(&context.timers);
        self.set_fp_trap(if self.fp_owner == Some(slot) {
            policy.cptr
        } else {
            policy.cptr_fp_trapped
        });
        self.cpu.loaded.set(Some(place));
        self.loaded = Some(slot);
        vcpu.at.loaded.store(true, Ordering::SeqCst);
    }

    /// Saves the loaded vCPU's registers, if there is one.
    #[inline]
    pub(super) fn unload(&mut self) {
        let Some(slot) = self.loaded.take() else {
            return;
        };
        self.cpu.loaded.set(None);
        let attached = at(&mut self.attached, slot);
        let Loaded { vm, vcpu } = attached.place;
        let context = &mut *attached.context;
        timer::save(&mut context.timers);
        switch::save(&mut context.system, vm.policy.pointer_authentication);
        if !context.lent.is_none() {
            lent::save(&vm.policy, context);
        }
        gic::save_guest(&mut context.gic);
        let deadline = timer::next_deadline(&context.timers, &vm.counter_offset);
        let quiet = vcpu.gic.lock().unload_quiet(&HardwareListRegisters);
        if !quiet {
            self.save_interrupts(slot);
        }
        vcpu.at.loaded.store(false, Ordering::SeqCst);
        let account = self.queue.set_deadline(slot, deadline);
        vcpu.ran_ticks.store(account.run_ticks, Ordering::Relaxed);
        vcpu.stolen_ticks
            .store(account.steal_ticks, Ordering::Relaxed);
        // Whoever posted before that only sent an interrupt.
        if !vcpu.inbox.is_empty() {
            self.queue.wake(slot, timer::now());
        }
    }

    /// Saves the loaded vCPU's list registers and lets go of the physical interrupts behind them.
    #[cold]
    pub(super) fn save_interrupts(&mut self, slot: Slot) {
        let attached = at(&mut self.attached, slot);
        let Loaded { vm, vcpu } = attached.place;
        let mut lists = HardwareListRegisters;
        let mut kicks = Kicks::NONE;
        let mut redistributor = vcpu.gic.lock();
        let mut linked = redistributor.linked(&lists);
        attached.context.gic.kept = true;
        let saved = &mut attached.context.gic.list;
        let owed = redistributor.save(&vm.gic, &mut lists, saved, &mut vm.poster(&mut kicks));
        drop(redistributor);
        linked |= owed.0;
        // A timer that was silenced is silent only now: its line must be low before its interrupt is made inactive, or it is pending
        // again for the next vCPU here.
        isb();
        while linked != 0 {
            self.cpu.redistributor.clear_active(linked.trailing_zeros());
            linked &= linked - 1;
        }
        percpu::kick(kicks);
    }

    /// Decides whether the loaded vCPU's FP instructions trap.
    #[inline]
    pub(super) fn set_fp_trap(&mut self, cptr: u64) {
        if self.cptr != cptr {
            self.cptr = cptr;
            fpsimd::set_trap(cptr);
        }
    }

    /// Saves the FP registers of a vCPU that leaves this CPU, if they are in the unit.
    pub(super) fn save_fp(&mut self, slot: Slot) {
        if self.fp_owner == Some(slot) {
            self.fp_owner = None;
            let policy = &at(&mut self.attached, slot).place.vm.policy;
            self.set_fp_trap(policy.cptr);
            fpsimd::save(&mut at(&mut self.attached, slot).context.fp);
            self.set_fp_trap(policy.cptr_fp_trapped);
        }
    }

    /// Gives the FP unit to the loaded vCPU.
    pub(super) fn use_fp(&mut self, slot: Slot) {
        if let Some(owner) = self.fp_owner.filter(|owner| *owner != slot) {
            self.save_fp(owner);
        }
        self.fp_owner = Some(slot);
        let policy = &at(&mut self.attached, slot).place.vm.policy;
        self.set_fp_trap(policy.cptr);
        let context = &mut *at(&mut self.attached, slot).context;
        if core::mem::take(&mut context.fresh_fp) {
            context.fp = FpRegisters::default();
        }
        fpsimd::load(&context.fp);
    }
}

/// Loads what the vCPUs of a VM have in common: its tables, its traps, its time.
#[inline(never)]
fn load_vm(vm: &Vm) {
    write_register!("vtcr_el2", vm.vtcr.load(Ordering::Acquire));
    write_register!("vttbr_el2", vm.vttbr.load(Ordering::Acquire));
    write_register!("mdcr_el2", vm.policy.mdcr);
    write_register!("cntvoff_el2", vm.counter_offset.load(Ordering::Acquire));
    isb();
}

/// Loads a vCPU's list registers and takes the physical interrupts behind them.
#[cold]
fn restore_interrupts(cpu: &Percpu, redistributor: &Redistributor, saved: &SavedListRegisters) {
    let mut lists = HardwareListRegisters;
    redistributor.restore(&mut lists, saved);
    let mut linked = redistributor.linked(&lists);
    while linked != 0 {
        cpu.redistributor.set_active(linked.trailing_zeros());
        linked &= linked - 1;
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
