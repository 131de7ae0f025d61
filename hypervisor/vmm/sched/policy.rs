//! The seam between the run queue and its policy: which vCPU runs next, for how long, and whether one has to stop although it is alone.
//!
//! The run queue ([`super::RunQueue`]) knows what each vCPU is doing, since when, and when it has to be looked at again. A policy only
//! decides. It is a type parameter of the queue: no call of it is virtual, and what a policy never does costs nothing.

use core::fmt::Debug;

use super::cap::Cap;
use super::set::{Slot, SlotSet};
use types::ids::DEFAULT_WEIGHT;

/// What a VM's contract says of the time of its vCPUs.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What they may use together, if that is limited.
    pub cap: Option<&'static Cap>,
    /// How much of a CPU each has beside others that want it, as theirs is to it.
    pub weight: u16,
}

impl Default for Terms {
    /// A VM's of which nothing is said.
    fn default() -> Self {
        Self {
            cap: None,
            weight: DEFAULT_WEIGHT,
        }
    }
}

/// Decides about the vCPUs of one physical CPU. All times are in counter ticks.
///
/// The queue says what happens, in this order for each vCPU: [`Policy::wake`] when it wants to run after it was blocked,
/// [`Policy::enqueue`] when it begins to wait for the CPU, [`Policy::start`] when it gets the CPU, [`Policy::stop`] when it has left it.
/// One that leaves the queue without having run is taken out by [`Policy::dequeue`].
pub trait Policy {
    /// What the policy keeps for each slot, also while the vCPU in it is off: what is used up stays used up over CPU_OFF and CPU_ON.
    type Share: Clone + Debug;

    /// Returns whether a vCPU that is or was here may be held back, or stopped although it is alone. Until one may, nothing is asked of
    /// [`Policy::limit_ticks`] and [`Policy::held_until`]. It never becomes false again. Hot paths
    /// have the answer as a parameter, `HOLDS`, so that they ask once and not at each step; true is right for any answer.
    fn holds(&self) -> bool;

    /// Returns what a slot has before a vCPU in it has run.
    fn first_share(&self) -> Self::Share;

    /// Takes what the contract of the VM says of the vCPU in a slot, which does not run; another vCPU may have been there before.
    fn agree(&mut self, slot: Slot, share: &mut Self::Share, terms: Terms);

    /// Returns whether that is what a slot has already.
    fn has_agreed(&self, share: &Self::Share, terms: Terms) -> bool;

    /// Returns whether this vCPU may ever be held back, or stopped although it is alone. Asked instead of [`Policy::held_until`] where a
    /// vCPU that cannot be is to be started by the shortest way.
    fn may_hold(&self, share: &Self::Share) -> bool;

    /// A blocked vCPU wants to run.
    fn wake(&mut self, slot: Slot, share: &mut Self::Share);

    /// A vCPU begins to wait for the CPU.
    fn enqueue(&mut self, slot: Slot, share: &Self::Share);

    /// A vCPU that may wait for the CPU leaves the queue.
    fn dequeue(&mut self, slot: Slot);

    /// A vCPU that waits for the CPU shall have it before others, at the cost of what it will have later; returns whether it may.
    fn favour(&mut self, slot: Slot, share: &mut Self::Share) -> bool;

    /// The vCPU that has just been stopped only waited for something in a loop; `gives_up` says that the rest of its time is over.
    fn spins(&mut self, slot: Slot, share: &mut Self::Share, gives_up: bool);

    /// Chooses which of those that wait runs next; `None` only if none waits.
    fn pick(&self, waiting: &SlotSet) -> Option<Slot>;

    /// Returns one of those that wait that shall be favoured and run in place of the one that was picked, if that may be.
    fn overtakes(&self, slot: Slot, waiting: &SlotSet) -> Option<Slot>;

    /// A vCPU gets the CPU from now on, and waits no longer, while these wait. It may not have been enqueued, if the CPU was idle.
    fn start<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        share: &mut Self::Share,
        waiting: &SlotSet,
        now_ticks: u64,
    );

    /// As [`Policy::start`], for a vCPU that is not enqueued and finds the CPU idle.
    fn start_idle<const HOLDS: bool>(
        &mut self,
        slot: Slot,
        share: &mut Self::Share,
        now_ticks: u64,
    );

    /// The vCPU that ran until now leaves the CPU.
    fn stop<const HOLDS: bool>(&mut self, share: &mut Self::Share, now_ticks: u64);

    /// Returns when one of those that wait gets the CPU from `current`; 0 for at once. Asked only while one waits.
    fn due_ticks(&self, current: Slot) -> u64;

    /// Returns when the vCPU that runs has to stop, although no other one may wait; [`super::NEVER`] for not at all.
    fn limit_ticks(&self) -> u64;

    /// A vCPU was held back for so long.
    fn throttled(&self, share: &Self::Share, spent_ticks: u64);

    /// Returns until when a vCPU that could run is held back: the time of its replenishment, which is later than now. `None` if it may
    /// run.
    fn held_until(&mut self, share: &mut Self::Share, now_ticks: u64) -> Option<u64>;
}
