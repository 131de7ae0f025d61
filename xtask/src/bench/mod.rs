//! `cargo xtask bench`: what each trap and each resume costs, in instructions, against the bars and against the peers.
//!
//! QEMU counts: with `-icount shift=0` and a counter of 1 GHz a tick is an instruction, and every run gives the same
//! numbers. `guest` runs the bench guest, `bars` is the table of what rows may cost, `rows` what was measured and how it
//! is shown, `baseline` the committed counts that the gate holds against. docs/bench.md explains every row.

mod bars;
mod baseline;
mod guest;
mod html;
mod kvm;
mod linux;
mod peers;
mod rows;
mod scale;
mod split;
mod xen;

use crate::setup::{self, toolchain};
use crate::{build, gate as system, say};
use anyhow::{Context, anyhow};
use baseline::Baseline;
use rows::Findings;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

/// Samples a row in the gate: under `-icount` they hardly differ.
const GATE_SAMPLES: u32 = 50;

/// What to measure, and how to show it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Samples a row
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4096))]
    samples: u32,
    /// Prints JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Leaves out the rows of a Linux guest
    #[arg(long)]
    quick: bool,
    /// Also measures an idle minute of Linux
    #[arg(long)]
    long: bool,
    /// Runs the same guest elsewhere too and prints the ratios: bare, xen, xen-best, kvm
    #[arg(long, value_delimiter = ',', value_name = "PEERS")]
    against: Vec<peers::Peer>,
    /// Also splits the rows by the TCG plugin: at EL2, in the guest, and what costs most on silicon
    #[arg(long)]
    split: bool,
    /// Writes a page with bars against the peers and histograms
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes only the bars, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The version of the interrupt controller, of machine and guest; v2 gives the rows that are the same in every run, beside those of v3
    #[arg(long, value_enum, default_value_t = Gic::V3)]
    gic: Gic,
    /// Shows only how costs grow with the number and size of things
    #[arg(long)]
    scale: bool,
    /// Makes what is measured the committed baseline
    #[arg(long)]
    bless: bool,
}

/// The interrupt controller of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Gic {
    /// GICv2
    V2,
    /// GICv3
    V3,
}

impl Gic {
    /// Its number.
    pub(crate) const fn version(self) -> u32 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Runs the bench. Not a success if a row misses its bar or gives no number.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let compiler = toolchain::ensure()?.compiler_version()?;
    setup::qemu::ensure()?;
    ::tests::artefacts::provide(system::environment()?);
    if options.scale {
        print!("{}", scale::table());
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = say::step("the bench guest under Bullpen", || {
        Ok(guest::measure(options.samples, options.gic))
    })?;
    if options.bless {
        // The rows that are the same on every machine.
        let path = Baseline::read(options.gic)?.bless(&compiler, &findings)?;
        say::line(&format!("wrote {} for rustc {compiler}", path.display()));
    }
    if options.gic == Gic::V2 {
        return beside_v3(&compiler, findings);
    }
    findings.extend(guest::elastic(options.samples));
    if !options.quick {
        let extent = if options.long {
            linux::Extent::Long
        } else {
            linux::Extent::Short
        };
        findings.extend(say::step("Linux under Bullpen", || {
            Ok(linux::measure(extent))
        })?);
    }
    findings.extend(split::host_boot());
    findings.sort();
    let parts = if options.split {
        split::measure()?
    } else {
        Vec::new()
    };
    let peers = peers::measure(&options.against, options.samples);
    if let Some(path) = &options.html {
        html::write(path, &findings, &peers)?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, html::picture(&findings, &peers)?)?;
    }
    if options.json {
        let mut value = findings.json();
        value["peers"] = peers::json(&peers);
        value["split"] = split::json(&parts);
        println!("{value:#}");
    } else {
        print!("{}", findings.table());
        if !parts.is_empty() {
            print!("\n{}", split::table(&parts));
        }
        if !peers.is_empty() {
            print!("\n{}", peers::table(&findings, &peers));
        }
    }
    Ok(if findings.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Shows the rows of a GICv2 beside the committed ones of a GICv3, and holds them against their own baseline.
fn beside_v3(compiler: &str, mut findings: Findings) -> anyhow::Result<ExitCode> {
    findings.sort();
    print!("{}", Baseline::read(Gic::V3)?.beside(compiler, &findings));
    Baseline::read(Gic::V2)?.check(compiler, &findings, |_| true)?;
    Ok(ExitCode::SUCCESS)
}

/// The part of `--full` that does so with the gate's samples. Returns how many rows were checked.
pub(crate) fn gate_of_v2() -> anyhow::Result<u32> {
    let compiler = toolchain::ensure()?.compiler_version()?;
    setup::qemu::ensure()?;
    ::tests::artefacts::provide(system::environment()?);
    let findings = guest::measure(GATE_SAMPLES, Gic::V2);
    let rows = u32::try_from(findings.rows.len())?;
    beside_v3(&compiler, findings)?;
    Ok(rows)
}

/// The gate's part: the image's size, and few samples held against the committed counts. Returns how many were checked.
pub(crate) fn gate(variables: Vec<(&'static str, OsString)>) -> anyhow::Result<u32> {
    let compiler = toolchain::ensure()?.compiler_version()?;
    let image = variables.iter().find(|(name, _)| *name == system::IMAGE);
    build::check_size(image.context("no image was built")?.1.as_ref())?;
    ::tests::artefacts::provide(variables);
    let mut findings = guest::measure(GATE_SAMPLES, Gic::V3);
    findings.sort();
    print!("{}", findings.table());
    if let Some((row, why)) = findings.failures.first() {
        return Err(anyhow!("bench row {row}: {why}"));
    }
    Baseline::read(Gic::V3)?.check(&compiler, &findings, |_| true)?;
    Ok(1 + u32::try_from(findings.rows.len())?)
}

/// Runs one part; what goes wrong in it is a row without a number, and no other part suffers.
fn attempt(part: &str, work: impl FnOnce() -> anyhow::Result<Findings>) -> Findings {
    let why = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(findings)) => return findings,
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "panicked".to_owned())
        }
    };
    Findings {
        failures: vec![(part.to_owned(), why)],
        ..Findings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_in_one_part_stays_there() {
        let found = attempt("a", || panic!("{} is gone", "it"));
        assert_eq!(found.failures, [("a".into(), "it is gone".into())]);
        let found = attempt("b", || Err(anyhow!("why")));
        assert_eq!(found.failures, [("b".into(), "why".into())]);
    }
}
