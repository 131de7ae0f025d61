//! The vCPU hot-plug block: how ACPI code in a guest learns of added and wanted vCPUs, and answers.
//!
//! The block keeps events that the guest has not read yet and decodes the answers. Whether a vCPU is enabled is known to
//! `psci` alone, so STA is asked of the caller, and an ejection is handed to the caller, who decides and acts before the
//! guest's write retires. The GED interrupt is an edge: methods that make an event pending return whether to pulse it.
//!
//! Neighbours: `spec` (the registers), `firmware::acpi` (the AML that uses them), `docs/hotplug-registers.md`.

pub mod spec;
#[cfg(test)]
mod tests;

use spec::Register;
use types::access::AccessWidth;
use types::hotplug::{self as map, Notify};
use types::ids::{VcpuId, VcpuSet};

/// What a guest's write means.
#[must_use = "an ejection takes effect only when the caller acts on it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotplugWrite {
    /// Nothing: no such register, not writable, or a value without meaning.
    Ignored,
    /// The guest ran `_EJ0`: its last use of the vCPU is over.
    Eject(VcpuId),
    /// The guest ran `_OST` (ACPI 6.5, 6.3.5). A report of success proves nothing; CPU_ON does.
    Ost {
        /// The processor that the report is about.
        vcpu: VcpuId,
        /// The Notify value answered, or 0x103 for an ejection that the guest began itself.
        event: u16,
        /// 0 for success; 0x80 and up say why not.
        status: u16,
    },
}

/// The register block of one VM.
#[derive(Debug)]
pub struct HotplugBlock {
    possible: u16,
    inserts: VcpuSet,
    ejects: VcpuSet,
    power_button: bool,
}

impl HotplugBlock {
    /// Makes a block without events for vCPUs 0 to `possible` - 1; more than [`types::ids::MAX_VCPUS`] are not described.
    #[must_use]
    pub const fn new(possible: u16) -> Self {
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
    pub fn request_insert(&mut self, vcpu: VcpuId) -> bool {
        self.ejects.remove(vcpu);
        self.describes(vcpu) && self.inserts.insert(vcpu)
    }

    /// Asks for a vCPU back, replacing an announcement the guest has not read; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn request_eject(&mut self, vcpu: VcpuId) -> bool {
        self.inserts.remove(vcpu);
        self.describes(vcpu) && self.ejects.insert(vcpu)
    }

    /// Withdraws what the guest has not read about a vCPU.
    pub fn cancel(&mut self, vcpu: VcpuId) {
        self.inserts.remove(vcpu);
        self.ejects.remove(vcpu);
    }

    /// Presses the power button; returns whether to pulse the GED interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn press_power_button(&mut self) -> bool {
        !core::mem::replace(&mut self.power_button, true)
    }

    /// Returns whether an event waits to be read.
    #[must_use]
    pub const fn has_event(&self) -> bool {
        self.power_button || !self.ejects.is_empty() || !self.inserts.is_empty()
    }

    /// Forgets all events, as a system reset does.
    pub fn reset(&mut self) {
        *self = Self::new(self.possible);
    }

    /// Reads a register; `sta` gives a vCPU's STA value ([`psci::STA_ENABLED`] or [`psci::STA_DISABLED`]) if it is asked for.
    ///
    /// A caller that wants to read STA without a lock decodes with [`Register::decode`] first.
    #[must_use]
    pub fn read(
        &mut self,
        offset: u64,
        width: AccessWidth,
        sta: impl FnOnce(VcpuId) -> u32,
    ) -> u64 {
        let value = match Register::decode(offset, width, self.possible) {
            Some(Register::Event) => self.take_event(),
            Some(Register::Count) => u32::from(self.possible),
            Some(Register::Sta(vcpu)) => sta(vcpu),
            Some(Register::Eject(_) | Register::Ost(_)) | None => 0,
        };
        u64::from(value)
    }

    /// Decodes a write; the block itself does not change, so no lock is needed.
    pub fn write(&self, offset: u64, width: AccessWidth, value: u64) -> HotplugWrite {
        match Register::decode(offset, width, self.possible) {
            Some(Register::Eject(vcpu)) if value & map::EJECT_CONFIRM != 0 => {
                HotplugWrite::Eject(vcpu)
            }
            Some(Register::Ost(vcpu)) => HotplugWrite::Ost {
                vcpu,
                event: (value >> map::OST_SOURCE_SHIFT) as u16,
                status: value as u16,
            },
            _ => HotplugWrite::Ignored,
        }
    }

    /// Takes the next event: the power button, then ejections, then insertions, each by ascending UID.
    fn take_event(&mut self) -> u32 {
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
