//! The editor beside a plain one that keeps a list of characters, and on a terminal that shows what people would see.

use super::{COLUMNS, Candidates, Editor, Fed, LINE_BYTES};
use crate::console::names::Names;
use crate::console::terminal::Terminal;
use alloc::{string::String, vec, vec::Vec};
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
    let cases: [(&[u8], &str); 26] = [
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
        (b"vm stop linux\x1bb\x1bbX\r", "vm Xstop linux"),
        (b"vm stop linux\x01\x1bf\x1bfX\r", "vm stopX linux"),
        (b"vm stop linux\x01\x1bd\x1bd\r", " linux"),
        (b"vm stop linux\x1b\x7frtos\r", "vm stop rtos"),
        (b"vm stop linux\x1b[1;5D\x1b[1;3DX\r", "vm Xstop linux"),
        (b"vm stop linux\x01\x1b[1;5CX\r", "vmX stop linux"),
        (b"abc\x1bx\x1b\x1b[DX\r", "abXc"),
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
    let cases: [(&[u8], &str); 6] = [
        (b"\x1b[A\r", "two"),
        (b"\x1b[A\x1b[A\r", "one"),
        (b"\x10\x10\x1b[B\x0e\r", ""),
        (
            b"\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A!\r",
            "one!",
        ),
        (b"\x1b[B\x1b[B\x1b[A\r", "one!"),
        (b"new\x1b[A\x1b[A\x1b[B\x1b[B line\r", "new line"),
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
    assert!(out.len() < 8 * LINE_BYTES, "what is not kept is not echoed");
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

#[test]
fn the_history_is_searched() {
    let mut editor = Editor::new("> ");
    for text in [
        "vm stop linux\r",
        "vcpu set linux 8\r",
        "vm stop rtos\r",
        "host\r",
    ] {
        let _ = feed(&mut editor, text.as_bytes());
    }
    let cases: [(&[u8], &str); 8] = [
        (b"\x12set\r", "vcpu set linux 8"),
        (b"\x12stop\r", "vm stop rtos"),
        (b"\x12stop\x12\x12\r", "vm stop linux"),
        (b"\x12stop\x12\x12\x12\x12\r", "vm stop linux"),
        (b"\x12linuxx\x7f\r", "vm stop linux"),
        (
            b"\x12vcpu\x05 --timeout 5\r",
            "vcpu set linux 8 --timeout 5",
        ),
        (b"typed\x12zz\r", "typed"),
        (b"typed\x12zz\x1b[D\x7fX\r", "typXd"),
    ];
    for (bytes, expected) in cases {
        let Fed::Line(line) = feed(&mut editor, bytes) else {
            panic!("no line")
        };
        assert_eq!(line, expected, "{:?}", bytes.escape_ascii());
    }
    let mut out = Vec::new();
    for &byte in b"\x12rto" {
        let _ = editor.feed(byte, &mut out);
    }
    let mut terminal = Terminal::new();
    terminal.show(&out);
    assert_eq!(terminal.row(), "search `rto`: vm stop rtos");
    assert_eq!(feed(&mut editor, b"\x03"), Fed::Abandoned);
}

/// What Tab makes of a text with the cursor this far from its end, and what the terminal shows in the end.
fn complete(text: &str, from_end: usize) -> (String, Vec<String>) {
    let names = Names::new(["linux", "rtos"].map(Into::into).to_vec());
    let (mut editor, mut out) = (Editor::new("bullpen> "), Vec::new());
    editor.redraw(&mut out);
    for byte in text.bytes().chain(vec![2; from_end]).chain([b'\t']) {
        if editor.feed(byte, &mut out) == Fed::Complete {
            let head = String::from(editor.head());
            editor.complete(&Candidates::of(&head, &names), &mut out);
        }
    }
    let mut terminal = Terminal::new();
    terminal.show(&out);
    assert_eq!(
        terminal.row(),
        alloc::format!("bullpen> {}", editor.line).trim_end()
    );
    assert_eq!(terminal.column(), 9 + editor.cursor);
    (editor.line.as_str().into(), terminal.rows())
}

#[test]
fn tab_completes_as_far_as_there_is_no_choice_and_then_shows_it() {
    assert_eq!(complete("vm st", 0).0, "vm st");
    let (_, rows) = complete("vm st", 0);
    assert_eq!(rows, ["bullpen> vm st", "start  stop", "bullpen> vm st"]);
    assert_eq!(complete("vm sta", 0).0, "vm start ");
    assert_eq!(complete("vm start l", 0).0, "vm start linux ");
    assert_eq!(
        complete("vm stop li", 3).0,
        "vm stop li",
        "in the middle of a word that does not exist"
    );
    assert_eq!(complete("vcpu se linux 8", 8).0, "vcpu set linux 8");
    assert_eq!(complete("frob", 0).0, "frob");
    let (_, rows) = complete("", 0);
    assert_eq!(
        rows[1..3],
        [
            "help  vm  vcpu  mem  device  disk  net  console  top  stats  usage  watch",
            "unwatch  log  host  json"
        ]
    );
}

#[test]
fn completion_never_makes_a_line_too_long() {
    let text = alloc::format!("vm start{}", " ".repeat(LINE_BYTES - 10));
    let names = Names::new(["linux"].map(Into::into).to_vec());
    let (mut editor, mut out) = (Editor::new("> "), Vec::new());
    let _ = feed(&mut editor, text.as_bytes());
    let head = String::from(editor.head());
    editor.complete(&Candidates::of(&head, &names), &mut out);
    assert_eq!(
        (editor.line.len(), out.as_slice()),
        (text.len(), &b"\x07"[..])
    );
}

#[test]
fn a_long_line_moves_sideways() {
    let (mut editor, mut out, mut terminal) =
        (Editor::new("bullpen> "), Vec::new(), Terminal::new());
    let text: String = (0..200_u8)
        .map(|index| char::from(b'a' + index % 26))
        .collect();
    editor.redraw(&mut out);
    for byte in text.bytes() {
        let _ = editor.feed(byte, &mut out);
    }
    terminal.show(&out);
    check(&editor, &terminal);
    assert_eq!(terminal.rows().len(), 1, "one row, however long the line");
    out.clear();
    for &byte in b"\x01" {
        let _ = editor.feed(byte, &mut out);
    }
    terminal.show(&out);
    assert_eq!(
        terminal.row(),
        alloc::format!("bullpen> {}", &text[..COLUMNS - 9])
    );
    assert!(matches!(feed(&mut editor, b"\r"), Fed::Line(line) if line == text));
}

/// The row with the cursor shows the prompt and the part of the line around the cursor, and the cursor where it is.
fn check(editor: &Editor, terminal: &Terminal) {
    let row = terminal.row();
    let at = terminal.column() - 9;
    let shown = row.strip_prefix("bullpen>").expect("the prompt");
    let shown = shown.strip_prefix(' ').unwrap_or_default();
    let left = editor
        .cursor
        .checked_sub(at)
        .expect("the cursor is not before the line");
    let right = editor.line.len().min(left + COLUMNS - 9);
    assert_eq!(shown, editor.line[left..right].trim_end());
    assert!(
        editor.line.len() > COLUMNS - 9 || left == 0,
        "a line that has room is shown whole"
    );
}

/// A key, with what a terminal sends for it.
#[derive(Clone, Copy, Debug)]
enum Press {
    Type(u8),
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    Backspace,
    Delete,
    EraseWord,
    EraseWordRight,
    EraseLine,
    EraseToEnd,
    Enter,
    Abandon,
    Redraw,
    Nothing,
}

const PRESSES: [(Press, &[u8]); 27] = [
    (Press::Left, b"\x1b[D"),
    (Press::Left, b"\x02"),
    (Press::Right, b"\x1bOC"),
    (Press::Right, b"\x06"),
    (Press::WordLeft, b"\x1bb"),
    (Press::WordLeft, b"\x1b[1;5D"),
    (Press::WordRight, b"\x1bf"),
    (Press::Home, b"\x1b[1~"),
    (Press::Home, b"\x01"),
    (Press::End, b"\x1b[F"),
    (Press::End, b"\x05"),
    (Press::Up, b"\x1b[A"),
    (Press::Up, b"\x10"),
    (Press::Down, b"\x1b[B"),
    (Press::Backspace, b"\x7f"),
    (Press::Delete, b"\x1b[3~"),
    (Press::Delete, b"\x04"),
    (Press::EraseWord, b"\x17"),
    (Press::EraseWord, b"\x1b\x7f"),
    (Press::EraseWordRight, b"\x1bd"),
    (Press::EraseLine, b"\x15"),
    (Press::EraseToEnd, b"\x0b"),
    (Press::Enter, b"\r"),
    (Press::Abandon, b"\x03"),
    (Press::Redraw, b"\x0c"),
    (Press::Nothing, b"\x1b[200;31m"),
    (Press::Nothing, b"\xff"),
];

/// An editor as simple as it can be.
#[derive(Default)]
struct Plain {
    line: Vec<u8>,
    cursor: usize,
    too_long: bool,
    /// Lines of before, the newest first, and the new one in front of them.
    lines: Vec<Vec<u8>>,
    draft: Vec<u8>,
    back: usize,
}

impl Plain {
    fn is_blank(&self, at: usize) -> bool {
        self.line[at] == b' '
    }

    fn word_left(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 && self.is_blank(at - 1) {
            at -= 1;
        }
        while at > 0 && !self.is_blank(at - 1) {
            at -= 1;
        }
        at
    }

    fn word_right(&self) -> usize {
        let mut at = self.cursor;
        while at < self.line.len() && self.is_blank(at) {
            at += 1;
        }
        while at < self.line.len() && !self.is_blank(at) {
            at += 1;
        }
        at
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.cursor = from;
        self.too_long = false;
    }

    fn go_back(&mut self, back: usize) {
        if back > self.lines.len() {
            return;
        }
        if self.back == 0 {
            self.draft = self.line.clone();
        }
        self.line = match back {
            0 => self.draft.clone(),
            _ => self.lines[back - 1].clone(),
        };
        (self.cursor, self.back, self.too_long) = (self.line.len(), back, false);
    }

    /// Presses a key; returns the line if it is complete.
    fn press(&mut self, press: Press) -> Option<Vec<u8>> {
        let (cursor, end) = (self.cursor, self.line.len());
        match press {
            Press::Type(_) if self.too_long || end == LINE_BYTES => self.too_long = true,
            Press::Type(byte) => {
                self.line.insert(cursor, byte);
                self.cursor += 1;
            }
            Press::Left => self.cursor = cursor.saturating_sub(1),
            Press::Right => self.cursor = end.min(cursor + 1),
            Press::WordLeft => self.cursor = self.word_left(),
            Press::WordRight => self.cursor = self.word_right(),
            Press::Home => self.cursor = 0,
            Press::End => self.cursor = end,
            Press::Up => self.go_back(self.back + 1),
            Press::Down if self.back > 0 => self.go_back(self.back - 1),
            Press::Down | Press::Redraw | Press::Nothing => {}
            Press::Backspace => self.cut(cursor.saturating_sub(1), cursor),
            Press::Delete => self.cut(cursor, end.min(cursor + 1)),
            Press::EraseWord => self.cut(self.word_left(), cursor),
            Press::EraseWordRight => self.cut(cursor, self.word_right()),
            Press::EraseLine => self.cut(0, cursor),
            Press::EraseToEnd => self.cut(cursor, end),
            Press::Enter | Press::Abandon => {
                let line = core::mem::take(&mut self.line);
                let whole = matches!(press, Press::Enter) && !self.too_long;
                let is_new = self.lines.first() != Some(&line) && !line.trim_ascii().is_empty();
                if whole && is_new {
                    self.lines.insert(0, line.clone());
                    self.lines.truncate(32);
                }
                (self.cursor, self.back, self.too_long) = (0, 0, false);
                return whole.then_some(line);
            }
        }
        None
    }
}

/// What is typed: mostly characters, of few kinds so that there are words.
fn press() -> impl Strategy<Value = (Press, Vec<u8>)> {
    let character = proptest::sample::select(&b"ab -9"[..]);
    let typed = character.prop_map(|byte| (Press::Type(byte), vec![byte]));
    let key =
        proptest::sample::select(&PRESSES[..]).prop_map(|(press, bytes)| (press, bytes.to_vec()));
    prop_oneof![2 => typed, 1 => key]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any keys: the line and the cursor are those of a plain editor, and the terminal shows them after each key.
    #[test]
    fn the_line_shown_is_the_line_kept(
        presses in proptest::collection::vec(press(), 0..200), start in 0..LINE_BYTES,
    ) {
        let (mut editor, mut plain) = (Editor::new("bullpen> "), Plain::default());
        let (mut out, mut terminal) = (Vec::new(), Terminal::new());
        editor.redraw(&mut out);
        let start = vec![(Press::Type(b'x'), vec![b'x']); start];
        for (press, bytes) in start.into_iter().chain(presses) {
            let mut fed = Fed::Nothing;
            for byte in bytes {
                fed = editor.feed(byte, &mut out);
            }
            let line = plain.press(press);
            match (fed, &line) {
                (Fed::Line(own), Some(line)) => prop_assert_eq!(own.as_bytes(), line),
                (Fed::Nothing | Fed::Abandoned | Fed::TooLong, None) => {}
                (fed, _) => prop_assert!(false, "{:?} {:?}", fed, line),
            }
            if matches!(press, Press::Enter | Press::Abandon) {
                editor.redraw(&mut out);
            }
            prop_assert_eq!((editor.line.as_bytes(), editor.cursor), (plain.line.as_slice(), plain.cursor));
            // A key costs a row at most.
            prop_assert!(out.len() < 2 * COLUMNS, "{} bytes", out.len());
            terminal.show(&out);
            out.clear();
            check(&editor, &terminal);
        }
    }

    /// Any bytes, searches included: the line stays printable and bounded, the cursor inside it, the echo such that a terminal
    /// understands it, and the prompt's row alone changes.
    #[test]
    fn any_bytes_are_edited(draws in proptest::collection::vec(any::<u16>(), 0..400)) {
        const KEYS: [u8; 11] = [0x1b, b'[', b'A', b'D', b'H', 0x7f, 0x17, 0x15, 0x12, b' ', b'\r'];
        let (mut editor, mut terminal) = (Editor::new("> "), Terminal::new());
        for draw in draws {
            let mut out = Vec::new();
            let [byte, choice] = draw.to_le_bytes();
            let byte = if choice < 85 { KEYS[usize::from(byte) % KEYS.len()] } else { byte };
            if let Fed::Line(line) = editor.feed(byte, &mut out) {
                prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
            prop_assert!(editor.cursor <= editor.line.len());
            let row = terminal.row_number();
            terminal.show(&out);
            prop_assert!(matches!(byte, b'\r' | b'\n' | 3 | 12) || terminal.row_number() == row);
        }
    }
}
