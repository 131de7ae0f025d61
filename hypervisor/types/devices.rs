//! The table of emulated devices: of each, where a guest finds it, which interrupt it has, how its exits are counted and how firmware
//! describes it.
//!
//! A device is a row here and a folder in `vmm::devices`, which says what it does. What is not in its row is nowhere: the guest's map
//! ([`crate::layout`]), the bus, the counters and the descriptions read it. The interrupt controller is no row, for it is part of every CPU.

use crate::layout::Region;
use crate::stats::ExitReason;

/// A device of a VM: which row of the table is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceId {
    /// The console's UART.
    Uart,
    /// The events of added and wanted vCPUs, and the answers.
    Hotplug,
    /// The wall clock.
    Rtc,
    /// The slots for virtio devices.
    Virtio,
}

impl DeviceId {
    /// Every device, in the order in which an address is looked up.
    pub const ALL: [Self; 4] = [Self::Uart, Self::Hotplug, Self::Rtc, Self::Virtio];

    /// Returns the device's row.
    #[inline(always)]
    #[must_use]
    pub const fn row(self) -> &'static Row {
        match self {
            Self::Uart => &UART,
            Self::Hotplug => &HOTPLUG,
            Self::Rtc => &RTC,
            Self::Virtio => &VIRTIO,
        }
    }
}

/// What there is to know of a device without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where its registers are, unless a VM's layout says otherwise.
    pub registers: Region,
    /// How many windows of the same size, each of a device of its own, `registers` is made of. Window n has interrupt `intid` + n.
    pub windows: u16,
    /// Its interrupt as the GIC numbers it, an SPI.
    pub intid: u32,
    /// Under which reason exits for it are counted.
    pub reason: ExitReason,
    /// Its node in a device tree; `None` for what a device tree has no words for.
    pub node: Option<Node>,
    /// Whether it reads and writes the guest's memory; it does so coherently with the caches of the guest's CPUs.
    pub is_master: bool,
    /// How ACPI tells of it; `None` for what guests with ACPI reach in another way.
    pub acpi: Option<Acpi>,
}

/// A node of a device tree (Devicetree Specification 0.4, 2.2), besides its registers and its level-triggered interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name before the address.
    pub name: &'static str,
    /// What a driver knows it by, the closest first.
    pub compatible: &'static [&'static str],
    /// What it calls its clocks, all of which are the one we have.
    pub clocks: &'static [&'static str],
}

/// A device in the DSDT (ACPI 6.5, 5.2.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acpi {
    /// One with a name in `\_SB`, a hardware id, registers and a level-triggered interrupt.
    Device {
        /// Its name segment.
        name: [u8; 4],
        /// `_HID`.
        hid: [u8; 8],
    },
    /// One for each window that has something behind it: the number of the window ends its name and is its `_UID`.
    Slots {
        /// How the names begin; two hexadecimal digits follow.
        name: [u8; 2],
        /// `_HID`.
        hid: [u8; 8],
    },
    /// The generic event device (ACPI 6.5, 5.6.9) with an edge-triggered interrupt, and the processors whose registers it has.
    Events,
}

const UART: Row = Row {
    registers: Region::new(0x0900_0000, 0x1000),
    windows: 1,
    intid: 33,
    reason: ExitReason::Uart,
    node: Some(Node {
        name: "pl011",
        compatible: &["arm,pl011", "arm,primecell"],
        clocks: &["uartclk", "apb_pclk"],
    }),
    is_master: false,
    acpi: Some(Acpi::Device {
        name: *b"COM0",
        hid: *b"ARMH0011",
    }),
};

const HOTPLUG: Row = Row {
    registers: Region::new(0x090c_0000, crate::hotplug::WINDOW_BYTES),
    windows: 1,
    intid: 41,
    reason: ExitReason::Hotplug,
    node: None,
    is_master: false,
    acpi: Some(Acpi::Events),
};

/// Guests with ACPI read the time by EFI's run-time services.
const RTC: Row = Row {
    registers: Region::new(0x0901_0000, 0x1000),
    windows: 1,
    intid: 34,
    reason: ExitReason::Rtc,
    node: Some(Node {
        name: "pl031",
        compatible: &["arm,pl031", "arm,primecell"],
        clocks: &["apb_pclk"],
    }),
    is_master: false,
    acpi: None,
};

/// Slots that are empty are described to no guest; software made for QEMU's `virt` looks there all the same.
const VIRTIO: Row = Row {
    registers: Region::new(0x0a00_0000, 32 * 0x200),
    windows: 32,
    intid: 48,
    reason: ExitReason::Device,
    node: Some(Node {
        name: "virtio_mmio",
        compatible: &["virtio,mmio"],
        clocks: &[],
    }),
    is_master: true,
    acpi: Some(Acpi::Slots {
        name: *b"VR",
        hid: *b"LNRO0005",
    }),
};

#[cfg(test)]
mod tests {
    use super::{Acpi, DeviceId};
    use crate::layout::GuestLayout;
    use std::vec::Vec;

    #[test]
    fn each_device_has_the_row_and_the_place_of_its_number() {
        let layout = GuestLayout::default();
        for (index, device) in DeviceId::ALL.into_iter().enumerate() {
            assert_eq!(device as usize, index, "{device:?}");
            let (row, slot) = (device.row(), layout.device(device));
            assert_eq!((row.registers, row.intid), (slot.registers, slot.intid));
        }
    }

    #[test]
    fn every_row_is_described() {
        for device in DeviceId::ALL {
            let row = device.row();
            let is_told = row.node.is_some() || row.acpi.is_some();
            assert!(is_told, "{device:?} is found by nobody");
            let is_slots = matches!(row.acpi, Some(Acpi::Slots { .. }));
            assert_eq!(is_slots, row.windows > 1, "{device:?}");
            if let Some(node) = row.node {
                assert!(!node.name.is_empty() && !node.compatible.is_empty());
            }
            if let Some(Acpi::Device { name, hid }) = row.acpi {
                let is_id = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                assert!(name.iter().chain(&hid).all(is_id), "{device:?}");
            }
        }
    }

    #[test]
    fn interrupts_are_spis_that_every_guest_has_and_no_two_share() {
        let mut taken: Vec<u32> = DeviceId::ALL
            .iter()
            .map(|device| device.row())
            .flat_map(|row| row.intid..row.intid + u32::from(row.windows))
            .collect();
        taken.sort_unstable();
        let count = taken.len();
        taken.dedup();
        assert_eq!(taken.len(), count, "shared: {taken:?}");
        let spis = u32::from(GuestLayout::default().spi_count);
        assert!(taken.iter().all(|intid| (32..32 + spis).contains(intid)));
    }

    #[test]
    fn windows_of_a_row_are_alike_and_aligned() {
        for device in DeviceId::ALL {
            let row = device.row();
            let bytes = row.registers.size / u64::from(row.windows);
            assert_eq!(bytes * u64::from(row.windows), row.registers.size);
            assert!(bytes.is_power_of_two() && row.registers.base.is_aligned(bytes));
        }
    }
}
