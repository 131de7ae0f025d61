//! A device is a row, a folder and a line: nothing else knows what it is.

use super::{rust, verdict};
use std::collections::BTreeSet;
use tests::source::{has_word, test_only};

/// Where the devices of guests are.
const FOLDERS: &str = "hypervisor/vmm/devices/";

/// Where a device may be named besides its folder.
const NAMED_IN: [(&str, &str); 4] = [
    // The line that says which folder is behind a row, and the row.
    ("hypervisor/vmm/devices/mod.rs", "the line"),
    ("hypervisor/types/devices.rs", "the row"),
    // Tables with fields of their own for one device, as the SPCR has.
    ("hypervisor/control_plane/firmware/", "its description"),
    ("hypervisor/control_plane/build/", "its description"),
];

/// What is about the devices of the host, which EL2 drives, and register maps that both kinds have.
const OF_THE_HOST: [&str; 8] = [
    "boards/",
    "hypervisor/control_plane/host/",
    "hypervisor/control_plane/serial/",
    "hypervisor/el2/boot.rs",
    "hypervisor/el2/machine.rs",
    "hypervisor/el2/uart.rs",
    "hypervisor/types/lib.rs",
    "hypervisor/types/pl011.rs",
];

/// Returns how a device may be spelled in code.
fn spellings(name: &str) -> [String; 3] {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    [name.to_owned(), words.collect(), name.to_uppercase()]
}

#[test]
fn a_device_is_named_in_its_folder_its_row_and_its_description_only() {
    let files = rust(&["boards", "hypervisor"]);
    let tests = test_only(&files);
    let names: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix(FOLDERS)?.split_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    let mut broken = Vec::new();
    for file in &files {
        let is_excused = NAMED_IN
            .iter()
            .map(|(path, _)| path)
            .chain(&OF_THE_HOST)
            .any(|path| file.path.starts_with(path));
        if is_excused || file.is_test() || tests.contains(&file.path) {
            continue;
        }
        for name in &names {
            if file.path.starts_with(&format!("{FOLDERS}{name}/")) {
                continue;
            }
            let spellings = spellings(name);
            for (number, line) in file.code_without_tests().lines().enumerate() {
                if spellings.iter().any(|spelling| has_word(line, spelling)) {
                    broken.push(format!("{}:{}: `{name}`", file.path, number + 1));
                }
            }
        }
    }
    verdict(
        "A device's name stands in its folder, its row, its line and its description",
        &broken,
    );
}
