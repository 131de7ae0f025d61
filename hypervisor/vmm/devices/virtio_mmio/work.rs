//! How much a device does in one trap, and what came of it.

use super::chain::Chain;
use super::queue::{Broken, Queue};
use crate::memory::GuestMemory;

/// What a descriptor costs beside its bytes.
const BYTES_A_DESCRIPTOR: u32 = 64;
/// What may be done before the guest, or a vCPU that waits for its CPU, gets its turn: about as long as other steps at EL2 take.
const BYTES_A_TRAP: u32 = 16 * 1024;

/// What may still be done before the guest gets its turn.
#[derive(Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    /// Returns what one trap may do.
    #[must_use]
    pub(crate) const fn of_a_trap() -> Self {
        Self(BYTES_A_TRAP)
    }

    /// Returns whether nothing more is to be begun.
    pub(super) const fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Notes that bytes were copied.
    pub(super) const fn spend(&mut self, bytes: u32) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// Notes that descriptors were read.
    pub(super) fn spend_descriptors(&mut self, count: u16) {
        self.spend(u32::from(count).saturating_mul(BYTES_A_DESCRIPTOR));
    }
}

/// What a device has done for its driver.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// More is to be done: the driver's notification counts again.
    pub(crate) is_more: bool,
    /// The driver wants an interrupt.
    pub(crate) interrupts: bool,
    /// Chains were given back.
    pub(crate) has_used: bool,
    /// How many chains were taken.
    pub(crate) chains: u32,
}

impl Served {
    /// Takes the next chain that the driver has made available, counts it, and spends what its descriptors cost; returns whether there
    /// was one.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    #[inline(always)]
    pub(super) fn take<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        chain: &mut Chain,
        budget: &mut Budget,
    ) -> Result<bool, Broken> {
        let is_there = queue.pop(memory, chain)?;
        if is_there {
            self.chains = self.chains.wrapping_add(1);
            budget.spend_descriptors(chain.descriptors());
        }
        Ok(is_there)
    }

    /// Shows the driver the chains that were given back, and notes whether it wants an interrupt for them.
    ///
    /// # Errors
    /// [`Broken::Memory`] if the ring is not in RAM.
    #[inline(always)]
    pub(super) fn publish<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<(), Broken> {
        self.has_used = queue.has_unpublished();
        self.interrupts = queue.publish(memory)?;
        Ok(())
    }
}
