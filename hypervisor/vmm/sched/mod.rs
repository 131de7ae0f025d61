//! Which virtual CPU runs next on a physical CPU: policy only, with time as an argument.
//!
//! Every physical CPU owns one [`RunQueue`] and nobody else touches it, so it needs no lock. What others want of it arrives through two
//! lock-free tables: [`SlotTable`] gives a virtual CPU that is turned on a place on the physical CPU that [`place`] has chosen, and
//! [`WakeSet`] says which places have something to do. The owner drains the [`WakeSet`], tells the queue, and asks it who is next.
//!
//! The policy is round robin with slices of [`SLICE_MS`]: with n virtual CPUs that want to run, each does so within n - 1 slices.
//! Weights and caps would change the slice of a slot in `queue` and nothing else. Mechanism (timer, IPI, switch) is in `el2`.

mod place;
mod queue;
mod set;
mod slots;
mod wake;

pub use place::{Candidate, place};
pub use queue::{Account, RunQueue};
pub use set::{MAX_SLOTS, Slot, SlotSet};
pub use slots::{Home, HomeCell, Member, SlotTable};
pub use wake::WakeSet;

/// How long a virtual CPU runs before another one that wants to gets its turn, in milliseconds.
pub const SLICE_MS: u64 = 10;
