//! Registers of the PrimeCell real-time clock PL031 (Arm DDI 0224, chapter 3), with the manual's names less the RTC prefix.

/// Data register: seconds since the epoch.
pub(super) const DR: u64 = 0x000;
/// Match register: the alarm.
pub(super) const MR: u64 = 0x004;
/// Load register: sets the clock.
pub(super) const LR: u64 = 0x008;
/// Control register.
pub(super) const CR: u64 = 0x00c;
/// Interrupt mask: a 1 lets the interrupt through.
pub(super) const IMSC: u64 = 0x010;
/// Raw interrupt status.
pub(super) const RIS: u64 = 0x014;
/// Masked interrupt status.
pub(super) const MIS: u64 = 0x018;
/// Interrupt clear.
pub(super) const ICR: u64 = 0x01c;

/// CR: the clock runs; it cannot be stopped once started (DDI 0224, 3.3.4), and firmware has started it.
pub(super) const CR_START: u32 = 1;
/// The only interrupt bit there is.
pub(super) const INT_ALARM: u32 = 1;

/// PeriphID0-3: part 0x031, designer 0x41.
pub(super) const PERIPHERAL_ID: [u8; 4] = [0x31, 0x10, 0x14, 0x00];
