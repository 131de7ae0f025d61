//! SMBIOS: read field by field, and by dmidecode.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::fs;
use std::process::Command;

use super::acpica::folder_for;
use super::{GIB, blob, build, described, machine, u16_at, u32_at, u64_at};
use crate::firmware::{Firmware, Machine};
use crate::topology::Topology;
use types::layout::{GuestLayout, Region};

/// Where the structures are behind the entry point.
const STRUCTURES: usize = 32;

/// A structure: its formatted part and its strings.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    /// The string whose number is at `offset`.
    fn text(&self, offset: usize) -> &str {
        &self.strings[usize::from(self.bytes[offset]) - 1]
    }
}

/// Takes the blob apart (DSP0134, 6.1.3).
fn structures(smbios: &[u8]) -> Vec<Structure> {
    let mut rest = &smbios[STRUCTURES..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (bytes, after) = rest.split_at(usize::from(rest[1]));
        rest = after;
        let mut strings = Vec::new();
        loop {
            let end = rest.iter().position(|byte| *byte == 0).unwrap();
            let text = String::from_utf8(rest[..end].to_vec()).unwrap();
            rest = &rest[end + 1..];
            if text.is_empty() {
                break;
            }
            strings.push(text);
        }
        if strings.is_empty() {
            assert_eq!(rest[0], 0, "two NULs where there is no string");
            rest = &rest[1..];
        }
        let bytes = bytes.to_vec();
        found.push(Structure { bytes, strings });
    }
    found
}

fn types(structures: &[Structure]) -> Vec<u8> {
    structures.iter().map(|one| one.bytes[0]).collect()
}

#[test]
fn the_entry_point_leads_to_the_structures() {
    let image = described(2, 8, Firmware::Acpi);
    let smbios = blob(&image, "SMBIOS");
    let bytes = &smbios.bytes;
    assert_eq!((&bytes[..5], bytes[6]), (&b"_SM3_"[..], 24));
    let sum = bytes[..24]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((sum, &bytes[7..9], bytes[10]), (0, &[3, 5][..], 1));
    assert_eq!(u32_at(bytes, 12) as usize, bytes.len() - STRUCTURES);
    assert_eq!(u64_at(bytes, 16), smbios.address.get() + STRUCTURES as u64);
    let found = structures(bytes);
    assert_eq!(types(&found), [0, 1, 3, 4, 16, 17, 19, 32, 127]);
    let lengths: Vec<usize> = found.iter().map(|one| one.bytes.len()).collect();
    assert_eq!(lengths, [26, 27, 22, 48, 23, 92, 31, 11, 4]);
    let mut handles: Vec<u16> = found.iter().map(|one| u16_at(&one.bytes, 2)).collect();
    handles.dedup();
    assert_eq!(handles.len(), found.len());
    // From the system table.
    let system_table = blob(&image, "EFI system table");
    let entries = (u64_at(&system_table.bytes, 112) - system_table.address.get()) as usize;
    let named = u64_at(&system_table.bytes, entries + 64);
    assert_eq!(named, smbios.address.get());
}

#[test]
fn it_is_a_virtual_machine_of_ours_and_of_nobody_else() {
    let image = described(2, 8, Firmware::Acpi);
    let found = structures(&blob(&image, "SMBIOS").bytes);
    let [firmware, system, chassis, cpu, ..] = &found[..] else {
        panic!("too few");
    };
    // ACPI; UEFI and a virtual machine.
    assert_eq!(firmware.bytes[18..20], [1, 1 << 3 | 1 << 4]);
    assert_eq!(firmware.text(4), "Bullpen");
    assert_eq!(
        (system.text(4), system.text(5)),
        ("Bullpen", "Bullpen virtual machine")
    );
    assert_eq!(system.text(7), "fce4a5a1-d6c3-8036-b1d0-791033acac2f");
    assert_eq!(
        system.bytes[8..24],
        *b"\xa1\xa5\xe4\xfc\xc3\xd6\x36\x80\xb1\xd0\x79\x10\x33\xac\xac\x2f"
    );
    assert_eq!(chassis.text(4), "Bullpen");
    assert_eq!(
        (u32_at(&cpu.bytes, 8), u16_at(&cpu.bytes, 40)),
        (0x411f_d070, 0x101)
    );
    let all = found.iter().flat_map(|one| &one.strings);
    for text in all {
        let text = text.to_lowercase();
        for other in [
            "kvm",
            "qemu",
            "xen",
            "vmware",
            "amazon",
            "google",
            "microsoft",
        ] {
            assert!(!text.contains(other), "{text}");
        }
    }
}

#[test]
fn packages_have_their_cores_and_memory_its_ranges() {
    let layout = GuestLayout::default();
    let memory = [
        Region::new(0x4000_0000, GIB),
        Region::new(0x1_0000_0000, 33 * GIB),
    ];
    let base = machine(&layout, &memory, Firmware::Acpi);
    let image = build(&Machine {
        boot_vcpus: 7,
        max_vcpus: 24,
        topology: Topology::new([3, 2, 2, 2], 24).unwrap(),
        ..base
    })
    .unwrap();
    let found = structures(&blob(&image, "SMBIOS").bytes);
    assert_eq!(types(&found), [0, 1, 3, 4, 4, 4, 16, 17, 19, 19, 32, 127]);
    // State, cores, those that are on from reset, threads: 8 bits each, then 16.
    let expected = [(0x41, 4, 4, 8), (0x44, 4, 0, 8), (0x44, 4, 0, 8)];
    for (package, (state, cores, enabled, threads)) in found[3..6].iter().zip(expected) {
        let bytes = &package.bytes;
        assert_eq!(bytes[24], state);
        assert_eq!(bytes[35..38], [cores, enabled, threads]);
        let wide = [42, 44, 46].map(|at| u16_at(bytes, at));
        assert_eq!(wide, [cores, enabled, threads].map(u16::from));
        assert_eq!(u16_at(bytes, 38), 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5);
    }
    let [array, device, first, second] = [6, 7, 8, 9].map(|index: usize| &found[index].bytes);
    assert_eq!(u32_at(array, 7), 34 << 20);
    assert_eq!(u16_at(device, 4), u16_at(array, 2));
    assert_eq!((u16_at(device, 12), u32_at(device, 28)), (0x7fff, 34 << 10));
    assert_eq!(u64_at(device, 60), 34 * GIB);
    let range = |bytes: &[u8]| (u32_at(bytes, 4), u32_at(bytes, 8));
    assert_eq!(range(first), (0x10_0000, 0x1f_ffff));
    assert_eq!(range(second), (0x40_0000, 0x40_0000 + 33 * 0x10_0000 - 1));
}

#[test]
fn dmidecode_reads_all_of_it() {
    let Some(folder) = folder_for("dmidecode", "dmidecode") else {
        return;
    };
    for (boot, max) in [(1, 1), (2, 8), (300, 512)] {
        let image = described(boot, max, Firmware::Acpi);
        let mut dump = blob(&image, "SMBIOS").bytes.clone();
        // In a dump the structures' address is their place in the file.
        dump[16..24].copy_from_slice(&(STRUCTURES as u64).to_le_bytes());
        dump[5] = 0;
        let sum = dump[..24]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        dump[5] = sum.wrapping_neg();
        fs::write(folder.join("dump"), &dump).unwrap();
        let output = Command::new("dmidecode")
            .args(["--from-dump", "dump"])
            .current_dir(&folder)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        for wrong in [
            "<BAD INDEX>",
            "<TRUNCATED>",
            "OUT OF SPEC",
            "Wrong",
            "broken",
            "Invalid",
        ] {
            assert!(!said.contains(wrong), "{wrong}: {said}");
        }
        let cores = format!("Core Count: {max}");
        for line in [
            "SMBIOS 3.5.0 present.",
            "System is a virtual machine",
            "UEFI is supported",
            "Product Name: Bullpen virtual machine",
            "UUID: fce4a5a1-d6c3-8036-b1d0-791033acac2f",
            "Family: ARMv8",
            "Implementor 0x41, Variant 0x1, Architecture 15, Part 0xd07, Revision 0",
            &cores,
            "Size: 1 GB",
            "Status: No errors detected",
            "End Of Table",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}
