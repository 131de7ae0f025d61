//! What a person reads while a command works: one line per step, on standard error.

use std::io::Write;
use std::time::{Duration, Instant};

/// Says one line.
pub(crate) fn line(text: &str) {
    // A closed standard error must not stop the work.
    drop(writeln!(std::io::stderr(), "bullpen: {text}"));
}

/// Says what failed and why, as one line.
pub(crate) fn failure(error: &anyhow::Error) {
    line(&format!("error: {error:#}"));
}

/// Opens a section of a long output.
pub(crate) fn section(name: &str) {
    line(&format!("── {name} ──"));
}

/// Runs one long step, saying when it starts and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    line(&format!("{what} …"));
    let start = Instant::now();
    let result = work()?;
    line(&format!("{what}: done in {}", seconds(start.elapsed())));
    Ok(result)
}

/// A duration as a person reads it.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        whole @ 0..=59 => format!("{whole}.{} s", time.subsec_millis() / 100),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}
