//! Turning vCPUs on and off.

use core::sync::atomic::Ordering;
use psci::Event;

use super::attach::at;
use super::exits::with_trap;
use super::{Machine, Manager, Pcpu};
use crate::sched::{Policy, Slot};
use crate::vm::context::Owner;
use crate::vm::{Kicks, request};

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Starts a vCPU that was turned on, or lets go of one that is off, or prepares for one that may be turned on soon.
    pub(super) fn start(&mut self, slot: Slot, now: u64) {
        let is_new = !matches!(self.attached.get(slot.index()), Some(Some(_)));
        if is_new && !self.attach(slot) {
            return;
        }
        let place = at(&mut self.attached, slot).place;
        if place.vcpu.requested() & (request::MOVE | request::ARRIVE) != 0 {
            return self.migrate_in(place, slot, now);
        }
        if place.vm.is_leaving() {
            return self.let_go(slot);
        }
        if let Some(entry) = place.vcpu.power.start() {
            at(&mut self.attached, slot).context.power_on(entry);
            self.begin(place, slot, now);
            return;
        }
        // No vCPU runs here, and no vCPU's registers are here to be found again.
        let is_vacant = self.queue.live() == 0 && self.resident.or(self.loaded).is_none();
        if self.resident == Some(slot) || is_new && is_vacant {
            self.prepare(place, slot);
        }
    }

    /// Lets a vCPU that was on elsewhere go on here, or one that is off here go elsewhere.
    #[cold]
    fn migrate_in(&mut self, place: Owner, slot: Slot, now: u64) {
        let vcpu = place.vcpu;
        if vcpu.requests.fetch_and(!request::ARRIVE, Ordering::SeqCst) & request::ARRIVE != 0 {
            vcpu.usage.begin();
            self.queue.attach(slot, now);
            self.queue.wake(slot, now);
            return;
        }
        vcpu.requests.fetch_and(!request::MOVE, Ordering::SeqCst);
        // If it was an old request, there may be another reason to look.
        if !self.migrate_out(place, slot) {
            self.start(slot, now);
        }
    }

    /// Prepares for a vCPU that is off and may be turned on soon: loads what a reset leaves, and delivers its interrupts.
    #[cold]
    fn prepare(&mut self, place: Owner, slot: Slot) {
        if self.resident != Some(slot) {
            // What an earlier life left, its timers above all, does not come back.
            let context = &mut at(&mut self.attached, slot).context;
            context.power_on(psci::EntryPoint::default());
            self.load(slot);
        }
        self.local.loaded.set(Some(place));
        self.deliver();
        let quiet = place.vcpu.gic.lock().unload_quiet(&self.machine.lists());
        if !quiet {
            self.save_interrupts(slot);
        }
        self.set_down(place, slot, quiet);
    }

    /// Leaves a vCPU that is off; if its interrupts are quiet, its registers stay, for it to find them there.
    #[inline]
    fn set_down(&mut self, place: Owner, slot: Slot, quiet: bool) {
        place.vcpu.at.loaded.store(false, Ordering::SeqCst);
        self.local.loaded.set(None);
        self.loaded = None;
        self.resident = quiet.then_some(slot);
    }

    /// Lets a vCPU whose registers are ready run when its turn comes, unless its VM has been stopped meanwhile; returns whether it runs at
    /// once.
    #[inline(always)]
    fn begin(&mut self, place: Owner, slot: Slot, now: u64) -> bool {
        let Owner { vm, vcpu } = place;
        if !vm.life.attach() {
            if vm.life.detach() {
                self.machine.manager().all_left(vm);
            }
            return false;
        }
        let mut kicks = Kicks::NONE;
        vm.gic.join(vcpu.id.get(), &mut vm.poster(&mut kicks));
        self.machine.kick(kicks);
        vcpu.usage.begin();
        let runs = self.queue.begin(slot, now);
        self.announce(vm, slot, true, now);
        runs
    }

    /// Starts the vCPU that turned itself off here last and now is wanted again, if that is all there is to do.
    ///
    /// The shortest way from CPU_ON to the first instruction: no other was loaded meanwhile, so only what a reset changes is loaded.
    #[inline]
    pub(super) fn restart(&mut self) -> Option<Slot> {
        let slot = self.resident?;
        if self.queue.live() != 0 || !self.local.wakes.take_alone(slot) {
            return None;
        }
        let now = self.machine.now();
        let attached = at(&mut self.attached, slot);
        let place = attached.place;
        let vcpu = place.vcpu;
        if vcpu.requested() != 0 {
            self.start(slot, now);
            return None;
        }
        let entry = vcpu.power.start()?;
        attached.context.power_on_again(entry);
        self.machine.load_known_reset();
        self.set_fp_trap(place.vm.policy.cptr_fp_trapped);
        self.local.loaded.set(Some(place));
        self.loaded = Some(slot);
        vcpu.at.loaded.store(true, Ordering::SeqCst);
        if !self.begin(place, slot, now) {
            // Its VM has been stopped just now: nothing of it has run, and what is loaded is a reset's.
            if !self.queue.is_attached(slot) {
                self.set_down(place, slot, true);
            }
            return None;
        }
        if !vcpu.inbox.is_empty() {
            self.deliver();
        }
        let due = self.events.due_ticks.min(self.local.armed.get());
        self.machine.arm(due);
        Some(slot)
    }

    /// Begins a vCPU that slept in a power-down state at its entry point.
    #[cold]
    pub(super) fn wake_suspended(&mut self, slot: Slot) {
        if self.loaded == Some(slot) {
            self.unload();
        }
        let context = &mut at(&mut self.attached, slot).context;
        if let Some(entry) = context.suspended.take() {
            context.power_on(entry);
        }
    }

    /// Takes a vCPU that has turned itself off away; another may turn it on again at once.
    ///
    /// Its registers die with it and are not saved; its interrupts are.
    #[inline]
    pub(super) fn power_off(&mut self, slot: Slot) {
        let attached = at(&mut self.attached, slot);
        let place = attached.place;
        let Owner { vm, vcpu } = place;
        self.machine.silence_timers();
        let lent = attached.context.lent;
        if !lent.is_none() {
            self.machine.stop_lending(&vm.policy, lent);
        }
        let quiet = vcpu
            .gic
            .lock()
            .power_off_quiet(&vcpu.inbox, &vm.gic, &self.machine.lists());
        if !quiet {
            self.power_off_gic(slot);
        }
        self.set_down(place, slot, quiet);
        // Only this CPU can start it again, so what is left to do here may come after.
        let off = vcpu.power.apply(Event::CpuOff);
        assert!(off.is_ok(), "a running vCPU can turn itself off");
        let now = self.machine.now();
        self.drop_vcpu(slot, now);
        self.announce(vm, slot, false, now);
        if vm.life.detach() {
            self.machine.manager().all_left(vm);
        }
    }

    /// Gives away or keeps the interrupts of a vCPU that turns itself off.
    #[cold]
    fn power_off_gic(&mut self, slot: Slot) {
        // The timers were silenced, and their interrupts are about to be made inactive.
        self.machine.synchronize();
        with_trap(&self.machine, |trap| trap.power_off());
        self.save_interrupts(slot);
    }
}
