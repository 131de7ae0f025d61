//! JSON lines in: one request each, read without allocation.
//!
//! A request is an object. `command` is a string, `id` a number, a string or null, returned as it was written; other keys
//! are skipped, whatever their values. Nothing else of JSON is needed, so this is all of it: a parser that
//! reads forwards only, with nesting bounded.
//!
//! Neighbours: `json` (the way back), `command` (what the command string means).

use super::{editor::LINE_BYTES, error::ErrorKind};

/// The longest id that is returned, in bytes as it is written, quotes included.
const ID_BYTES: usize = 64;
/// Room for the keys that have a meaning; longer ones are skipped.
const KEY_BYTES: usize = 16;
/// The deepest nesting in a value that is skipped.
const MAX_DEPTH: u32 = 16;

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
pub(super) struct JsonRequest {
    pub(super) id: RequestId,
    /// The command, or what is wrong with it although the line is good JSON.
    pub(super) command: Result<heapless::String<LINE_BYTES>, (ErrorKind, Mistake)>,
}

/// What is wrong with a line: a phrase for the operator.
pub(super) type Mistake = &'static str;

/// Reads a request; a line that is not a JSON object of the right kind is a mistake.
pub(super) fn parse(line: &[u8]) -> Result<JsonRequest, Mistake> {
    let text = core::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let mut cursor = Cursor { rest: text };
    let request = cursor.request()?;
    cursor.blanks();
    let over = cursor.rest.is_empty().then_some(request);
    over.ok_or("something follows the object")
}

/// What is left of the line.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn request(&mut self) -> Result<JsonRequest, Mistake> {
        let mut request = JsonRequest {
            id: RequestId::default(),
            command: Err((ErrorKind::BadJson, "there is no \"command\"")),
        };
        self.expect('{', "a request is a JSON object")?;
        if self.accept('}') {
            return Ok(request);
        }
        loop {
            let key = unescape::<KEY_BYTES>(self.string()?)?;
            self.expect(':', "a key is followed by a colon")?;
            match key.as_deref() {
                Some("id") => request.id = self.id()?,
                Some("command") => {
                    let command = unescape(self.string()?)?;
                    request.command =
                        command.ok_or((ErrorKind::TooLong, "the command is too long"));
                }
                _ => self.skip(0)?,
            }
            if !self.accept(',') {
                self.expect('}', "the object does not end")?;
                return Ok(request);
            }
        }
    }

    fn id(&mut self) -> Result<RequestId, Mistake> {
        self.blanks();
        let start = self.rest;
        match start.bytes().next() {
            Some(b'"' | b'-' | b'0'..=b'9' | b'n') => self.skip(MAX_DEPTH)?,
            _ => return Err("an id is a number, a string or null"),
        }
        let length = start.len().saturating_sub(self.rest.len());
        let id = heapless::String::try_from(start.get(..length).unwrap_or_default());
        id.map(RequestId).map_err(|_| "the id is too long")
    }

    /// Passes over a value of any kind.
    fn skip(&mut self, depth: u32) -> Result<(), Mistake> {
        self.blanks();
        match self.rest.bytes().next() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err("the nesting is too deep"),
            Some(b'{') => self.skip_list('{', '}', |cursor| {
                cursor.string()?;
                cursor.expect(':', "a key is followed by a colon")?;
                cursor.skip(depth.saturating_add(1))
            }),
            Some(b'[') => self.skip_list('[', ']', |cursor| cursor.skip(depth.saturating_add(1))),
            _ => self.literal(),
        }
    }

    fn skip_list(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), Mistake>,
    ) -> Result<(), Mistake> {
        self.expect(open, "a list begins with its bracket")?;
        if self.accept(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.accept(',') {
                return self.expect(close, "a list does not end");
            }
        }
    }

    fn literal(&mut self) -> Result<(), Mistake> {
        let mut words = ["null", "true", "false"].iter();
        let left = words.find_map(|word| self.rest.strip_prefix(word));
        self.rest = left.ok_or("a value is missing or unknown")?;
        Ok(())
    }

    /// Passes over a number (RFC 8259, section 6).
    fn number(&mut self) -> Result<(), Mistake> {
        const WRONG: Mistake = "a number is malformed";
        self.rest = self.rest.strip_prefix('-').unwrap_or(self.rest);
        let zero = self.rest.starts_with('0');
        let digits = self.digits();
        if digits == 0 || zero && digits > 1 {
            return Err(WRONG);
        }
        if let Some(fraction) = self.rest.strip_prefix('.') {
            self.rest = fraction;
            if self.digits() == 0 {
                return Err(WRONG);
            }
        }
        if let Some(exponent) = self.rest.strip_prefix(['e', 'E']) {
            self.rest = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if self.digits() == 0 {
                return Err(WRONG);
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let left = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = self.rest.len().saturating_sub(left.len());
        self.rest = left;
        count
    }

    /// Passes over a string and returns what stands between its quotes, checked but not unescaped.
    fn string(&mut self) -> Result<&'a str, Mistake> {
        self.expect('"', "a string is expected")?;
        let start = self.rest;
        let mut end = 0_usize;
        loop {
            let rest = start.as_bytes().get(end..).unwrap_or_default();
            let step = match rest {
                [b'"', ..] => break,
                [
                    b'\\',
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                    ..,
                ] => 2,
                [b'\\', b'u', digits @ ..] if are_hex(digits) => 6,
                [b'\\', ..] => return Err("an escape is malformed"),
                [b'\0'..=0x1f, ..] => return Err("a string holds a control character"),
                [_, ..] => 1,
                [] => return Err("a string does not end"),
            };
            end = end.saturating_add(step);
        }
        let (text, rest) = start.split_at_checked(end).unwrap_or((start, ""));
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    fn expect(&mut self, character: char, otherwise: Mistake) -> Result<(), Mistake> {
        self.accept(character).then_some(()).ok_or(otherwise)
    }

    fn accept(&mut self, character: char) -> bool {
        self.blanks();
        let found = self.rest.as_bytes().first() == Some(&(character as u8));
        self.rest = self.rest.get(usize::from(found)..).unwrap_or_default();
        found
    }

    fn blanks(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let count = self.rest.bytes().take_while(blank).count();
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

/// Returns whether four hexadecimal digits come first.
fn are_hex(bytes: &[u8]) -> bool {
    let digits = bytes.first_chunk::<4>();
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Resolves the escapes of a checked string; `None` if the result has more than `N` bytes.
fn unescape<const N: usize>(raw: &str) -> Result<Option<heapless::String<N>>, Mistake> {
    if !raw.contains('\\') {
        return Ok(heapless::String::try_from(raw).ok());
    }
    let mut text = heapless::String::new();
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => resolve(&mut characters)?,
            plain => plain,
        };
        if text.push(character).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(text))
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

    use super::{ErrorKind, JsonRequest, MAX_DEPTH, parse};
    use proptest::prelude::*;
    use std::{format, string::String};

    fn read(line: &str) -> Option<(String, String)> {
        let JsonRequest { id, command } = parse(line.as_bytes()).ok()?;
        Some((id.as_json().into(), command.ok()?.as_str().into()))
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
            assert_eq!(request.id.as_json(), "3");
            assert_eq!(
                request.command.map_err(|(kind, _)| kind),
                Err(kind),
                "{line}"
            );
        }
        assert_eq!(parse(b"{}").expect("good JSON").id.as_json(), "null");
    }

    #[test]
    fn mistakes_by_table() {
        let lines: [&[u8]; 31] = [
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
            let request = parse(line.as_bytes()).expect("good JSON");
            prop_assert_eq!(request.id.as_json(), format!("{}", id));
            let read = request.command.expect("a command");
            prop_assert_eq!(read.as_str(), command.as_str());
        }
    }

    fn check_against_serde(line: &str) -> Result<(), TestCaseError> {
        let Ok(request) = parse(line.as_bytes()) else {
            return Ok(());
        };
        let value: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| TestCaseError::fail(format!("{error}: {line}")))?;
        let id: serde_json::Value =
            serde_json::from_str(request.id.as_json()).expect("an id is JSON");
        prop_assert_eq!(&id, &value["id"]);
        if let Ok(command) = request.command {
            prop_assert_eq!(value["command"].as_str(), Some(command.as_str()));
        }
        Ok(())
    }
}
