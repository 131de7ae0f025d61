//! Seconds since 1970 as people write them: ISO 8601 in UTC, `2026-11-29T16:12:06Z`, and back.

use super::time;
use core::fmt;

/// What each byte of such a time is: 0 for a digit.
const FORM: &[u8] = b"0000-00-00T00:00:00";
/// Fields of a time: year, month, day, hour, minute, second.
const FIELDS: usize = 6;
/// Where EFI_TIME has the fields after the year: the first bit of each (UEFI 2.10, 8.3.1).
const SHIFTS: [u32; FIELDS] = [0, 16, 24, 32, 40, 48];

/// Seconds since 1970-01-01 00:00 UTC, shown as a date and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [word, _] = time::to_words(self.0);
        write!(f, "{:04}", word & 0xffff)?;
        for (separator, shift) in ["-", "-", "T", ":", ":"].iter().zip(&SHIFTS[1..]) {
            write!(f, "{separator}{:02}", word >> shift & 0xff)?;
        }
        f.write_str("Z")
    }
}

/// Reads a time as [`Utc`] shows it, with or without its Z, or seconds since 1970; `None` for what is neither.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let form = text.strip_suffix('Z').unwrap_or(text);
    let mut fields = [0_u64; FIELDS];
    let mut field = 0;
    let has_form = form.len() == FORM.len()
        && form.bytes().zip(FORM).all(|(byte, &expected)| {
            if expected != b'0' {
                field += 1;
                return byte == expected;
            }
            fields[field] = fields[field] * 10 + u64::from(byte.wrapping_sub(b'0'));
            byte.is_ascii_digit()
        });
    if !has_form {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        return text.parse().ok().filter(|_| is_number);
    }
    let word = fields.iter().zip(SHIFTS);
    let word = word.fold(0, |word, (field, shift)| word | field << shift);
    // Zone 0: UTC.
    time::from_words([word, 0])
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{Utc, parse};
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::string::ToString;

    #[test]
    fn times_by_table() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-29T16:12:06Z", Some(1_795_968_726)),
            ("2026-11-29T16:12:06", Some(1_795_968_726)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("1795968726", Some(1_795_968_726)),
            ("0", Some(0)),
            ("", None),
            ("Z", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("18446744073709551616", None),
            ("1969-12-31T23:59:59Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-29T24:00:00Z", None),
            ("2026-11-29 16:12:06Z", None),
            ("2026-11-29T16:12Z", None),
            ("2026-11-29T16:12:06+1", None),
            ("2026-11-2aT16:12:06Z", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse(text), seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in 0..253_402_300_800_u64) {
            prop_assert_eq!(parse(&Utc(seconds).to_string()), Some(seconds));
        }

        #[test]
        fn no_text_panics(text in any::<std::string::String>()) {
            let _ = parse(&text);
        }
    }
}
