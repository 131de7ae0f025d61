//! The SMC Calling Convention: how a function identifier is laid out, which ones are known here, and what a call can return (Arm DEN0028).

/// A function identifier: W0 of a call (DEN0028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionId(u32);

/// Bit 30: arguments are 64 bits wide.
const SMC64: u32 = 1 << 30;

impl FunctionId {
    /// Takes W0 of a call as a function identifier.
    #[inline]
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// Returns the identifier as the number it was made of.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns whether its arguments are 64 bits wide.
    #[inline]
    #[must_use]
    pub const fn is_smc64(self) -> bool {
        self.0 & SMC64 != 0
    }
}

/// The version of SMCCC that is kept: 1.2, the first in which x4–x17 are preserved unless a function says otherwise (DEN0028).
pub(crate) const SMCCC_VERSION_1_2: u32 = 1 << 16 | 2;
/// The version of PSCI that is kept: 1.3, since CPU_ON answers DENIED for what policy holds back (DEN0022F).
pub const PSCI_VERSION_1_3: u32 = 1 << 16 | 3;

/// Any call whose function is not known (DEN0028), sign-extended; also NOT_SUPPORTED of PSCI.
pub const NOT_SUPPORTED: u64 = ReturnCode::NotSupported.as_x0();

/// What a PSCI function returns (DEN0022F).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[must_use]
pub enum ReturnCode {
    /// It is done.
    Success = 0,
    /// The function is not offered.
    NotSupported = -1,
    /// An argument names nothing or means nothing.
    InvalidParameters = -2,
    /// Policy forbids it.
    Denied = -3,
    /// The CPU is on, or being turned on.
    AlreadyOn = -4,
    /// The CPU is being turned on. Never returned by CPU_ON here: callers in the field accept [`ReturnCode::AlreadyOn`] only.
    OnPending = -5,
    /// It failed for no fault of the caller.
    InternalFailure = -6,
    /// The CPU is not there.
    NotPresent = -7,
    /// The CPU is disabled.
    Disabled = -8,
    /// The entry point cannot be one.
    InvalidAddress = -9,
}

impl ReturnCode {
    /// Returns the code as the guest's x0: sign-extended, which both 32-bit and 64-bit callers read alike.
    #[inline]
    #[must_use]
    pub const fn as_x0(self) -> u64 {
        self as i32 as i64 as u64
    }
}

/// Identifiers of the functions known here, by the names the specifications give them.
pub mod id {
    /// Bit 30, for the 64-bit form of a function.
    pub const SMC64: u32 = super::SMC64;

    /// SMCCC_VERSION (DEN0028).
    pub const SMCCC_VERSION: u32 = 0x8000_0000;
    /// SMCCC_ARCH_FEATURES (DEN0028).
    pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
    /// SMCCC_ARCH_WORKAROUND_1 (DEN0028): branch predictor, CVE-2017-5715.
    pub const SMCCC_ARCH_WORKAROUND_1: u32 = 0x8000_8000;
    /// SMCCC_ARCH_WORKAROUND_2 (DEN0028): speculative store bypass, CVE-2018-3639.
    pub const SMCCC_ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
    /// SMCCC_ARCH_WORKAROUND_3 (DEN0028): branch history, CVE-2022-23960.
    pub const SMCCC_ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

    /// PSCI_VERSION (DEN0022F).
    pub const PSCI_VERSION: u32 = 0x8400_0000;
    /// CPU_SUSPEND.
    pub const CPU_SUSPEND: u32 = 0x8400_0001;
    /// CPU_OFF.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// CPU_ON.
    pub const CPU_ON: u32 = 0x8400_0003;
    /// AFFINITY_INFO.
    pub const AFFINITY_INFO: u32 = 0x8400_0004;
    /// MIGRATE_INFO_TYPE.
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    /// SYSTEM_OFF.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// SYSTEM_RESET.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// PSCI_FEATURES.
    pub const PSCI_FEATURES: u32 = 0x8400_000a;
    /// CPU_DEFAULT_SUSPEND.
    pub const CPU_DEFAULT_SUSPEND: u32 = 0x8400_000c;
    /// NODE_HW_STATE.
    pub const NODE_HW_STATE: u32 = 0x8400_000d;
    /// SYSTEM_SUSPEND.
    pub const SYSTEM_SUSPEND: u32 = 0x8400_000e;
    /// SYSTEM_RESET2.
    pub const SYSTEM_RESET2: u32 = 0x8400_0012;
    /// SYSTEM_OFF2.
    pub const SYSTEM_OFF2: u32 = 0x8400_0015;

    /// PV_TIME_FEATURES (DEN0057A).
    pub const PV_TIME_FEATURES: u32 = 0xc500_0020;
    /// PV_TIME_ST (DEN0057A).
    pub const PV_TIME_ST: u32 = 0xc500_0021;

    /// Vendor-specific hypervisor service: Call UID query (DEN0028).
    pub const VENDOR_HYP_CALL_UID: u32 = 0x8600_ff01;
    /// Vendor-specific hypervisor service: Revision (DEN0028).
    pub const VENDOR_HYP_REVISION: u32 = 0x8600_ff03;
}
