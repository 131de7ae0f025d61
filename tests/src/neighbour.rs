//! Talks to the guest `neighbour`, which keeps a beat and guards a pattern in its memory.

use crate::machine::{PATIENCE, Running};

/// What a neighbour guest says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    /// Beats since its start.
    pub beats: u64,
    /// The longest delay of one since the last question, in microseconds.
    pub late_us: u64,
    /// Words of the pattern in its memory that have changed.
    pub damaged: u64,
}

/// Attaches the console to a neighbour guest and asks how it is.
///
/// # Panics
/// If it does not answer.
pub fn ask(running: &mut Running, name: &str) -> Beats {
    running.command(&format!("console {name}"));
    running.console.send("?");
    running.console.expect("BEATS ", PATIENCE);
    let line = running
        .console
        .next_line(PATIENCE)
        .expect("the rest of the line follows");
    let mut numbers = line.split([' ', '=']).filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{line}"));
    Beats {
        beats: next(),
        late_us: next(),
        damaged: next(),
    }
}
