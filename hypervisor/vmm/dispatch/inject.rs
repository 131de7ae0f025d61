//! Exceptions that a guest takes at EL1 because EL2 says so (Arm ARM D1.3).

use crate::vm::VcpuContext;
use crate::vm::context::Streak;

/// An exception to be taken at EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the class has one.
    pub far: Option<u64>,
}

/// Instruction length bit of a syndrome.
const IL: u64 = 1 << 25;
/// Exception class for an unknown reason.
const UNKNOWN: u64 = 0;
/// Exception class of an instruction abort from a lower level.
const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
/// Exception class of a data abort from a lower level.
const DATA_ABORT_LOWER: u64 = 0x24;
/// Synchronous external abort, not on a table walk.
const EXTERNAL: u64 = 0x10;
/// Synchronous external abort on a table walk at level 0; the level is added.
const EXTERNAL_ON_WALK: u64 = 0x14;

/// PSTATE fields (Arm ARM C5.2.19).
mod pstate {
    pub(super) const MODE: u64 = 0xf;
    pub(super) const AARCH32: u64 = 1 << 4;
    pub(super) const EL0T: u64 = 0;
    pub(super) const EL1T: u64 = 4;
    pub(super) const EL1H: u64 = 5;
    pub(super) const DAIF: u64 = 0xf << 6;
    pub(super) const SSBS: u64 = 1 << 12;
    pub(super) const PAN: u64 = 1 << 22;
    pub(super) const DIT: u64 = 1 << 24;
    pub(super) const NZCV: u64 = 0xf << 28;
}

/// SCTLR_EL1.SPAN: PAN is left as it is on an exception.
const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: SSBS on an exception.
const SCTLR_DSSBS: u64 = 1 << 44;

impl Exception {
    /// An undefined instruction.
    #[must_use]
    pub const fn undefined() -> Self {
        Self {
            esr: UNKNOWN << 26 | IL,
            far: None,
        }
    }

    /// A synchronous external abort: there is nothing at the address.
    ///
    /// `from_el0` and `walk_level` (of a stage-1 table walk) are as in the trapped syndrome.
    #[must_use]
    pub const fn external_abort(
        far: u64,
        data: bool,
        write: bool,
        from_el0: bool,
        walk_level: Option<u64>,
    ) -> Self {
        let class = if data {
            DATA_ABORT_LOWER
        } else {
            INSTRUCTION_ABORT_LOWER
        };
        // From the current level the class is one higher.
        let class = class + !from_el0 as u64;
        let status = match walk_level {
            Some(level) => EXTERNAL_ON_WALK + (level & 3),
            None => EXTERNAL,
        };
        let write = if data && write { 1 << 6 } else { 0 };
        Self {
            esr: class << 26 | IL | write | status,
            far: Some(far),
        }
    }
}

/// Where a guest goes on when it takes an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The vector.
    pub pc: u64,
    /// PSTATE there.
    pub pstate: u64,
}

/// Computes the vector and the PSTATE of a synchronous exception taken to EL1.
#[must_use]
pub const fn enter_el1(from: u64, vbar: u64, sctlr: u64) -> Entry {
    let offset = if from & pstate::AARCH32 != 0 {
        0x600
    } else {
        match from & pstate::MODE {
            pstate::EL1H => 0x200,
            pstate::EL1T => 0,
            _ => 0x400,
        }
    };
    let mut to = from & (pstate::NZCV | pstate::PAN | pstate::DIT) | pstate::DAIF | pstate::EL1H;
    if from & pstate::AARCH32 != 0 {
        // AArch32 keeps DIT elsewhere (bit 21), and PAN in the same place.
        to &= !pstate::DIT;
    }
    if sctlr & SCTLR_SPAN == 0 {
        to |= pstate::PAN;
    }
    if sctlr & SCTLR_DSSBS != 0 {
        to |= pstate::SSBS;
    }
    Entry {
        pc: vbar.wrapping_add(offset),
        pstate: to,
    }
}

/// Returns whether a PSTATE is of EL0.
#[must_use]
pub const fn is_el0(state: u64) -> bool {
    state & pstate::AARCH32 != 0 || state & pstate::MODE == pstate::EL0T
}

/// How many faults in a row show that a vCPU does not get on.
pub const ENDLESS: u32 = 1_000;

/// Hears of an exception before it is taken; returns whether it is another [`ENDLESS`]th in a row that brings the guest nowhere.
///
/// A fault counts if it is EL1's, the same as the last one, and ELR_EL1 still names its instruction: the guest faults in its own
/// vectors, or returned to where it came from. One that steps over what faults, or has a program at EL0 that faults, goes on.
#[must_use]
pub fn is_endless(context: &mut VcpuContext, exception: &Exception, elr_el1: u64) -> bool {
    let (pc, far) = (context.frame.pc, exception.far);
    let last = context.faults;
    let is_same =
        !is_el0(context.frame.pstate) && elr_el1 == pc && (last.pc, last.far) == (pc, far);
    let count = if is_same { last.count + 1 } else { 1 };
    let is_endless = count == ENDLESS;
    let count = if is_endless { 0 } else { count };
    context.faults = Streak { pc, far, count };
    is_endless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_depends_on_where_the_guest_was() {
        let vbar = 0xffff_8000_0001_0800;
        for (from, offset) in [(0x3c5, 0x200), (0x3c4, 0), (0x0, 0x400), (0x10, 0x600)] {
            let entry = enter_el1(from, vbar, SCTLR_SPAN);
            assert_eq!(entry.pc, vbar + offset, "{from:#x}");
            assert_eq!(entry.pstate & 0x3cf, 0x3c5);
        }
    }

    #[test]
    fn pan_is_set_unless_span_says_not_to() {
        assert_ne!(enter_el1(5, 0, 0).pstate & pstate::PAN, 0);
        assert_eq!(enter_el1(5, 0, SCTLR_SPAN).pstate & pstate::PAN, 0);
        assert_ne!(
            enter_el1(5 | pstate::PAN, 0, SCTLR_SPAN).pstate & pstate::PAN,
            0
        );
    }

    #[test]
    fn aborts_say_where_they_came_from() {
        let abort = Exception::external_abort(0x1234, true, true, false, None);
        assert_eq!(
            (abort.esr, abort.far),
            (0x25 << 26 | IL | 1 << 6 | 0x10, Some(0x1234))
        );
        assert_eq!(
            Exception::external_abort(0, false, false, true, Some(2)).esr,
            0x20 << 26 | IL | 0x16
        );
    }

    /// Has a vCPU take this many exceptions; returns how many of them are told.
    fn told(times: u64, pstate: u64, far: fn(u64) -> u64, elr: fn(u64) -> u64) -> usize {
        const PC: u64 = 0x200;
        let mut context = VcpuContext::new(4);
        context.frame.pc = PC;
        context.frame.pstate = pstate;
        (0..times)
            .filter(|n| {
                let exception = Exception::external_abort(far(*n), false, false, false, None);
                is_endless(&mut context, &exception, elr(PC))
            })
            .count()
    }

    #[test]
    fn a_vcpu_that_only_faults_is_told_and_one_that_gets_on_is_not() {
        const EL1: u64 = 0x3c5;
        let same = |_| 0x200;
        let stays = |pc| pc;
        assert_eq!(told(999, EL1, same, stays), 0);
        assert_eq!(told(1_000, EL1, same, stays), 1);
        assert_eq!(told(5_500, EL1, same, stays), 5, "it is told as often");
        let steps_over = |pc| pc + 4;
        assert_eq!(told(9_000, EL1, same, steps_over), 0, "it probes");
        assert_eq!(told(9_000, EL1, |n| n, stays), 0, "it maps what it lacks");
        assert_eq!(told(9_000, 0, same, stays), 0, "a program of its faults");
    }

    #[test]
    fn a_fault_elsewhere_begins_a_new_row() {
        let mut context = VcpuContext::new(4);
        let exception = Exception::undefined();
        for n in 0..9_000 {
            let pc = if n % 999 == 0 { 0x400 } else { 0x200 };
            context.frame.pc = pc;
            context.frame.pstate = 0x3c5;
            assert!(!is_endless(&mut context, &exception, pc), "{n}");
        }
    }
}
