//! The committed counts, one set for each version of the compiler, and what counts as worse.
//!
//! `tests/baseline/bench.toml`, and `bench-gicv2.toml` for a GICv2, is a table for each compiler, with the median of each row. A person who makes a row worse, or
//! better for good, writes it anew by `cargo xtask bench --bless` in the same commit.

use super::Gic;
use super::rows::Findings;
use crate::{paths, say};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// By how much a row may be worse, in percent: less is noise of the code around it.
const TOLERANCE_PERCENT: u64 = 3;
const HEAD: &str = "# Medians of `cargo xtask bench`, in instructions, for each version of the compiler.\n\
    # Written by `cargo xtask bench --bless`.\n";

type Counts = BTreeMap<String, u64>;

/// The counts of every compiler that was ever used, on a machine with this interrupt controller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    gic: Gic,
    counts: BTreeMap<String, Counts>,
}

/// A row that got worse, or vanished.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Worse {
    row: String,
    was: u64,
    is: Option<u64>,
}

fn file(gic: Gic) -> PathBuf {
    paths::root().join(match gic {
        Gic::V2 => "tests/baseline/bench-gicv2.toml",
        Gic::V3 => "tests/baseline/bench.toml",
    })
}

impl Baseline {
    /// Reads the committed counts; there may be none yet.
    pub(crate) fn read(gic: Gic) -> anyhow::Result<Self> {
        let place = || file(gic).display().to_string();
        match std::fs::read_to_string(file(gic)) {
            Ok(text) => Self::parse(gic, &text).with_context(place),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::parse(gic, ""),
            Err(error) => Err(error).with_context(place),
        }
    }

    fn parse(gic: Gic, text: &str) -> anyhow::Result<Self> {
        let counts = toml::from_str(text)?;
        Ok(Self { gic, counts })
    }

    /// Writes the table of rows beside these counts.
    pub(crate) fn beside(&self, compiler: &str, findings: &Findings) -> String {
        let counts = self.of(compiler).map(|(_, counts)| counts);
        let mut text = format!("{:<34}{:>9}{:>9}\n", "median", "GICv2", "GICv3");
        for row in &findings.rows {
            let other = counts.and_then(|counts| counts.get(&row.name));
            let other = other.map_or_else(|| "-".to_owned(), u64::to_string);
            text.push_str(&format!("{:<34}{:>9}{other:>9}\n", row.name, row.median));
        }
        for (name, why) in &findings.failures {
            text.push_str(&format!("{name:<34}FAILED: {why}\n"));
        }
        text
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (compiler, counts) in &self.counts {
            text.push_str(&format!("\n[\"{compiler}\"]\n"));
            for (row, median) in counts {
                text.push_str(&format!("{row} = {median}\n"));
            }
        }
        text
    }

    /// Replaces the counts of these rows for one compiler, and writes the file.
    pub(crate) fn bless(mut self, compiler: &str, findings: &Findings) -> anyhow::Result<PathBuf> {
        let counts = self.counts.entry(compiler.to_owned()).or_default();
        for row in &findings.rows {
            counts.insert(row.name.clone(), row.median);
        }
        let path = file(self.gic);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, self.text()).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// What writes these counts.
    const fn bless_command(&self) -> &'static str {
        match self.gic {
            Gic::V2 => "cargo xtask bench --gic v2 --bless",
            Gic::V3 => "cargo xtask bench --bless",
        }
    }

    /// The counts of this compiler or, second, those of the newest other one.
    fn of(&self, compiler: &str) -> Option<(&str, &Counts)> {
        let exact = self.counts.get_key_value(compiler);
        let newest = || {
            self.counts
                .iter()
                .max_by_key(|(version, _)| numbers(version))
        };
        exact
            .or_else(newest)
            .map(|(version, counts)| (version.as_str(), counts))
    }

    /// Holds rows against the counts of this compiler: every one by whose row `wanted` says so has to be there.
    ///
    /// With counts of another compiler only, what is worse is told and is no failure.
    pub(crate) fn check(
        &self,
        compiler: &str,
        findings: &Findings,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let Some((version, counts)) = self.of(compiler) else {
            bail!(
                "there are no committed counts: write them by `{}` and commit {}",
                self.bless_command(),
                file(self.gic).display()
            );
        };
        let worse = worse(counts, findings, wanted);
        let list: Vec<String> = worse.iter().map(Worse::sentence).collect();
        if version != compiler {
            say::line(&format!(
                "warning: no counts for rustc {compiler}, only for {version}: `{}` writes them",
                self.bless_command()
            ));
            for line in &list {
                say::line(&format!("warning: {line}"));
            }
            return Ok(());
        }
        if list.is_empty() {
            return Ok(());
        }
        bail!(
            "worse than {} for rustc {compiler}:\n  {}\nif that is meant, run `{}` and commit the file too",
            file(self.gic).display(),
            list.join("\n  "),
            self.bless_command()
        )
    }
}

impl Worse {
    fn sentence(&self) -> String {
        match self.is {
            Some(is) => format!(
                "{}: {is} instructions, baseline {} (+{} %)",
                self.row,
                self.was,
                (is - self.was) * 100 / self.was.max(1)
            ),
            None => format!("{}: gives no number, baseline {}", self.row, self.was),
        }
    }
}

fn worse(counts: &Counts, findings: &Findings, wanted: impl Fn(&str) -> bool) -> Vec<Worse> {
    let mut list = Vec::new();
    for (row, &was) in counts.iter().filter(|(row, _)| wanted(row)) {
        let is = findings.row(row).map(|found| found.median);
        let bad = is.is_none_or(|is| is * 100 > was * (100 + TOLERANCE_PERCENT));
        if bad {
            list.push(Worse {
                row: row.clone(),
                was,
                is,
            });
        }
    }
    list
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::rows::Row;
    use super::*;

    fn found(rows: &[(&str, u64)]) -> Findings {
        Findings {
            rows: rows
                .iter()
                .map(|&(name, value)| Row::single(name, value))
                .collect(),
            ..Findings::default()
        }
    }

    fn baseline() -> Baseline {
        Baseline::parse(
            Gic::V3,
            "[\"1.9.0\"]\na = 100\nb = 3\n[\"1.10.0\"]\na = 50\n",
        )
        .unwrap()
    }

    #[test]
    fn over_three_percent_is_worse_and_the_message_has_both_numbers() {
        let good = found(&[("a", 103), ("b", 3)]);
        assert!(baseline().check("1.9.0", &good, |_| true).is_ok());
        let bad = found(&[("a", 104), ("b", 3)]);
        let error = baseline().check("1.9.0", &bad, |_| true).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a: 104 instructions, baseline 100"), "{text}");
    }

    #[test]
    fn a_row_that_vanished_is_worse_unless_it_was_not_run() {
        let some = found(&[("a", 100)]);
        let error = baseline().check("1.9.0", &some, |_| true).unwrap_err();
        assert!(error.to_string().contains("b: gives no number"));
        assert!(baseline().check("1.9.0", &some, |row| row == "a").is_ok());
    }

    #[test]
    fn another_compiler_warns_only() {
        let (version, _) = baseline().counts.into_iter().next().unwrap();
        assert_eq!(
            version, "1.10.0",
            "as text, which is why versions are compared as numbers"
        );
        assert_eq!(baseline().of("1.8.0").unwrap().0, "1.10.0");
        assert!(
            baseline()
                .check("1.8.0", &found(&[("a", 9999)]), |_| true)
                .is_ok()
        );
    }

    #[test]
    fn without_any_counts_the_check_fails() {
        assert!(
            Baseline::parse(Gic::V3, "")
                .unwrap()
                .check("1.9.0", &found(&[]), |_| true)
                .is_err()
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = baseline().text();
        assert_eq!(Baseline::parse(Gic::V3, &text).unwrap(), baseline());
    }

    #[test]
    fn the_committed_file_is_whole() {
        let read = |gic| Baseline::read(gic).unwrap();
        let (v2, v3) = (read(Gic::V2), read(Gic::V3));
        let rows = |baseline: &Baseline| -> Vec<String> {
            let newest = baseline.of("0").map(|(_, counts)| counts.keys().cloned());
            newest.into_iter().flatten().collect()
        };
        assert!(!rows(&v3).is_empty());
        let of_both = rows(&v3).into_iter().filter(|row| row != "gicr-typer-read");
        assert_eq!(
            rows(&v2),
            of_both.collect::<Vec<_>>(),
            "a GICv2 has no GICR"
        );
    }
}
