//! Physical lines of private interrupts: pending is the line, or what the guest has written.
//!
//! EL2 does not see a timer's line fall. It sees it rise, by an interrupt that stays active, and asks
//! the line again when the guest looks (ISPENDR) or opens what waits here: a register write that
//! lets something through, a deactivation. Nothing is asked when an interrupt comes in.

use super::list_registers::ListRegisters;
use super::vcpu::VcpuInterrupts;

impl VcpuInterrupts {
    /// Returns what is pending here, outside the list registers.
    pub(super) fn pending_here(&self, lrs: &impl ListRegisters) -> u32 {
        self.latched & !(self.fallen(lrs) & !self.written)
    }

    /// Returns the interrupts that wait here for a line that has fallen meanwhile.
    fn fallen(&self, lrs: &impl ListRegisters) -> u32 {
        if self.linked == 0 {
            return 0;
        }
        self.linked & !lrs.lines()
    }

    /// Forgets what waits for a line that has fallen, but for what the guest has written; returns
    /// the physical interrupts that wait for their end no longer.
    pub(super) fn drop_fallen(&mut self, lrs: &impl ListRegisters) -> u32 {
        let fallen = self.fallen(lrs);
        if fallen != 0 {
            self.latched &= !(fallen & !self.written);
            self.linked &= !fallen;
            self.written &= !fallen;
            self.reopen();
        }
        fallen
    }
}
