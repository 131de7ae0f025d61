//! What is done for whole VMs: made from the manifest, started, stopped, reset, paused, resized.
//!
//! `crate::vm::life` says which of several that ask at once has its way. All that takes time (copying images, making tables) is done
//! in steps by the VM's manager, the CPU that its first vCPU was made for, between the turns of the guests there. [`Host`] is the
//! machine and the operator; the tests put a fake in its place.

mod create;
mod devices;
mod hotplug;
mod lifecycle;
mod machine;
mod memory;
mod operator;
mod report;
mod rounds;
mod start;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use control_plane::config::{ReserveIdle, VmConfig};
use control_plane::console::{HostPower, Token, What};
use control_plane::firmware::Seeds;
use control_plane::topology::CpuFacts;
use core::fmt::{self, Debug};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use psci::State as Power;
use stage2::{AddressSpace, TableMemory, Tables, VmidAllocator, VmidWidth};
use types::address::{GuestPhys, HostPhys};
use types::devices::DeviceId;
use types::ids::{MAX_VMS, PcpuId, VcpuId, VmId};

use crate::cpu::Manager;
use crate::devices::Work;
use crate::memory::GuestFault;
use crate::sync::FairMutex;
use crate::vm::context::Frame;
use crate::vm::resize::{Limits, Resizer};
use crate::vm::{Around, Cause, Kicks, Outside, Phase, Vcpu, Vm};
use control_plane::resize::{Report, meter::Meter};
pub use create::{Description, HostLimits};
use hotplug::strict;
pub use memory::Memory;
pub use operator::{Console, Operator, Outbox, earlier};
use report::Record;
use rounds::Rounds;
use start::Job;

/// Bytes of memory scrubbed in one step, or cleared.
const SCRUB_BYTES: u64 = 16 * 1024;
/// How long a resize may take unless the operator says otherwise, and how long a guest may boot before that time begins.
pub const DEFAULT_LIMITS: Limits = Limits {
    timeout_ns: 10_000_000_000,
    boot_grace_ns: 60_000_000_000,
};

/// A guest's RAM as its starts need it.
pub trait GuestRam: Debug {
    /// Returns the address of its first byte for the host.
    fn host_start(&self) -> u64;

    /// Copies `bytes` to a guest address, visible to a guest that has its caches off.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM; nothing is written then.
    fn load(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault>;

    /// Makes sure that no cache holds a dirty line of a guest range.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM.
    fn clean(&self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault>;

    /// Fills a guest range with zeros, visible to a guest that has its caches off.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM.
    fn zero(&mut self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault>;
}

/// The machine and the operator, as VMs' starts, stops and resizes need them. Times are ticks of the system counter or nanoseconds
/// since EL2 started.
pub trait Host: Outside + Sized {
    /// A guest's RAM.
    type Ram: GuestRam;
    /// Memory for stage-2 tables.
    type Pages: TableMemory + Debug;

    /// Returns the system counter.
    fn now_ticks(&self) -> u64;
    /// Converts a duration in nanoseconds to ticks.
    fn ticks(&self, ns: u64) -> u64;

    /// Interrupts CPUs, so that they look at what was left for them.
    fn kick(&self, kicks: Kicks);
    /// Asks a CPU to look at its deferred work.
    fn ask(&self, cpu: PcpuId);
    /// Turns a CPU on if it is off, and waits until it can be kicked.
    fn bring_up(&self, cpu: PcpuId);
    /// Returns whether a CPU is off, or on its way there.
    fn is_off(&self, cpu: PcpuId) -> bool;

    /// Takes RAM for a guest, which is its [`Outside::memory`] from now on, and says which ranges of it another guest may have
    /// written; `None` if there is no such piece.
    fn take_ram(&self, vm: &Vm) -> Option<(Self::Ram, Vec<Range<u64>>)>;
    /// Gives a guest's RAM back, which is scrubbed when another guest gets it.
    fn release_ram(&self, vm: &Vm, ram: Self::Ram);
    /// Takes memory for a slot of a guest; `None` if there is no such piece.
    fn take_block(&self, bytes: u64) -> Option<Range<u64>>;
    /// Gives a slot's memory back.
    fn release_block(&self, block: Range<u64>);
    /// Fills a range of the host's memory with zeros, in memory and not in a cache.
    fn scrub(&self, range: Range<u64>);
    /// Takes memory for a device of a VM, a multiple of a page; `None` if there is no such piece.
    fn take_device_memory(&self, bytes: u64) -> Option<&'static mut [u8]>;
    /// Gives a device's memory back, which is scrubbed when a guest gets it.
    fn release_device_memory(&self, memory: &'static mut [u8]);
    /// Returns where something of EL2's is in physical memory.
    fn physical(&self, address: usize) -> HostPhys;
    /// Takes pages for stage-2 tables; `None` if there are not so many.
    fn take_pages(&self, pages: usize) -> Option<Self::Pages>;
    /// Gives pages of stage-2 tables back.
    fn release_pages(&self, pages: Self::Pages);
    /// Forgets every guest translation of every VMID on every CPU.
    fn forget_all_guests(&self);
    /// Makes instructions that were written be fetched.
    fn invalidate_instructions(&self);
    /// Draws the randomness for a start.
    fn seeds(&self) -> Seeds;

    /// Returns whether an operator wants to hear of single vCPUs.
    fn is_heard(&self) -> bool;
    /// Notes an event for the operator that happened at a time.
    fn event(&self, time_ns: u64, vm: &Vm, what: What);
    /// Converts a value of the counter to the time.
    fn time_ns(&self, ticks: u64) -> u64;
    /// Converts a number of ticks to nanoseconds.
    fn ns(&self, ticks: u64) -> u64;
    /// Does what a CPU has to do for the operator, and has it look again at `next_ns` at the latest.
    fn attend(&self, cpu: PcpuId, next_ns: Option<u64>);
    /// Notes the end of a resize for the operator.
    fn resized(&self, instance: &Instance<Self>, report: Report);
    /// Makes the boot CPU look at deadlines and events.
    fn look_again(&self);
    /// Shows the operator what a guest has sent.
    fn show(&self, vm: &'static Vm);

    /// Returns whether the machine can end its run so.
    fn can_end(&self, power: HostPower) -> bool;
    /// Ends the machine's run, after the operator has been answered.
    fn end(&self, power: HostPower);
    /// Returns the time of day when EL2 started, in seconds since 1970, if it is known.
    fn epoch_s(&self) -> Option<u64>;
    /// Sets it; of a time before 1970, modulo 2^64.
    fn set_epoch_s(&self, seconds: u64);
}

/// A VM with what only its starts, stops and resizes need.
pub struct Instance<H: Host> {
    /// The VM as its vCPUs see it.
    pub vm: &'static Vm,
    /// What the manifest says of it.
    pub config: VmConfig,
    /// The CPU that does its starts and stops.
    pub manager: PcpuId,
    kernel: &'static [u8],
    initrd: &'static [u8],
    state: FairMutex<State<H>>,
    /// The vCPU count that the operator wants.
    pub target: AtomicU16,
    /// Whether a resize waits for something, for the hot paths.
    pub resizing: AtomicBool,
    /// Its resizes.
    pub resizer: FairMutex<Resizer>,
    /// Its memory slots.
    pub memory: Memory,
    /// The first vCPU whose CPU has not heard of the VM's start.
    unwoken: AtomicU16,
    /// The operator's requests that wait for resizes to end, in the order in which they were begun, each with when, in nanoseconds.
    pub asked: FairMutex<VecDeque<(Token, u64)>>,
    /// What it has held.
    meter: FairMutex<Meter>,
    /// What has become of it.
    record: FairMutex<Record>,
}

impl<H: Host> Debug for Instance<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.vm.name, self.vm.phase().name())
    }
}

/// What a VM has while it is not off.
struct State<H: Host> {
    ram: Option<H::Ram>,
    tables: Option<(Tables, H::Pages)>,
    job: Option<Job>,
    /// Why the start in progress has come to nothing.
    failed: Option<String>,
    /// While the VM is put back to how it was before its start: how many vCPUs are.
    rewound: Option<usize>,
    /// Parts of `ram` that may still hold what another guest wrote.
    dirty: Vec<Range<u64>>,
    /// A guest has run in `ram` since its lines were last cleaned.
    lived: bool,
    /// How much has been cleaned for a sequence of set/way operations, and when and with which operand another one begins.
    swept: u64,
    sweep_again: u64,
    sweep_first: u64,
}

impl<H: Host> Default for State<H> {
    fn default() -> Self {
        Self {
            ram: None,
            tables: None,
            job: None,
            failed: None,
            rewound: None,
            dirty: Vec::new(),
            lived: false,
            swept: 0,
            sweep_again: 0,
            sweep_first: 0,
        }
    }
}

/// Every VM of the manifest.
pub struct Vms<H: Host> {
    host: H,
    instances: Vec<Instance<H>>,
    rounds: Rounds,
    vmids: FairMutex<VmidAllocator<MAX_VMS>>,
    /// The first page of the CPU interface that a GICv2's guest uses.
    gicv: Option<HostPhys>,
    space: AddressSpace,
    width: VmidWidth,
    /// What guests are told of the CPUs.
    cpu: CpuFacts,
    has_pmu_interrupt: bool,
}

impl<H: Host> Debug for Vms<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.instances).finish()
    }
}

impl<H: Host> Vms<H> {
    /// Returns every VM.
    #[must_use]
    pub fn all(&self) -> &[Instance<H>] {
        &self.instances
    }

    /// Returns a VM by its id.
    #[must_use]
    pub fn vm(&self, id: VmId) -> Option<&'static Vm> {
        let instance = self.instances.get(id.index())?;
        Some(instance.vm)
    }

    /// Returns what belongs to a VM.
    #[must_use]
    pub fn of(&self, vm: &Vm) -> &Instance<H> {
        &self.instances[vm.id.index()]
    }

    /// Brings the meters of a VM up to date with what it holds from now on.
    fn meter(&self, instance: &Instance<H>, resizer: &Resizer) {
        let held = match instance.vm.phase() {
            Phase::Off => 0,
            _ => resizer.held(),
        };
        let mut meter = instance.meter.lock();
        if meter.held() != held {
            let entitled = instance.config.entitled_vcpus();
            meter.hold(held, entitled, self.host.now_ns());
        }
    }

    /// Notes an event that happens now.
    fn event(&self, vm: &Vm, what: What) {
        self.host.event(self.host.now_ns(), vm, what);
    }

    /// Makes the CPUs of a VM's vCPUs in reserve find out whether they are needed at all.
    fn park(&self, vm: &Vm) {
        for vcpu in &*vm.vcpus {
            if vcpu.power.state() == Power::Reserve {
                self.park_vcpu(vm, vcpu);
            }
        }
    }

    /// Makes the CPU of a vCPU in reserve find out whether it is needed.
    fn park_vcpu(&self, vm: &Vm, vcpu: &Vcpu) {
        let cpu = vcpu.at.placement().pcpu();
        if self.may_power_down(vm) && !self.host.is_off(cpu) {
            self.host.ask(cpu);
        }
    }

    /// Has vCPUs that are turned on and off be noted or not, now that it has changed whether an operator hears of them.
    pub fn watch(&self) {
        for instance in &self.instances {
            // Under the lock, as a resize does it, so that neither undoes what the other has set.
            let resizer = instance.resizer.lock();
            let watched = resizer.is_active() || self.host.is_heard();
            instance.vm.watched.store(watched, Ordering::Release);
        }
    }
}

impl<H: Host> Manager for Vms<H> {
    #[cold]
    #[inline(never)]
    fn all_left(&self, vm: &'static Vm) {
        self.last_left(vm);
    }

    #[cold]
    #[inline(never)]
    fn vcpu_changed(&self, vm: &'static Vm, vcpu: &'static Vcpu, on: bool, ticks: u64) {
        let instance = self.of(vm);
        if self.host.is_heard() {
            let what = match on {
                true => What::VcpuOnline(vcpu.id),
                false => What::VcpuOffline(vcpu.id),
            };
            self.host.event(self.host.time_ns(ticks), vm, what);
        }
        if on && instance.resizing.load(Ordering::Acquire) {
            let progress = instance.resizer.lock().on_cpu_started(vm, vcpu.id);
            self.carry_out(instance, progress);
        }
    }

    fn call(&self, vm: &'static Vm, vcpu: &'static Vcpu) {
        self.look_at(vm, vcpu);
    }

    fn system_off(&self, vm: &'static Vm, cause: Cause) {
        let _was_on = self.stop(vm, cause);
    }

    fn system_reset(&self, vm: &'static Vm, cause: Cause) {
        let _was_on = self.reset(vm, cause);
    }

    fn system_fail(&self, vm: &'static Vm, what: &'static str) {
        self.fail(vm, what);
    }

    fn is_stuck(&self, vm: &'static Vm, vcpu: VcpuId, pc: u64) {
        self.note_faults(vm, vcpu, pc);
    }

    fn work(&self, vm: &'static Vm, work: Work) {
        match work {
            Work::Show => self.host.show(vm),
            Work::Attend => self.host.ask(self.of(vm).manager),
            // The trap has done so.
            Work::Repeat => {}
            Work::Resize(answer) => self.answered(vm, answer),
            Work::Memory(answer) => self.answered_memory(vm, answer),
        }
    }

    fn clean_memory(&self, vm: &'static Vm, set_way: u64) -> bool {
        self.clean_by_set_way(vm, set_way)
    }

    fn vendor_call(&self, vm: &'static Vm, frame: &mut Frame) {
        let mut kicks = Kicks::NONE;
        let mut around = Around::new(vm, DeviceId::Rtc, &self.host, &mut kicks);
        let work = crate::hypercall::answer(frame, &vm.devices, &mut around);
        self.host.kick(kicks);
        if let Some(work) = work {
            self.work(vm, work);
        }
    }

    fn asked(&self, cpu: PcpuId) -> Option<u32> {
        self.rounds.open(cpu)
    }

    fn published(&self, cpu: PcpuId, round: u32) {
        self.rounds.answer(cpu, round);
        self.host.look_again();
    }

    fn attend(&self, cpu: PcpuId) {
        self.host.attend(cpu, self.attend_devices(cpu));
    }

    fn go_on(&self, cpu: PcpuId, turn: &mut usize) -> bool {
        for _ in &self.instances {
            *turn = (*turn + 1) % self.instances.len();
            let instance = &self.instances[*turn];
            if instance.manager == cpu && self.continue_lifecycle(instance) {
                return true;
            }
        }
        false
    }

    fn is_manager(&self, cpu: PcpuId) -> bool {
        self.instances
            .iter()
            .any(|instance| instance.manager == cpu)
    }

    fn may_power_down(&self, vm: &Vm) -> bool {
        self.of(vm).config.reserve_idle == ReserveIdle::PsciOff
    }
}
