//! The shortest way through EL2: traps that end where they began.
//!
//! Called straight from the vectors with the volatile registers saved. Nothing here allocates, logs, or takes a lock that
//! another VM's CPU can hold. What it can't settle it leaves untouched, and `slow` starts over.

use core::sync::atomic::Ordering;
use psci::{EntryPoint, Quick, quick};
use types::access::AccessWidth;
use vgic::{After, IntId, ListRegisters};

use super::calls::Outcome;
use super::{Trap, calls, gic_v3};
use crate::bus;
use crate::bus::Target;
use crate::devices::Device;
use crate::devices::cpu_hotplug::spec::Register;
use crate::devices::virtio_mmio;
use crate::exit::{Abort, Syndrome, SystemAccess, system_register};
use crate::features::id_index;
use crate::vm::context::Frame;
use crate::vm::{Kicks, Vm};
use types::ids::VcpuId;
use types::stats::ExitReason;

/// How a trap goes on.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot {
    /// The guest goes on where it is.
    Resume,
    /// The guest goes on behind the trapped instruction.
    Advance,
    /// As [`Hot::Advance`], and bytes wait in the VM's UART to be shown.
    Output,
    /// As [`Hot::Advance`], and the alarm of the VM's clock has come nearer.
    Alarm,
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
    Quick::Answer(calls::affinity_info(vm, target))
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
#[inline]
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
    if access.register() == ICC_SGI1R && !access.is_read() {
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

/// Hands one of the guest's own timers' interrupts to it; the guest will deactivate the physical one.
#[inline]
pub fn raise_timer<L: ListRegisters>(trap: &mut Trap<'_, L>, intid: u32, physical: u32) {
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
#[inline]
pub fn mmio<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    abort: DataAbort,
    now_ns: impl FnOnce() -> u64,
) -> (Hot, ExitReason) {
    if !abort.iss.is_device_access() {
        return (Hot::Leave, ExitReason::Abort);
    }
    let Some(target) = bus::find(trap.vm, abort.address) else {
        return (Hot::Leave, ExitReason::Abort);
    };
    (
        access(trap, frame, abort, target, now_ns),
        target.exit_reason(),
    )
}

#[inline]
fn access<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    abort: DataAbort,
    target: Target,
    now_ns: impl FnOnce() -> u64,
) -> Hot {
    let width = abort.iss.width();
    if abort.iss.is_write() {
        let value = frame.register(abort.iss.rt()) & width.mask();
        write(trap, target, width, value, now_ns)
    } else {
        let Some(value) = read(trap, target, width, now_ns) else {
            return Hot::Leave;
        };
        frame.set_register(abort.iss.rt(), abort.iss.extend(value & width.mask()));
        Hot::Advance
    }
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

fn read<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    target: Target,
    width: AccessWidth,
    now_ns: impl FnOnce() -> u64,
) -> Option<u64> {
    let vm = trap.vm;
    Some(match target {
        Target::Distributor(offset) => gic_v3::read_distributor(trap, offset, width),
        Target::Redistributor(id, offset) => {
            return gic_v3::read_redistributor(trap, id, offset, width);
        }
        Target::Uart(offset) if offset == types::pl011::FR => u64::from(vm.uart.lock().flags()),
        Target::Uart(offset) => {
            let reading = vm.uart.lock().read(offset, width, now_ns());
            moved(trap, vm.layout.uart.intid, reading.line);
            reading.value
        }
        Target::Rtc(offset) => {
            let reading = vm.rtc.lock().read(offset, width, now_ns());
            moved(trap, vm.layout.rtc.intid, reading.line);
            reading.value
        }
        Target::Hotplug(offset) => hotplug_read(vm, offset, width)?,
        Target::Virtio(offset) => {
            // They are as far apart as a power of two.
            let within = vm.layout.virtio.stride.wrapping_sub(1);
            virtio_mmio::read_empty(offset & within, width)
        }
    })
}

/// Reads a hot-plug register; `_STA` takes no lock. The first look at the events is left to the slow path.
fn hotplug_read(vm: &Vm, offset: u64, width: AccessWidth) -> Option<u64> {
    let sta = |id: VcpuId| vm.vcpu(id).map_or(0, |vcpu| vcpu.power.sta());
    match Register::decode(offset, width, vm.vcpus.len() as u16) {
        Some(Register::Sta(id)) => Some(u64::from(sta(id))),
        Some(Register::Event) if !vm.listening.load(Ordering::Relaxed) => None,
        _ => Some(vm.hotplug.lock().read(offset, width, sta)),
    }
}

fn write<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    target: Target,
    width: AccessWidth,
    value: u64,
    now_ns: impl FnOnce() -> u64,
) -> Hot {
    let vm = trap.vm;
    match target {
        Target::Distributor(offset) => {
            gic_v3::write_distributor(trap, offset, width, value);
            Hot::Advance
        }
        Target::Redistributor(id, offset) => {
            gic_v3::write_redistributor(trap, id, offset, width, value);
            Hot::Advance
        }
        Target::Uart(offset) => {
            let effect = vm.uart.lock().write(offset, width, value, now_ns());
            moved(trap, vm.layout.uart.intid, effect.line);
            if effect.transmit {
                Hot::Output
            } else {
                Hot::Advance
            }
        }
        Target::Rtc(offset) => {
            let now_ns = now_ns();
            let mut rtc = vm.rtc.lock();
            let effect = rtc.write(offset, width, value, now_ns);
            let alarm_ns = rtc.alarm_ns();
            drop(rtc);
            moved(trap, vm.layout.rtc.intid, effect.line);
            if vm.alarm.set(alarm_ns, now_ns) {
                Hot::Alarm
            } else {
                Hot::Advance
            }
        }
        Target::Hotplug(_) => Hot::Leave,
        Target::Virtio(_) => Hot::Advance,
    }
}

/// Passes on a device's interrupt line that has moved.
#[inline]
fn moved<L: ListRegisters>(trap: &mut Trap<'_, L>, intid: u32, line: Option<bool>) {
    if let Some(high) = line {
        trap.vm.set_line(intid, high, &mut trap.kicks);
        if !trap.vcpu.inbox.is_empty() {
            trap.deliver();
        }
    }
}
