//! A CPU's life after start-up: look at the mail, pick a vCPU, run it, do what its exit asks for.
//!
//! Everything here belongs to one CPU; what others want of it comes through its mailbox. `vmm::sched` decides who runs.

mod chores;
mod reserve;
mod world;

pub(crate) use chores::{ask_chores, has_chores, set_chore_deadline};
pub(crate) use reserve::park;

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use psci::Event;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use vmm::dispatch::Trap;
use vmm::dispatch::slow::{self, Exit, Next};
use vmm::exit::{Syndrome, class, fault_address};
use vmm::features::hcr;
use vmm::sched::{RunQueue, Slot};
use vmm::stats::ExitReason;
use vmm::vm::context::Owner;
use vmm::vm::kicks::MAX_PCPUS;
use vmm::vm::vcpu::request;
use vmm::vm::{Cause, Kicks, Phase, VcpuContext, Vm};

use crate::gic::{self, HardwareListRegisters};
use crate::percpu::{self, Loaded, Percpu};
use crate::sysreg::{read_register, wfi, write_register};
use crate::vectors::{self, cause};
use crate::{clock, fpsimd, hot, lent, switch, timer, vms};

/// How long a vCPU runs while another one waits.
const SLICE_NS: u64 = vmm::sched::SLICE_MS * 1_000_000;
/// How long a vCPU's coming or going may wait to be told: longer than it takes to start.
const NEWS_NS: u64 = 100_000;
/// Deadline of a timer that will not fire.
const NEVER: u64 = u64::MAX;

/// The vCPUs that have their place on each CPU, by slot.
static PLACES: [SpinMutex<Vec<Loaded>>; MAX_PCPUS] =
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
struct Attached {
    place: Loaded,
    context: SpinMutexGuard<'static, VcpuContext>,
    /// It stands still because its VM is paused.
    halted: bool,
}

/// One CPU's scheduler and what it has in its registers.
struct Runner {
    cpu: &'static Percpu,
    queue: RunQueue,
    attached: Vec<Option<Attached>>,
    /// Whose registers are in the hardware.
    loaded: Option<Slot>,
    /// Who turned itself off here last, while nobody else was loaded: the registers its VM sets still hold.
    resident: Option<Slot>,
    /// Whose values are in the FP unit.
    fp_owner: Option<Slot>,
    /// When EL2's timer is set to fire.
    armed: u64,
    /// HCR_EL2 as last written.
    hcr: u64,
    /// What is added to it while a vCPU is alone here: TWI while there are chores to do.
    alone_hcr: u64,
    /// vCPUs that came (or went) and when, for the operator.
    news: heapless::Vec<(Slot, bool, u64), 8>,
    /// How long news may wait.
    news_ticks: u64,
}

/// Runs guests on this CPU for good.
pub(crate) fn run(cpu: &'static Percpu) -> ! {
    let slice = clock::duration_ticks(SLICE_NS);
    let mut runner = Runner {
        cpu,
        queue: RunQueue::new(slice),
        attached: Vec::new(),
        loaded: None,
        resident: None,
        fp_owner: None,
        armed: NEVER,
        hcr: 0,
        alone_hcr: 0,
        news: heapless::Vec::new(),
        news_ticks: clock::duration_ticks(NEWS_NS),
    };
    loop {
        runner.turn();
    }
}

impl Runner {
    /// Looks at everything once and runs a guest, or sleeps.
    fn turn(&mut self) {
        if !self.cpu.wakes.is_empty() {
            self.open_mail();
        }
        self.do_chores();
        let now = timer::now();
        self.queue.expire(now);
        if self.queue.wants_switch(now) {
            self.queue.pick_next(now);
        }
        match self.queue.current() {
            Some(slot) => self.run_slot(slot),
            None => self.idle(),
        }
    }

    /// Wakes, starts or stops the vCPUs that others pointed at.
    fn open_mail(&mut self) {
        let now = timer::now();
        let wakes = self.cpu.wakes;
        wakes.drain(|slot| {
            if self.queue.is_attached(slot) {
                self.queue.wake(slot, now);
            } else {
                self.start(slot, now);
            }
        });
    }

    /// Starts a vCPU that was turned on, or lets go of one that is off.
    fn start(&mut self, slot: Slot, now: u64) {
        if !matches!(self.attached.get(slot.index()), Some(Some(_))) && !self.attach(slot) {
            return;
        }
        let Some(Some(attached)) = self.attached.get_mut(slot.index()) else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        if vm.is_leaving() {
            return self.let_go(slot);
        }
        let Some(entry) = vcpu.power.start() else {
            return;
        };
        attached.context.power_on(entry);
        self.begin(Loaded { vm, vcpu }, slot, now);
    }

    /// Takes over a vCPU's registers; returns whether its VM wants that.
    fn attach(&mut self, slot: Slot) -> bool {
        let places = PLACES[self.cpu.id.index()].lock();
        let Some(place) = places.get(slot.index()).copied() else {
            return false;
        };
        drop(places);
        let Loaded { vm, vcpu } = place;
        if !vm.own() {
            self.disown(vm);
            return false;
        }
        let context = vcpu.context.try_lock();
        let mut context = context.expect("registers have one owner");
        context.frame.owner = Some(Owner { vm, vcpu });
        if self.attached.len() <= slot.index() {
            self.attached.resize_with(slot.index() + 1, || None);
        }
        self.attached[slot.index()] = Some(Attached {
            place,
            context,
            halted: false,
        });
        true
    }

    /// Gives the registers of a vCPU that is off its queue back to its VM.
    fn let_go(&mut self, slot: Slot) {
        let Some(attached) = self.attached[slot.index()].take() else {
            return;
        };
        self.resident = None;
        let vm = attached.place.vm;
        drop(attached);
        self.disown(vm);
    }

    fn disown(&self, vm: &'static Vm) {
        if vm.disown() {
            vms::all_left(vm);
        }
    }

    /// Lets a vCPU whose registers are ready run when its turn comes, unless its VM has been stopped meanwhile.
    #[inline]
    fn begin(&mut self, place: Loaded, slot: Slot, now: u64) -> bool {
        let Loaded { vm, vcpu } = place;
        if !vm.life.attach() {
            if vm.life.detach() {
                vms::all_left(vm);
            }
            return false;
        }
        let mut kicks = Kicks::NONE;
        vm.gic.join(vcpu.id.get(), &mut vm.poster(&mut kicks));
        percpu::kick(kicks);
        self.queue.begin(slot, now);
        self.announce(vm, slot, true, now);
        true
    }

    /// Notes that a vCPU came or went; told a little later, so that nobody waits for it.
    #[inline]
    fn announce(&mut self, vm: &Vm, slot: Slot, on: bool, now: u64) {
        if !vm.watched.load(Ordering::Relaxed) {
            return;
        }
        if self.news.is_full() {
            self.tell_news();
        }
        let _ = self.news.push((slot, on, now));
    }

    /// Tells which vCPUs came or went.
    #[cold]
    fn tell_news(&mut self) {
        for (slot, on, ticks) in core::mem::take(&mut self.news) {
            if let Some(Some(attached)) = self.attached.get(slot.index()) {
                let Loaded { vm, vcpu } = attached.place;
                vms::vcpu_changed(vm, vcpu, on, ticks);
            }
        }
    }

    fn run_slot(&mut self, slot: Slot) {
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vcpu, .. } = attached.place;
        if vcpu.requested() != 0 {
            return self.obey(slot);
        }
        if attached.context.suspended.is_some() {
            self.wake_suspended(slot);
        }
        if self.loaded != Some(slot) {
            self.unload();
            self.load(slot);
        }
        if !vcpu.inbox.is_empty() {
            self.deliver(slot);
        }
        self.arm();
        self.enter(slot);
    }

    /// Runs the loaded vCPU and does what its exit asks for.
    #[inline]
    fn enter(&mut self, slot: Slot) {
        let Some(Some(attached)) = self.attached.get_mut(slot.index()) else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        let alone = self.queue.alone();
        let wanted = vm.policy.hcr | if alone { self.alone_hcr } else { hcr::TWI };
        if self.hcr != wanted {
            self.hcr = wanted;
            switch::set_hcr(wanted);
        }
        let context = &mut *attached.context;
        let cause = if core::mem::take(&mut context.fresh_frame) {
            vectors::enter_fresh(&mut context.frame)
        } else {
            vectors::enter(&mut context.frame)
        };
        match cause {
            cause::SYNC => self.synchronous(slot),
            cause::OFF => self.power_off(slot),
            cause::IRQ => self.interrupt(),
            _ => {
                vcpu.exits.count(ExitReason::SError);
                log::warn!(
                    "{} {}: SError, ESR {:#x}",
                    vm.name,
                    vcpu.id,
                    read_register!("esr_el2")
                );
                vms::system_fail(vm, "SError");
            }
        }
    }

    /// Does what others ask of the CPU that runs a vCPU: a request says to look, the VM's phase what to do.
    fn obey(&mut self, slot: Slot) {
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        // Taken before the phase is read: whoever changes the phase later asks again.
        vcpu.requests.swap(0, Ordering::SeqCst);
        match vm.phase() {
            Phase::Stopping | Phase::Resetting => {
                if core::mem::take(&mut attached.halted) {
                    vm.life.unhalt();
                }
                if self.loaded == Some(slot) {
                    self.unload();
                }
                self.drop_vcpu(slot, timer::now());
                let _last = vm.life.detach();
                self.let_go(slot);
            }
            Phase::Paused => {
                // Stays asked, so that an interrupt that wakes it does not let it into the guest.
                vcpu.requests.fetch_or(request::PAUSE, Ordering::SeqCst);
                let moved = !core::mem::replace(&mut attached.halted, true);
                if self.loaded == Some(slot) {
                    self.unload();
                }
                let now = timer::now();
                self.queue.block(None, now);
                if moved {
                    vm.life.halt(now);
                }
            }
            _ => {
                if core::mem::take(&mut attached.halted) {
                    vm.life.unhalt();
                }
            }
        }
    }

    /// Takes a vCPU that is not loaded off the queue.
    fn drop_vcpu(&mut self, slot: Slot, now: u64) {
        if self.fp_owner == Some(slot) {
            self.fp_owner = None;
        }
        self.queue.detach(slot, now);
    }

    /// Sets EL2's timer for whichever comes first: the end of a slice, a soft timer, a chore.
    fn arm(&mut self) {
        let mut deadline = self.queue.next_wake_ticks().unwrap_or(NEVER);
        if self.cpu.id.index() == 0 {
            deadline = deadline.min(chores::deadline());
        }
        if !self.news.is_empty() {
            deadline = deadline.min(timer::now() + self.news_ticks);
        }
        if has_chores(self.cpu.id) {
            deadline = deadline.min(timer::now() + chores::turn_ticks());
        }
        if deadline == self.armed {
            return;
        }
        self.armed = deadline;
        if deadline == NEVER {
            timer::disarm()
        } else {
            timer::arm(deadline)
        }
    }

    /// Starts the vCPU that turned itself off here last and now is wanted again, if that is all there is to do.
    ///
    /// The shortest way from CPU_ON to the first instruction: nobody was here meanwhile, so only what a reset changes is loaded.
    #[inline]
    fn restart(&mut self) {
        let Some(slot) = self.resident else { return };
        if self.queue.live() != 0 || !self.cpu.wakes.take_alone(slot) {
            return;
        }
        let Some(Some(attached)) = self.attached.get_mut(slot.index()) else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        if vcpu.requested() != 0 {
            return self.start(slot, timer::now());
        }
        let Some(entry) = vcpu.power.start() else {
            return;
        };
        let now = timer::now();
        attached.context.power_on_again(entry);
        switch::load_known_reset();
        gic::reset_guest();
        fpsimd::set_trap(vm.policy.cptr_fp_trapped);
        self.cpu.loaded.set(Some(attached.place));
        self.loaded = Some(slot);
        vcpu.loaded.store(true, Ordering::SeqCst);
        if !self.begin(Loaded { vm, vcpu }, slot, now) {
            return;
        }
        let deadline = now + self.news_ticks;
        if !self.news.is_empty() && deadline < self.armed {
            self.armed = deadline;
            timer::arm(deadline);
        }
        self.enter(slot);
    }

    /// Runs a handler on the loaded vCPU's interrupts.
    fn with_trap<R>(
        &mut self,
        slot: Slot,
        work: impl FnOnce(&mut Trap<'_, HardwareListRegisters>, &mut VcpuContext) -> R,
    ) -> Option<R> {
        let attached = self.attached[slot.index()].as_mut()?;
        let Loaded { vm, vcpu } = attached.place;
        let mut lists = HardwareListRegisters;
        let mut trap = Trap::new(vm, vcpu, &mut lists);
        let result = work(&mut trap, &mut attached.context);
        let (kicks, owed) = (trap.kicks, trap.owed);
        percpu::kick(kicks);
        hot::deactivate(owed);
        Some(result)
    }

    fn deliver(&mut self, slot: Slot) {
        self.with_trap(slot, |trap, _| trap.deliver());
    }

    /// Returns whether the loaded vCPU has an interrupt that would wake it from WFI.
    fn has_deliverable(&self, slot: Slot) -> bool {
        let Some(attached) = &self.attached[slot.index()] else {
            return false;
        };
        let Loaded { vm, vcpu } = attached.place;
        let lists = HardwareListRegisters;
        vcpu.gic
            .lock()
            .has_deliverable(&vm.gic, &lists, gic::control())
    }

    /// Handles a synchronous exit that the hot path left.
    fn synchronous(&mut self, slot: Slot) {
        let exit = Exit {
            syndrome: Syndrome::new(read_register!("esr_el2")),
            far: read_register!("far_el2"),
            address: fault_address(read_register!("hpfar_el2"), read_register!("far_el2")),
        };
        let next = self.with_trap(slot, |trap, context| {
            trap.vcpu.exits.count(reason(exit.syndrome));
            slow::synchronous(trap, context, exit)
        });
        let Some(next) = next else { return };
        self.act(slot, next);
    }

    /// Does what a decision says.
    fn act(&mut self, slot: Slot, next: Next) {
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, .. } = attached.place;
        let context = &mut *attached.context;
        match next {
            Next::Resume => {}
            Next::Advance => context.frame.pc = context.frame.pc.wrapping_add(4),
            Next::Inject(exception) => world::inject_exception(context, exception),
            Next::Block => self.block(slot),
            Next::UseFp => self.use_fp(slot),
            Next::Lend(unit) => lent::lend(&vm.policy, context, unit),
            Next::LoadDebug => {
                write_register!("mdscr_el1", context.system.mdscr_el1);
                context.frame.pc = context.frame.pc.wrapping_add(4);
            }
            Next::Off => self.power_off(slot),
            Next::SystemOff => {
                vms::system_off(vm, Cause::Guest);
            }
            Next::SystemReset => {
                vms::system_reset(vm, Cause::Guest);
            }
            Next::Hotplug { offset, value } => {
                let value = match is_big_endian(context.frame.pstate) {
                    true => value.swap_bytes(),
                    false => value,
                };
                context.frame.pc = context.frame.pc.wrapping_add(4);
                vms::hotplug_write(vm, offset, value);
            }
            Next::Listen => vms::listening(vm),
            Next::Vendor => vms::vendor_call(vm, &mut context.frame),
        }
    }

    /// Puts a vCPU to sleep unless an interrupt waits for it.
    fn block(&mut self, slot: Slot) {
        self.deliver(slot);
        if !self.has_deliverable(slot) {
            self.queue.block(None, timer::now());
        }
    }

    /// Begins a vCPU that slept in a power-down state at its entry point.
    fn wake_suspended(&mut self, slot: Slot) {
        if self.loaded == Some(slot) {
            self.unload();
        }
        if let Some(attached) = &mut self.attached[slot.index()]
            && let Some(entry) = attached.context.suspended.take()
        {
            attached.context.power_on(entry);
        }
    }

    /// Takes a vCPU that has turned itself off away; somebody may turn it on again at once.
    ///
    /// Its registers die with it and are not saved; its interrupts are.
    fn power_off(&mut self, slot: Slot) {
        let Some(attached) = &mut self.attached[slot.index()] else {
            return;
        };
        let Loaded { vm, vcpu } = attached.place;
        timer::silence();
        let lent = attached.context.lent;
        if !lent.is_none() {
            lent::stop(&vm.policy, lent);
        }
        let quiet = vcpu
            .gic
            .lock()
            .power_off_quiet(&vcpu.inbox, &vm.gic, &HardwareListRegisters);
        if !quiet {
            self.with_trap(slot, |trap, _| {
                let Trap {
                    vm,
                    vcpu,
                    lists,
                    kicks,
                    owed,
                } = trap;
                let mut post = vm.poster(kicks);
                *owed |= vcpu
                    .gic
                    .lock()
                    .power_off(&vcpu.inbox, &vm.gic, *lists, &mut post)
                    .0;
            });
            self.save_interrupts(slot);
        }
        vcpu.loaded.store(false, Ordering::Release);
        // Only this CPU can start it again, so what is left to do here may come after.
        let off = vcpu.power.apply(Event::CpuOff);
        assert!(off.is_ok(), "a running vCPU can turn itself off");
        self.cpu.loaded.set(None);
        self.loaded = None;
        self.resident = quiet.then_some(slot);
        let now = timer::now();
        self.drop_vcpu(slot, now);
        self.announce(vm, slot, false, now);
        if vm.life.detach() {
            vms::all_left(vm);
        }
    }

    /// Handles an interrupt that the hot path acknowledged and left.
    fn interrupt(&mut self) {
        if let Some(intid) = self.cpu.acknowledged.take() {
            self.take(intid);
        }
    }

    fn take(&mut self, intid: u32) {
        gic::drop_priority(intid);
        if let Some(Loaded { vcpu, .. }) = self.cpu.loaded.get() {
            vcpu.exits.count(match intid {
                timer::HYPERVISOR_PPI => ExitReason::HostTimer,
                gic::MAINTENANCE_PPI => ExitReason::Maintenance,
                _ => ExitReason::Interrupt,
            });
        }
        match intid {
            timer::HYPERVISOR_PPI => {
                timer::disarm();
                self.armed = NEVER;
                if !self.news.is_empty() {
                    self.tell_news();
                }
            }
            gic::MAINTENANCE_PPI => {
                if let Some(slot) = self.loaded {
                    self.with_trap(slot, |trap, _| {
                        let Trap {
                            vm,
                            vcpu,
                            lists,
                            kicks,
                            owed,
                        } = trap;
                        let mut post = vm.poster(kicks);
                        *owed |= vcpu.gic.lock().maintenance(&vm.gic, *lists, &mut post).0;
                    });
                }
            }
            _ => crate::console::interrupt(intid),
        }
        gic::deactivate(intid);
    }

    /// Sleeps until something happens, with the last vCPU's registers still loaded.
    fn idle(&mut self) {
        self.arm();
        if self.cpu.wakes.is_empty() && !has_chores(self.cpu.id) {
            wfi();
        }
        loop {
            let intid = gic::acknowledge();
            if intid >= gic::FIRST_SPECIAL {
                break;
            }
            if !hot::take(self.cpu, intid)
                && let Some(intid) = self.cpu.acknowledged.take()
            {
                self.take(intid);
            }
        }
        if let Some(slot) = self.loaded
            && self.queue.current().is_none()
            && self.has_deliverable(slot)
        {
            self.queue.wake(slot, timer::now());
        }
        self.restart();
    }
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
