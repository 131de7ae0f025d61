//! The breakpoints and watchpoints of a virtual CPU, for those that use them.
//!
//! Every Linux zeroes them all on each CPU that comes online. So `crate::features` keeps them trapped; the first access lends
//! them all to this vCPU (`crate::dispatch::sysreg`), and they are taken away when it is turned off, or unloaded with every one of them
//! zero. `el2` moves the registers. They fire only in the vCPU that set them: the vCPU that runs next finds them off, and EL2 routes
//! debug exceptions to EL1, from where none is taken at EL2 (MDCR_EL2.TDE is 0, Arm ARM D2.4).
//!
//! MDSCR_EL1 is part of every world switch. The OS lock and the double lock stay trapped. A debugger's channel and claim tags
//! are zero to a guest: what it writes there is gone when it is unloaded.

/// How many breakpoints, and how many watchpoints, a CPU can have (ID_AA64DFR0_EL1, Arm ARM D19.2.59).
pub const MAX_PAIRS: usize = 16;

/// A breakpoint or a watchpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// `DBGBVR<n>_EL1` or `DBGWVR<n>_EL1`.
    pub value: u64,
    /// `DBGBCR<n>_EL1` or `DBGWCR<n>_EL1`.
    pub control: u64,
}

/// The breakpoint and watchpoint registers; those the CPU does not have stay zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugRegisters {
    /// Breakpoints.
    pub breakpoints: [Point; MAX_PAIRS],
    /// Watchpoints.
    pub watchpoints: [Point; MAX_PAIRS],
}

/// ID_AA64DFR0_EL1's numbers of breakpoints and watchpoints (Arm ARM D19.2.59).
#[must_use]
pub const fn counts(dfr0: u64) -> (usize, usize) {
    let breakpoints = (dfr0 >> 12 & 0xf) as usize;
    let watchpoints = (dfr0 >> 20 & 0xf) as usize;
    (breakpoints + 1, watchpoints + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cortex_a57_has_six_breakpoints_and_four_watchpoints() {
        assert_eq!(counts(0x1030_5106), (6, 4));
        assert_eq!(counts(u64::MAX), (MAX_PAIRS, MAX_PAIRS));
    }
}
