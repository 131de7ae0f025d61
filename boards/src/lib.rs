//! What a board's device tree cannot say: one literal per board.
//!
//! Machines differ in data, never in `cfg`. A board is found by the root node's `compatible`; before there is a tree,
//! or when there is none, by where the image was loaded and on which CPU, which is enough to say one line of why
//! nothing more will happen. A machine without a description is [`GENERIC`] and runs by its tree alone.
//!
//! ```
//! use boards::Board;
//!
//! let board = Board::by_compatible(["raspberrypi,4-model-b", "brcm,bcm2711"]);
//! assert_eq!(board.name, "raspberry-pi-4");
//! assert_eq!(Board::by_compatible(["unknown,board"]).name, boards::GENERIC.name);
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod qemu;
mod raspberry_pi;

/// A UART that can be written to before anything has been read or set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyUart {
    /// Physical address of its registers: those of an Arm PL011 (DDI0183), set up by the boot loader.
    pub pl011: u64,
}

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

/// How a machine is recognised without a device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where boot loaders put an image.
    pub load: Range,
    /// MIDR_EL1.PartNum of its CPUs (Arm ARM DDI0487, D24.2.114), where they are always the same.
    pub cpu_part: Option<u16>,
}

/// A board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name, for people.
    pub name: &'static str,
    /// The entries of the root node's `compatible` that mean this board.
    pub compatible: &'static [&'static str],
    /// How it is recognised without a tree; `None` where that would be guessing.
    pub fingerprint: Option<Fingerprint>,
    /// The UART for messages that come before the tree's own is known.
    pub early_uart: Option<EarlyUart>,
    /// Memory that firmware keeps using although not every tree reserves it.
    pub reserved: &'static [Range],
}

/// Any machine without an entry of its own.
pub const GENERIC: Board = Board {
    name: "generic",
    compatible: &[],
    fingerprint: None,
    early_uart: None,
    reserved: &[],
};

/// All boards.
pub const BOARDS: &[Board] = &[qemu::VIRT, raspberry_pi::PI_4, raspberry_pi::PI_5];

impl Board {
    /// Finds the board by the root node's `compatible`, most specific entry first; [`GENERIC`] if none is known.
    #[must_use]
    pub fn by_compatible<'a>(compatible: impl IntoIterator<Item = &'a str>) -> &'static Self {
        let find = |entry| {
            BOARDS
                .iter()
                .find(|board| board.compatible.contains(&entry))
        };
        compatible.into_iter().find_map(find).unwrap_or(&GENERIC)
    }

    /// Guesses the board by the image's load address and MIDR_EL1, for a last message before halting: a write to the
    /// early UART of a board that was guessed wrong may fault.
    #[must_use]
    pub fn by_fingerprint(load_address: u64, midr: u64) -> Option<&'static Self> {
        BOARDS.iter().find(|board| {
            board
                .fingerprint
                .is_some_and(|print| print.matches(load_address, midr))
        })
    }
}

impl Fingerprint {
    fn matches(&self, load_address: u64, midr: u64) -> bool {
        /// MIDR_EL1.PartNum is bits 15:4.
        const PART_SHIFT: u64 = 4;
        const PART_MASK: u64 = 0xfff;
        let part = midr >> PART_SHIFT & PART_MASK;
        let is_loaded_there = load_address
            .checked_sub(self.load.base)
            .is_some_and(|offset| offset < self.load.size);
        is_loaded_there
            && self
                .cpu_part
                .is_none_or(|expected| u64::from(expected) == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A53: u64 = 0x410f_d034;
    const A72: u64 = 0x410f_d083;
    const A76: u64 = 0x414f_d0b1;

    #[test]
    fn boards_are_found_by_their_trees() {
        let cases: &[(&[&str], &str)] = &[
            (&["linux,dummy-virt"], "qemu-virt"),
            (&["raspberrypi,4-model-b", "brcm,bcm2711"], "raspberry-pi-4"),
            (&["raspberrypi,400", "brcm,bcm2711"], "raspberry-pi-4"),
            (&["raspberrypi,5-model-b", "brcm,bcm2712"], "raspberry-pi-5"),
            (&["acme,board", "brcm,bcm2712"], "raspberry-pi-5"),
            (&["acme,board"], "generic"),
            (&[], "generic"),
        ];
        for (compatible, name) in cases {
            assert_eq!(
                Board::by_compatible(compatible.iter().copied()).name,
                *name,
                "{compatible:?}"
            );
        }
    }

    #[test]
    fn boards_are_guessed_by_load_address_and_cpu() {
        let name = |address, midr| Board::by_fingerprint(address, midr).map(|board| board.name);
        assert_eq!(name(0x4020_0000, A72), Some("qemu-virt"));
        assert_eq!(name(0x20_0000, A72), Some("raspberry-pi-4"));
        assert_eq!(name(0x8_0000, A76), Some("raspberry-pi-5"));
        assert_eq!(name(0x20_0000, A53), None);
        assert_eq!(name(u64::MAX, A72), None);
    }

    #[test]
    fn no_two_boards_share_a_name_or_a_compatible_entry() {
        for (index, board) in BOARDS.iter().enumerate() {
            for other in BOARDS.iter().skip(index + 1) {
                assert_ne!(board.name, other.name);
                assert!(
                    board
                        .compatible
                        .iter()
                        .all(|entry| !other.compatible.contains(entry))
                );
            }
        }
    }
}
