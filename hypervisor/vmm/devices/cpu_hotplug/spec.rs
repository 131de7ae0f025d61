//! Which register of the vCPU hot-plug block an access names; the map itself is `types::hotplug`, which firmware describes.

use types::access::AccessWidth;
use types::hotplug::{COUNT, EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, FRAMES};
use types::ids::VcpuId;

/// A register that an access names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// The next event.
    Event,
    /// The number of possible vCPUs.
    Count,
    /// A vCPU's `_STA`.
    Sta(VcpuId),
    /// A vCPU's `_EJ0`.
    Eject(VcpuId),
    /// A vCPU's `_OST`.
    Ost(VcpuId),
}

impl Register {
    /// Finds the register of an access; `None` for a width other than 32 bits, a hole, or a vCPU beyond `possible`.
    #[inline(always)]
    #[must_use]
    pub(super) fn decode(offset: u64, width: AccessWidth, possible: u16) -> Option<Self> {
        if width != AccessWidth::Word {
            return None;
        }
        let Some(within) = offset.checked_sub(FRAMES) else {
            return match offset {
                EVENT => Some(Self::Event),
                COUNT => Some(Self::Count),
                _ => None,
            };
        };
        let index = within / FRAME_BYTES;
        if index >= u64::from(possible) {
            return None;
        }
        let vcpu = VcpuId::new(index as u16);
        match within % FRAME_BYTES {
            FRAME_STA => Some(Self::Sta(vcpu)),
            FRAME_EJECT => Some(Self::Eject(vcpu)),
            FRAME_OST => Some(Self::Ost(vcpu)),
            _ => None,
        }
    }
}
