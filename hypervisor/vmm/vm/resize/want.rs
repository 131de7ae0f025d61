//! One vCPU of a resize: how far the guest has come with it, and what each thing said about it leads to.

use psci::{Event, Refusal};

use super::ledger::Step;
use super::{Cells, Effect};
use control_plane::resize::Why;
use control_plane::resize::ost::Ost;
use types::hotplug::Kind;
use types::ids::VcpuId;

/// How far one vCPU of a resize is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be offered once the guest listens, and is through with an earlier eject of it.
    Waiting,
    /// Offered; CPU_ON and the first entry are awaited.
    Offered {
        acknowledged: bool,
    },
    /// Asked back; `_EJ0` is awaited.
    Asked(EjectWord),
    Reached,
    Failed(Why),
}

/// The last the guest has said about an eject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EjectWord {
    Nothing,
    InProgress,
    Success,
}

impl Phase {
    /// Offered, and nothing heard.
    pub(super) const OFFERED: Self = Self::Offered {
        acknowledged: false,
    };

    pub(super) const fn is_decided(self) -> bool {
        matches!(self, Self::Reached | Self::Failed(_))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) vcpu: VcpuId,
    pub(super) phase: Phase,
}

impl Want {
    /// Offers the vCPU; one that the guest holds already is just awaited.
    pub(super) fn offer(&mut self, step: &mut Step<'_, impl Cells>) {
        if step.apply(self.vcpu, Event::Offer).is_ok() {
            step.effects.push(Effect::Insert(self.vcpu));
        }
        self.phase = Phase::OFFERED;
    }

    /// Takes note of what the guest says about the vCPU.
    pub(super) fn hear(&mut self, step: &mut Step<'_, impl Cells>, said: Ost) {
        self.phase = match (self.phase, said) {
            (Phase::Offered { .. }, Ost::Added) => Phase::Offered { acknowledged: true },
            (Phase::Offered { .. }, Ost::AddFailed(status)) => {
                self.withdraw(step, Why::AddRefused(status))
            }
            (Phase::Asked(_), Ost::Ejecting) => Phase::Asked(EjectWord::InProgress),
            (Phase::Asked(_), Ost::Ejected) => Phase::Asked(EjectWord::Success),
            (Phase::Asked(_), Ost::EjectFailed(status)) => {
                self.keep(step, Why::EjectRefused(status))
            }
            (phase, _) => phase,
        };
    }

    /// Decides the vCPU at the deadline.
    pub(super) fn give_up(&mut self, step: &mut Step<'_, impl Cells>) {
        self.phase = match self.phase {
            Phase::Waiting if step.ledger.is_closing(self.vcpu) => {
                Phase::Failed(Why::EjectUnfinished)
            }
            Phase::Waiting => Phase::Failed(Why::NotListening),
            Phase::Offered {
                acknowledged: false,
            } => self.withdraw(
                step,
                match step.ledger.kind {
                    Kind::Vcpu => Why::NotTurnedOn,
                    Kind::Slot => Why::NotAcknowledged,
                },
            ),
            Phase::Offered { acknowledged: true } => self.withdraw(step, Why::OnlyAcknowledged),
            Phase::Asked(word) => {
                let why = match word {
                    EjectWord::Nothing => Why::EjectUnanswered,
                    EjectWord::InProgress => Why::EjectUnfinished,
                    EjectWord::Success => Why::EjectNotCarriedOut,
                };
                self.keep(step, why)
            }
            decided => decided,
        };
    }

    /// Withdraws an offer, unless the guest has been quicker and turned it on, or given it back.
    fn withdraw(&self, step: &mut Step<'_, impl Cells>, why: Why) -> Phase {
        match step.apply(self.vcpu, Event::Withdraw) {
            Ok(_) => {
                step.effects.push(Effect::Eject(self.vcpu));
                Phase::Failed(why)
            }
            Err(Refusal::AlreadyOn) => Phase::Reached,
            Err(_) => Phase::Failed(Why::GivenBack),
        }
    }

    /// Takes an eject request back, unless the guest has been quicker and given the vCPU back.
    fn keep(&self, step: &mut Step<'_, impl Cells>, why: Why) -> Phase {
        match step.apply(self.vcpu, Event::EjectRefused) {
            Ok(_) => {
                step.effects.push(Effect::Retract(self.vcpu));
                Phase::Failed(why)
            }
            Err(_) => Phase::Reached,
        }
    }
}
