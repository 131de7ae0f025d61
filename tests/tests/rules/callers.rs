//! Nothing is public for its tests alone: a path that production never takes is proven and of no use.

use super::{INSIDE_EL2, rust, verdict};
use std::cell::RefCell;
use tests::calls::{Code, uncalled};
use tests::source::test_only;

/// The rooms that decide and could as well run on any host: what is public there is for the others.
const PURE_ROOMS: [&str; 7] = [
    "boards/",
    "hypervisor/control_plane/",
    "hypervisor/types/",
    "hypervisor/vmm/",
    "psci/",
    "stage2/",
    "vgic/",
];

/// The issue that takes memory from a running VM.
const MEMORY: &str = "Memory and NUMA by ACPI";

/// Public functions that an issue still to come will call: file, name (`*` is all of them), title of that issue.
/// When the issue ends its rows are gone.
const CALLED_LATER: [(&str, &str, &str); 2] = [
    ("stage2/src/change.rs", "begin_protect", MEMORY),
    ("stage2/src/quota.rs", "tables_needed_in_pages", MEMORY),
];

#[test]
fn public_functions_of_pure_rooms_have_callers() {
    let mut files = rust(&INSIDE_EL2);
    files.extend(rust(&["xtask"]));
    let tests = test_only(&files);
    files.retain(|file| !file.is_test() && !tests.contains(&file.path));
    let used = RefCell::new([false; CALLED_LATER.len()]);
    let later = |path: &str, function: &str| {
        let row = CALLED_LATER
            .iter()
            .position(|(file, name, _)| *file == path && (*name == "*" || *name == function));
        row.inspect(|&row| used.borrow_mut()[row] = true).is_some()
    };
    let found = uncalled(files.iter().map(Code::of).collect(), &PURE_ROOMS, later);
    let idle = CALLED_LATER
        .iter()
        .zip(used.into_inner())
        .filter(|(_, used)| !used)
        .map(|((file, name, issue), _)| format!("{file}: {name} no longer waits for \"{issue}\""));
    let mut broken: Vec<String> = found
        .iter()
        .map(|(path, function)| {
            let owner = function.owner.iter().map(|owner| format!("{owner}::"));
            let owner: String = owner.collect();
            let line = function.lines.0 + 1;
            format!("{path}:{line}: {owner}{} has no caller", function.name)
        })
        .chain(idle)
        .collect();
    broken.sort();
    verdict("A path that only tests enter is no path", &broken);
}
