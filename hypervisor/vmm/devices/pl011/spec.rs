//! What a guest's PL011 is of the possible ones; the map of its registers is `types::pl011`.

/// Depth of each FIFO in this revision.
pub(super) const FIFO_DEPTH: usize = 32;
/// PeriphID0-3: part 0x011, designer 0x41, revision r1p5, which is the one with FIFOs of 32.
pub(super) const PERIPHERAL_ID: [u8; 4] = [0x11, 0x10, 0x34, 0x00];

/// Returns the FIFO level that an IFLS field selects; reserved encodings act as one half.
#[inline]
pub(super) const fn trigger_level(field: u32) -> usize {
    match field & 0b111 {
        0 => FIFO_DEPTH / 8,
        1 => FIFO_DEPTH / 4,
        3 => FIFO_DEPTH / 4 * 3,
        4 => FIFO_DEPTH / 8 * 7,
        _ => FIFO_DEPTH / 2,
    }
}
