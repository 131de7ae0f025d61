//! One VM as its manifest describes it: values that have been checked, so that nothing checks them again.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use types::address::GuestPhys;

use super::devices::{DiskConfig, NetConfig};
use super::error::{ConfigError, Problem};
use crate::firmware::Firmware;
use crate::host::HostDescription;
use crate::topology::Topology;
use crate::uuid::Uuid;
use types::entitlement::Entitlement;
use types::ids::{PcpuId, VcpuId};
use types::layout::{GicVersion, GuestLayout, Region, Slots};

/// Longest VM name in bytes.
pub const MAX_NAME: usize = 31;
/// Most virtual CPUs of one VM with a GICv2, which names CPUs by a bit of a byte (GIC IHI0048, 4.3.12).
pub const MAX_VCPUS_GICV2: u16 = 8;
/// Guest memory comes in units of the largest block of a level-2 table (Arm ARM DDI0487, D8.2, 4 KiB granule).
pub const MEMORY_UNIT: u64 = 2 << 20;
/// Smallest guest memory in bytes.
pub const MIN_MEMORY: u64 = 4 << 20;
/// Where guest memory starts unless the manifest says otherwise: as on QEMU's `virt`.
pub const DEFAULT_MEMORY_BASE: GuestPhys = GuestPhys::new(0x4000_0000);
/// Where guest memory ends at the latest: the second redistributor region follows.
pub const MEMORY_LIMIT: GuestPhys = GuestPhys::new(0x40_0000_0000);
/// Smallest and largest memory slot in bytes: what Linux adds at least, with pages of 4 KiB and of 64 KiB.
pub const MIN_BLOCK: u64 = 128 << 20;
/// See [`MIN_BLOCK`].
pub const MAX_BLOCK: u64 = 512 << 20;
/// Fewest and most shared peripheral interrupts: INTID 32 up to 991 (GIC IHI0069, 2.2: SPIs end at 1019).
pub const MIN_SPIS: u16 = 32;
/// See [`MIN_SPIS`].
pub const MAX_SPIS: u16 = 960;
/// Shared peripheral interrupts unless the manifest says otherwise.
pub const DEFAULT_SPIS: u16 = 64;

/// A VM's name: 1 to 31 of `a` to `z`, `0` to `9` and `-`, the first a letter (as device trees want it).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmName(String);

impl VmName {
    /// Makes a name of `text` if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_name = text.len() <= MAX_NAME && text.bytes().all(allowed);
        (is_name && text.starts_with(|first: char| first.is_ascii_lowercase()))
            .then(|| Self(text.into()))
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which physical CPUs run a VM's virtual CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The scheduler chooses.
    Auto,
    /// Virtual CPU `n` runs on entry `n` modulo the list's length, and nowhere else. Never empty, no entry twice.
    Pinned(Vec<PcpuId>),
}

impl Placement {
    /// Returns the physical CPU that a virtual CPU is pinned to, if it is.
    #[must_use]
    pub fn pinned(&self, vcpu: VcpuId) -> Option<PcpuId> {
        match self {
            Self::Auto => None,
            Self::Pinned(cpus) => cpus.get(vcpu.index().checked_rem(cpus.len())?).copied(),
        }
    }
}

types::words! {
    /// How many virtual CPUs a VM has after a reset.
    OnReset:
    /// The boot set; then the operator's last target is asked for again.
    KeepTarget = "keep-target",
    /// The boot set.
    BootSet = "boot-set",
}

types::words! {
    /// What happens when a virtual CPU that is alone on its CPU waits for an interrupt (WFI).
    Idle:
    /// The CPU sleeps in the guest: the shortest way back, and nothing tells its sleep from its work.
    Native = "native",
    /// It traps, so that only its work counts as time that it ran.
    Trap = "trap",
}

types::words! {
    /// Which interrupt controller a VM has.
    GicChoice:
    /// The machine's own version.
    Auto = "auto",
    /// A GICv2, of at most eight virtual CPUs.
    V2 = "v2",
    /// A GICv3.
    V3 = "v3",
}

types::words! {
    /// What the physical CPU of a virtual CPU in reserve does when it has nothing else to run.
    ReserveIdle:
    /// It waits in WFI, ready at once.
    Wfi = "wfi",
    /// The host's PSCI turns it off: slower to come back.
    PsciOff = "psci-off",
}

/// A VM that can be built, as far as the manifest alone can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Its name; no other VM has it.
    pub name: VmName,
    /// Name of the kernel's file in the bundle.
    pub kernel: String,
    /// Name of the initrd's file in the bundle.
    pub initrd: Option<String>,
    /// The guest's command line.
    pub command_line: String,
    /// Size of the guest's memory in bytes; a multiple of [`MEMORY_UNIT`].
    pub memory_bytes: u64,
    /// Where the guest's memory starts; a multiple of [`MEMORY_UNIT`].
    pub memory_base: GuestPhys,
    /// The slots in which memory can be added while the guest runs.
    pub slots: Slots,
    /// How many virtual CPUs the guest boots with; at least 1.
    pub boot_vcpus: u16,
    /// How many virtual CPUs it may ever have; at least `boot_vcpus`.
    pub max_vcpus: u16,
    /// Where they run.
    pub placement: Placement,
    /// What its virtual CPUs may use of all CPUs together, in thousandths of a CPU, unless that is not limited.
    pub cpu_cap: Option<u32>,
    /// How much of a CPU each of its virtual CPUs has beside others that want it.
    pub cpu_weight: u16,
    /// What may be asked for it.
    pub entitlement: Entitlement,
    /// What its WFI does. It traps while a cap is set in any case.
    pub idle: Idle,
    /// How the guest learns what machine it is on.
    pub firmware: Firmware,
    /// Whether it is started when the hypervisor starts.
    pub autostart: bool,
    /// What a reset does with virtual CPUs added since boot.
    pub on_reset: OnReset,
    /// Which interrupt controller it has.
    pub gic: GicChoice,
    /// How many shared peripheral interrupts its GIC has; a multiple of 32.
    pub spis: u16,
    /// What happens to the CPU of a virtual CPU in reserve.
    pub reserve_idle: ReserveIdle,
    /// What the guest is known by: the manifest's, or made of its name.
    pub uuid: Uuid,
    /// How the guest is told that its virtual CPUs are grouped; `None` means as the cores of one package.
    pub topology: Option<Topology>,
    /// Its disks, in the order in which the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// Its ports of networks, likewise.
    pub nets: Vec<NetConfig>,
    /// Whether it has a source of randomness.
    pub rng: bool,
}

impl VmConfig {
    /// Returns the version of the guest's interrupt controller on a machine whose own is `native`.
    #[must_use]
    pub const fn gic_version(&self, native: GicVersion) -> GicVersion {
        match self.gic {
            GicChoice::Auto => native,
            GicChoice::V2 => GicVersion::V2,
            GicChoice::V3 => GicVersion::V3,
        }
    }

    /// Returns the guest's map on a machine whose interrupt controller is `native`: that of the table of devices, with the VM's own
    /// memory and interrupts.
    #[must_use]
    pub fn layout(&self, native: GicVersion) -> GuestLayout {
        GuestLayout {
            gic: self.gic_version(native),
            ram_base: self.memory_base,
            slots: self.slots,
            spi_count: self.spis,
            ..GuestLayout::default()
        }
    }

    /// Returns how many vCPUs it may be given.
    #[must_use]
    pub fn entitled_vcpus(&self) -> u16 {
        let bounds = self.entitlement.vcpus;
        // They lie below `max_vcpus`.
        bounds.map_or(self.max_vcpus, |bounds| bounds.max as u16)
    }

    /// Returns the guest's RAM.
    #[must_use]
    pub const fn memory(&self) -> Region {
        Region {
            base: self.memory_base,
            size: self.memory_bytes,
        }
    }

    /// Checks what depends on the machine: that the CPUs of the placement exist, and that its interrupt controller can be the
    /// guest's and has room for the virtual CPUs. `has_gicv` says that there is a CPU interface which a GICv2's guest can use.
    /// Unless the manifest says how the virtual CPUs are grouped, and if each has a CPU of its own, they are grouped as those are.
    ///
    /// # Errors
    /// The property of the manifest that does not suit this machine.
    pub fn settle(&mut self, host: &HostDescription, has_gicv: bool) -> Result<(), ConfigError> {
        if let Placement::Pinned(cpus) = &self.placement {
            let last = host.cpus.len().saturating_sub(1);
            if let Some(missing) = cpus.iter().find(|cpu| cpu.index() > last) {
                let (min, max) = (0, last as u64);
                return Err(self.error("cpus", missing.get(), Problem::OutOfRange { min, max }));
            }
            let own = cpus.get(..usize::from(self.max_vcpus)).unwrap_or(&[]);
            let places = own.iter().filter_map(|cpu| host.cpus.get(cpu.index()));
            let places: Vec<_> = places.map(|cpu| cpu.place).collect();
            self.topology = self.topology.or_else(|| Topology::of(&places));
        }
        let native = host.gic.version();
        match self.gic_version(native) {
            GicVersion::V3 if native == GicVersion::V2 => {
                let why = "this machine's interrupt controller is a GICv2";
                Err(self.error("gic", self.gic.name(), Problem::NotHere(why)))
            }
            GicVersion::V2 if !has_gicv => {
                let why = "this machine's GICv3 has no GICV, which a GICv2's guest needs";
                Err(self.error("gic", self.gic.name(), Problem::NotHere(why)))
            }
            GicVersion::V2 if self.max_vcpus > MAX_VCPUS_GICV2 => {
                let (min, max) = (1, u64::from(MAX_VCPUS_GICV2));
                let problem = Problem::OutOfRange { min, max };
                Err(self.error("max-vcpus", self.max_vcpus, problem))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many virtio devices it has: its disks, its ports of networks, and others, in this order.
    #[must_use]
    pub fn devices(&self) -> usize {
        let named = self.disks.len().saturating_add(self.nets.len());
        named.saturating_add(usize::from(self.rng))
    }

    /// Says what is wrong with the value of one of its keys.
    pub(super) fn error(
        &self,
        property: &str,
        value: impl fmt::Display,
        problem: Problem,
    ) -> ConfigError {
        ConfigError {
            file: super::MANIFEST_FILE,
            node: alloc::format!("/vms/{}", self.name),
            property: property.into(),
            value: alloc::format!("{value}"),
            problem,
        }
    }
}
