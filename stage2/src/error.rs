//! What can go wrong, and on which side.

use core::fmt;

use types::address::GuestPhys;

/// The reason why an operation was refused. The tables are then exactly as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Caller: an address or a length is not a multiple of 4 KiB, or the length is zero.
    Misaligned,
    /// Configuration or guest: the range reaches beyond the intermediate physical address space of the VM.
    OutsideGuestSpace,
    /// Configuration: the range reaches beyond the physical addresses that the CPU can output (PARange).
    OutsideHostSpace,
    /// Configuration: the IPA size asked for is below 32 bits, above 48, or above what the CPU implements.
    UnsupportedIpaSize,
    /// Caller: this guest address is mapped already.
    Overlap(GuestPhys),
    /// Caller: this guest address is not mapped.
    NotMapped(GuestPhys),
    /// Configuration: the VM's page-table quota is used up.
    OutOfTables,
    /// Caller: an earlier change has begun and waits for [`crate::Tables::finish`].
    ChangeInProgress,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned => f.write_str("range is empty or not aligned to 4 KiB"),
            Self::OutsideGuestSpace => {
                f.write_str("range lies outside the guest's physical address space")
            }
            Self::OutsideHostSpace => {
                f.write_str("range lies outside the machine's physical address space")
            }
            Self::UnsupportedIpaSize => {
                f.write_str("guest address size is not supported by this CPU")
            }
            Self::Overlap(at) => write!(f, "guest address {at} is already mapped"),
            Self::NotMapped(at) => write!(f, "guest address {at} is not mapped"),
            Self::OutOfTables => f.write_str("page-table quota of the VM is used up"),
            Self::ChangeInProgress => {
                f.write_str("another change of the tables has not been finished")
            }
        }
    }
}

impl core::error::Error for Error {}
