//! Measured rows, their verdicts, and how they are shown: as a table for a person, as JSON for a program.

use super::bars;
use serde_json::{Value, json};
use std::fmt::Write;

/// What was measured of one row, in instructions or exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) min: u64,
    pub(crate) median: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
    pub(crate) samples: u64,
    /// How often each value occurred, where that was told.
    pub(crate) histogram: Vec<(u64, u64)>,
}

/// What is said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The median and the worst sample are at or below the bar.
    Met,
    /// The median is, the worst sample is not.
    Outlier,
    /// The median is above the bar.
    Missed,
    /// There is no bar.
    Measured,
}

impl Verdict {
    /// The word for the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "ok",
            Self::Outlier => "ok, worst above",
            Self::Missed => "MISSED",
            Self::Measured => "",
        }
    }
}

impl Row {
    /// Makes a row of one number.
    pub(crate) fn single(name: &str, value: u64) -> Self {
        Self {
            name: name.to_owned(),
            min: value,
            median: value,
            p99: value,
            max: value,
            samples: 1,
            histogram: Vec::new(),
        }
    }

    /// Makes a row of samples, of which there must be at least one.
    pub(crate) fn of(name: &str, mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let at = |percent: usize| samples.get(samples.len() * percent / 100).copied();
        Some(Self {
            name: name.to_owned(),
            min: *samples.first()?,
            median: at(50)?,
            p99: at(99)?,
            max: *samples.last()?,
            samples: samples.len() as u64,
            histogram: Vec::new(),
        })
    }

    /// Reads the words after `BENCH` in the guest's line: row, minimum, median, p99, maximum, spread, number of samples.
    pub(crate) fn parse(words: &[String]) -> Option<Self> {
        let [name, numbers @ ..] = words else {
            return None;
        };
        let numbers: Vec<u64> = numbers.iter().map_while(|word| word.parse().ok()).collect();
        let [min, median, p99, max, _spread, samples] = numbers[..] else {
            return None;
        };
        Some(Self {
            name: name.clone(),
            min,
            median,
            p99,
            max,
            samples,
            histogram: Vec::new(),
        })
    }

    /// Takes in the words after `BENCH-HISTOGRAM row`: value:count.
    pub(crate) fn set_histogram(&mut self, words: &[String]) {
        let pair = |word: &String| {
            let (value, count) = word.split_once(':')?;
            Some((value.parse().ok()?, count.parse().ok()?))
        };
        self.histogram = words.iter().filter_map(pair).collect();
    }

    /// Judges the row by its bar.
    pub(crate) fn verdict(&self) -> Verdict {
        match bars::of(&self.name).and_then(|bar| bar.bar) {
            None => Verdict::Measured,
            Some(bar) if self.median > bar => Verdict::Missed,
            Some(bar) if self.max > bar => Verdict::Outlier,
            Some(_) => Verdict::Met,
        }
    }

    fn json(&self) -> Value {
        json!({
            "row": self.name, "min": self.min, "median": self.median, "p99": self.p99, "max": self.max,
            "spread": self.max - self.min, "samples": self.samples,
            "bar": bars::of(&self.name).and_then(|bar| bar.bar), "missed": self.verdict() == Verdict::Missed,
        })
    }
}

/// All that one run of the bench found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// Rows that gave no number, and why.
    pub(crate) failures: Vec<(String, String)>,
    /// What stands behind a number, for a person who asks where it comes from.
    pub(crate) notes: Vec<String>,
}

impl Findings {
    /// Finds a row.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Takes in what another part found.
    pub(crate) fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.failures.extend(other.failures);
        self.notes.extend(other.notes);
    }

    /// Puts the rows into the order of the bars; rows that are not among them come last.
    pub(crate) fn sort(&mut self) {
        let place = |row: &Row| bars::BARS.iter().position(|bar| bar.row == row.name);
        self.rows
            .sort_by_key(|row| place(row).unwrap_or(usize::MAX));
    }

    /// Tells whether every row has a number that is not above its bar.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.rows.iter().all(|row| row.verdict() != Verdict::Missed)
    }

    /// Writes the table.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<32}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}  verdict\n",
            "row", "bar", "min", "median", "p99", "max", "spread"
        );
        for row in &self.rows {
            let bar = bars::of(&row.name).and_then(|bar| bar.bar);
            let bar = bar.map_or_else(|| "-".to_owned(), |bar| bar.to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<32}{bar:>9}{:>9}{:>9}{:>9}{:>9}{:>8}  {}",
                row.name,
                row.min,
                row.median,
                row.p99,
                row.max,
                row.max - row.min,
                row.verdict().word()
            );
        }
        for (name, why) in &self.failures {
            let _ = writeln!(text, "{name:<32}FAILED: {why}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }

    /// Writes it for a program.
    pub(crate) fn json(&self) -> Value {
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|(row, why)| json!({ "row": row, "why": why }))
            .collect();
        json!({
            "unit": "instructions",
            "good": self.is_good(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "failures": failures,
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, median: u64, max: u64) -> Row {
        Row {
            median,
            max,
            ..Row::single(name, 1)
        }
    }

    #[test]
    fn the_guests_line_is_read() {
        let words: Vec<String> = "sgi-self 170 174 180 190 20 1000"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let row = Row::parse(&words).unwrap();
        assert_eq!(
            (row.min, row.median, row.p99, row.max, row.samples),
            (170, 174, 180, 190, 1000)
        );
        assert_eq!(Row::parse(&words[..5]), None);
    }

    #[test]
    fn the_median_is_held_against_the_bar() {
        assert_eq!(row("sgi-self", 200, 200).verdict(), Verdict::Met);
        assert_eq!(row("sgi-self", 200, 201).verdict(), Verdict::Outlier);
        assert_eq!(row("sgi-self", 201, 201).verdict(), Verdict::Missed);
        assert_eq!(
            row("gicr-typer-read", 9999, 9999).verdict(),
            Verdict::Measured
        );
    }

    #[test]
    fn a_row_without_a_number_is_not_good() {
        let mut findings = Findings {
            rows: vec![row("sgi-self", 1, 1)],
            ..Findings::default()
        };
        assert!(findings.is_good());
        findings
            .failures
            .push(("sgi-to-wfi".into(), "no samples".into()));
        assert!(!findings.is_good());
        assert!(findings.table().contains("FAILED: no samples"));
        assert_eq!(findings.json()["good"], false);
    }

    #[test]
    fn samples_are_summed_up() {
        let row = Row::of("x", (1..=100).rev().collect()).unwrap();
        assert_eq!((row.min, row.median, row.p99, row.max), (1, 51, 100, 100));
        assert_eq!(Row::of("x", Vec::new()), None);
    }
}
