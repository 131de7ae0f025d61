//! Questions to the host: a guest prints `ASK n …`, the harness does it and types `REPLY n …` on the guest's console.
//!
//! Lets a guest drive the operator's side (`ASK vcpu set NAME 4`) or learn what no reset of its own can change
//! (`ASK boot-number`). Only used when the command line says `asked`, since nothing answers on a bare machine.

use crate::{machine, timer, uart};
use core::sync::atomic::{AtomicU32, Ordering};

/// Longest reply kept, in bytes.
const REPLY_MAX: usize = 200;

/// A line that the harness typed; without its prefix, when it is given out.
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

/// A question that was asked; its reply carries the same number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u32);

/// Asks the harness to do something, without waiting.
pub fn send(question: core::fmt::Arguments<'_>) -> Ticket {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    println!("ASK {number} {question}");
    Ticket(number)
}

/// Asks the harness to do something and waits for its answer, up to a minute.
///
/// Returns `None` when no answer comes.
#[must_use]
pub fn ask(question: core::fmt::Arguments<'_>) -> Option<Reply> {
    let ticket = send(question);
    await_reply(ticket, 60 * timer::frequency())
}

/// Waits for the reply to a question; replies to earlier ones, which came too late, are dropped.
#[must_use]
pub fn await_reply(ticket: Ticket, ticks: u64) -> Option<Reply> {
    let deadline = timer::now() + ticks;
    loop {
        let mut line = next_line(deadline)?;
        let Some(rest) = line.text().strip_prefix("REPLY ") else {
            continue;
        };
        let (number, answer) = rest.split_once(' ').unwrap_or((rest, ""));
        if number.parse() == Ok(ticket.0) {
            let length = answer.len();
            let start = line.length - length;
            line.bytes.copy_within(start..line.length, 0);
            line.length = length;
            return Some(line);
        }
    }
}

/// Waits for the start of a line until a deadline, and then for its end.
fn next_line(deadline: u64) -> Option<Reply> {
    let mut line = Reply {
        bytes: [0; REPLY_MAX],
        length: 0,
    };
    let mut patience = deadline;
    while timer::now() < patience {
        match uart::get() {
            None => core::hint::spin_loop(),
            Some(b'\r' | b'\n') if line.length == 0 => {}
            Some(b'\r' | b'\n') => return Some(line),
            Some(byte) => {
                // A line that has begun is read to its end.
                patience = timer::now() + timer::frequency();
                if let Some(slot) = line.bytes.get_mut(line.length) {
                    *slot = byte;
                    line.length += 1;
                }
            }
        }
    }
    None
}
