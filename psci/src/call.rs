//! What a firmware call says: registers in, a [`Call`] out, and the answers that need nothing but the call itself.
//!
//! A function that is not offered decodes to [`Call::Unknown`], and PSCI_FEATURES asks the decoder, so the two cannot disagree. Arguments
//! that are wrong whatever the VM looks like decode to [`Call::Invalid`]. Only W0 is the function, and the arguments of a 32-bit function
//! are 32 bits wide, whatever the upper halves hold (DEN0028).

use crate::smccc::{
    FunctionId, NOT_SUPPORTED, PSCI_VERSION_1_3, ReturnCode, SMCCC_VERSION_1_2, id,
};

/// Where a virtual CPU begins, and the value it finds in x0 there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryPoint {
    /// Guest physical address of the first instruction, as the guest alleges it.
    pub address: u64,
    /// Value of x0 at the first instruction.
    pub context_id: u64,
}

/// How deep CPU_SUSPEND sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspend {
    /// State is kept: as WFI, then the call returns success.
    Standby,
    /// State is lost: as WFI, then the CPU begins at the entry point as after CPU_ON. It counts as on meanwhile.
    PowerDown(EntryPoint),
}

/// How a system reset was asked for; both start the VM anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// SYSTEM_RESET.
    Cold,
    /// SYSTEM_RESET2 with the architectural warm reset.
    Warm,
}

/// One of the numbered SMCCC_ARCH_WORKAROUND calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workaround {
    /// SMCCC_ARCH_WORKAROUND_1.
    One,
    /// SMCCC_ARCH_WORKAROUND_2.
    Two,
    /// SMCCC_ARCH_WORKAROUND_3.
    Three,
}

/// A decoded firmware call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Call {
    /// A function that is not offered: NOT_SUPPORTED.
    Unknown,
    /// An offered function with arguments that mean nothing: INVALID_PARAMETERS.
    Invalid,
    /// PSCI_VERSION.
    Version,
    /// CPU_ON of the CPU with this MPIDR affinity.
    CpuOn {
        /// MPIDR affinity fields as given, unchecked.
        target: u64,
        /// Where it shall begin, unchecked.
        entry: EntryPoint,
    },
    /// CPU_OFF of the caller.
    CpuOff,
    /// CPU_SUSPEND or CPU_DEFAULT_SUSPEND of the caller.
    CpuSuspend(Suspend),
    /// AFFINITY_INFO of one CPU (level 0).
    AffinityInfo {
        /// MPIDR affinity fields as given, unchecked.
        target: u64,
    },
    /// MIGRATE_INFO_TYPE.
    MigrateInfoType,
    /// SYSTEM_OFF, or SYSTEM_OFF2 to hibernate.
    SystemOff,
    /// SYSTEM_RESET or SYSTEM_RESET2.
    SystemReset(Reset),
    /// SYSTEM_SUSPEND: DENIED unless every other CPU is off, else as [`Suspend::PowerDown`]. Only if [`Offered::system_suspend`].
    SystemSuspend(EntryPoint),
    /// PSCI_FEATURES about a function.
    Features(FunctionId),
    /// NODE_HW_STATE of one CPU (power level 0): [`HW_ON`] or [`HW_OFF`].
    NodeHwState {
        /// MPIDR affinity fields as given, unchecked.
        target: u64,
    },
    /// SMCCC_VERSION.
    SmcccVersion,
    /// SMCCC_ARCH_FEATURES about a function.
    ArchFeatures(FunctionId),
    /// One of the errata workarounds, to be carried out.
    ArchWorkaround(Workaround),
    /// The identity of this hypervisor.
    HypervisorUid,
    /// The revision of this hypervisor's own calls.
    HypervisorRevision,
    /// PV_TIME_FEATURES about a function. Only if [`Offered::pv_time`].
    PvTimeFeatures(FunctionId),
    /// PV_TIME_ST: where the caller's stolen-time record is. Only if [`Offered::pv_time`].
    PvTimeStolen,
}

/// NODE_HW_STATE of a CPU that is on (DEN0022F).
pub const HW_ON: u64 = 0;
/// NODE_HW_STATE of a CPU that is off.
pub const HW_OFF: u64 = 1;

/// What SMCCC_ARCH_FEATURES says of a workaround.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkaroundState {
    /// Not known to be needed or to be there: the function is not offered.
    #[default]
    Unknown,
    /// Needed: `vmm` carries the call out.
    Needed,
    /// The function may be called, but this CPU does not need it.
    NotNeeded,
}

/// Which of the optional calls a VM is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// SMCCC_ARCH_WORKAROUND_1, _2 and _3.
    pub workarounds: [WorkaroundState; 3],
    /// Paravirtualised (stolen) time.
    pub pv_time: bool,
    /// SYSTEM_SUSPEND.
    pub system_suspend: bool,
}

/// What a call that needs no VM state returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// x0; every other register is preserved.
    One(u64),
    /// x0 to x3.
    Four([u64; 4]),
}

/// The identity that the vendor-specific UID call tells, cf7aba11-5476-4882-a6bb-cfdb8b93d2cc, as the four words of DEN0028.
pub(crate) const HYPERVISOR_UID: [u32; 4] = [0x11ba_7acf, 0x8248_7654, 0xdbcf_bba6, 0xccd2_938b];
/// The revision of this hypervisor's own calls, major in x0 and minor in x1.
pub(crate) const HYPERVISOR_REVISION: [u64; 2] = [0, 1];

/// MIGRATE_INFO_TYPE: no trusted OS needs migrating; without it a CPU may count as impossible to turn off (DEN0022F).
const TRUSTED_OS_NOT_PRESENT: u64 = 2;
/// AFFINITY_INFO and NODE_HW_STATE: a single CPU.
const LEVEL_CPU: u32 = 0;
/// SYSTEM_RESET2: the architectural warm reset; bit 31 would mark a vendor's own (DEN0022F).
const RESET_TYPE_WARM: u32 = 0;
/// SYSTEM_OFF2: to hibernate; 0 is its older spelling (DEN0022F).
const OFF_TYPE_HIBERNATE: u32 = 1;
const OFF_TYPE_HIBERNATE_OLD: u32 = 0;
/// PSCI_FEATURES about SYSTEM_OFF2: one bit a type, bit 0 for hibernating.
const OFF2_FEATURE_HIBERNATE: u64 = 1;
/// PSCI_FEATURES about CPU_SUSPEND: original power_state format, platform-coordinated (DEN0022F).
const SUSPEND_FEATURES: u64 = 0;
/// CPU_SUSPEND, original power_state format: bit 16 tells power-down from standby; the state id and power level we know are 0
/// (DEN0022F).
const POWER_STATE_STANDBY: u32 = 0;
const POWER_STATE_POWER_DOWN: u32 = 1 << 16;

/// What the shortest path makes of a function, by its id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Quick {
    /// The answer is this, whatever the arguments.
    Answer(u64),
    /// AFFINITY_INFO in its 64-bit form.
    AffinityInfo,
    /// AFFINITY_INFO in its 32-bit form.
    AffinityInfo32,
    /// CPU_ON in its 64-bit form.
    CpuOn,
    /// CPU_OFF.
    CpuOff,
    /// [`decode`] knows.
    Ask,
}

/// Sorts out the functions that are called often, and those that no owner has.
#[inline(always)]
pub const fn quick(x0: u64) -> Quick {
    /// Function numbers of PSCI that are, or may one day be, offered end before this one (DEN0022F).
    const PSCI_END: u32 = 0x20;
    /// The owner's number and the call's kind: everything but the width and the function number.
    const OWNER: u32 = 0xbfff_0000;
    const PSCI_OWNER: u32 = id::PSCI_VERSION & OWNER;
    const AFFINITY_INFO_64: u32 = id::AFFINITY_INFO | id::SMC64;
    const CPU_ON_64: u32 = id::CPU_ON | id::SMC64;

    let function = x0 as u32;
    // The order is that of how much each one's caller waits for it.
    if function == id::PSCI_VERSION {
        return Quick::Answer(PSCI_VERSION_1_3 as u64);
    }
    if function == AFFINITY_INFO_64 {
        return Quick::AffinityInfo;
    }
    if function == CPU_ON_64 {
        return Quick::CpuOn;
    }
    match function & OWNER {
        PSCI_OWNER => match function {
            _ if function & !OWNER & !id::SMC64 >= PSCI_END => Quick::Answer(NOT_SUPPORTED),
            id::CPU_OFF => Quick::CpuOff,
            id::AFFINITY_INFO => Quick::AffinityInfo32,
            _ => Quick::Ask,
        },
        // Arm architecture, standard services (stolen time), vendor-specific hypervisor services.
        0x8000_0000 | 0x8500_0000 | 0x8600_0000 => Quick::Ask,
        _ => Quick::Answer(NOT_SUPPORTED),
    }
}

/// Decodes a call from x0 to x3.
#[inline]
pub const fn decode(x0: u64, x1: u64, x2: u64, x3: u64) -> Call {
    const PV_TIME_FEATURES: u32 = id::PV_TIME_FEATURES & !id::SMC64;
    const PV_TIME_ST: u32 = id::PV_TIME_ST & !id::SMC64;

    let function = FunctionId::new(x0 as u32);
    let wide = function.is_smc64();
    let mask = if wide { u64::MAX } else { u32::MAX as u64 };
    let (x1, x2, x3) = (x1 & mask, x2 & mask, x3 & mask);
    // The forms of a function differ in how wide their arguments are; guards tell those that have one form only.
    match function.get() & !id::SMC64 {
        id::PSCI_VERSION if !wide => Call::Version,
        id::CPU_SUSPEND => cpu_suspend(x1 as u32, at(x2, x3)),
        id::CPU_OFF if !wide => Call::CpuOff,
        id::CPU_ON => Call::CpuOn {
            target: x1,
            entry: at(x2, x3),
        },
        id::AFFINITY_INFO if x2 as u32 == LEVEL_CPU => Call::AffinityInfo { target: x1 },
        id::MIGRATE_INFO_TYPE if !wide => Call::MigrateInfoType,
        id::SYSTEM_OFF if !wide => Call::SystemOff,
        id::SYSTEM_RESET if !wide => Call::SystemReset(Reset::Cold),
        id::PSCI_FEATURES if !wide => Call::Features(FunctionId::new(x1 as u32)),
        id::CPU_DEFAULT_SUSPEND => Call::CpuSuspend(Suspend::PowerDown(at(x1, x2))),
        id::NODE_HW_STATE if x2 as u32 == LEVEL_CPU => Call::NodeHwState { target: x1 },
        id::SYSTEM_SUSPEND => Call::SystemSuspend(at(x1, x2)),
        id::SYSTEM_RESET2 if x1 as u32 == RESET_TYPE_WARM => Call::SystemReset(Reset::Warm),
        id::AFFINITY_INFO | id::NODE_HW_STATE | id::SYSTEM_RESET2 => Call::Invalid,
        id::SYSTEM_OFF2 => system_off2(x1 as u32, x2),
        id::SMCCC_VERSION if !wide => Call::SmcccVersion,
        id::SMCCC_ARCH_FEATURES if !wide => Call::ArchFeatures(FunctionId::new(x1 as u32)),
        id::SMCCC_ARCH_WORKAROUND_1 if !wide => Call::ArchWorkaround(Workaround::One),
        id::SMCCC_ARCH_WORKAROUND_2 if !wide => Call::ArchWorkaround(Workaround::Two),
        id::SMCCC_ARCH_WORKAROUND_3 if !wide => Call::ArchWorkaround(Workaround::Three),
        id::VENDOR_HYP_CALL_UID if !wide => Call::HypervisorUid,
        id::VENDOR_HYP_REVISION if !wide => Call::HypervisorRevision,
        PV_TIME_FEATURES if wide => Call::PvTimeFeatures(FunctionId::new(x1 as u32)),
        PV_TIME_ST if wide => Call::PvTimeStolen,
        _ => Call::Unknown,
    }
}

#[inline]
const fn at(address: u64, context_id: u64) -> EntryPoint {
    EntryPoint {
        address,
        context_id,
    }
}

#[inline]
const fn cpu_suspend(power_state: u32, entry: EntryPoint) -> Call {
    match power_state {
        POWER_STATE_STANDBY => Call::CpuSuspend(Suspend::Standby),
        POWER_STATE_POWER_DOWN => Call::CpuSuspend(Suspend::PowerDown(entry)),
        _ => Call::Invalid,
    }
}

#[inline]
const fn system_off2(off_type: u32, cookie: u64) -> Call {
    match (off_type, cookie) {
        (OFF_TYPE_HIBERNATE | OFF_TYPE_HIBERNATE_OLD, 0) => Call::SystemOff,
        _ => Call::Invalid,
    }
}

impl Call {
    /// Answers the calls that need no VM state; `None` for those that `vmm` has to carry out.
    #[inline]
    #[must_use]
    pub const fn immediate(self, offered: &Offered) -> Option<Answer> {
        let x0 = match self {
            Self::Unknown => NOT_SUPPORTED,
            Self::Invalid => ReturnCode::InvalidParameters.as_x0(),
            Self::Version => PSCI_VERSION_1_3 as u64,
            Self::MigrateInfoType => TRUSTED_OS_NOT_PRESENT,
            Self::Features(function) => psci_features(function, offered),
            Self::SmcccVersion => SMCCC_VERSION_1_2 as u64,
            Self::ArchFeatures(function) => arch_features(function, offered),
            Self::ArchWorkaround(which) => match offered.workaround(which) {
                WorkaroundState::Needed => return None,
                WorkaroundState::NotNeeded => ReturnCode::Success.as_x0(),
                WorkaroundState::Unknown => NOT_SUPPORTED,
            },
            Self::SystemSuspend(_) if !offered.system_suspend => NOT_SUPPORTED,
            Self::PvTimeFeatures(_) | Self::PvTimeStolen if !offered.pv_time => NOT_SUPPORTED,
            Self::PvTimeFeatures(function) => match function.get() {
                id::PV_TIME_FEATURES | id::PV_TIME_ST => ReturnCode::Success.as_x0(),
                _ => NOT_SUPPORTED,
            },
            Self::HypervisorUid => {
                let [a, b, c, d] = HYPERVISOR_UID;
                return Some(Answer::Four([a as u64, b as u64, c as u64, d as u64]));
            }
            Self::HypervisorRevision => {
                let [major, minor] = HYPERVISOR_REVISION;
                return Some(Answer::Four([major, minor, 0, 0]));
            }
            Self::CpuOn { .. }
            | Self::CpuOff
            | Self::CpuSuspend(_)
            | Self::AffinityInfo { .. }
            | Self::SystemOff
            | Self::SystemReset(_)
            | Self::SystemSuspend(_)
            | Self::NodeHwState { .. }
            | Self::PvTimeStolen => return None,
        };
        Some(Answer::One(x0))
    }
}

impl Offered {
    const fn workaround(&self, which: Workaround) -> WorkaroundState {
        let [one, two, three] = self.workarounds;
        match which {
            Workaround::One => one,
            Workaround::Two => two,
            Workaround::Three => three,
        }
    }
}

/// PSCI_FEATURES: asks the decoder, so what is said to be there is there (DEN0022F).
#[inline(never)]
const fn psci_features(function: FunctionId, offered: &Offered) -> u64 {
    match decode(function.get() as u64, 0, 0, 0) {
        Call::CpuSuspend(Suspend::Standby) => SUSPEND_FEATURES,
        Call::SystemOff if function.get() & !id::SMC64 == id::SYSTEM_OFF2 => OFF2_FEATURE_HIBERNATE,
        Call::SystemSuspend(_) if !offered.system_suspend => NOT_SUPPORTED,
        Call::Version
        | Call::CpuOn { .. }
        | Call::CpuOff
        | Call::CpuSuspend(_)
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset(_)
        | Call::SystemSuspend(_)
        | Call::Features(_)
        | Call::NodeHwState { .. }
        | Call::SmcccVersion => ReturnCode::Success.as_x0(),
        _ => NOT_SUPPORTED,
    }
}

/// SMCCC_ARCH_FEATURES (DEN0028): 1 says a workaround may be called but is not needed.
#[inline(never)]
const fn arch_features(function: FunctionId, offered: &Offered) -> u64 {
    const NOT_NEEDED: u64 = 1;
    match decode(function.get() as u64, 0, 0, 0) {
        Call::SmcccVersion | Call::ArchFeatures(_) => ReturnCode::Success.as_x0(),
        Call::ArchWorkaround(which) => match offered.workaround(which) {
            WorkaroundState::Needed => ReturnCode::Success.as_x0(),
            WorkaroundState::NotNeeded => NOT_NEEDED,
            WorkaroundState::Unknown => NOT_SUPPORTED,
        },
        Call::PvTimeFeatures(_) if offered.pv_time => ReturnCode::Success.as_x0(),
        _ => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests;
