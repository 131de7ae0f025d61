//! The block's registers: events that the guest has not read yet, and the decoding of its answers.
//!
//! Whether a vCPU is enabled is known to `psci` alone, so STA is asked of the caller. The GED interrupt is an edge: methods that make an
//! event pending return whether to pulse it.
//!
//! Neighbours: `spec` (the map).

use super::spec::Register;
use crate::devices::Answer;
use types::access::AccessWidth;
use types::hotplug::{self as map, Notify};
use types::ids::{VcpuId, VcpuSet};

/// The register block of one VM.
#[derive(Debug)]
pub(super) struct HotplugBlock {
    possible: u16,
    inserts: VcpuSet,
    ejects: VcpuSet,
    power_button: bool,
}

impl HotplugBlock {
    /// Makes a block without events for vCPUs 0 to `possible` - 1; more than [`types::ids::MAX_VCPUS`] are not described.
    #[must_use]
    pub(super) const fn new(possible: u16) -> Self {
        let possible = if possible < types::ids::MAX_VCPUS {
            possible
        } else {
            types::ids::MAX_VCPUS
        };
        Self {
            possible,
            inserts: VcpuSet::EMPTY,
            ejects: VcpuSet::EMPTY,
            power_button: false,
        }
    }

    /// Announces an added vCPU, replacing an ejection the guest has not read; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn request_insert(&mut self, vcpu: VcpuId) -> bool {
        self.ejects.remove(vcpu);
        self.describes(vcpu) && self.inserts.insert(vcpu)
    }

    /// Asks for a vCPU back, replacing an announcement the guest has not read; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn request_eject(&mut self, vcpu: VcpuId) -> bool {
        self.inserts.remove(vcpu);
        self.describes(vcpu) && self.ejects.insert(vcpu)
    }

    /// Withdraws what the guest has not read about a vCPU.
    pub(super) fn cancel(&mut self, vcpu: VcpuId) {
        self.inserts.remove(vcpu);
        self.ejects.remove(vcpu);
    }

    /// Presses the power button; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub(super) fn press_power_button(&mut self) -> bool {
        !core::mem::replace(&mut self.power_button, true)
    }

    /// Returns whether an event waits to be read.
    #[must_use]
    pub(super) const fn has_event(&self) -> bool {
        self.power_button || !self.ejects.is_empty() || !self.inserts.is_empty()
    }

    /// Forgets all events, as a system reset does.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.possible);
    }

    /// Returns how many vCPUs it describes.
    pub(super) const fn possible(&self) -> u16 {
        self.possible
    }

    /// Takes the next event: the power button, then ejections, then insertions, each by ascending UID.
    pub(super) fn take_event(&mut self) -> u32 {
        let (code, uid) = if core::mem::take(&mut self.power_button) {
            (Notify::PowerButton, 0)
        } else if let Some(vcpu) = self.ejects.take_first() {
            (Notify::EjectRequest, vcpu.get())
        } else if let Some(vcpu) = self.inserts.take_first() {
            (Notify::DeviceCheck, vcpu.get())
        } else {
            return 0;
        };
        let more = if self.has_event() { map::EVENT_MORE } else { 0 };
        map::EVENT_VALID | more | (code as u32) << map::EVENT_CODE_SHIFT | u32::from(uid)
    }

    const fn describes(&self, vcpu: VcpuId) -> bool {
        vcpu.get() < self.possible
    }
}

/// Decodes a write for a block of so many vCPUs; the block itself does not change.
pub(super) fn answer(offset: u64, width: AccessWidth, value: u64, possible: u16) -> Option<Answer> {
    match Register::decode(offset, width, possible)? {
        Register::Eject(vcpu) if value & map::EJECT_CONFIRM != 0 => Some(Answer::Eject(vcpu)),
        Register::Ost(vcpu) => Some(Answer::Ost {
            vcpu,
            event: (value >> map::OST_SOURCE_SHIFT) as u16,
            status: value as u16,
        }),
        _ => None,
    }
}
