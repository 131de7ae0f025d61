//! Which virtual CPU runs next on a physical CPU: policy only, with time as an argument.
//!
//! Every physical CPU owns one [`RunQueue`] and nobody else touches it, so it needs no lock. What others want of it arrives through the
//! lock-free [`WakeSet`], which says which places have something to do; every virtual CPU has its place from the making of its VM on
//! (`vm::Home`). The owner drains the [`WakeSet`], tells the queue, and asks it who is next.
//!
//! The policy is round robin with slices of [`SLICE_MS`]. Who sleeps before its slice is over keeps what is left of it, and may interrupt
//! with that when it wakes. `queue` says what is proved of it: nobody waits longer than 2(n - 1) slices beside n - 1 others.
//! Weights and caps would change the slice of a slot in `queue` and nothing else. Mechanism (timer, IPI, switch) is in `el2`.

mod deferred;
mod queue;
mod set;
mod wake;

pub use deferred::Deferred;
pub use queue::{Account, RunQueue};
pub use set::{MAX_SLOTS, Slot, SlotSet};
pub use wake::WakeSet;

/// How long a virtual CPU runs before another one that wants to gets its turn, in milliseconds.
pub const SLICE_MS: u64 = 10;
