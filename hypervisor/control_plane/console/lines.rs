//! Lines of the control channel: bytes in, whole lines out, and never more memory than one line takes.

/// The longest line on the control channel, in bytes without its end.
pub const JSON_LINE_BYTES: usize = 1024;

/// What a byte completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched<'a> {
    /// No line yet.
    Nothing,
    /// A line that is not empty, without its end.
    Line(&'a [u8]),
    /// The end of a line that was too long; the next byte begins a new one.
    TooLong,
}

/// Collects the bytes of one line.
#[derive(Debug)]
pub(super) struct LineReader {
    bytes: [u8; JSON_LINE_BYTES],
    length: usize,
    overflown: bool,
    complete: bool,
}

impl LineReader {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; JSON_LINE_BYTES],
            length: 0,
            overflown: false,
            complete: false,
        }
    }

    /// Takes bytes of one line, whose end is the last of them if it is there; a carriage return or a line feed ends one, and
    /// an empty line is none.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fetched<'_> {
        if core::mem::take(&mut self.complete) {
            self.length = 0;
        }
        self.complete = matches!(bytes, [.., b'\r' | b'\n']);
        let length = bytes.len().saturating_sub(usize::from(self.complete));
        let text = bytes.get(..length).unwrap_or(bytes);
        let end = self.length.saturating_add(text.len());
        match self.bytes.get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(text);
                self.length = end;
            }
            None => self.overflown = true,
        }
        if !self.complete {
            return Fetched::Nothing;
        }
        match self.bytes.get(..self.length) {
            _ if core::mem::take(&mut self.overflown) => Fetched::TooLong,
            Some(line) if !line.is_empty() => Fetched::Line(line),
            _ => Fetched::Nothing,
        }
    }

    /// Drops the line that was begun.
    pub(super) fn forget(&mut self) {
        (self.length, self.overflown, self.complete) = (0, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fetched, JSON_LINE_BYTES, LineReader};
    use alloc::vec::Vec;

    fn lines(bytes: impl IntoIterator<Item = u8>) -> Vec<Option<Vec<u8>>> {
        let mut reader = LineReader::new();
        let fetched = bytes
            .into_iter()
            .filter_map(|byte| match reader.feed(&[byte]) {
                Fetched::Line(line) => Some(Some(line.to_vec())),
                Fetched::TooLong => Some(None),
                Fetched::Nothing => None,
            });
        fetched.collect()
    }

    #[test]
    fn a_line_comes_in_pieces() {
        let mut reader = LineReader::new();
        assert_eq!(reader.feed(b"ab"), Fetched::Nothing);
        assert_eq!(reader.feed(b"c\n"), Fetched::Line(b"abc"));
        assert_eq!(reader.feed(b"de\r"), Fetched::Line(b"de"));
        assert_eq!(reader.feed(b"\n"), Fetched::Nothing);
        assert_eq!(reader.feed(b""), Fetched::Nothing);
        let long = [b'x'; JSON_LINE_BYTES];
        assert_eq!(reader.feed(&long), Fetched::Nothing);
        assert_eq!(reader.feed(b"x"), Fetched::Nothing);
        assert_eq!(reader.feed(b"y\n"), Fetched::TooLong);
        assert_eq!(reader.feed(b"ok\n"), Fetched::Line(b"ok"));
    }

    #[test]
    fn lines_end_in_any_way_and_empty_ones_do_not_count() {
        let expected: Vec<Option<Vec<u8>>> = [b"a", b"b", b"c"]
            .iter()
            .map(|line| Some(line.to_vec()))
            .collect();
        assert_eq!(lines(*b"\n\r\na\nb\r\n\n\nc\r"), expected);
    }

    #[test]
    fn a_line_too_long_is_told_once_and_the_next_is_read() {
        let line = |length| core::iter::repeat_n(b'x', length).chain(*b"\nok\n");
        assert_eq!(lines(line(1_000_000)), [None, Some(b"ok".to_vec())]);
        assert_eq!(
            lines(line(JSON_LINE_BYTES + 1)),
            [None, Some(b"ok".to_vec())]
        );
        assert_eq!(
            lines(line(JSON_LINE_BYTES)).first(),
            Some(&Some([b'x'; JSON_LINE_BYTES].to_vec()))
        );
    }

    #[test]
    fn any_byte_but_a_line_end_is_kept() {
        let all: Vec<u8> = (0..=255)
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        assert_eq!(lines(all.iter().copied().chain([b'\n'])), [Some(all)]);
    }
}
