//! Whether a vCPU only waits: its next instructions are followed on a copy of its registers, until they come round.
//!
//! A CPU with more vCPUs than it can run loses its time to those that wait for one of the others: for a lock, for an answer. Where WFE
//! traps, that trap tells of some of them; nothing tells of a loop with YIELD, or of any loop on a machine whose WFE never traps. So
//! the loop is found as it stands: [`look`] follows at most [`MOST_STEPS`] instructions of a small part of A64 (`a64`: loads,
//! arithmetic, branches, hints), reading code and data through the guest's own tables (`tables`). If the same registers come back to
//! the same instruction and nothing was stored, the loop goes on for as long as the words that it reads stay as they are, or until an
//! interrupt. Whatever is not understood says that the vCPU runs.
//!
//! Nothing here is a promise of the guest's: the tables may change meanwhile, and a TLB may hold what they said before. A wrong answer
//! costs the guest a turn, and what is read is read from its own RAM only.

mod a64;
mod tables;
#[cfg(test)]
mod tests;

use crate::exit;
use crate::vm::context::Frame;
use a64::{Interpreter, Registers};
use types::access::AccessWidth;
use types::address::GuestPhys;

/// How many instructions are followed at most: three times round the longest wait of Linux that is understood.
const MOST_STEPS: u32 = 64;
/// How many words a vCPU may wait for at once.
const MOST_WORDS: usize = 4;

/// Registers that say what the loaded vCPU's addresses mean, and those that its code names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
    /// TCR_EL1.
    pub tcr_el1: u64,
    /// TTBR0_EL1.
    pub ttbr0_el1: u64,
    /// TTBR1_EL1.
    pub ttbr1_el1: u64,
    /// SP_EL0, in which Linux keeps the task that runs.
    pub sp_el0: u64,
    /// TPIDR_EL1, in which Linux keeps where a CPU's own data is.
    pub tpidr_el1: u64,
    /// The virtual counter.
    pub counter: u64,
}

/// A word of a guest's memory and what a waiting vCPU has seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it is; a multiple of its size.
    pub address: GuestPhys,
    /// Its size.
    pub width: AccessWidth,
    /// What it held.
    pub value: u64,
}

/// The words that a vCPU waits for: that one of them changes.
pub type Words = heapless::Vec<Word, MOST_WORDS>;

/// What a vCPU is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It gets on, or its code says nothing else.
    Running,
    /// It waits in a loop with a hint (WFE, YIELD), for the time or for more than can be said.
    Spinning,
    /// It waits until one of these words changes, or for an interrupt.
    Waiting(Words),
}

/// Reads a guest's RAM, and refuses what is none. One call of many instructions' work: it may be virtual, so that what follows code is
/// there once.
type Read<'a> = &'a dyn Fn(GuestPhys, AccessWidth) -> Option<u64>;

/// Says what a vCPU in AArch64 does that stands at its frame's PC; `read` reads its RAM, and refuses what is none.
#[must_use]
pub fn look(frame: &Frame, sight: &Sight, read: Read<'_>) -> Doing {
    // A guest whose data is big-endian is not followed.
    if exit::is_aarch32(frame.pstate) || exit::is_big_endian(frame.pstate, sight.sctlr_el1) {
        return Doing::Running;
    }
    let mut interpreter = Interpreter::new(frame, sight, read);
    // Where the loop may begin, and the registers that came by there last.
    let mut anchor = interpreter.registers.clone();
    let mut hints = false;
    for _ in 0..MOST_STEPS {
        let from = interpreter.registers.pc;
        if interpreter.step().is_none() {
            return Doing::Running;
        }
        let pc = interpreter.registers.pc;
        if pc == anchor.pc {
            hints |= interpreter.passed.hint;
            if interpreter.registers == anchor {
                return verdict(interpreter);
            }
        } else if pc > from {
            continue;
        }
        anchor = Registers::clone(&interpreter.registers);
        interpreter.begin_round();
    }
    match hints {
        true => Doing::Spinning,
        false => Doing::Running,
    }
}

/// Says what a loop does that changes nothing.
fn verdict(interpreter: Interpreter<'_>) -> Doing {
    let passed = interpreter.passed;
    match passed.words {
        Some(words) if !passed.time && !words.is_empty() => Doing::Waiting(words),
        _ if passed.hint => Doing::Spinning,
        _ => Doing::Running,
    }
}
