//! The distributor's banks, which are the same in all versions, and how frames of registers are mapped.

use core::ops::Range;
use types::gicv3;

use super::DEFAULT_PRIORITY;
use crate::mmio::Registers;
use crate::mmu::{self, Use};
use crate::{clock, timer};

/// Why the interrupt controller can't be used: there is no translation table left.
const NOT_MAPPED: &str = "its registers can't be mapped";

/// How long the hardware gets for what it does at once.
const PATIENCE_NS: u64 = 100_000_000;

/// Waits until these bits of a register are zero.
///
/// # Errors
/// `why`, if they are not in time.
pub(super) fn wait_cleared(
    registers: Registers,
    at: u32,
    bits: u32,
    why: &'static str,
) -> Result<(), &'static str> {
    let deadline = timer::now() + clock::duration_ticks(PATIENCE_NS);
    while registers.read32(at) & bits != 0 {
        if timer::now() > deadline {
            return Err(why);
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// Maps a frame of registers.
pub(super) fn map(range: Range<u64>) -> Result<(), &'static str> {
    mmu::map_identity(range, Use::Device).map_err(|_| NOT_MAPPED)
}

/// Disables the shared interrupts, and puts them into these groups, a bit each.
pub(super) fn reset_shared(distributor: Registers, groups: u32) {
    let words = (distributor.read32(gicv3::GICD_TYPER) & gicv3::TYPER_LINES) + 1;
    for word in 1..words {
        distributor.write32(gicv3::ICENABLER + 4 * word, u32::MAX);
        distributor.write32(gicv3::ICACTIVER + 4 * word, u32::MAX);
        distributor.write32(gicv3::IGROUPR + 4 * word, groups);
        for byte_word in 0..8 {
            let at = gicv3::IPRIORITYR + 32 * word + 4 * byte_word;
            distributor.write32(at, DEFAULT_PRIORITY);
        }
    }
}
