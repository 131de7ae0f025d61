//! The tables before the eyes of ACPICA, whose interpreter is Linux's: `iasl` reads and recompiles them, `acpiexec` runs the AML.
//!
//! Both are in Debian's package acpica-tools; where that is not installed, the tests say so and pass, but not for `cargo xtask test`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, eprintln, fs};

use super::goldens::file_name;
use super::{acpi_tables, blob, described_with_slots};

/// Makes an empty folder for a tool of a Debian package to work in, or says that there is no such tool.
pub(super) fn folder_for(tool: &str, package: &str) -> Option<PathBuf> {
    if Command::new(tool).arg("-v").output().is_err() {
        let missing = format!("{tool} is not installed (Debian package {package})");
        assert!(env::var_os("BULLPEN_GATE").is_none(), "{missing}");
        eprintln!("skipped: {missing}");
        return None;
    }
    let folder = env::temp_dir().join(format!(
        "bullpen-{tool}-{}-{}",
        std::process::id(),
        std::thread::current()
            .name()
            .unwrap_or("")
            .replace("::", "-")
    ));
    fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

/// Runs a tool in a folder, for at most a minute; returns what it said if it ended well.
fn run(folder: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["60", tool])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    said
}

/// The header fields that say which compiler made a table: checksum, creator and creator revision.
const COMPILER_FIELDS: [core::ops::Range<usize>; 2] = [9..10, 28..36];

#[test]
fn iasl_reads_every_table_and_writes_the_same_dsdt() {
    let Some(folder) = folder_for("iasl", "acpica-tools") else {
        return;
    };
    for (boot, max, slots) in [
        (1, 1, 0),
        (1, 2, 0),
        (2, 8, 0),
        (8, 64, 1),
        (2, 8, 12),
        (1, 512, 512),
        (512, 512, 3),
    ] {
        for table in acpi_tables(described_with_slots(boot, max, slots)) {
            let name = file_name(&table);
            if table.what == "RSDP" {
                continue; // has no table header: not for iasl
            }
            fs::write(folder.join(&name), &table.bytes).unwrap();
            let said = run(&folder, "iasl", &["-d", &name]);
            let complaint = ["Error", "Warning", "Invalid", "Could not"]
                .iter()
                .find(|word| said.contains(*word));
            assert_eq!(complaint, None, "{boot} of {max} vCPUs, {name}: {said}");
            if table.what == "DSDT" {
                let said = run(&folder, "iasl", &["-p", "again", "dsdt.dsl"]);
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
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Has `acpiexec` evaluate `what` in the DSDT of a machine whose EVENT register reads `event` at first, and returns what it
/// said after it had loaded the tables. Registers are simulated: they keep what is written.
///
/// It handles a Notify in a thread of its own, for which it does not wait when it is told to quit: it is told after it has said
/// `last`.
fn execute(folder: &Path, vcpus: (u16, u16), event: u32, what: &str, last: &str) -> String {
    let image = described_with_slots(vcpus.0, vcpus.1, SLOTS);
    fs::write(folder.join("dsdt.aml"), &blob(&image, "DSDT").bytes).unwrap();
    fs::write(folder.join("init"), format!("\\_SB.GED0.EVNT {event:#x}\n")).unwrap();
    let mut child = Command::new("timeout")
        .args(["60", "stdbuf", "-oL", "acpiexec", "-fi", "init", "-vr"])
        .arg("dsdt.aml")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take();
    writeln!(input.as_mut().unwrap(), "evaluate {what}").unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains(last)
            && let Some(mut input) = input.take()
        {
            writeln!(input, "quit").unwrap();
        }
        said += &line;
        said.push('\n');
    }
    assert!(child.wait().unwrap().success(), "{what}: {said}");
    let start = said
        .find("\nEvaluating")
        .unwrap_or_else(|| panic!("{said}"));
    String::from(&said[start..])
}

/// Memory slots of a machine in which something is evaluated.
const SLOTS: u16 = 20;

/// The method by which a GED is told of its interrupt.
const EVT: &str = "\\_SB.GED0._EVT 0x29";
/// What `acpiexec` says when a method is over: "evaluation of" or "Evaluation of".
const EVALUATED: &str = "valuation of";

/// The register accesses in what `acpiexec -vr` said: direction, value and address.
fn accesses(said: &str) -> Vec<(String, u64, u64)> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    said.lines()
        .filter_map(|line| line.strip_prefix("AcpiExec: SystemMemory "))
        .map(|access| {
            let (direction, rest) = access.split_once(": Val ").unwrap();
            let (value, rest) = rest.split_once(" Addr ").unwrap();
            let (address, _) = rest.split_once(' ').unwrap();
            (String::from(direction.trim_end()), hex(value), hex(address))
        })
        .collect()
}

#[test]
fn an_event_costs_one_read_and_reaches_its_processor() {
    let Some(folder) = folder_for("acpiexec", "acpica-tools") else {
        return;
    };
    let cases = [
        ((1, 2), 1, 1, "[C001]", "0x01 (Device Check)"),
        ((2, 8), 2, 1, "[C002]", "0x01 (Device Check)"),
        ((2, 8), 7, 3, "[C007]", "0x03 (Eject Request)"),
        ((1, 512), 1, 1, "[C001]", "0x01 (Device Check)"),
        ((1, 512), 256, 3, "[C100]", "0x03 (Eject Request)"),
        ((1, 512), 511, 1, "[C1FF]", "0x01 (Device Check)"),
        ((2, 8), 1 << 24, 1, "[M000]", "0x01 (Device Check)"),
        ((2, 8), 1 << 24 | 7, 3, "[M007]", "0x03 (Eject Request)"),
        ((4, 4), 1 << 24 | 19, 1, "[M013]", "0x01 (Device Check)"),
        ((2, 8), 0, 0x80, "[PWRB]", "0x80 (Status Change)"),
        ((4, 4), 0, 0x80, "[PWRB]", "0x80 (Status Change)"),
    ];
    for (vcpus, uid, code, device, value) in cases {
        let event = 1 << 31 | code << 16 | uid;
        let said = execute(&folder, vcpus, event, EVT, "Notify on");
        let notified = format!("Notify on {device}");
        assert!(
            said.contains(&notified) && said.contains(value),
            "{vcpus:?} {event:#x}: {said}"
        );
        assert_eq!(said.matches("Notify on").count(), 1, "{said}");
        let read = (String::from("Read"), u64::from(event), 0x090c_0000);
        assert_eq!(accesses(&said), [read], "{said}");
    }
    let said = execute(&folder, (2, 8), 0, EVT, EVALUATED);
    assert!(!said.contains("Notify on"), "{said}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_memory_slot_costs_one_access_an_answer_and_absent_is_zero() {
    let Some(folder) = folder_for("acpiexec", "acpica-tools") else {
        return;
    };
    let cases = [
        ("_STA", ("Read", 0, 0x090c_4050), "= 0000000000000000"),
        ("_EJ0 1", ("Write", 1, 0x090c_4054), ""),
        ("_OST 3 0x82 0", ("Write", 0x0003_0082, 0x090c_4058), ""),
    ];
    for (method, (direction, value, address), result) in cases {
        let what = format!("\\_SB.MEMS.M005.{method}");
        let said = execute(&folder, (2, 8), 0, &what, EVALUATED);
        let access = (String::from(direction), value, address);
        assert_eq!(accesses(&said), [access], "{said}");
        assert!(said.contains(result), "{said}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_processor_costs_one_access_an_answer() {
    let Some(folder) = folder_for("acpiexec", "acpica-tools") else {
        return;
    };
    let cases = [
        ("_STA", ("Read", 0, 0x090c_1050)),
        ("_EJ0 1", ("Write", 1, 0x090c_1054)),
        ("_OST 1 0 0", ("Write", 0x0001_0000, 0x090c_1058)),
        ("_OST 0x103 0x84 0", ("Write", 0x0103_0084, 0x090c_1058)),
    ];
    for (method, (direction, value, address)) in cases {
        let what = format!("\\_SB.CPUS.C005.{method}");
        let said = execute(&folder, (2, 8), 0, &what, EVALUATED);
        assert_eq!(
            accesses(&said),
            [(String::from(direction), value, address)],
            "{said}"
        );
    }
    let said = execute(&folder, (2, 8), 0, "\\_SB.CPUS.C001._STA", EVALUATED);
    assert!(said.contains("[Integer] = 000000000000000F"), "{said}");
    assert_eq!(accesses(&said), []);
    fs::remove_dir_all(&folder).unwrap();
}
