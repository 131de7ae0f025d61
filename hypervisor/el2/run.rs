//! A CPU's life after start-up: look at the mail, pick a vCPU, run it, do what its exit asks for.
//!
//! Everything here belongs to one CPU; what others want of it comes through its mailbox. `vmm::sched` decides who runs.
//!
//! `places` knows whose home a CPU is and whose registers it owns, `world` moves registers, `exits` runs a guest and acts on
//! its exits, `power` turns vCPUs on and off, `news` tells of it, `chores` is what a CPU does besides, `reserve` turns it off.

mod chores;
mod exits;
mod news;
mod places;
mod power;
mod reserve;
mod world;

use alloc::vec::Vec;
use vmm::config::MAX_VMS;
use vmm::ids::VcpuId;
use vmm::sched::{Deferred, RunQueue, Slot};
use vmm::vm::Vm;

use crate::percpu::{Loaded, Percpu};
use crate::sysreg::wfi;
use crate::{clock, gic, hot, timer};
pub(crate) use chores::{ask_boot_cpu_soon, ask_chores, chores_of, set_chore_deadline};
pub(crate) use exits::is_big_endian;
use news::News;
use places::{Attached, at};
pub(crate) use places::{free_place, take_place};
pub(crate) use reserve::park;

/// How long a vCPU runs while another one waits.
const SLICE_NS: u64 = vmm::sched::SLICE_MS * 1_000_000;

/// One CPU's scheduler and what it has in its registers.
struct Runner {
    cpu: &'static Percpu,
    queue: RunQueue,
    attached: Vec<Option<Attached>>,
    /// Whose registers are in the hardware.
    loaded: Option<Slot>,
    /// Who turned itself off here last, while nobody else was loaded: the registers its VM sets still hold.
    resident: Option<Slot>,
    /// The VM whose tables, traps and time are in the hardware.
    world: Option<&'static Vm>,
    /// Who was loaded last.
    guest: Option<Loaded>,
    /// The vCPU of each other VM that was loaded last.
    last: [VcpuId; MAX_VMS],
    /// Whose values are in the FP unit.
    fp_owner: Option<Slot>,
    /// HCR_EL2 and CPTR_EL2 as last written.
    hcr: u64,
    cptr: u64,
    /// vCPUs that came or went.
    news: News,
    /// When chores that were begun go on.
    chore_ticks: u64,
    /// What these chores owe to the vCPUs, and which VM's turn it was.
    deferred: Deferred,
    deferred_turn: usize,
}

/// Runs guests on this CPU for good.
pub(crate) fn run(cpu: &'static Percpu) -> ! {
    let mut runner = Runner {
        cpu,
        queue: RunQueue::new(clock::duration_ticks(SLICE_NS)),
        attached: Vec::new(),
        loaded: None,
        resident: None,
        world: None,
        guest: None,
        last: [VcpuId::new(u16::MAX); MAX_VMS],
        fp_owner: None,
        hcr: 0,
        cptr: 0,
        news: News::new(),
        chore_ticks: timer::NEVER,
        deferred: Deferred::NONE,
        deferred_turn: 0,
    };
    loop {
        if let Some(slot) = runner.turn() {
            runner.enter(slot);
        }
    }
}

impl Runner {
    /// Looks at everything once and makes ready whose turn it is, or sleeps until something happens.
    #[inline]
    fn turn(&mut self) -> Option<Slot> {
        if !self.cpu.wakes.is_empty() {
            self.open_mail();
        }
        if self.cpu.has_chores() {
            self.do_chores();
        }
        let now = timer::now();
        self.queue.expire(now);
        if self.queue.wants_switch(now) {
            self.queue.pick_next(now);
        }
        match self.queue.current() {
            Some(slot) => self.ready(slot),
            None => self.idle(),
        }
    }

    /// Wakes, starts or stops the vCPUs that others pointed at.
    fn open_mail(&mut self) {
        let now = timer::now();
        let wakes = self.cpu.wakes;
        wakes.drain(|slot| {
            if self.queue.is_attached(slot) {
                self.queue.rouse(slot, now);
            } else {
                self.start(slot, now);
            }
        });
    }

    /// Makes a vCPU whose turn it is ready to be entered, unless others want something else of it.
    #[inline]
    fn ready(&mut self, slot: Slot) -> Option<Slot> {
        let attached = at(&mut self.attached, slot);
        let vcpu = attached.place.vcpu;
        if vcpu.requested() != 0 {
            self.obey(slot);
            return None;
        }
        if attached.context.suspended.is_some() {
            self.wake_suspended(slot);
        }
        if self.loaded != Some(slot) {
            self.unload();
            self.load(slot);
        }
        if !vcpu.inbox.is_empty() {
            self.deliver();
        }
        self.arm();
        Some(slot)
    }

    /// Sets EL2's timer for whichever comes first: the end of a slice, a soft timer, news, a chore.
    #[inline]
    fn arm(&mut self) {
        self.arm_for(self.queue.is_crowded(), self.queue.next_wake_ticks());
    }

    /// As [`Runner::arm`], for whether somebody waits and when to look at the queue again.
    #[inline]
    fn arm_for(&self, is_crowded: bool, wake_ticks: Option<u64>) {
        self.cpu.crowded.set(is_crowded || self.is_busy());
        let deadline = wake_ticks.unwrap_or(timer::NEVER);
        let deadline = deadline.min(self.news.due_ticks).min(self.chore_ticks);
        self.cpu.arm(deadline.min(self.cpu.chore_deadline.get()));
    }

    /// Sleeps until something happens, with the last vCPU's registers still loaded; returns who is ready to be entered.
    #[inline]
    fn idle(&mut self) -> Option<Slot> {
        self.resume_chores();
        self.arm_for(false, self.queue.next_deadline_ticks());
        if self.cpu.wakes.is_empty() && !self.cpu.has_chores() {
            wfi();
        }
        let intid = gic::acknowledge();
        if intid < gic::FIRST_SPECIAL && !hot::take(self.cpu, intid) {
            self.interrupt();
        }
        let Some(slot) = self.loaded else {
            return self.restart();
        };
        if self.queue.current().is_none() && self.has_deliverable() {
            self.queue.rouse(slot, timer::now());
        }
        None
    }
}
