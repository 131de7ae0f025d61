//! What a guest finds in its memory at reset: ACPI and EFI tables, or a device tree.
//!
//! A [`Machine`] goes in, [`Blob`]s come out, to be copied into guest memory before the first instruction and again at every
//! reset. Everything lies in [`GuestLayout::firmware`], the bottom 512 KiB of RAM; nothing here knows how a device behaves.

pub mod efi;

mod acpi;
mod fdt;
mod smbios;
mod writer;

use alloc::vec::Vec;
use core::fmt;

use types::address::GuestPhys;

use self::writer::Writer;
use crate::topology::{CpuFacts, Topology};
use crate::uuid::Uuid;
use types::devices::DeviceId;
use types::ids::MAX_VCPUS;
use types::layout::{DeviceSlot, GRANULE, GuestLayout, Region};

/// How a device tree lies in memory (Devicetree Specification 0.4, 5.6), and what it is called in the log.
const DTB_ALIGNMENT: u64 = 8;
const DTB: &str = "device tree";
/// Bytes of a whole device tree in a step.
const DTB_PIECE: usize = 4096;

types::words! {
    /// How a guest is told what it runs on.
    Firmware:
    /// ACPI tables behind an EFI system table; a device tree says where that is, nothing else. vCPUs can be added and removed.
    Acpi = "acpi",
    /// A device tree of the boot vCPUs and the devices: the set of vCPUs is fixed.
    Fdt = "fdt",
}

/// Randomness for a guest's first moments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// For the random number generator (`rng-seed`).
    pub rng: [u8; 32],
    /// For the placement of the kernel (`kaslr-seed`).
    pub kaslr: u64,
}

/// One guest machine, as far as firmware describes it.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The address map.
    pub layout: &'a GuestLayout,
    /// RAM banks in ascending order; the first begins at the layout's RAM base.
    pub memory: &'a [Region],
    /// vCPUs that run from reset.
    pub boot_vcpus: u16,
    /// vCPUs that can ever exist.
    pub max_vcpus: u16,
    /// Kernel command line.
    pub bootargs: &'a str,
    /// Where the initial RAM disk is, if there is one.
    pub initrd: Option<Region>,
    /// Fresh randomness, new at every reset.
    pub seeds: Seeds,
    /// How the guest is told.
    pub firmware: Firmware,
    /// What the guest is known by.
    pub uuid: Uuid,
    /// How its possible vCPUs are grouped.
    pub topology: Topology,
    /// What the CPUs are like.
    pub cpu: &'a CpuFacts,
    /// Whether they have performance monitors whose overflow interrupts, at [`PMU_OVERFLOW`](types::layout::PMU_OVERFLOW).
    pub has_pmu_interrupt: bool,
    /// How many windows have something behind them, of a device that has several.
    pub slots: u16,
    /// The vendor in the FADT (ACPI 6.5, 5.2.9, Hypervisor Vendor Identity).
    pub hypervisor_id: [u8; 8],
}

impl Machine<'_> {
    /// Goes through the windows of a device that are described.
    fn windows(&self, device: DeviceId) -> impl Iterator<Item = DeviceSlot> {
        let count = match device.row().windows {
            1 => 1,
            several => self.slots.min(several),
        };
        let layout = self.layout;
        (0..count).map(move |window| layout.window(device, window))
    }
}

/// Bytes to be copied into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where they go.
    pub address: GuestPhys,
    /// What goes there.
    pub bytes: Vec<u8>,
    /// What it is, for the log.
    pub what: &'static str,
}

/// Why a machine cannot be described; all but [`Error::Internal`] are the fault of the manifest or the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not `1 <= boot_vcpus <= max_vcpus <= 512`.
    VcpuCount {
        /// vCPUs that run from reset.
        boot: u16,
        /// vCPUs that can ever exist.
        max: u16,
    },
    /// A RAM bank is not 64 KiB aligned, out of order, or (the first) not at the RAM base or too small for the tables.
    Memory(Region),
    /// A RAM bank covers a device.
    MemoryCoversDevice(Region),
    /// A device is where the tables cannot say it is: ACPI's console must be below 4 GiB.
    Layout(Region),
    /// The initial RAM disk is not inside one RAM bank, or covers the tables.
    Initrd(Region),
    /// The command line holds a NUL byte.
    Bootargs,
    /// What was built does not fit in [`GuestLayout::firmware`].
    TooBig {
        /// Bytes wanted.
        size: u64,
    },
    /// A table writer refused what we wrote: our own fault.
    Internal(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (region, why) = match self {
            Self::VcpuCount { boot, max } => {
                return write!(
                    f,
                    "{boot} of {max} vCPUs: need 1 <= boot <= max <= {MAX_VCPUS}"
                );
            }
            Self::Bootargs => return f.write_str("the command line holds a NUL byte"),
            Self::TooBig { size } => {
                return write!(
                    f,
                    "the tables need {size:#x} bytes, more than there is room for"
                );
            }
            Self::Internal(what) => {
                return write!(f, "cannot write {what} (a bug of the hypervisor)");
            }
            Self::Memory(region) => (
                region,
                "be RAM: misaligned, out of order, too small, or not at the RAM base",
            ),
            Self::MemoryCoversDevice(region) => (region, "be RAM: a device is there"),
            Self::Layout(region) => (region, "be the console: not below 4 GiB"),
            Self::Initrd(region) => (region, "hold the initrd: not RAM, or the tables are there"),
        };
        write!(
            f,
            "{:#x} bytes at {} cannot {why}",
            region.size, region.base
        )
    }
}

/// A machine that is being described to its guest, a table or some nodes of a tree a step, so that only one is ever held and no step takes long.
#[derive(Clone, Debug)]
pub struct Description {
    /// Where the next blob may begin.
    next: u64,
    /// The device tree of a machine without ACPI tables, as far as it is made.
    full: fdt::Full,
    /// That tree, once it is made: where it goes, and how much of it is there.
    made: Option<(u64, Vec<u8>, usize)>,
    tables: acpi::Tables,
    /// Where the RSDP is, once all ACPI tables are written.
    rsdp: Option<u64>,
    /// Where the entry point of SMBIOS is, once it is written.
    smbios: Option<u64>,
    /// What remains when the device tree is written: where that is, and where the EFI tables go.
    tree: Option<(u64, efi::Location)>,
    /// Where EFI's runtime services are, once they are written.
    runtime: Option<u64>,
}

impl Description {
    /// Begins to describe `machine`.
    ///
    /// # Errors
    /// An [`Error`] that names what in the description is impossible.
    pub fn new(machine: &Machine<'_>) -> Result<Self, Error> {
        check(machine)?;
        Ok(Self {
            next: machine.layout.firmware().base.get(),
            full: fdt::Full::new(),
            made: None,
            tables: acpi::Tables::default(),
            rsdp: None,
            smbios: None,
            tree: None,
            runtime: None,
        })
    }

    /// Does the next step for the same machine; returns the device tree's address when all is written.
    ///
    /// # Errors
    /// An [`Error`] that names what does not fit, or what `emit` returned; then some blobs may have been emitted.
    #[inline(never)]
    pub fn step(
        &mut self,
        machine: &Machine<'_>,
        emit: &mut dyn FnMut(Blob) -> Result<(), Error>,
    ) -> Result<Option<GuestPhys>, Error> {
        let mut writer = Writer::new(machine.layout.firmware(), self.next, emit);
        let mut dtb = None;
        match (machine.firmware, self.rsdp, self.smbios, self.tree) {
            (Firmware::Fdt, ..) => match &mut self.made {
                None => {
                    if let Some(tree) = self.full.step(machine) {
                        let at = writer.reserve(tree.len() as u64, DTB_ALIGNMENT)?;
                        self.made = Some((at, tree, 0));
                    }
                }
                Some((at, tree, done)) => {
                    let rest = tree.get(*done..).unwrap_or(&[]);
                    let piece = rest.get(..DTB_PIECE).unwrap_or(rest);
                    writer.put(at.saturating_add(*done as u64), piece.to_vec(), DTB)?;
                    *done = done.saturating_add(piece.len());
                    dtb = (*done >= tree.len()).then_some(*at);
                }
            },
            (_, None, ..) => self.rsdp = self.tables.step(machine, &mut writer)?,
            (_, _, None, _) => self.smbios = Some(smbios::write(machine, &mut writer)?),
            (_, _, _, None) => {
                let location = efi::reserve(machine, &mut writer)?;
                let tree = writer.add(fdt::stub(machine, location), DTB_ALIGNMENT, DTB)?;
                self.tree = Some((tree, location));
            }
            (_, Some(rsdp), Some(smbios), Some((tree, location))) => {
                let tables = efi::Tables { rsdp, smbios };
                match self.runtime {
                    None => self.runtime = Some(efi::write_runtime(&mut writer)?),
                    Some(runtime) => {
                        efi::write(machine, location, runtime, tables, &mut writer)?;
                        dtb = Some(tree);
                    }
                }
            }
        }
        self.next = writer.next();
        Ok(dtb.map(GuestPhys::new))
    }
}

/// Refuses what cannot be described.
fn check(machine: &Machine<'_>) -> Result<(), Error> {
    let (boot, max) = (machine.boot_vcpus, machine.max_vcpus);
    if boot == 0 || boot > max || max > MAX_VCPUS {
        return Err(Error::VcpuCount { boot, max });
    }
    if machine.bootargs.as_bytes().contains(&0) {
        return Err(Error::Bootargs);
    }
    check_memory(machine)?;
    match machine.initrd {
        Some(initrd)
            if initrd.overlaps(machine.layout.firmware())
                || !machine.memory.iter().any(|bank| bank.covers(initrd)) =>
        {
            Err(Error::Initrd(initrd))
        }
        _ => Ok(()),
    }
}

/// Refuses RAM banks that are misplaced.
fn check_memory(machine: &Machine<'_>) -> Result<(), Error> {
    let layout = machine.layout;
    let first = machine.memory.first().copied().unwrap_or(Region {
        base: layout.ram_base,
        size: 0,
    });
    if first.base != layout.ram_base || first.size <= layout.firmware().size {
        return Err(Error::Memory(first));
    }
    let mut free_from = 0;
    for bank in machine.memory {
        let aligned = bank.base.is_aligned(GRANULE) && bank.size.is_multiple_of(GRANULE);
        match bank.end() {
            Some(end) if aligned && bank.base.get() >= free_from => free_from = end,
            _ => return Err(Error::Memory(*bank)),
        }
        let devices = layout.devices.iter().map(|slot| slot.registers);
        let redistributors = layout.redistributors(machine.max_vcpus).regions();
        if redistributors
            .chain(devices)
            .chain([layout.distributor, layout.cpu_interface])
            .any(|device| bank.overlaps(device))
        {
            return Err(Error::MemoryCoversDevice(*bank));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
