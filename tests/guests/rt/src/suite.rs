//! A list of tests, run in order, reported in lines the harness reads.
//!
//! `TEST name ... ok`, `TEST name ... FAILED: why`, `TEST name ... ignored: why`, at the end
//! `DONE n passed, n failed, n ignored`. `only=a,b` on the command line picks tests by name.

use crate::machine;
use core::fmt::{self, Write};

/// Longest reason kept, in bytes.
const REASON_MAX: usize = 118;

/// Why a test stopped early.
pub enum Stop {
    /// What it found is wrong.
    Failed(Reason),
    /// The machine lacks what it needs.
    Ignored(Reason),
}

/// What a test returns.
pub type Outcome = Result<(), Stop>;

/// A name and a function.
pub type Test = (&'static str, fn() -> Outcome);

/// Text of a bounded length.
pub struct Reason {
    bytes: [u8; REASON_MAX],
    length: u8,
}

impl Reason {
    /// Formats a reason; what does not fit is cut off.
    #[must_use]
    pub fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut reason = Self {
            bytes: [0; REASON_MAX],
            length: 0,
        };
        // A reason that is too long ends early, which is all an error can mean here.
        let _ = reason.write_fmt(arguments);
        reason
    }

    fn text(&self) -> &str {
        core::str::from_utf8(self.bytes.get(..usize::from(self.length)).unwrap_or(&[]))
            .unwrap_or("?")
    }
}

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let start = usize::from(self.length);
            let end = start + character.len_utf8();
            let Some(room) = self.bytes.get_mut(start..end) else {
                return Err(fmt::Error);
            };
            character.encode_utf8(room);
            self.length = end as u8;
        }
        Ok(())
    }
}

/// Fails the test unless a condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::suite::Stop::Failed($crate::suite::Reason::new(format_args!($($why)+))));
        }
    };
}

/// Fails the test unless two values are equal, and prints both.
#[macro_export]
macro_rules! check_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {{
        let (found, expected) = ($found, $expected);
        $crate::check!(found == expected, "{}: {found:#x?}, expected {expected:#x?}", format_args!($($what)+));
    }};
}

/// Leaves the test as ignored, with a reason.
#[macro_export]
macro_rules! ignore {
    ($($why:tt)+) => {
        return Err($crate::suite::Stop::Ignored($crate::suite::Reason::new(format_args!($($why)+))))
    };
}

/// Lists tests: `tests![a, b]` makes a slice of their names and functions.
#[macro_export]
macro_rules! tests {
    ($($name:path),+ $(,)?) => {
        &[$((stringify!($name), $name as fn() -> $crate::suite::Outcome)),+]
    };
}

/// Runs tests and prints the report.
pub fn run(suite: &str, tests: &[Test]) {
    println!("SUITE {suite} cpus={}", machine().cpus().len());
    let only = machine().value("only");
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (path, test) in tests {
        let name = path.rsplit("::").next().unwrap_or(path).trim();
        if only.is_some_and(|list| !list.split(',').any(|wanted| wanted == name)) {
            continue;
        }
        print!("TEST {name} ... ");
        let outcome = test();
        crate::exception::mask();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok");
            }
            Err(Stop::Failed(why)) => {
                failed += 1;
                println!("FAILED: {}", why.text());
            }
            Err(Stop::Ignored(why)) => {
                ignored += 1;
                println!("ignored: {}", why.text());
            }
        }
    }
    println!("DONE {passed} passed, {failed} failed, {ignored} ignored");
}
