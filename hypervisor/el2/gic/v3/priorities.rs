//! Active priorities that the software before us has left: an interrupt of no higher priority would never come (GIC IHI0069, 4.8.5).

use crate::sysreg::{isb, read_register, write_register};

/// Lowest bit of the 3-bit fields that hold the number of priority bits less one: ICC_CTLR_EL1.PRIbits, ICH_VTR_EL2.PREbits.
const PHYSICAL_BITS: u32 = 8;
const VIRTUAL_BITS: u32 = 26;
/// From how many bits on there is a second register, and a third and fourth.
const TWO_REGISTERS: u64 = 6;
const FOUR_REGISTERS: u64 = 7;

/// Clears this CPU's active priorities of group 1, and those of its virtual interface.
pub(super) fn clear_active_priorities() {
    let bits = |register: u64, low: u32| (register >> low & 7) + 1;
    let physical = bits(read_register!("ICC_CTLR_EL1"), PHYSICAL_BITS);
    write_register!("ICC_AP1R0_EL1", 0);
    if physical >= TWO_REGISTERS {
        write_register!("ICC_AP1R1_EL1", 0);
    }
    if physical >= FOUR_REGISTERS {
        write_register!("ICC_AP1R2_EL1", 0);
        write_register!("ICC_AP1R3_EL1", 0);
    }
    let of_guests = bits(read_register!("ICH_VTR_EL2"), VIRTUAL_BITS);
    write_register!("ICH_AP0R0_EL2", 0);
    write_register!("ICH_AP1R0_EL2", 0);
    if of_guests >= TWO_REGISTERS {
        write_register!("ICH_AP0R1_EL2", 0);
        write_register!("ICH_AP1R1_EL2", 0);
    }
    if of_guests >= FOUR_REGISTERS {
        write_register!("ICH_AP0R2_EL2", 0);
        write_register!("ICH_AP0R3_EL2", 0);
        write_register!("ICH_AP1R2_EL2", 0);
        write_register!("ICH_AP1R3_EL2", 0);
    }
    isb();
}
