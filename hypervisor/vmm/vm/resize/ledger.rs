//! Which side has which of a VM's vCPUs, by sets: a step of a resize looks at those that it is about, however many are possible.

use psci::{Event, Refusal, Role, State};

use super::{Cells, Effect, state};
use alloc::vec::Vec;
use core::iter::successors;
use types::hotplug::Kind;
use types::ids::{VcpuId, VcpuSet};

/// How long a guest that never says `_OST` is taken to be at an eject, in nanoseconds after the last `_EJ0`.
///
/// Linux needs milliseconds, a crowded one seconds: what is offered too early is lost to it, what is offered late only comes late.
pub(super) const EJECT_CLOSES_NS: u64 = 10_000_000_000;

/// The vCPUs that are not in the boot set, and how many are.
///
/// It follows the cells because nothing else offers, withdraws or ejects; what a guest turns on and off it holds all the same.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What it is about.
    pub(super) kind: Kind,
    /// The boot set: vCPUs 0 to `boot` - 1, which the guest always holds.
    pub(super) boot: u16,
    /// What the guest holds beyond that.
    pub(super) lent: VcpuSet,
    /// What it does not: in reserve, or withdrawn.
    pub(super) spare: VcpuSet,
    /// Of `lent` at least those that were offered and never turned on.
    pub(super) offered: VcpuSet,
    /// Of `spare` those that the guest has ejected without having said by `_OST` that it is through.
    closing: VcpuSet,
    /// When they count as closed all the same.
    closes_ns: u64,
}

impl Ledger {
    /// As the cells are after a reset: the guest holds the boot set, and nothing else.
    pub(super) fn new(cells: &impl Cells, kind: Kind) -> Self {
        let is_boot = |vcpu| {
            let cell = cells.cell(kind, VcpuId::new(vcpu));
            cell.is_some_and(|cell| cell.role() == Role::Boot)
        };
        let (mut boot, mut end) = (0, cells.possible(kind));
        while boot < end {
            let middle = boot.midpoint(end);
            match is_boot(middle) {
                true => boot = middle + 1,
                false => end = middle,
            }
        }
        let mut ledger = Self {
            kind,
            boot,
            lent: VcpuSet::EMPTY,
            spare: VcpuSet::EMPTY,
            offered: VcpuSet::EMPTY,
            closing: VcpuSet::EMPTY,
            closes_ns: 0,
        };
        for vcpu in boot..cells.possible(kind) {
            ledger.spare.insert(VcpuId::new(vcpu));
        }
        ledger
    }

    /// Returns how many vCPUs the VM holds: what the guest may turn on, and what it has.
    pub(super) fn held(&self) -> u16 {
        self.boot + self.lent.len()
    }

    /// Returns those it holds, by ascending number.
    pub(super) fn members(&self) -> impl Iterator<Item = VcpuId> + '_ {
        let lent = successors(self.lent.first_from(0), |vcpu| {
            self.lent.first_from(vcpu.get() + 1)
        });
        (0..self.boot).map(VcpuId::new).chain(lent)
    }

    /// Returns how many of them the guest has on: the one question that looks at all of them, asked where a resize begins and ends.
    pub(super) fn on(&self, cells: &impl Cells) -> u16 {
        let on = self
            .members()
            .filter(|vcpu| state(cells, self.kind, *vcpu).is_on());
        on.count() as u16
    }

    fn note(&mut self, vcpu: VcpuId, state: State) {
        let is_held = state.is_enabled() && !matches!(state, State::Withdrawn);
        self.lent.put(vcpu, is_held);
        self.spare.put(vcpu, !is_held);
        self.offered.put(vcpu, state == State::EnabledOff);
    }

    /// Takes note of an eject.
    pub(super) fn ejected(&mut self, vcpu: VcpuId, now_ns: u64) {
        self.closing.insert(vcpu);
        self.closes_ns = now_ns.saturating_add(EJECT_CLOSES_NS);
    }

    /// Returns whether the guest is still at the eject of a vCPU, which must not be offered to it before that is closed.
    pub(super) fn is_closing(&self, vcpu: VcpuId) -> bool {
        self.closing.contains(vcpu)
    }

    /// Returns when all ejects count as closed, if one is not.
    pub(super) fn closes_ns(&self) -> Option<u64> {
        (!self.closing.is_empty()).then_some(self.closes_ns)
    }

    /// Takes note that the guest is through with an eject; returns whether that is news.
    pub(super) fn close(&mut self, vcpu: VcpuId) -> bool {
        self.closing.remove(vcpu)
    }

    /// Closes all ejects if the guest has had its time; returns whether any was open.
    pub(super) fn close_old(&mut self, now_ns: u64) -> bool {
        let is_old = self.closes_ns().is_some_and(|at| at <= now_ns);
        if is_old {
            self.close_all();
        }
        is_old
    }

    /// Closes all ejects.
    pub(super) fn close_all(&mut self) {
        self.closing = VcpuSet::EMPTY;
    }

    /// Leaves in `offered` what is still off.
    pub(super) fn look_at_offered(&mut self, cells: &impl Cells) {
        let mut from = 0;
        while let Some(vcpu) = self.offered.first_from(from) {
            from = vcpu.get() + 1;
            if state(cells, self.kind, vcpu) != State::EnabledOff {
                self.offered.remove(vcpu);
            }
        }
    }
}

/// What a step of a resize works with.
pub(super) struct Step<'a, C> {
    pub(super) cells: &'a C,
    pub(super) ledger: &'a mut Ledger,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl<C: Cells> Step<'_, C> {
    /// Applies an event to a vCPU's cell and takes note of what came of it.
    pub(super) fn apply(&mut self, vcpu: VcpuId, event: Event) -> Result<State, Refusal> {
        let cell = self
            .cells
            .cell(self.ledger.kind, vcpu)
            .ok_or(Refusal::Absent)?;
        let next = cell.apply(event)?;
        self.ledger.note(vcpu, next);
        Ok(next)
    }
}
