//! Virtual machines and their virtual CPUs, and with the devices the only owners of locks that a trap takes.
//!
//! Lock order, outermost first; a lock further down may be taken while one above is held, never the other way round:
//!
//! | lock | guards | taken by |
//! |---|---|---|
//! | `Vcpu::context` | registers of one vCPU | the CPU that has it attached, for as long as it is attached |
//! | `Vm::resize` | the resize in progress | lifecycle, PSCI events |
//! | those in `Vm::devices` | one device each | the vCPU that touches it, the console, the VM's manager |
//! | `Vcpu::gic` | one vCPU's interrupts | its own CPU, and vCPUs that read or write its registers |
//!
//! Power states, inboxes, SPIs and requests are atomics and need none. No CPU sends a kick or touches a guest's memory while
//! holding one of these but `Vcpu::context`.

mod around;
pub mod context;
pub mod debug;
mod hot_memory;
mod kicks;
mod life;
mod placement;
pub mod pmu;
pub mod resize;
mod stolen;
mod vcpu;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use psci::{Offered, Role};
use types::access::AccessWidth;
use types::address::{GuestPhys, HostPhys};
use types::counter::CounterRate;
use types::devices::DeviceId;
use vgic::{IntId, Notice, Spis};

use crate::devices::{Devices, DiskParts, NetParts, Parts};
use crate::features::FeaturePolicy;
use crate::sched::{Cap, Terms};
pub use around::{Around, Outside};
pub use hot_memory::{HotMemory, Slot};
pub use kicks::Kicks;
use life::Life;
pub use life::{Cause, Phase, Resume};
pub use placement::Placement;
use stolen::StolenTime;
use types::hotplug::Kind;
use types::ids::{DEFAULT_WEIGHT, VcpuId, VmId};
use types::layout::{GicVersion, GuestLayout, Redistributors, Region};
pub use vcpu::{GicRegisters, Vcpu, VcpuContext, Wakes, request};

/// A virtual machine: what is fixed for its life, and what its vCPUs share.
#[derive(Debug)]
pub struct Vm {
    /// Its index.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Its map.
    pub layout: GuestLayout,
    /// Where its redistributors are.
    pub redistributors: Redistributors,
    /// Its RAM.
    pub memory: Region,
    /// What is added to it and taken back while it runs.
    pub hot: &'static HotMemory,
    /// What its CPUs show.
    pub policy: FeaturePolicy,
    /// What its firmware offers.
    pub offered: Offered,
    /// Every vCPU it may ever have, by [`VcpuId`].
    pub vcpus: Box<[Vcpu]>,
    /// What its guest reads of the time that was stolen from them.
    pub stolen_time: StolenTime,
    /// Its SPIs.
    pub gic: Spis,
    /// Its devices.
    pub devices: Devices,
    /// Host address at which its RAM begins; 0 before it has some, which it keeps.
    pub ram_start: AtomicU64,
    /// VTTBR_EL2 while it runs.
    pub vttbr: AtomicU64,
    /// VTCR_EL2 while it runs.
    pub vtcr: AtomicU64,
    /// CNTVOFF_EL2: ticks by which its virtual counter is behind the machine's.
    pub counter_offset: AtomicU64,
    /// What it is doing.
    pub life: Life,
    /// What its vCPUs may use of all CPUs together.
    pub cap: Cap,
    /// How much of a CPU each of its vCPUs has beside others that want it.
    pub weight: AtomicU16,
    /// Whether a client wants to know of single vCPUs coming and going: a control channel, or a resize.
    pub watched: AtomicBool,
}

/// What a new VM is made of.
#[derive(Debug)]
pub struct VmParts {
    /// Its index.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Its map.
    pub layout: GuestLayout,
    /// Its RAM.
    pub memory: Region,
    /// What its CPUs show.
    pub policy: FeaturePolicy,
    /// Number of vCPUs that run from boot; at least 1.
    pub boot_vcpus: u16,
    /// Number of vCPUs it may ever have.
    pub possible: u16,
    /// How CPUs are told of their vCPUs.
    pub wakes: &'static Wakes,
    /// List registers of the machine.
    pub list_registers: usize,
    /// The system counter's rate.
    pub counter: CounterRate,
    /// Seconds since 1970 now.
    pub wall_clock_s: u32,
    /// Its disks.
    pub disks: Vec<DiskParts>,
    /// Its ports of networks.
    pub nets: Vec<NetParts>,
    /// Whether it has a source of randomness.
    pub has_rng: bool,
}

impl Vm {
    /// Makes a VM that is off, and whose vCPUs have no place yet.
    #[must_use]
    pub fn new(parts: VmParts) -> Self {
        let count = parts.possible;
        let redistributors = parts.layout.redistributors(count);
        let vcpus = (0..count)
            .map(|index| {
                let id = VcpuId::new(index);
                let role = if id.get() < parts.boot_vcpus {
                    Role::Boot
                } else {
                    Role::Hotplug
                };
                let gic = (parts.layout.gic, parts.list_registers);
                Vcpu::new(id, parts.wakes, role, gic)
            })
            .collect();
        Self {
            id: parts.id,
            name: parts.name,
            gic: match parts.layout.gic {
                GicVersion::V2 => Spis::new(parts.layout.spi_count, count).unrouted(),
                GicVersion::V3 => Spis::new(parts.layout.spi_count, count),
            },
            devices: Devices::new(&Parts {
                possible: count,
                wall_clock_s: parts.wall_clock_s,
                disks: &parts.disks,
                nets: &parts.nets,
                has_rng: parts.has_rng,
                slots: parts.layout.slots.count,
            }),
            // Its guest's devices and vCPUs hold on to it; VMs are never dropped.
            hot: Box::leak(Box::new(HotMemory::new(parts.layout.slots))),
            layout: parts.layout,
            redistributors,
            memory: parts.memory,
            policy: parts.policy,
            offered: Offered {
                pv_time: true,
                ..Offered::default()
            },
            vcpus,
            stolen_time: StolenTime::new(count, parts.counter),
            ram_start: AtomicU64::new(0),
            vttbr: AtomicU64::new(0),
            vtcr: AtomicU64::new(0),
            counter_offset: AtomicU64::new(0),
            life: Life::default(),
            cap: Cap::at(parts.counter),
            weight: AtomicU16::new(DEFAULT_WEIGHT),
            watched: AtomicBool::new(false),
        }
    }

    /// Returns what its contract says of its vCPUs' time.
    #[must_use]
    pub fn terms(&'static self) -> Terms {
        Terms {
            cap: self.cap.is_set().then_some(&self.cap),
            weight: self.weight.load(Ordering::Relaxed),
        }
    }

    /// Returns what the VM is doing.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.life.phase()
    }

    /// Returns whether the VM is on its way to be off or to start anew.
    #[inline]
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase(), Phase::Stopping | Phase::Resetting)
    }

    /// Notes a vCPU whose registers a CPU takes over; returns whether the VM wants that. Otherwise call [`Vm::disown`] at once.
    #[must_use]
    pub fn own(&self, vcpu: &Vcpu) -> bool {
        vcpu.is_owned.store(true, Ordering::SeqCst);
        self.life.own()
    }

    /// Notes a vCPU whose registers are given back; returns whether no CPU owns any now.
    #[must_use]
    pub fn disown(&self, vcpu: &Vcpu) -> bool {
        vcpu.is_owned.store(false, Ordering::SeqCst);
        self.life.disown()
    }

    /// Returns whether no CPU runs one of its vCPUs or owns the registers of one.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.life.is_left()
    }

    /// Finds a vCPU by its id.
    #[inline]
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        self.vcpus.get(id.index())
    }

    /// Finds a vCPU by the affinity fields of an MPIDR.
    #[inline]
    #[must_use]
    pub fn vcpu_by_affinity(&self, affinity: u64) -> Option<&Vcpu> {
        self.vcpu(VcpuId::from_affinity(affinity)?)
    }

    /// Returns whether a guest address lies in the VM's RAM.
    #[inline]
    #[must_use]
    pub fn is_ram(&self, address: GuestPhys) -> bool {
        address.get().wrapping_sub(self.memory.base.get()) < self.memory.size
            || self.hot.find(address).is_some()
    }

    /// Returns where a word of the VM's RAM is in the host's; `None` if it is none, or no multiple of its width.
    #[must_use]
    pub fn ram_word(&self, address: GuestPhys, width: AccessWidth) -> Option<HostPhys> {
        let start = self.ram_start.load(Ordering::Acquire);
        let offset = address.get().wrapping_sub(self.memory.base.get());
        // RAM is whole pages, so a word that begins in it and is aligned ends in it.
        let is_word = start != 0 && address.is_aligned(width.bytes());
        if is_word && offset >= self.memory.size {
            let (host, _) = self.hot.find(address)?;
            return Some(HostPhys::new(host));
        }
        is_word.then(|| HostPhys::new(start + offset))
    }

    /// Tells a vCPU of an interrupt, and wakes it if it does not know of one already.
    #[inline(never)]
    fn post(&self, vcpu: u16, notice: Notice, kicks: &mut Kicks) {
        if let Some(vcpu) = self.vcpus.get(usize::from(vcpu))
            && vcpu.inbox.post(notice)
        {
            vcpu.notify(kicks);
        }
    }

    /// Returns what tells vCPUs of interrupts: the same for all callers of the interrupt controller, so
    /// that there is one of each of its functions.
    #[inline]
    pub fn poster<'a>(&'a self, kicks: &'a mut Kicks) -> impl FnMut(u16, Notice) + use<'a> {
        move |vcpu, notice| self.post(vcpu, notice, kicks)
    }

    /// Moves an SPI's line.
    #[inline]
    fn set_line(&self, intid: u32, high: bool, kicks: &mut Kicks) {
        if let Some(intid) = IntId::new(intid) {
            self.gic.set_level(intid, high, &mut self.poster(kicks));
        }
    }

    /// Raises the edge-triggered interrupt of a device.
    #[inline]
    pub fn pulse(&self, device: DeviceId, kicks: &mut Kicks) {
        if let Some(intid) = IntId::new(self.layout.device(device).intid) {
            self.gic.pulse(intid, &mut self.poster(kicks));
        }
    }

    /// Asks something of every vCPU; those whose registers a CPU has are made to look at once.
    ///
    /// One that no CPU has looks when it is turned on. A CPU that takes its registers over now says so first and reads the VM's phase
    /// after ([`Vm::own`]); the caller has changed the phase before, so one of the two sees the other. So a VM's many vCPUs in reserve
    /// cost other VMs' CPUs nothing when it is reset.
    pub fn request_all(&self, request: u32, kicks: &mut Kicks) {
        for vcpu in &*self.vcpus {
            vcpu.requests.fetch_or(request, Ordering::SeqCst);
            if vcpu.is_owned.load(Ordering::SeqCst) {
                vcpu.wake(kicks);
            }
        }
    }
}

impl resize::Cells for Vm {
    fn possible(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Vcpu => self.vcpus.len() as u16,
            Kind::Slot => self.hot.slots.count,
        }
    }

    fn cell(&self, kind: Kind, vcpu: VcpuId) -> Option<&psci::PowerCell> {
        match kind {
            Kind::Vcpu => self.vcpu(vcpu).map(|vcpu| &vcpu.power),
            Kind::Slot => self.hot.slot(vcpu).map(|slot| &slot.cell),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
