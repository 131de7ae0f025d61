//! System registers by name: one table for EL2 and one for the guests, and nothing reads or writes a register past EL2's.

use super::{OURS, rust, verdict};

/// The files in which an encoding may stand, beside its name.
const TABLES: [&str; 2] = ["hypervisor/el2/sysreg.rs", "tests/guests/rt/src/sysreg.rs"];
/// Code of EL2 in which an instruction can't be a call: what runs without a stack, or between a guest and Rust.
const WHOLE_ASSEMBLY: [&str; 4] = [
    "hypervisor/el2/image_header.rs",
    "hypervisor/el2/smp.rs",
    "hypervisor/el2/smp/",
    "hypervisor/el2/vectors.rs",
];

/// Tells whether a line has an encoding as the assembler takes it, `S3_` and four numbers (Arm ARM C5.1).
fn has_encoding(line: &str) -> bool {
    let line = line.to_uppercase();
    line.match_indices("S3_").any(|(at, prefix)| {
        let behind = &line.as_bytes()[at + prefix.len()..];
        matches!(behind, [op1, b'_', b'C', ..] if op1.is_ascii_digit())
    })
}

/// Tells whether a line has an instruction that reads or writes a system register, in a string.
fn has_access(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with("//") && ["\"mrs ", "\"msr "].iter().any(|it| line.contains(it))
}

#[test]
fn registers_have_names() {
    let mut broken = Vec::new();
    for file in rust(&OURS) {
        let path = &file.path;
        let is_table = TABLES.contains(&path.as_str());
        let is_of_el2 = path.starts_with("hypervisor/el2/")
            && !WHOLE_ASSEMBLY.iter().any(|place| path.starts_with(place));
        for (number, line) in file.text.lines().enumerate() {
            let number = number + 1;
            if !is_table && has_encoding(line) {
                broken.push(format!("{path}:{number}: an encoding instead of a name"));
            }
            if !is_table && is_of_el2 && has_access(line) {
                broken.push(format!("{path}:{number}: not by `sysreg`"));
            }
        }
    }
    verdict(
        "A system register is named, in the table of its side",
        &broken,
    );
}

#[test]
fn encodings_and_accesses_are_told_from_other_words() {
    assert!(has_encoding(&format!("    mrs x0, {}_C1_C2_2", "S3_4")));
    assert!(has_encoding(&format!("{}_c2_c1_0", "s3_0")));
    assert!(!has_encoding("const SMBIOS3_GUID: [u8; 16]"));
    assert!(has_access("core::arch::asm!(\"msr hcr_el2, x0\")"));
    assert!(!has_access("// \"msr hcr_el2, x0\""));
}
