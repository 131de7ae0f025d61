//! Whose home a CPU is, and whose registers it owns: taken over when a vCPU is first turned on, given back when its VM ends.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use vmm::sched::Slot;
use vmm::vm::kicks::MAX_PCPUS;
use vmm::vm::vcpu::request;
use vmm::vm::{Phase, VcpuContext, Vm};

use super::Runner;
use crate::percpu::Loaded;
use crate::{timer, vms};

/// The vCPUs that have their place on each CPU, by slot.
pub(super) static PLACES: [SpinMutex<Vec<Loaded>>; MAX_PCPUS] =
    [const { SpinMutex::new(Vec::new()) }; MAX_PCPUS];

/// Gives a vCPU its place; its home must name this CPU and the next free slot.
pub(crate) fn add_place(place: Loaded) {
    let home = place.vcpu.home;
    let mut places = PLACES[home.pcpu.index()].lock();
    assert!(
        places.len() == home.slot.index(),
        "slots are given in order"
    );
    places.push(place);
}

/// A vCPU whose registers this CPU owns.
pub(super) struct Attached {
    pub(super) place: Loaded,
    pub(super) context: SpinMutexGuard<'static, VcpuContext>,
    /// It stands still because its VM is paused.
    halted: bool,
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
        let places = &PLACES[self.cpu.id.index()];
        let Some(place) = places.lock().get(slot.index()).copied() else {
            return false;
        };
        let Loaded { vm, vcpu } = place;
        if !vm.own() {
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
        self.attached[slot.index()] = Some(Attached {
            place,
            context,
            halted: false,
        });
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
        // While it stood still or was off, its VM's time may have changed.
        self.world = None;
        let phase = vm.phase();
        if phase != Phase::Paused && core::mem::take(&mut attached.halted) {
            vm.life.unhalt();
        }
        match phase {
            Phase::Stopping | Phase::Resetting => {
                self.put_away(slot);
                self.drop_vcpu(slot, timer::now());
                let _last = vm.life.detach();
                self.let_go(slot);
            }
            Phase::Paused => {
                // Stays asked, so that an interrupt that wakes it does not let it into the guest.
                vcpu.requests.fetch_or(request::PAUSE, Ordering::SeqCst);
                let moved = !core::mem::replace(&mut attached.halted, true);
                self.put_away(slot);
                let now = timer::now();
                self.queue.block(None, now);
                if moved {
                    vm.life.halt(now);
                }
            }
            _ => {}
        }
    }

    /// Takes a vCPU's registers out of the hardware.
    fn put_away(&mut self, slot: Slot) {
        if self.loaded == Some(slot) {
            self.unload();
        }
    }

    /// Takes a vCPU that is not loaded off the queue.
    #[inline]
    pub(super) fn drop_vcpu(&mut self, slot: Slot, now: u64) {
        if self.fp_owner == Some(slot) {
            self.fp_owner = None;
        }
        self.queue.detach(slot, now);
    }
}
