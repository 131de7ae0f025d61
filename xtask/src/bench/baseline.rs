//! The committed counts, one set for each version of the compiler, and what counts as worse.
//!
//! `tests/baseline/bench.toml` is a table for each compiler, with the median of each row. A person who makes a row worse, or
//! better for good, writes it anew by `cargo xtask bench --bless` in the same commit.

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

/// The counts of every compiler that was ever used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Baseline(BTreeMap<String, Counts>);

/// A row that got worse, or vanished.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Worse {
    row: String,
    was: u64,
    is: Option<u64>,
}

fn file() -> PathBuf {
    paths::root().join("tests/baseline/bench.toml")
}

impl Baseline {
    /// Reads the committed counts; there may be none yet.
    pub(crate) fn read() -> anyhow::Result<Self> {
        match std::fs::read_to_string(file()) {
            Ok(text) => Self::parse(&text).with_context(|| file().display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| file().display().to_string()),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(Self(toml::from_str(text)?))
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (compiler, counts) in &self.0 {
            text.push_str(&format!("\n[\"{compiler}\"]\n"));
            for (row, median) in counts {
                text.push_str(&format!("{row} = {median}\n"));
            }
        }
        text
    }

    /// Replaces the counts of these rows for one compiler, and writes the file.
    pub(crate) fn bless(mut self, compiler: &str, findings: &Findings) -> anyhow::Result<PathBuf> {
        let counts = self.0.entry(compiler.to_owned()).or_default();
        for row in &findings.rows {
            counts.insert(row.name.clone(), row.median);
        }
        let path = file();
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, self.text()).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The counts of this compiler or, second, those of the newest other one.
    fn of(&self, compiler: &str) -> Option<(&str, &Counts)> {
        let exact = self.0.get_key_value(compiler);
        let newest = || self.0.iter().max_by_key(|(version, _)| numbers(version));
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
                "there are no committed counts: write them by `cargo xtask bench --bless` and commit {}",
                file().display()
            );
        };
        let worse = worse(counts, findings, wanted);
        let list: Vec<String> = worse.iter().map(Worse::sentence).collect();
        if version != compiler {
            say::line(&format!(
                "warning: no counts for rustc {compiler}, only for {version}: `cargo xtask bench --bless` writes them"
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
            "worse than {} for rustc {compiler}:\n  {}\nif that is meant, run `cargo xtask bench --bless` and commit the file too",
            file().display(),
            list.join("\n  ")
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
        Baseline::parse("[\"1.9.0\"]\na = 100\nb = 3\n[\"1.10.0\"]\na = 50\n").unwrap()
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
        let (version, _) = baseline().0.into_iter().next().unwrap();
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
            Baseline::default()
                .check("1.9.0", &found(&[]), |_| true)
                .is_err()
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = baseline().text();
        assert_eq!(Baseline::parse(&text).unwrap(), baseline());
    }

    #[test]
    fn the_committed_file_is_whole() {
        let baseline = Baseline::read().unwrap();
        assert!(!baseline.0.is_empty());
        assert!(baseline.0.values().all(|counts| !counts.is_empty()));
    }
}
