//! Which register of the hot-plug block an access names; the map itself is `types::hotplug`, which firmware describes.

use types::access::AccessWidth;
use types::hotplug::{
    COUNT, EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, FRAMES, Kind, SLOT_FRAMES, SLOTS,
};
use types::ids::VcpuId;

/// How many of each kind a block describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) vcpus: u16,
    pub(super) slots: u16,
}

impl Counts {
    /// Returns whether the block describes a vCPU or slot.
    pub(super) const fn has(self, kind: Kind, member: VcpuId) -> bool {
        let count = match kind {
            Kind::Vcpu => self.vcpus,
            Kind::Slot => self.slots,
        };
        member.get() < count
    }
}

/// A register that an access names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// The next event.
    Event,
    /// The number of possible vCPUs.
    Count,
    /// The number of memory slots.
    Slots,
    /// The `_STA` of a vCPU or slot.
    Sta(Kind, VcpuId),
    /// Its `_EJ0`.
    Eject(Kind, VcpuId),
    /// Its `_OST`.
    Ost(Kind, VcpuId),
}

impl Register {
    /// Finds the register of an access; `None` for a width other than 32 bits, a hole, or what the block does not describe.
    #[inline(always)]
    #[must_use]
    pub(super) fn decode(offset: u64, width: AccessWidth, counts: Counts) -> Option<Self> {
        if width != AccessWidth::Word {
            return None;
        }
        let (kind, count, within) = if let Some(within) = offset.checked_sub(SLOT_FRAMES) {
            (Kind::Slot, counts.slots, within)
        } else if let Some(within) = offset.checked_sub(FRAMES) {
            (Kind::Vcpu, counts.vcpus, within)
        } else {
            return match offset {
                EVENT => Some(Self::Event),
                COUNT => Some(Self::Count),
                SLOTS => Some(Self::Slots),
                _ => None,
            };
        };
        let index = within / FRAME_BYTES;
        if index >= u64::from(count) {
            return None;
        }
        let member = VcpuId::new(index as u16);
        match within % FRAME_BYTES {
            FRAME_STA => Some(Self::Sta(kind, member)),
            FRAME_EJECT => Some(Self::Eject(kind, member)),
            FRAME_OST => Some(Self::Ost(kind, member)),
            _ => None,
        }
    }
}
