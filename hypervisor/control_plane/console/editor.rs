//! The line editor of the prompt: keys in, whole lines out, and the echo that makes them visible.
//!
//! It understands the keys that terminals of the VT100 family send, and asks the terminal nothing, since the other end may be a
//! program. A line holds printable ASCII only, and no more than it has room for: a line that grew longer is refused as a whole,
//! since the part that fits could be another command. A line that is longer than a terminal is wide moves sideways.
//!
//! Neighbours: `keys` (bytes to keys), `history` (lines of before), `complete` (what Tab may add), `command` (lines to commands).

use super::{
    complete::Candidates,
    history::History,
    keys::{Key, KeyReader},
    sink::{ByteSink, put},
};
use alloc::string::String;

/// The longest line of the prompt, and the longest command, in bytes.
pub const LINE_BYTES: usize = 256;
/// The longest text that is searched for in the history.
const PATTERN_BYTES: usize = 32;
/// The columns that are used: a terminal has 80, and the cursor may come to stand in the last one.
pub(super) const COLUMNS: usize = 79;

/// A line of the prompt.
pub(super) type Line = heapless::String<LINE_BYTES>;

const BELL: &[u8] = b"\x07";
const NEW_LINE: &[u8] = b"\r\n";
/// Erase from the cursor to the end of the line (ECMA-48, EL).
const ERASE_TO_END: &[u8] = b"\x1b[K";
/// Erase the screen and go to its first place (ECMA-48, ED and CUP).
const CLEAR_SCREEN: &[u8] = b"\x1b[2J\x1b[H";

/// What a byte led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Nothing to act on.
    Nothing,
    /// A line, possibly empty; the cursor is at the start of a new one.
    Line(String),
    /// The end of a line that was too long; it is dropped.
    TooLong,
    /// The line was given up.
    Abandoned,
    /// The word before the cursor is to be completed: [`Editor::complete`].
    Complete,
}

/// The editor of one terminal.
#[derive(Debug)]
pub(super) struct Editor {
    prompt: &'static str,
    keys: KeyReader,
    line: Line,
    /// Where the next character goes, in bytes from the start; at most the line's length.
    cursor: usize,
    /// The first character that is shown.
    left: usize,
    /// Characters were refused.
    overflown: bool,
    history: History,
    /// How many lines back in the history the shown line is; 0 for a new line.
    recalled: usize,
    /// The new line, while one of the history is shown.
    draft: Line,
    /// What is searched for in the history.
    search: Option<heapless::String<PATTERN_BYTES>>,
}

impl Editor {
    pub(super) const fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            keys: KeyReader::new(),
            line: Line::new(),
            cursor: 0,
            left: 0,
            overflown: false,
            history: History::new(),
            recalled: 0,
            draft: Line::new(),
            search: None,
        }
    }

    /// Takes a byte from the terminal.
    pub(super) fn feed(&mut self, byte: u8, out: &mut dyn ByteSink) -> Fed {
        let Some(key) = self.keys.feed(byte) else {
            return Fed::Nothing;
        };
        if self.search.is_some() && self.search_key(key, out) {
            return Fed::Nothing;
        }
        match key {
            Key::Character(character) => self.insert(character, out),
            Key::Enter => return self.enter(out),
            Key::Abandon => {
                out.put(b"^C\r\n");
                self.forget_line();
                return Fed::Abandoned;
            }
            Key::Left => self.go(self.cursor.saturating_sub(1), out),
            Key::Right => self.go(self.cursor.saturating_add(1), out),
            Key::WordLeft => self.go(self.word_start(), out),
            Key::WordRight => self.go(self.word_end(), out),
            Key::Home => self.go(0, out),
            Key::End => self.go(usize::MAX, out),
            Key::Backspace => self.erase(self.cursor.saturating_sub(1), self.cursor, out),
            Key::Delete => self.erase(self.cursor, self.cursor.saturating_add(1), out),
            Key::EraseLine => self.erase(0, self.cursor, out),
            Key::EraseToEnd => self.erase(self.cursor, usize::MAX, out),
            Key::EraseWord => self.erase(self.word_start(), self.cursor, out),
            Key::EraseWordRight => self.erase(self.cursor, self.word_end(), out),
            Key::Up => self.recall(self.recalled.saturating_add(1), out),
            Key::Down => match self.recalled.checked_sub(1) {
                Some(newer) => self.recall(newer, out),
                None => out.put(BELL),
            },
            Key::Complete => return Fed::Complete,
            Key::Search => {
                self.search = Some(heapless::String::new());
                self.show(out);
            }
            Key::Redraw => {
                out.put(CLEAR_SCREEN);
                self.redraw(out);
            }
            Key::Unknown => out.put(BELL),
        }
        Fed::Nothing
    }

    /// Shows the prompt and the line as it stands, in place of what the terminal's line shows.
    pub(super) fn redraw(&self, out: &mut dyn ByteSink) {
        match &self.search {
            None => put!(out, "\r{}", self.prompt),
            Some(pattern) => put!(out, "\rsearch `{pattern}`: "),
        }
        let end = self.line.len().min(self.left.saturating_add(self.room()));
        let shown = self.line.get(self.left..end).unwrap_or_default();
        out.put(shown.as_bytes());
        out.put(ERASE_TO_END);
        let behind = end.saturating_sub(self.cursor);
        if behind != 0 {
            put!(out, "\x1b[{behind}D");
        }
    }

    /// Clears the terminal's line for something else to be shown; [`Editor::redraw`] brings it back.
    pub(super) fn make_way(&self, out: &mut dyn ByteSink) {
        out.put(b"\r");
        out.put(ERASE_TO_END);
    }

    /// Drops the line that was being typed, without a trace on the terminal.
    pub(super) fn forget_line(&mut self) {
        self.line.clear();
        self.draft.clear();
        self.search = None;
        (self.cursor, self.left, self.recalled) = (0, 0, 0);
        self.overflown = false;
    }

    /// Returns the line up to the cursor.
    pub(super) fn head(&self) -> &str {
        self.line.get(..self.cursor).unwrap_or_default()
    }

    /// Completes the word before the cursor as far as there is no choice, else shows what there is to choose from.
    pub(super) fn complete(&mut self, candidates: &Candidates<'_>, out: &mut dyn ByteSink) {
        let (head, tail) = self.line.split_at_checked(self.cursor).unwrap_or_default();
        let certain = candidates.certain();
        // Whole words are set apart from what follows.
        let blank = match candidates.words.len() {
            1 if !tail.starts_with(' ') => " ",
            _ => "",
        };
        let mut line = Line::new();
        let fits = [head, certain, blank, tail]
            .iter()
            .all(|part| line.push_str(part).is_ok());
        if candidates.words.len() > 1 && certain.is_empty() {
            let mut column = 0_usize;
            for word in &candidates.words {
                let wide = column.saturating_add(word.len()).saturating_add(2);
                column = if column == 0 || wide > COLUMNS {
                    out.put(NEW_LINE);
                    word.len()
                } else {
                    out.put(b"  ");
                    wide
                };
                out.put(word.as_bytes());
            }
            out.put(NEW_LINE);
            self.redraw(out);
        } else if fits && line != self.line {
            self.cursor = line.len().saturating_sub(tail.len());
            self.line = line;
            self.show(out);
        } else {
            out.put(BELL);
        }
    }

    /// How many characters of the line are shown.
    fn room(&self) -> usize {
        const AROUND: usize = "search ``: ".len();
        let taken = match &self.search {
            None => self.prompt.len(),
            Some(pattern) => pattern.len().saturating_add(AROUND),
        };
        COLUMNS.saturating_sub(taken)
    }

    /// Shows the line after a change, moved sideways if the cursor would be out of sight.
    fn show(&mut self, out: &mut dyn ByteSink) {
        let (room, right) = (self.room(), self.cursor.saturating_sub(self.left));
        // Behind the last character there is a column for the cursor.
        let is_cut = right >= room && self.cursor < self.line.len();
        if self.line.len() <= room {
            self.left = 0;
        } else if self.cursor < self.left || right > room || is_cut {
            self.left = self.cursor.saturating_sub(room / 2);
        }
        self.redraw(out);
    }

    fn enter(&mut self, out: &mut dyn ByteSink) -> Fed {
        out.put(NEW_LINE);
        if self.overflown {
            self.forget_line();
            return Fed::TooLong;
        }
        let line = String::from(self.line.as_str());
        self.history.remember(&line);
        self.forget_line();
        Fed::Line(line)
    }

    fn insert(&mut self, character: u8, out: &mut dyn ByteSink) {
        let (at, character) = (self.cursor, char::from(character));
        if self.overflown || self.line.insert(at, character).is_err() {
            if !self.overflown {
                out.put(BELL);
            }
            self.overflown = true;
            return;
        }
        self.cursor = at.saturating_add(1);
        let shown = self.cursor.saturating_sub(self.left);
        if self.cursor == self.line.len() && shown <= self.room() {
            put!(out, "{character}");
        } else {
            self.show(out);
        }
    }

    fn go(&mut self, to: usize, out: &mut dyn ByteSink) {
        self.cursor = to.min(self.line.len());
        self.show(out);
    }

    /// Removes the characters from `from` up to `to`, and leaves the cursor where they were.
    fn erase(&mut self, from: usize, to: usize, out: &mut dyn ByteSink) {
        let to = to.min(self.line.len());
        let (Some(head), Some(tail)) = (self.line.get(..from), self.line.get(to..)) else {
            return;
        };
        let mut line = Line::new();
        // Both parts come from a line of the same capacity.
        let _ = line.push_str(head).and_then(|()| line.push_str(tail));
        self.line = line;
        self.cursor = from;
        self.overflown = false;
        self.show(out);
    }

    /// Returns where the word before the cursor begins.
    fn word_start(&self) -> usize {
        let mut bytes = self.head().trim_ascii_end().bytes();
        bytes
            .rposition(|byte| byte == b' ')
            .map_or(0, |blank| blank.saturating_add(1))
    }

    /// Returns where the word behind the cursor ends.
    fn word_end(&self) -> usize {
        let tail = self.line.get(self.cursor..).unwrap_or_default();
        let word = tail.trim_ascii_start();
        let mut bytes = word.bytes();
        let left = bytes
            .position(|byte| byte == b' ')
            .map_or(0, |at| word.len().saturating_sub(at));
        self.line.len().saturating_sub(left)
    }

    /// Shows the line that is so many lines back; 0 is the one that was being typed.
    fn recall(&mut self, back: usize, out: &mut dyn ByteSink) {
        if self.recalled == 0 {
            self.draft.clone_from(&self.line);
        }
        let line = match back {
            0 => Some(self.draft.as_str()),
            _ => self.history.back(back),
        };
        let Some(line) = line.and_then(|line| Line::try_from(line).ok()) else {
            return out.put(BELL);
        };
        self.line = line;
        self.cursor = self.line.len();
        self.recalled = back;
        self.overflown = false;
        self.show(out);
    }

    /// Acts on a key while the history is searched; returns whether that is all. Any other key takes the line that was found.
    fn search_key(&mut self, key: Key, out: &mut dyn ByteSink) -> bool {
        let Some(pattern) = &mut self.search else {
            return false;
        };
        let from = match key {
            Key::Character(character) => {
                if pattern.push(char::from(character)).is_err() {
                    out.put(BELL);
                }
                self.recalled.max(1)
            }
            Key::Backspace => {
                pattern.pop();
                1
            }
            Key::Search => self.recalled.saturating_add(1),
            _ => {
                self.search = None;
                self.show(out);
                return false;
            }
        };
        match self.history.find(pattern, from) {
            Some(back) => self.recall(back, out),
            None => {
                out.put(BELL);
                self.show(out);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
