//! The ACPI tables byte for byte, against the ones that were looked at and committed.
//!
//! `BULLPEN_BLESS=1 cargo test -p control_plane goldens` writes the files anew; look at what changed before committing it.

use alloc::format;
use alloc::string::String;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::{acpi_tables, described_with};
use crate::firmware::{Blob, Firmware};
use types::layout::GicVersion;

/// The machines that are kept: name, vCPUs that run from reset, vCPUs that can ever exist, interrupt controller.
const KEPT: [(&str, u16, u16, GicVersion); 4] = [
    ("1", 1, 1, GicVersion::V3),
    ("2-of-8", 2, 8, GicVersion::V3),
    ("8-of-64", 8, 64, GicVersion::V3),
    ("gicv2-2-of-8", 2, 8, GicVersion::V2),
];

/// Where the files are: one folder a machine, one file a table.
fn folder(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/goldens/acpi")
        .join(machine)
}

/// Names a table's file.
pub(super) fn file_name(table: &Blob) -> String {
    format!("{}.aml", table.what.to_lowercase())
}

#[test]
fn tables_are_what_was_committed() {
    let bless = env::var_os("BULLPEN_BLESS").is_some();
    for (name, boot, max, gic) in KEPT {
        let tables = acpi_tables(described_with(gic, boot, max, Firmware::Acpi));
        assert_eq!(tables.len(), 9);
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
