//! `cargo xtask test`: the whole gate, in order, stopping at the first step that fails. `.ci/run` runs nothing else.
//!
//! Cheap steps come first. The system tests learn from environment variables where what they boot is; `cargo xtask env`
//! prints the same variables for a person who runs one test by hand.

use crate::{bench, build, full, paths, process, say, setup};
use anyhow::{Context, anyhow, ensure};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// QEMUs that run at a time: the gate has to pass on two cores.
const PARALLEL_SYSTEMS: &str = "2";

/// The variable that says where the hypervisor's image is.
pub(crate) const IMAGE: &str = "BULLPEN_HYPERVISOR";

/// How many checks have passed, failed and been skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What is to be run.
pub(crate) struct Gate<'a> {
    /// Also the soaks that take long.
    pub(crate) full: bool,
    /// Only the tests whose name contains this, and none of the other checks.
    pub(crate) filter: Option<&'a str>,
}

/// One step: what it is called, and what it runs.
struct Step {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    /// A program that says by its exit code whether all is well.
    Check(Command),
    /// A `cargo test`, whose results are counted.
    Tests(Command),
    /// The quick bench, held against the committed counts; what it boots is where these variables say.
    Bench(Vec<(&'static str, OsString)>),
    /// A part of `--full` that judges the tests themselves.
    Part(&'static str),
    /// What cannot be checked on this machine, and why.
    Skipped(&'static str),
}

/// Runs the gate and says whether it is green. Its last line is `N passed, N failed, N skipped`.
pub(crate) fn run(gate: &Gate) -> ExitCode {
    let start = Instant::now();
    let mut total = Count::default();
    let mut result = run_steps(gate, &mut total);
    if result.is_ok() && total.passed == 0 {
        result = Err(anyhow!("no test has that name"));
    }
    say::line(&format!("the gate took {}", say::seconds(start.elapsed())));
    let code = match &result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::failure(error);
            total.failed = total.failed.max(1);
            ExitCode::FAILURE
        }
    };
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    code
}

/// Runs the part of the gate that only reads the source: format, clippy and documentation.
pub(crate) fn lint() -> anyhow::Result<()> {
    setup::toolchain::ensure()?;
    run_all(
        &Gate {
            full: false,
            filter: None,
        },
        lints()?,
        &mut Count::default(),
    )
}

fn run_steps(gate: &Gate, total: &mut Count) -> anyhow::Result<()> {
    say::section("set-up");
    setup::toolchain::ensure()?;
    if let Some(part) = part_asked_for(gate) {
        return run_all(gate, vec![part], total);
    }
    setup::qemu::ensure()?;
    setup::everything()?;
    run_all(gate, host_steps(gate)?, total)?;
    run_all(gate, system_steps(gate, &environment()?), total)
}

fn run_all(gate: &Gate, steps: Vec<Step>, total: &mut Count) -> anyhow::Result<()> {
    for step in steps {
        let (name, before) = (step.name, *total);
        step.run(total)?;
        ensure!(
            gate.filter.is_some() || *total != before,
            "{name}: not one test ran"
        );
    }
    Ok(())
}

/// The one part of `--full` whose name the filter is.
fn part_asked_for(gate: &Gate) -> Option<Step> {
    let asked = gate.filter.filter(|_| gate.full)?;
    full_parts().find(|step| step.name == asked)
}

fn full_parts() -> impl Iterator<Item = Step> {
    full::parts().map(|name| Step {
        name,
        kind: Kind::Part(name),
    })
}

/// What needs no QEMU.
fn host_steps(gate: &Gate) -> anyhow::Result<Vec<Step>> {
    let mut steps = match gate.filter {
        None => lints()?,
        Some(_) => Vec::new(),
    };
    steps.push(Step {
        name: "tests of the pure crates and vmm",
        kind: Kind::Tests(tests(gate, &[])),
    });
    if gate.filter.is_none() {
        steps.push(Step {
            name: "loom models",
            kind: Kind::Tests(loom()),
        });
    }
    Ok(steps)
}

/// Format, clippy and the documentation's warnings, of both halves.
fn lints() -> anyhow::Result<Vec<Step>> {
    let mut steps = vec![
        check(
            "format",
            cargo(&["fmt", "--all", "--check"]),
            has_component("fmt"),
        ),
        check(
            "format of the guests",
            cargo(&[
                "fmt",
                "--manifest-path",
                "tests/guests/Cargo.toml",
                "--all",
                "--check",
            ]),
            has_component("fmt"),
        ),
    ];
    let lint = cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]);
    steps.push(check(
        "clippy of the host's half",
        lint,
        has_component("clippy"),
    ));
    steps.extend(bare_lints()?);
    let mut document = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    // Readers of these crates have their source: a link may lead to what is private.
    let rules = "--deny warnings --allow rustdoc::private-intra-doc-links";
    document.env("RUSTDOCFLAGS", rules);
    steps.push(Step {
        name: "documentation",
        kind: Kind::Check(document),
    });
    Ok(steps)
}

/// Clippy for what runs on the bare machine.
fn bare_lints() -> anyhow::Result<Vec<Step>> {
    let names = ["clippy of EL2", "clippy of the guests"];
    let Some(commands) = build::clippy_commands()? else {
        let why = "no clippy for the bare target: install rust-web-clippy";
        return Ok(names
            .map(|name| Step {
                name,
                kind: Kind::Skipped(why),
            })
            .into());
    };
    let steps = names.into_iter().zip(commands);
    Ok(steps
        .map(|(name, command)| Step {
            name,
            kind: Kind::Check(command),
        })
        .collect())
}

/// What boots.
fn system_steps(gate: &Gate, variables: &[(&'static str, OsString)]) -> Vec<Step> {
    let mut command = tests(gate, &["--package", "tests"]);
    command
        .args(["--test-threads", PARALLEL_SYSTEMS])
        .envs(variables.iter().map(|(name, value)| (name, value)));
    if gate.full {
        command.env("BULLPEN_FULL", "1");
    }
    let mut steps = vec![Step {
        name: "house rules and system tests",
        kind: Kind::Tests(command),
    }];
    if gate.filter.is_none() {
        steps.push(Step {
            name: "bench against its baseline",
            kind: Kind::Bench(variables.to_vec()),
        });
        steps.extend(full_parts().filter(|_| gate.full));
    }
    steps
}

/// Builds and fetches everything that a system test can ask for, and says where it is.
pub(crate) fn environment() -> anyhow::Result<Vec<(&'static str, OsString)>> {
    let images = setup::images()?;
    let hypervisor = build::hypervisor()?;
    let guests = build::guests()?;
    Ok(vec![
        (IMAGE, hypervisor.into()),
        ("BULLPEN_HYPERVISOR_ELF", build::hypervisor_elf().into()),
        ("BULLPEN_GUESTS", guests.into()),
        ("BULLPEN_KERNELS", images.kernels.into()),
        ("BULLPEN_INITRD", images.initrd.into()),
        ("BULLPEN_INITRD_VIRTIO", images.initrd_virtio.into()),
        ("BULLPEN_INITRD_UDEV", images.initrd_udev.into()),
        ("BULLPEN_INITRD_TOOLS", images.initrd_tools.into()),
        ("BULLPEN_INITRD_FWTS", images.initrd_fwts.into()),
        ("BULLPEN_TREES", images.trees.into()),
        ("BULLPEN_FIRMWARE", images.firmware.into()),
        ("BULLPEN_XTASK", std::env::current_exe()?.into()),
    ])
}

/// The cargo that runs this program, in the source tree.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(arguments)
        .current_dir(paths::root())
        .stdin(Stdio::null());
    command
}

/// A `cargo test`; what is added to it goes to the tests.
fn tests(gate: &Gate, selection: &[&str]) -> Command {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(selection).arg("--").args(gate.filter);
    // A test that needs a tool fails without it instead of saying so.
    command.env("BULLPEN_GATE", "1");
    command
}

/// The models of what several CPUs do at once: the same code as shipped, with loom's atomics under it.
fn loom() -> Command {
    let mut command = cargo(&["test", "--package", "psci", "--package", "hypervisor"]);
    command.args(["--release", "--lib", "model"]);
    command
        .env("RUSTFLAGS", "--cfg loom")
        // Three preemptions find every race that was ever planted in the models; without a bound some take many minutes.
        .env("LOOM_MAX_PREEMPTIONS", "3")
        .env("CARGO_TARGET_DIR", paths::bare_target("loom"));
    command
}

fn has_component(name: &str) -> bool {
    process::succeeds(&mut cargo(&[name, "--version"]))
}

fn check(name: &'static str, command: Command, possible: bool) -> Step {
    let kind = if possible {
        Kind::Check(command)
    } else {
        Kind::Skipped("not installed: run `rustup component add rustfmt clippy`")
    };
    Step { name, kind }
}

impl Step {
    fn run(self, total: &mut Count) -> anyhow::Result<()> {
        say::section(self.name);
        let start = Instant::now();
        match self.kind {
            Kind::Skipped(why) => {
                say::line(&format!("skipped: {why}"));
                total.skipped += 1;
            }
            Kind::Check(mut command) => {
                process::run(&mut command)?;
                total.passed += 1;
            }
            Kind::Part(name) => total.passed += full::run(name)?,
            Kind::Bench(variables) => total.passed += bench::gate(variables)?,
            Kind::Tests(mut command) => run_tests(&mut command, &mut std::io::stdout(), total)?,
        }
        say::line(&format!("{}: {}", self.name, say::seconds(start.elapsed())));
        Ok(())
    }
}

/// Runs a `cargo test`, showing what it prints and counting what it says.
fn run_tests(
    command: &mut Command,
    shown: &mut impl Write,
    total: &mut Count,
) -> anyhow::Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", process::shown(command)))?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        shown.write_all(&line)?;
        shown.write_all(b"\n")?;
        shown.flush()?;
        total.add(result_line(&String::from_utf8_lossy(&line)).unwrap_or_default());
    }
    let status = child.wait()?;
    ensure!(
        status.success(),
        "{} failed ({status})",
        process::shown(command)
    );
    Ok(())
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let entry = counts
            .split(';')
            .find_map(|entry| entry.trim().strip_suffix(word));
        entry
            .and_then(|digits| digits.trim().parse().ok())
            .unwrap_or(0)
    };
    Some(Count {
        passed: number("passed"),
        failed: number("failed"),
        skipped: number("ignored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_cargo_test_are_counted() {
        let line = "test result: FAILED. 18 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(
            result_line(line),
            Some(Count {
                passed: 18,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(result_line("test a ... ok"), None);
    }

    #[test]
    fn a_failing_test_run_is_an_error() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101",
        ]);
        let mut total = Count {
            passed: 5,
            ..Count::default()
        };
        assert!(run_tests(&mut command, &mut Vec::new(), &mut total).is_err());
        assert_eq!(
            total,
            Count {
                passed: 6,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_part_of_full_runs_alone_by_its_name() {
        let part = |full, filter| {
            let gate = Gate {
                full,
                filter: Some(filter),
            };
            part_asked_for(&gate).map(|step| step.name)
        };
        assert_eq!(part(true, "coverage"), Some("coverage"));
        assert_eq!(part(true, "mutants-psci"), Some("mutants-psci"));
        assert_eq!(part(true, "hotplug"), None);
        assert_eq!(part(false, "coverage"), None);
    }

    #[test]
    fn a_filter_leaves_the_tests_only() {
        let gate = Gate {
            full: false,
            filter: Some("acpi"),
        };
        let steps = host_steps(&gate).unwrap();
        assert!(steps.iter().all(|step| matches!(step.kind, Kind::Tests(_))));
        let shown = process::shown(&tests(&gate, &["--package", "tests"]));
        assert!(
            shown.ends_with("test --no-fail-fast --package tests -- acpi"),
            "{shown}"
        );
    }
}
