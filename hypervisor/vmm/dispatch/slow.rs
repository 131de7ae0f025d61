//! Traps that end elsewhere: a vCPU that waits, leaves, or is told off, and everything too rare to hurry.

use psci::ReturnCode;
use vgic::ListRegisters;

use super::calls::Outcome;
use super::inject::{Exception, is_el0};
use super::{Trap, calls};
use crate::dispatch::sysreg;
use crate::exit::{Abort, Syndrome, class};
use crate::features::Lent;
use crate::vm::VcpuContext;

/// What `el2` is to do with a vCPU that has left the guest.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on where the frame says.
    Resume,
    /// Go on behind the trapped instruction.
    Advance,
    /// Take an exception at EL1.
    Inject(Exception),
    /// Sleep until there is an interrupt, then go on where the frame says.
    Block,
    /// The guest waits for an event (WFE), or for some time if `timed` (WFET, WFIT), while others may want the CPU; go on behind the
    /// instruction.
    WaitForEvent {
        /// It waits for some time at most.
        timed: bool,
    },
    /// Give the FP unit to this vCPU and go on.
    UseFp,
    /// Lend a unit of the CPU to this vCPU, and try again.
    Lend(Lent),
    /// Load MDSCR_EL1 from the saved registers and go on behind the trapped instruction.
    LoadDebug,
    /// The vCPU is off.
    Off,
    /// The whole VM is to be turned off.
    SystemOff,
    /// The whole VM is to start anew.
    SystemReset,
    /// The guest cleans its caches by set and way, this one first or next; go on behind the instruction when it has had its effect.
    CleanMemory(u64),
    /// A call of Bullpen's own.
    Vendor,
}

/// A synchronous exception with its address registers.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// ESR_EL2.
    pub syndrome: Syndrome,
    /// FAR_EL2.
    pub far: u64,
    /// Guest address of an abort, from HPFAR_EL2.
    pub address: u64,
}

/// Decides about a synchronous exception that the hot path left.
pub fn synchronous<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    context: &mut VcpuContext,
    exit: Exit,
) -> Next {
    match exit.syndrome.class() {
        class::WFX => wait(context, exit.syndrome),
        class::FP => Next::UseFp,
        class::HVC64 => call(trap, context, exit.syndrome),
        class::SMC64 => {
            // Unlike an HVC it is not stepped over by the hardware.
            context.frame.step_over(exit.syndrome);
            call(trap, context, exit.syndrome)
        }
        class::SYSTEM => sysreg::access(trap, context, exit.syndrome),
        class::DATA_ABORT => data_abort(context, exit),
        class::INSTRUCTION_ABORT => Next::Inject(external_abort(context, exit, false)),
        _ => Next::Inject(Exception::undefined()),
    }
}

/// WFI sleeps; WFE and the timed forms return early, which the architecture allows.
fn wait(context: &mut VcpuContext, syndrome: Syndrome) -> Next {
    if !syndrome.is_wfi() {
        return Next::WaitForEvent {
            timed: syndrome.is_timed_wait(),
        };
    }
    context.frame.step_over(syndrome);
    Next::Block
}

fn call<L>(trap: &mut Trap<'_, L>, context: &mut VcpuContext, syndrome: Syndrome) -> Next {
    let frame = &mut context.frame;
    if syndrome.immediate() != 0 {
        frame.x[0] = psci::NOT_SUPPORTED;
        return Next::Resume;
    }
    match calls::call(trap.vm, frame, &mut trap.kicks) {
        Outcome::Answered => Next::Resume,
        Outcome::Off => Next::Off,
        Outcome::Standby => {
            frame.x[0] = ReturnCode::Success.as_x0();
            Next::Block
        }
        Outcome::PowerDown(entry) => {
            context.suspended = Some(entry);
            Next::Block
        }
        Outcome::SystemOff => Next::SystemOff,
        Outcome::SystemReset => Next::SystemReset,
        Outcome::Vendor => Next::Vendor,
    }
}

fn data_abort(context: &VcpuContext, exit: Exit) -> Next {
    let abort = Abort::new(exit.syndrome);
    if !abort.is_translation_fault() {
        // RAM is mapped with every permission: what faults otherwise is the guest's table walk or an external abort.
        return Next::Inject(external_abort(context, exit, true));
    }
    if abort.is_cache_maintenance() {
        // There is nothing cached of what is not memory.
        return Next::Advance;
    }
    Next::Inject(external_abort(context, exit, true))
}

fn external_abort(context: &VcpuContext, exit: Exit, data: bool) -> Exception {
    let abort = Abort::new(exit.syndrome);
    let level = abort.is_table_walk().then_some(exit.syndrome.get() & 3);
    Exception::external_abort(
        exit.far,
        data,
        abort.is_write(),
        is_el0(context.frame.pstate),
        level,
    )
}
