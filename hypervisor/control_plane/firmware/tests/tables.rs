//! What the ACPI and EFI tables must say, read field by field.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{
    GIB, Image, acpi_tables, blob, build, described, described_with, machine, u16_at, u32_at,
    u64_at,
};
use crate::firmware::{Blob, Firmware, Machine};
use types::ids::VcpuId;
use types::layout::{GicVersion, GuestLayout, Region};

fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The structures of a table that follow `start`: each says its type and its length first.
fn structures(table: &[u8], start: usize) -> Vec<&[u8]> {
    let mut rest = &table[start..];
    let mut found = Vec::new();
    while let [_, length, ..] = rest {
        let (structure, after) = rest.split_at(usize::from(*length));
        found.push(structure);
        rest = after;
    }
    assert!(rest.is_empty());
    found
}

#[test]
fn checksums_and_lengths_are_right() {
    for (boot, max) in [(1, 1), (2, 8), (64, 64), (1, 512)] {
        for Blob { bytes, what, .. } in acpi_tables(described(boot, max, Firmware::Acpi)) {
            assert_eq!(sum(&bytes), 0, "{what}");
            if what == "RSDP" {
                assert_eq!(sum(&bytes[..20]), 0);
                assert_eq!((bytes[15], u32_at(&bytes, 20)), (2, 36));
            } else {
                assert_eq!(&bytes[..4], what.as_bytes());
                assert_eq!(u32_at(&bytes, 4) as usize, bytes.len(), "{what}");
            }
        }
    }
}

#[test]
fn pointers_lead_to_every_table() {
    let image = described(2, 8, Firmware::Acpi);
    let at = |address| {
        image
            .blobs
            .iter()
            .find(|blob| blob.address.get() == address)
            .unwrap()
    };
    let rsdp = blob(&image, "RSDP");
    let xsdt = at(u64_at(&rsdp.bytes, 24));
    assert_eq!(xsdt.what, "XSDT");
    let listed: Vec<&str> = (36..xsdt.bytes.len())
        .step_by(8)
        .map(|entry| at(u64_at(&xsdt.bytes, entry)).what)
        .collect();
    assert_eq!(listed, ["FACP", "APIC", "GTDT", "SPCR", "SRAT", "PPTT"]);
    let fadt = &blob(&image, "FACP").bytes;
    assert_eq!(at(u64_at(fadt, 140)).what, "DSDT");
    assert_eq!((fadt[8], fadt[131], fadt.len()), (6, 6, 276));
    assert_eq!(u32_at(fadt, 40), 0);
    assert_eq!(u32_at(fadt, 112), 1 << 20 | 1 << 5 | 1 << 4);
    assert_eq!(u16_at(fadt, 129), 3);
    assert_eq!(&fadt[268..], b"BULLPEN ");
}

#[test]
fn madt_enables_boot_vcpus_and_reserves_the_rest() {
    for (boot, max) in [(1, 1), (2, 8), (16, 123), (64, 64), (7, 512)] {
        let image = described(boot, max, Firmware::Acpi);
        let madt = &blob(&image, "APIC").bytes;
        assert_eq!(madt[8], 7, "of ACPI 6.6, as the FADT");
        let structures = structures(madt, 44);
        let of_type = |kind| {
            structures
                .iter()
                .filter(move |structure| structure[0] == kind)
        };
        let mut mpidrs = BTreeSet::new();
        for (index, gicc) in of_type(11).enumerate() {
            assert_eq!(gicc.len(), 82);
            let index = index as u16;
            assert_eq!(u32_at(gicc, 8), u32::from(index), "UID");
            assert_eq!(
                u32_at(gicc, 12),
                if index < boot { 1 } else { 8 },
                "flags of {index}"
            );
            // The flags say that it is level-triggered.
            assert_eq!(u32_at(gicc, 20), 23, "performance interrupt of {index}");
            assert_eq!(
                (u64_at(gicc, 32), u64_at(gicc, 60)),
                (0, 0),
                "frames of {index}"
            );
            let mpidr = u64_at(gicc, 68);
            assert_eq!(VcpuId::from_affinity(mpidr), Some(VcpuId::new(index)));
            assert!(mpidrs.insert(mpidr));
        }
        assert_eq!(mpidrs.len(), usize::from(max));
        let distributors: Vec<u64> = of_type(12).map(|gicd| u64_at(gicd, 8)).collect();
        assert_eq!(distributors, [0x0800_0000]);
        let redistributors: Vec<(u64, u32)> = of_type(14)
            .map(|gicr| (u64_at(gicr, 4), u32_at(gicr, 12)))
            .collect();
        let first = (0x080a_0000, 0x2_0000 * u32::from(max.min(123)));
        let second = (
            0x40_0000_0000,
            0x2_0000 * u32::from(max.saturating_sub(123)),
        );
        assert_eq!(redistributors[0], first);
        assert_eq!(redistributors.get(1), (max > 123).then_some(&second));
        assert_eq!(
            structures.len(),
            usize::from(max) + 1 + redistributors.len()
        );
    }
}

#[test]
fn without_an_overflow_interrupt_there_is_no_pmu() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, 1 << 30)];
    for firmware in Firmware::ALL {
        let image = build(&Machine {
            has_pmu_interrupt: false,
            ..machine(&layout, &memory, firmware)
        })
        .unwrap();
        if firmware == Firmware::Acpi {
            let madt = structures(&blob(&image, "APIC").bytes, 44);
            let mut giccs = madt.iter().filter(|structure| structure[0] == 11);
            assert!(giccs.all(|gicc| u32_at(gicc, 20) == 0));
        } else {
            let tree = crate::devicetree::Tree::parse(&image.blobs[0].bytes).unwrap();
            assert!(tree.find("/pmu").is_none() && tree.find("/timer").is_some());
        }
    }
}

#[test]
fn a_gicv2_is_one_cpu_interface_for_all() {
    let image = described_with(GicVersion::V2, 2, 8, Firmware::Acpi);
    let madt = &blob(&image, "APIC").bytes;
    let found = structures(madt, 44);
    let kinds: Vec<u8> = found.iter().map(|structure| structure[0]).collect();
    assert_eq!(kinds, [12, 11, 11, 11, 11, 11, 11, 11, 11], "no GICR");
    assert_eq!((u64_at(found[0], 8), found[0][20]), (0x0800_0000, 2));
    for (index, gicc) in (0..).zip(&found[1..]) {
        assert_eq!((u32_at(gicc, 4), u64_at(gicc, 32)), (index, 0x0801_0000));
        // GICV, GICH and the maintenance interrupt; the redistributor.
        assert_eq!((u64_at(gicc, 40), u64_at(gicc, 48)), (0, 0));
        assert_eq!((u32_at(gicc, 56), u64_at(gicc, 60)), (0, 0));
        let flags = if index < 2 { 1 } else { 1 << 3 };
        assert_eq!(u32_at(gicc, 12), flags, "enabled or online-capable");
    }
}

#[test]
fn srat_places_every_possible_vcpu_and_all_memory() {
    let layout = GuestLayout::default();
    let memory = [
        Region::new(0x4000_0000, GIB),
        Region::new(0x1_0000_0000, 5 * GIB),
    ];
    let base = machine(&layout, &memory, Firmware::Acpi);
    let image = build(&Machine {
        max_vcpus: 20,
        ..base
    })
    .unwrap();
    let structures = structures(&blob(&image, "SRAT").bytes, 48);
    let uids: Vec<u32> = structures
        .iter()
        .filter(|structure| structure[0] == 3)
        .map(|gicc| {
            assert_eq!((u32_at(gicc, 2), u32_at(gicc, 10)), (0, 1));
            u32_at(gicc, 6)
        })
        .collect();
    assert_eq!(uids, (0..20).collect::<Vec<u32>>());
    let banks: Vec<Region> = structures
        .iter()
        .filter(|structure| structure[0] == 1)
        .map(|bank| Region::new(u64_at(bank, 8), u64_at(bank, 16)))
        .collect();
    assert_eq!(banks, memory);
}

#[test]
fn spcr_names_the_uart_of_the_dsdt() {
    let image = described(1, 1, Firmware::Acpi);
    let spcr = &blob(&image, "SPCR").bytes;
    assert_eq!((spcr[8], spcr[36], spcr[52]), (4, 3, 8));
    assert_eq!((u64_at(spcr, 44), u32_at(spcr, 54)), (0x0900_0000, 33));
    let (length, offset) = (usize::from(u16_at(spcr, 84)), usize::from(u16_at(spcr, 86)));
    assert_eq!(&spcr[offset..offset + length], b"\\_SB.COM0\0");
    assert_eq!(offset + length, spcr.len());
}

#[test]
fn gtdt_timers_are_always_on() {
    let image = described(1, 1, Firmware::Acpi);
    let gtdt = &blob(&image, "GTDT").bytes;
    assert_eq!((gtdt[8], gtdt.len()), (3, 104));
    let timers: Vec<(u32, u32)> = (48..80)
        .step_by(8)
        .map(|timer| (u32_at(gtdt, timer), u32_at(gtdt, timer + 4)))
        .collect();
    assert_eq!(timers, [(29, 4), (30, 4), (27, 4), (26, 4)]);
}

/// The EFI memory map as (type, range, attributes).
pub(super) fn memory_map(image: &Image) -> Vec<(u32, Region, u64)> {
    let map = &blob(image, "EFI memory map").bytes;
    map.chunks_exact(40)
        .map(|descriptor| {
            let start = u64_at(descriptor, 8);
            assert_eq!(u64_at(descriptor, 16), start, "virtual address");
            let range = Region::new(start, u64_at(descriptor, 24) << 12);
            (u32_at(descriptor, 0), range, u64_at(descriptor, 32))
        })
        .collect()
}

#[test]
fn the_memory_map_is_ram_and_nothing_else() {
    const WRITE_BACK: u64 = 8;
    let layout = GuestLayout::default();
    let memory = [
        Region::new(0x4000_0000, GIB),
        Region::new(0x1_0000_0000, 5 * GIB),
    ];
    let image = build(&machine(&layout, &memory, Firmware::Acpi)).unwrap();
    let expected = [
        (9, Region::new(0x4000_0000, 0x1_0000), WRITE_BACK),
        (5, Region::new(0x4001_0000, 0x1_0000), WRITE_BACK | 1 << 63),
        (7, Region::new(0x4002_0000, GIB - 0x2_0000), WRITE_BACK),
        (7, Region::new(0x1_0000_0000, 5 * GIB), WRITE_BACK),
    ];
    assert_eq!(memory_map(&image), expected);
    for blob in &image.blobs {
        let holder = if blob.what == "EFI runtime services" {
            expected[1]
        } else {
            expected[0]
        };
        assert!(holder.1.covers(blob.region()), "{blob:?}");
    }
}
