//! The life of a virtual CPU, from the reserve through the guest's hands and back, as one pure function.
//!
//! Two parties act on a virtual CPU: the guest by PSCI and by the ACPI objects `_EJ0` and `_OST`, the operator by offering it and asking
//! for it back. [`transition`] says for every state and event what comes next or why it is refused; [`crate::cell`] applies it atomically.
//!
//! ```text
//!            Offer              CpuOn, Publish           Started
//!  Reserve ---------> EnabledOff -----------> OnPending ---------> On <------> Off      RequestEject adds "eject pending" to each;
//!     ^                   |  Withdraw                                  CpuOff   |       EjectRefused takes it away again
//!     |                   v                                                     |
//!     +---- Eject --- Withdrawn (CPU_ON denied, _STA still enabled)             |
//!     +---- Eject (only of what is off) ----------------------------------------+
//! ```

use crate::smccc::ReturnCode;

/// Where a virtual CPU is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// There is no such virtual CPU.
    Absent = 0,
    /// Described to the guest, held back: `_STA` disabled, CPU_ON denied.
    Reserve = 1,
    /// The guest may turn it on and has not done so since it got it; also a boot virtual CPU before its first CPU_ON.
    EnabledOff = 2,
    /// A CPU_ON has won and is writing the entry point down.
    Starting = 3,
    /// CPU_ON has succeeded; the first instruction is still to come.
    OnPending = 4,
    /// Running guest code, or waiting in WFI or CPU_SUSPEND.
    On = 5,
    /// Has been on and called CPU_OFF.
    Off = 6,
    /// Offered, not turned on in time, asked back: CPU_ON is denied, `_STA` stays enabled until `_EJ0`, since Linux breaks if an enabled
    /// processor turns disabled by itself.
    Withdrawn = 7,
    /// [`State::Starting`] with an eject request out.
    EjectStarting = 8,
    /// [`State::OnPending`] with an eject request out.
    EjectOnPending = 9,
    /// [`State::On`] with an eject request out.
    EjectOn = 10,
    /// [`State::Off`] with an eject request out; CPU_ON stays allowed, because Linux turns the CPU on again when it rolls an eject back.
    EjectOff = 11,
}

/// What kind of virtual CPU it is; fixed for the life of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// One of the boot set: enabled in the MADT, without `_EJ0`, never taken back.
    Boot,
    /// Online-capable in the MADT; comes from the reserve and goes back to it.
    Hotplug,
}

/// What happens to a virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The guest calls CPU_ON for it (or the VM's loader does, for the boot CPU).
    CpuOn,
    /// The winner of CPU_ON has written the entry point.
    Publish,
    /// Its first instruction is about to run.
    Started,
    /// It calls CPU_OFF.
    CpuOff,
    /// The operator adds it.
    Offer,
    /// The deadline of an offer has passed.
    Withdraw,
    /// The operator asks for it back.
    RequestEject,
    /// The guest refused to give it back (`_OST`), or the request's deadline has passed.
    EjectRefused,
    /// The guest gives it back (`_EJ0`).
    Eject,
    /// The VM is reset; no virtual CPU of it runs.
    Reset,
}

/// Why an event was refused; the state stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Refusal {
    /// There is no such virtual CPU.
    Absent,
    /// The operator holds it back.
    HeldBack,
    /// The guest has already turned it on, or is doing so.
    AlreadyOn,
    /// It is not on.
    NotOn,
    /// It still runs, so it cannot be ejected.
    StillOn,
    /// It belongs to the boot set, which is never taken back.
    BootSet,
    /// The guest already holds it.
    AlreadyEnabled,
    /// The guest does not hold it.
    NotEnabled,
    /// It was not asked back.
    NoEjectRequested,
    /// No CPU_ON is under way.
    NoStart,
}

impl Refusal {
    /// Returns what a guest that caused the refusal by a PSCI call is told (DEN0022F, CPU_ON and CPU_OFF).
    pub const fn code(self) -> ReturnCode {
        match self {
            Self::Absent => ReturnCode::InvalidParameters,
            Self::AlreadyOn => ReturnCode::AlreadyOn,
            Self::NoStart => ReturnCode::InternalFailure,
            _ => ReturnCode::Denied,
        }
    }
}

/// Every state, for tables and tests.
pub(crate) const STATES: [State; 12] = [
    State::Absent,
    State::Reserve,
    State::EnabledOff,
    State::Starting,
    State::OnPending,
    State::On,
    State::Off,
    State::Withdrawn,
    State::EjectStarting,
    State::EjectOnPending,
    State::EjectOn,
    State::EjectOff,
];

/// `_STA` of a processor the guest may use: present, enabled, shown, functioning (ACPI 6.5 §6.3.7).
pub const STA_ENABLED: u32 = 0x0f;
/// `_STA` of a processor held back: as [`STA_ENABLED`] without the enabled bit; present is always set on arm64.
pub const STA_DISABLED: u32 = 0x0d;

/// What AFFINITY_INFO says of a virtual CPU that is off and not on its way (DEN0022, 5.7).
pub const AFFINITY_OFF: u64 = 1;

impl State {
    /// Returns the word for it that an operator reads: a claim in progress is "on-pending", an eject request out "eject-pending".
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Reserve => "reserve",
            Self::EnabledOff => "enabled-off",
            Self::Starting | Self::OnPending => "on-pending",
            Self::On => "on",
            Self::Off => "off",
            Self::Withdrawn => "withdrawn",
            Self::EjectStarting | Self::EjectOnPending | Self::EjectOn | Self::EjectOff => {
                "eject-pending"
            }
        }
    }

    /// Reads a state from the number it is stored as; a number that is none is [`State::Absent`].
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Reserve,
            2 => Self::EnabledOff,
            3 => Self::Starting,
            4 => Self::OnPending,
            5 => Self::On,
            6 => Self::Off,
            7 => Self::Withdrawn,
            8 => Self::EjectStarting,
            9 => Self::EjectOnPending,
            10 => Self::EjectOn,
            11 => Self::EjectOff,
            _ => Self::Absent,
        }
    }

    /// Returns whether `_STA` says enabled: the guest holds the virtual CPU, or holds it still.
    #[inline]
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        !matches!(self, Self::Absent | Self::Reserve)
    }

    /// Returns whether the guest has turned it on and it is not off again (on-pending counts as on).
    #[inline]
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(
            self,
            Self::Starting
                | Self::OnPending
                | Self::On
                | Self::EjectStarting
                | Self::EjectOnPending
                | Self::EjectOn
        )
    }

    /// Returns what `_STA` of the processor evaluates to.
    #[inline]
    #[must_use]
    pub const fn sta(self) -> u32 {
        if self.is_enabled() {
            STA_ENABLED
        } else {
            STA_DISABLED
        }
    }

    /// Returns what AFFINITY_INFO says of it: 0 on, 1 off, 2 on-pending, or INVALID_PARAMETERS (DEN0022F).
    #[inline]
    #[must_use]
    pub const fn affinity_info(self) -> i32 {
        const ON: i32 = 0;
        const OFF: i32 = AFFINITY_OFF as i32;
        const ON_PENDING: i32 = 2;
        match self {
            Self::Absent => ReturnCode::InvalidParameters as i32,
            Self::On | Self::EjectOn => ON,
            Self::Reserve | Self::EnabledOff | Self::Off | Self::Withdrawn | Self::EjectOff => OFF,
            Self::Starting | Self::OnPending | Self::EjectStarting | Self::EjectOnPending => {
                ON_PENDING
            }
        }
    }

    /// Returns the state with an eject request added to it; one that is not the guest's has none.
    const fn with_eject(self) -> Option<Self> {
        Some(match self {
            Self::Absent | Self::Reserve => return None,
            Self::EnabledOff | Self::Withdrawn => Self::Withdrawn,
            Self::Starting | Self::EjectStarting => Self::EjectStarting,
            Self::OnPending | Self::EjectOnPending => Self::EjectOnPending,
            Self::On | Self::EjectOn => Self::EjectOn,
            Self::Off | Self::EjectOff => Self::EjectOff,
        })
    }

    /// Returns the state with its eject request taken back; a withdrawn virtual CPU stays withdrawn.
    const fn without_eject(self) -> Option<Self> {
        Some(match self {
            Self::Withdrawn => Self::Withdrawn,
            Self::EjectStarting => Self::Starting,
            Self::EjectOnPending => Self::OnPending,
            Self::EjectOn => Self::On,
            Self::EjectOff => Self::Off,
            _ => return None,
        })
    }

    /// Returns the state of a virtual CPU of this role when its VM starts or is reset.
    #[must_use]
    pub const fn at_reset(role: Role) -> Self {
        match role {
            Role::Boot => Self::EnabledOff,
            Role::Hotplug => Self::Reserve,
        }
    }
}

/// Decides what an event does to a virtual CPU in a state.
///
/// # Errors
/// A [`Refusal`] when the event does not apply; the state must then be left as it is.
#[inline]
pub const fn transition(role: Role, state: State, event: Event) -> Result<State, Refusal> {
    if matches!(state, State::Absent) {
        return Err(Refusal::Absent);
    }
    match event {
        Event::CpuOn => cpu_on(state),
        Event::Publish => match state {
            State::Starting => Ok(State::OnPending),
            State::EjectStarting => Ok(State::EjectOnPending),
            _ => Err(Refusal::NoStart),
        },
        Event::Started => match state {
            State::OnPending => Ok(State::On),
            State::EjectOnPending => Ok(State::EjectOn),
            _ => Err(Refusal::NoStart),
        },
        Event::CpuOff => match state {
            State::On => Ok(State::Off),
            State::EjectOn => Ok(State::EjectOff),
            _ => Err(Refusal::NotOn),
        },
        Event::Offer => match state {
            State::Reserve | State::Withdrawn => Ok(State::EnabledOff),
            _ => Err(Refusal::AlreadyEnabled),
        },
        Event::Withdraw | Event::RequestEject | Event::Eject => take_back(role, state, event),
        Event::EjectRefused => match state.without_eject() {
            Some(next) => Ok(next),
            None => Err(Refusal::NoEjectRequested),
        },
        Event::Reset => Ok(State::at_reset(role)),
    }
}

#[inline]
const fn cpu_on(state: State) -> Result<State, Refusal> {
    match state {
        State::EnabledOff | State::Off => Ok(State::Starting),
        State::EjectOff => Ok(State::EjectStarting),
        State::Absent => Err(Refusal::Absent),
        State::Reserve | State::Withdrawn => Err(Refusal::HeldBack),
        State::Starting
        | State::OnPending
        | State::On
        | State::EjectStarting
        | State::EjectOnPending
        | State::EjectOn => Err(Refusal::AlreadyOn),
    }
}

const fn take_back(role: Role, state: State, event: Event) -> Result<State, Refusal> {
    if matches!(role, Role::Boot) {
        return Err(Refusal::BootSet);
    }
    if !state.is_enabled() {
        return Err(Refusal::NotEnabled);
    }
    match (event, state) {
        (Event::Withdraw, State::EnabledOff | State::Withdrawn) => Ok(State::Withdrawn),
        (Event::Withdraw, _) => Err(Refusal::AlreadyOn),
        (Event::Eject, _) if state.is_on() => Err(Refusal::StillOn),
        (Event::Eject, _) => Ok(State::Reserve),
        (_, _) => match state.with_eject() {
            Some(next) => Ok(next),
            None => Err(Refusal::NotEnabled),
        },
    }
}

#[cfg(test)]
mod tests;
