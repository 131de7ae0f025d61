//! The vCPU hot-plug block: how ACPI code in a guest learns of added and wanted vCPUs, and answers.
//!
//! `_STA` is read without a lock. What a guest answers is handed out as work, to be done before its write is over. The GED interrupt is an
//! edge: methods that make an event pending return whether to pulse it.
//!
//! Neighbours: `registers` (events, decoding), `firmware::acpi` (the AML that uses them), `docs/hotplug-registers.md`.

mod registers;
mod spec;
#[cfg(test)]
mod tests;

use super::{Access, Answer, Device, Parts, Surroundings, Vcpus, Work};
use core::sync::atomic::{AtomicBool, Ordering};
use registers::{HotplugBlock, answer};
use spec::Register;
use spin::mutex::SpinMutex;
use types::ids::VcpuId;

/// The block of one VM.
#[derive(Debug)]
pub struct Hotplug {
    possible: u16,
    block: SpinMutex<HotplugBlock>,
    /// The guest has read its event register since it started.
    listens: AtomicBool,
}

impl Hotplug {
    /// Lets the guest read events.
    pub fn listen(&self) {
        self.listens.store(true, Ordering::Release);
    }

    /// Announces an added vCPU, replacing an ejection the guest has not read; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn request_insert(&self, vcpu: VcpuId) -> bool {
        self.block.lock().request_insert(vcpu)
    }

    /// Asks for a vCPU back, replacing an announcement the guest has not read; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn request_eject(&self, vcpu: VcpuId) -> bool {
        self.block.lock().request_eject(vcpu)
    }

    /// Withdraws what the guest has not read about a vCPU.
    pub fn cancel(&self, vcpu: VcpuId) {
        self.block.lock().cancel(vcpu);
    }

    /// Presses the power button; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn press_power_button(&self) -> bool {
        self.block.lock().press_power_button()
    }
}

impl Device for Hotplug {
    fn new(parts: &Parts) -> Self {
        let block = HotplugBlock::new(parts.possible);
        Self {
            possible: block.possible(),
            block: SpinMutex::new(block),
            listens: AtomicBool::new(false),
        }
    }

    /// Reads `_STA`.
    #[inline(always)]
    fn peek(&self, access: Access, vcpus: &impl Vcpus) -> Option<u64> {
        match Register::decode(access.offset, access.width, self.possible) {
            Some(Register::Sta(vcpu)) => Some(u64::from(vcpus.sta(vcpu))),
            _ => None,
        }
    }

    fn read(&self, access: Access, _: &mut impl Surroundings) -> Result<u64, Work> {
        let value = match Register::decode(access.offset, access.width, self.possible) {
            Some(Register::Event) if !self.listens.load(Ordering::Relaxed) => {
                return Err(Work::Resize(Answer::Listens));
            }
            Some(Register::Event) => self.block.lock().take_event(),
            Some(Register::Count) => u32::from(self.possible),
            Some(Register::Sta(_) | Register::Eject(_) | Register::Ost(_)) | None => 0,
        };
        Ok(u64::from(value))
    }

    fn write(&self, access: Access, value: u64, _: &mut impl Surroundings) -> Option<Work> {
        answer(access.offset, access.width, value, self.possible).map(Work::Resize)
    }

    fn reset(&self) {
        self.block.lock().reset();
        self.listens.store(false, Ordering::Release);
    }
}
