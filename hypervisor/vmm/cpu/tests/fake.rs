//! A machine of several CPUs that checks what the architecture asks of its software: registers are loaded before a guest runs and
//! saved before another's are loaded, a timer is silent before its interrupt is made inactive, the FP unit holds the right values.

pub(super) mod guest;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;
use vgic::{CpuInterface, ListRegister, ListRegisters, Maintenance, SavedListRegisters};

use crate::cpu::{Interrupt, Local, Machine, Manager, Pcpu, Placements, cause, turns};
use crate::devices::Work;
use crate::dispatch::Trap;
use crate::dispatch::inject::Exception;
use crate::dispatch::slow::Exit;
use crate::exit::{Syndrome, class};
use crate::features::{CpuFeatures, FeaturePolicy, ID_REGISTERS, Lent, hcr};
use crate::sched::{Capped, NEVER, RoundRobin, WakeSet};
use crate::spin::Sight;
use crate::vm::context::{FpRegisters, Frame, Owner, TimerRegisters};
use crate::vm::request;
use crate::vm::{Cause, Kicks, Phase, Placement, Vcpu, VcpuContext, Vm, VmParts};
use types::access::AccessWidth;
use types::address::GuestPhys;
use types::counter::CounterRate;
use types::ids::MAX_PCPUS;
use types::ids::{PcpuId, VcpuId, VmId};
use types::layout::{GuestLayout, Region};

/// EL2's timer, and another private interrupt that no guest can have.
const TIMER: u32 = 26;
/// The maintenance interrupt of the virtual CPU interface.
pub(super) const MAINTENANCE: u32 = 25;
const LIST_REGISTERS: usize = 4;
/// Where VMs' RAM begins in the host's.
const RAM: u64 = 0x9000_0000;
/// The FP trap bit of CPTR_EL2.
const TFP: u64 = 1 << 10;

/// A VM and a vCPU by number.
pub(super) type Name = (u16, u16);

pub(super) fn name(owner: Owner) -> Name {
    (owner.vm.id.index() as u16, owner.vcpu.id.get())
}

/// What a guest does in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Computes for so many ticks, or until EL2's timer fires.
    Spin(u64),
    /// Executes a WFI that traps, with nothing there to wake it.
    Wait,
    /// Turns itself off.
    Off,
    /// Uses the FP unit.
    Fp,
    /// Sets its virtual timer, in ticks of the counter.
    Timer(u64),
    /// Raises a system error.
    SError,
    /// Executes an instruction that traps and that the hot path leaves, with these values in x0 to x3.
    Trap(Exit, [u64; 4]),
    /// Does what the hot path settles, or what its CPU interface does without a trap.
    Settled(fn(&mut Trap<'_, Lists>)),
    /// Accesses a device that has something to be done outside the guest.
    Device(Work),
    /// Is interrupted by what the hot path leaves.
    Interrupted(u32),
    /// Executes a WFI that traps; the hot path slept, and such an interrupt ended that.
    Woken(u32),
    /// Runs code at an address, with x0 as given and interrupts masked or not, for as long as it is left to; then goes on with the
    /// next act.
    Code(u64, u64, bool),
    /// Executes a WFE at an address, with x0 as given; it traps if the CPU says so.
    Event(u64, u64),
}

/// What happens while a CPU sleeps.
pub(super) type InSleep = Box<dyn FnOnce()>;

/// What all CPUs share.
pub(super) struct System {
    pub(super) now: Cell<u64>,
    pub(super) placements: Placements,
    wakes: [WakeSet; MAX_PCPUS],
    flags: [AtomicBool; 4],
    /// CPUs that were kicked and have not acknowledged it.
    kicked: RefCell<Vec<PcpuId>>,
    /// What each guest does next; one without an act computes.
    pub(super) acts: RefCell<BTreeMap<Name, VecDeque<Act>>>,
    /// What happened, in order.
    pub(super) log: RefCell<Vec<String>>,
    /// The FP values that each guest believes to have; none since its last reset.
    fp: RefCell<BTreeMap<Name, u128>>,
    /// Steps of deferred work that are left, by CPU, and what each takes.
    pub(super) steps: Cell<(u16, u32)>,
    pub(super) step_ticks: Cell<u64>,
    /// The round in which CPUs are asked to publish what they keep.
    pub(super) round: Cell<Option<u32>>,
    /// Whether the manifests let CPUs of vCPUs in reserve be turned off.
    pub(super) may_power_down: Cell<bool>,
    /// A vCPU that another CPU turns on while the next one sleeps.
    pub(super) during_sleep: Cell<Option<(&'static Vm, u16)>>,
    /// What else happens while the next CPU sleeps.
    pub(super) in_sleep: RefCell<Option<InSleep>>,
    /// The general registers with which each guest was entered last.
    pub(super) frames: RefCell<BTreeMap<Name, Frame>>,
    /// ELR_EL1 of the guests.
    pub(super) elr: Cell<u64>,
    /// How often an operation by set and way has to be repeated.
    pub(super) sweeps: Cell<u32>,
    /// Words of RAM that are not zero, by host address: all VMs share it.
    pub(super) ram: RefCell<BTreeMap<u64, u32>>,
    /// How often CPUs looked at what a vCPU does.
    pub(super) looks: Cell<u32>,
    /// How long each look takes, in ticks.
    pub(super) look_ticks: Cell<u64>,
    /// Stores by others while a CPU watches words, one each time it looks.
    pub(super) during_watch: RefCell<VecDeque<(u64, u32)>>,
    vms: RefCell<Vec<&'static Vm>>,
}

impl System {
    pub(super) fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            now: Cell::new(1),
            placements: Placements::new(MAX_PCPUS),
            wakes: [const { WakeSet::new() }; MAX_PCPUS],
            flags: [const { AtomicBool::new(false) }; 4],
            kicked: RefCell::default(),
            acts: RefCell::default(),
            log: RefCell::default(),
            fp: RefCell::default(),
            steps: Cell::new((0, 0)),
            step_ticks: Cell::new(0),
            round: Cell::new(None),
            may_power_down: Cell::new(false),
            during_sleep: Cell::new(None),
            in_sleep: RefCell::default(),
            frames: RefCell::default(),
            elr: Cell::new(0),
            sweeps: Cell::new(0),
            ram: RefCell::default(),
            looks: Cell::new(0),
            look_ticks: Cell::new(0),
            during_watch: RefCell::default(),
            vms: RefCell::default(),
        }))
    }

    /// Makes a VM of `count` vCPUs, all on `cpu`, of which `boot` are not in reserve; it runs and none of its vCPUs is on.
    pub(super) fn vm(&'static self, count: u16, boot: u16, cpu: u16) -> &'static Vm {
        let id = self.vms.borrow().len() as u16;
        let vm: &'static Vm = Box::leak(Box::new(Vm::new(VmParts {
            id: VmId::new(id),
            name: format!("vm{id}"),
            layout: GuestLayout::default(),
            memory: Region::new(0x4000_0000, 256 << 20),
            policy: FeaturePolicy::new(&CpuFeatures::of([0x1111_1111_1111_1111; ID_REGISTERS]), 2),
            boot_vcpus: boot,
            possible: count,
            wakes: &self.wakes,
            list_registers: LIST_REGISTERS,
            counter: CounterRate::new(62_500_000),
            wall_clock_s: 0,
            disks: Vec::new(),
            nets: Vec::new(),
            has_rng: false,
        })));
        for vcpu in &*vm.vcpus {
            let placement = self.placements.take(Owner { vm, vcpu }, PcpuId::new(cpu));
            assert!(
                vcpu.at
                    .change_pending(Placement::NOWHERE, placement.unwrap())
            );
            assert!(vcpu.at.leave().is_some());
        }
        assert!(vm.life.start() && vm.life.started());
        vm.ram_start.store(RAM, Ordering::Release);
        vm.watched.store(true, Ordering::Relaxed);
        self.vms.borrow_mut().push(vm);
        vm
    }

    /// Makes the state machine of a CPU whose vCPUs take turns.
    pub(super) fn cpu(&'static self, index: u16) -> Pcpu<Fake, RoundRobin> {
        let hardware = self.hardware(index);
        let turns = turns(&hardware);
        Pcpu::new(hardware, &self.placements, turns)
    }

    /// As [`System::cpu`], under the caps of the VMs.
    pub(super) fn capped_cpu(&'static self, index: u16) -> Pcpu<Fake, Capped<RoundRobin>> {
        let hardware = self.hardware(index);
        let turns = turns(&hardware);
        Pcpu::new(hardware, &self.placements, Capped::new(turns))
    }

    fn hardware(&'static self, index: u16) -> Fake {
        let id = PcpuId::new(index);
        let local = Local::new(id, &self.wakes[id.index()], &self.flags[id.index()]);
        Fake {
            system: self,
            local: Box::leak(Box::new(local)),
            held: Rc::new(RefCell::new(Held::default())),
        }
    }

    /// Stores a word of RAM by its guest address.
    pub(super) fn store(&self, address: u64, word: u32) {
        self.ram
            .borrow_mut()
            .insert(address - 0x4000_0000 + RAM, word);
    }

    pub(super) fn say(&self, words: String) {
        self.log.borrow_mut().push(words);
    }

    /// Returns what happened since the last call.
    pub(super) fn heard(&self) -> Vec<String> {
        core::mem::take(&mut self.log.borrow_mut())
    }

    pub(super) fn does(&self, vcpu: Name, acts: &[Act]) {
        let mut all = self.acts.borrow_mut();
        all.entry(vcpu).or_default().extend(acts);
    }

    /// Turns a vCPU on as CPU_ON of another one does; returns whether it was off.
    pub(super) fn turn_on(&self, vm: &'static Vm, vcpu: u16) -> bool {
        let vcpu = &vm.vcpus[usize::from(vcpu)];
        let entry = psci::EntryPoint {
            address: 0x4000_0000,
            context_id: u64::from(vcpu.id.get()),
        };
        let was_off = vcpu.power.cpu_on(entry) == psci::ReturnCode::Success;
        if was_off {
            self.wake(vcpu);
        }
        was_off
    }

    pub(super) fn wake(&self, vcpu: &Vcpu) {
        let mut kicks = Kicks::NONE;
        vcpu.wake(&mut kicks);
        self.kick(kicks);
    }

    pub(super) fn request_all(&self, vm: &Vm, request: u32) {
        let mut kicks = Kicks::NONE;
        vm.request_all(request, &mut kicks);
        self.kick(kicks);
    }

    /// Asks for a vCPU to move to another CPU; returns whether no other move of it was under way.
    pub(super) fn migrate(&self, vm: &'static Vm, vcpu: u16, cpu: u16) -> bool {
        let vcpu = &vm.vcpus[usize::from(vcpu)];
        let to = self.placements.take(Owner { vm, vcpu }, PcpuId::new(cpu));
        let to = to.unwrap();
        if !vcpu.at.change_pending(Placement::NOWHERE, to) {
            self.placements.free(to);
            return false;
        }
        vcpu.requests.fetch_or(request::MOVE, Ordering::SeqCst);
        self.wake(vcpu);
        true
    }

    /// Returns a guest's registers as they were when it was entered last.
    pub(super) fn frame(&self, vcpu: Name) -> Frame {
        self.frames.borrow()[&vcpu].clone()
    }

    /// Begins to stop or reset a VM; returns whether it was on.
    pub(super) fn end(&self, vm: &'static Vm, reset: bool) -> bool {
        let ended = match reset {
            true => vm.life.reset(Cause::Guest),
            false => vm.life.stop(Cause::Guest),
        };
        if ended {
            self.request_all(vm, request::STOP);
        }
        ended
    }

    pub(super) fn ask_deferred(&self, cpu: u16) {
        self.flags[usize::from(cpu)].store(true, Ordering::SeqCst);
    }

    fn kick(&self, mut kicks: Kicks) {
        while let Some(id) = kicks.pop() {
            self.kicked.borrow_mut().push(id);
        }
    }
}

/// What a CPU's registers hold.
#[derive(Default)]
struct Held {
    vm: Option<u16>,
    vcpu: Option<Name>,
    /// A guest has run since the registers were saved.
    dirty: bool,
    /// The vCPU whose timers are loaded and not silent.
    timers: Option<Name>,
    /// Timers were written since the last ISB.
    unsynchronized: bool,
    /// The last vCPU of each VM whose translations the TLB may have.
    translations: BTreeMap<u16, u16>,
    /// A value that the guest keeps in TTBR0_EL1, and CNTV_CVAL_EL0.
    mark: u64,
    cval: TimerRegisters,
    hcr: u64,
    cptr: u64,
    fp: u128,
    armed: u64,
    /// The guest's private interrupts whose physical ones are active, a bit each.
    active: u32,
    /// The interrupts that guests have ended here, in order.
    ended: Vec<u32>,
    lists: Option<SavedListRegisters>,
    exit: Option<Exit>,
}

/// One CPU.
pub(super) struct Fake {
    pub(super) system: &'static System,
    local: &'static Local,
    held: Rc<RefCell<Held>>,
}

/// The list registers of a CPU.
pub(super) struct Lists(Rc<RefCell<Held>>);

impl Lists {
    fn with<R>(&self, work: impl FnOnce(&mut SavedListRegisters) -> R) -> R {
        let mut held = self.0.borrow_mut();
        let lists = &mut held.lists;
        work(lists.get_or_insert_with(|| SavedListRegisters::new(LIST_REGISTERS)))
    }
}

impl ListRegisters for Lists {
    fn count(&self) -> usize {
        self.with(|lists| lists.count())
    }
    fn read(&self, n: usize) -> ListRegister {
        self.with(|lists| lists.read(n))
    }
    fn write(&mut self, n: usize, value: ListRegister) {
        self.with(|lists| lists.write(n, value));
    }
    fn empty(&self) -> u32 {
        self.with(|lists| lists.empty())
    }
    fn eoi_status(&self) -> u32 {
        self.with(|lists| lists.eoi_status())
    }
    fn set_maintenance(&mut self, maintenance: Maintenance) {
        self.with(|lists| lists.set_maintenance(maintenance));
    }
    fn take_eoi_count(&mut self) -> u32 {
        self.with(|lists| lists.take_eoi_count())
    }
    fn lines(&self) -> u32 {
        self.with(|lists| lists.lines())
    }
}

impl Fake {
    /// Returns the interrupts that guests have ended here.
    pub(super) fn ended(&self) -> Vec<u32> {
        self.held.borrow().ended.clone()
    }

    fn say(&self, words: &str) {
        self.system
            .say(format!("cpu{}: {words}", self.local.id.get()));
    }

    /// Checks that all of a vCPU is loaded, as it left it.
    fn check(&self, frame: &Frame) -> Owner {
        let owner = frame.owner.expect("a frame of an attached vCPU");
        let linked = owner.vcpu.gic.lock().linked(&self.lists());
        let held = self.held.borrow();
        let (vm, vcpu) = name(owner);
        assert_eq!(held.vm, Some(vm), "its VM's tables are loaded");
        assert_eq!(held.vcpu, Some((vm, vcpu)), "its registers are loaded");
        assert_eq!(held.timers, Some((vm, vcpu)), "its timers are loaded");
        assert_eq!(held.translations.get(&vm), Some(&vcpu), "its TLB entries");
        assert_eq!(held.active, linked, "one that stays active fires no more");
        let policy = &owner.vm.policy;
        let wfe_traps = held.hcr & hcr::TWE != 0;
        let crowded = if wfe_traps { policy.hcr_crowded } else { 0 };
        assert_eq!(held.hcr & !hcr::TWI, policy.hcr | crowded);
        let others_wait = self.local.need_resched.get();
        assert!(others_wait || !wfe_traps, "WFE traps while none waits");
        assert_eq!(self.local.loaded.get().map(name), Some((vm, vcpu)));
        assert!(owner.vcpu.at.loaded.load(Ordering::SeqCst));
        assert_eq!(
            owner.vcpu.at.placement().pcpu(),
            self.local.id,
            "it is placed here"
        );
        let mark = u64::from(vm) << 16 | u64::from(vcpu) | 1 << 40;
        let (new, known) = (0, mark);
        assert!([new, known].contains(&held.mark), "TTBR0_EL1 is its own");
        assert_ne!(
            owner.vm.phase(),
            Phase::Off,
            "a VM that is off does not run"
        );
        owner
    }

    fn fp(&self, vcpu: Name) -> u64 {
        let mut held = self.held.borrow_mut();
        if held.cptr & TFP != 0 {
            let syndrome = Syndrome::new(class::FP << 26 | 1 << 25);
            held.exit = Some(Exit {
                syndrome,
                far: 0,
                address: 0,
            });
            return cause::SYNC;
        }
        let mut known = self.system.fp.borrow_mut();
        if let Some(value) = known.get(&vcpu) {
            assert_eq!(held.fp, *value, "the FP unit holds this vCPU's values");
        }
        // A new value each time, so that one that was saved earlier is not taken for it.
        let uses = known.get(&vcpu).map_or(0, |value| *value as u64);
        let value = u128::from(vcpu.0) << 80 | u128::from(vcpu.1) << 64 | u128::from(uses + 1);
        held.fp = value;
        known.insert(vcpu, value);
        drop((known, held));
        self.run(1)
    }

    /// Lets the guest compute until EL2's timer fires, for so long at most.
    fn run(&self, ticks: u64) -> u64 {
        let now = self.system.now.get();
        let armed = self.held.borrow().armed;
        let end = now.saturating_add(ticks);
        self.system.now.set(end.min(armed.max(now)));
        if armed <= end {
            self.local.acknowledged.set(Some(TIMER));
        }
        cause::IRQ
    }
}

impl Machine for Fake {
    type Lists = Lists;
    type Manager = Self;

    fn manager(&self) -> &Self {
        self
    }
    fn local(&self) -> &'static Local {
        self.local
    }
    fn lists(&self) -> Lists {
        Lists(self.held.clone())
    }
    fn cpu_interface(&self) -> CpuInterface {
        CpuInterface {
            group0: true,
            group1: true,
            priority_mask: 0xff,
        }
    }
    fn now(&self) -> u64 {
        self.system.now.get()
    }
    fn ticks(&self, ns: u64) -> u64 {
        ns / 16
    }
    fn arm(&self, deadline_ticks: u64) {
        self.local.armed.set(deadline_ticks);
        self.held.borrow_mut().armed = deadline_ticks;
    }
    fn sleep(&self) {
        if let Some((vm, vcpu)) = self.system.during_sleep.take() {
            let _was_off = self.system.turn_on(vm, vcpu);
        }
        if let Some(happens) = self.system.in_sleep.take() {
            happens();
        }
        let held = self.held.borrow();
        let kicked = self.system.kicked.borrow().contains(&self.local.id);
        // The loaded vCPU's timers wake the CPU too.
        let guest = held.timers.and_then(|_| held.cval.next_deadline(0));
        let wake = held.armed.min(guest.unwrap_or(NEVER));
        if !kicked && wake != NEVER {
            self.system.now.set(wake.max(self.system.now.get()));
        }
    }
    fn is_interrupted(&self) -> bool {
        self.system.kicked.borrow().contains(&self.local.id)
    }
    fn acknowledge(&self) -> bool {
        self.system
            .kicked
            .borrow_mut()
            .retain(|id| *id != self.local.id);
        let fired = self.held.borrow().armed <= self.system.now.get();
        if fired {
            self.local.acknowledged.set(Some(TIMER));
        }
        fired
    }
    fn classify(&self, intid: u32) -> Interrupt {
        match intid {
            TIMER => Interrupt::Timer,
            MAINTENANCE => Interrupt::Maintenance,
            _ => Interrupt::Device,
        }
    }
    fn device(&self, intid: u32) {
        self.say(&format!("device {intid}"));
    }
    fn deactivate(&self, intid: u32) {
        if intid != TIMER {
            self.say(&format!("ends {intid}"));
        }
    }
    fn deactivate_all(&self, intids: u32) {
        let mut held = self.held.borrow_mut();
        assert_eq!(intids & !held.active, 0, "each was active");
        held.active &= !intids;
    }
    fn kick(&self, kicks: Kicks) {
        self.system.kick(kicks);
    }

    fn load_vm(&self, vm: &Vm) {
        self.held.borrow_mut().vm = Some(vm.id.index() as u16);
    }
    fn forget_sibling(&self) {
        let mut held = self.held.borrow_mut();
        let vm = held.vm.expect("a VM is loaded");
        held.translations.remove(&vm);
    }
    fn load_vcpu(&self, vcpu: &Vcpu, _: &FeaturePolicy, context: &mut VcpuContext) {
        let mut held = self.held.borrow_mut();
        assert!(!held.dirty, "what a guest left was saved");
        let owner = context.frame.owner.expect("attached");
        assert_eq!(owner.vcpu.id, vcpu.id);
        held.vcpu = Some(name(owner));
        held.mark = match core::mem::take(&mut context.fresh) {
            true => 0,
            false => context.system.ttbr0_el1,
        };
    }
    fn save_vcpu(&self, _: &FeaturePolicy, context: &mut VcpuContext) {
        let mut held = self.held.borrow_mut();
        let owner = context.frame.owner.expect("attached");
        assert_eq!(held.vcpu, Some(name(owner)), "saved where they belong");
        context.system.ttbr0_el1 = held.mark;
        held.dirty = false;
    }
    fn load_timers(&self, timers: &TimerRegisters) {
        let mut held = self.held.borrow_mut();
        held.timers = held.vcpu;
        held.cval = *timers;
        held.unsynchronized = true;
    }
    fn save_timers(&self, timers: &mut TimerRegisters) {
        let mut held = self.held.borrow_mut();
        assert_eq!(held.timers, held.vcpu, "its own timers are saved");
        *timers = held.cval;
        held.timers = None;
        held.unsynchronized = true;
    }
    fn silence_timers(&self) {
        let mut held = self.held.borrow_mut();
        held.timers = None;
        held.unsynchronized = true;
    }
    fn load_known_reset(&self) {
        self.say("known reset");
        let mut held = self.held.borrow_mut();
        held.timers = held.vcpu;
        held.cval = TimerRegisters::default();
        held.unsynchronized = true;
    }
    fn synchronize(&self) {
        self.held.borrow_mut().unsynchronized = false;
    }
    fn set_active(&self, intid: u32) {
        self.held.borrow_mut().active |= 1 << intid;
    }
    fn clear_active(&self, intid: u32) {
        let mut held = self.held.borrow_mut();
        // Those of a reset are silent too.
        let never = held.timers.is_none() || held.cval.next_deadline(0).is_none();
        let silent = never && !held.unsynchronized;
        assert!(silent, "PPI {intid}: its timer is silent first");
        held.active &= !(1 << intid);
    }
    fn set_cptr(&self, cptr: u64) {
        self.held.borrow_mut().cptr = cptr;
    }
    fn set_hcr(&self, hcr: u64) {
        self.held.borrow_mut().hcr = hcr;
    }
    fn save_fp(&self, registers: &mut FpRegisters) {
        let held = self.held.borrow();
        assert_eq!(held.cptr & TFP, 0, "the FP unit does not trap");
        registers.v[0] = held.fp;
    }
    fn load_fp(&self, registers: &FpRegisters) {
        let mut held = self.held.borrow_mut();
        assert_eq!(held.cptr & TFP, 0, "the FP unit does not trap");
        held.fp = registers.v[0];
    }
    fn lend(&self, _: &FeaturePolicy, context: &mut VcpuContext, unit: Lent) {
        self.say(&format!("lends {unit:?}"));
        context.lent = unit;
    }
    fn stop_lending(&self, _: &FeaturePolicy, lent: Lent) {
        self.say(&format!("takes {lent:?} back"));
    }
    fn set_mdscr(&self, value: u64) {
        self.say(&format!("MDSCR {value:#x}"));
    }
    fn elr_el1(&self) -> u64 {
        self.system.elr.get()
    }
    fn sight(&self) -> Sight {
        assert!(self.held.borrow().vcpu.is_some(), "a vCPU is loaded");
        self.system.looks.set(self.system.looks.get() + 1);
        let now = &self.system.now;
        now.set(now.get() + self.system.look_ticks.get());
        Sight::default()
    }
    fn read_ram(&self, vm: &Vm, address: GuestPhys, width: AccessWidth) -> Option<u64> {
        let host = vm.ram_word(address, width)?.get();
        let word = self.system.ram.borrow().get(&(host & !3)).copied();
        Some(u64::from(word.unwrap_or(0)) & width.mask())
    }
    fn relax(&self) {
        let now = &self.system.now;
        now.set(now.get() + 100);
        let turns = self.system.during_watch.borrow_mut().pop_front();
        if let Some((address, word)) = turns {
            self.system.store(address, word);
        }
    }
    fn inject(&self, _: &mut Frame, exception: Exception) {
        self.say(&format!("exception {:#x}", exception.esr));
    }

    fn enter(&self, frame: &mut Frame) -> u64 {
        let owner = {
            let mut held = self.held.borrow_mut();
            if let (Some(vm), Some((_, vcpu))) = (held.vm, held.vcpu) {
                held.translations.entry(vm).or_insert(vcpu);
            }
            drop(held);
            self.check(frame)
        };
        let vcpu = name(owner);
        if self.held.borrow().mark == 0 {
            // The first instructions after a reset; FP registers are unknown to the guest then.
            self.say(&format!("vm{} vcpu{} begins", vcpu.0, vcpu.1));
            assert_eq!(frame.x[0], u64::from(vcpu.1), "x0 as PSCI promises");
            self.system.fp.borrow_mut().remove(&vcpu);
        }
        self.system.frames.borrow_mut().insert(vcpu, frame.clone());
        let mut held = self.held.borrow_mut();
        held.dirty = true;
        held.mark = u64::from(vcpu.0) << 16 | u64::from(vcpu.1) | 1 << 40;
        drop(held);
        let act = {
            let mut acts = self.system.acts.borrow_mut();
            acts.get_mut(&vcpu).and_then(VecDeque::pop_front)
        };
        match act.unwrap_or(Act::Spin(1_000_000)) {
            Act::Spin(ticks) => self.run(ticks),
            Act::Wait => cause::REST,
            Act::Off => {
                let mut held = self.held.borrow_mut();
                held.dirty = false;
                // What is left of it, [`Machine::load_known_reset`] may use.
                held.mark = 0;
                cause::OFF
            }
            Act::Fp => {
                let cause = self.fp(vcpu);
                if cause == cause::SYNC {
                    let mut acts = self.system.acts.borrow_mut();
                    acts.entry(vcpu).or_default().push_front(Act::Fp);
                }
                cause
            }
            Act::Timer(at) => {
                let mut held = self.held.borrow_mut();
                held.cval.cntv_cval = at;
                held.cval.cntv_ctl = 1;
                drop(held);
                self.run(1)
            }
            Act::SError => cause::SERROR,
            Act::Trap(exit, registers) => {
                frame.x[..4].copy_from_slice(&registers);
                // The hardware returns behind an HVC by itself.
                if exit.syndrome.class() == class::HVC64 {
                    frame.pc += 4;
                }
                self.held.borrow_mut().exit = Some(exit);
                cause::SYNC
            }
            Act::Settled(work) => {
                let mut lists = self.lists();
                let mut trap = Trap::new(owner.vm, owner.vcpu, &mut lists);
                work(&mut trap);
                let (kicks, owed) = (trap.kicks, trap.owed);
                self.kick(kicks);
                self.deactivate_all(owed);
                self.run(1)
            }
            Act::Device(work) => {
                self.local.work.set(Some(work));
                cause::WORK
            }
            Act::Interrupted(intid) => {
                self.local.acknowledged.set(Some(intid));
                cause::IRQ
            }
            Act::Woken(intid) => {
                self.local.acknowledged.set(Some(intid));
                cause::WAIT
            }
            Act::Code(pc, x0, masked) => {
                (frame.pc, frame.x[0]) = (pc, x0);
                frame.pstate = if masked { 0x3c5 } else { 0x345 };
                self.say(&format!("vm{} vcpu{} at {pc:#x}", vcpu.0, vcpu.1));
                self.run(1_000_000)
            }
            Act::Event(pc, x0) => {
                (frame.pc, frame.x[0], frame.pstate) = (pc, x0, 0x345);
                let mut held = self.held.borrow_mut();
                if held.hcr & hcr::TWE == 0 {
                    drop(held);
                    self.say(&format!("vm{} vcpu{} passes its WFE", vcpu.0, vcpu.1));
                    return self.run(1);
                }
                held.exit = Some(Exit {
                    syndrome: Syndrome::new(class::WFX << 26 | 1 << 25 | 1),
                    far: 0,
                    address: 0,
                });
                cause::SYNC
            }
        }
    }
    fn exit(&self) -> Exit {
        self.held.borrow_mut().exit.take().expect("an exit")
    }
    fn power_down(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        let off = !is_wanted();
        if off {
            self.say("off");
            *self.held.borrow_mut() = Held::default();
        }
        off
    }
}

impl Manager for Fake {
    fn all_left(&self, vm: &'static Vm) {
        self.say(&format!("vm{} left", vm.id.index()));
    }
    fn vcpu_changed(&self, vm: &'static Vm, vcpu: &'static Vcpu, on: bool, _: u64) {
        let how = if on { "on" } else { "off" };
        let (vm, vcpu) = (vm.id.index(), vcpu.id.get());
        self.say(&format!("vm{vm} vcpu{vcpu} {how}"));
    }
    fn call(&self, _: &'static Vm, vcpu: &'static Vcpu) {
        self.system.wake(vcpu);
    }
    fn system_off(&self, vm: &'static Vm, cause: Cause) {
        self.say(&format!("vm{} off: {}", vm.id.index(), cause.name()));
    }
    fn system_reset(&self, vm: &'static Vm, cause: Cause) {
        self.say(&format!("vm{} reset: {}", vm.id.index(), cause.name()));
    }
    fn system_fail(&self, vm: &'static Vm, what: &'static str) {
        self.say(&format!("vm{} failed: {what}", vm.id.index()));
        self.system.end(vm, false);
    }
    fn is_stuck(&self, _: &'static Vm, vcpu: VcpuId, pc: u64) {
        self.say(&format!("vcpu{} stuck at {pc:#x}", vcpu.get()));
    }
    fn work(&self, vm: &'static Vm, work: Work) {
        self.say(&format!("vm{} {work:?}", vm.id.index()));
    }
    fn clean_memory(&self, _: &'static Vm, set_way: u64) -> bool {
        self.say(&format!("cleans {set_way:#x}"));
        let left = self.system.sweeps.get();
        self.system.sweeps.set(left.saturating_sub(1));
        left == 0
    }
    fn vendor_call(&self, _: &'static Vm, frame: &mut Frame) {
        self.say("vendor");
        frame.x[0] = 7;
    }
    fn asked(&self, _: PcpuId) -> Option<u32> {
        self.system.round.get()
    }
    fn published(&self, _: PcpuId, round: u32) {
        assert_eq!(self.system.round.take(), Some(round));
        self.say("published");
    }
    fn attend(&self, _: PcpuId) {}
    fn go_on(&self, cpu: PcpuId, _: &mut usize) -> bool {
        let (at, left) = self.system.steps.get();
        if at != cpu.get() || left == 0 {
            return false;
        }
        self.say("step");
        self.system.steps.set((at, left - 1));
        let now = &self.system.now;
        now.set(now.get() + self.system.step_ticks.get());
        left > 1
    }
    fn is_manager(&self, cpu: PcpuId) -> bool {
        cpu.get() == 0
    }
    fn may_power_down(&self, _: &Vm) -> bool {
        self.system.may_power_down.get()
    }
}
