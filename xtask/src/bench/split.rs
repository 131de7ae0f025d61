//! What the TCG plugin (tests/plugin) tells of a run: instructions to the first one of a guest, and what each row is made of.

use super::guest::{self, Placement};
use super::rows::{Findings, Row};
use crate::build;
use ::tests::{Machine, Manifest, Vm, artefacts};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Samples a row: each is told apart.
const SAMPLES: u32 = 20;
/// How long a boot may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What a region's line has: at EL2, in the guest, and at EL2 MSR, MRS, barriers, TLB and cache maintenance.
const PARTS: usize = 6;
const HEADS: [&str; PARTS] = ["el2", "guest", "msr", "mrs", "barriers", "tlb+cache"];

/// What the samples of a row are made of: the median of each part.
pub(crate) struct Split {
    row: String,
    parts: [u64; PARTS],
}

/// Counts the instructions at EL2 before the first one at EL1: one CPU, 1 GiB, one VM.
pub(crate) fn host_boot() -> Findings {
    super::attempt("host-boot", || {
        let name = "bench-host-boot";
        let (output, argument) = plugin(name)?;
        let vm = Vm::guest("bench", "bench").vcpus(1, 1);
        let _running = Machine::new(name)
            .cpus(1)
            .memory_mib(1024)
            .model(guest::MODEL)
            .deterministic()
            .argument("-plugin")
            .argument(&argument)
            .boot(&Manifest::new([vm]));
        let deadline = Instant::now() + LIMIT;
        loop {
            let text = std::fs::read_to_string(&output).unwrap_or_default();
            if let Some(count) = boot(&text) {
                return Ok(Findings {
                    rows: vec![Row::single("host-boot", count)],
                    ..Findings::default()
                });
            }
            ensure!(Instant::now() < deadline, "no guest instruction in time");
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

/// Splits every row, both ways of placing vCPUs.
pub(crate) fn measure() -> anyhow::Result<Vec<Split>> {
    let mut splits = Vec::new();
    for placement in [Placement::Own, Placement::Shared] {
        let (output, argument) = plugin("bench-split")?;
        let arguments = ["-plugin".to_owned(), argument];
        let findings = guest::under_bullpen(placement, SAMPLES, &arguments);
        if let Some((row, why)) = findings.failures.first() {
            anyhow::bail!("the plugin cannot split a run with failures: {row}: {why}");
        }
        let text = std::fs::read_to_string(&output).context("what the plugin wrote")?;
        splits.extend(split(&text, &findings)?);
    }
    Ok(splits)
}

/// Where the plugin will write, and its argument to QEMU.
pub(crate) fn plugin(name: &str) -> anyhow::Result<(PathBuf, String)> {
    let library = build::tcg_plugin()?;
    let output = artefacts::log_directory(name).join("plugin.txt");
    drop(std::fs::remove_file(&output));
    Ok((output.clone(), argument(&library, &output)))
}

fn argument(library: &Path, output: &Path) -> String {
    format!("{},out={}", library.display(), output.display())
}

/// Reads how many instructions ran at EL2 before the first one of a guest.
pub(crate) fn boot(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("boot "))
        .and_then(|number| number.parse().ok())
}

/// Deals the regions out to the rows, which come in the same order.
fn split(text: &str, findings: &Findings) -> anyhow::Result<Vec<Split>> {
    let regions: Vec<[u64; PARTS]> = text.lines().filter_map(region).collect();
    let mut rest = regions.as_slice();
    let mut splits = Vec::new();
    for row in &findings.rows {
        let count = usize::try_from(row.samples)?;
        let (own, others) = rest.split_at_checked(count).context("too few regions")?;
        rest = others;
        let mut parts = [0; PARTS];
        for (index, part) in parts.iter_mut().enumerate() {
            let samples = own.iter().map(|region| region[index]).collect();
            *part = Row::of(&row.name, samples).context("no samples")?.median;
        }
        splits.push(Split {
            row: row.name.clone(),
            parts,
        });
    }
    ensure!(rest.is_empty(), "{} regions too many", rest.len());
    Ok(splits)
}

fn region(line: &str) -> Option<[u64; PARTS]> {
    let numbers = line.strip_prefix("region ")?.split(' ');
    let numbers: Vec<u64> = numbers.map_while(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Writes the table.
pub(crate) fn table(splits: &[Split]) -> String {
    let mut text = format!("{:<34}", "per sample");
    // Writing to a string cannot fail.
    for head in HEADS {
        let _ = write!(text, "{head:>10}");
    }
    text.push('\n');
    for split in splits {
        let _ = write!(text, "{:<34}", split.row);
        for part in split.parts {
            let _ = write!(text, "{part:>10}");
        }
        text.push('\n');
    }
    text
}

/// Writes it for a program.
pub(crate) fn json(splits: &[Split]) -> Value {
    let entry = |split: &Split| {
        let parts = HEADS.iter().zip(split.parts);
        let parts: serde_json::Map<String, Value> = parts
            .map(|(head, part)| ((*head).to_owned(), json!(part)))
            .collect();
        (split.row.clone(), Value::Object(parts))
    };
    Value::Object(splits.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "boot 420\nregion 1 2 3 4 5 6\nregion 9 2 3 4 5 6\nregion 7 0 0 0 0 0\n";

    fn findings(samples: [u64; 2]) -> Findings {
        let rows = samples.iter().zip(["a", "b"]).map(|(&samples, name)| Row {
            samples,
            ..Row::single(name, 1)
        });
        Findings {
            rows: rows.collect(),
            ..Findings::default()
        }
    }

    #[test]
    fn regions_are_dealt_out_in_order() {
        let splits = split(TEXT, &findings([2, 1])).unwrap();
        assert_eq!(splits[0].parts, [9, 2, 3, 4, 5, 6]);
        assert_eq!(splits[1].parts[0], 7);
        assert!(table(&splits).contains("tlb+cache"));
        assert_eq!(json(&splits)["b"]["el2"], 7);
    }

    #[test]
    fn a_count_that_does_not_fit_is_an_error() {
        assert!(split(TEXT, &findings([2, 2])).is_err());
        assert!(split(TEXT, &findings([1, 1])).is_err());
    }

    #[test]
    fn the_boot_is_read() {
        assert_eq!(boot(TEXT), Some(420));
        assert_eq!(boot("region 1 2 3 4 5 6"), None);
    }
}
