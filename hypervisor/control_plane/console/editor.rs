//! The line editor of the prompt: keys in, whole lines out, and the echo that makes them visible.
//!
//! It understands the keys that terminals of the VT100 family send. A line holds printable ASCII only, and no more than it has
//! room for: a line that grew longer is refused as a whole, since the part that fits could be another command.
//!
//! Neighbours: `keys` (bytes to keys), `command` (lines to commands).

use super::{
    keys::{Key, KeyReader},
    sink::{ByteSink, put},
};

use alloc::string::String;

/// The longest line of the prompt, and the longest command, in bytes.
pub const LINE_BYTES: usize = 256;

/// A line of the prompt.
pub(super) type Line = heapless::String<LINE_BYTES>;

/// How many lines are remembered.
const HISTORY_LINES: usize = 8;

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
}

/// The editor of one terminal.
#[derive(Debug)]
pub(super) struct Editor {
    prompt: &'static str,
    keys: KeyReader,
    line: Line,
    /// Where the next character goes, in bytes from the start; at most the line's length.
    cursor: usize,
    /// Characters were refused.
    overflown: bool,
    history: heapless::Deque<Line, HISTORY_LINES>,
    /// How many lines back in the history the shown line is; 0 for a new line.
    recalled: usize,
}

impl Editor {
    pub(super) const fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            keys: KeyReader::new(),
            line: Line::new(),
            cursor: 0,
            overflown: false,
            history: heapless::Deque::new(),
            recalled: 0,
        }
    }

    /// Takes a byte from the terminal.
    pub(super) fn feed(&mut self, byte: u8, out: &mut dyn ByteSink) -> Fed {
        let Some(key) = self.keys.feed(byte) else {
            return Fed::Nothing;
        };
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
            Key::Home => self.go(0, out),
            Key::End => self.go(usize::MAX, out),
            Key::Backspace => self.erase(self.cursor.saturating_sub(1), self.cursor, out),
            Key::Delete => self.erase(self.cursor, self.cursor.saturating_add(1), out),
            Key::EraseLine => self.erase(0, self.cursor, out),
            Key::EraseToEnd => self.erase(self.cursor, usize::MAX, out),
            Key::EraseWord => self.erase(self.word_start(), self.cursor, out),
            Key::Up => self.recall(self.recalled.saturating_add(1), out),
            Key::Down => match self.recalled.checked_sub(1) {
                Some(newer) => self.recall(newer, out),
                None => out.put(BELL),
            },
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
        put!(out, "\r{}{}", self.prompt, self.line);
        out.put(ERASE_TO_END);
        let behind = self.line.len().saturating_sub(self.cursor);
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
        self.cursor = 0;
        self.overflown = false;
        self.recalled = 0;
    }

    fn enter(&mut self, out: &mut dyn ByteSink) -> Fed {
        out.put(NEW_LINE);
        if self.overflown {
            self.forget_line();
            return Fed::TooLong;
        }
        let line = String::from(self.line.as_str());
        self.remember();
        self.forget_line();
        Fed::Line(line)
    }

    /// Adds the line to the history unless it is blank or the same as the last one.
    fn remember(&mut self) {
        if self.line.trim_ascii().is_empty() || self.history.front() == Some(&self.line) {
            return;
        }
        if self.history.is_full() {
            self.history.pop_back();
        }
        // There is room: the oldest line has just left.
        let _ = self.history.push_front(self.line.clone());
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
        if self.cursor == self.line.len() {
            put!(out, "{character}");
        } else {
            self.redraw(out);
        }
    }

    fn go(&mut self, to: usize, out: &mut dyn ByteSink) {
        self.cursor = to.min(self.line.len());
        self.redraw(out);
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
        self.redraw(out);
    }

    fn word_start(&self) -> usize {
        let head = self.line.get(..self.cursor).unwrap_or_default();
        let mut bytes = head.trim_ascii_end().bytes();
        bytes
            .rposition(|byte| byte == b' ')
            .map_or(0, |blank| blank.saturating_add(1))
    }

    fn recall(&mut self, back: usize, out: &mut dyn ByteSink) {
        let line = match back.checked_sub(1) {
            None => Some(Line::new()),
            Some(index) => self.history.iter().nth(index).cloned(),
        };
        let Some(line) = line else {
            return out.put(BELL);
        };
        self.forget_line();
        self.cursor = line.len();
        self.line = line;
        self.recalled = back;
        self.redraw(out);
    }
}

#[cfg(test)]
mod tests {
    use super::{Editor, Fed, LINE_BYTES};
    use alloc::{string::String, vec::Vec};
    use proptest::prelude::*;

    /// Feeds keys and returns what the last byte led to.
    fn feed(editor: &mut Editor, bytes: &[u8]) -> Fed {
        let mut out = Vec::new();
        bytes
            .iter()
            .fold(Fed::Nothing, |_, &byte| editor.feed(byte, &mut out))
    }

    fn line(bytes: &[u8]) -> Option<String> {
        match feed(&mut Editor::new("> "), bytes) {
            Fed::Line(line) => Some(line),
            _ => None,
        }
    }

    #[test]
    fn keys_by_table() {
        let cases: [(&[u8], &str); 19] = [
            (b"vm list\r", "vm list"),
            (b"vm list\n", "vm list"),
            (b"vx\x08m\r", "vm"),
            (b"vx\x7fm\r", "vm"),
            (b"\x7f\x08ok\r", "ok"),
            (b"abc\x1b[D\x1b[DX\r", "aXbc"),
            (b"abc\x1b[D\x1b[D\x1b[C\x1b[CX\r", "abcX"),
            (b"abc\x1b[HX\x1b[FY\r", "XabcY"),
            (b"abc\x1bOHX\x1bOFY\r", "XabcY"),
            (b"abc\x1b[1~X\x1b[4~Y\r", "XabcY"),
            (b"abc\x01X\x05Y\r", "XabcY"),
            (b"abc\x01\x1b[3~\x04\r", "c"),
            (b"vm stop linux\x17rtos\r", "vm stop rtos"),
            (b"vm stop linux  \x17rtos\r", "vm stop rtos"),
            (b"wrong\x15right\r", "right"),
            (b"abc\x02\x02\x0b\r", "a"),
            (b"a\x00\x1b[31m\xffb\x1b[999;999Zc\r", "abc"),
            (b"\x1b[99999999999999999999Ax\r", "x"),
            (b"a\tb\x0c\r", "ab"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                line(bytes).as_deref(),
                Some(expected),
                "{:?}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn carriage_return_and_line_feed_end_one_line() {
        let mut editor = Editor::new("> ");
        assert!(matches!(feed(&mut editor, b"a\r"), Fed::Line(_)));
        assert_eq!(feed(&mut editor, b"\n"), Fed::Nothing);
        assert!(matches!(feed(&mut editor, b"\n"), Fed::Line(_)));
    }

    #[test]
    fn history_goes_back_and_forth() {
        let mut editor = Editor::new("> ");
        for text in ["one\r", "two\r", "two\r", "  \r"] {
            let _ = feed(&mut editor, text.as_bytes());
        }
        let cases: [(&[u8], &str); 5] = [
            (b"\x1b[A\r", "two"),
            (b"\x1b[A\x1b[A\r", "one"),
            (b"\x10\x10\x1b[B\x0e\r", ""),
            (
                b"\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A!\r",
                "one!",
            ),
            (b"\x1b[B\x1b[B\x1b[A\r", "one!"),
        ];
        for (bytes, expected) in cases {
            let Fed::Line(line) = feed(&mut editor, bytes) else {
                panic!("no line")
            };
            assert_eq!(line, expected, "{:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_too_long_is_refused_whole_with_one_bell() {
        let mut editor = Editor::new("> ");
        let mut out = Vec::new();
        for _ in 0..1_000_000 {
            assert_eq!(editor.feed(b'x', &mut out), Fed::Nothing);
        }
        assert_eq!(out.iter().filter(|&&byte| byte == 7).count(), 1);
        assert_eq!(out.len(), LINE_BYTES + 1, "what is not kept is not echoed");
        assert_eq!(editor.feed(b'\r', &mut out), Fed::TooLong);
        assert!(matches!(feed(&mut editor, b"vm list\r"), Fed::Line(line) if line == "vm list"));
    }

    #[test]
    fn abandoned_line_leaves_nothing() {
        let mut editor = Editor::new("> ");
        assert_eq!(feed(&mut editor, b"vm stop linux\x03"), Fed::Abandoned);
        assert!(matches!(feed(&mut editor, b"\r"), Fed::Line(line) if line.is_empty()));
    }

    #[test]
    fn typing_at_the_end_echoes_one_byte() {
        let mut editor = Editor::new("> ");
        let mut out = Vec::new();
        for &byte in b"host" {
            let _ = editor.feed(byte, &mut out);
        }
        assert_eq!(out, b"host");
        out.clear();
        let _ = editor.feed(0x7f, &mut out);
        assert_eq!(out, b"\r> hos\x1b[K");
    }

    /// Bytes that mean something to the editor.
    const KEYS: [u8; 10] = [0x1b, b'[', b'A', b'D', b'H', 0x7f, 0x17, 0x15, b' ', b'\r'];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any bytes: the line stays printable and bounded, the cursor inside it, and the echo harmless to a terminal.
        #[test]
        fn any_bytes_are_edited(draws in proptest::collection::vec(any::<u16>(), 0..400)) {
            let mut editor = Editor::new("> ");
            let mut out = Vec::new();
            for draw in draws {
                let [byte, choice] = draw.to_le_bytes();
                let byte = if choice < 85 { KEYS[usize::from(byte) % KEYS.len()] } else { byte };
                if let Fed::Line(line) = editor.feed(byte, &mut out) {
                    prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                }
                prop_assert!(editor.cursor <= editor.line.len());
            }
            prop_assert!(out.iter().all(|byte| byte.is_ascii()));
        }
    }
}
