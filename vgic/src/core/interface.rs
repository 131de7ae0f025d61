//! What a guest's CPU interface lets through: group enables and the priority mask, in no version's layout.

use crate::ListRegister;

/// The guest's CPU interface, as far as it decides what is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuInterface {
    /// Group 0 is enabled.
    pub group0: bool,
    /// Group 1 is enabled.
    pub group1: bool,
    /// Only what is more urgent than this is signalled.
    pub priority_mask: u8,
}

impl CpuInterface {
    /// Tells whether an interrupt is signalled, if nothing more urgent runs.
    #[must_use]
    #[inline]
    pub const fn passes(self, lr: ListRegister) -> bool {
        let enabled = if lr.is_group1() {
            self.group1
        } else {
            self.group0
        };
        enabled && lr.priority() < self.priority_mask
    }
}
