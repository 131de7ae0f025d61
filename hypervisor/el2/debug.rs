//! Breakpoints and watchpoints, switched only for vCPUs that use them (`vmm::vm::debug` says when that is).
//!
//! While no such vCPU is loaded every one of them is off, so nothing that a guest left behind fires in a neighbour.

use crate::sysreg::{self, isb};
use vmm::vm::debug::{DebugRegisters, counts};

macro_rules! each_point {
    ($apply:ident, $points:expr, $count:expr, $value:ident $control:ident, $($n:literal)*) => {
        $(
            if $n < $count {
                $apply!($value, $n, $points[$n].value);
                $apply!($control, $n, $points[$n].control);
            }
        )*
    };
}

macro_rules! each_register {
    ($apply:ident, $registers:expr) => {{
        let (breakpoints, watchpoints) = counts(sysreg::id_aa64dfr0_el1::read());
        each_point!($apply, $registers.breakpoints, breakpoints, dbgbvr_el1 dbgbcr_el1, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        each_point!($apply, $registers.watchpoints, watchpoints, dbgwvr_el1 dbgwcr_el1, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }};
}

macro_rules! read_into {
    ($name:ident, $n:literal, $place:expr) => {
        $place = sysreg::$name::read::<$n>()
    };
}

macro_rules! write_from {
    ($name:ident, $n:literal, $place:expr) => {
        sysreg::$name::write::<$n>($place)
    };
}

/// Loads a guest's breakpoints and watchpoints.
#[cold]
#[inline(never)]
pub(crate) fn load(registers: &DebugRegisters) {
    each_register!(write_from, registers);
    isb();
}

/// Takes a guest's breakpoints and watchpoints out of this CPU and turns them off.
#[cold]
pub(crate) fn save(registers: &mut DebugRegisters) {
    each_register!(read_into, registers);
    stop();
}

/// Turns every breakpoint and watchpoint off and empties what else of a debugger's a guest could write (Arm ARM D19.3):
/// the channel's interrupt enables and its outgoing word, the claim tags.
#[cold]
pub(crate) fn stop() {
    load(&DebugRegisters::default());
    sysreg::mdccint_el1::write(0);
    sysreg::osdtrtx_el1::write(0);
    sysreg::dbgclaimclr_el1::write(CLAIM_TAGS);
}

/// All of DBGCLAIMCLR_EL1.CLAIM.
const CLAIM_TAGS: u64 = 0xff;

/// Opens the OS lock and the double lock, which a reset closes, and leaves nothing of the firmware's.
#[cold]
pub(crate) fn start() {
    sysreg::mdscr_el1::write(0);
    sysreg::osdlr_el1::write(0);
    sysreg::oslar_el1::write(0);
    stop();
}
