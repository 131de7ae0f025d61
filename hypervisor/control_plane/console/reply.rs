//! What the hypervisor answers and tells: plain values, written as text by `text` and as JSON by `json`.

use super::usage::Topic;
use crate::resize::{Report, meter::Meter};
use alloc::{boxed::Box, string::String, vec::Vec};
use types::entitlement::Entitlement;
use types::ids::{PcpuId, VcpuId, VmId};
use types::stats::ExitCounts;

/// The answer to a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done, and there is nothing to tell.
    Done,
    /// What the commands are.
    Help(Topic),
    /// The terminal now shows this VM's console.
    Attached(VmId),
    /// The VMs.
    VmList(Vec<VmRow>),
    /// Everything about a VM.
    VmShow(Box<VmPage>),
    /// What VMs and vCPUs have had.
    Top(Sample),
    /// The meters of VMs.
    Usage {
        /// When, in nanoseconds since the hypervisor's start.
        time_ns: u64,
        /// The VMs.
        vms: Vec<MeterRow>,
    },
    /// The vCPUs of a VM.
    VcpuList {
        /// The VM.
        vm: VmId,
        /// Its vCPUs by id.
        vcpus: Vec<VcpuRow>,
    },
    /// The memory slots of a VM.
    MemoryList {
        /// The VM.
        vm: VmId,
        /// Its slots by number.
        slots: Vec<MemoryRow>,
    },
    /// How a resize ended.
    Resize(ResizeReport),
    /// Exits by reason.
    Stats(Vec<StatsRow>),
    /// The virtio devices of a VM.
    DeviceList {
        /// The VM.
        vm: VmId,
        /// Its devices, in the order of their slots.
        devices: Vec<DeviceRow>,
    },
    /// Disks.
    DiskList(Vec<DiskRow>),
    /// Ports of networks.
    NetList(Vec<NetRow>),
    /// The hypervisor's log: lines that end in a line feed.
    Log(String),
    /// The host.
    Host(HostReport),
    /// The time of day.
    HostTime {
        /// Seconds since 1970.
        unix_s: u64,
        /// Whether a clock or the operator has told it; if not it counts from the hypervisor's start.
        known: bool,
    },
}

/// One VM in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRow {
    /// The VM.
    pub vm: VmId,
    /// The state's word: "running", "paused", "off" or "failed".
    pub state: &'static str,
    /// vCPUs that are on.
    pub on: u16,
    /// vCPUs that the operator wants the guest to have.
    pub target: u16,
    /// The most vCPUs that the guest can have.
    pub possible: u16,
    /// The guest's memory in bytes.
    pub memory_bytes: u64,
    /// Why the VM is in this state, if there is something to say.
    pub note: Option<String>,
}

/// Everything about one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPage {
    /// What a list of VMs has of it.
    pub row: VmRow,
    /// vCPUs that are on from boot.
    pub boot: u16,
    /// The most memory that the guest can have, in bytes.
    pub max_memory_bytes: u64,
    /// The physical CPUs that its vCPUs which are on are on, ascending.
    pub cpus: Vec<PcpuId>,
    /// What its vCPUs may use of all CPUs together, in thousandths of a CPU, if that is limited.
    pub cap: Option<u32>,
    /// How much of a CPU each of its vCPUs has beside others that want it.
    pub weight: u16,
    /// What may be asked for it.
    pub entitlement: Entitlement,
    /// The name of its kernel.
    pub kernel: &'static str,
    /// The name of its initial RAM disk, if it has one.
    pub initrd: Option<&'static str>,
    /// The kernel's command line.
    pub command_line: &'static str,
    /// The word for what its firmware describes the machine by: "acpi" or "fdt".
    pub firmware: &'static str,
    /// Exits of all its vCPUs since its start.
    pub exits: u64,
    /// When this was written, in nanoseconds since the hypervisor's start.
    pub time_ns: u64,
    /// When the guest began that runs now.
    pub started_ns: Option<u64>,
    /// How often it was reset since the hypervisor's start.
    pub resets: u32,
    /// When it was last reset, and the word for where that came from.
    pub last_reset: Option<(u64, &'static str)>,
    /// When it was last turned off, and the word for why.
    pub last_off: Option<(u64, &'static str)>,
    /// When something last went wrong, and what, in a sentence.
    pub last_error: Option<(u64, String)>,
    /// What the operator can do to have it run, if it does not or if it goes wrong: a sentence's parts around the VM's name.
    pub way_out: Option<[&'static str; 2]>,
}

/// The meters of one VM: each only grows while the host is up, also over resets, stops and starts. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterRow {
    /// The VM.
    pub vm: VmId,
    /// What it held, and how its resizes ended.
    pub meter: Meter,
    /// Time that its vCPUs ran.
    pub ran_ns: u64,
    /// Whether the sleep of some is in `ran_ns` at present, because they are alone on their CPUs.
    pub counts_sleep: bool,
    /// Time that its vCPUs could have run but had to wait.
    pub stolen_ns: u64,
    /// As much of that as its cap was the reason for.
    pub throttled_ns: u64,
}

/// What VMs and their vCPUs have had at one moment, to be held against another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in nanoseconds since the hypervisor's start.
    pub time_ns: u64,
    /// The VMs.
    pub vms: Vec<VmRow>,
    /// The vCPUs that are on, each with its VM, in the order of their VMs' ids and their own.
    pub vcpus: Vec<(VmId, VcpuRow)>,
    /// vCPUs that are on and were left out, because there are too many.
    pub left_out: u32,
}

/// One vCPU in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuRow {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// The state's word, as `psci::State::word` gives it.
    pub state: &'static str,
    /// The physical CPU that it runs on, or would.
    pub cpu: PcpuId,
    /// Exits since the VM's start.
    pub exits: u64,
    /// Time it has run, in nanoseconds.
    pub ran_ns: u64,
    /// Whether `ran_ns` grows while it sleeps too, because it is alone on its CPU.
    pub counts_sleep: bool,
    /// Time it could have run but had to wait, in nanoseconds.
    pub stolen_ns: u64,
}

/// A resize that has ended, and of which VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeReport {
    /// The VM.
    pub vm: VmId,
    /// What its numbers are, if it is one of memory slots and not of vCPUs.
    pub memory: Option<MemoryUnit>,
    /// How it ended.
    pub report: Report,
}

/// What a number of memory slots comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUnit {
    /// Memory that the VM has from boot, in bytes.
    pub boot_bytes: u64,
    /// Size of a slot in bytes.
    pub block_bytes: u64,
}

impl MemoryUnit {
    /// Returns how many bytes a VM has in all with so many slots.
    #[must_use]
    pub fn bytes(self, slots: u16) -> u64 {
        let hot = self.block_bytes.saturating_mul(u64::from(slots));
        self.boot_bytes.saturating_add(hot)
    }
}

/// One memory slot in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRow {
    /// The slot.
    pub slot: u16,
    /// Where the guest finds it.
    pub address: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The state's word: "absent", "preparing", "offered", "acknowledged", "eject-pending" or "withdrawn".
    pub state: &'static str,
    /// What the guest last said of it by `_OST`: source event and status.
    pub answer: Option<(u16, u16)>,
}

/// The exits of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsRow {
    /// The VM.
    pub vm: VmId,
    /// Exits by reason, summed over its vCPUs.
    pub exits: ExitCounts,
}

/// A virtio device of a VM. Counts are since the VM's start or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its slot.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// How far its driver has come.
    pub state: &'static str,
    /// Times that the driver told it of new chains.
    pub notifications: u64,
    /// Chains that it took.
    pub chains: u64,
    /// Interrupts that it asked for.
    pub interrupts: u64,
    /// Times that the driver wanted none after chains were used.
    pub suppressed: u64,
    /// Times that the driver broke a rule.
    pub broken: u64,
}

/// A disk of a VM. Counts are since the VM's start or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRow {
    /// The VM.
    pub vm: VmId,
    /// The disk's name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many bytes of it are replaced by what the guest wrote, and how many may be; none for a disk that is only read.
    pub replaced: Option<(u64, u64)>,
    /// Bytes that the guest has read.
    pub read_bytes: u64,
    /// Bytes that the guest has written.
    pub written_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// A port of a network. Counts are since the VM's start or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetRow {
    /// The VM.
    pub vm: VmId,
    /// The port's name.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// The port's address.
    pub mac: String,
    /// Frames that the guest has sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that the guest has received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames for the guest for which its driver had no room.
    pub dropped: u64,
    /// Frames of the guest that were not let through.
    pub refused: u64,
}

/// The host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// The hypervisor's version.
    pub version: &'static str,
    /// The machine's name, from its device tree.
    pub machine: String,
    /// CPUs that the hypervisor runs on.
    pub cpus_online: u16,
    /// CPUs that the host describes.
    pub cpus: u16,
    /// The host's memory in bytes.
    pub memory_bytes: u64,
    /// Pages that belong to no VM.
    pub free_pages: u64,
    /// Size of a page in bytes.
    pub page_bytes: u64,
    /// Time since the hypervisor's start, in nanoseconds.
    pub uptime_ns: u64,
}

/// Something that happened and that was not asked for just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds since the hypervisor's start.
    pub time_ns: u64,
    /// To which VM.
    pub vm: VmId,
    /// What.
    pub what: What,
}

/// What happened to a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was started.
    VmStart,
    /// It is off; the word says why: "guest", "operator", "all-vcpus-off", "failed"…; the sentence, if there is one, says more.
    VmOff(&'static str, Option<String>),
    /// It was reset; the word says from where: "guest" or "operator".
    VmReset(&'static str),
    /// It was paused.
    VmPaused,
    /// It runs on.
    VmResumed,
    /// The guest turned a vCPU on.
    VcpuOnline(VcpuId),
    /// The guest turned a vCPU off.
    VcpuOffline(VcpuId),
    /// The guest gave back the memory of this slot without being asked.
    MemoryEjected(u16),
    /// A write to the disk of this name has failed because its quota is used up.
    DiskFull(String),
    /// The driver of the device of this name broke the rules of virtio; the word says which. The device waits for a reset.
    DeviceBroken(String, &'static str),
    /// A resize ended.
    ResizeDone(ResizeReport),
    /// Its meters, for programs that watch them.
    Usage(Box<MeterRow>),
}

/// Returns the line of the log that begins at a byte, without its line feed; `None` behind the last.
pub(super) fn log_line(lines: &str, place: usize) -> Option<&str> {
    lines.get(place..)?.lines().next()
}

impl What {
    /// Returns the report of a resize that has ended, as a reply has it.
    pub(super) fn report(&self) -> Option<Reply> {
        match self {
            Self::ResizeDone(report) => Some(Reply::Resize(report.clone())),
            _ => None,
        }
    }

    /// Returns the word that stands for the event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VmStart => "vm-start",
            Self::VmOff(..) => "vm-off",
            Self::VmReset(_) => "vm-reset",
            Self::VmPaused => "vm-paused",
            Self::VmResumed => "vm-resumed",
            Self::VcpuOnline(_) => "vcpu-online",
            Self::VcpuOffline(_) => "vcpu-offline",
            Self::MemoryEjected(_) => "memory-ejected",
            Self::DiskFull(_) => "disk-full",
            Self::DeviceBroken(..) => "device-broken",
            Self::ResizeDone(report) if report.memory.is_some() => "memory-done",
            Self::ResizeDone(_) => "resize-done",
            Self::Usage(_) => "usage",
        }
    }
}
