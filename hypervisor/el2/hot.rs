//! What the vectors call first: hands a trap to `vmm`'s hot handlers and carries out what they say.
use vmm::dispatch::Trap;
use vmm::dispatch::hot::{self, DataAbort, Hot, QuickCall};
use vmm::exit::{Abort, Syndrome, class, fault_address};
use vmm::stats::ExitReason;
use vmm::vm::context::{Frame, Owner};

use crate::gic::{self, HardwareListRegisters};
use crate::percpu::{self, Loaded, Percpu};
use crate::sysreg::{read_register, write_register};
use crate::vectors::cause;
use crate::{clock, console, run, timer};
use vmm::vm::{Kicks, Vcpu, Vm};

/// What a hot handler returns to the vectors: the frame it was given, and a cause to leave the guest or 0.
#[repr(C)]
pub(crate) struct Return<'a> {
    frame: &'a mut Frame,
    cause: u64,
}

/// Handles an HVC.
pub(crate) extern "C" fn hypercall(frame: &mut Frame, esr: u64) -> Return<'_> {
    if let Some(Owner { vm, vcpu }) = frame.owner {
        match hot::quick_hypercall(vm, frame, Syndrome::new(esr)) {
            QuickCall::Answer(x0) => {
                frame.x[0] = x0;
                vcpu.exits.count(ExitReason::Psci);
                return Return { frame, cause: 0 };
            }
            QuickCall::CpuOn => return cpu_on(frame, vm, vcpu),
            QuickCall::CpuOff => {
                return Return {
                    frame,
                    cause: cause::OFF,
                };
            }
            QuickCall::Other => {}
        }
    }
    other_hypercall(frame, esr)
}

/// Carries out CPU_ON.
#[inline(never)]
fn cpu_on<'f>(frame: &'f mut Frame, vm: &'static Vm, vcpu: &'static Vcpu) -> Return<'f> {
    let mut kicks = Kicks::NONE;
    frame.x[0] = hot::cpu_on(vm, frame, &mut kicks);
    vcpu.exits.count(ExitReason::Psci);
    percpu::kick(kicks);
    Return { frame, cause: 0 }
}

/// Handles an HVC that does more than ask.
#[inline(never)]
extern "C" fn other_hypercall(frame: &mut Frame, esr: u64) -> Return<'_> {
    settle(frame, |trap, frame| {
        let hot = hot::hypercall(trap.vm, frame, Syndrome::new(esr), &mut trap.kicks);
        (hot, ExitReason::Psci)
    })
}

/// Handles a read of a feature register into x0 to x15.
pub(crate) extern "C" fn feature_register(frame: &mut Frame, esr: u64) -> &mut Frame {
    if let Some(Owner { vm, vcpu }) = frame.owner {
        hot::feature_register(vm, frame, Syndrome::new(esr));
        vcpu.exits.count(ExitReason::IdRegister);
    }
    advance();
    frame
}

/// Handles a trapped system-register access.
pub(crate) extern "C" fn system(frame: &mut Frame, esr: u64) -> Return<'_> {
    settle(frame, |trap, frame| {
        hot::system(trap, frame, Syndrome::new(esr))
    })
}

/// Handles a data abort of an access in little-endian order that the hardware has described.
pub(crate) extern "C" fn data_abort(frame: &mut Frame, esr: u64) -> Return<'_> {
    let address = fault_address(read_register!("hpfar_el2"), read_register!("far_el2"));
    let abort = DataAbort {
        iss: Abort::new(Syndrome::new(esr)),
        address,
    };
    settle(frame, |trap, frame| {
        hot::mmio(trap, frame, abort, clock::now_ns)
    })
}

/// Handles any synchronous exception, with every general register in the frame.
pub(crate) extern "C" fn sync(frame: &mut Frame, esr: u64) -> Return<'_> {
    match Syndrome::new(esr).class() {
        class::SYSTEM => system(frame, esr),
        class::DATA_ABORT if !Abort::new(Syndrome::new(esr)).is_described() => Return {
            frame,
            cause: cause::SYNC,
        },
        class::DATA_ABORT if run::is_big_endian(read_register!("spsr_el2")) => {
            let iss = Abort::new(Syndrome::new(esr));
            let cause = hot::big_endian(frame, iss, |frame| {
                let cause = data_abort(frame, esr).cause;
                (cause == 0, cause)
            });
            Return { frame, cause }
        }
        class::DATA_ABORT => data_abort(frame, esr),
        class::SMC64 => settle(frame, |trap, frame| {
            (
                hot::secure_call(trap.vm, frame, Syndrome::new(esr), &mut trap.kicks),
                ExitReason::Psci,
            )
        }),
        _ => Return {
            frame,
            cause: cause::SYNC,
        },
    }
}

/// Runs a handler for the loaded vCPU and carries out what it says.
#[inline(always)]
fn settle<'f>(
    frame: &'f mut Frame,
    handler: impl FnOnce(&mut Trap<'_, HardwareListRegisters>, &mut Frame) -> (Hot, ExitReason),
) -> Return<'f> {
    let Some(Owner { vm, vcpu }) = frame.owner else {
        return Return {
            frame,
            cause: cause::SYNC,
        };
    };
    let mut lists = HardwareListRegisters;
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    let (hot, reason) = handler(&mut trap, frame);
    let (kicks, owed) = (trap.kicks, trap.owed);
    match hot {
        Hot::Leave => {
            return Return {
                frame,
                cause: cause::SYNC,
            };
        }
        Hot::Off => {
            return Return {
                frame,
                cause: cause::OFF,
            };
        }
        Hot::Resume => {}
        Hot::Advance => advance(),
        Hot::Output => {
            console::drain(vm);
            advance();
        }
    }
    vcpu.exits.count(reason);
    percpu::kick(kicks);
    if owed != 0 {
        deactivate(owed);
    }
    Return { frame, cause: 0 }
}

/// Steps over the trapped instruction.
#[inline(always)]
fn advance() {
    write_register!("elr_el2", read_register!("elr_el2").wrapping_add(4));
}

/// Deactivates private physical interrupts, a bit each.
#[cold]
pub(crate) fn deactivate(mut owed: u32) {
    while owed != 0 {
        gic::deactivate(owed.trailing_zeros());
        owed &= owed - 1;
    }
}

/// Handles a physical interrupt that came while a guest ran.
pub(crate) extern "C" fn irq(frame: &mut Frame) -> Return<'_> {
    let cpu = percpu::this();
    let intid = gic::acknowledge();
    let settled = take(cpu, intid);
    Return {
        frame,
        cause: if settled { 0 } else { cause::IRQ },
    }
}

/// Handles an acknowledged interrupt for the loaded vCPU; returns whether the guest may go on at once.
#[inline(always)]
pub(crate) fn take(cpu: &Percpu, intid: u32) -> bool {
    let loaded = cpu.loaded.get();
    match (intid, loaded) {
        (timer::VIRTUAL_PPI | timer::PHYSICAL_PPI, Some(Loaded { vm, vcpu })) => {
            gic::drop_priority(intid);
            let mut lists = HardwareListRegisters;
            let mut trap = Trap::new(vm, vcpu, &mut lists);
            hot::raise_timer(&mut trap, intid);
            percpu::kick(trap.kicks);
            vcpu.exits.count(ExitReason::TimerInterrupt);
            true
        }
        (gic::KICK_SGI, _) => {
            gic::drop_priority(intid);
            gic::deactivate(intid);
            match loaded {
                Some(loaded) => kicked(cpu, loaded),
                None => false,
            }
        }
        (gic::FIRST_SPECIAL.., _) => true,
        _ => {
            cpu.acknowledged.set(Some(intid));
            false
        }
    }
}

/// Looks at the mail of the loaded vCPU; returns whether that was all there was.
#[inline(always)]
fn kicked(cpu: &Percpu, Loaded { vm, vcpu }: Loaded) -> bool {
    vcpu.exits.count(ExitReason::Kick);
    if !cpu.wakes.is_empty() || vcpu.requested() != 0 || run::has_chores(cpu.id) {
        return false;
    }
    let mut lists = HardwareListRegisters;
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    trap.deliver();
    percpu::kick(trap.kicks);
    deactivate(trap.owed);
    true
}

/// Leaves the guest on a system error.
pub(crate) extern "C" fn serror(frame: &mut Frame) -> Return<'_> {
    Return {
        frame,
        cause: cause::SERROR,
    }
}
