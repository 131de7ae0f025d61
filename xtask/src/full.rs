//! The parts of `cargo xtask test --full` that are no tests: line coverage and mutants, which judge the tests, and the bench on a GICv2.
//!
//! Each part has a name and runs alone by it, `cargo xtask test --full coverage`. The programs come from the crate
//! registry into the cache outside the tree; LLVM's tools come from the distribution, in the version of the compiler.

use crate::setup::toolchain;
use crate::{bench, paths, process, say};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// The least share of a room's lines that its tests run, in percent.
const COVERED_PERCENT: u64 = 90;
/// The least share of mutants that the tests tell from the code, in percent.
const CAUGHT_PERCENT: u64 = 80;

/// When a mutant is taken to hang, in seconds.
const TIMEOUT_S: &str = "60";

const COVERAGE: &str = "coverage";
/// The quick bench on a GICv2, against its baseline.
const BENCH_OF_GICV2: &str = "bench-gicv2";

/// A room whose code is changed in small ways, to see whether its tests notice.
struct Mutated {
    /// The names of its parts, each of which ends within the hour: every one has each so manieth mutant.
    parts: &'static [&'static str],
    package: &'static str,
    /// The files to change, as a pattern below the tree's root.
    files: &'static str,
    /// What is not changed: fakes and models, which are tests.
    except: &'static [&'static str],
    /// The tests that have to notice, by a part of their names; all of the package's if there is none. What is a test of other rooms
    /// too would take hours.
    tests: &'static [&'static str],
}

const MUTATED: [Mutated; 4] = [
    Mutated {
        parts: &["mutants-psci"],
        package: "psci",
        files: "psci/src/**/*.rs",
        except: &["psci/src/**/tests.rs", "psci/src/**/model.rs"],
        tests: &[],
    },
    Mutated {
        parts: &[
            "mutants-vgic-1",
            "mutants-vgic-2",
            "mutants-vgic-3",
            "mutants-vgic-4",
            "mutants-vgic-5",
            "mutants-vgic-6",
        ],
        package: "vgic",
        files: "vgic/src/core/**/*.rs",
        except: &[],
        tests: &[],
    },
    Mutated {
        parts: &["mutants-stage2-1", "mutants-stage2-2", "mutants-stage2-3"],
        package: "stage2",
        files: "stage2/src/**/*.rs",
        except: &["stage2/src/tests/**"],
        tests: &[],
    },
    Mutated {
        parts: &[
            "mutants-cpu-1",
            "mutants-cpu-2",
            "mutants-cpu-3",
            "mutants-cpu-4",
        ],
        package: "hypervisor",
        files: "hypervisor/vmm/cpu/**/*.rs",
        except: &["hypervisor/vmm/cpu/tests/**"],
        tests: &["cpu::"],
    },
];

/// The names of the parts.
pub(crate) fn parts() -> impl Iterator<Item = &'static str> {
    let mutants = MUTATED.iter().flat_map(|room| room.parts);
    std::iter::once(COVERAGE)
        .chain(mutants.copied())
        .chain([BENCH_OF_GICV2])
}

/// Runs the part of that name and says how many rooms it judged.
///
/// # Errors
/// A tool that cannot be had, a test that fails, or a room below its share.
pub(crate) fn run(part: &str) -> anyhow::Result<u32> {
    if part == COVERAGE {
        return coverage();
    }
    if part == BENCH_OF_GICV2 {
        return bench::gate_of_v2();
    }
    for room in &MUTATED {
        if let Some(index) = room.parts.iter().position(|name| *name == part) {
            return mutants(room, part, &format!("{index}/{}", room.parts.len()));
        }
    }
    bail!("no part of --full has that name")
}

/// A cargo subcommand of the crate registry, built into the cache.
fn tool(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let root = paths::cache()
        .join("tools")
        .join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.is_file() {
        say::step(&format!("building {name} {version}"), || {
            let mut command = cargo();
            command
                .args(["install", name, "--version", version, "--locked", "--quiet"])
                .arg("--root")
                .arg(&root);
            process::run(&mut command)
        })?;
    }
    Ok(program)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// The measured lines of a room: those that ran, and all.
#[derive(Clone, Copy, Default)]
struct Lines {
    covered: u64,
    all: u64,
}

impl Lines {
    fn percent(self) -> u64 {
        self.covered * 100 / self.all.max(1)
    }
}

fn coverage() -> anyhow::Result<u32> {
    let program = tool("cargo-llvm-cov", "0.9.1")?;
    let llvm = toolchain::llvm_tools()?;
    let report = paths::target().join("coverage.json");
    let mut command = Command::new(program);
    command
        .current_dir(paths::root())
        .env("LLVM_COV", llvm.join("llvm-cov"))
        .env("LLVM_PROFDATA", llvm.join("llvm-profdata"))
        .args([
            "llvm-cov",
            "--workspace",
            "--exclude",
            "tests",
            "--exclude",
            "xtask",
        ])
        .args(["--json", "--summary-only", "--output-path"])
        .arg(&report);
    process::run(&mut command)?;
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("cannot read {}", report.display()))?;
    let rooms = covered(&serde_json::from_str(&text)?)?;
    ensure!(
        !rooms.is_empty(),
        "the report of the coverage names no room"
    );
    let mut below = Vec::new();
    for (room, lines) in &rooms {
        let percent = lines.percent();
        say::line(&format!(
            "{room:<24} {:>6} of {:>6} lines, {percent} %",
            lines.covered, lines.all
        ));
        if percent < COVERED_PERCENT {
            below.push(room.as_str());
        }
    }
    ensure!(
        below.is_empty(),
        "tests run less than {COVERED_PERCENT} % of the lines of: {}",
        below.join(", ")
    );
    Ok(u32::try_from(rooms.len())?)
}

/// The lines of each room in a report of `llvm-cov export`.
fn covered(report: &Value) -> anyhow::Result<BTreeMap<String, Lines>> {
    let files = report
        .pointer("/data/0/files")
        .and_then(Value::as_array)
        .context("the report of the coverage has no files")?;
    let mut rooms: BTreeMap<String, Lines> = BTreeMap::new();
    for file in files {
        let name = file["filename"].as_str().context("a file without a name")?;
        let Some(room) = room(name) else { continue };
        let lines = &file["summary"]["lines"];
        let total = rooms.entry(room).or_default();
        total.covered += lines["covered"].as_u64().context("no count of lines")?;
        total.all += lines["count"].as_u64().context("no count of lines")?;
    }
    Ok(rooms)
}

/// The room of a file: its crate, and of the hypervisor one folder more. Tests, fakes and models are no room.
fn room(file: &str) -> Option<String> {
    let root = paths::root().to_string_lossy();
    let path = file.strip_prefix(root.as_ref())?.trim_start_matches('/');
    let mut parts: Vec<&str> = path.split('/').filter(|part| *part != "src").collect();
    let name = parts.pop()?;
    let is_test = |part: &&str| matches!(part.trim_end_matches(".rs"), "tests" | "fake" | "model");
    if parts.iter().any(is_test) || is_test(&name) {
        return None;
    }
    match parts.as_slice() {
        ["hypervisor", "el2", ..] | ["hypervisor"] | [] => None,
        ["hypervisor", "vmm", room, ..] => Some(format!("hypervisor/vmm/{room}")),
        ["hypervisor", room, ..] => Some(format!("hypervisor/{room}")),
        [room, ..] => Some((*room).to_owned()),
    }
}

fn mutants(room: &Mutated, name: &str, shard: &str) -> anyhow::Result<u32> {
    let program = tool("cargo-mutants", "27.1.0")?;
    let output = paths::target().join(name);
    let mut command = Command::new(program);
    command
        .current_dir(paths::root())
        .args(["mutants", "--package", room.package, "--file", room.files])
        // The mutants that change nothing but a loop's end hang. The tests of a room take seconds.
        .args(["--timeout", TIMEOUT_S, "--colors", "never", "--no-times"])
        .arg("--output")
        .arg(&output);
    for file in room.except {
        command.args(["--exclude", file]);
    }
    command.args(["--shard", shard, "--sharding", "round-robin"]);
    // The loom models take many times the tests' time and find orders, not values.
    command.args(["--", "--lib", "--"]);
    command.args(room.tests).args(["--skip", "model"]);
    // Mutants that were missed are an exit code of their own; the share decides here.
    command
        .status()
        .with_context(|| format!("cannot start {}", process::shown(&command)))?;
    let outcomes = output.join("mutants.out").join("outcomes.json");
    let text = std::fs::read_to_string(&outcomes)
        .with_context(|| format!("cannot read {}", outcomes.display()))?;
    let report: Value = serde_json::from_str(&text)?;
    let count = |name: &str| report[name].as_u64().context("no count of mutants");
    let (caught, hung, missed) = (count("caught")?, count("timeout")?, count("missed")?);
    let tried = caught + hung + missed;
    if tried == 0 {
        bail!("{name}: not one mutant was tried");
    }
    let percent = (caught + hung) * 100 / tried;
    say::line(&format!(
        "{name}: {caught} caught, {hung} hung, {missed} missed: {percent} %"
    ));
    ensure!(
        percent >= CAUGHT_PERCENT,
        "{name}: the tests catch {percent} % of {tried} mutants, at least {CAUGHT_PERCENT} % are asked"
    );
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(path: &str, covered: u64, count: u64) -> Value {
        let name = format!("{}/{path}", paths::root().display());
        json!({"filename": name, "summary": {"lines": {"count": count, "covered": covered}}})
    }

    #[test]
    fn lines_are_summed_by_room_without_its_tests() {
        let report = json!({"data": [{"files": [
            file("psci/src/cell.rs", 9, 10),
            file("psci/src/affinity.rs", 8, 10),
            file("psci/src/tests/cell.rs", 0, 100),
            file("hypervisor/vmm/cpu/power.rs", 5, 5),
            file("hypervisor/vmm/cpu/tests/fake.rs", 0, 100),
            file("hypervisor/el2/main.rs", 0, 100),
        ]}]});
        let rooms = covered(&report).unwrap();
        let seen: Vec<_> = rooms
            .iter()
            .map(|(room, lines)| (room.as_str(), lines.covered, lines.all))
            .collect();
        assert_eq!(seen, [("hypervisor/vmm/cpu", 5, 5), ("psci", 17, 20)]);
    }

    #[test]
    fn a_report_without_files_is_refused() {
        assert!(covered(&json!({"data": []})).is_err());
    }

    #[test]
    fn a_room_with_many_mutants_is_judged_in_parts() {
        let all: Vec<_> = parts().collect();
        assert_eq!(all[..3], ["coverage", "mutants-psci", "mutants-vgic-1"]);
        let names: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(names.len(), all.len(), "each has its own name");
    }

    #[test]
    fn an_unknown_part_is_refused() {
        assert!(run("mutants-of-nothing").is_err());
    }
}
