//! What a physical CPU does for its state machine, and what it keeps where its hot path finds it.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use vgic::{CpuInterface, ListRegisters};

use crate::devices::Work;
use crate::dispatch::inject::Exception;
use crate::dispatch::slow::Exit;
use crate::features::{FeaturePolicy, Lent};
use crate::sched::{NEVER, WakeSet};
use crate::spin::Sight;
use crate::vm::context::{FpRegisters, Frame, Owner, TimerRegisters};
use crate::vm::{Cause, Kicks, Vcpu, VcpuContext, Vm};
use types::access::AccessWidth;
use types::address::GuestPhys;
use types::ids::{PcpuId, VcpuId};

/// Causes that leave the guest, as [`Machine::enter`] returns them.
pub mod cause {
    /// A synchronous exception that the hot path did not settle.
    pub const SYNC: u64 = 1;
    /// An interrupt that needs more than the hot path does.
    pub const IRQ: u64 = 2;
    /// A system error.
    pub const SERROR: u64 = 3;
    /// The vCPU waits for an interrupt; one for EL2 may have been acknowledged.
    pub const WAIT: u64 = 5;
    /// The vCPU waits for an interrupt, nothing is there that could wake it, and something else wants the CPU.
    pub const REST: u64 = 6;
    /// A device has something to be done outside the guest, which is in [`super::Local::work`].
    pub const WORK: u64 = 7;
    /// The vCPU turns itself off. A bit of its own: the vectors test for it.
    pub const OFF: u64 = 8;
}

/// What a CPU's state machine and its hot path tell each other; only this CPU reads it.
#[derive(Debug)]
pub struct Local {
    /// The CPU.
    pub id: PcpuId,
    /// Slots that others want it to look at.
    pub wakes: &'static WakeSet,
    /// Whether it has work besides running guests; other CPUs set it.
    pub deferred: &'static AtomicBool,
    /// The vCPU whose registers it holds.
    pub loaded: Cell<Option<Owner>>,
    /// An interrupt that was acknowledged on the hot path and is left for the state machine.
    pub acknowledged: Cell<Option<u32>>,
    /// What a device of the loaded vCPU's VM has left to be done.
    pub work: Cell<Option<Work>>,
    /// Whether another vCPU, or deferred work, waits for the loaded vCPU to leave it the CPU.
    pub need_resched: Cell<bool>,
    /// When it has to look at its deferred work by itself, in counter ticks.
    pub deferred_deadline: Cell<u64>,
    /// When EL2's timer is set to fire, in counter ticks.
    pub armed: Cell<u64>,
}

impl Local {
    /// Makes what a CPU keeps before it has run anything.
    #[must_use]
    pub const fn new(id: PcpuId, wakes: &'static WakeSet, deferred: &'static AtomicBool) -> Self {
        Self {
            id,
            wakes,
            deferred,
            loaded: Cell::new(None),
            acknowledged: Cell::new(None),
            work: Cell::new(None),
            need_resched: Cell::new(false),
            deferred_deadline: Cell::new(NEVER),
            armed: Cell::new(NEVER),
        }
    }

    /// Returns whether it has work besides running guests.
    #[inline(always)]
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        self.deferred.load(Ordering::Acquire)
    }
}

/// A physical interrupt that the hot path leaves, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// EL2's own timer.
    Timer,
    /// The virtual CPU interface wants its list registers looked at.
    Maintenance,
    /// A device of the host.
    Device,
}

/// The registers and instructions of one physical CPU.
///
/// Each method acts on the CPU that calls it. Times are ticks of the system counter.
pub trait Machine {
    /// Its list registers.
    type Lists: ListRegisters;
    /// What is done for whole VMs.
    type Manager: Manager;

    /// Returns what the CPU keeps for its hot path.
    fn local(&self) -> &'static Local;
    /// Returns what does the rest for VMs; there are VMs.
    fn manager(&self) -> &Self::Manager;
    /// Returns its list registers.
    fn lists(&self) -> Self::Lists;
    /// Returns what the loaded vCPU's CPU interface lets through.
    fn cpu_interface(&self) -> CpuInterface;

    /// Returns the system counter.
    fn now(&self) -> u64;
    /// Converts a duration in nanoseconds to ticks.
    fn ticks(&self, ns: u64) -> u64;
    /// Makes EL2's timer fire at a deadline, or never at [`NEVER`].
    fn arm(&self, deadline_ticks: u64);
    /// Sleeps until there is an interrupt (WFI).
    fn sleep(&self);
    /// Returns whether a physical interrupt is pending (ISR_EL1).
    fn is_interrupted(&self) -> bool;
    /// Acknowledges an interrupt; returns whether it is left in [`Local::acknowledged`] for the state machine.
    fn acknowledge(&self) -> bool;
    /// Drops the running priority after an acknowledge and says what the interrupt is for.
    fn classify(&self, intid: u32) -> Interrupt;
    /// Answers an interrupt of a device of the host.
    fn device(&self, intid: u32);
    /// Makes an interrupt inactive.
    fn deactivate(&self, intid: u32);
    /// Makes the physical interrupts behind private ones of a guest inactive, a bit each.
    fn deactivate_all(&self, intids: u32);
    /// Interrupts other CPUs, so that they look at what was left for them.
    fn kick(&self, kicks: Kicks);

    /// Loads what the vCPUs of a VM have in common: its tables, its traps, its time.
    fn load_vm(&self, vm: &Vm);
    /// Forgets what another vCPU of the loaded VM has left in this CPU's TLB and instruction cache.
    fn forget_sibling(&self);
    /// Loads a vCPU's registers but for its list registers, its timers and the FP unit.
    fn load_vcpu(&self, vcpu: &Vcpu, policy: &FeaturePolicy, context: &mut VcpuContext);
    /// Saves what [`Machine::load_vcpu`] loads.
    fn save_vcpu(&self, policy: &FeaturePolicy, context: &mut VcpuContext);
    /// Loads a vCPU's timers; a deadline that has passed fires at once.
    fn load_timers(&self, timers: &TimerRegisters);
    /// Saves a vCPU's timers and silences them.
    fn save_timers(&self, timers: &mut TimerRegisters);
    /// Silences the loaded vCPU's timers.
    fn silence_timers(&self);
    /// Sets those registers to which a reset gives a value; the others keep what the same vCPU left in them.
    fn load_known_reset(&self);
    /// Waits until writes of system registers have taken effect (ISB).
    fn synchronize(&self);
    /// Makes the physical interrupt behind a private one of a guest active.
    fn set_active(&self, intid: u32);
    /// Makes the physical interrupt behind a private one of a guest inactive by the redistributor.
    fn clear_active(&self, intid: u32);
    /// Sets CPTR_EL2.
    fn set_cptr(&self, cptr: u64);
    /// Sets HCR_EL2.
    fn set_hcr(&self, hcr: u64);
    /// Saves the FP registers; they do not trap.
    fn save_fp(&self, registers: &mut FpRegisters);
    /// Loads the FP registers; they do not trap.
    fn load_fp(&self, registers: &FpRegisters);
    /// Lends a unit of the CPU, as after a reset, to the loaded vCPU.
    fn lend(&self, policy: &FeaturePolicy, context: &mut VcpuContext, unit: Lent);
    /// Takes back what is lent to a vCPU that turns itself off.
    fn stop_lending(&self, policy: &FeaturePolicy, lent: Lent);
    /// Sets MDSCR_EL1 of the loaded vCPU.
    fn set_mdscr(&self, value: u64);
    /// Returns ELR_EL1 of the loaded vCPU.
    fn elr_el1(&self) -> u64;
    /// Returns what says where the loaded vCPU's code and data are.
    fn sight(&self) -> Sight;
    /// Reads a VM's RAM, by one access; `None` where it has none. The address is a multiple of the width.
    fn read_ram(&self, vm: &Vm, address: GuestPhys, width: AccessWidth) -> Option<u64>;
    /// Lets another CPU go first on a machine that runs one CPU at a time (YIELD).
    fn relax(&self);
    /// Makes the loaded vCPU take an exception at EL1.
    fn inject(&self, frame: &mut Frame, exception: Exception);

    /// Runs the loaded vCPU until something happens that the hot path does not settle; returns one of [`cause`].
    fn enter(&self, frame: &mut Frame) -> u64;
    /// Returns the synchronous exception that ended the last [`Machine::enter`].
    fn exit(&self) -> Exit;
    /// Turns this CPU off until it is given work, unless `is_wanted` says that there is some; returns whether it was off and has
    /// lost its registers.
    fn power_down(&self, is_wanted: impl FnOnce() -> bool) -> bool;
}

/// What is done for VMs beside running their vCPUs: starts and stops, hot-plug, events.
pub trait Manager {
    /// Hears that no vCPU of a VM is on a CPU any more.
    fn all_left(&self, vm: &'static Vm);
    /// Hears that a vCPU was turned on or turned itself off, at this value of the counter.
    fn vcpu_changed(&self, vm: &'static Vm, vcpu: &'static Vcpu, on: bool, ticks: u64);
    /// Makes the CPU where a vCPU is placed now look at it.
    fn call(&self, vm: &'static Vm, vcpu: &'static Vcpu);
    /// Turns a VM off.
    fn system_off(&self, vm: &'static Vm, cause: Cause);
    /// Starts a VM anew.
    fn system_reset(&self, vm: &'static Vm, cause: Cause);
    /// Turns a VM off that did what it must not.
    fn system_fail(&self, vm: &'static Vm, what: &'static str);
    /// Notes that a vCPU faults at `pc` without end.
    fn is_stuck(&self, vm: &'static Vm, vcpu: VcpuId, pc: u64);
    /// Does what an access to a VM's device has left to be done.
    fn work(&self, vm: &'static Vm, work: Work);
    /// Cleans a VM's memory by set and way; returns whether the operation has had its effect.
    fn clean_memory(&self, vm: &'static Vm, set_way: u64) -> bool;
    /// Answers a call of Bullpen's own.
    fn vendor_call(&self, vm: &'static Vm, frame: &mut Frame);
    /// Returns the round in which a CPU has been asked to publish what it keeps, if it has not answered.
    fn asked(&self, cpu: PcpuId) -> Option<u32>;
    /// Hears that a CPU has published what it kept when it was asked in a round.
    fn published(&self, cpu: PcpuId, round: u32);
    /// Does what a CPU has to do at times that were set, and the boot CPU for the operator.
    fn attend(&self, cpu: PcpuId);
    /// Does one step of starting or stopping one of the VMs that a CPU manages, in turn; returns whether there may be more at once.
    fn go_on(&self, cpu: PcpuId, turn: &mut usize) -> bool;
    /// Returns whether a CPU manages a VM.
    fn is_manager(&self, cpu: PcpuId) -> bool;
    /// Returns whether the CPU of a VM's vCPUs in reserve may be turned off.
    fn may_power_down(&self, vm: &Vm) -> bool;
}
