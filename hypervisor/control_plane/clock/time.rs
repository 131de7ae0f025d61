//! Seconds since 1970 to EFI_TIME and back (UEFI 2.10, 8.3.1).
//!
//! An EFI_TIME is 16 bytes: two registers of a hypercall. The first holds, from bit 0, the year (16 bits), month, day, hour,
//! minute, second (8 bits each) and padding; the second nanoseconds (32 bits), time zone (16, signed minutes), daylight (8)
//! and padding.

const SECONDS_A_MINUTE: i64 = 60;
const SECONDS_AN_HOUR: i64 = 3600;
const SECONDS_A_DAY: i64 = 86400;

/// Days in 400 years of the Gregorian calendar, after which it repeats.
const DAYS_AN_ERA: i64 = 146_097;
const YEARS_AN_ERA: i64 = 400;
/// Days in 4 and in 100 years of it, leap days included or left out as they fall.
const DAYS_IN_4_YEARS: i64 = 1461;
const DAYS_IN_100_YEARS: i64 = 36_524;
const DAYS_A_YEAR: i64 = 365;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: i64 = 719_468;

/// Years that can be told as seconds since 1970 and as an EFI_TIME.
const FIRST_YEAR: i64 = 1970;
const LAST_YEAR: i64 = 9999;
/// The first second that no EFI_TIME can name: the start of the year 10000.
const END: u64 = 253_402_300_800;

/// EFI_UNSPECIFIED_TIMEZONE: local time, which for us is UTC.
const NO_ZONE: i64 = 0x7ff;
/// The farthest a time zone can be from UTC, in minutes.
const FARTHEST_ZONE: i64 = 1440;

/// Returns the EFI_TIME of `unix_s` seconds since 1970-01-01 00:00 UTC; for what is beyond the year 9999, its last second.
#[must_use]
pub fn to_words(unix_s: u64) -> [u64; 2] {
    // Below 2^38, so that nothing here can overflow.
    let seconds = unix_s.min(END - 1) as i64;
    let (days, time) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, month, day) = date(days);
    let hour = time / SECONDS_AN_HOUR;
    let minute = time % SECONDS_AN_HOUR / SECONDS_A_MINUTE;
    let second = time % SECONDS_A_MINUTE;
    let fields = [
        (month, 16),
        (day, 24),
        (hour, 32),
        (minute, 40),
        (second, 48),
    ];
    let first = fields.iter().fold(year as u64, |word, (field, shift)| {
        word | ((*field as u64) << shift)
    });
    [first, (NO_ZONE as u64) << 32]
}

/// Returns the seconds since 1970-01-01 00:00 UTC of an EFI_TIME, or `None` if it is not a date of the years 1970 to 9999.
#[must_use]
pub fn from_words(words: [u64; 2]) -> Option<u64> {
    let [first, second_word] = words;
    let byte = |shift: u32| ((first >> shift) & 0xff) as i64;
    let year = (first & 0xffff) as i64;
    let (month, day) = (byte(16), byte(24));
    let (hour, minute, second) = (byte(32), byte(40), byte(48));
    let zone = i64::from((second_word >> 32) as u16 as i16);
    let date_is_valid = (FIRST_YEAR..=LAST_YEAR).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day);
    let time_is_valid = hour < 24 && minute < 60 && second < 60;
    let zone_is_valid = zone == NO_ZONE || (-FARTHEST_ZONE..=FARTHEST_ZONE).contains(&zone);
    if !(date_is_valid && time_is_valid && zone_is_valid) {
        return None;
    }
    // The fields are small now: nothing here can overflow. EFI_TIME is UTC minus the time zone.
    let zone_minutes = if zone == NO_ZONE { 0 } else { zone };
    let time = hour * SECONDS_AN_HOUR + (minute + zone_minutes) * SECONDS_A_MINUTE + second;
    u64::try_from(days(year, month, day) * SECONDS_A_DAY + time).ok()
}

/// Returns year, month and day of a day counted from 1970-01-01, which must not be before year 0.
///
/// Years are taken to begin in March, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, day) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let leap_days = day / (DAYS_IN_4_YEARS - 1) - day / DAYS_IN_100_YEARS + day / (DAYS_AN_ERA - 1);
    let year = (day - leap_days) / DAYS_A_YEAR;
    let day = day - (DAYS_A_YEAR * year + year / 4 - year / 100);
    // From March on, every five months have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * YEARS_AN_ERA;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// Returns the day of a date, counted from 1970-01-01: the inverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year) = (year / YEARS_AN_ERA, year % YEARS_AN_ERA);
    let day = (153 * month + 2) / 5 + day - 1;
    era * DAYS_AN_ERA + DAYS_A_YEAR * year + year / 4 - year / 100 + day - EPOCH
}

/// Returns how many days a month has.
fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % YEARS_AN_ERA == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::{END, from_words, to_words};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// Packs a date the way a guest stores it.
    fn words(date: [u64; 6], zone: i16) -> [u64; 2] {
        let [year, month, day, hour, minute, second] = date;
        let first =
            year | (month << 16) | (day << 24) | (hour << 32) | (minute << 40) | (second << 48);
        [first, u64::from(zone as u16) << 32]
    }

    const UTC: i16 = 0x7ff;

    #[test]
    fn known_seconds() {
        let known = [
            (0, [1970, 1, 1, 0, 0, 0]),
            (951_782_399, [2000, 2, 28, 23, 59, 59]),
            (951_782_400, [2000, 2, 29, 0, 0, 0]),
            (1_000_000_000, [2001, 9, 9, 1, 46, 40]),
            (1_795_385_267, [2026, 11, 22, 22, 7, 47]),
            (4_107_542_400, [2100, 3, 1, 0, 0, 0]),
            (END - 1, [9999, 12, 31, 23, 59, 59]),
        ];
        for (seconds, date) in known {
            assert_eq!(to_words(seconds), words(date, UTC), "{seconds}");
            assert_eq!(from_words(words(date, UTC)), Some(seconds), "{date:?}");
        }
        assert_eq!(to_words(u64::MAX), to_words(END - 1));
    }

    #[test]
    fn zones_are_minutes_that_utc_is_ahead() {
        let noon = [2026, 6, 1, 12, 0, 0];
        let utc = from_words(words(noon, 0)).unwrap();
        assert_eq!(from_words(words(noon, UTC)), Some(utc));
        assert_eq!(from_words(words(noon, -60)), Some(utc - 3600));
        assert_eq!(from_words(words(noon, 1440)), Some(utc + 86400));
        assert_eq!(from_words(words(noon, 1441)), None);
        assert_eq!(from_words(words([1970, 1, 1, 0, 0, 0], -1)), None);
    }

    #[test]
    fn no_dates() {
        let bad = [
            [1969, 12, 31, 23, 59, 59],
            [10_000, 1, 1, 0, 0, 0],
            [2026, 0, 1, 0, 0, 0],
            [2026, 13, 1, 0, 0, 0],
            [2026, 1, 0, 0, 0, 0],
            [2026, 1, 32, 0, 0, 0],
            [2026, 4, 31, 0, 0, 0],
            [2026, 2, 29, 0, 0, 0],
            [2100, 2, 29, 0, 0, 0],
            [2026, 1, 1, 24, 0, 0],
            [2026, 1, 1, 0, 60, 0],
            [2026, 1, 1, 0, 0, 60],
        ];
        for date in bad {
            assert_eq!(from_words(words(date, UTC)), None, "{date:?}");
        }
        assert!(from_words(words([2024, 2, 29, 0, 0, 0], UTC)).is_some());
        assert!(from_words(words([2400, 2, 29, 0, 0, 0], UTC)).is_some());
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in 0..END) {
            prop_assert_eq!(from_words(to_words(seconds)), Some(seconds));
        }

        #[test]
        fn later_seconds_are_later_dates(seconds in 0..END - 1) {
            // With the year on top, field by field, dates compare like times.
            let key = |seconds| {
                let [word, _] = to_words(seconds);
                let byte = |shift: u32| (word >> shift) & 0xff;
                (word & 0xffff, byte(16), byte(24), byte(32), byte(40), byte(48))
            };
            prop_assert!(key(seconds) < key(seconds + 1));
        }

        #[test]
        fn no_words_panic(first in any::<u64>(), second in any::<u64>()) {
            if let Some(seconds) = from_words([first, second]) {
                prop_assert!(seconds < END + 86400);
            }
        }
    }
}
