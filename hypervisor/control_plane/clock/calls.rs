//! The hypercalls behind the EFI runtime services, in the range for vendor-specific hypervisor services (SMCCC DEN0028, 6).
//!
//! Arguments and results follow SMCCC 1.2: x4 to x17 are preserved. The usual caller is the code that `efi::runtime` puts
//! into the guest, but any of the guest's code may call.

/// Takes nothing; returns [`SUCCESS`] in x0 and the date in x1 and x2, as [`super::time::to_words`] gives it.
pub const GET_TIME: u32 = 0xc600_0001;

/// Takes a date in x1 and x2 as [`super::time::from_words`] reads it; returns [`SUCCESS`], or [`INVALID_PARAMETER`] for no date.
pub const SET_TIME: u32 = 0xc600_0002;

/// x0: done.
pub const SUCCESS: i64 = 0;

/// x0: the argument is not a date (SMCCC DEN0028, 7.1, INVALID_PARAMETER).
pub const INVALID_PARAMETER: i64 = -3;
