//! The shortest way through EL2: traps that end where they began.
//!
//! Called straight from the vectors with the volatile registers saved. Nothing here allocates, logs, or takes a lock that
//! another VM's CPU can hold. What it can't settle it leaves untouched, and `slow` starts over.

use psci::{EntryPoint, Quick, quick};
use vgic::{After, IntId, ListRegisters};

use super::calls::Outcome;
use super::{Trap, calls, gic_v2, gic_v3};
use crate::bus;
use crate::bus::Target;
use crate::devices::{Access, Work};
use crate::exit::{Abort, Syndrome, SystemAccess, system_register};
use crate::features::id_index;
use crate::vm::context::Frame;
use crate::vm::{Around, Kicks, Outside, Vm};
use types::devices::DeviceId;
use types::stats::ExitReason;

/// How a trap goes on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot {
    /// The guest goes on where it is.
    Resume,
    /// The guest goes on behind the trapped instruction.
    Advance,
    /// As [`Hot::Advance`], after something is done for a device of the VM.
    Work,
    /// As [`Hot::Advance`], after the vCPU has left the guest for something to be done for a device of the VM.
    Exit,
    /// As [`Hot::Exit`], but then the trapped instruction is tried again.
    Retry,
    /// The vCPU turns itself off.
    Off,
    /// The vCPU waits for an interrupt; then x0 says that all is well.
    Standby,
    /// Nothing was done; the slow path decides.
    Leave,
}

/// Answers an HVC if the function alone, or a look at one vCPU, tells the answer.
#[inline(always)]
pub fn quick_hypercall(vm: &Vm, frame: &Frame, syndrome: Syndrome) -> Quick {
    if syndrome.immediate() != 0 {
        return Quick::Answer(psci::NOT_SUPPORTED);
    }
    let target = match quick(frame.x[0]) {
        Quick::AffinityInfo => frame.x[1],
        Quick::AffinityInfo32 => u64::from(frame.x[1] as u32),
        other => return other,
    };
    if frame.x[2] as u32 != 0 {
        return Quick::Ask;
    }
    calls::quick_affinity_info(vm, target)
}

/// Answers an HVC.
pub fn hypercall(vm: &'static Vm, frame: &mut Frame, syndrome: Syndrome, kicks: &mut Kicks) -> Hot {
    if syndrome.immediate() != 0 {
        frame.x[0] = psci::NOT_SUPPORTED;
        return Hot::Resume;
    }
    frame.x[0] = match quick(frame.x[0]) {
        Quick::Answer(x0) => x0,
        Quick::CpuOn => cpu_on(vm, frame, kicks),
        Quick::CpuOff => return Hot::Off,
        _ => {
            return match calls::call(vm, frame, kicks) {
                Outcome::Answered => Hot::Resume,
                Outcome::Off => Hot::Off,
                Outcome::Standby => Hot::Standby,
                _ => Hot::Leave,
            };
        }
    };
    Hot::Resume
}

/// Carries out CPU_ON in its 64-bit form and returns the guest's x0.
#[inline(always)]
pub fn cpu_on(vm: &Vm, frame: &Frame, kicks: &mut Kicks) -> u64 {
    let entry = EntryPoint {
        address: frame.x[2],
        context_id: frame.x[3],
    };
    calls::turn_on(vm, frame.x[1], entry, kicks)
}

const ICC_SGI1R: u32 = system_register(3, 0, 12, 11, 5);

/// Reads a feature register into a general register below x16, as the vectors have found out.
#[inline(always)]
pub fn feature_register(vm: &'static Vm, frame: &mut Frame, syndrome: Syndrome) {
    let access = SystemAccess::new(syndrome);
    let index = id_index(access.crm(), access.op2());
    frame.x[access.rt() as usize & 0xf] = vm.policy.id[index];
}

/// Answers a trapped system-register access.
#[inline(always)]
pub fn system<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    syndrome: Syndrome,
) -> (Hot, ExitReason) {
    let access = SystemAccess::new(syndrome);
    if L::SERVE_GICV3 && access.register() == ICC_SGI1R && !access.is_read() {
        gic_v3::send_sgi(trap, frame.register(access.rt()));
        return (Hot::Advance, ExitReason::Sgi);
    }
    if access.is_id_register_read() {
        let value = trap.vm.policy.id[id_index(access.crm(), access.op2())];
        frame.set_register(access.rt(), value);
        return (Hot::Advance, ExitReason::IdRegister);
    }
    (Hot::Leave, ExitReason::SystemRegister)
}

/// Hands the interrupt of one of the guest's own timers or of its PMU to it; the guest will deactivate the physical one.
#[inline]
pub fn raise<L: ListRegisters>(trap: &mut Trap<'_, L>, intid: u32, physical: u32) {
    let after = trap
        .vcpu
        .gic
        .lock()
        .raise_hardware(trap.lists, IntId::private(intid), physical);
    if after == After::Settle {
        trap.settle();
    }
}

/// The address and syndrome of a data abort.
#[derive(Clone, Copy, Debug)]
pub struct DataAbort {
    /// The syndrome's ISS.
    pub iss: Abort,
    /// The guest address.
    pub address: u64,
}

/// Answers an access to a device register that the hardware has described; of others the vectors take care.
///
/// `leave` is given what the access leaves to be done, for [`Hot::Work`], [`Hot::Exit`] and [`Hot::Retry`].
#[inline]
pub fn mmio<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    abort: DataAbort,
    outside: &impl Outside,
    leave: impl FnOnce(Work),
) -> (Hot, ExitReason) {
    let DataAbort { iss, address } = abort;
    if !iss.is_device_access() {
        return (Hot::Leave, ExitReason::Abort);
    }
    let Some(target) = bus::find(trap.vm, address) else {
        return (Hot::Leave, ExitReason::Abort);
    };
    let width = iss.width();
    let hot = match target {
        Target::Distributor(offset) if trap.has_gicv2() => {
            gic_v2::distributor(trap, frame, iss, offset)
        }
        Target::CpuInterface(offset) => gic_v2::cpu_interface(trap, frame, iss, offset),
        Target::Distributor(offset) if iss.is_write() => {
            let value = written(frame, iss);
            gic_v3::write_distributor(trap, offset, width, value);
            Hot::Advance
        }
        Target::Distributor(offset) => {
            let value = gic_v3::read_distributor(trap, offset, width);
            read(frame, iss, value)
        }
        Target::Redistributor(..) if !L::SERVE_GICV3 => Hot::Leave,
        Target::Redistributor(id, offset) if iss.is_write() => {
            let value = written(frame, iss);
            gic_v3::write_redistributor(trap, id, offset, width, value);
            Hot::Advance
        }
        Target::Redistributor(id, offset) => {
            match gic_v3::read_redistributor(trap, id, offset, width) {
                Some(value) => read(frame, iss, value),
                None => Hot::Leave,
            }
        }
        Target::Device(device, offset) => {
            let access = Access { offset, width };
            if iss.is_write() {
                let value = written(frame, iss);
                write_device(trap, device, access, value, outside, leave)
            } else if let Some(value) = trap.vm.devices.peek(device, access, trap.vm) {
                read(frame, iss, value)
            } else {
                match read_device(trap, device, access, outside, leave) {
                    Some(value) => read(frame, iss, value),
                    None => Hot::Retry,
                }
            }
        }
    };
    (hot, target.exit_reason())
}

/// Returns what a guest writes.
#[inline(always)]
pub(super) fn written(frame: &Frame, iss: Abort) -> u64 {
    frame.register(iss.rt()) & iss.width().mask()
}

/// Gives a guest what it has read.
#[inline(always)]
pub(super) fn read(frame: &mut Frame, iss: Abort, value: u64) -> Hot {
    frame.set_register(iss.rt(), iss.extend(value & iss.width().mask()));
    Hot::Advance
}

/// Answers an access as [`mmio`] does, by `little`, for an instruction whose data is big-endian (Arm ARM B2.6).
///
/// `little` returns whether the access was carried out; if not, the registers are as they were.
#[cold]
pub fn big_endian<R>(
    frame: &mut Frame,
    iss: Abort,
    little: impl FnOnce(&mut Frame) -> (bool, R),
) -> R {
    let before = frame.register(iss.rt());
    if iss.is_write() {
        frame.set_register(iss.rt(), iss.reversed(before));
    }
    let (done, result) = little(frame);
    if iss.is_write() {
        frame.set_register(iss.rt(), before);
    } else if done {
        let read = iss.reversed(frame.register(iss.rt()));
        frame.set_register(iss.rt(), iss.extend(read));
    }
    result
}

/// Reads a register of a device; `None` if something has to be done first, which `leave` is given.
#[inline(never)]
fn read_device<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    device: DeviceId,
    access: Access,
    outside: &impl Outside,
    leave: impl FnOnce(Work),
) -> Option<u64> {
    let vm = trap.vm;
    let mut around = Around::new(vm, device, outside, &mut trap.kicks);
    let result = vm.devices.read(device, access, &mut around);
    if around.has_moved() {
        see_line(trap);
    }
    result.map_err(leave).ok()
}

/// Writes a register of a device.
#[inline(never)]
fn write_device<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    device: DeviceId,
    access: Access,
    value: u64,
    outside: &impl Outside,
    leave: impl FnOnce(Work),
) -> Hot {
    let vm = trap.vm;
    let mut around = Around::new(vm, device, outside, &mut trap.kicks);
    let result = vm.devices.write(device, access, value, &mut around);
    if around.has_moved() {
        see_line(trap);
    }
    let Some(work) = result else {
        return Hot::Advance;
    };
    if work == Work::Repeat {
        return Hot::Resume;
    }
    leave(work);
    if work.is_slow() { Hot::Exit } else { Hot::Work }
}

/// Lets this vCPU see at once that the line of a device has moved.
#[inline(never)]
fn see_line<L: ListRegisters>(trap: &mut Trap<'_, L>) {
    if !trap.vcpu.inbox.is_empty() {
        trap.deliver();
    }
}
