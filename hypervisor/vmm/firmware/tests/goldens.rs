//! The ACPI tables byte for byte, against the ones that were looked at and committed, and before the eyes of `iasl`.
//!
//! `BULLPEN_BLESS=1 cargo test -p hypervisor --lib goldens` writes the files anew; look at what changed before committing it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, eprintln, fs};

use super::{GIB, machine};
use crate::firmware::layout::{GuestLayout, Region};
use crate::firmware::{Blob, Firmware, Machine, build};

/// The machines that are kept: name, vCPUs that run from reset, vCPUs that can ever exist.
const KEPT: [(&str, u16, u16); 3] = [("1", 1, 1), ("2-of-8", 2, 8), ("8-of-64", 8, 64)];

/// Where the files are: one folder a machine, one file a table.
fn folder(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/goldens/acpi")
        .join(machine)
}

/// The ACPI tables of a machine with 1 GiB of RAM and no RAM disk; what is not ACPI's is left out.
fn tables(boot_vcpus: u16, max_vcpus: u16) -> Vec<Blob> {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    let base = machine(&layout, &memory, Firmware::Acpi);
    let machine = Machine {
        boot_vcpus,
        max_vcpus,
        initrd: None,
        ..base
    };
    let is_table = |blob: &Blob| blob.what.len() == 4;
    build(&machine)
        .unwrap()
        .blobs
        .into_iter()
        .filter(is_table)
        .collect()
}

fn file_name(table: &Blob) -> String {
    format!("{}.aml", table.what.to_lowercase())
}

#[test]
fn tables_are_what_was_committed() {
    let bless = env::var_os("BULLPEN_BLESS").is_some();
    for (name, boot, max) in KEPT {
        let tables = tables(boot, max);
        assert_eq!(tables.len(), 8);
        for table in tables {
            let path = folder(name).join(file_name(&table));
            if bless {
                fs::create_dir_all(folder(name)).unwrap();
                fs::write(&path, &table.bytes).unwrap();
            }
            let golden = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let difference = golden.iter().zip(&table.bytes).position(|(a, b)| a != b);
            assert_eq!(
                (difference, golden.len()),
                (None, table.bytes.len()),
                "{path:?}"
            );
        }
    }
}

/// Runs `iasl` in a folder, for at most a minute; returns what it said.
fn iasl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["60", "iasl"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "iasl {arguments:?}: {said}");
    said
}

/// The header fields that say who compiled a table: checksum, creator and creator revision.
const COMPILER_FIELDS: [core::ops::Range<usize>; 2] = [9..10, 28..36];

#[test]
fn iasl_reads_every_table_and_writes_the_same_dsdt() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("skipped: iasl is not installed (Debian package acpica-tools)");
        return;
    }
    let folder = env::temp_dir().join(format!("bullpen-iasl-{}", std::process::id()));
    for (boot, max) in [(1, 1), (1, 2), (2, 8), (8, 64), (1, 512), (512, 512)] {
        fs::create_dir_all(&folder).unwrap();
        for table in tables(boot, max) {
            let name = file_name(&table);
            if table.what == "RSDP" {
                continue; // has no table header: not for iasl
            }
            fs::write(folder.join(&name), &table.bytes).unwrap();
            let said = iasl(&folder, &["-d", &name]);
            let complaint = ["Error", "Warning", "Invalid", "Could not"]
                .iter()
                .find(|word| said.contains(*word));
            assert_eq!(complaint, None, "{boot} of {max} vCPUs, {name}: {said}");
            if table.what == "DSDT" {
                let said = iasl(&folder, &["-p", "again", "dsdt.dsl"]);
                assert!(
                    said.contains("0 Errors, 0 Warnings"),
                    "{boot} of {max} vCPUs: {said}"
                );
                let mut again = fs::read(folder.join("again.aml")).unwrap();
                for field in COMPILER_FIELDS {
                    again[field.clone()].copy_from_slice(&table.bytes[field]);
                }
                assert!(
                    again == table.bytes,
                    "{boot} of {max} vCPUs: the DSDT changed"
                );
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
