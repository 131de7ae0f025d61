//! Virtio-mmio transports with no device behind them (VIRTIO 1.2, 4.2.2).
//!
//! Software made for QEMU's `virt` looks into the transports at their fixed addresses, without asking a device tree. A driver
//! leaves a transport alone whose DeviceID is 0, so an empty one needs no state: it reads as below and ignores writes.

use super::{Access, Device, Parts, Surroundings, Work};
use types::access::AccessWidth;
use types::devices::DeviceId;

/// MagicValue and what it reads: "virt".
const MAGIC_VALUE: u64 = 0x000;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Version, and the one of VIRTIO 1.
const VERSION: u64 = 0x004;
const VERSION_1: u32 = 2;

/// Bytes a slot.
const WINDOW_BYTES: u64 = {
    let row = DeviceId::Virtio.row();
    row.registers.size / row.windows as u64
};

/// The slots of one VM, all of them empty.
#[derive(Debug)]
pub struct Slots;

impl Device for Slots {
    fn new(_: &Parts) -> Self {
        Self
    }

    fn read(&self, access: Access, _: &mut impl Surroundings) -> Result<u64, Work> {
        let within = access.offset % WINDOW_BYTES;
        Ok(u64::from(read_empty(within, access.width)))
    }

    fn write(&self, _: Access, _: u64, _: &mut impl Surroundings) -> Option<Work> {
        None
    }

    fn reset(&self) {}
}

/// Reads a register of an empty transport. DeviceID and all others are 0; control registers have no width but 32 bits.
const fn read_empty(offset: u64, width: AccessWidth) -> u32 {
    match (offset, width) {
        (MAGIC_VALUE, AccessWidth::Word) => MAGIC,
        (VERSION, AccessWidth::Word) => VERSION_1,
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
