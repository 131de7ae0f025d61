//! The performance monitors of a virtual CPU, for those that use them.
//!
//! Few guests do, but every Linux writes PMUSERENR_EL0 on each CPU that comes online. So `crate::features` shows the PMU and
//! keeps it trapped; the first access that means something (`crate::dispatch::sysreg`) lends it to this vCPU until the vCPU is turned
//! off. `el2` moves the registers. Counters stand still while their vCPU is not loaded, so none overflows then. The physical overflow
//! interrupt is behind the guest's as a timer's is, where the machine has a private one.

/// How many event counters a PMU can have (PMCR_EL0.N, Arm ARM D19.5.13).
pub const MAX_EVENT_COUNTERS: usize = 31;

/// PMCR_EL0 (Arm ARM D19.5.13).
pub mod pmcr {
    /// All counters may count.
    pub const ENABLE: u64 = 1;
    /// Lowest bit of N.
    const N_SHIFT: u32 = 11;

    /// Returns how many event counters there are.
    #[inline]
    #[must_use]
    pub const fn counters(value: u64) -> usize {
        (value >> N_SHIFT & 0x1f) as usize
    }
}

/// An event counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounter {
    /// `PMEVCNTR<n>_EL0`.
    pub count: u64,
    /// `PMEVTYPER<n>_EL0`.
    pub kind: u64,
}

/// The registers of a PMU; by default it counts nothing, not even at EL2.
#[expect(missing_docs, reason = "registers of these names, Arm ARM D19.5")]
#[derive(Clone, Debug, Default)]
pub struct PmuRegisters {
    pub pmcr: u64,
    pub pmcntenset: u64,
    pub pmintenset: u64,
    pub pmovsset: u64,
    pub pmselr: u64,
    pub pmuserenr: u64,
    pub pmccntr: u64,
    pub pmccfiltr: u64,
    /// The event counters; those the CPU does not have stay zero.
    pub events: [EventCounter; MAX_EVENT_COUNTERS],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_counters_is_taken_from_a_real_pmcr() {
        // Cortex-A57 r1p3: implementer 0x41, code 1, six counters, LC.
        assert_eq!(pmcr::counters(0x4101_3040), 6);
        assert_eq!(pmcr::counters(u64::MAX), MAX_EVENT_COUNTERS);
    }
}
