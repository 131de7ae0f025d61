//! The house rules: what ARCHITECTURE.md promises about the rooms, held against the source as it stands.
//!
//! Every rule lists all that breaks it, with file and line, so that one run shows the whole work.
#![forbid(unsafe_code)]

use tests::source::{File, files_under, has_word, root, test_only};

#[path = "rules/callers.rs"]
mod callers;
#[path = "rules/dependencies.rs"]
mod dependencies;
#[path = "rules/devices.rs"]
mod devices;
#[path = "rules/documents.rs"]
mod documents;
#[path = "rules/doors.rs"]
mod doors;
#[path = "rules/imports.rs"]
mod imports;
#[path = "rules/registers.rs"]
mod registers;
#[path = "rules/words.rs"]
mod words;

/// Fails with a list, if there is one.
fn verdict(rule: &str, broken: &[String]) {
    assert!(
        broken.is_empty(),
        "{rule}; {} places break this:\n  {}",
        broken.len(),
        broken.join("\n  ")
    );
}

/// Rust files below these directories.
fn rust(directories: &[&str]) -> Vec<File> {
    directories
        .iter()
        .flat_map(|directory| files_under(directory))
        .filter(File::is_rust)
        .collect()
}

/// The crates of the main workspace and the folders of the bare-metal guests.
const OURS: [&str; 7] = [
    "boards",
    "hypervisor",
    "psci",
    "stage2",
    "vgic",
    "tests",
    "xtask",
];
/// The crates inside of one of them.
const NESTED: [&str; 2] = ["hypervisor/control_plane", "hypervisor/types"];
/// Where unsafe code and assembly may stand.
const UNSAFE_ROOMS: [&str; 3] = ["hypervisor/el2/", "tests/guests/", "tests/plugin/"];
/// What a hypervisor runs at EL2.
const INSIDE_EL2: [&str; 5] = ["boards", "hypervisor", "psci", "stage2", "vgic"];

fn places(files: &[File], breaks: impl Fn(&File, &str) -> Option<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for (number, line) in file.code_without_tests().lines().enumerate() {
            if let Some(why) = breaks(file, line) {
                broken.push(format!("{}:{}: {why}", file.path, number + 1));
            }
        }
    }
    broken
}

#[test]
fn the_top_level_is_the_one_agreed_on() {
    const FOLDERS: [&str; 11] = [
        ".cargo",
        ".ci",
        "boards",
        "docs",
        "hypervisor",
        "linker",
        "psci",
        "stage2",
        "tests",
        "vgic",
        "xtask",
    ];
    const NOT_OURS: [&str; 2] = [".git", "target"];
    let mut broken = Vec::new();
    for entry in std::fs::read_dir(root())
        .expect("the repository can be read")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let folder = entry.path().is_dir();
        if folder && !FOLDERS.contains(&name.as_str()) && !NOT_OURS.contains(&name.as_str()) {
            broken.push(format!("{name}/"));
        }
    }
    for folder in [
        "boards",
        "hypervisor",
        "linker",
        "psci",
        "stage2",
        "tests",
        "vgic",
    ] {
        if !root().join(folder).is_dir() {
            broken.push(format!("{folder}/ is missing"));
        }
    }
    verdict("The top level's folders are fixed", &broken);
}

/// Returns the names of the dependencies in one section of a manifest.
fn dependencies(manifest: &str, section: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside
            && !line.starts_with('#')
            && let Some((name, value)) = line.split_once('=')
        {
            let name = name.trim();
            let name = name.split('.').next().unwrap_or(name);
            found.push((name.to_owned(), line.to_owned() + value));
        }
    }
    found
}

fn manifest(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn pure_rooms_depend_on_no_other_room() {
    const FORBIDDEN: [&str; 9] = [
        "stage2",
        "vgic",
        "psci",
        "boards",
        "hypervisor",
        "spin",
        "aarch64-cpu",
        "log",
        "buddy_system_allocator",
    ];
    let mut broken = Vec::new();
    for room in ["stage2", "vgic", "psci", "boards", "hypervisor/types"] {
        let path = format!("{room}/Cargo.toml");
        for (name, _) in dependencies(&manifest(&path), "dependencies") {
            if FORBIDDEN.contains(&name.as_str()) {
                broken.push(format!("{path}: {name}"));
            }
        }
    }
    for (name, _) in dependencies(&manifest("tests/Cargo.toml"), "dependencies") {
        if INSIDE_EL2.contains(&name.as_str()) {
            broken.push(format!("tests/Cargo.toml: {name}"));
        }
    }
    verdict("Pure rooms depend on core, alloc and `types` only", &broken);
}

#[test]
fn guests_are_an_independent_reading_of_the_specifications() {
    const ALLOWED: [&str; 4] = ["aarch64-cpu", "safe-mmio", "fdt", "guest-rt"];
    let mut broken = Vec::new();
    for path in ["tests/guests/Cargo.toml", "tests/guests/rt/Cargo.toml"] {
        for section in ["dependencies", "workspace.dependencies"] {
            for (name, _) in dependencies(&manifest(path), section) {
                if !ALLOWED.contains(&name.as_str()) {
                    broken.push(format!("{path}: {name}"));
                }
            }
        }
    }
    verdict("Guests share no code with the hypervisor", &broken);
}

#[test]
fn dependencies_are_pinned_in_one_place() {
    let mut broken = Vec::new();
    let workspace = manifest("Cargo.toml");
    let names = dependencies(&workspace, "workspace.dependencies");
    for (name, line) in &names {
        if line.contains("path =") {
            continue;
        }
        if !line.contains("version =") || !line.contains("default-features = false") {
            broken.push(format!(
                "Cargo.toml: {name} needs a version and default-features = false"
            ));
        }
    }
    let sorted: Vec<&String> = {
        let mut sorted: Vec<&String> = names.iter().map(|(name, _)| name).collect();
        sorted.sort();
        sorted
    };
    if names
        .iter()
        .map(|(name, _)| name)
        .ne(sorted.iter().copied())
    {
        broken.push("Cargo.toml: [workspace.dependencies] is not in alphabetical order".into());
    }
    for member in OURS.into_iter().chain(NESTED) {
        let path = format!("{member}/Cargo.toml");
        let text = manifest(&path);
        for section in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(target_os = \"none\")'.dependencies",
            "target.'cfg(loom)'.dependencies",
            "target.'cfg(loom)'.dev-dependencies",
        ] {
            for (name, line) in dependencies(&text, section) {
                if !line.contains("workspace = true") {
                    broken.push(format!("{path}: {name} is not taken from the workspace"));
                }
            }
        }
        if !text.contains("[lints]\nworkspace = true") {
            broken.push(format!("{path}: does not take the workspace's lints"));
        }
    }
    verdict("Every dependency is pinned once, in the workspace", &broken);
}

#[test]
fn unsafe_code_and_assembly_stand_in_el2_only() {
    const WORDS: [&str; 5] = ["unsafe", "asm!", "global_asm!", "naked_asm!", "aarch64_cpu"];
    let files = rust(&OURS);
    let broken = places(&files, |file, line| {
        if UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room)) {
            return None;
        }
        WORDS
            .iter()
            .find(|word| has_word(line, word))
            .map(|word| format!("`{word}`"))
    });
    verdict(
        "Unsafe code, assembly and system registers belong to hypervisor/el2",
        &broken,
    );
}

#[test]
fn safe_crates_forbid_unsafe_code() {
    let mut broken = Vec::new();
    for path in [
        "boards/src/lib.rs",
        "hypervisor/control_plane/lib.rs",
        "hypervisor/types/lib.rs",
        "hypervisor/vmm/lib.rs",
        "psci/src/lib.rs",
        "stage2/src/lib.rs",
        "tests/src/lib.rs",
        "vgic/src/lib.rs",
        "xtask/src/main.rs",
    ] {
        if !manifest(path).contains("#![forbid(unsafe_code)]") {
            broken.push(path.to_owned());
        }
    }
    verdict("Every crate but el2 forbids unsafe code", &broken);
}

#[test]
fn unsafe_modules_of_el2_say_why() {
    let broken: Vec<String> = rust(&["hypervisor/el2", "tests/guests", "tests/plugin"])
        .iter()
        .filter(|file| file.code().lines().any(|line| has_word(line, "unsafe")))
        .filter(|file| {
            let code: String = file.code().split_whitespace().collect();
            !code.contains("expect(unsafe_code")
        })
        .map(|file| file.path.clone())
        .collect();
    verdict(
        "A module with unsafe code opens with #![expect(unsafe_code, reason = \"…\")]",
        &broken,
    );
}

#[test]
fn locks_that_several_vms_meet_at_are_fair() {
    let shared = |file: &File| {
        let rooms = ["hypervisor/el2/", "hypervisor/vmm/ops/"];
        rooms.iter().any(|room| file.path.starts_with(room))
            || file.path.ends_with("/placements.rs")
    };
    let files: Vec<File> = rust(&OURS).into_iter().filter(shared).collect();
    let broken = places(&files, |_, line| {
        has_word(line, "SpinMutex").then(|| "use `vmm::sync::FairMutex`".to_owned())
    });
    verdict(
        "A lock at which CPUs of several VMs meet is given in the order in which they came",
        &broken,
    );
}

#[test]
fn no_shortcuts_are_left_in_the_code() {
    const FORBIDDEN: [(&str, &str); 8] = [
        ("static mut", "state is per CPU, atomic, or behind a lock"),
        ("#[allow(", "use #[expect(…, reason = \"…\")]"),
        ("#![allow(", "use #![expect(…, reason = \"…\")]"),
        ("todo!", "nothing is left to do in what is landed"),
        ("unimplemented!", "nothing is left to do in what is landed"),
        ("dbg!", "a debugging aid"),
        ("#[ignore]", "an ignored test says why"),
        ("no_mangle)", "only where an `unsafe` room needs a symbol"),
    ];
    let files = rust(&OURS);
    let mut broken = Vec::new();
    for file in &files {
        for (number, line) in file.code().lines().enumerate() {
            for (word, why) in FORBIDDEN {
                let excused = word == "no_mangle)"
                    && UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room));
                if has_word(line, word) && !excused {
                    broken.push(format!("{}:{}: `{word}`: {why}", file.path, number + 1));
                }
            }
        }
    }
    verdict("No shortcuts", &broken);
}

/// Most lines of a file, without its unit tests.
const FILE_LINES_MAX: usize = 600;

#[test]
fn files_hold_one_concept_each() {
    let mut broken = Vec::new();
    for file in rust(&OURS) {
        let lines = file.lines_without_tests();
        if !file.is_test() && lines > FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines without tests", file.path));
        }
        let head = file
            .text
            .lines()
            .find(|line| !line.starts_with("#!") && !line.trim().is_empty());
        if !file.is_test() && head.is_some_and(|line| !line.starts_with("//!")) {
            broken.push(format!(
                "{}: does not open with //! what and why",
                file.path
            ));
        }
    }
    verdict(
        "A file holds one concept, says which, and stays readable",
        &broken,
    );
}

/// Most lines of a function; the habit is ten.
const FUNCTION_LINES_MAX: usize = 60;

#[test]
fn functions_stay_short() {
    let mut broken = Vec::new();
    for file in rust(&["boards", "hypervisor", "psci", "stage2", "vgic"]) {
        if file.is_test() {
            continue;
        }
        let code = file.code_without_tests();
        let lines: Vec<&str> = code.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            if !has_word(line, "fn") || line.trim_end().ends_with(';') {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let end = (start..lines.len()).find(|&at| lines[at].trim_end() == closing);
            let length = end.map_or(1, |end| end - start + 1);
            if length > FUNCTION_LINES_MAX {
                broken.push(format!("{}:{}: {length} lines", file.path, start + 1));
            }
        }
    }
    verdict("A function fits on a screen", &broken);
}

/// The page's table of locks, held against the fields and statics that are locks.
#[test]
fn the_table_of_locks_is_complete() {
    let page = manifest("ARCHITECTURE.md");
    let table = page
        .split("## Locks")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("a section on locks");
    let files = rust(&INSIDE_EL2);
    let tests = test_only(&files);
    let is_lock = |line: &str| line.contains("SpinMutex<") || line.contains("FairMutex<");
    let broken = places(&files, |file, line| {
        if file.is_test() || tests.contains(&file.path) || !is_lock(line) {
            return None;
        }
        let declared = line.trim().trim_end_matches('{');
        let declared = ["pub(super) ", "pub(crate) ", "pub ", "static ", "struct "]
            .iter()
            .fold(declared, |rest, word| rest.trim_start_matches(word));
        let name = declared.split([':', '(']).next().unwrap_or(declared);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_declaration = name.len() < declared.len() && name.bytes().all(is_name);
        (is_declaration && !has_word(table, name)).then(|| format!("`{name}` is not in it"))
    });
    verdict("ARCHITECTURE.md lists every lock", &broken);
}

/// Most lines of code inside EL2: comments, blank lines and tests are not counted.
/// Raised from 20,000 with answers that guests and operators were owed: the admission of VMs to CPUs, ICC_DIR_EL1,
/// deferred work that takes turns with the vCPUs, vCPUs that only fault, kinds of files that are no kernel,
/// tables that are written a step at a time, and the traits by which the state machine of a CPU and the lives of VMs
/// run on fake machines. From 21,000 with a GIC whose core knows no version, and that asks a timer's line; a policy apart
/// from the run queue; what a guest is told of its machine (SMBIOS, PPTT, a UUID); rounds in which CPUs publish what their
/// vCPUs have had; an alarm that rings; one schema of the manifest. From 23,000 with printing that waits for no UART.
/// From 24,000 with what boards need that are not QEMU's: trees of any size, RAM in any number of pieces and none that is
/// `no-map`, their own private interrupts and UARTs, CPUs that differ, and what a loader may have left.
/// With a table of devices, each with a lock, surroundings and work of its own.
/// With virtio: queues, the MMIO transport, disks, and what the manifest and the operator say of them; networks and a source of
/// randomness.
/// With a second interrupt controller, GICv2.
/// With a terminal that completes and searches, tells all about a VM and shows what VMs and vCPUs take.
/// With starts and ends of large VMs in short pieces.
/// With what finds vCPUs that only wait: a part of A64, and a walk of a guest's tables.
/// With a block, and the fact that it rests on, for each write of a register that can break EL2.
/// With the places of the host's CPUs, by which a VM's vCPUs are grouped.
/// With the PMU's interrupt for guests, a Pi's watchdog, UARTs whose interrupt is an edge, and redistributors that do not wake.
/// With the rest that a CPU takes from looks at what its vCPUs do.
/// 380 for the start as an EFI application.
/// 1,100 for memory that comes and goes: its half of console, tables and operations.
/// 700 for entitlement, meters and weights.
const EL2_LINES_MAX: usize = 35_670;

#[test]
fn what_runs_at_el2_stays_small() {
    let files = rust(&INSIDE_EL2);
    let tests = test_only(&files);
    let lines: usize = files
        .iter()
        .filter(|file| !file.is_test() && !tests.contains(&file.path))
        // What a build script does is done before.
        .filter(|file| !file.path.contains("/build/") && !file.path.ends_with("/build.rs"))
        .map(File::lines_of_code)
        .sum();
    assert!(lines <= EL2_LINES_MAX, "{lines} lines of code inside EL2");
}

/// Lines of code in `el2`: what acts, and nothing that decides. Raised only with the hardware that needs it, by name.
/// 600 for the GICv2: its distributor, CPU interface and list registers, and what the choice at boot takes.
/// 80 for the table of registers and the blocks of what is `unsafe` to write.
/// 60 for the PMU's interrupt, a Pi's watchdog, UARTs whose interrupt is an edge, and redistributors that do not wake.
/// 300 for the start as an EFI application: the calls of firmware, the PE header, and a way in from under its MMU.
/// 90 for a guest's memory in pieces.
const EL2_ROOM_LINES_MAX: usize = 5_535;

#[test]
fn what_acts_stays_small() {
    let files = rust(&["hypervisor/el2"]);
    let lines: usize = files.iter().map(File::lines_of_code).sum();
    assert!(
        lines <= EL2_ROOM_LINES_MAX,
        "{lines} lines of code in hypervisor/el2"
    );
}

#[test]
fn no_host_of_a_registry_and_no_path_of_a_machine_is_named() {
    // In pieces, so that this file passes its own rule.
    let forbidden = [
        ["crates", ".io"],
        ["static.rust", "-lang.org"],
        ["sh.rust", "up.rs"],
        ["debian", ".org"],
        ["ubuntu", ".com"],
        ["pypi", ".org"],
        ["npmjs", ".org"],
        ["proxy.golang", ".org"],
        ["/work", "/shared"],
        ["/work", "/main"],
        ["/work", "/.library"],
        ["/tmp", "/wt/"],
        ["/tmp", "/brief"],
    ]
    .map(|pieces| pieces.concat());
    let mut broken = Vec::new();
    for file in files_under("") {
        if file.path == ".git" || file.path.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for name in forbidden.iter().filter(|name| line.contains(name.as_str())) {
                broken.push(format!("{}:{}: {name}", file.path, number + 1));
            }
        }
    }
    verdict(
        "No registry's host and no path of one machine is named",
        &broken,
    );
}
