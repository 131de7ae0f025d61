//! How a resize ended, in values for programs and in sentences for people.

pub mod meter;
pub mod ost;

use alloc::vec::Vec;
use core::fmt;

use types::hotplug::Kind;
use types::ids::VcpuId;

/// Where a resize was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator, who waits for the report.
    Operator,
    /// A reset of the VM, after which the vCPUs it held are offered again; the operator's next request replaces it.
    Reset,
}

types::words! {
    /// How a resize ended.
    Outcome:
    /// The VM has what was asked for.
    Done = "done",
    /// Some of it; the shortfalls say what is missing and why.
    Partly = "partly",
    /// None of it, and every vCPU's reason is a refusal, not silence.
    Refused = "refused",
    /// None of it, and the guest has not answered for all of them.
    TimedOut = "timed-out",
}

/// Why a vCPU was not added or not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It belongs to the boot set, which is never taken back.
    BootVcpu,
    /// The guest has not read an event since it started.
    NotListening,
    /// The guest has said nothing about it.
    NotTurnedOn,
    /// The guest has not acknowledged a memory slot.
    NotAcknowledged,
    /// The guest has acknowledged it (`_OST` success, which proves nothing) and not turned it on.
    OnlyAcknowledged,
    /// The guest reported by `_OST` that it can't add it.
    AddRefused(u16),
    /// The guest ejected it without being asked.
    GivenBack,
    /// The guest reported by `_OST` that it keeps it.
    EjectRefused(u16),
    /// The guest has not answered the eject request.
    EjectUnanswered,
    /// The guest said that it was ejecting it and has not come to an end.
    EjectUnfinished,
    /// The guest reported success of an eject that did not take place.
    EjectNotCarriedOut,
    /// The guest may use it and has it off, as with `maxcpus=`, or because a user took it offline there.
    LeftOff,
    /// The VM went off meanwhile.
    VmOff,
}

impl Why {
    /// Returns the word for it that control messages use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BootVcpu => "boot-vcpu",
            Self::NotListening => "not-listening",
            Self::NotTurnedOn => "not-turned-on",
            Self::NotAcknowledged => "not-acknowledged",
            Self::OnlyAcknowledged => "only-acknowledged",
            Self::AddRefused(_) => "add-refused",
            Self::GivenBack => "given-back",
            Self::EjectRefused(_) => "eject-refused",
            Self::EjectUnanswered => "eject-unanswered",
            Self::EjectUnfinished => "eject-unfinished",
            Self::EjectNotCarriedOut => "eject-not-carried-out",
            Self::LeftOff => "left-off",
            Self::VmOff => "vm-off",
        }
    }

    /// Returns whether the answer is a clear no, as opposed to silence until the deadline.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::BootVcpu
                | Self::AddRefused(_)
                | Self::GivenBack
                | Self::EjectRefused(_)
                | Self::LeftOff
                | Self::VmOff
        )
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BootVcpu => "boot vCPU, cannot be taken back",
            Self::NotListening => "guest has not listened for hot-add since it started (still booting, or without ACPI?)",
            Self::NotTurnedOn => {
                "guest did not turn it on (is it listening for hot-add? Linux older than 6.11 does not)"
            }
            Self::NotAcknowledged => "guest has said nothing about it",
            Self::OnlyAcknowledged => {
                "guest noticed it but did not turn it on (Linux older than 6.11, nr_cpus=, or no udev rule?)"
            }
            Self::GivenBack => "guest gave it back unasked",
            Self::EjectUnanswered => "guest did not answer the eject request",
            Self::EjectUnfinished => "guest began to eject it and did not finish",
            Self::EjectNotCarriedOut => "guest says it ejected it, but still has it",
            Self::LeftOff => "guest may use it and has it off (maxcpus=, or taken offline in the guest?)",
            Self::VmOff => "VM was turned off",
            Self::AddRefused(status) => {
                let meaning = ost::add_failure(*status);
                return write!(f, "guest refused it: {meaning} (_OST status {status:#x})");
            }
            Self::EjectRefused(status) => {
                let meaning = ost::eject_failure(*status);
                return write!(f, "guest keeps it: {meaning} (_OST status {status:#x})");
            }
        })
    }
}

/// A vCPU, or a memory slot, that was not added or not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The vCPU or the slot.
    pub vcpu: VcpuId,
    /// The reason.
    pub why: Why,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.vcpu, self.why)
    }
}

/// The one answer to a resize, of vCPUs or of memory slots.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the one that asked waits for it"]
pub struct Report {
    /// What it is about.
    pub kind: Kind,
    /// Where it was asked for.
    pub origin: Origin,
    /// How it ended.
    pub outcome: Outcome,
    /// How many were asked for.
    pub requested: u16,
    /// How many are on now; of memory slots, how many the guest has.
    pub reached: u16,
    /// What is missing or was kept, by ascending vCPU.
    pub shortfalls: Vec<Shortfall>,
}

/// Why a resize was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginError {
    /// The operator's resize to this many vCPUs has not ended yet.
    Busy {
        /// What it was asked for.
        target: u16,
    },
    /// A VM cannot do without a vCPU.
    Zero,
    /// More vCPUs than the VM was described with.
    TooMany {
        /// How many it can have.
        possible: u16,
    },
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { target } => write!(f, "a resize to {target} vCPUs is under way"),
            Self::Zero => f.write_str("a VM has at least one vCPU"),
            Self::TooMany { possible } => write!(f, "the VM has at most {possible} vCPUs"),
        }
    }
}
