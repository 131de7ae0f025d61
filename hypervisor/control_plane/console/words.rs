//! A line as words.

/// What is left of a line.
#[derive(Clone)]
pub(super) struct Words<'a>(pub(super) &'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (mut start, mut end) = (0_usize, 0_usize);
        for &byte in self.0.as_bytes() {
            if byte <= b' ' && byte.is_ascii_whitespace() {
                if start != end {
                    break;
                }
                start = start.wrapping_add(1);
            }
            end = end.wrapping_add(1);
        }
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        text.get(start..).filter(|word| !word.is_empty())
    }
}
