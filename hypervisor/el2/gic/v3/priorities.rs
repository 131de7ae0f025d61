//! Active priorities that the software before us has left: an interrupt of no higher priority would never come (GIC IHI0069, 4.8.5).
#![expect(unsafe_code, reason = "clears what is active")]

use crate::sysreg::{self, isb};

/// Lowest bit of the 3-bit fields that hold the number of priority bits less one: ICC_CTLR_EL1.PRIbits, ICH_VTR_EL2.PREbits.
const PHYSICAL_BITS: u32 = 8;
const VIRTUAL_BITS: u32 = 26;
/// From how many bits on there is a second register, and a third and fourth.
const TWO_REGISTERS: u64 = 6;
const FOUR_REGISTERS: u64 = 7;

macro_rules! clear {
    ($($name:ident),+) => {
        $(
            // SAFETY: this CPU has not acknowledged an interrupt yet, so none is active for EL2.
            unsafe { sysreg::$name::write(0) };
        )+
    };
}

/// Clears this CPU's active priorities of group 1, and those of its virtual interface.
pub(super) fn clear_active_priorities() {
    let bits = |register: u64, low: u32| (register >> low & 7) + 1;
    let physical = bits(sysreg::icc_ctlr_el1::read(), PHYSICAL_BITS);
    clear!(icc_ap1r0_el1);
    if physical >= TWO_REGISTERS {
        clear!(icc_ap1r1_el1);
    }
    if physical >= FOUR_REGISTERS {
        clear!(icc_ap1r2_el1, icc_ap1r3_el1);
    }
    let of_guests = bits(sysreg::ich_vtr_el2::read(), VIRTUAL_BITS);
    sysreg::ich_ap0r_el2::write::<0>(0);
    sysreg::ich_ap1r_el2::write::<0>(0);
    if of_guests >= TWO_REGISTERS {
        sysreg::ich_ap0r_el2::write::<1>(0);
        sysreg::ich_ap1r_el2::write::<1>(0);
    }
    if of_guests >= FOUR_REGISTERS {
        sysreg::ich_ap0r_el2::write::<2>(0);
        sysreg::ich_ap0r_el2::write::<3>(0);
        sysreg::ich_ap1r_el2::write::<2>(0);
        sysreg::ich_ap1r_el2::write::<3>(0);
    }
    isb();
}
