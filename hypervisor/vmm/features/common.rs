//! The ID registers of all CPUs together: what every one of them has, and what any of them has.
//!
//! A guest's vCPU may run on each of them, so it is shown what they have in common, and what one of them has and another has not
//! is trapped on all (big.LITTLE machines). The fields are numbers of which a larger one includes the smaller ones (Arm ARM
//! D24.1.3, "Principles of the ID scheme"); some are signed, with 0xf for "not there".

use types::layout::GicVersion;

use super::{AARCH32_DFR0, DFR0, ID_REGISTERS, MMFR0, MMFR1, PFR0, field};

/// The ID registers of one CPU, by [`super::id_index`].
pub type IdRegisters = [u64; ID_REGISTERS];

/// Fields that are signed: register and lowest bit. FP, AdvSIMD; PMUVer, DoubleLock; TGran64, TGran4; PerfMon.
const SIGNED: [(usize, u32); 7] = [
    (PFR0, 16),
    (PFR0, 20),
    (DFR0, 8),
    (DFR0, 36),
    (MMFR0, 24),
    (MMFR0, 28),
    (AARCH32_DFR0, 24),
];
/// The 4 KiB granule of stage 1: not there (ID_AA64MMFR0_EL1.TGran4).
const NO_4_KIB: u64 = 0xf;
/// 16-bit VMIDs (ID_AA64MMFR1_EL1.VMIDBits).
const VMID_16: u64 = 2;

/// The ID registers of the machine's CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// What every CPU has.
    pub common: IdRegisters,
    /// What some CPU has.
    pub any: IdRegisters,
}

impl CpuFeatures {
    /// Describes a machine with one CPU.
    #[must_use]
    pub const fn of(cpu: IdRegisters) -> Self {
        Self {
            common: cpu,
            any: cpu,
        }
    }

    /// Returns the description of the machine with another CPU.
    #[must_use]
    pub fn with(&self, cpu: &IdRegisters) -> Self {
        Self {
            common: fold(&self.common, cpu, i64::min),
            any: fold(&self.any, cpu, i64::max),
        }
    }

    /// Returns the code of the physical address size that every CPU has (ID_AA64MMFR0_EL1.PARange).
    #[must_use]
    pub const fn pa_range(&self) -> u64 {
        field(self.common[MMFR0], 0)
    }

    /// Returns whether every CPU has VMIDs of 16 bits.
    #[must_use]
    pub const fn has_vmid_16(&self) -> bool {
        field(self.common[MMFR1], 4) >= VMID_16
    }
}

/// Returns why a CPU with these ID registers can't be used, if it can't.
///
/// It reaches physical addresses below `reach`, and the machine's memory ends at `memory_end`; its interrupt controller is `gic`.
#[must_use]
pub const fn unusable(
    cpu: &IdRegisters,
    reach: u64,
    memory_end: u64,
    gic: GicVersion,
) -> Option<&'static str> {
    if field(cpu[MMFR0], 28) == NO_4_KIB {
        Some("it has no 4 KiB pages (ID_AA64MMFR0_EL1.TGran4)")
    } else if matches!(gic, GicVersion::V3) && field(cpu[PFR0], 24) == 0 {
        Some("it has no system registers for the interrupt controller (ID_AA64PFR0_EL1.GIC)")
    } else if reach < memory_end {
        Some("its physical addresses end before the memory does (ID_AA64MMFR0_EL1.PARange)")
    } else {
        None
    }
}

/// Chooses field by field.
fn fold(a: &IdRegisters, b: &IdRegisters, choose: fn(i64, i64) -> i64) -> IdRegisters {
    core::array::from_fn(|register| {
        let choose_field = |low: u32| {
            let value = |registers: &IdRegisters| {
                let raw = field(registers[register], low) as i64;
                let is_signed = SIGNED.contains(&(register, low));
                if is_signed && raw == 0xf { -1 } else { raw }
            };
            (choose(value(a), value(b)) as u64 & 0xf) << low
        };
        (0..64)
            .step_by(4)
            .map(choose_field)
            .fold(0, |all, one| all | one)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{FeaturePolicy, cptr, hcr, id_index, mdcr};
    use super::*;

    /// ID registers with some that are not zero.
    fn cpu(registers: &[(usize, u64)]) -> IdRegisters {
        let mut cpu = [0; ID_REGISTERS];
        cpu[PFR0] = 0x0100_0011;
        for (register, value) in registers {
            cpu[*register] = *value;
        }
        cpu
    }

    #[test]
    fn what_all_have_is_the_least_and_what_any_has_the_most_of_each_field() {
        let big = cpu(&[(MMFR0, 0x1124), (MMFR1, 0x20), (id_index(6, 0), 0x21_0120)]);
        let little = cpu(&[(MMFR0, 0x1122), (MMFR1, 0x00), (id_index(6, 0), 0x12_1110)]);
        let both = CpuFeatures::of(big).with(&little);
        assert_eq!(both, CpuFeatures::of(little).with(&big));
        assert_eq!((both.pa_range(), both.has_vmid_16()), (2, false));
        assert_eq!(
            (both.common[id_index(6, 0)], both.any[id_index(6, 0)]),
            (0x11_0110, 0x22_1120)
        );
        assert!(CpuFeatures::of(big).has_vmid_16());
    }

    #[test]
    fn fields_that_say_not_there_by_a_negative_number_count_as_less_than_zero() {
        let with = cpu(&[(PFR0, 0x0100_0011), (DFR0, 0x106), (MMFR0, 0)]);
        let without = cpu(&[(PFR0, 0x01ff_0011), (DFR0, 0xf06), (MMFR0, 0xff00_0000)]);
        let both = CpuFeatures::of(with).with(&without);
        assert_eq!(
            (both.common[PFR0], both.any[PFR0]),
            (0x01ff_0011, 0x0100_0011)
        );
        assert_eq!((both.common[DFR0], both.any[DFR0]), (0xf06, 0x106));
        assert_eq!((both.common[MMFR0], both.any[MMFR0]), (0xff00_0000, 0));
    }

    #[test]
    fn what_one_cpu_has_is_hidden_and_trapped_on_all() {
        // A PMU and 8.5's, none; LORegions and RAS on one; pointer authentication on the other.
        let one = cpu(&[
            (PFR0, 0x1100_0011 | 1 << 44),
            (DFR0, 0x606),
            (MMFR1, 0x1_0000),
        ]);
        let other = cpu(&[(DFR0, 0x006), (id_index(6, 1), 0x10)]);
        for both in [
            CpuFeatures::of(one).with(&other),
            CpuFeatures::of(other).with(&one),
        ] {
            let policy = FeaturePolicy::new(&both, 5);
            assert_eq!(field(policy.id[DFR0], 8), 0);
            assert_ne!(policy.mdcr & mdcr::TPM, 0);
            assert_ne!(policy.hcr & hcr::TERR, 0);
            assert_ne!(policy.hcr & hcr::TLOR, 0);
            assert_ne!(policy.hcr & hcr::TID3, 0);
            assert_ne!(policy.cptr & cptr::TAM, 0);
            assert!(!policy.pointer_authentication);
        }
        // Alone, it needs no trap of what it shows.
        let v8_0 = cpu(&[(DFR0, 0x106), (MMFR0, 0x1124), (PFR0, 0x0100_0222)]);
        assert_eq!(
            FeaturePolicy::new(&CpuFeatures::of(v8_0), 4).hcr & hcr::TID3,
            0
        );
        let smaller = cpu(&[(DFR0, 0x106), (MMFR0, 0x1122), (PFR0, 0x0100_0222)]);
        let both = CpuFeatures::of(v8_0).with(&smaller);
        assert_ne!(
            FeaturePolicy::new(&both, 2).hcr & hcr::TID3,
            0,
            "they read differently"
        );
    }

    #[test]
    fn cpus_that_cannot_be_used_are_refused() {
        const GIB: u64 = 1 << 30;
        const V3: GicVersion = GicVersion::V3;
        let fit = cpu(&[(MMFR0, 0x1122)]);
        assert_eq!(unusable(&fit, 1 << 40, 4 * GIB, V3), None);
        assert_eq!(unusable(&fit, 4 * GIB, 4 * GIB, V3), None);
        let why = unusable(&fit, 4 * GIB, 4 * GIB + 1, V3).expect("out of reach");
        assert!(why.contains("PARange"));
        let why = unusable(&cpu(&[(MMFR0, 0xf000_0002)]), 1 << 40, GIB, V3).expect("no granule");
        assert!(why.contains("TGran4"));
        let why = unusable(&cpu(&[(PFR0, 0x11)]), 1 << 40, GIB, V3).expect("no GIC");
        assert!(why.contains("interrupt controller"));
        let v2 = unusable(&cpu(&[(PFR0, 0x11)]), 1 << 40, GIB, GicVersion::V2);
        assert_eq!(v2, None, "a GICv2 is in memory");
    }
}
