//! The one feature policy: what a guest's CPU shows, and what EL2 traps so that what is hidden is hidden everywhere.
//!
//! Works from the host's ID registers by an allow list: a field that is not listed reads as "not there". Offered today:
//! the v8 base, FP/SIMD, pointer authentication, the PMU and debug registers (lent to vCPUs that use them, see [`Lent`]), and
//! features that need nothing of EL2. Hidden: SVE, SME, MTE, trace, RAS, nested virtualization and whatever else brings state
//! that a world switch would have to carry.
//!
//! Where nothing is hidden (v8.0 CPUs) the guest reads the hardware's registers without a trap: a CPU that comes online reads
//! well over a hundred. So what hides nothing is shown as it is, see [`guest_id_registers`].

mod common;

pub use common::{CpuFeatures, IdRegisters, unusable};

/// How many ID registers there are: op0 3, op1 0, CRn 0, CRm 0-7, op2 0-7 (Arm ARM D19.1).
pub const ID_REGISTERS: usize = 64;

/// Names an ID register by CRm and op2.
#[must_use]
pub const fn id_index(crm: u32, op2: u32) -> usize {
    ((crm & 7) * 8 + (op2 & 7)) as usize
}

const PFR0: usize = id_index(4, 0);
const PFR1: usize = id_index(4, 1);
const DFR0: usize = id_index(5, 0);
const ISAR0: usize = id_index(6, 0);
const ISAR1: usize = id_index(6, 1);
const ISAR2: usize = id_index(6, 2);
/// ID_AA64MMFR0_EL1's [`id_index`].
pub const MMFR0: usize = id_index(7, 0);
const MMFR1: usize = id_index(7, 1);
const MMFR2: usize = id_index(7, 2);
/// ID_DFR0_EL1: what AArch32 software at EL0 would see of debug.
const AARCH32_DFR0: usize = id_index(1, 2);

/// HCR_EL2 bits (Arm ARM D19.2.48).
pub mod hcr {
    /// Stage-2 translation.
    pub const VM: u64 = 1;
    /// Set/way invalidation cleans too.
    pub const SWIO: u64 = 1 << 1;
    /// Physical FIQ to EL2.
    pub const FMO: u64 = 1 << 3;
    /// Physical IRQ to EL2.
    pub const IMO: u64 = 1 << 4;
    /// Physical SError to EL2.
    pub const AMO: u64 = 1 << 5;
    /// Broadcast the guest's TLB and instruction cache maintenance.
    pub const FB: u64 = 1 << 9;
    /// Barriers reach at least the inner-shareable domain.
    pub const BSU_INNER: u64 = 1 << 10;
    /// Trap WFI.
    pub const TWI: u64 = 1 << 13;
    /// Trap WFE.
    pub const TWE: u64 = 1 << 14;
    /// Trap ID group 1: SMIDR_EL1, and with it REVIDR_EL1 and AIDR_EL1, which belong to the MIDR_EL1 that guests see.
    pub const TID1: u64 = 1 << 16;
    /// Trap ID group 3: the feature registers.
    pub const TID3: u64 = 1 << 18;
    /// Trap SMC.
    pub const TSC: u64 = 1 << 19;
    /// Trap implementation-defined registers.
    pub const TIDCP: u64 = 1 << 20;
    /// Trap the auxiliary control register.
    pub const TACR: u64 = 1 << 21;
    /// Trap data cache maintenance by set and way.
    pub const TSW: u64 = 1 << 22;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// EL2 hosts an operating system: its registers have the layout of EL1's (FEAT_VHE).
    pub const E2H: u64 = 1 << 34;
    /// Trap limited-ordering registers.
    pub const TLOR: u64 = 1 << 35;
    /// Trap error record registers.
    pub const TERR: u64 = 1 << 36;
    /// Do not trap pointer-authentication key registers.
    pub const APK: u64 = 1 << 40;
    /// Do not trap pointer-authentication instructions.
    pub const API: u64 = 1 << 41;
    /// Trap WFE only after a delay (FEAT_TWED).
    pub const TWEDEN: u64 = 1 << 59;
    /// TWEDEL of 4: the delay is 2^12 cycles at least, a microsecond or two. A lock that is given on in that time costs no trap.
    pub const TWEDEL: u64 = 4 << 60;
    /// Whatever the CPU is.
    pub(super) const ALWAYS: u64 = VM | SWIO | FMO | IMO | AMO | FB | BSU_INNER | RW | TRAPS;
    const TRAPS: u64 = TSC | TIDCP | TACR | TSW;
}

/// CPTR_EL2 with E2H clear (Arm ARM D19.2.36).
mod cptr {
    pub(super) const RES1: u64 = 0x22ff;
    pub(super) const TZ: u64 = 1 << 8;
    pub(super) const TFP: u64 = 1 << 10;
    pub(super) const TSM: u64 = 1 << 12;
    pub(super) const TTA: u64 = 1 << 20;
    pub(super) const TAM: u64 = 1 << 30;
}

/// MDCR_EL2 (Arm ARM D19.3.15).
mod mdcr {
    pub(super) const TPMCR: u64 = 1 << 5;
    pub(super) const TPM: u64 = 1 << 6;
    /// Debug exceptions go to EL2.
    #[cfg(test)]
    pub(super) const TDE: u64 = 1 << 8;
    pub(super) const TDA: u64 = 1 << 9;
    pub(super) const TDOSA: u64 = 1 << 10;
    pub(super) const TDRA: u64 = 1 << 11;
    pub(super) const TPMS: u64 = 1 << 14;
    /// No counting of events at EL2 (FEAT_PMUv3p1).
    pub(super) const HPMD: u64 = 1 << 17;
    pub(super) const TTRF: u64 = 1 << 19;
    /// No counting of cycles at EL2 (FEAT_PMUv3p5).
    pub(super) const HCCD: u64 = 1 << 23;
    /// Trap the debugger's communication channel (FEAT_FGT).
    pub(super) const TDCC: u64 = 1 << 27;
}

/// ID_AA64DFR0_EL1.PMUVer (Arm ARM D19.2.59).
mod pmu_version {
    /// PMUv3 of Armv8.0.
    pub(super) const V3: u64 = 1;
    /// PMUv3 of Armv8.1: 16-bit event numbers, MDCR_EL2.HPMD.
    pub(super) const V3P1: u64 = 4;
    /// PMUv3 of Armv8.5: 64-bit event counters, MDCR_EL2.HCCD. Later ones have more state than the world switch knows.
    pub(super) const V3P5: u64 = 6;
    /// Not the architecture's.
    pub(super) const IMPLEMENTATION_DEFINED: u64 = 0xf;
}

/// Units of a CPU that are part of a vCPU's world switch only while it uses them.
///
/// They are shown and trapped; the first access that means something lends one to the vCPU, until it is turned off or, for the
/// debug registers, is unloaded with all of them zero, as every Linux leaves them on a CPU that comes online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent(u8);

impl Lent {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The performance monitors, [`crate::vm::pmu`].
    pub const PMU: Self = Self(1);
    /// Breakpoints and watchpoints, [`crate::vm::debug`].
    pub const DEBUG: Self = Self(1 << 1);

    /// Returns whether nothing is lent.
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns whether all of `unit` is lent.
    #[must_use]
    pub const fn has(self, unit: Self) -> bool {
        self.0 & unit.0 == unit.0
    }

    /// Returns this with `unit`.
    #[must_use]
    pub const fn with(self, unit: Self) -> Self {
        Self(self.0 | unit.0)
    }

    /// Returns this without `unit`.
    #[must_use]
    pub const fn without(self, unit: Self) -> Self {
        Self(self.0 & !unit.0)
    }
}

/// What a guest sees of the CPU and what EL2 holds back.
#[derive(Clone, Debug)]
pub struct FeaturePolicy {
    /// The ID registers as the guest reads them, by [`id_index`].
    pub id: [u64; ID_REGISTERS],
    /// HCR_EL2 while the guest runs, but for TWI, the virtual SError, and what is added while others wait for the CPU.
    pub hcr: u64,
    /// What HCR_EL2 has besides while others wait for the CPU: WFE traps.
    pub hcr_crowded: u64,
    /// CPTR_EL2 while the guest owns the FP unit.
    pub cptr: u64,
    /// CPTR_EL2 while another vCPU's values are in the FP unit.
    pub cptr_fp_trapped: u64,
    /// MDCR_EL2 while a vCPU runs to which nothing is lent.
    pub mdcr: u64,
    /// What may be lent: all but a PMU that is hidden.
    pub lendable: Lent,
    /// MDCR_EL2's bits that bound a lent PMU.
    mdcr_pmu: u64,
    /// MDCR_EL2's bits that bound lent debug registers.
    mdcr_debug: u64,
    /// Whether pointer-authentication keys are part of the world switch.
    pub pointer_authentication: bool,
}

/// Extracts the 4-bit field whose lowest bit is `low`.
const fn field(value: u64, low: u32) -> u64 {
    value >> low & 0xf
}

/// Keeps the 4-bit fields that start at the bits listed.
fn keep(value: u64, lows: &[u32]) -> u64 {
    lows.iter().fold(0, |kept, low| kept | value & (0xf << low))
}

/// Puts `number` into the 4-bit field that starts at `low`.
const fn with(value: u64, low: u32, number: u64) -> u64 {
    value & !(0xf << low) | number << low
}

impl FeaturePolicy {
    /// Returns this for a guest whose interrupt controller is in memory alone, a GICv2.
    #[must_use]
    pub fn without_gic_registers(mut self) -> Self {
        self.id[PFR0] = with(self.id[PFR0], GIC, 0);
        self
    }

    /// Decides from the host's ID registers: what all CPUs have is offered, what any has is trapped; `pa_range` is the guest's
    /// PARange code (ID_AA64MMFR0_EL1 bits 3:0).
    #[must_use]
    pub fn new(CpuFeatures { common, any: host }: &CpuFeatures, pa_range: u64) -> Self {
        let id = guest_id_registers(common, pa_range);
        let pointer_authentication =
            keep(id[ISAR1], &[4, 8, 24, 28]) | keep(id[ISAR2], &[8, 12]) != 0;
        let hcr = fixed_hcr(host)
            | when(id != *common || common != host, hcr::TID3)
            | when(pointer_authentication, hcr::APK | hcr::API);
        let cptr = cptr::RES1 & !cptr::TFP
            | cptr::TTA
            | cptr::TZ
            | cptr::TSM
            | when(field(host[PFR0], 44) != 0, cptr::TAM);
        let mdcr = mdcr::TDA
            | mdcr::TDOSA
            | mdcr::TDRA
            | when(field(host[DFR0], 32) != 0, mdcr::TPMS)
            | when(field(host[DFR0], 40) != 0, mdcr::TTRF)
            | when(has_pmu(host[DFR0]), mdcr::TPM | mdcr::TPMCR);
        let pmu = if offers_pmu(common) {
            Lent::PMU
        } else {
            Lent::NONE
        };
        Self {
            id,
            hcr,
            hcr_crowded: hcr::TWE | when(field(host[MMFR1], 32) != 0, hcr::TWEDEN | hcr::TWEDEL),
            cptr,
            cptr_fp_trapped: cptr | cptr::TFP,
            mdcr,
            lendable: pmu.with(Lent::DEBUG),
            mdcr_pmu: pmu_bounds(field(host[DFR0], 8)),
            mdcr_debug: when(field(host[MMFR0], 56) != 0, mdcr::TDCC),
            pointer_authentication,
        }
    }

    /// Returns MDCR_EL2, but for HPMN, while a vCPU runs to which this is lent.
    #[must_use]
    pub const fn mdcr_with(&self, lent: Lent) -> u64 {
        let mut mdcr = self.mdcr;
        if lent.has(Lent::PMU) {
            mdcr = mdcr & !(mdcr::TPM | mdcr::TPMCR) | self.mdcr_pmu;
        }
        if lent.has(Lent::DEBUG) {
            mdcr = mdcr & !mdcr::TDA | self.mdcr_debug;
        }
        mdcr
    }
}

/// Returns the part of HCR_EL2 that does not depend on what is shown.
fn fixed_hcr(host: &[u64; ID_REGISTERS]) -> u64 {
    hcr::ALWAYS
        | when(field(host[PFR1], 24) != 0, hcr::TID1)
        | when(field(host[MMFR1], 16) != 0, hcr::TLOR)
        | when(field(host[PFR0], 28) != 0, hcr::TERR)
}

/// Returns the bits where a condition holds, and none otherwise.
const fn when(condition: bool, bits: u64) -> u64 {
    if condition { bits } else { 0 }
}

/// Returns whether a CPU has the architecture's PMU, from its ID_AA64DFR0_EL1.
#[must_use]
pub const fn has_pmu(dfr0: u64) -> bool {
    let version = field(dfr0, 8);
    version != 0 && version != pmu_version::IMPLEMENTATION_DEFINED
}

/// Returns whether a CPU's PMU is one whose whole state the world switch knows.
const fn offers_pmu(host: &[u64; ID_REGISTERS]) -> bool {
    let version = field(host[DFR0], 8);
    pmu_version::V3 <= version && version <= pmu_version::V3P5
}

/// Returns what keeps a PMU of this version from counting at EL2 whatever its filters say.
const fn pmu_bounds(version: u64) -> u64 {
    when(version >= pmu_version::V3P1, mdcr::HPMD) | when(version >= pmu_version::V3P5, mdcr::HCCD)
}

/// Lowest bit of ID_AA64PFR0_EL1.GIC: the interrupt controller's system registers.
const GIC: u32 = 24;

/// Filters the host's ID registers; fields are named by their lowest bit (Arm ARM D19.2.61 to D19.2.77).
///
/// Some fields say what software at EL1 cannot use whether it sees them or not, and are shown as they are: AArch32 at EL1
/// (PFR0; HCR_EL2.RW decides), EL2 and EL3 (PFR0), a separate secure memory (MMFR0.SNSMem), how many breakpoints there are
/// (DFR0) and the double lock (DFR0; it holds nothing while the CPU has power).
fn guest_id_registers(host: &[u64; ID_REGISTERS], pa_range: u64) -> [u64; ID_REGISTERS] {
    let mut id = [0; ID_REGISTERS];
    // The AArch32 view (CRm 1-3) is for EL0 only and holds nothing that EL2 would have to switch, but for the PMU.
    id[8..32].copy_from_slice(&host[8..32]);
    if !offers_pmu(host) {
        id[AARCH32_DFR0] = with(id[AARCH32_DFR0], 24, 0);
    }
    let pfr0 = host[PFR0];
    // EL0 to EL3, FP, AdvSIMD, DIT, CSV3; GIC system registers; CSV2 without its context register.
    id[PFR0] = keep(pfr0, &[0, 4, 8, 12, 16, 20, 48, 60]) | 1 << GIC | field(pfr0, 56).min(1) << 56;
    // BTI, SSBS.
    id[PFR1] = keep(host[PFR1], &[0, 4]);
    id[DFR0] = guest_debug_features(host[DFR0]) | when(offers_pmu(host), keep(host[DFR0], &[8]));
    // All but TME.
    id[ISAR0] = with(host[ISAR0], 24, 0);
    // All but LS64.
    id[ISAR1] = with(host[ISAR1], 60, 0);
    // RPRES, GPA3, APA3, BC, PAC_frac, CLRBHB.
    id[ISAR2] = keep(host[ISAR2], &[4, 8, 12, 20, 24, 28]);
    let mmfr0 = host[MMFR0];
    // PARange as the VM has it; ASIDs, endianness, SNSMem, granules without 52-bit addresses, ExS.
    id[MMFR0] = field(mmfr0, 0).min(pa_range)
        | keep(mmfr0, &[4, 8, 12, 16, 24, 44])
        | field(mmfr0, 20).min(1) << 20
        | when(field(mmfr0, 28) != 1, mmfr0 & 0xf << 28);
    // HAFDBS, HPDS, PAN, ETS, nTLBPA.
    id[MMFR1] = keep(host[MMFR1], &[0, 12, 20, 36, 48]);
    // CnP, UAO, LSM, CCIDX, ST, AT, IDS, TTL, BBM, E0PD.
    id[MMFR2] = keep(host[MMFR2], &[0, 4, 8, 20, 28, 32, 36, 48, 52, 60]);
    id
}

/// Fields of ID_AA64DFR0_EL1 (Arm ARM D19.2.59).
mod debug {
    /// Armv8.0's debug architecture.
    pub(super) const VERSION_8_0: u64 = 6;
    /// BRPs, WRPs and CTX_CMPs.
    pub(super) const COUNTS: u64 = 0xf << 12 | 0xf << 20 | 0xf << 28;
    /// No double lock.
    pub(super) const DOUBLE_LOCK_NONE: u64 = 0xf << 36;
}

/// Returns Armv8.0's debug architecture as this host has it, or where it has a later one, without what that added.
fn guest_debug_features(host: u64) -> u64 {
    let counts = host & debug::COUNTS;
    if field(host, 0) <= debug::VERSION_8_0 {
        field(host, 0) | counts | keep(host, &[36])
    } else {
        debug::VERSION_8_0 | counts | debug::DOUBLE_LOCK_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the policy of a machine all of whose CPUs are alike.
    fn alike(ids: [u64; ID_REGISTERS], pa_range: u64) -> FeaturePolicy {
        FeaturePolicy::new(&CpuFeatures::of(ids), pa_range)
    }

    fn host() -> [u64; ID_REGISTERS] {
        // Everything a register can say: all fields non-zero.
        [0x1111_1111_1111_1111; ID_REGISTERS]
    }

    #[test]
    fn what_is_hidden_in_an_id_register_is_trapped() {
        let policy = alike(host(), 2);
        assert_eq!(field(policy.id[PFR0], 32), 0, "SVE");
        assert_ne!(policy.cptr & cptr::TZ, 0);
        assert_eq!(field(policy.id[PFR1], 24), 0, "SME");
        assert_ne!(policy.cptr & cptr::TSM, 0);
        assert_eq!(field(policy.id[PFR0], 28), 0, "RAS");
        assert_ne!(policy.hcr & hcr::TERR, 0);
        assert_eq!(field(policy.id[MMFR1], 16), 0, "LOR");
        assert_ne!(policy.hcr & hcr::TLOR, 0);
        assert_ne!(policy.hcr & hcr::TID3, 0);
    }

    #[test]
    fn a_guest_stays_in_its_bounds_whatever_its_cpu_has() {
        for ids in [[0; ID_REGISTERS], host(), [u64::MAX; ID_REGISTERS]] {
            let policy = alike(ids, 2);
            assert_eq!(policy.hcr & hcr::ALWAYS, hcr::ALWAYS);
            assert_eq!((policy.hcr | policy.hcr_crowded) & hcr::E2H, 0);
            for mdcr in [policy.mdcr, policy.mdcr_with(policy.lendable)] {
                assert_eq!(mdcr & mdcr::TDE, 0, "debug exceptions stay EL1's");
            }
        }
    }

    #[test]
    fn pointer_authentication_is_offered_where_the_host_has_it() {
        assert!(alike(host(), 2).pointer_authentication);
        let mut without = host();
        without[ISAR1] = 0;
        without[ISAR2] = 0;
        let policy = alike(without, 2);
        assert!(!policy.pointer_authentication);
        assert_eq!(policy.hcr & (hcr::APK | hcr::API), 0);
    }

    #[test]
    fn the_guest_never_sees_a_wider_physical_address_than_its_stage_2_has() {
        let mut wide = host();
        wide[MMFR0] = 6;
        assert_eq!(field(alike(wide, 2).id[MMFR0], 0), 2);
        wide[MMFR0] = 1;
        assert_eq!(field(alike(wide, 2).id[MMFR0], 0), 1);
    }

    #[test]
    fn registers_nobody_thought_about_read_as_zero() {
        let policy = alike(host(), 2);
        for (crm, op2) in [
            (4, 2),
            (4, 4),
            (4, 5),
            (4, 7),
            (5, 1),
            (5, 4),
            (7, 3),
            (7, 4),
            (7, 7),
        ] {
            assert_eq!(policy.id[id_index(crm, op2)], 0, "CRm {crm} op2 {op2}");
        }
    }

    /// What QEMU 10's CPUs show at EL2 of `virt,virtualization=on,gic-version=3`: PFR0, DFR0, ISAR0, MMFR0.
    const V8_0: [(&str, [u64; 4]); 3] = [
        (
            "cortex-a53",
            [0x0100_0222, 0x1030_5106, 0x0001_1120, 0x1122],
        ),
        (
            "cortex-a57",
            [0x0100_0222, 0x1030_5106, 0x0001_1120, 0x1124],
        ),
        (
            "cortex-a72",
            [0x0100_0222, 0x1030_5106, 0x0001_1120, 0x1124],
        ),
    ];

    fn cpu([pfr0, dfr0, isar0, mmfr0]: [u64; 4]) -> [u64; ID_REGISTERS] {
        let mut ids = [0; ID_REGISTERS];
        (ids[PFR0], ids[DFR0], ids[ISAR0], ids[MMFR0]) = (pfr0, dfr0, isar0, mmfr0);
        ids
    }

    #[test]
    fn the_guest_reads_the_registers_of_an_armv8_0_cpu_without_a_trap() {
        for (name, registers) in V8_0 {
            let host = cpu(registers);
            let policy = alike(host, field(host[MMFR0], 0));
            assert_eq!(policy.id, host, "{name}");
            assert_eq!(policy.hcr & (hcr::TID3 | hcr::TID1), 0, "{name}");
        }
    }

    #[test]
    fn one_hidden_feature_traps_all_reads_and_leaves_the_breakpoints() {
        for (register, low) in [(PFR0, 28), (PFR0, 32), (MMFR1, 8), (MMFR1, 16), (DFR0, 32)] {
            let mut host = cpu(V8_0[1].1);
            host[register] |= 1 << low;
            let policy = alike(host, 4);
            assert_ne!(policy.hcr & hcr::TID3, 0, "{register} {low}");
            assert_eq!(field(policy.id[register], low), 0, "{register} {low}");
            assert_eq!(policy.id[DFR0], 0x1030_5106, "{register} {low}");
        }
    }

    #[test]
    fn a_pmu_is_offered_if_the_world_switch_knows_its_state_and_trapped_until_it_is_used() {
        let traps = mdcr::TPM | mdcr::TPMCR;
        // PMUVer; whether there is one, whether it is offered, and what keeps it from counting at EL2.
        for (version, there, offered, bounds) in [
            (0, false, false, 0),
            (1, true, true, 0),
            (4, true, true, mdcr::HPMD),
            (5, true, true, mdcr::HPMD),
            (6, true, true, mdcr::HPMD | mdcr::HCCD),
            (7, true, false, 0),
            (9, true, false, 0),
            (0xf, false, false, 0),
        ] {
            let mut host = cpu(V8_0[1].1);
            host[DFR0] = with(host[DFR0], 8, version);
            host[AARCH32_DFR0] = version << 24;
            let policy = alike(host, 4);
            let shown = if offered { version } else { 0 };
            assert_eq!(field(policy.id[DFR0], 8), shown, "{version}");
            assert_eq!(field(policy.id[AARCH32_DFR0], 24), shown, "{version}");
            assert_eq!(has_pmu(host[DFR0]), there, "{version}");
            let expected = if there { traps } else { 0 };
            assert_eq!(policy.mdcr & traps, expected, "{version}");
            assert_eq!(policy.lendable.has(Lent::PMU), offered, "{version}");
            if offered {
                let used = policy.mdcr & !traps | bounds;
                assert_eq!(policy.mdcr_with(Lent::PMU), used, "{version}");
            }
        }
    }

    #[test]
    fn debug_registers_are_trapped_until_they_are_used_and_the_locks_always() {
        let mut host = cpu(V8_0[1].1);
        let locks = mdcr::TDOSA | mdcr::TDRA;
        for (fgt, channel) in [(0, 0), (1, mdcr::TDCC)] {
            host[MMFR0] = with(host[MMFR0], 56, fgt);
            let policy = alike(host, 4);
            assert!(policy.lendable.has(Lent::DEBUG));
            assert_eq!(policy.mdcr & (mdcr::TDA | locks), mdcr::TDA | locks);
            let used = policy.mdcr_with(Lent::DEBUG);
            assert_eq!(used, policy.mdcr & !mdcr::TDA | channel);
            let both = policy.mdcr_with(Lent::DEBUG.with(Lent::PMU));
            assert_eq!(both & (mdcr::TDA | mdcr::TPM | locks), locks);
            assert_eq!(policy.mdcr_with(Lent::NONE), policy.mdcr);
        }
    }

    #[test]
    fn what_is_lent_comes_and_goes_alone() {
        let both = Lent::NONE.with(Lent::PMU).with(Lent::DEBUG);
        assert_eq!(both.without(Lent::PMU), Lent::DEBUG);
        assert!(both.has(Lent::PMU) && !Lent::DEBUG.has(Lent::PMU));
        assert!(both.without(both) == Lent::NONE && both != Lent::NONE);
    }

    #[test]
    fn revidr_is_trapped_only_with_smidr() {
        let mut host = cpu(V8_0[1].1);
        host[PFR1] |= 1 << 24;
        assert_ne!(alike(host, 4).hcr & hcr::TID1, 0);
    }
}
