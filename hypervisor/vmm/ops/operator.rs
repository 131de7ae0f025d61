//! The operator's side of the VMs: commands carried out, answers given when they are due, and what happens to VMs told in its turn.
//!
//! Events are noted by any CPU and told by the boot CPU. [`Console`] is where they go; the tests put a fake in its place.

mod answers;
mod commands;
mod events;

use alloc::string::String;
use alloc::vec::Vec;
use control_plane::console::{Backlog, CommandError, Event, HostReport, MAX_PENDING, Reply, Token};
use core::sync::atomic::AtomicBool;
use heapless::Deque;
use types::ids::PcpuId;

use self::answers::{Answer, Round};
use super::Host;
use crate::cpu::Placements;
use crate::sync::FairMutex;
use crate::vm::{Placement, Vcpu, Vm};

/// The console, and what else of the machine only its operator asks for.
pub trait Console: Host {
    /// Returns whether there is room for the answer to a request, or else for an event.
    fn accepts(&self, answer: Option<Token>) -> bool;
    /// Answers a request.
    fn reply(&self, token: Token, result: Result<Reply, CommandError>);
    /// Tells an event, before which so many of its VM were lost.
    fn tell(&self, event: &Event, lost: u32);
    /// When to look again for what found no room, in nanoseconds since start.
    fn retry_ns(&self) -> u64;
    /// Has the boot CPU look at events and answers soon.
    fn ask_boot_cpu_soon(&self);
    /// Returns whether the machine has a CPU.
    fn is_there(&self, cpu: PcpuId) -> bool;
    /// Returns which vCPUs are placed where.
    fn placements(&self) -> &'static Placements;
    /// Returns the log's last lines.
    fn log(&self) -> String;
    /// Describes the machine.
    fn report(&self) -> HostReport;
}

/// A vCPU that is to move: who asked for it, where to, and until when, in nanoseconds since start.
struct Move {
    token: Token,
    vcpu: &'static Vcpu,
    to: Placement,
    deadline_ns: u64,
}

/// Programs watch the meters: how often they are told, and when next, in nanoseconds since start.
struct Watch {
    period_ns: u64,
    next_ns: u64,
}

/// What waits to be told and answered. A static of its own, all zeros at first: the image does not carry its 9 KiB.
pub struct Outbox {
    /// Events that wait to be told.
    events: FairMutex<Backlog>,
    /// Answers that wait to be given; at most as many as the console takes requests.
    answers: FairMutex<Deque<(Token, Reply), MAX_PENDING>>,
}

impl core::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// Makes an empty one.
    #[expect(clippy::new_without_default, reason = "a static wants a constant")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            events: FairMutex::new(Backlog::new()),
            answers: FairMutex::new(Deque::new()),
        }
    }
}

/// What waits to be told, answered or found out.
pub struct Operator {
    outbox: &'static Outbox,
    /// The vCPU that is to move: one at a time does.
    moving: FairMutex<Option<Move>>,
    /// Whether programs watch the meters.
    watch: FairMutex<Option<Watch>>,
    /// Something changed that the boot CPU has to look at.
    dirty: AtomicBool,
    /// What waits for the next round, each with its VM.
    waiting: FairMutex<Vec<(Option<&'static Vm>, Answer)>>,
    /// Whether anything waits for a round, under way or next.
    awaited: AtomicBool,
    /// The round under way, which only the boot CPU looks at.
    round: FairMutex<Round>,
}

impl core::fmt::Debug for Operator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}

impl Operator {
    /// Makes one for whom nothing waits but what is in an outbox.
    #[must_use]
    pub const fn new(outbox: &'static Outbox) -> Self {
        Self {
            outbox,
            moving: FairMutex::new(None),
            watch: FairMutex::new(None),
            dirty: AtomicBool::new(false),
            waiting: FairMutex::new(Vec::new()),
            awaited: AtomicBool::new(false),
            round: FairMutex::new(Round::NONE),
        }
    }
}

/// Returns the earlier of two times, each of which may be none.
#[must_use]
pub fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}
