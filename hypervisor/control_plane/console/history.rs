//! The lines that were typed before, the newest of them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// How many lines are remembered.
const LINES: usize = 32;

/// Lines of before, the oldest first; each is as long as the prompt allows at most.
#[derive(Debug)]
pub(super) struct History(Vec<String>);

impl History {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a line unless it is blank or the same as the last one.
    pub(super) fn remember(&mut self, line: &str) {
        if line.trim_ascii().is_empty() || self.back(1) == Some(line) {
            return;
        }
        if self.0.len() >= LINES {
            self.0.remove(0);
        }
        self.0.push(line.to_string());
    }

    /// Returns the line that is so many lines back, the last one being 1.
    pub(super) fn back(&self, back: usize) -> Option<&str> {
        let index = self.0.len().checked_sub(back)?;
        self.0.get(index).map(String::as_str)
    }

    /// Finds the first line that holds a text, from so many lines back on; returns how many lines back it is.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<usize> {
        let text = text.as_bytes();
        (from..=self.0.len()).find(|back| {
            let line = self.back(*back).unwrap_or_default();
            line.len() >= text.len()
                && (text.is_empty() || line.as_bytes().windows(text.len()).any(|part| part == text))
        })
    }
}
