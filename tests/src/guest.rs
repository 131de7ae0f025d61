//! The protocol of the bare-metal guests (tests/guests/README.md), read on the host.

use crate::console::Console;
use crate::control::Control;
use crate::machine::{Machine, PATIENCE, Running};
use crate::manifest::{Manifest, Vm};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a guest gets to go to rest before it is answered.
const LATER: Duration = Duration::from_millis(30);

/// What a guest reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the tests that passed.
    pub passed: Vec<String>,
    /// Names of the tests that failed, and why.
    pub failed: Vec<(String, String)>,
    /// Names of the tests that found nothing to test, and why.
    pub ignored: Vec<(String, String)>,
    /// The last line: passed, failed, ignored.
    pub done: Option<(usize, usize, usize)>,
    /// Lines with numbers: the words after `BENCH`.
    pub bench: Vec<Vec<String>>,
    /// How often each value of a row occurred: the words after `BENCH-HISTOGRAM`.
    pub histograms: Vec<Vec<String>>,
    /// What else a reader of the numbers should know: the text after `BENCH-NOTE`.
    pub notes: Vec<String>,
    /// Rows that gave no number, and why: `BENCH-FAILED row: why`.
    pub bench_failed: Vec<(String, String)>,
    /// A panic of the guest.
    pub panic: Option<String>,
}

impl Report {
    /// Takes in one line of the console.
    fn take(&mut self, line: &str) {
        // What Xen says before each line of a guest.
        let line = line.strip_prefix("(XEN) ").unwrap_or(line);
        if let Some(rest) = line.strip_prefix("TEST ") {
            self.take_test(rest);
        } else if let Some(rest) = line.strip_prefix("BENCH ") {
            self.bench
                .push(rest.split_whitespace().map(str::to_owned).collect());
        } else if let Some(rest) = line.strip_prefix("BENCH-HISTOGRAM ") {
            self.histograms
                .push(rest.split_whitespace().map(str::to_owned).collect());
        } else if let Some(rest) = line.strip_prefix("BENCH-FAILED ") {
            let (row, why) = rest.split_once(": ").unwrap_or((rest, ""));
            self.bench_failed.push((row.to_owned(), why.to_owned()));
        } else if let Some(text) = line.strip_prefix("BENCH-NOTE ") {
            self.notes.push(text.to_owned());
        } else if line.starts_with("PANIC ") {
            self.panic = Some(line.to_owned());
        } else if let Some(rest) = line.strip_prefix("DONE ") {
            let numbers: Vec<usize> = rest
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|word| word.parse().ok())
                .collect();
            if let [passed, failed, ignored] = numbers[..] {
                self.done = Some((passed, failed, ignored));
            }
        }
    }

    fn take_test(&mut self, rest: &str) {
        let Some((name, outcome)) = rest.split_once(" ... ") else {
            return;
        };
        let name = name.to_owned();
        if outcome == "ok" {
            self.passed.push(name);
        } else if let Some(why) = outcome.strip_prefix("FAILED: ") {
            self.failed.push((name, why.to_owned()));
        } else if let Some(why) = outcome.strip_prefix("ignored: ") {
            self.ignored.push((name, why.to_owned()));
        }
    }

    /// Fails unless the guest finished, ran something, and nothing failed.
    ///
    /// # Panics
    /// With what failed.
    pub fn assert_green(&self, console: &Console) {
        let counted = self
            .done
            .is_some_and(|(passed, failed, _)| passed > 0 && failed == 0);
        assert!(
            counted && self.failed.is_empty() && self.panic.is_none(),
            "failed: {:#?}, done: {:?}, panic: {:?}{}",
            self.failed,
            self.done,
            self.panic,
            console.tail()
        );
    }
}

/// Runs a guest to its end, alone on a machine; `vm` has the name `guest`. Checks that the hypervisor is well afterwards.
///
/// # Panics
/// If not all of it passes, in time.
pub fn run(machine: Machine, vm: Vm) -> Report {
    let mut running = machine.boot(&Manifest::new([vm]));
    let report = run_to_end(&mut running, "guest", PATIENCE * 2);
    let list = running.command("vm list");
    assert_eq!(list["vms"][0]["state"], "off", "{list}");
    report
}

/// Follows the guest of a VM until it has passed and its VM is off. The console must show that VM.
///
/// # Panics
/// If not all of it passes, in time.
pub fn run_to_end(running: &mut Running, vm: &str, timeout: Duration) -> Report {
    let report = expect_green(running, vm, timeout);
    running.control().event("vm-off", vm, PATIENCE);
    report
}

/// Follows the guest of a VM until it has passed. The console must show that VM.
///
/// # Panics
/// If not all of it passes, in time.
pub fn expect_green(running: &mut Running, vm: &str, timeout: Duration) -> Report {
    let (console, control) = running.channels();
    let report = follow(console, control, vm, timeout);
    report.assert_green(&running.console);
    report
}

/// Follows a guest to its `DONE` line, answering what it asks; `vm` is its name for the control channel.
///
/// # Panics
/// If there is no `DONE` in time.
pub fn follow(
    console: &mut Console,
    mut control: Option<&mut Control>,
    vm: &str,
    timeout: Duration,
) -> Report {
    let deadline = Instant::now() + timeout;
    let mut report = Report::default();
    let mut boots = 0;
    let mut begun = String::new();
    while report.done.is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(line) = console.next_line(left) else {
            panic!(
                "the guest does not finish within {} s{}",
                timeout.as_secs(),
                console.tail()
            );
        };
        // A question stands at the end of a line that a test's name may have begun; the outcome comes on a later one.
        if let Some((head, question)) = line.split_once("ASK ") {
            let (number, question) = question.split_once(' ').unwrap_or((question, ""));
            let answer = answer(question, control.as_deref_mut(), vm, &mut boots, left);
            console.line(&format!("REPLY {number} {answer}"));
            begun.push_str(head);
        } else {
            report.take(&(std::mem::take(&mut begun) + &line));
        }
    }
    report
}

/// Does what a guest asks: `boot-number`, or `control COMMAND`, in which `@` stands for the VM's name; `later` before it
/// lets the guest go to rest first.
///
/// A resize is answered by its outcome and the number reached, `host` by `ok` and the number of CPUs that are on, a refused
/// command by `error` and the kind.
fn answer(
    question: &str,
    control: Option<&mut Control>,
    vm: &str,
    boots: &mut u32,
    timeout: Duration,
) -> String {
    if question == "boot-number" {
        *boots += 1;
        return boots.to_string();
    }
    let question = match question.strip_prefix("later ") {
        Some(rest) => {
            std::thread::sleep(LATER);
            rest
        }
        None => question,
    };
    let Some(command) = question.strip_prefix("control ") else {
        return "error what".into();
    };
    let Some(control) = control else {
        return "error no-control".into();
    };
    match control.command(&command.replace('@', vm), timeout) {
        Ok(result) => match (result["outcome"].as_str(), reached(&result)) {
            (Some(outcome), Some(reached)) => format!("{outcome} {reached}"),
            _ => match result.get("cpus_online") {
                Some(cpus) => format!("ok {cpus}"),
                None => "ok".into(),
            },
        },
        Err(refusal) => format!("error {}", refusal.kind),
    }
}

/// Returns what a resize has reached: vCPUs, or bytes of memory.
fn reached(result: &Value) -> Option<&Value> {
    let vcpus = result.get("reached");
    vcpus.or_else(|| result.get("reached_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_understood() {
        let mut report = Report::default();
        for line in [
            "SUITE x cpus=1",
            "TEST a ... ok",
            "TEST b ... FAILED: 1, expected 2",
            "TEST c ... ignored: no FEAT_X",
            "BENCH row 1 2 3 4 3 10",
            "BENCH-FAILED other: no samples",
            "BENCH-NOTE all is well",
            "DONE 1 passed, 1 failed, 1 ignored",
        ] {
            report.take(line);
        }
        assert_eq!(report.passed, ["a"]);
        assert_eq!(report.failed, [("b".into(), "1, expected 2".into())]);
        assert_eq!(report.ignored, [("c".into(), "no FEAT_X".into())]);
        assert_eq!(report.done, Some((1, 1, 1)));
        assert_eq!(report.bench[0][..2], ["row", "1"]);
        assert_eq!(report.bench_failed, [("other".into(), "no samples".into())]);
        assert_eq!(report.notes, ["all is well"]);
    }
}
