//! Giving a running VM more vCPUs, or taking some back: one resize at a time, with a deadline, ending in exactly one [`Report`].
//!
//! A resize is a talk with a guest that may answer late, wrongly or never. The state of each vCPU is in its [`PowerCell`], where the guest's
//! CPU_ON and CPU_OFF meet what is decided here, so a vCPU turned on in the last moment counts as such; here is only what the talk is about.
//! Rules:
//! * A vCPU is added when the guest has turned it on and it has run, not when the guest says so; it is taken back with `_EJ0`.
//! * Nothing is offered before the guest listens, which is when it first reads the event register after it starts. What is asked for while it
//!   boots, or before it resets, waits: [`Effect::Pulse`] leaves an edge latched in its interrupt controller, and the guest's driver reads
//!   the event register because of it. So a boot never sees a processor that is half there.
//! * At the deadline what was offered and not turned on is withdrawn (CPU_ON denied again, eject asked for), and eject requests are taken back.
//! * Growing takes the lowest-numbered vCPUs of the reserve, shrinking the highest-numbered that the guest holds; never the boot set.
//! * While an operator's resize runs a second one is refused as [`BeginError::Busy`]; one that a reset began gives way to the operator.
//!
//! Neighbours: `psci::power` (the states), `devices::cpu_hotplug` (the events that effects become), `vm` (calls, and holds the lock).

mod want;

use alloc::vec::Vec;

use psci::{Event, PowerCell, Refusal, Role, State};

use crate::ids::VcpuId;
use control_plane::resize::ost::Ost;
pub use control_plane::resize::{BeginError, Origin, Outcome, Report, Shortfall, Why};
use want::{EjectWord, Phase, Want};

/// A VM's vCPUs by number.
pub trait Cells {
    /// Returns how many vCPUs the VM can have.
    fn possible(&self) -> u16;
    /// Returns a vCPU's power state, if there is such a vCPU.
    fn cell(&self, vcpu: VcpuId) -> Option<&PowerCell>;
}

/// What to tell the guest, in this order, once the resizer has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Pulse the event interrupt although there is no event, to learn when the guest listens.
    Pulse,
    /// Make "device check" pending for a vCPU.
    Insert(VcpuId),
    /// Make "eject request" pending for a vCPU.
    Eject(VcpuId),
    /// Forget what the guest has not read about a vCPU.
    Retract(VcpuId),
}

/// What one step of a resize leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// What to tell the guest.
    pub effects: Vec<Effect>,
    /// The answer to the resize, when it has ended with this step.
    pub report: Option<Report>,
}

/// How long a resize may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from when it is asked for, in nanoseconds.
    pub timeout_ns: u64,
    /// How long after its start or reset a guest may take until it listens; until then the timeout does not run. 0 makes the timeout strict.
    pub boot_grace_ns: u64,
}

/// What a reset does with the vCPUs that a VM holds beyond its boot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReset {
    /// Offers as many again once the guest listens.
    KeepTarget,
    /// Leaves them in the reserve; a resize under way goes on all the same.
    BootSet,
}

/// Returns how many vCPUs a VM holds: what the guest may turn on, and what it has.
#[must_use]
pub fn held(cells: &impl Cells) -> u16 {
    ids(cells)
        .filter(|&vcpu| is_held(state(cells, vcpu)))
        .count() as u16
}

fn ids(cells: &impl Cells) -> impl DoubleEndedIterator<Item = VcpuId> {
    (0..cells.possible()).map(VcpuId::new)
}

fn state(cells: &impl Cells, vcpu: VcpuId) -> State {
    cells.cell(vcpu).map_or(State::Absent, PowerCell::state)
}

fn is_boot(cells: &impl Cells, vcpu: VcpuId) -> bool {
    cells
        .cell(vcpu)
        .is_some_and(|cell| cell.role() == Role::Boot)
}

fn apply(cells: &impl Cells, vcpu: VcpuId, event: Event) -> Result<State, Refusal> {
    let cell = cells.cell(vcpu).ok_or(Refusal::Absent)?;
    cell.apply(event).map(|step| step.next)
}

const fn is_held(state: State) -> bool {
    state.is_enabled() && !matches!(state, State::Withdrawn)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Grow,
    Shrink,
}

#[derive(Debug)]
struct Active {
    target: u16,
    direction: Direction,
    origin: Origin,
    limits: Limits,
    deadline_ns: u64,
    wants: Vec<Want>,
}

/// The resizes of one VM.
#[derive(Debug, Default)]
pub struct Resizer {
    listening: bool,
    started_ns: u64,
    active: Option<Active>,
}

impl Resizer {
    /// Makes the resizer of a VM that has not started.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            listening: false,
            started_ns: 0,
            active: None,
        }
    }

    /// Returns whether the guest has read events since it started; while not, a read has to be told by [`Resizer::on_listening`].
    #[inline]
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        self.listening
    }

    /// Returns whether a resize is under way.
    #[inline]
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Returns when [`Resizer::on_deadline`] has to be called; it may change with every step.
    #[inline]
    #[must_use]
    pub const fn deadline_ns(&self) -> Option<u64> {
        match &self.active {
            Some(active) => Some(active.deadline_ns),
            None => None,
        }
    }

    /// Begins the operator's resize to `target` vCPUs held.
    ///
    /// # Errors
    /// A [`BeginError`] when there is nothing to begin; nothing has changed then.
    pub fn begin(
        &mut self,
        cells: &impl Cells,
        target: u16,
        limits: Limits,
        now_ns: u64,
    ) -> Result<Progress, BeginError> {
        if let Some(Active {
            target,
            origin: Origin::Operator,
            ..
        }) = self.active
        {
            return Err(BeginError::Busy { target });
        }
        if target == 0 {
            return Err(BeginError::Zero);
        }
        let possible = cells.possible();
        if target > possible {
            return Err(BeginError::TooMany { possible });
        }
        Ok(self.plan(cells, target, Origin::Operator, limits, now_ns))
    }

    /// Notes that the VM starts from off.
    pub fn on_start(&mut self, now_ns: u64) {
        self.listening = false;
        self.started_ns = now_ns;
    }

    /// Notes that the guest reads the event register, which it does before the read is answered.
    pub fn on_listening(&mut self, cells: &impl Cells, now_ns: u64) -> Progress {
        self.listening = true;
        let mut progress = Progress::default();
        if let Some(active) = &mut self.active
            && active.offer_waiting(cells, &mut progress.effects)
            && active.limits.boot_grace_ns != 0
        {
            active.deadline_ns = now_ns.saturating_add(active.limits.timeout_ns);
        }
        self.settled(cells, progress)
    }

    /// Notes that a vCPU has run its first instruction after a CPU_ON.
    pub fn on_cpu_started(&mut self, cells: &impl Cells, vcpu: VcpuId) -> Progress {
        if let Some(want) = self.want(vcpu)
            && matches!(want.phase, Phase::Offered { .. })
        {
            want.phase = Phase::Reached;
        }
        self.settled(cells, Progress::default())
    }

    /// Notes that a vCPU has been given back: its cell has accepted `_EJ0`.
    pub fn on_eject(&mut self, cells: &impl Cells, vcpu: VcpuId) -> Progress {
        let mut progress = Progress::default();
        if let Some(active) = &mut self.active {
            active.given_back(cells, vcpu, &mut progress.effects);
        }
        self.settled(cells, progress)
    }

    /// Notes what the guest reports by `_OST`; a number of a vCPU that there is not, or one nobody asked about, means nothing.
    pub fn on_ost(
        &mut self,
        cells: &impl Cells,
        vcpu: VcpuId,
        source: u16,
        status: u16,
    ) -> Progress {
        let mut progress = Progress::default();
        if let Some(want) = self.want(vcpu) {
            want.hear(cells, Ost::decode(source, status), &mut progress.effects);
        }
        self.settled(cells, progress)
    }

    /// Ends the resize if its deadline has come.
    pub fn on_deadline(&mut self, cells: &impl Cells, now_ns: u64) -> Progress {
        match self.deadline_ns() {
            Some(deadline_ns) if now_ns >= deadline_ns => self.cancel(cells),
            _ => Progress::default(),
        }
    }

    /// Ends the resize now, as its deadline would.
    pub fn cancel(&mut self, cells: &impl Cells) -> Progress {
        let mut progress = Progress::default();
        if let Some(active) = &mut self.active {
            for want in &mut active.wants {
                want.give_up(cells, &mut progress.effects);
            }
        }
        self.settled(cells, progress)
    }

    /// Goes on after a reset: the cells and the event register are as new, and `held_before` vCPUs were held before.
    ///
    /// What was asked for and had not ended is asked for again, whatever `policy` says; `limits` are for what the reset begins itself.
    pub fn on_reset(
        &mut self,
        cells: &impl Cells,
        held_before: u16,
        policy: AfterReset,
        limits: Limits,
        now_ns: u64,
    ) -> Progress {
        self.on_start(now_ns);
        if let Some(Active {
            target,
            origin,
            limits,
            deadline_ns,
            ..
        }) = self.active.take()
        {
            let progress = self.plan(cells, target, origin, limits, now_ns);
            if let Some(active) = &mut self.active
                && limits.boot_grace_ns == 0
            {
                active.deadline_ns = deadline_ns;
            }
            return progress;
        }
        if policy == AfterReset::KeepTarget && held_before > held(cells) {
            return self.plan(
                cells,
                held_before.min(cells.possible()),
                Origin::Reset,
                limits,
                now_ns,
            );
        }
        Progress::default()
    }

    /// Ends the resize because the VM is off: there is nobody to tell anything.
    pub fn on_vm_off(&mut self, cells: &impl Cells) -> Progress {
        self.listening = false;
        if let Some(active) = &mut self.active {
            for want in active
                .wants
                .iter_mut()
                .filter(|want| !want.phase.is_decided())
            {
                want.phase = Phase::Failed(Why::VmOff);
            }
        }
        self.settled(cells, Progress::default())
    }

    fn want(&mut self, vcpu: VcpuId) -> Option<&mut Want> {
        self.active
            .as_mut()?
            .wants
            .iter_mut()
            .find(|want| want.vcpu == vcpu)
    }

    /// Decides which vCPUs the resize is about, and begins.
    fn plan(
        &mut self,
        cells: &impl Cells,
        target: u16,
        origin: Origin,
        limits: Limits,
        now_ns: u64,
    ) -> Progress {
        let mut progress = Progress::default();
        let have = held(cells);
        let (direction, wants) = if target < have {
            let wants = shrink(cells, have - target, &mut progress.effects);
            (Direction::Shrink, wants)
        } else {
            (Direction::Grow, grow(cells, target - have))
        };
        let mut active = Active {
            target,
            direction,
            origin,
            limits,
            deadline_ns: now_ns.saturating_add(limits.timeout_ns),
            wants,
        };
        if self.listening {
            active.offer_waiting(cells, &mut progress.effects);
        } else if active.wants.iter().any(|want| want.phase == Phase::Waiting) {
            let grace_ends_ns = self.started_ns.saturating_add(limits.boot_grace_ns);
            active.deadline_ns = active.deadline_ns.max(grace_ends_ns);
            progress.effects.push(Effect::Pulse);
        }
        self.active = Some(active);
        self.settled(cells, progress)
    }

    /// Makes the report if every vCPU of the resize is decided.
    fn settled(&mut self, cells: &impl Cells, mut progress: Progress) -> Progress {
        progress.report = self
            .active
            .take_if(|active| active.wants.iter().all(|want| want.phase.is_decided()))
            .map(|active| active.report(held(cells)));
        progress
    }
}

/// Picks vCPUs to offer; what has been offered before and not been turned on yet is awaited with them.
fn grow(cells: &impl Cells, mut missing: u16) -> Vec<Want> {
    let mut wants = Vec::new();
    for vcpu in ids(cells).filter(|&vcpu| !is_boot(cells, vcpu)) {
        let phase = match state(cells, vcpu) {
            State::EnabledOff => Phase::Offered {
                acknowledged: false,
            },
            State::Reserve | State::Withdrawn if missing > 0 => {
                missing -= 1;
                Phase::Waiting
            }
            _ => continue,
        };
        wants.push(Want { vcpu, phase });
    }
    wants
}

/// Asks vCPUs back; those of the boot set that would be needed too are refused on the spot.
fn shrink(cells: &impl Cells, mut surplus: u16, effects: &mut Vec<Effect>) -> Vec<Want> {
    let mut wants = Vec::new();
    for vcpu in ids(cells).rev().filter(|&vcpu| is_held(state(cells, vcpu))) {
        if surplus == 0 {
            break;
        }
        let phase = match apply(cells, vcpu, Event::RequestEject) {
            // Never turned on: it is out of the guest's reach at once, whenever the guest ejects it.
            Ok(State::Withdrawn) => Phase::Reached,
            Ok(_) => Phase::Asked(EjectWord::Nothing),
            Err(_) => continue,
        };
        effects.push(Effect::Eject(vcpu));
        wants.push(Want { vcpu, phase });
        surplus -= 1;
    }
    let boot_set = ids(cells).rev().filter(|&vcpu| is_boot(cells, vcpu));
    wants.extend(boot_set.take(surplus as usize).map(|vcpu| Want {
        vcpu,
        phase: Phase::Failed(Why::BootVcpu),
    }));
    wants
}

impl Active {
    /// Offers what waits; returns whether there was anything.
    fn offer_waiting(&mut self, cells: &impl Cells, effects: &mut Vec<Effect>) -> bool {
        let mut any = false;
        for want in self
            .wants
            .iter_mut()
            .filter(|want| want.phase == Phase::Waiting)
        {
            any = true;
            want.offer(cells, effects);
        }
        any
    }

    /// Takes note of a vCPU that the guest has ejected.
    fn given_back(&mut self, cells: &impl Cells, vcpu: VcpuId, effects: &mut Vec<Effect>) {
        let Some(want) = self.wants.iter_mut().find(|want| want.vcpu == vcpu) else {
            let phase = Phase::Failed(Why::GivenBack);
            self.wants.push(Want { vcpu, phase });
            return;
        };
        match want.phase {
            Phase::Asked(_) => want.phase = Phase::Reached,
            // The guest was still at an earlier eject when the vCPU was offered to it again.
            Phase::Offered { .. } => want.offer(cells, effects),
            Phase::Reached if self.direction == Direction::Grow => {
                want.phase = Phase::Failed(Why::GivenBack);
            }
            Phase::Reached | Phase::Failed(_) | Phase::Waiting => {}
        }
    }

    fn report(self, reached: u16) -> Report {
        let any_reached = self.wants.iter().any(|want| want.phase == Phase::Reached);
        let mut shortfalls: Vec<_> = self
            .wants
            .iter()
            .filter_map(|want| match want.phase {
                Phase::Failed(why) => Some(Shortfall {
                    vcpu: want.vcpu,
                    why,
                }),
                _ => None,
            })
            .collect();
        shortfalls.sort_unstable_by_key(|shortfall| shortfall.vcpu);
        let outcome = if shortfalls.is_empty() {
            Outcome::Done
        } else if any_reached {
            Outcome::Partly
        } else if shortfalls
            .iter()
            .all(|shortfall| shortfall.why.is_refusal())
        {
            Outcome::Refused
        } else {
            Outcome::TimedOut
        };
        Report {
            origin: self.origin,
            outcome,
            requested: self.target,
            reached,
            shortfalls,
        }
    }
}

#[cfg(test)]
mod tests;
