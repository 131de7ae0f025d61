//! A virtio-mmio transport with no device behind it (VIRTIO 1.2, 4.2.2).
//!
//! Software made for QEMU's `virt` looks into the transports at their fixed addresses, without asking a device tree. A driver
//! leaves a transport alone whose DeviceID is 0, so an empty one needs no state: it reads as below and ignores writes.

use types::access::AccessWidth;

/// MagicValue and what it reads: "virt".
const MAGIC_VALUE: u64 = 0x000;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Version, and the one of VIRTIO 1.
const VERSION: u64 = 0x004;
const VERSION_1: u32 = 2;

/// Reads a register of an empty transport. DeviceID and all others are 0; control registers have no width but 32 bits.
#[must_use]
pub const fn read_empty(offset: u64, width: AccessWidth) -> u64 {
    match (offset, width) {
        (MAGIC_VALUE, AccessWidth::Word) => MAGIC as u64,
        (VERSION, AccessWidth::Word) => VERSION_1 as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessWidth, read_empty};

    #[test]
    fn an_empty_transport_has_magic_and_version_and_no_device() {
        for offset in 0..0x200 {
            for width in AccessWidth::ALL {
                let expected = match (offset, width) {
                    (0, AccessWidth::Word) => 0x7472_6976,
                    (4, AccessWidth::Word) => 2,
                    _ => 0,
                };
                assert_eq!(
                    read_empty(offset, width),
                    expected,
                    "{width:?} at {offset:#x}"
                );
            }
        }
    }
}
