//! What a guest says by `_OST` (ACPI 6.5 §6.3.5): source events and status codes, which mean different things for adding and ejecting.

/// Source events of an addition: Notify codes bus check and device check.
const BUS_CHECK: u16 = 0;
const DEVICE_CHECK: u16 = 1;
/// Source event of an eject that was asked for: Notify code 3.
const EJECT_REQUEST: u16 = 3;
/// Source event of an eject that the guest began itself.
const OWN_EJECT: u16 = 0x103;

/// Status: success.
const SUCCESS: u16 = 0;
/// Status of an addition: still at it.
const ADD_IN_PROGRESS: u16 = 0x80;
/// Status of an eject: still at it.
const EJECT_IN_PROGRESS: u16 = 0x84;

/// What one `_OST` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ost {
    /// The event was taken note of; that the vCPU will be used does not follow.
    Added,
    /// The vCPU can't be added.
    AddFailed(u16),
    /// An eject has begun.
    Ejecting,
    /// An eject is over, says the guest.
    Ejected,
    /// The vCPU is kept.
    EjectFailed(u16),
    /// An eject of the guest's own is over; what came of it, `_EJ0` tells.
    OwnEjectOver,
    /// Nothing that matters here: still adding, or at an eject of the guest's own.
    Other,
}

impl Ost {
    /// Decodes the two words of an `_OST`.
    #[must_use]
    pub const fn decode(source: u16, status: u16) -> Self {
        match (source, status) {
            (BUS_CHECK | DEVICE_CHECK, SUCCESS) => Self::Added,
            (BUS_CHECK | DEVICE_CHECK, ADD_IN_PROGRESS) => Self::Other,
            (BUS_CHECK | DEVICE_CHECK, _) => Self::AddFailed(status),
            (EJECT_REQUEST, SUCCESS) => Self::Ejected,
            (EJECT_REQUEST, EJECT_IN_PROGRESS) => Self::Ejecting,
            (EJECT_REQUEST, _) => Self::EjectFailed(status),
            (OWN_EJECT, EJECT_IN_PROGRESS) => Self::Other,
            (OWN_EJECT, _) => Self::OwnEjectOver,
            _ => Self::Other,
        }
    }

    /// Returns whether the guest is through with an eject, however it went.
    #[must_use]
    pub const fn closes_eject(self) -> bool {
        matches!(
            self,
            Self::Ejected | Self::EjectFailed(_) | Self::OwnEjectOver
        )
    }
}

/// Says what a failed addition's status means.
pub(super) const fn add_failure(status: u16) -> &'static str {
    match status {
        0x01 => "failure",
        0x02 => "unknown event",
        0x81 => "driver failed",
        0x82 => "not supported",
        _ => "unknown reason",
    }
}

/// Says what a failed eject's status means.
pub(super) const fn eject_failure(status: u16) -> &'static str {
    match status {
        0x01 => "failure",
        0x02 => "unknown event",
        0x80 => "eject not supported or disabled",
        0x81 => "in use",
        0x82 => "busy",
        0x83 => "something depends on it",
        _ => "unknown reason",
    }
}
