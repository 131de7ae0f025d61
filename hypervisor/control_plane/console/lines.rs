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
    bytes: heapless::Vec<u8, JSON_LINE_BYTES>,
    overflown: bool,
    complete: bool,
}

impl LineReader {
    pub(super) const fn new() -> Self {
        Self {
            bytes: heapless::Vec::new(),
            overflown: false,
            complete: false,
        }
    }

    /// Takes bytes up to the end of a line and returns how many; a carriage return or a line feed ends one, and an empty
    /// line is none.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Fetched<'_>) {
        if core::mem::take(&mut self.complete) {
            self.bytes.clear();
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let text = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        self.overflown |= self.bytes.extend_from_slice(text).is_err();
        self.complete = end.is_some();
        let fetched = match end {
            Some(_) if core::mem::take(&mut self.overflown) => Fetched::TooLong,
            Some(_) if !self.bytes.is_empty() => Fetched::Line(&self.bytes),
            _ => Fetched::Nothing,
        };
        let taken = text.len().saturating_add(usize::from(end.is_some()));
        (taken, fetched)
    }

    /// Drops the line that was begun.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
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
                (1, Fetched::Line(line)) => Some(Some(line.to_vec())),
                (1, Fetched::TooLong) => Some(None),
                (taken, _) => {
                    assert_eq!(taken, 1);
                    None
                }
            });
        fetched.collect()
    }

    #[test]
    fn a_piece_is_taken_up_to_its_lines_end() {
        let mut reader = LineReader::new();
        assert_eq!(reader.feed(b"ab"), (2, Fetched::Nothing));
        assert_eq!(reader.feed(b"c\nde\r\n"), (2, Fetched::Line(b"abc")));
        assert_eq!(reader.feed(b"de\r\n"), (3, Fetched::Line(b"de")));
        assert_eq!(reader.feed(b"\n"), (1, Fetched::Nothing));
        assert_eq!(reader.feed(b""), (0, Fetched::Nothing));
        let long = [b'x'; JSON_LINE_BYTES];
        assert_eq!(reader.feed(&long), (JSON_LINE_BYTES, Fetched::Nothing));
        assert_eq!(reader.feed(b"x"), (1, Fetched::Nothing));
        assert_eq!(reader.feed(b"\nok\n"), (1, Fetched::TooLong));
        assert_eq!(reader.feed(b"ok\n"), (3, Fetched::Line(b"ok")));
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
