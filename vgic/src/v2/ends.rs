//! List registers without HW for interrupts that have a physical one behind them.
//!
//! With HW set (IHI0048 section 5.3.8) the hardware ends the physical interrupt too. Where that does not work, such a list register
//! asks for a maintenance interrupt at its end instead (EOI), and its owner ends the physical one. In the field of an SGI's sender,
//! which these have not, stands which it is: one of three: the guest's two timers and its PMU's.

const HARDWARE: u32 = 1 << 31;
const STATE: u32 = 3 << 28;
const EOI: u32 = 1 << 19;
const PHYSICAL_SHIFT: u32 = 10;
const PHYSICAL: u32 = 0x3ff << PHYSICAL_SHIFT;
const INTID: u32 = 0x3ff;
const FIRST_PPI: u32 = 16;
const KIND: u32 = 3 << 10;
const FIRST: u32 = 1 << 10;
const SECOND: u32 = 2 << 10;
const THIRD: u32 = 3 << 10;

/// Returns the list register to write for `value`, whose physical interrupt, if any, is one of `physical`.
#[must_use]
pub const fn hide(value: u32, physical: [u32; 3]) -> u32 {
    if value & HARDWARE == 0 {
        return value;
    }
    let plain = value & !(HARDWARE | PHYSICAL);
    let [first, second, _] = physical;
    let behind = (value & PHYSICAL) >> PHYSICAL_SHIFT;
    if plain & STATE == 0 {
        plain
    } else if behind == first {
        plain | EOI | FIRST
    } else if behind == second {
        plain | EOI | SECOND
    } else {
        plain | EOI | THIRD
    }
}

/// Returns the physical interrupt behind a list register that [`hide`] gave.
#[must_use]
pub const fn behind(value: u32, physical: [u32; 3]) -> Option<u32> {
    let [first, second, third] = physical;
    if value & (HARDWARE | EOI) != EOI || value & INTID < FIRST_PPI {
        return None;
    }
    match value & KIND {
        FIRST => Some(first),
        SECOND => Some(second),
        THIRD => Some(third),
        _ => None,
    }
}

/// Returns the list register that [`hide`] was given.
#[must_use]
pub const fn show(value: u32, physical: [u32; 3]) -> u32 {
    match behind(value, physical) {
        Some(intid) => value & !PHYSICAL | HARDWARE | intid << PHYSICAL_SHIFT,
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::super::list_register::{decode, encode};
    use super::*;
    use crate::{IntId, ListRegister};

    const BEHIND: [u32; 3] = [27, 30, 23];

    #[test]
    fn a_linked_one_asks_for_its_end_and_is_found_again() {
        for (intid, physical) in [(27, 27), (30, 30), (27, 30), (23, 23)] {
            let pending = ListRegister::pending(IntId::private(intid), 0xa0, false);
            let linked = pending.linked_to(physical);
            for lr in [linked, linked.acknowledged()] {
                let hidden = hide(encode(lr), BEHIND);
                let plain = decode(hidden);
                assert!(!plain.is_hardware() && plain.wants_eoi());
                assert_eq!(plain.state(), lr.state());
                assert_eq!(plain.intid(), intid);
                assert_eq!(behind(hidden, BEHIND), Some(physical));
                assert_eq!(decode(show(hidden, BEHIND)), lr);
                // The guest has ended it: GICH_LR.State is zero, and GICH_EISR tells.
                assert_eq!(behind(hidden & !STATE, BEHIND), Some(physical));
            }
            let over = encode(linked.without_pending());
            assert_eq!(behind(hide(over, BEHIND), BEHIND), None, "nothing to end");
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        let sgi = ListRegister::pending(IntId::private(3), 0, false);
        let spi = ListRegister::pending(IntId::new(40).unwrap(), 0xf8, true);
        let written = ListRegister::pending(IntId::private(27), 0, false);
        for lr in [
            ListRegister::EMPTY,
            sgi.from_cpu(1).asking_for_eoi(),
            sgi.from_cpu(2),
            spi.asking_for_eoi(),
            written,
            written.acknowledged().asking_for_eoi(),
        ] {
            let value = encode(lr);
            assert_eq!(hide(value, BEHIND), value);
            assert_eq!(behind(value, BEHIND), None, "{value:#x}");
            assert_eq!(show(value, BEHIND), value);
        }
    }
}
