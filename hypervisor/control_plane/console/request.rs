//! JSON lines in: one request each, read without allocation.
//!
//! A request is an object. `command` is a string, `id` a number, a string or null, returned as it was written; other keys
//! are skipped, whatever their values. Nothing else of JSON is needed, so this is all of it: a parser that
//! looks at each byte once, with nesting bounded. Bytes, since all that has a meaning in JSON is ASCII.
//!
//! Neighbours: `json` (the way back), `command` (what the command string means).

use super::{editor::Line, error::ErrorKind};
use heapless::string::StringView;

/// The longest id that is returned, in bytes as it is written, quotes included.
const ID_BYTES: usize = 64;
/// Room for the keys that have a meaning; longer ones are skipped.
const KEY_BYTES: usize = 16;
/// The deepest nesting in a value that is skipped.
const MAX_DEPTH: u32 = 16;
/// What is read behind the last byte: no JSON holds it.
const END: u8 = 0;

/// A request's id, in the JSON that it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestId(heapless::String<ID_BYTES>);

impl RequestId {
    /// Returns the id as JSON: `null` if there was none.
    pub(super) fn as_json(&self) -> &str {
        if self.0.is_empty() { "null" } else { &self.0 }
    }
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonRequest<'a> {
    pub(super) id: RequestId,
    /// The command, or what is wrong with it although the line is good JSON.
    pub(super) command: Result<&'a str, (ErrorKind, Mistake)>,
}

/// What is wrong with a line: a phrase for the operator.
pub(super) type Mistake = &'static str;

/// Reads a request; a line that is not a JSON object of the right kind is a mistake. A command with escapes is put into `room`.
pub(super) fn parse<'a>(line: &'a [u8], room: &'a mut Line) -> Result<JsonRequest<'a>, Mistake> {
    let line = core::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let rest = line.as_bytes();
    let mut cursor = Cursor { line, rest };
    let (mut id, mut command) = ("", None);
    cursor.expect(b'{', "a request is a JSON object")?;
    let mut more = !cursor.accept(b'}');
    while more {
        let mut key = heapless::String::<KEY_BYTES>::new();
        let key = cursor.string()?.read(&mut key)?.map(str::as_bytes);
        cursor.expect(b':', "a key is followed by a colon")?;
        match key {
            Some(b"id") => id = cursor.id()?,
            Some(b"command") => {
                let text = cursor.string()?;
                text.read(room)?;
                command = Some(text);
            }
            _ => cursor.skip(0)?,
        }
        more = cursor.accept(b',');
        if !more {
            cursor.expect(b'}', "the object does not end")?;
        }
    }
    cursor.blanks();
    if !cursor.rest.is_empty() {
        return Err("something follows the object");
    }
    let command = match command {
        Some(text) => text
            .read(room)?
            .ok_or((ErrorKind::TooLong, "the command is too long")),
        None => Err((ErrorKind::BadJson, "there is no \"command\"")),
    };
    let id = heapless::String::try_from(id).map_err(|_| "the id is too long")?;
    let id = RequestId(id);
    Ok(JsonRequest { id, command })
}

/// A place in the line.
struct Cursor<'a> {
    line: &'a str,
    /// The bytes from here on.
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.rest.first().copied().unwrap_or(END)
    }

    #[inline(always)]
    fn next(&mut self) -> u8 {
        let byte = self.peek();
        self.rest = self.rest.get(1..).unwrap_or_default();
        byte
    }

    /// Returns what stands between two places, given by what was left there.
    fn text(&self, from: &[u8], to: &[u8]) -> &'a str {
        let at = |rest: &[u8]| self.line.len().wrapping_sub(rest.len());
        self.line.get(at(from)..at(to)).unwrap_or_default()
    }

    fn id(&mut self) -> Result<&'a str, Mistake> {
        self.blanks();
        let start = self.rest;
        match self.peek() {
            b'"' | b'-' | b'0'..=b'9' | b'n' => self.skip(MAX_DEPTH)?,
            _ => return Err("an id is a number, a string or null"),
        }
        Ok(self.text(start, self.rest))
    }

    /// Passes over a value of any kind.
    fn skip(&mut self, depth: u32) -> Result<(), Mistake> {
        self.blanks();
        let close = match self.peek() {
            b'"' => return self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => return self.number(),
            b'{' => b'}',
            b'[' => b']',
            _ => return self.literal(),
        };
        if depth >= MAX_DEPTH {
            return Err("the nesting is too deep");
        }
        self.next();
        if self.accept(close) {
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.string()?;
                self.expect(b':', "a key is followed by a colon")?;
            }
            self.skip(depth.saturating_add(1))?;
            if !self.accept(b',') {
                return self.expect(close, "a list does not end");
            }
        }
    }

    fn literal(&mut self) -> Result<(), Mistake> {
        let words: [&[u8]; 3] = [b"null", b"true", b"false"];
        let rest = words.iter().find_map(|word| self.rest.strip_prefix(*word));
        self.rest = rest.ok_or("a value is missing or unknown")?;
        Ok(())
    }

    /// Passes over a number (RFC 8259, section 6).
    fn number(&mut self) -> Result<(), Mistake> {
        if self.peek() == b'-' {
            self.next();
        }
        let has_zero = self.peek() == b'0';
        let whole = self.digits();
        let mut fine = whole == 1 || whole > 1 && !has_zero;
        if self.peek() == b'.' {
            self.next();
            fine &= self.digits() != 0;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.next();
            if matches!(self.peek(), b'+' | b'-') {
                self.next();
            }
            fine &= self.digits() != 0;
        }
        fine.then_some(()).ok_or("a number is malformed")
    }

    fn digits(&mut self) -> usize {
        let start = self.rest.len();
        while self.peek().is_ascii_digit() {
            self.next();
        }
        start.wrapping_sub(self.rest.len())
    }

    /// Passes over a string and returns what stands between its quotes, checked but not unescaped.
    fn string(&mut self) -> Result<Text<'a>, Mistake> {
        self.expect(b'"', "a string is expected")?;
        let (start, mut rest) = (self.rest, self.rest);
        let mut has_escapes = false;
        loop {
            let Some((byte, tail)) = rest.split_first() else {
                return Err("a string does not end");
            };
            match byte {
                // Most bytes are letters.
                b']'.. => rest = tail,
                b'"' => {
                    self.rest = tail;
                    break;
                }
                b'\\' => {
                    (self.rest, has_escapes) = (tail, true);
                    self.escape()?;
                    rest = self.rest;
                }
                ..b' ' => return Err("a string holds a control character"),
                _ => rest = tail,
            }
        }
        let raw = self.text(start, rest);
        Ok(Text { raw, has_escapes })
    }

    /// Passes over what follows a backslash.
    fn escape(&mut self) -> Result<(), Mistake> {
        let fine = match self.next() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => true,
            b'u' => (0..4).all(|_| self.next().is_ascii_hexdigit()),
            _ => false,
        };
        fine.then_some(()).ok_or("an escape is malformed")
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8, otherwise: Mistake) -> Result<(), Mistake> {
        self.accept(byte).then_some(()).ok_or(otherwise)
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.blanks();
        let found = self.peek() == byte;
        if found {
            self.next();
        }
        found
    }

    #[inline(always)]
    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.next();
        }
    }
}

/// What stands between a string's quotes, checked.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a str,
    has_escapes: bool,
}

impl<'a> Text<'a> {
    /// Returns the text, its escapes resolved in `room`; `None` if it is longer than that.
    #[inline(always)]
    fn read(self, room: &'a mut StringView) -> Result<Option<&'a str>, Mistake> {
        if self.has_escapes {
            return self.resolved(room);
        }
        Ok((self.raw.len() <= room.capacity()).then_some(self.raw))
    }

    #[inline(never)]
    fn resolved(self, room: &'a mut StringView) -> Result<Option<&'a str>, Mistake> {
        room.clear();
        let mut characters = self.raw.chars();
        while let Some(character) = characters.next() {
            let character = match character {
                '\\' => resolve(&mut characters)?,
                plain => plain,
            };
            if room.push(character).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(room))
    }
}

fn resolve(characters: &mut core::str::Chars<'_>) -> Result<char, Mistake> {
    Ok(match characters.next() {
        Some('b') => '\x08',
        Some('f') => '\x0c',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => {
            let digits = characters
                .by_ref()
                .take(4)
                .filter_map(|digit| digit.to_digit(16));
            let code = digits.fold(0, |code, digit| code << 4 | digit);
            char::from_u32(code)
                .ok_or("characters beyond U+FFFF are written as they are, not as surrogates")?
        }
        Some(itself) => itself,
        None => return Err("an escape is malformed"),
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{ErrorKind, Line, MAX_DEPTH, Mistake};
    use proptest::prelude::*;
    use std::{format, string::String};

    type Command = Result<String, ErrorKind>;

    fn parse(line: &[u8]) -> Result<(String, Command), Mistake> {
        let mut room = Line::new();
        let request = super::parse(line, &mut room)?;
        let command = request.command.map(Into::into).map_err(|(kind, _)| kind);
        Ok((request.id.as_json().into(), command))
    }

    fn read(line: &str) -> Option<(String, String)> {
        let (id, command) = parse(line.as_bytes()).ok()?;
        Some((id, command.ok()?))
    }

    #[test]
    fn requests_by_table() {
        let cases = [
            (
                r#"{"id": 7, "command": "vcpu set linux 8"}"#,
                "7",
                "vcpu set linux 8",
            ),
            (r#"{"command":"host"}"#, "null", "host"),
            (r#"{"command":"host","id":null}"#, "null", "host"),
            (
                " {\t\"id\" : \"a\\u0041\\\"\" , \"command\" : \"log\" } \r",
                r#""a\u0041\"""#,
                "log",
            ),
            (r#"{"id": -1.5e+10, "command": "log"}"#, "-1.5e+10", "log"),
            (
                r#"{"id": 1, "id": 2, "command": "a", "command": "b"}"#,
                "2",
                "b",
            ),
            (
                r#"{"x": [1, {"y": [true, false, null, {}], "z": []}, "s"], "command": "log"}"#,
                "null",
                "log",
            ),
            (
                r#"{"a key far longer than those that mean something": 1, "command": "log"}"#,
                "null",
                "log",
            ),
            (r#"{"\u0063ommand": "\u006c\/\\\"\t"}"#, "null", "l/\\\"\t"),
        ];
        for (line, id, command) in cases {
            assert_eq!(read(line), Some((id.into(), command.into())), "{line}");
        }
    }

    #[test]
    fn good_json_without_a_good_command_keeps_its_id() {
        let long = format!(r#"{{"id": 3, "command": "{}"}}"#, "x".repeat(257));
        let cases = [
            (r#"{"id": 3}"#, ErrorKind::BadJson),
            (&long, ErrorKind::TooLong),
        ];
        for (line, kind) in cases {
            let request = parse(line.as_bytes()).expect("good JSON");
            assert_eq!(request, ("3".into(), Err(kind)), "{line}");
        }
        assert_eq!(parse(b"{}").expect("good JSON").0, "null");
    }

    #[test]
    fn mistakes_by_table() {
        let lines: [&[u8]; 35] = [
            b"",
            b" ",
            b"7",
            b"null",
            b"[]",
            b"\"x\"",
            b"vm list",
            b"{",
            b"}",
            b"{,}",
            b"{\"command\"}",
            b"{\"command\":}",
            b"{\"command\":7}",
            b"{\"command\":\"x\"",
            b"{\"command\":\"x}",
            b"{\"command\":\"x\",}",
            b"{\"command\":\"x\"}}",
            b"{\"command\":\"x\"} x",
            b"{\"command\":\"x\"}\0",
            b"{\"command\":\"x\0\"}",
            b"{\"command\":\"x\\",
            b"{\"command\":\"\\u123",
            b"{command:\"x\"}",
            b"{\"command\":\"\\x\"}",
            b"{\"command\":\"\\u12g4\"}",
            b"{\"command\":\"\\ud800\"}",
            b"{\"command\":\"a\x01b\"}",
            b"{\"command\":\"\xff\"}",
            b"{\"id\":{},\"command\":\"x\"}",
            b"{\"id\":true,\"command\":\"x\"}",
            b"{\"id\":01,\"command\":\"x\"}",
            b"{\"id\":1.,\"command\":\"x\"}",
            b"{\"id\":-,\"command\":\"x\"}",
            b"{\"id\":1e,\"command\":\"x\"}",
            b"{\"id\":nul,\"command\":\"x\"}",
        ];
        for line in lines {
            assert!(parse(line).is_err(), "{}", line.escape_ascii());
        }
        let id = "9".repeat(65);
        assert!(parse(format!(r#"{{"id": {id}, "command": "x"}}"#).as_bytes()).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            format!(
                r#"{{"x": {}{}, "command": "log"}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert!(parse(nested(MAX_DEPTH as usize).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH as usize + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    proptest! {
        /// Any bytes are read or refused.
        #[test]
        fn any_bytes_are_answered(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        /// Text made of JSON's own pieces is taken only if it is JSON, and then with the id and command that it holds.
        #[test]
        fn what_is_taken_is_json(pieces in proptest::collection::vec(
            proptest::sample::select(&[
                "{", "}", "[", "]", ":", ",", "\"id\"", "\"command\"", "\"x\"", "7", "-0.5e3", "null", "true", " ", "\"\\u00e4\"",
            ]),
            0..14,
        )) {
            let line: String = pieces.into_iter().collect();
            check_against_serde(&line)?;
        }

        /// Requests written by another JSON library are understood.
        #[test]
        fn what_others_write_is_understood(id in any::<i64>(), command in "[ -~äß\t\n]{0,60}", extra in ".{0,40}") {
            let line = serde_json::json!({"id": id, "command": command, "extra": {"deep": [extra]}});
            let line = serde_json::to_string(&line).expect("a value is JSON");
            let (read_id, read) = parse(line.as_bytes()).expect("good JSON");
            prop_assert_eq!(read_id, format!("{}", id));
            prop_assert_eq!(read, Ok(command));
        }
    }

    fn check_against_serde(line: &str) -> Result<(), TestCaseError> {
        let Ok((id, command)) = parse(line.as_bytes()) else {
            return Ok(());
        };
        let value: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| TestCaseError::fail(format!("{error}: {line}")))?;
        let id: serde_json::Value = serde_json::from_str(&id).expect("an id is JSON");
        prop_assert_eq!(&id, &value["id"]);
        if let Ok(command) = command {
            prop_assert_eq!(value["command"].as_str(), Some(command.as_str()));
        }
        Ok(())
    }
}
