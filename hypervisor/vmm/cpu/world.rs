//! Which vCPU's registers this CPU holds: loading and unloading them, and the FP unit's owner.

use core::sync::atomic::Ordering;
use vgic::{SavedListRegisters, VcpuInterrupts};

use super::attach::at;
use super::{Machine, Pcpu};
use crate::sched::{Policy, Slot};
use crate::vm::Kicks;
use crate::vm::context::{FpRegisters, Owner};
use types::ids::MAX_VMS;

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Loads a vCPU's registers.
    #[inline(always)]
    pub(super) fn load(&mut self, slot: Slot) {
        self.resident = None;
        let attached = at(&mut self.attached, slot);
        let place = attached.place;
        let Owner { vm, vcpu } = place;
        let context = &mut *attached.context;
        let policy = &vm.policy;
        let is_same_vm = self.world.is_some_and(|world| core::ptr::eq(world, vm));
        if !is_same_vm {
            self.world = Some(vm);
            self.machine.load_vm(vm);
            if let Some(Owner { vm, vcpu }) = self.guest {
                self.last[vm.id.index() % MAX_VMS] = vcpu.id;
            }
        }
        self.guest = Some(place);
        // What the TLB has of a VM here is its last vCPU's.
        if is_same_vm || self.last[vm.id.index() % MAX_VMS] != vcpu.id {
            self.machine.forget_sibling();
        }
        self.machine.load_vcpu(vcpu, policy, context);
        if core::mem::take(&mut context.gic.kept) {
            restore_interrupts(&self.machine, &vcpu.gic.lock(), &context.gic.list);
        }
        self.machine.load_timers(&context.timers);
        self.set_fp_trap(if self.fp_owner == Some(slot) {
            policy.cptr
        } else {
            policy.cptr_fp_trapped
        });
        if vcpu.usage.is_guest_told() {
            self.tell_stolen(place, slot);
        }
        self.local.loaded.set(Some(place));
        self.loaded = Some(slot);
        vcpu.at.loaded.store(true, Ordering::SeqCst);
    }

    /// Brings up to date what a guest reads of the time that was stolen from a vCPU, as it gets the CPU.
    #[inline(never)]
    fn tell_stolen(&self, Owner { vm, vcpu }: Owner, slot: Slot) {
        vcpu.usage.steal(self.queue.stolen_ticks(slot));
        vm.stolen_time.write(vcpu.id, vcpu.usage.all_stolen_ticks());
    }

    /// Saves the loaded vCPU's registers, if there is one.
    #[inline]
    pub(super) fn unload(&mut self) {
        let Some(slot) = self.loaded.take() else {
            return;
        };
        self.local.loaded.set(None);
        let attached = at(&mut self.attached, slot);
        let Owner { vm, vcpu } = attached.place;
        let context = &mut *attached.context;
        self.machine.save_timers(&mut context.timers);
        self.machine.save_vcpu(&vm.policy, context);
        let offset = vm.counter_offset.load(Ordering::Relaxed);
        let deadline = context.timers.next_deadline(offset);
        let quiet = vcpu.gic.lock().unload_quiet(&self.machine.lists());
        if !quiet {
            self.save_interrupts(slot);
        }
        vcpu.at.loaded.displace(Ordering::SeqCst);
        let account = self.queue.set_deadline(slot, deadline);
        vcpu.usage.publish(account);
        // A CPU that posted before that only sent an interrupt.
        if !vcpu.inbox.is_empty() {
            self.queue.wake(slot, self.machine.now());
        }
    }

    /// Saves the loaded vCPU's list registers and lets go of the physical interrupts behind them.
    #[cold]
    pub(super) fn save_interrupts(&mut self, slot: Slot) {
        let attached = at(&mut self.attached, slot);
        let Owner { vm, vcpu } = attached.place;
        let mut lists = self.machine.lists();
        let mut kicks = Kicks::NONE;
        let mut interrupts = vcpu.gic.lock();
        let mut linked = interrupts.linked(&lists);
        attached.context.gic.kept = true;
        let saved = &mut attached.context.gic.list;
        let owed = interrupts.save(&vm.gic, &mut lists, saved, &mut vm.poster(&mut kicks));
        drop(interrupts);
        linked |= owed.0;
        // A timer that was silenced is silent only now: its line must be low before its interrupt is made inactive, or it is pending
        // again for the next vCPU here.
        self.machine.synchronize();
        while linked != 0 {
            self.machine.clear_active(linked.trailing_zeros());
            linked &= linked - 1;
        }
        self.machine.kick(kicks);
    }

    /// Decides whether the loaded vCPU's FP instructions trap.
    #[inline]
    pub(super) fn set_fp_trap(&mut self, cptr: u64) {
        if self.cptr != cptr {
            self.cptr = cptr;
            self.machine.set_cptr(cptr);
        }
    }

    /// Saves the FP registers of a vCPU that leaves this CPU, if they are in the unit.
    pub(super) fn save_fp(&mut self, slot: Slot) {
        if self.fp_owner == Some(slot) {
            self.fp_owner = None;
            let policy = &at(&mut self.attached, slot).place.vm.policy;
            self.set_fp_trap(policy.cptr);
            self.machine
                .save_fp(&mut at(&mut self.attached, slot).context.fp);
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
        self.machine.load_fp(&context.fp);
    }
}

/// Loads a vCPU's list registers and takes the physical interrupts behind them.
#[cold]
fn restore_interrupts<M: Machine>(
    machine: &M,
    interrupts: &VcpuInterrupts,
    saved: &SavedListRegisters,
) {
    let mut lists = machine.lists();
    interrupts.restore(&mut lists, saved);
    let mut linked = interrupts.linked(&lists);
    while linked != 0 {
        machine.set_active(linked.trailing_zeros());
        linked &= linked - 1;
    }
}
