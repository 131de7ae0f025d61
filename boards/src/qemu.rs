//! QEMU's `virt` machine.

use super::{Board, EarlyUart, Fingerprint, Range};

/// `-M virt`: everything else about it is in the tree that QEMU makes.
pub(super) const VIRT: Board = Board {
    name: "qemu-virt",
    compatible: &["linux,dummy-virt"],
    fingerprint: Some(Fingerprint {
        // RAM starts at 1 GiB; `-kernel` loads an Image within its first GiB.
        load: Range {
            base: 0x4000_0000,
            size: 0x4000_0000,
        },
        cpu_part: None,
    }),
    early_uart: Some(EarlyUart { pl011: 0x0900_0000 }),
    reserved: &[],
};
