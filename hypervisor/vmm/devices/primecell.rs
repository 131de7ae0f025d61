//! The identification registers that every Arm PrimeCell peripheral carries in the last 32 bytes of its 4 KiB window.

/// Offset of PeriphID0; the eight registers follow each other, one byte every four.
const ID_OFFSET: u64 = 0xfe0;

/// The four PrimeCell identification bytes, the same in every PrimeCell.
const CELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// Reads PeriphID0-3 or CellID0-3; anything else in the window reads as zero.
pub(super) fn read_id(peripheral: [u8; 4], offset: u64) -> u64 {
    let Some(index) = offset.checked_sub(ID_OFFSET).map(|distance| distance / 4) else {
        return 0;
    };
    let mut bytes = peripheral.iter().chain(&CELL_ID);
    usize::try_from(index)
        .ok()
        .and_then(|index| bytes.nth(index))
        .map_or(0, |&byte| u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::read_id;

    #[test]
    fn identification_bytes_stand_in_the_last_eight_words() {
        let id = [0x11, 0x10, 0x34, 0x00];
        let read: [u64; 8] = core::array::from_fn(|n| read_id(id, 0xfe0 + 4 * n as u64));
        assert_eq!(read, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        for offset in [0, 0xfdc, 0x1000, u64::MAX] {
            assert_eq!(read_id(id, offset), 0, "{offset:#x}");
        }
    }
}
