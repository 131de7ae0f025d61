//! Taking a vCPU's registers over when it is first turned on, and letting go of them when its VM ends or it moves to another CPU.

use core::sync::atomic::Ordering;
use spin::mutex::SpinMutexGuard;

use super::{Machine, Manager, Pcpu, SLICE_NS};
use crate::sched::{Policy, Slot};
use crate::vm::context::Owner;
use crate::vm::{Phase, Placement, VcpuContext, request};

/// A vCPU whose registers this CPU owns.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) place: Owner,
    pub(super) context: SpinMutexGuard<'static, VcpuContext>,
}

/// Returns the vCPU in a slot that is on this CPU's queue, or was just taken over.
#[inline]
pub(super) fn at(attached: &mut [Option<Attached>], slot: Slot) -> &mut Attached {
    let place = attached.get_mut(slot.index()).and_then(Option::as_mut);
    place.expect("a vCPU on the queue is attached")
}

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Takes over a vCPU's registers; returns whether its VM wants that.
    pub(super) fn attach(&mut self, slot: Slot) -> bool {
        let pcpu = self.local.id;
        let Some(place) = self.placements.get(pcpu, slot) else {
            return false;
        };
        let Owner { vm, vcpu } = place;
        // A slot may be kept for one that is not here yet.
        if vcpu.at.placement() != Placement::new(pcpu, slot) {
            return false;
        }
        // One that was on elsewhere is taken in any case: its VM waits for it.
        let arrives = vcpu.requested() & request::ARRIVE != 0;
        if !arrives && self.migrate_out(place, slot) {
            return false;
        }
        if !vm.own(vcpu) && !arrives {
            self.disown(place);
            return false;
        }
        let context = vcpu.context.try_lock();
        let mut context = context.expect("registers have one owner");
        context.frame.owner = Some(place);
        if self.attached.len() <= slot.index() {
            self.attached.resize_with(slot.index() + 1, || None);
        }
        let [account, begun] = vcpu.usage.take_over();
        self.queue.reserve(slot, account, begun);
        self.queue.agree(slot, vm.terms(), self.machine.now());
        self.crowd.reserve(slot);
        self.attached[slot.index()] = Some(Attached { place, context });
        true
    }

    /// Gives the registers of a vCPU that is off its queue back to its VM.
    pub(super) fn let_go(&mut self, slot: Slot) {
        self.publish_account(slot);
        let Some(attached) = self.attached[slot.index()].take() else {
            return;
        };
        self.resident = None;
        self.world = None;
        let place = attached.place;
        place.vcpu.at.loaded.store(false, Ordering::SeqCst);
        drop(attached);
        self.disown(place);
    }

    fn disown(&self, Owner { vm, vcpu }: Owner) {
        if vm.disown(vcpu) {
            self.machine.manager().all_left(vm);
        }
    }

    /// Does what others ask of the CPU that runs a vCPU: a request says to look, the VM's phase what to do.
    #[cold]
    pub(super) fn handle_requests(&mut self, slot: Slot) {
        let attached = at(&mut self.attached, slot);
        let Owner { vm, vcpu } = attached.place;
        // Taken before the phase is read: a CPU that changes the phase later asks again.
        vcpu.requests.swap(0, Ordering::SeqCst);
        self.queue.agree(slot, vm.terms(), self.machine.now());
        let phase = vm.phase();
        if phase != Phase::Paused && core::mem::take(&mut attached.context.halted) {
            vm.life.unhalt();
        }
        match phase {
            Phase::Stopping | Phase::Resetting => {
                self.put_away(slot);
                let now = self.machine.now();
                // What it began of a slice is over; a VM that ends itself early gains nothing by that.
                self.forget_fp(slot);
                if let Some(account) = self.queue.detach(slot, now) {
                    let slice = self.machine.ticks(SLICE_NS);
                    vcpu.usage.publish(account);
                    let (ran, wanting) = (vcpu.usage.ran_ticks().min(slice), self.queue.wanting());
                    self.deferred.charge_turn(ran, wanting, now, slice);
                }
                let _last = vm.life.detach();
                self.let_go(slot);
            }
            Phase::Paused => {
                // Stays asked, so that an interrupt that wakes it does not let it into the guest.
                vcpu.requests.fetch_or(request::PAUSE, Ordering::SeqCst);
                let moved = !core::mem::replace(&mut attached.context.halted, true);
                self.put_away(slot);
                let now = self.machine.now();
                self.queue.block(None, now);
                if moved {
                    vm.life.halt(now);
                }
            }
            _ => {}
        }
        // While it stood still or was off, its VM's time may have changed.
        self.world = None;
        self.migrate_out(Owner { vm, vcpu }, slot);
    }

    /// Lets a vCPU migrate to the CPU where it is wanted, if it is: with its registers and what it was doing, if it is on. Tells that
    /// CPU.
    pub(super) fn migrate_out(&mut self, place: Owner, slot: Slot) -> bool {
        let Owner { vm, vcpu } = place;
        if !vcpu.at.is_pending() {
            return false;
        }
        if let Some(Some(_)) = self.attached.get(slot.index()) {
            self.tell_events();
            self.put_away(slot);
            self.save_fp(slot);
            if self.drop_vcpu(slot, self.machine.now()) {
                vcpu.requests.fetch_or(request::ARRIVE, Ordering::SeqCst);
            }
            self.let_go(slot);
        }
        // If the migration was called off just now, it is this CPU that is told.
        if let Some(from) = vcpu.at.leave() {
            self.placements.free(from);
        }
        self.machine.manager().call(vm, vcpu);
        true
    }

    /// Takes a vCPU's registers out of the hardware.
    fn put_away(&mut self, slot: Slot) {
        if self.loaded == Some(slot) {
            self.unload();
        }
    }

    /// Takes a vCPU that is not loaded off the queue.
    #[inline]
    pub(super) fn drop_vcpu(&mut self, slot: Slot, now: u64) -> bool {
        self.forget_fp(slot);
        self.queue.detach(slot, now).is_some()
    }

    /// Forgets the FP registers of a vCPU that leaves this CPU, if they are in the unit.
    #[inline]
    fn forget_fp(&mut self, slot: Slot) {
        if self.fp_owner == Some(slot) {
            self.fp_owner = None;
        }
    }
}
