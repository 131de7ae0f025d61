//! Questions to the host: a guest prints `ASK …`, the harness does it and types `REPLY …` on the guest's console.
//!
//! Lets a guest drive the operator's side (`ASK vcpu set NAME 4`) or learn what no reset of its own can change
//! (`ASK boot-number`). Only used when the command line says `asked`, since nobody answers on a bare machine.

use crate::{machine, timer, uart};

/// Longest reply kept, in bytes.
const REPLY_MAX: usize = 200;

/// A line that the harness typed, without its `REPLY ` prefix.
pub struct Reply {
    bytes: [u8; REPLY_MAX],
    length: usize,
}

impl Reply {
    /// Returns the text of the reply.
    #[must_use]
    pub fn text(&self) -> &str {
        core::str::from_utf8(self.bytes.get(..self.length).unwrap_or(&[])).unwrap_or("")
    }
}

/// Tells whether a harness is there to answer.
#[must_use]
pub fn available() -> bool {
    machine().word("asked")
}

/// Asks the harness to do something and waits for its answer, up to a minute.
///
/// Returns `None` when nobody answers.
#[must_use]
pub fn ask(question: core::fmt::Arguments<'_>) -> Option<Reply> {
    println!("ASK {question}");
    await_reply(60 * timer::frequency())
}

/// Waits for the harness's next `REPLY` line.
#[must_use]
pub fn await_reply(ticks: u64) -> Option<Reply> {
    const PREFIX: &[u8] = b"REPLY ";
    let deadline = timer::now() + ticks;
    let mut reply = Reply {
        bytes: [0; REPLY_MAX],
        length: 0,
    };
    let mut matched = 0;
    while timer::now() < deadline {
        let Some(byte) = uart::get() else {
            core::hint::spin_loop();
            continue;
        };
        if matched < PREFIX.len() {
            matched = if PREFIX.get(matched) == Some(&byte) {
                matched + 1
            } else {
                usize::from(byte == b'R')
            };
        } else if byte == b'\r' || byte == b'\n' {
            return Some(reply);
        } else if let Some(slot) = reply.bytes.get_mut(reply.length) {
            *slot = byte;
            reply.length += 1;
        }
    }
    None
}
