//! What uses what: no circles, and one path to each thing.

use super::{INSIDE_EL2, rust, verdict};
use std::collections::BTreeMap;
use tests::imports::{Crate, circles, named};
use tests::source::{File, module_directory, test_only};

/// The crates whose rooms are modules, by the directory of their root module. The others are one room each, and Cargo sees to those.
const CRATES: [&str; 3] = [
    "hypervisor/control_plane/",
    "hypervisor/el2/",
    "hypervisor/vmm/",
];

fn production() -> Vec<File> {
    let mut files = rust(&INSIDE_EL2);
    let tests = test_only(&files);
    files.retain(|file| !file.is_test() && !tests.contains(&file.path));
    files.retain(|file| !file.path.contains("/build/") && !file.path.ends_with("/build.rs"));
    files
}

/// The room that a file is in: what lies directly below its crate's root.
fn room<'a>(root: &str, path: &'a str) -> &'a str {
    let rest = &path[root.len()..];
    let name = rest.split('/').next().unwrap_or(rest);
    name.strip_suffix(".rs").unwrap_or(name)
}

/// Adds what uses each other in a circle to a list, with the lines that say so.
fn list_circles(what: &str, edges: &BTreeMap<(&str, &str), &String>, broken: &mut Vec<String>) {
    for circle in circles(edges.keys().copied()) {
        let names: Vec<&str> = circle.iter().copied().collect();
        broken.push(format!("a circle of {what}: {}", names.join(", ")));
        for ((from, to), why) in edges {
            if circle.contains(from) && circle.contains(to) {
                broken.push(format!("  {why}"));
            }
        }
    }
}

#[test]
fn files_of_el2_and_rooms_use_each_other_in_no_circle() {
    let files = production();
    let mut broken = Vec::new();
    for root in CRATES {
        let of = Crate::new(root, &files);
        let edges = of.edges();
        let mut rooms = BTreeMap::new();
        let mut within = BTreeMap::new();
        for ((from, to), why) in &edges {
            let (from, to) = (of.path(*from), of.path(*to));
            if room(root, from) != room(root, to) {
                rooms
                    .entry((room(root, from), room(root, to)))
                    .or_insert(why);
            }
            // A part may use what it is a part of.
            if root == "hypervisor/el2/" && !from.starts_with(module_directory(to)) {
                within.insert((from, to), why);
            }
        }
        list_circles("rooms", &rooms, &mut broken);
        list_circles("files", &within, &mut broken);
    }
    verdict("What uses each other is one thing, or has a seam", &broken);
}

#[test]
fn nothing_is_shown_under_two_paths() {
    let mut broken = Vec::new();
    for file in production() {
        let code = file.code_without_tests();
        let private = |name: &str| code.lines().any(|line| line == format!("mod {name};"));
        for import in named(&file).iter().filter(|import| import.public) {
            // `self` stands before a module that has the name of a crate.
            let path = import.path.strip_prefix(&["self".to_owned()][..]);
            let path = path.unwrap_or(&import.path);
            let first = path.first().map_or("", String::as_str);
            // A macro has no path but the one that is given to it.
            if path.len() > 1 && !private(first) {
                let (line, path) = (import.line + 1, import.path.join("::"));
                broken.push(format!("{}:{line}: {path}", file.path));
            }
        }
    }
    verdict("Only a private module's names are passed on", &broken);
}
