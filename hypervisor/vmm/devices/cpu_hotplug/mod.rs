//! The hot-plug block: how ACPI code in a guest learns of added and wanted vCPUs and memory slots, and answers.
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
use spec::{Counts, Register};
use spin::mutex::SpinMutex;
use types::hotplug::Kind;
use types::ids::VcpuId;

/// The block of one VM.
#[derive(Debug)]
pub struct Hotplug {
    counts: Counts,
    block: SpinMutex<HotplugBlock>,
    /// The guest has read its event register since it started.
    listens: AtomicBool,
}

impl Hotplug {
    /// Lets the guest read events.
    pub fn listen(&self) {
        self.listens.store(true, Ordering::Release);
    }

    /// Announces an added vCPU or slot, replacing an ejection the guest has not read; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn request_insert(&self, kind: Kind, member: VcpuId) -> bool {
        self.block.lock().request_insert(kind, member)
    }

    /// Asks for a vCPU or slot back, replacing an announcement the guest has not read; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn request_eject(&self, kind: Kind, member: VcpuId) -> bool {
        self.block.lock().request_eject(kind, member)
    }

    /// Withdraws what the guest has not read about a vCPU or slot.
    pub fn cancel(&self, kind: Kind, member: VcpuId) {
        self.block.lock().cancel(kind, member);
    }

    /// Presses the power button; returns whether to pulse the interrupt.
    #[must_use = "the guest reads events when the GED interrupt is pulsed"]
    pub fn press_power_button(&self) -> bool {
        self.block.lock().press_power_button()
    }
}

impl Device for Hotplug {
    fn new(parts: &Parts) -> Self {
        let block = HotplugBlock::new(Counts {
            vcpus: parts.possible,
            slots: parts.slots,
        });
        Self {
            counts: block.counts(),
            block: SpinMutex::new(block),
            listens: AtomicBool::new(false),
        }
    }

    /// Reads `_STA`.
    #[inline(always)]
    fn peek(&self, access: Access, vcpus: &impl Vcpus) -> Option<u64> {
        match Register::decode(access.offset, access.width, self.counts) {
            Some(Register::Sta(kind, member)) => Some(u64::from(vcpus.sta(kind, member))),
            _ => None,
        }
    }

    fn read(&self, access: Access, _: &mut impl Surroundings) -> Result<u64, Work> {
        let value = match Register::decode(access.offset, access.width, self.counts) {
            Some(Register::Event) if !self.listens.load(Ordering::Relaxed) => {
                return Err(Work::Resize(Answer::Listens));
            }
            Some(Register::Event) => self.block.lock().take_event(),
            Some(Register::Count) => u32::from(self.counts.vcpus),
            Some(Register::Slots) => u32::from(self.counts.slots),
            Some(Register::Sta(..) | Register::Eject(..) | Register::Ost(..)) | None => 0,
        };
        Ok(u64::from(value))
    }

    fn write(&self, access: Access, value: u64, _: &mut impl Surroundings) -> Option<Work> {
        let (kind, answer) = answer(access.offset, access.width, value, self.counts)?;
        Some(match kind {
            Kind::Vcpu => Work::Resize(answer),
            Kind::Slot => Work::Memory(answer),
        })
    }

    fn reset(&self) {
        self.block.lock().reset();
        self.listens.store(false, Ordering::Release);
    }
}
