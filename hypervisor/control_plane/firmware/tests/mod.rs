//! What a description must be for every reader.

extern crate std;

mod acpica;
mod aml;
mod fdt;
mod goldens;
mod pptt;
mod properties;
mod smbios;
mod tables;

use alloc::vec::Vec;
use std::sync::OnceLock;

use types::address::GuestPhys;

use super::{Blob, Description, Error, Firmware, Machine, Seeds};
use crate::topology::{CpuFacts, Topology, caches};
use crate::uuid::Uuid;
use types::devices::DeviceId;
use types::layout::{GicVersion, GuestLayout, Region, Slots};

/// What a guest starts with.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) blobs: Vec<Blob>,
    pub(super) dtb: GuestPhys,
}

/// Describes `machine`, all blobs at once; those of one table that come in pieces are one.
pub(super) fn build(machine: &Machine<'_>) -> Result<Image, Error> {
    let mut blobs: Vec<Blob> = Vec::new();
    let dtb = describe(machine, &mut |blob| {
        let whole = blobs.iter_mut().find(|whole| whole.what == blob.what);
        match whole {
            Some(whole) if whole.region().end() == blob.region().base.get().into() => {
                whole.bytes.extend(blob.bytes);
            }
            Some(whole) => {
                assert_eq!(blob.region().end(), Some(whole.address.get()));
                whole.address = blob.address;
                whole.bytes.splice(..0, blob.bytes);
            }
            None => blobs.push(blob),
        }
        Ok(())
    })?;
    Ok(Image { blobs, dtb })
}

/// Describes `machine` step by step.
fn describe(
    machine: &Machine<'_>,
    emit: &mut dyn FnMut(Blob) -> Result<(), Error>,
) -> Result<GuestPhys, Error> {
    let mut description = Description::new(machine)?;
    loop {
        if let Some(dtb) = description.step(machine, emit)? {
            return Ok(dtb);
        }
    }
}

impl Blob {
    /// Returns the range the bytes will fill.
    pub(super) fn region(&self) -> Region {
        Region {
            base: self.address,
            size: self.bytes.len() as u64,
        }
    }
}

const GIB: u64 = 1 << 30;

fn machine<'a>(layout: &'a GuestLayout, memory: &'a [Region], firmware: Firmware) -> Machine<'a> {
    Machine {
        layout,
        memory,
        boot_vcpus: 2,
        max_vcpus: 8,
        bootargs: "console=ttyAMA0",
        initrd: Some(Region::new(0x4800_0000, 0x123_4567)),
        seeds: Seeds {
            rng: [0x5a; 32],
            kaslr: 0x0123_4567_89ab_cdef,
        },
        firmware,
        uuid: Uuid::of_name("web"),
        topology: Topology::flat(8),
        cpu: cortex_a57(),
        has_pmu_interrupt: true,
        slots: 0,
        hypervisor_id: *b"BULLPEN ",
    }
}

/// A Cortex-A57 as QEMU 10 has it: its L1 data cache has 4 ways, where the manual has 2.
fn cortex_a57() -> &'static CpuFacts {
    static CPU: OnceLock<CpuFacts> = OnceLock::new();
    CPU.get_or_init(|| {
        let size = |select| match select {
            0 => 0x000f_e01a,
            1 => 0x201f_e012,
            _ => 0x70ff_e07a,
        };
        CpuFacts {
            midr: 0x411f_d070,
            caches: caches(0x0a20_0023, false, size),
        }
    })
}

/// The description of a machine with 1 GiB of RAM and no RAM disk.
pub(super) fn described(boot_vcpus: u16, max_vcpus: u16, firmware: Firmware) -> Image {
    described_with(GicVersion::V3, boot_vcpus, max_vcpus, firmware)
}

/// The same with either interrupt controller.
pub(super) fn described_with(
    gic: GicVersion,
    boot_vcpus: u16,
    max_vcpus: u16,
    firmware: Firmware,
) -> Image {
    let layout = GuestLayout {
        gic,
        ..GuestLayout::default()
    };
    described_in(&layout, boot_vcpus, max_vcpus, firmware)
}

/// The description of a machine with 1 GiB of RAM and so many slots for more.
pub(super) fn described_with_slots(boot_vcpus: u16, max_vcpus: u16, count: u16) -> Image {
    let layout = GuestLayout {
        slots: slots(count),
        ..GuestLayout::default()
    };
    described_in(&layout, boot_vcpus, max_vcpus, Firmware::Acpi)
}

/// The description of a machine of this layout with 1 GiB of RAM.
fn described_in(
    layout: &GuestLayout,
    boot_vcpus: u16,
    max_vcpus: u16,
    firmware: Firmware,
) -> Image {
    let memory = [Region::new(0x4000_0000, GIB)];
    let base = machine(layout, &memory, firmware);
    build(&Machine {
        boot_vcpus,
        max_vcpus,
        topology: Topology::flat(max_vcpus),
        initrd: None,
        ..base
    })
    .unwrap()
}

/// So many memory slots right above 1 GiB of RAM.
const fn slots(count: u16) -> Slots {
    Slots {
        base: GuestPhys::new(0x8000_0000),
        block: 128 << 20,
        count,
    }
}

/// The ACPI tables among the blobs: the ones named by a signature.
fn acpi_tables(image: Image) -> Vec<Blob> {
    image
        .blobs
        .into_iter()
        .filter(|blob| blob.what.len() == 4)
        .collect()
}

/// The bytes of the blob called `what`.
pub(super) fn blob<'a>(image: &'a Image, what: &str) -> &'a Blob {
    image.blobs.iter().find(|blob| blob.what == what).unwrap()
}

/// Little-endian fields of a table.
fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// A step's work is about as long as what it writes, or as what it adds to a tree.
#[test]
fn no_step_takes_long_however_many_vcpus_there_are() {
    const MOST: usize = 4096;
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, 8 * GIB)];
    for firmware in [Firmware::Acpi, Firmware::Fdt] {
        for (boot_vcpus, groups) in [
            (1, [1, 1, 512, 1]),
            (256, [2, 16, 8, 2]),
            (512, [8, 1, 64, 1]),
        ] {
            let machine = Machine {
                boot_vcpus,
                max_vcpus: 512,
                topology: Topology::new(groups, 512).unwrap(),
                ..machine(&layout, &memory, firmware)
            };
            let mut description = Description::new(&machine).unwrap();
            let mut dtb = None;
            while dtb.is_none() {
                let mut pieces = Vec::new();
                let mut keep = |blob: Blob| {
                    pieces.push((blob.what, blob.bytes.len()));
                    Ok(())
                };
                dtb = description.step(&machine, &mut keep).unwrap();
                let bytes = pieces.iter().map(|(_, bytes)| bytes).sum::<usize>();
                assert!(bytes <= MOST, "{boot_vcpus} of 512 vCPUs: {pieces:?}");
            }
        }
    }
}

#[test]
fn the_impossible_is_refused_by_name() {
    let layout = GuestLayout::default();
    let good = [Region::new(0x4000_0000, GIB)];
    let base = machine(&layout, &good, Firmware::Fdt);
    let refused = |machine: Machine<'_>| build(&machine).unwrap_err();

    for (boot, max) in [(0, 1), (2, 1), (1, 513), (0, 0)] {
        let bad = Machine {
            boot_vcpus: boot,
            max_vcpus: max,
            ..base
        };
        assert_eq!(refused(bad), Error::VcpuCount { boot, max });
    }
    assert_eq!(
        refused(Machine {
            bootargs: "a\0b",
            ..base
        }),
        Error::Bootargs
    );
    let initrds = [
        Region::new(0x3fff_f000, 0x2000),
        Region::new(0x4007_ffff, 2),
        Region::new(0x7fff_f000, 0x2000),
        Region::new(0x5000_0000, u64::MAX),
        Region::new(0x5000_0000, 0),
    ];
    for initrd in initrds {
        assert_eq!(
            refused(Machine {
                initrd: Some(initrd),
                ..base
            }),
            Error::Initrd(initrd)
        );
    }
    let banks: [(&[Region], usize); 6] = [
        (&[Region::new(0x4000_0000, 0x8_0000)], 0),
        (&[Region::new(0x5000_0000, GIB)], 0),
        (&[Region::new(0x4000_0000, GIB + 1)], 0),
        (
            &[Region::new(0x4000_0000, GIB), Region::new(0x5000_0000, GIB)],
            1,
        ),
        (
            &[
                Region::new(0x4000_0000, GIB),
                Region::new(u64::MAX - 0xffff, 0x2_0000),
            ],
            1,
        ),
        (
            &[Region::new(0x4000_0000, GIB), Region::new(0x1_0000_0000, 0)],
            1,
        ),
    ];
    for (memory, culprit) in banks {
        assert_eq!(
            refused(Machine { memory, ..base }),
            Error::Memory(memory[culprit])
        );
    }
    assert_eq!(
        refused(Machine {
            memory: &[],
            ..base
        }),
        Error::Memory(Region::new(0x4000_0000, 0))
    );
    let memory: Vec<Region> = alloc::vec![Region::new(0x4000_0000, 0x40_0000_0000)];
    let wide = Machine {
        memory: &memory,
        max_vcpus: 200,
        ..base
    };
    assert_eq!(refused(wide), Error::MemoryCoversDevice(memory[0]));
    assert!(
        build(&Machine {
            max_vcpus: 123,
            ..wide
        })
        .is_ok()
    );
}

#[test]
fn a_blob_that_cannot_be_stored_ends_the_description() {
    const FULL: Error = Error::Internal("nothing: the store is full");
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    let good = machine(&layout, &memory, Firmware::Acpi);
    let mut stored = 0;
    let result = describe(&good, &mut |_| {
        stored += 1;
        if stored < 3 { Ok(()) } else { Err(FULL) }
    });
    assert_eq!((result, stored), (Err(FULL), 3));
    let bad = Machine {
        boot_vcpus: 0,
        ..good
    };
    let result = describe(&bad, &mut |_| Err(FULL));
    assert_eq!(result, Err(Error::VcpuCount { boot: 0, max: 8 }));
}

#[test]
fn what_does_not_fit_is_said_with_its_size() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    let bootargs = "x".repeat(0x8_0000);
    for firmware in [Firmware::Acpi, Firmware::Fdt] {
        let base = machine(&layout, &memory, firmware);
        let error = build(&Machine {
            bootargs: &bootargs,
            ..base
        })
        .unwrap_err();
        assert!(
            matches!(error, Error::TooBig { size } if size > 0x8_0000),
            "{error:?}"
        );
    }
}

#[test]
fn a_console_out_of_reach_is_refused() {
    let mut layout = GuestLayout::default();
    let uart = DeviceId::Uart as usize;
    layout.devices[uart].registers = Region::new(0x1_0000_0000, 0x1000);
    let memory = [Region::new(0x4000_0000, GIB)];
    let error = build(&machine(&layout, &memory, Firmware::Acpi)).unwrap_err();
    assert_eq!(error, Error::Layout(layout.devices[uart].registers));
    assert!(build(&machine(&layout, &memory, Firmware::Fdt)).is_ok());
}
