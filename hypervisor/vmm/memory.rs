//! Access to a guest's memory by guest address: an address from a guest is an allegation, and this is the only way to its bytes.

use types::address::GuestPhys;

/// A guest range that is not, or not wholly, the guest's own RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault {
    /// First address that could not be reached.
    pub address: GuestPhys,
}

/// A guest's RAM as the rest of `vmm` sees it.
pub trait GuestMemory {
    /// Copies guest memory starting at `address` into `into`.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM; `into` may then be partly written.
    fn read(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), GuestFault>;

    /// Copies `bytes` into guest memory starting at `address`, visible to a guest that has its caches off.
    ///
    /// # Errors
    /// A [`GuestFault`] when any byte of the range is outside the guest's RAM; nothing is promised of the part before it.
    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault>;
}
