//! CPUs: what belongs to each, and how a further one is started and stopped.
#![expect(unsafe_code, reason = "per-CPU data found through TPIDR_EL1")]

use crate::exception::Fault;
use crate::{gic, machine, mmu, mrs, psci};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Most CPUs a guest uses.
pub const MAX_CPUS: usize = 64;

/// MPIDR_EL1's affinity fields.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// One CPU's own data.
#[repr(C, align(64))]
pub struct Cpu {
    index: AtomicUsize,
    probing: AtomicBool,
    fault: UnsafeCell<Fault>,
    code: UnsafeCell<[u32; 2]>,
    task: AtomicUsize,
    argument: AtomicU64,
    running: AtomicBool,
    redistributor: AtomicU64,
}

// SAFETY: `fault` and `code` are touched by their own CPU only.
unsafe impl Sync for Cpu {}

/// Where the entry code finds a CPU's index.
pub(crate) const INDEX_OFFSET: usize = offset_of!(Cpu, index);

pub(crate) static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

impl Cpu {
    const fn new() -> Self {
        Self {
            index: AtomicUsize::new(0),
            probing: AtomicBool::new(false),
            fault: UnsafeCell::new(Fault {
                esr: 0,
                far: 0,
                elr: 0,
                vector: 0,
            }),
            code: UnsafeCell::new([0; 2]),
            task: AtomicUsize::new(0),
            argument: AtomicU64::new(0),
            running: AtomicBool::new(false),
            redistributor: AtomicU64::new(0),
        }
    }

    /// Returns this CPU's index in the device tree's order.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    pub(crate) fn arm_probe(&self) {
        self.probing.store(true, Ordering::Relaxed);
    }

    /// Ends a probe; returns whether one was still going on.
    pub(crate) fn take_probe(&self) -> bool {
        self.probing.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn record(&self, fault: Fault) {
        // SAFETY: only this CPU's handler and probe touch it, one after the other.
        unsafe { self.fault.get().write(fault) };
    }

    pub(crate) fn recorded(&self) -> Fault {
        // SAFETY: as in `record`.
        unsafe { self.fault.get().read() }
    }

    pub(crate) fn code_slot(&self) -> *mut u32 {
        self.code.get().cast()
    }

    /// Returns the address of this CPU's redistributor, once [`gic::init_cpu`] has found it.
    #[must_use]
    pub fn redistributor(&self) -> u64 {
        self.redistributor.load(Ordering::Relaxed)
    }

    pub(crate) fn set_redistributor(&self, address: u64) {
        self.redistributor.store(address, Ordering::Relaxed);
    }
}

/// Returns the data of the CPU that runs this.
#[must_use]
pub fn current() -> &'static Cpu {
    let address = mrs!("tpidr_el1") as *const Cpu;
    // SAFETY: the entry code put the address of an element of CPUS there.
    unsafe { &*address }
}

/// Returns the data of a CPU by its index.
#[must_use]
pub fn get(index: usize) -> Option<&'static Cpu> {
    CPUS.get(index)
}

/// Returns the affinity of the CPU that runs this.
#[must_use]
pub fn affinity() -> u64 {
    mrs!("mpidr_el1") & AFFINITY
}

/// Gives every CPU its index; called once, on the boot CPU.
pub(crate) fn init_boot() {
    for (index, cpu) in CPUS.iter().enumerate() {
        cpu.index.store(index, Ordering::Relaxed);
    }
}

/// Returns the address a secondary CPU is started at.
#[must_use]
pub fn entry_address() -> u64 {
    unsafe extern "C" {
        fn rt_secondary();
    }
    rt_secondary as *const () as u64
}

/// Prepares a CPU's data for a start; returns the context that [`entry_address`] expects in x0.
///
/// The CPU will run `task(argument)` and turn itself off when that returns.
#[must_use]
pub fn prepare(index: usize, task: fn(u64), argument: u64) -> u64 {
    let Some(cpu) = get(index) else { return 0 };
    cpu.task.store(task as usize, Ordering::Relaxed);
    cpu.argument.store(argument, Ordering::Relaxed);
    cpu.running.store(false, Ordering::Release);
    let context = core::ptr::from_ref(cpu) as u64;
    mmu::clean(context, size_of::<Cpu>() as u64);
    context
}

/// Starts the CPU of this index; returns PSCI's answer.
#[must_use]
pub fn start(index: usize, task: fn(u64), argument: u64) -> i64 {
    let Some(&mpidr) = machine().cpus().get(index) else {
        return psci::INVALID_PARAMETERS;
    };
    let context = prepare(index, task, argument);
    psci::cpu_on(mpidr, entry_address(), context)
}

/// Waits up to a second until AFFINITY_INFO says that a CPU is off.
#[must_use]
pub fn wait_off(index: usize) -> bool {
    let Some(&mpidr) = machine().cpus().get(index) else {
        return false;
    };
    crate::timer::within_ms(1000, || psci::affinity_info(mpidr) == psci::AFFINITY_OFF)
}

/// Tells whether a started CPU has reached its task.
#[must_use]
pub fn is_running(index: usize) -> bool {
    get(index).is_some_and(|cpu| cpu.running.load(Ordering::Acquire))
}

pub(crate) extern "C" fn secondary_start() -> ! {
    let cpu = current();
    gic::init_cpu();
    let task = cpu.task.load(Ordering::Relaxed);
    cpu.running.store(true, Ordering::Release);
    // SAFETY: `prepare` stored a `fn(u64)`.
    let task: fn(u64) = unsafe { core::mem::transmute::<usize, fn(u64)>(task) };
    task(cpu.argument.load(Ordering::Relaxed));
    crate::exception::mask();
    let refused = psci::cpu_off();
    println!("PANIC CPU_OFF of CPU {} returned {refused}", cpu.index());
    psci::system_off()
}
