//! What others wrote and we link: under which licence, from where, and how many versions of it.
//!
//! What is known to be broken in them needs the network to find out: `cargo deny check advisories`, named in SECURITY.md.

use super::{manifest, verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tests::source::root;

/// The workspaces, each with a lock file.
const WORKSPACES: [&str; 2] = ["", "tests/guests/"];
/// Where it is built for: tools and tests, and what runs bare.
const TARGETS: [&str; 3] = [
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-none-softfloat",
    "x86_64-unknown-linux-gnu",
];
/// Licences that go with ours, Apache-2.0 or MIT, in a binary. MPL-2.0 asks for the source of its own files, which are unchanged.
const LICENCES: [&str; 4] = ["Apache-2.0", "MIT", "MPL-2.0", "Unicode-3.0"];
/// Crates of which there may be two versions, with the reason. None of them is in EL2's image.
const TWICE: [(&str, &str); 2] = [
    ("hashbrown", "vm-fdt, in tools and tests, has not left 0.14"),
    ("syn", "zerocopy's macros have not left 2"),
];

/// Tells whether a licence expression (SPDX 2.3, annex D; `/` is cargo's old OR) can be met by the licences above.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let (mut depth, mut words) = (0, vec![String::new()]);
    let mut operators = Vec::new();
    for word in expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
    {
        depth += i32::from(word == "(") - i32::from(word == ")");
        if depth == 0 && (word == "OR" || word == "AND") {
            operators.push(word.to_owned());
            words.push(String::new());
        } else if let Some(last) = words.last_mut() {
            last.push_str(word);
            last.push(' ');
        }
    }
    let met = |part: &String| {
        let part = part.trim();
        let inner = part
            .strip_prefix('(')
            .and_then(|part| part.strip_suffix(')'));
        inner.map_or_else(|| LICENCES.contains(&part), is_allowed)
    };
    // AND binds closer than OR.
    let mut alternative = words.first().is_some_and(met);
    for (operator, part) in operators.iter().zip(words.iter().skip(1)) {
        if operator == "AND" {
            alternative &= met(part);
        } else if alternative {
            return true;
        } else {
            alternative = met(part);
        }
    }
    alternative
}

/// Asks cargo for the packages that a workspace is built from on a target.
fn packages(workspace: &str, target: &str) -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", target, "--manifest-path"])
        .arg(root().join(workspace).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |package: &serde_json::Value, key: &str| {
        package[key].as_str().unwrap_or_default().to_owned()
    };
    json["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| (text(package, "name"), text(package, "license")))
        .collect()
}

#[test]
fn licences_of_dependencies_go_with_ours() {
    let mut broken = BTreeSet::new();
    for workspace in WORKSPACES {
        for target in TARGETS {
            for (name, licence) in packages(workspace, target) {
                if !is_allowed(&licence) {
                    broken.insert(format!("{workspace}Cargo.lock: {name}: {licence:?}"));
                }
            }
        }
    }
    let broken: Vec<String> = broken.into_iter().collect();
    verdict("What is linked may be given away with it", &broken);
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, allowed) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0-only OR GPL-2.0-only", false),
        ("GPL-3.0-only OR MIT AND Unicode-3.0", true),
        (
            "(MIT OR GPL-2.0-only) AND (GPL-2.0-only OR GPL-3.0-only)",
            false,
        ),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

/// Returns the packages of a lock file: name, version, source.
fn locked(workspace: &str) -> Vec<[String; 3]> {
    let text = manifest(&format!("{workspace}Cargo.lock"));
    let field = |package: &str, key: &str| {
        let value = package.lines().find_map(|line| line.strip_prefix(key));
        let value = value.and_then(|value| value.strip_prefix(" = "));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    text.split("[[package]]")
        .skip(1)
        .map(|package| ["name", "version", "source"].map(|key| field(package, key)))
        .collect()
}

#[test]
fn dependencies_come_from_the_registry_and_once() {
    // In pieces, because no host of a registry is named in this repository.
    let registry = ["registry+https://github.com/rust-lang/crates", ".io-index"].concat();
    let mut broken = Vec::new();
    for workspace in WORKSPACES {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for [name, version, source] in locked(workspace) {
            // Ours have no source.
            if !source.is_empty() && source != registry {
                broken.push(format!("{workspace}Cargo.lock: {name} comes from {source}"));
            }
            versions.entry(name).or_default().insert(version);
        }
        for (name, versions) in &versions {
            let most = if TWICE.iter().any(|(twice, _)| twice == name) {
                2
            } else {
                1
            };
            if versions.len() > most {
                broken.push(format!(
                    "{workspace}Cargo.lock: {name}: versions {versions:?}"
                ));
            }
        }
        if workspace.is_empty() {
            let once = |name: &str| versions.get(name).is_none_or(|versions| versions.len() < 2);
            for (name, _) in TWICE.iter().filter(|(name, _)| once(name)) {
                broken.push(format!(
                    "Cargo.lock: {name} is there once, take it off the list"
                ));
            }
        }
    }
    verdict("A dependency has one source and one version", &broken);
}
