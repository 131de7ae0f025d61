//! The block's registers: events that the guest has not read yet, and the decoding of its answers.
//!
//! Whether a vCPU is enabled is known to `psci` alone, so STA is asked of the caller. The GED interrupt is an edge: methods that make an
//! event pending return whether to pulse it.
//!
//! Neighbours: `spec` (the map).

use super::spec::{Counts, Register};
use crate::devices::Answer;
use types::access::AccessWidth;
use types::hotplug::{self as map, Kind, Notify};
use types::ids::{VcpuId, VcpuSet};

/// The register block of one VM.
#[derive(Debug)]
pub(super) struct HotplugBlock {
    counts: Counts,
    vcpus: Requests,
    slots: Requests,
    power_button: bool,
}

/// What the guest has not read about one kind.
#[derive(Debug)]
struct Requests {
    inserts: VcpuSet,
    ejects: VcpuSet,
}

impl Requests {
    const NONE: Self = Self {
        inserts: VcpuSet::EMPTY,
        ejects: VcpuSet::EMPTY,
    };

    const fn is_empty(&self) -> bool {
        self.ejects.is_empty() && self.inserts.is_empty()
    }

    /// Takes the next event: ejections, then insertions, each by ascending number.
    fn take(&mut self) -> Option<(Notify, VcpuId)> {
        if let Some(member) = self.ejects.take_first() {
            return Some((Notify::EjectRequest, member));
        }
        let member = self.inserts.take_first()?;
        Some((Notify::DeviceCheck, member))
    }
}

impl HotplugBlock {
    /// Makes a block without events for so many of each kind; more than [`types::ids::MAX_VCPUS`] are not described.
    #[must_use]
    pub(super) fn new(counts: Counts) -> Self {
        Self {
            counts: Counts {
                vcpus: counts.vcpus.min(types::ids::MAX_VCPUS),
                slots: counts.slots.min(types::layout::MAX_SLOTS),
            },
            vcpus: Requests::NONE,
            slots: Requests::NONE,
            power_button: false,
        }
    }

    const fn of(&mut self, kind: Kind) -> &mut Requests {
        match kind {
            Kind::Vcpu => &mut self.vcpus,
            Kind::Slot => &mut self.slots,
        }
    }

    /// Announces an added vCPU or slot, replacing an ejection the guest has not read; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn request_insert(&mut self, kind: Kind, member: VcpuId) -> bool {
        let is_known = self.counts.has(kind, member);
        let requests = self.of(kind);
        requests.ejects.remove(member);
        is_known && requests.inserts.insert(member)
    }

    /// Asks for a vCPU or slot back, replacing an announcement the guest has not read; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn request_eject(&mut self, kind: Kind, member: VcpuId) -> bool {
        let is_known = self.counts.has(kind, member);
        let requests = self.of(kind);
        requests.inserts.remove(member);
        is_known && requests.ejects.insert(member)
    }

    /// Withdraws what the guest has not read about a vCPU or slot.
    pub(super) fn cancel(&mut self, kind: Kind, member: VcpuId) {
        let requests = self.of(kind);
        requests.inserts.remove(member);
        requests.ejects.remove(member);
    }

    /// Presses the power button; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn press_power_button(&mut self) -> bool {
        !core::mem::replace(&mut self.power_button, true)
    }

    /// Returns whether an event waits to be read.
    #[must_use]
    pub(super) const fn has_event(&self) -> bool {
        self.power_button || !self.vcpus.is_empty() || !self.slots.is_empty()
    }

    /// Forgets all events, as a system reset does.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.counts);
    }

    /// Returns how many vCPUs and slots it describes.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the next event: the power button, then vCPUs' ejections and insertions, then those of slots, each by ascending number.
    pub(super) fn take_event(&mut self) -> u32 {
        let (code, what) = if core::mem::take(&mut self.power_button) {
            (Notify::PowerButton, 0)
        } else if let Some((code, vcpu)) = self.vcpus.take() {
            (code, u32::from(vcpu.get()))
        } else if let Some((code, slot)) = self.slots.take() {
            (code, map::EVENT_SLOT | u32::from(slot.get()))
        } else {
            return 0;
        };
        let more = if self.has_event() { map::EVENT_MORE } else { 0 };
        map::EVENT_VALID | more | (code as u32) << map::EVENT_CODE_SHIFT | what
    }
}

/// Decodes a write for a block of so many vCPUs and slots; the block itself does not change.
pub(super) fn answer(
    offset: u64,
    width: AccessWidth,
    value: u64,
    counts: Counts,
) -> Option<(Kind, Answer)> {
    match Register::decode(offset, width, counts)? {
        Register::Eject(kind, member) if value & map::EJECT_CONFIRM != 0 => {
            Some((kind, Answer::Eject(member)))
        }
        Register::Ost(kind, vcpu) => {
            let answer = Answer::Ost {
                vcpu,
                event: (value >> map::OST_SOURCE_SHIFT) as u16,
                status: value as u16,
            };
            Some((kind, answer))
        }
        _ => None,
    }
}
