//! Which vCPU runs next on a physical CPU; time is an argument.
//!
//! Every physical CPU owns one [`RunQueue`] and no other CPU touches it, so it needs no lock. What others want of it arrives through the
//! lock-free [`WakeSet`], which says which places have something to do; every vCPU has its place from the making of its VM on
//! (`vm::Placement`). The owner drains the [`WakeSet`], tells the queue, and asks it which vCPU is next.
//!
//! [`RunQueue`] is mechanism, its [`Policy`] a type parameter. The one that is used is [`RoundRobin`] with slices between [`SLICE_FLOOR_MS`] and
//! [`SLICE_MS`], under the caps of the VMs ([`Capped`]). Real-time budgets are another policy. The timer, the IPI and the switch are in `el2`.

mod cap;
mod capped;
mod deferred;
mod policy;
mod queue;
mod round_robin;
mod set;
mod usage;
mod wake;
mod watch;

pub use cap::Cap;
pub use capped::Capped;
pub use deferred::Deferred;
pub use policy::{Policy, Terms};
pub use queue::{Account, RunQueue};
pub use round_robin::RoundRobin;
pub use set::{MAX_SLOTS, Slot, SlotSet};
pub use usage::Usage;
pub use wake::WakeSet;

/// No deadline: a time that never comes.
pub const NEVER: u64 = u64::MAX;

/// How long a vCPU runs at most before another one that wants to gets its turn, in milliseconds.
pub const SLICE_MS: u64 = 10;
/// How long it runs at least, however many others want to.
pub const SLICE_FLOOR_MS: u64 = 1;
