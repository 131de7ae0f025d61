//! SMCCC and PSCI calls, decoded in one place: answers that need no more than the caller's VM, and what the others ask for.
//!
//! `hot` calls this for what its shortest path does not know, `slow` once more for what `hot` could not carry out: a call that
//! is not answered changes nothing.

use psci::{Answer, Call, EntryPoint, Quick, Reset, ReturnCode, Suspend, decode};
use types::address::GuestPhys;

use crate::hypercall;
use crate::vm::context::{Frame, Owner};
use crate::vm::{Kicks, Vm};

/// What a call comes to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer is in the frame.
    Answered,
    /// The vCPU turns itself off.
    Off,
    /// The vCPU waits for an interrupt; then x0 says that all is well.
    Standby,
    /// The vCPU waits for an interrupt, then begins here.
    PowerDown(EntryPoint),
    /// The whole VM is to be turned off.
    SystemOff,
    /// The whole VM is to start anew.
    SystemReset,
    /// A call of Bullpen's own.
    Vendor,
}

/// Answers the call in a frame's x0 to x3, or says what it asks for.
pub(super) fn call(vm: &Vm, frame: &mut Frame, kicks: &mut Kicks) -> Outcome {
    let call = decode(frame.x[0], frame.x[1], frame.x[2], frame.x[3]);
    frame.x[0] = match call {
        Call::CpuOn { target, entry } => turn_on(vm, target, entry, kicks),
        Call::CpuOff => return Outcome::Off,
        Call::CpuSuspend(Suspend::Standby) => return Outcome::Standby,
        Call::CpuSuspend(Suspend::PowerDown(entry)) => {
            if is_entry(vm, entry) {
                return Outcome::PowerDown(entry);
            }
            ReturnCode::InvalidAddress.as_x0()
        }
        Call::SystemOff => return Outcome::SystemOff,
        Call::SystemReset(Reset::Cold | Reset::Warm) => return Outcome::SystemReset,
        Call::AffinityInfo { target } => affinity_info(vm, target, kicks),
        Call::NodeHwState { target } => match vm.vcpu_by_affinity(target) {
            Some(vcpu) if vcpu.power.state().is_on() => psci::HW_ON,
            Some(_) => psci::HW_OFF,
            None => ReturnCode::InvalidParameters.as_x0(),
        },
        Call::PvTimeStolen => stolen_time(vm, frame),
        Call::Unknown if hypercall::is_ours(frame.x[0]) => return Outcome::Vendor,
        _ => match call.immediate(&vm.offered) {
            Some(Answer::One(x0)) => x0,
            Some(Answer::Four(values)) => {
                frame.x[1..4].copy_from_slice(&values[1..]);
                values[0]
            }
            None => psci::NOT_SUPPORTED,
        },
    };
    Outcome::Answered
}

/// Returns what AFFINITY_INFO says of a vCPU, as the guest's x0, unless that vCPU waits for its CPU.
#[inline]
pub(super) fn quick_affinity_info(vm: &Vm, target: u64) -> Quick {
    match vm.vcpu_by_affinity(target) {
        Some(vcpu) if vcpu.at.loaded.is_displaced() => Quick::Ask,
        Some(vcpu) => Quick::Answer(vcpu.power.affinity_info()),
        None => Quick::Answer(ReturnCode::InvalidParameters.as_x0()),
    }
}

/// Says where the caller's record of stolen time is, and keeps it up to date from now on; returns the caller's x0.
#[cold]
fn stolen_time(vm: &Vm, frame: &Frame) -> u64 {
    let Some(Owner { vcpu, .. }) = frame.owner else {
        return psci::NOT_SUPPORTED;
    };
    vcpu.usage.tell_guest();
    vm.stolen_time.write(vcpu.id, vcpu.usage.all_stolen_ticks());
    vm.layout.stolen_time_of(vcpu.id).get()
}

/// Returns what AFFINITY_INFO says of a vCPU, as the guest's x0.
///
/// A guest that asks waits for the vCPU to be off: if that one waits for its CPU, it has it soon. Linux gives it 100 ms.
fn affinity_info(vm: &Vm, target: u64, kicks: &mut Kicks) -> u64 {
    let Some(vcpu) = vm.vcpu_by_affinity(target) else {
        return ReturnCode::InvalidParameters.as_x0();
    };
    if vcpu.at.loaded.is_displaced() {
        vcpu.hurry(kicks);
    }
    vcpu.power.affinity_info()
}

/// Turns a vCPU on, if there is one and its power state lets it, and wakes the CPU it belongs to; returns the caller's x0.
#[inline(always)]
pub(super) fn turn_on(vm: &Vm, target: u64, entry: EntryPoint, kicks: &mut Kicks) -> u64 {
    let Some(vcpu) = vm.vcpu_by_affinity(target) else {
        return ReturnCode::InvalidParameters.as_x0();
    };
    if !is_entry(vm, entry) {
        return ReturnCode::InvalidAddress.as_x0();
    }
    let code = vcpu.power.cpu_on(entry);
    if code == ReturnCode::Success {
        vcpu.wake(kicks);
    }
    code.as_x0()
}

/// Returns whether a vCPU can begin at an address: an instruction in RAM.
#[inline]
fn is_entry(vm: &Vm, entry: EntryPoint) -> bool {
    entry.address & 3 == 0 && vm.is_ram(GuestPhys::new(entry.address))
}
