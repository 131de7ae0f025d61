//! Access to a guest's memory by guest address: an address from a guest is an allegation, and this is the only way to its bytes.

use types::address::GuestPhys;

/// A guest range that is not, or not wholly, the guest's own RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault {
    /// First address that could not be reached.
    pub address: GuestPhys,
}

/// A guest's RAM as its devices reach it: coherent with the caches of the guest's CPUs, which may write it at the same time. So what
/// was read is a value of its own, to be checked and then used; nothing is read twice.
pub trait GuestMemory {
    /// Copies guest memory starting at `address` into `into`.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM; `into` is as it was then.
    fn read(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), GuestFault>;

    /// Reads 16 bits in one access, so that they are all old or all new; the address is even.
    ///
    /// # Errors
    /// A [`GuestFault`] when the bytes are not in the guest's RAM.
    fn read_half(&self, address: GuestPhys) -> Result<u16, GuestFault>;

    /// Writes 16 bits in one access; the address is even.
    ///
    /// # Errors
    /// A [`GuestFault`] when the bytes are not in the guest's RAM.
    fn write_half(&self, address: GuestPhys, value: u16) -> Result<(), GuestFault>;

    /// Copies `bytes` into guest memory starting at `address`.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM; nothing is written then.
    fn write(&self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault>;
}
