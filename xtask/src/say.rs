//! What a person reads while a command works: one line per step, on standard error.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a step that takes long says that it goes on.
const HEARTBEAT: Duration = Duration::from_secs(20);

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

/// Runs one long step, saying when it starts, that it goes on, and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    line(&format!("{what} …"));
    let start = Instant::now();
    let (done, waiting) = mpsc::channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                line(&format!("{what} … {}", seconds(start.elapsed())));
            }
        });
        let result = work();
        drop(done);
        result
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_hands_its_result_on_and_ends_when_its_work_does() {
        let start = Instant::now();
        assert_eq!(step("counting", || Ok(3)).unwrap(), 3);
        assert!(step::<()>("failing", || anyhow::bail!("why")).is_err());
        assert!(start.elapsed() < HEARTBEAT);
    }

    #[test]
    fn durations_are_short_to_read() {
        assert_eq!(seconds(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }
}
