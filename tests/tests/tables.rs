//! ACPI tables as a Linux guest reads them: checksums, the committed goldens byte for byte, and ACPICA's opinion of them.
//!
//! `vmm` compares what it makes with the same goldens; here they have gone through the loader, guest memory and the kernel.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::console::Console;
use tests::machine::Machine;
use tests::{Vm, artefacts, linux, source};

/// What the guest's sysfs must hold, all of it: the tables that the XSDT leads to.
const IN_SYSFS: [&str; 7] = ["APIC", "DSDT", "FACP", "GTDT", "PPTT", "SPCR", "SRAT"];
/// Of the machines whose tables are kept, the one that is booted: 2 of 8 vCPUs, 1 GiB of RAM.
const MACHINE: &str = "2-of-8";
const MEMORY_MIB: u64 = 1024;
/// Lengths: of a table's header, of the RSDP (ACPI 6.5, 5.2.5.3 and 5.2.6), of an ELF header and a program header.
const HEADER: usize = 36;
const RSDP: usize = 36;
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// The header's fields that say which compiler made a table: checksum, creator and creator revision.
const COMPILER_FIELDS: [std::ops::Range<usize>; 2] = [9..10, 28..36];

type Tables = BTreeMap<String, Vec<u8>>;

/// Has the guest print what a shell command writes, and checks that all of it arrived.
fn bytes(console: &mut Console, command: &str) -> Vec<u8> {
    let line =
        format!("{command} > /tmp/out; busybox xxd -p /tmp/out; echo length $(wc -c < /tmp/out)");
    let text = linux::run(console, &line);
    let (digits, length) = text.split_once("length").expect("the length comes last");
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap_or("");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{command}: {text}"))
        })
        .collect();
    assert_eq!(
        length.trim(),
        bytes.len().to_string(),
        "{command}: bytes were lost"
    );
    bytes
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// Finds in the program headers of `/proc/kcore` how far behind its guest-physical address a byte of RAM lies in the file.
fn kcore_offset(console: &mut Console, address: u64) -> u64 {
    let header = bytes(console, &format!("head -c {ELF_HEADER} /proc/kcore"));
    assert_eq!(&header[..4], b"\x7fELF");
    let (first, count) = (
        u64_at(&header, 32),
        u16::from_le_bytes([header[56], header[57]]),
    );
    let size = usize::from(count) * PROGRAM_HEADER;
    let headers = bytes(
        console,
        &format!("dd if=/proc/kcore bs=1 skip={first} count={size} 2> /dev/null"),
    );
    headers
        .chunks(PROGRAM_HEADER)
        .find_map(|header| {
            let [offset, physical, size] = [8, 24, 32].map(|at| u64_at(header, at));
            let within = address
                .checked_sub(physical)
                .filter(|within| *within < size)?;
            Some(offset + within)
        })
        .unwrap_or_else(|| panic!("{address:#x} is not in /proc/kcore: {headers:x?}"))
}

/// Reads guest-physical memory by way of the guest's kernel.
fn physical(console: &mut Console, address: u64, length: usize) -> Vec<u8> {
    let offset = kcore_offset(console, address);
    bytes(
        console,
        &format!("dd if=/proc/kcore bs=1 skip={offset} count={length} 2> /dev/null"),
    )
}

/// Collects every table that the guest has, from its sysfs and, for the two that are not there, from its memory.
fn collect(console: &mut Console) -> Tables {
    linux::run(console, "dmesg -n 1");
    let names = linux::run(console, "cd /sys/firmware/acpi/tables; find . -type f");
    let mut names: Vec<&str> = names
        .lines()
        .map(|line| line.trim_start_matches("./"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, IN_SYSFS);
    let mut tables: Tables = names
        .into_iter()
        .map(|name| {
            (
                name.to_owned(),
                bytes(console, &format!("cat /sys/firmware/acpi/tables/{name}")),
            )
        })
        .collect();
    let place = linux::run(console, "grep ACPI20= /sys/firmware/efi/systab");
    let place = place
        .trim()
        .strip_prefix("ACPI20=0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let rsdp = physical(console, place.expect("the kernel knows the RSDP"), RSDP);
    let xsdt = u64_at(&rsdp, 24);
    let length = golden("xsdt").len();
    tables.insert("XSDT".into(), physical(console, xsdt, length));
    tables.insert("RSDP".into(), rsdp);
    tables
}

fn golden(name: &str) -> Vec<u8> {
    let path = source::root()
        .join("tests/goldens/acpi")
        .join(MACHINE)
        .join(name.to_lowercase() + ".aml");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn check_form(name: &str, table: &[u8]) {
    if name == "RSDP" {
        // The first 20 bytes, which are those of ACPI 1.0, have a sum of their own.
        assert_eq!(
            (&table[..8], sum(&table[..20]), sum(table)),
            (&b"RSD PTR "[..], 0, 0)
        );
        return;
    }
    assert!(table.len() >= HEADER, "{name}: {} bytes", table.len());
    let length = u32::from_le_bytes([table[4], table[5], table[6], table[7]]);
    assert_eq!(
        (&table[..4], length as usize),
        (name.as_bytes(), table.len()),
        "{name}"
    );
    assert_eq!(sum(table), 0, "{name}: checksum");
}

/// Runs iasl; returns what it said.
fn iasl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("iasl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| {
            panic!("iasl (Debian package acpica-tools; `cargo xtask setup --all`): {error}")
        });
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "iasl {arguments:?}: {text}");
    text
}

fn check_by_acpica(tables: &Tables, directory: PathBuf) {
    let version = iasl(&directory, &["-v"]);
    println!(
        "{}",
        version
            .lines()
            .find(|line| line.contains("version"))
            .unwrap_or("iasl")
    );
    // Its form has no header, which is all that iasl knows.
    for (name, table) in tables.iter().filter(|(name, _)| *name != "RSDP") {
        let file = name.to_lowercase() + ".aml";
        std::fs::write(directory.join(&file), table).expect("the log directory can be written");
        let said = iasl(&directory, &["-d", &file]);
        let complaint = ["Error", "Warning", "Invalid", "Could not"]
            .iter()
            .find(|word| said.contains(*word));
        assert_eq!(complaint, None, "{name}: {said}");
    }
    let said = iasl(&directory, &["-p", "again", "dsdt.dsl"]);
    assert!(said.contains("0 Errors, 0 Warnings"), "{said}");
    let mut again =
        std::fs::read(directory.join("again.aml")).expect("iasl wrote what it compiled");
    let dsdt = &tables["DSDT"];
    for field in COMPILER_FIELDS {
        again[field.clone()].copy_from_slice(&dsdt[field]);
    }
    assert!(
        again == *dsdt,
        "the DSDT recompiles to other bytes: {}",
        directory.display()
    );
}

#[test]
fn acpi_tables_as_linux_reads_them() {
    let name = "linux-acpi-tables";
    let vm = Vm::linux("linux", "linux-6.12").memory_mib(MEMORY_MIB);
    let machine = Machine::new(name).cpus(2).model("cortex-a57");
    let (mut running, _) = linux::boot(machine, vm);
    let tables = collect(&mut running.console);
    drop(running);
    for (name, table) in &tables {
        check_form(name, table);
        let golden = golden(name);
        let difference = golden.iter().zip(table).position(|(a, b)| a != b);
        assert_eq!(
            (difference, table.len()),
            (None, golden.len()),
            "{name} is not what was committed"
        );
    }
    check_by_acpica(&tables, artefacts::log_directory(name));
}
