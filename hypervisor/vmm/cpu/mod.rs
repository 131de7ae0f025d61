//! The state machine of one physical CPU: handle what others asked for, pick a vCPU, run it, do what its exit asks for.
//!
//! Everything here belongs to one CPU; what others want of it comes through its wake set, its flag for deferred work, and the
//! requests of its vCPUs. [`Machine`] is the CPU itself and [`Manager`] what is done for whole VMs; the tests put fakes in the place
//! of both. `crate::sched` decides which vCPU runs.
//!
//! `attach` takes a vCPU's registers over and lets go of them, `world` moves registers, `exits` runs a guest and acts on its exits,
//! `crowd` finds those that only wait, `power` turns vCPUs on and off, `events` tells of it, `deferred` is what a CPU does besides, `publish` says what no other knows, `reserve`
//! turns it off.

mod attach;
mod crowd;
mod deferred;
mod events;
mod exits;
mod machine;
mod placements;
mod power;
mod presence;
mod publish;
mod reserve;
#[cfg(test)]
mod tests;
mod world;

use alloc::vec::Vec;

use crate::sched::{Deferred, NEVER, Policy, RoundRobin, RunQueue, SLICE_FLOOR_MS, SLICE_MS, Slot};
use crate::vm::context::Owner;
use crate::vm::{Vm, request};
use attach::{Attached, at};
use crowd::Crowd;
use events::Events;
pub use machine::{Interrupt, Local, Machine, Manager, cause};
pub use placements::Placements;
pub use presence::Presence;
use types::ids::{MAX_VMS, VcpuId};

/// How long a vCPU runs at most while another one waits, in nanoseconds.
const SLICE_NS: u64 = SLICE_MS * 1_000_000;
/// How long it runs at least, in nanoseconds.
const SLICE_FLOOR_NS: u64 = SLICE_FLOOR_MS * 1_000_000;

/// One CPU's scheduler and what it has in its registers.
#[derive(Debug)]
pub struct Pcpu<M, P: Policy> {
    machine: M,
    local: &'static Local,
    placements: &'static Placements,
    queue: RunQueue<P>,
    crowd: Crowd,
    attached: Vec<Option<Attached>>,
    /// The vCPU whose registers are in the hardware.
    loaded: Option<Slot>,
    /// The vCPU that turned itself off here last, while no other was loaded: the registers its VM sets still hold.
    resident: Option<Slot>,
    /// The VM whose tables, traps and time are in the hardware.
    world: Option<&'static Vm>,
    /// The vCPU that was loaded last.
    guest: Option<Owner>,
    /// The vCPU of each other VM that was loaded last.
    last: [VcpuId; MAX_VMS],
    /// The vCPU whose values are in the FP unit.
    fp_owner: Option<Slot>,
    /// HCR_EL2 and CPTR_EL2 as last written.
    hcr: u64,
    cptr: u64,
    /// vCPUs that were turned on or off, until it is told.
    events: Events,
    /// When deferred work that was begun goes on, in counter ticks.
    deferred_ticks: u64,
    /// What this work owes to the vCPUs, and which VM's turn it was.
    deferred: Deferred,
    deferred_turn: usize,
}

/// Returns how the vCPUs of a CPU take turns.
#[must_use]
pub fn turns<M: Machine>(machine: &M) -> RoundRobin {
    let (longest, floor) = (machine.ticks(SLICE_NS), machine.ticks(SLICE_FLOOR_NS));
    RoundRobin::new(longest, floor)
}

impl<M: Machine, P: Policy> Pcpu<M, P> {
    /// Makes the state machine of the calling CPU with its policy: [`turns`], under caps. It has run nothing yet.
    #[must_use]
    #[inline]
    pub fn new(machine: M, placements: &'static Placements, policy: P) -> Self {
        Self {
            local: machine.local(),
            placements,
            queue: RunQueue::new(policy),
            crowd: Crowd::new(&machine),
            attached: Vec::new(),
            loaded: None,
            resident: None,
            world: None,
            guest: None,
            last: [VcpuId::new(u16::MAX); MAX_VMS],
            fp_owner: None,
            hcr: 0,
            cptr: 0,
            events: Events::new(&machine),
            deferred_ticks: NEVER,
            deferred: Deferred::NONE,
            deferred_turn: 0,
            machine,
        }
    }

    /// Does one round: looks at everything, then runs the vCPU whose turn it is until it exits, or sleeps until something happens.
    #[inline(always)]
    pub fn step(&mut self) {
        if let Some(slot) = self.turn() {
            self.enter(slot);
        }
    }

    /// Looks at everything once and makes the vCPU ready whose turn it is, or sleeps until something happens.
    #[inline(always)]
    fn turn(&mut self) -> Option<Slot> {
        if !self.local.wakes.is_empty() {
            self.handle_wakes();
        }
        if self.local.has_deferred() {
            self.do_deferred();
        }
        let now = self.machine.now();
        if now >= self.crowd.look_ticks {
            self.look_around(now);
        } else if self.queue.is_watched() && self.queue.current().is_none() {
            self.compare_words(now);
        }
        match self.queue.choose(now) {
            Some(slot) => self.ready(slot, now),
            None if self.queue.is_watched() => {
                self.watch_words();
                None
            }
            None => self.idle(),
        }
    }

    /// Wakes, starts or stops the vCPUs that others pointed at.
    fn handle_wakes(&mut self) {
        let now = self.machine.now();
        let wakes = self.local.wakes;
        wakes.drain(|slot| {
            if !self.queue.is_attached(slot) {
                return self.start(slot, now);
            }
            // What others ask of a vCPU does not wait until it is replenished; another vCPU that waits for it does.
            if self.queue.may_hold(slot) {
                let requested = at(&mut self.attached, slot).place.vcpu.requested();
                if requested & !request::HURRY != 0 {
                    self.queue.exempt(slot, now);
                }
            }
            if !self.queue.wake_at_once(slot, now) {
                self.heed(slot, now);
            }
        });
    }

    /// Makes a vCPU whose turn it is ready to be entered, unless others want something else of it.
    #[inline]
    fn ready(&mut self, slot: Slot, now: u64) -> Option<Slot> {
        let attached = at(&mut self.attached, slot);
        let vcpu = attached.place.vcpu;
        if vcpu.requested() != 0 {
            self.handle_requests(slot);
            return None;
        }
        if attached.context.suspended.is_some() {
            self.wake_suspended(slot);
        }
        if self.loaded != Some(slot) {
            self.unload();
            self.load(slot);
            self.crowd.look_ticks = NEVER;
        }
        if !vcpu.inbox.is_empty() {
            self.deliver();
        }
        self.arm(now);
        Some(slot)
    }

    /// Sets EL2's timer for whichever comes first: the end of a slice, a look at who runs, a soft timer, events, deferred work.
    #[inline]
    fn arm(&mut self, now: u64) {
        if self.queue.is_crowded() {
            let look = self.plan_look(now);
            return self.arm_for(true, self.queue.next_wake_ticks().min(look));
        }
        self.crowd.look_ticks = NEVER;
        // One whose time is counted leaves the CPU when it sleeps.
        match self.queue.is_limited() {
            true => self.arm_for(true, self.queue.next_wake_ticks()),
            false => self.arm_for(false, self.queue.next_deadline_ticks()),
        }
    }

    /// As [`Pcpu::arm`], for whether a WFI gives the CPU up, and when to look at the queue again.
    #[inline]
    fn arm_for(&self, rests: bool, wake_ticks: u64) {
        self.local.need_resched.set(rests || self.is_busy());
        let deferred_ticks = self.deferred_ticks.min(self.local.deferred_deadline.get());
        self.machine
            .arm(wake_ticks.min(self.events.due_ticks).min(deferred_ticks));
    }

    /// Sleeps until something happens, with the last vCPU's registers still loaded; returns the vCPU that is ready to be entered.
    #[inline]
    fn idle(&mut self) -> Option<Slot> {
        // What arrives for a vCPU that may not run must not keep the CPU awake.
        if self
            .loaded
            .is_some_and(|slot| self.queue.is_throttled(slot))
        {
            self.unload();
        }
        self.resume_deferred();
        self.crowd.look_ticks = NEVER;
        self.arm_for(false, self.queue.next_deadline_ticks());
        if self.local.wakes.is_empty() && !self.local.has_deferred() {
            self.machine.sleep();
        }
        if self.machine.acknowledge() {
            self.interrupt();
        }
        let Some(slot) = self.loaded else {
            return self.restart();
        };
        if self.queue.current().is_none() && self.has_deliverable() {
            self.queue.wake_at_once(slot, self.machine.now());
        }
        None
    }
}
