//! Raspberry Pi 4 and 5: firmware that starts a kernel at EL2, with or without TF-A below it.

use super::{Board, EarlyUart, Fingerprint, Range};

/// Where the firmware's own code lies at the start of RAM: the spin table and its loop, or TF-A's BL31.
/// `kernel_address` is 0x8_0000 by default to leave this free.
const FIRMWARE: Range = Range {
    base: 0,
    size: 0x8_0000,
};

/// RAM starts at 0, and the firmware or U-Boot loads an image below 1 GiB.
const LOAD: Range = Range {
    base: 0,
    size: 0x4000_0000,
};

/// Raspberry Pi 4, 400 and Compute Module 4 (BCM2711, Cortex-A72).
pub(super) const PI_4: Board = Board {
    name: "raspberry-pi-4",
    compatible: &[
        "raspberrypi,4-model-b",
        "raspberrypi,400",
        "raspberrypi,4-compute-module",
        "brcm,bcm2711",
    ],
    fingerprint: Some(Fingerprint {
        load: LOAD,
        cpu_part: Some(0xd08),
    }),
    // UART0; its tree names the mini UART as console unless Bluetooth is turned off.
    early_uart: Some(EarlyUart { pl011: 0xfe20_1000 }),
    reserved: &[FIRMWARE],
};

/// Raspberry Pi 5 and Compute Module 5 (BCM2712, Cortex-A76).
pub(super) const PI_5: Board = Board {
    name: "raspberry-pi-5",
    compatible: &[
        "raspberrypi,5-model-b",
        "raspberrypi,5-compute-module",
        "brcm,bcm2712",
    ],
    fingerprint: Some(Fingerprint {
        load: LOAD,
        cpu_part: Some(0xd0b),
    }),
    // UART10, the three-pin debug connector between the HDMI sockets.
    early_uart: Some(EarlyUart {
        pl011: 0x10_7d00_1000,
    }),
    reserved: &[FIRMWARE],
};
