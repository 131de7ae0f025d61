//! A virtual CPU: what every CPU may touch (atomics and its interrupts) and what only the CPU that runs it does.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use psci::{PowerCell, Role};
use spin::mutex::SpinMutex;
use vgic::{Inbox, SavedListRegisters, Sgis, VcpuInterrupts};

use super::context::{
    FpRegisters, Frame, PSTATE_EL1_MASKED, Streak, SystemRegisters, TimerRegisters,
};
use super::debug::DebugRegisters;
use super::kicks::Kicks;
use super::placement::PlacementCell;
use super::pmu::PmuRegisters;
use crate::features::Lent;
use crate::sched::{Usage, WakeSet};
use types::ids::VcpuId;
use types::layout::GicVersion;
use types::stats::ExitCounters;

/// What another CPU asks of the one that runs a vCPU.
pub mod request {
    /// Leave: the VM is being stopped or reset.
    pub const STOP: u32 = 1;
    /// Stay out of the guest until the VM is resumed.
    pub const PAUSE: u32 = 1 << 1;
    /// Give it up: it is wanted on another CPU.
    pub const MOVE: u32 = 1 << 2;
    /// Take it over: it ran on another CPU.
    pub const ARRIVE: u32 = 1 << 3;
    /// Take what the contract of its VM says now.
    pub const AGREE: u32 = 1 << 4;
    /// Run it before others if it waits for its CPU: another vCPU waits for it to be off.
    pub const HURRY: u32 = 1 << 5;
}

/// The bits by which each CPU is told to look at its places.
pub type Wakes = [WakeSet];

/// A virtual CPU, as every CPU sees it.
#[derive(Debug)]
pub struct Vcpu {
    /// Its index within its VM.
    pub id: VcpuId,
    /// Where it is.
    pub at: PlacementCell,
    wakes: &'static Wakes,
    /// Whether a CPU has its registers, or is about to find out whether its VM lets it.
    pub is_owned: AtomicBool,
    /// Whether it is on, held in reserve, or on its way.
    pub power: PowerCell,
    /// Interrupts others have sent it.
    pub inbox: Inbox,
    /// What others ask of the CPU that runs it: bits of [`request`].
    pub requests: AtomicU32,
    /// Its private interrupts and what it knows of the shared ones.
    pub gic: SpinMutex<VcpuInterrupts>,
    /// How often it left the guest, by reason.
    pub exits: ExitCounters,
    /// What it has had of its CPU, when that was last published.
    pub usage: Usage,
    /// Its registers while it is attached.
    pub context: SpinMutex<VcpuContext>,
}

impl Vcpu {
    /// Makes a vCPU that is off and has no place.
    #[must_use]
    pub fn new(
        id: VcpuId,
        wakes: &'static Wakes,
        role: Role,
        (gic, lists): (GicVersion, usize),
    ) -> Self {
        let sgis = match gic {
            GicVersion::V2 => Sgis::BySource,
            GicVersion::V3 => Sgis::ByNumber,
        };
        Self {
            id,
            at: PlacementCell::default(),
            wakes,
            is_owned: AtomicBool::new(false),
            power: PowerCell::new(role),
            inbox: Inbox::new(),
            requests: AtomicU32::new(0),
            gic: SpinMutex::new(VcpuInterrupts::new(id.get(), sgis, lists)),
            exits: ExitCounters::new(),
            usage: Usage::default(),
            context: SpinMutex::new(VcpuContext::new(lists)),
        }
    }

    /// Makes the CPU it belongs to look at it.
    #[inline]
    pub fn wake(&self, kicks: &mut Kicks) {
        let placement = self.at.placement();
        let wakes = self.wakes.get(placement.pcpu().index());
        if wakes.is_some_and(|wakes| wakes.set(placement.slot())) {
            kicks.add(placement.pcpu());
        }
    }

    /// Makes the CPU it belongs to look at its inbox, after something was put into it.
    ///
    /// The CPU that unloads it says so first and looks at the inbox after, so one of the two sees the other; see [`super::placement`].
    #[inline]
    pub fn notify(&self, kicks: &mut Kicks) {
        if self.at.loaded.load(Ordering::SeqCst) {
            kicks.add(self.at.placement().pcpu());
        } else {
            self.wake(kicks);
        }
    }

    /// Returns whether anything is asked of the CPU that runs it.
    #[inline]
    #[must_use]
    pub fn requested(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Takes a request back; returns whether it was made.
    #[inline]
    pub fn take_request(&self, request: u32) -> bool {
        self.requests.fetch_and(!request, Ordering::SeqCst) & request != 0
    }

    /// Makes the CPU it belongs to run it before others, if it waits for that CPU.
    #[cold]
    pub fn hurry(&self, kicks: &mut Kicks) {
        self.requests.fetch_or(request::HURRY, Ordering::SeqCst);
        self.wake(kicks);
    }

    /// Returns MPIDR_EL1 as the vCPU shows it: RES1 bit 31, affinity by index.
    #[must_use]
    pub const fn mpidr(&self) -> u64 {
        1 << 31 | self.id.affinity()
    }
}

/// The GIC registers of a vCPU that is not loaded (GIC IHI0069, 12.4; IHI0048, 5.3).
#[derive(Clone, Debug)]
pub struct GicRegisters {
    /// ICH_VMCR_EL2, or on a GICv2 GICH_VMCR.
    pub vmcr: u64,
    /// ICH_AP0R0_EL2, or on a GICv2 GICH_APR.
    pub ap0r: u64,
    /// ICH_AP1R0_EL2.
    pub ap1r: u64,
    /// `ICH_LR<n>_EL2` or `GICH_LR<n>`, and the maintenance control.
    pub list: SavedListRegisters,
    /// Whether there is something in `list`, or a physical interrupt behind one of the vCPU's.
    pub kept: bool,
}

/// The registers of a vCPU; [`Frame`] comes first because the vectors of `el2` find the rest by it.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct VcpuContext {
    /// General registers.
    pub frame: Frame,
    /// EL1 system registers.
    pub system: SystemRegisters,
    /// Timers.
    pub timers: TimerRegisters,
    /// Interrupt interface.
    pub gic: GicRegisters,
    /// FP and SIMD registers.
    pub fp: FpRegisters,
    /// What of the CPU this vCPU uses; the registers of these units are part of its world switch.
    pub lent: Lent,
    /// PMU registers.
    pub pmu: PmuRegisters,
    /// Breakpoints and watchpoints.
    pub debug: DebugRegisters,
    /// Whether the system registers are still those of a reset, whatever `system` holds.
    pub fresh: bool,
    /// Whether the FP registers are still those of a reset, whatever `fp` holds.
    pub fresh_fp: bool,
    /// It stands still because its VM is paused.
    pub halted: bool,
    /// Whether the guest sleeps in CPU_SUSPEND power-down and where it begins after.
    pub suspended: Option<psci::EntryPoint>,
    /// The faults that it takes again and again.
    pub faults: Streak,
}

impl VcpuContext {
    /// Makes the registers of a vCPU that has never run.
    #[must_use]
    pub fn new(list_registers: usize) -> Self {
        Self {
            frame: Frame::default(),
            system: SystemRegisters::RESET,
            timers: TimerRegisters::default(),
            gic: GicRegisters {
                vmcr: 0,
                ap0r: 0,
                ap1r: 0,
                list: SavedListRegisters::new(list_registers),
                kept: false,
            },
            fp: FpRegisters::default(),
            lent: Lent::NONE,
            pmu: PmuRegisters::default(),
            debug: DebugRegisters::default(),
            fresh: true,
            fresh_fp: true,
            halted: false,
            suspended: None,
            faults: Streak::default(),
        }
    }

    /// Sets the registers of a vCPU that turned itself off and whose system registers are untouched since.
    ///
    /// What a reset leaves unknown keeps its value, which was this vCPU's own; `el2` sets the rest.
    #[inline]
    pub fn power_on_again(&mut self, at: psci::EntryPoint) {
        self.frame.x[0] = at.context_id;
        self.frame.pc = at.address;
        self.frame.pstate = PSTATE_EL1_MASKED;
        self.fresh_fp = true;
        self.lent = Lent::NONE;
    }

    /// Sets the registers as PSCI promises them to a CPU that is turned on (PSCI DEN0022, 6.4).
    ///
    /// The interrupt interface is part of the CPU and starts afresh; list registers belong to its interrupts.
    pub fn power_on(&mut self, at: psci::EntryPoint) {
        self.frame.x = [0; 31];
        self.frame.x[0] = at.context_id;
        self.frame.pc = at.address;
        self.frame.pstate = PSTATE_EL1_MASKED;
        self.timers = TimerRegisters::default();
        self.gic.vmcr = 0;
        self.gic.ap0r = 0;
        self.gic.ap1r = 0;
        self.lent = Lent::NONE;
        self.fresh = true;
        self.fresh_fp = true;
        self.suspended = None;
        self.faults = Streak::default();
    }
}
