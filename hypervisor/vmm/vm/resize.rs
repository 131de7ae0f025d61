//! Giving a running VM more vCPUs, or taking some back: one resize at a time, with a deadline, ending in exactly one [`Report`].
//!
//! A resize is done with a guest that may answer late, wrongly or never. The state of each vCPU is in its [`PowerCell`], where the guest's
//! CPU_ON and CPU_OFF meet what is decided here, so a vCPU turned on in the last moment counts as such; here is only what is asked of the guest.
//! Rules:
//! * A vCPU is added when the guest has turned it on and it has run, not when the guest says so; it is taken back with `_EJ0`.
//! * Nothing is offered before the guest listens, which is when it first reads the event register after it starts. What is asked for while it
//!   boots, or before it resets, waits: [`Effect::Pulse`] leaves an edge latched in its interrupt controller, and the guest's driver reads
//!   the event register because of it. So a boot never sees a processor that is half there.
//! * A vCPU that the guest has ejected is not offered again before its `_OST` says that it is through with that, or 10 s are over: Linux looks
//!   at `_STA` after `_EJ0`, and gives up a processor that it finds enabled.
//! * What is reached is what is on: a vCPU that the guest may use and has off, be it of the boot set, is named in the report. While the guest
//!   boots it turns its boot set on, so a resize that has nothing else to do waits until it listens.
//! * At the deadline what was offered and not turned on is withdrawn (CPU_ON denied again, eject asked for), and eject requests are taken back.
//! * Growing takes the lowest-numbered vCPUs of the reserve, shrinking the highest-numbered that the guest holds; never the boot set.
//! * While an operator's resize runs a second one is refused as [`BeginError::Busy`]; one that a reset began gives way to the operator.
//!
//! Neighbours: `psci` (the states), `devices::cpu_hotplug` (the events that effects become), `vm` (calls, and holds the lock).

mod ledger;
mod want;

use alloc::vec::Vec;

use psci::{Event, PowerCell, State};

use control_plane::resize::ost::Ost;
use control_plane::resize::{BeginError, Origin, Outcome, Report, Shortfall, Why};
use ledger::{Ledger, Step};
use types::hotplug::Kind;
use types::ids::VcpuId;
use want::{EjectWord, Phase, Want};

/// A VM's vCPUs and memory slots by number. A slot has a cell like a vCPU's: it is on once the guest has acknowledged it.
pub trait Cells {
    /// Returns how many of a kind the VM can have.
    fn possible(&self, kind: Kind) -> u16;
    /// Returns a vCPU's power state, or a slot's, if there is such a one.
    fn cell(&self, kind: Kind, vcpu: VcpuId) -> Option<&PowerCell>;
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

fn state(cells: &impl Cells, kind: Kind, vcpu: VcpuId) -> State {
    cells
        .cell(kind, vcpu)
        .map_or(State::Absent, PowerCell::state)
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
    /// By ascending vCPU.
    wants: Vec<Want>,
    /// How many of them are not decided, and one more while the boot set is awaited.
    open: usize,
    /// The guest boots and has some of its boot set off: it is counted when the guest listens.
    awaits_boot: bool,
}

/// The resizes of one VM, of its vCPUs or of its memory slots.
#[derive(Debug)]
pub struct Resizer {
    listening: bool,
    started_ns: u64,
    ledger: Ledger,
    active: Option<Active>,
    /// Room for the next resize's `wants`.
    room: Vec<Want>,
}

impl Resizer {
    /// Makes the resizer of a VM that has not started.
    #[must_use]
    pub fn new(cells: &impl Cells, kind: Kind) -> Self {
        Self {
            listening: false,
            started_ns: 0,
            ledger: Ledger::new(cells, kind),
            active: None,
            room: Vec::new(),
        }
    }

    /// Returns whether the guest has read events since it started; while not, a read has to be told by [`Resizer::on_listening`].
    #[inline]
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        self.listening
    }

    /// Returns how many the VM holds: what the guest has, and what it may have.
    #[inline]
    #[must_use]
    pub fn held(&self) -> u16 {
        self.ledger.held()
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
    pub fn deadline_ns(&self) -> Option<u64> {
        let deadline_ns = self.active.as_ref()?.deadline_ns;
        let closes_ns = self.ledger.closes_ns();
        Some(closes_ns.map_or(deadline_ns, |at| at.min(deadline_ns)))
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
        let kind = self.ledger.kind;
        if target == 0 && kind == Kind::Vcpu {
            return Err(BeginError::Zero);
        }
        let possible = cells.possible(kind);
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
        let (active, mut step) = self.step(cells, &mut progress);
        if let Some(active) = active {
            active.open -= usize::from(core::mem::take(&mut active.awaits_boot));
            if active.offer_waiting(&mut step) && active.limits.boot_grace_ns != 0 {
                active.deadline_ns = now_ns.saturating_add(active.limits.timeout_ns);
            }
        }
        self.settled(cells, progress)
    }

    /// Notes that a vCPU has run its first instruction after a CPU_ON.
    pub fn on_cpu_started(&mut self, cells: &impl Cells, vcpu: VcpuId) -> Progress {
        if let Some(active) = &mut self.active {
            active.change(vcpu, |want| {
                if matches!(want.phase, Phase::Offered { .. }) {
                    want.phase = Phase::Reached;
                }
            });
        }
        self.settled(cells, Progress::default())
    }

    /// Has a vCPU given back, as `_EJ0` asks: nothing happens if its cell does not accept that.
    pub fn on_eject(&mut self, cells: &impl Cells, vcpu: VcpuId, now_ns: u64) -> Option<Progress> {
        let mut progress = Progress::default();
        let (active, mut step) = self.step(cells, &mut progress);
        step.apply(vcpu, Event::Eject).ok()?;
        step.ledger.ejected(vcpu, now_ns);
        if let Some(active) = active {
            active.given_back(&mut step, vcpu);
        }
        Some(self.settled(cells, progress))
    }

    /// Notes what the guest reports by `_OST`; a number of a vCPU that there is not, or one that was not asked about, means nothing.
    ///
    /// A vCPU whose eject is over with it is offered again if it is wanted.
    pub fn on_ost(
        &mut self,
        cells: &impl Cells,
        vcpu: VcpuId,
        source: u16,
        status: u16,
    ) -> Progress {
        let mut progress = Progress::default();
        let listening = self.listening;
        let (active, mut step) = self.step(cells, &mut progress);
        let said = Ost::decode(source, status);
        let closes = said.closes_eject() && step.ledger.close(vcpu);
        if let Some(active) = active {
            active.change(vcpu, |want| want.hear(&mut step, said));
            if closes && listening {
                active.offer_waiting(&mut step);
            }
        }
        self.settled(cells, progress)
    }

    /// Ends the resize if its deadline has come; offers what waits for the end of an eject that the guest does not tell of.
    pub fn on_deadline(&mut self, cells: &impl Cells, now_ns: u64) -> Progress {
        let mut progress = Progress::default();
        let listening = self.listening;
        let (active, mut step) = self.step(cells, &mut progress);
        match active {
            Some(active) if now_ns >= active.deadline_ns => self.cancel(cells),
            Some(active) if step.ledger.close_old(now_ns) && listening => {
                active.offer_waiting(&mut step);
                progress
            }
            _ => progress,
        }
    }

    /// Ends the resize now, as its deadline would.
    pub fn cancel(&mut self, cells: &impl Cells) -> Progress {
        let mut progress = Progress::default();
        let (active, mut step) = self.step(cells, &mut progress);
        if let Some(active) = active {
            active.open = 0;
            active.awaits_boot = false;
            for want in &mut active.wants {
                want.give_up(&mut step);
            }
        }
        self.settled(cells, progress)
    }

    /// Goes on after a reset: the cells and the event register are as new.
    ///
    /// What was asked for and had not ended is asked for again, whatever `policy` says; `limits` are for what the reset begins itself.
    pub fn on_reset(
        &mut self,
        cells: &impl Cells,
        policy: AfterReset,
        limits: Limits,
        now_ns: u64,
    ) -> Progress {
        self.on_start(now_ns);
        let held_before = self.ledger.held();
        self.ledger = Ledger::new(cells, self.ledger.kind);
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
        if policy == AfterReset::KeepTarget && held_before > self.ledger.held() {
            return self.plan(cells, held_before, Origin::Reset, limits, now_ns);
        }
        Progress::default()
    }

    /// Notes that what was offered can be taken only now: the time for that begins, unless it is strict.
    pub fn on_announced(&mut self, now_ns: u64) {
        if let Some(active) = &mut self.active
            && active.limits.boot_grace_ns != 0
        {
            active.deadline_ns = now_ns.saturating_add(active.limits.timeout_ns);
        }
    }

    /// Goes on after a reset over which the guest keeps what it holds, as it does memory: the event register alone is as new, so what
    /// was asked back is asked back again.
    pub fn on_reset_keeping(&mut self, now_ns: u64) -> Progress {
        self.on_start(now_ns);
        self.ledger.close_all();
        let mut progress = Progress::default();
        for want in self.active.iter_mut().flat_map(|active| &mut active.wants) {
            if let Phase::Asked(word) = &mut want.phase {
                *word = EjectWord::Nothing;
                progress.effects.push(Effect::Eject(want.vcpu));
            }
        }
        progress
    }

    /// Ends the resize because the VM is off, its cells as new: there is no guest to tell anything.
    pub fn on_vm_off(&mut self, cells: &impl Cells) -> Progress {
        self.listening = false;
        self.ledger = Ledger::new(cells, self.ledger.kind);
        if let Some(active) = &mut self.active {
            active.open = 0;
            for want in active
                .wants
                .iter_mut()
                .filter(|want| !want.phase.is_decided())
            {
                want.phase = Phase::Failed(Why::VmOff);
            }
        }
        self.settle(cells, Why::VmOff, Progress::default())
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
        self.ledger.close_old(now_ns);
        let (have, listening) = (self.ledger.held(), self.listening);
        let mut wants = core::mem::take(&mut self.room);
        let (_, mut step) = self.step(cells, &mut progress);
        let direction = if target < have {
            shrink(&mut step, have - target, &mut wants);
            Direction::Shrink
        } else {
            grow(&mut step, target - have, &mut wants);
            Direction::Grow
        };
        let mut open = wants.iter().filter(|want| !want.phase.is_decided()).count();
        let awaits_boot = !listening && open == 0 && step.ledger.on(cells) < step.ledger.held();
        open += usize::from(awaits_boot);
        let mut active = Active {
            target,
            direction,
            origin,
            limits,
            deadline_ns: now_ns.saturating_add(limits.timeout_ns),
            wants,
            open,
            awaits_boot,
        };
        if listening {
            active.offer_waiting(&mut step);
        } else if awaits_boot || active.wants.iter().any(|want| want.phase == Phase::Waiting) {
            let grace_ends_ns = self.started_ns.saturating_add(limits.boot_grace_ns);
            active.deadline_ns = active.deadline_ns.max(grace_ends_ns);
            progress.effects.push(Effect::Pulse);
        }
        self.active = Some(active);
        self.settled(cells, progress)
    }

    /// Makes the report if every vCPU of the resize is decided.
    fn settled(&mut self, cells: &impl Cells, progress: Progress) -> Progress {
        self.settle(cells, Why::LeftOff, progress)
    }

    /// As [`Resizer::settled`], for why vCPUs that the guest holds are off.
    fn settle(&mut self, cells: &impl Cells, why_off: Why, mut progress: Progress) -> Progress {
        if let Some(active) = self.active.take_if(|active| active.open == 0) {
            progress.report = Some(active.report(&self.ledger, cells, why_off));
            self.room = active.wants;
            self.room.clear();
        }
        progress
    }

    /// Returns the resize under way, and what a step of it works with.
    fn step<'a, C: Cells>(
        &'a mut self,
        cells: &'a C,
        progress: &'a mut Progress,
    ) -> (Option<&'a mut Active>, Step<'a, C>) {
        let (ledger, effects) = (&mut self.ledger, &mut progress.effects);
        let step = Step {
            cells,
            ledger,
            effects,
        };
        (self.active.as_mut(), step)
    }
}

/// Picks vCPUs to offer; what has been offered before and not been turned on yet is awaited with them.
fn grow(step: &mut Step<'_, impl Cells>, mut missing: u16, wants: &mut Vec<Want>) {
    let ledger = &mut *step.ledger;
    ledger.look_at_offered(step.cells);
    let (mut spare, mut offered) = (ledger.spare.first_from(0), ledger.offered.first_from(0));
    loop {
        spare = spare.filter(|_| missing > 0);
        let Some(vcpu) = spare.into_iter().chain(offered).min() else {
            return;
        };
        let next = vcpu.get() + 1;
        let phase = if spare == Some(vcpu) {
            missing -= 1;
            spare = ledger.spare.first_from(next);
            Phase::Waiting
        } else {
            offered = ledger.offered.first_from(next);
            Phase::OFFERED
        };
        wants.push(Want { vcpu, phase });
    }
}

/// Asks vCPUs back; those of the boot set that would be needed too are refused on the spot. What is left of an offer is awaited.
fn shrink(step: &mut Step<'_, impl Cells>, mut surplus: u16, wants: &mut Vec<Want>) {
    let mut below = step.cells.possible(step.ledger.kind);
    while surplus > 0
        && let Some(vcpu) = step.ledger.lent.last_below(below)
    {
        below = vcpu.get();
        let phase = match step.apply(vcpu, Event::RequestEject) {
            // Never turned on: it is out of the guest's reach at once, whenever the guest ejects it.
            Ok(State::Withdrawn) => Phase::Reached,
            Ok(_) => Phase::Asked(EjectWord::Nothing),
            Err(_) => continue,
        };
        step.effects.push(Effect::Eject(vcpu));
        wants.push(Want { vcpu, phase });
        surplus -= 1;
    }
    step.ledger.look_at_offered(step.cells);
    while let Some(vcpu) = step.ledger.offered.last_below(below) {
        below = vcpu.get();
        let phase = Phase::OFFERED;
        wants.push(Want { vcpu, phase });
    }
    let boot_set = (0..step.ledger.boot).rev().map(VcpuId::new);
    wants.extend(boot_set.take(surplus.into()).map(|vcpu| Want {
        vcpu,
        phase: Phase::Failed(Why::BootVcpu),
    }));
    wants.reverse();
}

impl Active {
    /// Offers what waits, but not a vCPU that the guest still ejects; returns whether there was anything.
    fn offer_waiting(&mut self, step: &mut Step<'_, impl Cells>) -> bool {
        let mut any = false;
        for want in self
            .wants
            .iter_mut()
            .filter(|want| want.phase == Phase::Waiting)
        {
            any = true;
            if !step.ledger.is_closing(want.vcpu) {
                want.offer(step);
            }
        }
        any
    }

    /// Finds a vCPU of the resize, or where it would be.
    fn find(&self, vcpu: VcpuId) -> Result<usize, usize> {
        self.wants.binary_search_by_key(&vcpu, |want| want.vcpu)
    }

    /// Changes one vCPU of the resize, if it is about that one.
    fn change(&mut self, vcpu: VcpuId, how: impl FnOnce(&mut Want)) {
        let place = self.find(vcpu).ok();
        if let Some(want) = place.and_then(|place| self.wants.get_mut(place)) {
            let was_decided = want.phase.is_decided();
            how(want);
            self.open -= usize::from(!was_decided && want.phase.is_decided());
        }
    }

    /// Takes note of a vCPU that the guest has ejected.
    fn given_back(&mut self, step: &mut Step<'_, impl Cells>, vcpu: VcpuId) {
        let failed = Phase::Failed(Why::GivenBack);
        if let Err(place) = self.find(vcpu) {
            let phase = failed;
            return self.wants.insert(place, Want { vcpu, phase });
        }
        let is_growing = self.direction == Direction::Grow;
        self.change(vcpu, |want| match want.phase {
            Phase::Asked(_) => want.phase = Phase::Reached,
            // The guest was still at an earlier eject when the vCPU was offered to it again.
            Phase::Offered { .. } => {
                step.effects.push(Effect::Retract(vcpu));
                want.phase = Phase::Waiting;
            }
            Phase::Reached if is_growing => want.phase = failed,
            Phase::Reached | Phase::Failed(_) | Phase::Waiting => {}
        });
    }

    fn report(&self, ledger: &Ledger, cells: &impl Cells, why_off: Why) -> Report {
        let any_reached = self.wants.iter().any(|want| want.phase == Phase::Reached);
        let reached = ledger.on(cells);
        let mut shortfalls = Vec::new();
        for want in &self.wants {
            if let Phase::Failed(why) = want.phase {
                let vcpu = want.vcpu;
                shortfalls.push(Shortfall { vcpu, why });
            }
        }
        // Of a VM that is off everything is: it is enough to say so of what the resize was about.
        if reached < self.target && (why_off != Why::VmOff || shortfalls.is_empty()) {
            for vcpu in ledger
                .members()
                .filter(|vcpu| !state(cells, ledger.kind, *vcpu).is_on())
            {
                let why = why_off;
                if let Err(place) = shortfalls.binary_search_by_key(&vcpu, |other| other.vcpu) {
                    shortfalls.insert(place, Shortfall { vcpu, why });
                }
            }
        }
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
            kind: ledger.kind,
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
