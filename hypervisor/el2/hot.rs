//! What the vectors call first: hands a trap to `vmm`'s hot handlers and carries out what they say.
#![expect(unsafe_code, reason = "steps over a guest's instruction")]

use types::layout::{PHYSICAL_TIMER, PMU_OVERFLOW, VIRTUAL_TIMER};
use types::stats::ExitReason;
use vmm::cpu::{Manager, cause};
use vmm::devices::Work;
use vmm::dispatch::Trap;
use vmm::dispatch::hot::{self, DataAbort, Hot};
use vmm::exit::{self, Abort, Syndrome, class, fault_address};
use vmm::vm::context::{Frame, Owner};

use crate::gic::{self, Version};
use crate::percpu::Percpu;
use crate::sysreg::{self, isb, wfi};
use crate::vms::{self, El2};
use crate::{percpu, timer};
use psci::{Quick, ReturnCode};
use vmm::vm::{Kicks, Vcpu, Vm};

/// What a hot handler returns to the vectors: the frame it was given, and a cause to leave the guest or 0.
#[repr(C)]
pub(crate) struct Return<'a> {
    frame: &'a mut Frame,
    cause: u64,
}

#[inline(always)]
fn leave(frame: &mut Frame, cause: u64) -> Return<'_> {
    Return { frame, cause }
}

/// Handles an HVC.
pub(crate) extern "C" fn hypercall<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    if let Some(Owner { vm, vcpu }) = frame.owner {
        match hot::quick_hypercall(vm, frame, Syndrome::new(esr)) {
            Quick::Answer(x0) => {
                frame.x[0] = x0;
                vcpu.exits.count(ExitReason::Psci);
                return leave(frame, 0);
            }
            Quick::CpuOn => return cpu_on::<V>(frame, vm, vcpu),
            Quick::CpuOff => return leave(frame, cause::OFF),
            _ => {}
        }
    }
    other_hypercall::<V>(frame, esr)
}

/// Carries out CPU_ON.
#[inline(never)]
fn cpu_on<'f, V: Version>(
    frame: &'f mut Frame,
    vm: &'static Vm,
    vcpu: &'static Vcpu,
) -> Return<'f> {
    let mut kicks = Kicks::NONE;
    frame.x[0] = hot::cpu_on(vm, frame, &mut kicks);
    vcpu.exits.count(ExitReason::Psci);
    percpu::kick_in_passing::<V>(kicks);
    leave(frame, 0)
}

/// Handles WFI and WFE. The timed forms and WFE return at once, which the architecture allows, unless others want the CPU.
pub(crate) extern "C" fn wait<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    let Some(Owner { vcpu, .. }) = frame.owner else {
        return leave(frame, cause::SYNC);
    };
    if !Syndrome::new(esr).is_wfi() {
        if percpu::this().local.need_resched.get() {
            return leave(frame, cause::SYNC);
        }
        vcpu.exits.count(ExitReason::Wfe);
        advance_any(esr);
        return leave(frame, 0);
    }
    doze::<V>(frame, vcpu, ExitReason::Wfi, |_| advance_any(esr))
}

/// Sleeps where it is, in the middle of the guest that waits for an interrupt, until there is one.
///
/// If no other vCPU wants the CPU there is no better place. What is posted to the guest comes as an interrupt, which is pending here
/// even if it came before the WFI. Like the architecture's WFI, this may end early. If something is there already, the slow path
/// finds out whether the guest may see it, from the start; `done` makes up the guest's registers for the time after.
#[inline(always)]
fn doze<'f, V: Version>(
    frame: &'f mut Frame,
    vcpu: &Vcpu,
    reason: ExitReason,
    done: impl FnOnce(&mut Frame),
) -> Return<'f> {
    if !vcpu.gic.lock().is_idle(&V::lists()) {
        return leave(frame, cause::SYNC);
    }
    vcpu.exits.count(reason);
    done(frame);
    let cpu = percpu::this();
    if cpu.local.need_resched.get() || !cpu.local.wakes.is_empty() {
        return leave(frame, cause::REST);
    }
    vcpu.usage.fall_asleep(timer::now());
    wfi();
    // Without a barrier the counter may be read before the instructions ahead of it are done (Arm ARM D12.1.2).
    isb();
    vcpu.usage.wake_up(timer::now());
    awake::<V>(frame, cpu)
}

#[inline(never)]
fn awake<'f, V: Version>(frame: &'f mut Frame, cpu: &Percpu) -> Return<'f> {
    let (frame, cause) = take::<V, _>(frame, cpu, V::acknowledge(), cause::WAIT);
    leave(frame, cause)
}

/// Handles an HVC that does more than ask.
#[inline(never)]
extern "C" fn other_hypercall<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    settle::<V>(frame, advance, |trap, frame| {
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
pub(crate) extern "C" fn system<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    settle::<V>(frame, advance, |trap, frame| {
        hot::system(trap, frame, Syndrome::new(esr))
    })
}

/// Handles a data abort of an access in little-endian order that the hardware has described.
pub(crate) extern "C" fn data_abort<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    let iss = Abort::new(Syndrome::new(esr));
    let address = fault_address(sysreg::hpfar_el2::read(), sysreg::far_el2::read());
    let abort = DataAbort { iss, address };
    let step = || advance_any(esr);
    settle::<V>(frame, step, |trap, frame| {
        hot::mmio(trap, frame, abort, &El2, leave_work)
    })
}

/// Handles any synchronous exception, with every general register in the frame.
pub(crate) extern "C" fn sync<V: Version>(frame: &mut Frame, esr: u64) -> Return<'_> {
    match Syndrome::new(esr).class() {
        class::SYSTEM => system::<V>(frame, esr),
        class::DATA_ABORT if !Abort::new(Syndrome::new(esr)).is_described() => {
            leave(frame, cause::SYNC)
        }
        class::DATA_ABORT if is_big_endian(sysreg::spsr_el2::read()) => {
            let iss = Abort::new(Syndrome::new(esr));
            let cause = hot::big_endian(frame, iss, |frame| {
                let cause = data_abort::<V>(frame, esr).cause;
                (cause == 0, cause)
            });
            leave(frame, cause)
        }
        class::DATA_ABORT => data_abort::<V>(frame, esr),
        _ => leave(frame, cause::SYNC),
    }
}

/// Runs a handler for the loaded vCPU and carries out what it says; `step` steps over the instruction.
#[inline(always)]
fn settle<'f, V: Version>(
    frame: &'f mut Frame,
    step: impl FnOnce(),
    handler: impl FnOnce(&mut Trap<'_, V::Lists>, &mut Frame) -> (Hot, ExitReason),
) -> Return<'f> {
    let Some(Owner { vm, vcpu }) = frame.owner else {
        return leave(frame, cause::SYNC);
    };
    let mut lists = V::lists();
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    let (hot, reason) = handler(&mut trap, frame);
    let (kicks, owed, mut cause) = (trap.kicks, trap.owed, 0);
    match hot {
        Hot::Leave => return leave(frame, cause::SYNC),
        Hot::Off => return leave(frame, cause::OFF),
        Hot::Standby => {
            let success = ReturnCode::Success.as_x0();
            return doze::<V>(frame, vcpu, reason, |frame| frame.x[0] = success);
        }
        Hot::Resume => {}
        Hot::Advance => step(),
        Hot::Work => {
            step();
            work_for_device(vm);
        }
        Hot::Exit => {
            step();
            cause = cause::WORK;
        }
        Hot::Retry => cause = cause::WORK,
    }
    vcpu.exits.count(reason);
    percpu::kick_in_passing::<V>(kicks);
    deactivate::<V>(owed);
    leave(frame, cause)
}

/// Does what an access to a device has left to be done.
#[inline(never)]
fn work_for_device(vm: &'static Vm) {
    if let Some(work) = percpu::this().local.work.take() {
        vms::vms().work(vm, work);
    }
}

/// Keeps what an access to a device has left to be done.
#[inline(never)]
fn leave_work(work: Work) {
    percpu::this().local.work.set(Some(work));
}

/// Steps over the trapped instruction of AArch64 or AArch32.
#[inline(always)]
fn advance_any(esr: u64) {
    let pstate = sysreg::spsr_el2::read();
    if exit::is_aarch32(pstate) {
        return advance_aarch32(Syndrome::new(esr), pstate);
    }
    advance();
}

#[cold]
#[inline(never)]
fn advance_aarch32(syndrome: Syndrome, pstate: u64) {
    advance_by(syndrome.instruction_bytes());
    // SAFETY: PSTATE of the guest that trapped; only its IT bits change, so the return still leads to EL0 or EL1.
    unsafe { sysreg::spsr_el2::write(exit::behind_aarch32(pstate)) };
}

/// Steps over the trapped instruction of AArch64.
#[inline(always)]
fn advance() {
    advance_by(4);
}

#[inline(always)]
fn advance_by(bytes: u64) {
    let pc = sysreg::elr_el2::read().wrapping_add(bytes);
    // SAFETY: SPSR_EL2 leads to the guest that trapped, whose address this is; EL2 runs nothing there.
    unsafe { sysreg::elr_el2::write(pc) };
}

/// Deactivates the physical interrupts behind private interrupts of a guest, a bit each.
#[inline]
pub(crate) fn deactivate<V: Version>(mut owed: u32) {
    while owed != 0 {
        let ppis = &percpu::this().ppis;
        V::deactivate(ppis.behind(owed.trailing_zeros()));
        owed &= owed - 1;
    }
}

/// Handles a physical interrupt that came while a guest ran.
pub(crate) extern "C" fn irq<V: Version>(frame: &mut Frame) -> Return<'_> {
    let (frame, cause) = take::<V, _>(frame, percpu::this(), V::acknowledge(), cause::IRQ);
    leave(frame, cause)
}

/// Handles an acknowledged interrupt for the loaded vCPU; returns 0 if the guest may go on at once and else `cause`.
///
/// `frame` goes through, so that the other kinds end in a jump to functions of their own: a timer saves no registers for them.
#[inline(always)]
pub(crate) fn take<V: Version, F>(frame: F, cpu: &Percpu, intid: u32, cause: u64) -> (F, u64) {
    let loaded = cpu.local.loaded.get();
    if intid == gic::KICK_SGI {
        return kicked::<V, _>(frame, cpu, loaded, cause);
    }
    if let Some(loaded) = loaded {
        let own = &cpu.ppis.own;
        if intid == own.virt {
            raise::<V>(loaded, VIRTUAL_TIMER, intid);
            return (frame, 0);
        }
        if intid == own.physical {
            return seldom::<V, _>(frame, loaded, PHYSICAL_TIMER, intid);
        }
        if own.pmu == Some(intid) {
            return seldom::<V, _>(frame, loaded, PMU_OVERFLOW, intid);
        }
    }
    match intid {
        gic::FIRST_SPECIAL.. => (frame, 0),
        gic::FIRST_SPI.. => shared::<V, _>(frame, loaded, intid),
        _ => {
            cpu.local.acknowledged.set(Some(intid));
            (frame, cause)
        }
    }
}

/// Raises a guest's interrupt behind which there is a physical one: inlined, because a constant INTID folds to fewer instructions.
#[inline(always)]
fn raise<V: Version>(Owner { vm, vcpu }: Owner, intid: u32, physical: u32) {
    V::drop_priority(physical);
    let mut lists = V::lists();
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    hot::raise(&mut trap, intid, physical);
    percpu::kick_by::<V>(trap.kicks);
    vcpu.exits.count(match intid {
        PMU_OVERFLOW => ExitReason::Interrupt,
        _ => ExitReason::TimerInterrupt,
    });
}

/// Raises those of a guest's interrupts that come seldom.
#[inline(never)]
fn seldom<V: Version, F>(frame: F, loaded: Owner, intid: u32, physical: u32) -> (F, u64) {
    raise::<V>(loaded, intid, physical);
    (frame, 0)
}

/// Handles a shared interrupt: all of them are the console's.
#[inline(never)]
fn shared<V: Version, F>(frame: F, loaded: Option<Owner>, intid: u32) -> (F, u64) {
    V::drop_priority(intid);
    loaded.inspect(|owner| owner.vcpu.exits.count(ExitReason::Interrupt));
    vms::interrupt(intid);
    V::deactivate(intid);
    (frame, 0)
}

/// Looks at what else than mail the kick may be about, and if it is none of that at the mail of the loaded vCPU.
#[inline(always)]
fn kicked<V: Version, F>(frame: F, cpu: &Percpu, loaded: Option<Owner>, cause: u64) -> (F, u64) {
    V::drop_priority(gic::KICK_SGI);
    V::deactivate(gic::KICK_SGI);
    let Some(loaded) = loaded else {
        return (frame, cause);
    };
    let vcpu = loaded.vcpu;
    vcpu.exits.count(ExitReason::Kick);
    if !cpu.local.wakes.is_empty() || vcpu.requested() != 0 || cpu.local.has_deferred() {
        return (frame, cause);
    }
    deliver::<V, _>(frame, loaded)
}

#[inline(never)]
fn deliver<V: Version, F>(frame: F, Owner { vm, vcpu }: Owner) -> (F, u64) {
    let mut lists = V::lists();
    let mut trap = Trap::new(vm, vcpu, &mut lists);
    trap.deliver();
    percpu::kick_by::<V>(trap.kicks);
    deactivate::<V>(trap.owed);
    (frame, 0)
}

/// Leaves the guest on a system error.
pub(crate) extern "C" fn serror(frame: &mut Frame) -> Return<'_> {
    leave(frame, cause::SERROR)
}

/// Returns whether the loaded vCPU's instruction, trapped from this PSTATE, accesses data in big-endian order.
fn is_big_endian(pstate: u64) -> bool {
    vmm::exit::is_big_endian(pstate, sysreg::sctlr_el1::read())
}
