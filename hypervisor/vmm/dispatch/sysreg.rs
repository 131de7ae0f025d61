//! System registers that trap: what reads give, what writes do, and what does not exist.
//!
//! A register that is in no row is undefined: hidden features are hidden everywhere. Rows cite Arm ARM D19 unless said.

use vgic::ListRegisters;

use crate::dispatch::Trap;
use crate::dispatch::gic_v3;
use crate::dispatch::inject::Exception;
use crate::dispatch::slow::Next;
use crate::exit::{Syndrome, SystemAccess, system_register};
use crate::features::Lent;
use crate::vm::VcpuContext;

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Reads as zero, writes are ignored.
    Zero,
    /// Reads as a constant, writes are ignored.
    Value(u64),
    /// MDSCR_EL1 of a vCPU to which the debug registers are not lent: a CPU that comes online closes the channel to EL0.
    DebugControl,
    /// SGI generation for group 0.
    SgiGroup0,
    /// ICC_DIR_EL1, which traps while more interrupts are active than there are list registers.
    Deactivate,
    /// Cache maintenance by set and way: all of the guest's memory is cleaned by address once for a sequence of them, since what
    /// is in a set is not the guest's to know, and other CPUs' caches are out of its reach (Arm ARM D7.5.9).
    SetWay,
    /// PMUSERENR_EL0 of a vCPU that does not use the PMU: reads as zero, and a CPU that comes online writes zero.
    PmuUser,
    /// A register of a unit that is lent to the vCPU from now on.
    Lend(Lent),
}

/// One register, or with a mask a group of them.
struct Row {
    register: u32,
    mask: u32,
    rule: Rule,
}

/// Rows of units that are lent.
const DEBUG: Rule = Rule::Lend(Lent::DEBUG);
const PMU: Rule = Rule::Lend(Lent::PMU);

const EXACT: u32 = SystemAccess::REGISTER;
/// Mask that ignores CRm and op2's lower two bits: breakpoints and watchpoints.
const ANY_POINT: u32 = SystemAccess::REGISTER & !system_register(0, 0, 0, 15, 3);

/// Mask that ignores op2.
const ANY_OP2: u32 = SystemAccess::REGISTER & !system_register(0, 0, 0, 0, 7);
/// Mask that ignores CRm's lower three bits and op2: the PMU's event counters.
const ANY_COUNTER: u32 = ANY_OP2 & !system_register(0, 0, 0, 7, 0);

const fn row(register: u32, rule: Rule) -> Row {
    group(register, EXACT, rule)
}

const fn group(register: u32, mask: u32, rule: Rule) -> Row {
    Row {
        register,
        mask,
        rule,
    }
}

/// OSLSR_EL1: OS lock implemented and unlocked (OSLM = 0b10).
const OSLSR_UNLOCKED: u64 = 1 << 3;
/// MDSCR_EL1.TDCC, which enables nothing.
const MDSCR_TDCC: u64 = 1 << 12;

const ROWS: &[Row] = &[
    // Debug: `DBGBVR<n>_EL1` to `DBGWCR<n>_EL1`, and what a debugger outside would use.
    row(system_register(2, 0, 0, 2, 2), Rule::DebugControl),
    group(system_register(2, 0, 0, 0, 4), ANY_POINT, DEBUG),
    row(system_register(2, 0, 0, 2, 0), Rule::Zero),
    row(system_register(2, 0, 0, 0, 2), Rule::Zero),
    row(system_register(2, 0, 0, 3, 2), Rule::Zero),
    row(system_register(2, 0, 0, 6, 2), Rule::Zero),
    row(system_register(2, 0, 1, 0, 0), Rule::Zero),
    row(system_register(2, 0, 1, 0, 4), Rule::Zero),
    row(system_register(2, 0, 1, 1, 4), Rule::Value(OSLSR_UNLOCKED)),
    row(system_register(2, 0, 1, 3, 4), Rule::Zero),
    row(system_register(2, 0, 1, 4, 4), Rule::Zero),
    row(system_register(2, 0, 7, 8, 6), Rule::Zero),
    row(system_register(2, 0, 7, 9, 6), Rule::Zero),
    row(system_register(2, 0, 7, 14, 6), Rule::Zero),
    row(system_register(2, 3, 0, 1, 0), Rule::Zero),
    row(system_register(2, 3, 0, 4, 0), Rule::Zero),
    row(system_register(2, 3, 0, 5, 0), Rule::Zero),
    // ACTLR_EL1, REVIDR_EL1, AIDR_EL1.
    row(system_register(3, 0, 1, 0, 1), Rule::Zero),
    row(system_register(3, 0, 0, 0, 6), Rule::Zero),
    row(system_register(3, 1, 0, 0, 7), Rule::Zero),
    // ICC_ASGI1R_EL1, ICC_SGI0R_EL1 (GIC IHI0069, 12.2).
    row(system_register(3, 0, 12, 11, 6), Rule::SgiGroup0),
    row(system_register(3, 0, 12, 11, 7), Rule::SgiGroup0),
    // ICC_DIR_EL1 (GIC IHI0069, 12.2).
    row(system_register(3, 0, 12, 11, 1), Rule::Deactivate),
    // PMUSERENR_EL0; PMCR_EL0 to PMCEID1_EL0, PMCCNTR_EL0 to PMXEVCNTR_EL0, PMOVSSET_EL0; PMINTENSET_EL1, PMINTENCLR_EL1 and
    // PMMIR_EL1; PMEVCNTR<n>_EL0, PMEVTYPER<n>_EL0 and PMCCFILTR_EL0 (Arm ARM D19.5).
    row(system_register(3, 3, 9, 14, 0), Rule::PmuUser),
    group(system_register(3, 3, 9, 12, 0), ANY_OP2, PMU),
    group(system_register(3, 3, 9, 13, 0), ANY_OP2, PMU),
    row(system_register(3, 3, 9, 14, 3), PMU),
    group(system_register(3, 0, 9, 14, 0), ANY_OP2, PMU),
    group(system_register(3, 3, 14, 8, 0), ANY_COUNTER, PMU),
    // DC ISW, CSW, CISW.
    row(system_register(1, 0, 7, 6, 2), Rule::SetWay),
    row(system_register(1, 0, 7, 10, 2), Rule::SetWay),
    row(system_register(1, 0, 7, 14, 2), Rule::SetWay),
];

/// Decides about an access that the hot path left.
pub(super) fn access<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    context: &mut VcpuContext,
    syndrome: Syndrome,
) -> Next {
    let access = SystemAccess::new(syndrome);
    let Some(row) = ROWS
        .iter()
        .find(|row| access.register() & row.mask == row.register)
    else {
        return Next::Inject(Exception::undefined());
    };
    match (row.rule, access.is_read()) {
        (Rule::PmuUser, _) => pmu_user(trap, context, access),
        (Rule::Lend(unit), _) => lend(trap, context, unit),
        (Rule::Zero, true) => read(context, access, 0),
        (Rule::Value(value), true) => read(context, access, value),
        (Rule::DebugControl, _) => debug_control(trap, context, access),
        (Rule::SgiGroup0 | Rule::Deactivate, false) if trap.has_gicv2() => {
            Next::Inject(Exception::undefined())
        }
        (Rule::SgiGroup0, false) => {
            gic_v3::send_group0(trap, context.frame.register(access.rt()));
            Next::Advance
        }
        (Rule::Deactivate, false) => {
            trap.deactivate(context.frame.register(access.rt()));
            Next::Advance
        }
        (Rule::SetWay, false) => Next::CleanMemory(context.frame.register(access.rt())),
        (Rule::Zero | Rule::Value(_), false) => Next::Advance,
        (Rule::SgiGroup0 | Rule::Deactivate | Rule::SetWay, true) => {
            Next::Inject(Exception::undefined())
        }
    }
}

/// Decides about MDSCR_EL1 of a vCPU to which the debug registers are not lent.
fn debug_control<L: ListRegisters>(
    trap: &Trap<'_, L>,
    context: &mut VcpuContext,
    access: SystemAccess,
) -> Next {
    let value = context.frame.register(access.rt());
    if access.is_read() || value & !MDSCR_TDCC != 0 {
        return lend(trap, context, Lent::DEBUG);
    }
    context.system.mdscr_el1 = value;
    Next::LoadDebug
}

/// Decides about PMUSERENR_EL0 of a vCPU to which the PMU is not lent.
fn pmu_user<L: ListRegisters>(
    trap: &Trap<'_, L>,
    context: &mut VcpuContext,
    access: SystemAccess,
) -> Next {
    match lend(trap, context, Lent::PMU) {
        Next::Lend(_) if access.is_read() => read(context, access, 0),
        Next::Lend(_) if context.frame.register(access.rt()) == 0 => Next::Advance,
        next => next,
    }
}

/// Decides about a register of a unit that its vCPU does not use yet, or that is hidden.
fn lend<L: ListRegisters>(trap: &Trap<'_, L>, context: &VcpuContext, unit: Lent) -> Next {
    if !trap.vm.policy.lendable.has(unit) || context.lent.has(unit) {
        return Next::Inject(Exception::undefined());
    }
    Next::Lend(unit)
}

fn read(context: &mut VcpuContext, access: SystemAccess, value: u64) -> Next {
    context.frame.set_register(access.rt(), value);
    Next::Advance
}

#[cfg(test)]
mod tests;
