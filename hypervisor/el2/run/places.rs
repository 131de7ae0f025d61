//! Whose home a CPU is, and whose registers it owns: taken over when a vCPU is first turned on, given back when its VM ends or it
//! moves to another CPU.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::mutex::{SpinMutex, SpinMutexGuard};
use vmm::ids::PcpuId;
use vmm::sched::Slot;
use vmm::vm::kicks::MAX_PCPUS;
use vmm::vm::vcpu::request;
use vmm::vm::{Home, Phase, VcpuContext, Vm};

use super::Runner;
use crate::percpu::Loaded;
use crate::{clock, timer, vms};

/// The vCPUs that have their place on each CPU, or shall have it, by slot.
pub(super) static PLACES: [SpinMutex<Vec<Option<Loaded>>>; MAX_PCPUS] =
    [const { SpinMutex::new(Vec::new()) }; MAX_PCPUS];

/// How many of all these places somebody has left: while there is none, nobody looks for one.
static VACATED: AtomicUsize = AtomicUsize::new(0);

/// Keeps a place on a CPU for a vCPU; there are 512.
pub(crate) fn take_place(place: Loaded, pcpu: PcpuId) -> Option<Home> {
    let mut places = PLACES[pcpu.index()].lock();
    let mut free = None;
    if VACATED.load(Ordering::Relaxed) != 0 {
        free = places.iter().position(Option::is_none);
    }
    let slot = Slot::new(free.unwrap_or(places.len()))?;
    match free {
        Some(_) => _ = VACATED.fetch_sub(1, Ordering::Relaxed),
        None => places.push(None),
    }
    places[slot.index()] = Some(place);
    Some(Home::new(pcpu, slot))
}

/// Lets others have a place.
pub(crate) fn free_place(home: Home) {
    PLACES[home.pcpu().index()].lock()[home.slot().index()] = None;
    VACATED.fetch_add(1, Ordering::Relaxed);
}

/// A vCPU whose registers this CPU owns.
pub(super) struct Attached {
    pub(super) place: Loaded,
    pub(super) context: SpinMutexGuard<'static, VcpuContext>,
}

/// Returns the vCPU in a slot that is on this CPU's queue, or was just taken over.
#[inline]
pub(super) fn at(attached: &mut [Option<Attached>], slot: Slot) -> &mut Attached {
    let place = attached.get_mut(slot.index()).and_then(Option::as_mut);
    place.expect("who is on the queue is attached")
}

impl Runner {
    /// Takes over a vCPU's registers; returns whether its VM wants that.
    pub(super) fn attach(&mut self, slot: Slot) -> bool {
        let pcpu = self.cpu.id;
        let place = PLACES[pcpu.index()].lock().get(slot.index()).copied();
        let Some(place) = place.flatten() else {
            return false;
        };
        let Loaded { vm, vcpu } = place;
        // A place may be kept for one that is not here yet.
        if vcpu.at.home() != Home::new(pcpu, slot) {
            return false;
        }
        // One that was on elsewhere is taken in any case: its VM waits for it.
        let arrives = vcpu.requested() & request::ARRIVE != 0;
        if !arrives && self.give_up(place, slot) {
            return false;
        }
        if !vm.own() && !arrives {
            self.disown(vm);
            return false;
        }
        let context = vcpu.context.try_lock();
        let mut context = context.expect("registers have one owner");
        context.frame.owner = Some(place);
        if self.attached.len() <= slot.index() {
            self.attached.resize_with(slot.index() + 1, || None);
        }
        self.queue.reserve(slot);
        self.attached[slot.index()] = Some(Attached { place, context });
        true
    }

    /// Gives the registers of a vCPU that is off its queue back to its VM.
    pub(super) fn let_go(&mut self, slot: Slot) {
        let Some(attached) = self.attached[slot.index()].take() else {
            return;
        };
        self.resident = None;
        self.world = None;
        let vm = attached.place.vm;
        drop(attached);
        self.disown(vm);
    }

    fn disown(&self, vm: &'static Vm) {
        if vm.disown() {
            vms::all_left(vm);
        }
    }

    /// Does what others ask of the CPU that runs a vCPU: a request says to look, the VM's phase what to do.
    #[cold]
    pub(super) fn obey(&mut self, slot: Slot) {
        let attached = at(&mut self.attached, slot);
        let Loaded { vm, vcpu } = attached.place;
        // Taken before the phase is read: whoever changes the phase later asks again.
        vcpu.requests.swap(0, Ordering::SeqCst);
        let phase = vm.phase();
        if phase != Phase::Paused && core::mem::take(&mut attached.context.halted) {
            vm.life.unhalt();
        }
        match phase {
            Phase::Stopping | Phase::Resetting => {
                self.put_away(slot);
                let now = timer::now();
                // What it began of a slice is over; a VM that ends itself early gains nothing by that.
                self.forget_fp(slot);
                if let Some(account) = self.queue.detach(slot, now) {
                    let slice = clock::duration_ticks(super::SLICE_NS);
                    let (ran, wanting) = (account.run_ticks.min(slice), self.queue.wanting());
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
                let now = timer::now();
                self.queue.block(None, now);
                if moved {
                    vm.life.halt(now);
                }
            }
            _ => {}
        }
        // While it stood still or was off, its VM's time may have changed.
        self.world = None;
        self.give_up(Loaded { vm, vcpu }, slot);
    }

    /// Lets a vCPU go to the CPU where it is wanted, if it is: with its registers and what it was doing, if it is on. Tells that CPU.
    pub(super) fn give_up(&mut self, place: Loaded, slot: Slot) -> bool {
        let Loaded { vm, vcpu } = place;
        if !vcpu.at.is_wanted() {
            return false;
        }
        if let Some(Some(_)) = self.attached.get(slot.index()) {
            self.tell_news();
            self.put_away(slot);
            self.save_fp(slot);
            if self.drop_vcpu(slot, timer::now()) {
                vcpu.requests.fetch_or(request::ARRIVE, Ordering::SeqCst);
            }
            self.let_go(slot);
        }
        // If the wish was taken back just now, it is this CPU that is told.
        if let Some(from) = vcpu.at.leave() {
            free_place(from);
        }
        vms::call(vm, vcpu);
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
