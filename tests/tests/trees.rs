//! The device trees of every board that Debian's kernel knows, read by the reader of EL2 without booting.
//!
//! Each is accepted, or refused with the sentence that a user of that board needs. `tests/goldens/trees.txt` says which; it is made anew
//! by `cargo xtask board --table`. Another kernel may have other trees: those are told, and fail nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::Command;
use tests::{artefacts, source};

/// Trees that a kernel and the table have in common, at least: far fewer would be another package.
const COMMON: usize = 800;

/// What is said of each tree, by its name.
fn by_name(rows: &str) -> BTreeMap<&str, &str> {
    let split = |row| str::split_once(row, ": ").unwrap_or_else(|| panic!("no row: {row}"));
    rows.lines().map(split).collect()
}

#[test]
fn every_boards_tree_is_accepted_or_refused_as_the_table_says() {
    let output = Command::new(artefacts::xtask())
        .arg("board")
        .arg(artefacts::trees())
        .output()
        .expect("xtask starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let rows = String::from_utf8(output.stdout).expect("rows are text");
    let table = source::root().join("tests/goldens/trees.txt");
    let table = std::fs::read_to_string(table).expect("the table is committed");
    let (found, expected) = (by_name(&rows), by_name(&table));
    let (mut common, mut broken) = (0, Vec::new());
    for (name, said) in &found {
        match expected.get(name) {
            Some(before) if before == said => common += 1,
            Some(before) => broken.push(format!("{name}: {said}; the table has: {before}")),
            None => println!("not in the table: {name}: {said}"),
        }
    }
    for name in expected.keys().filter(|name| !found.contains_key(*name)) {
        println!("not in this kernel: {name}");
    }
    assert!(
        broken.is_empty(),
        "{} trees are read differently; `cargo xtask board --table` writes the table anew:\n  {}",
        broken.len(),
        broken.join("\n  ")
    );
    assert!(common >= COMMON, "only {common} trees are in the table");
}

#[test]
fn one_tree_is_told_of_and_decides_the_exit_code() {
    let folder = source::root().join("hypervisor/control_plane/host/testdata");
    let board = |name: &str| {
        let output = Command::new(artefacts::xtask())
            .arg("board")
            .arg(folder.join(name))
            .output()
            .expect("xtask starts");
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text)
    };
    let (code, text) = board("virt-gic3-8.dtb");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("CPUs        8 by PSCI"), "{text}");
    let (code, text) = board("README.md");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("refused: "), "{text}");
}
