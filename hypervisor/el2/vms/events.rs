//! What happens to VMs, on its way to the operator: noted by any CPU, told by the boot CPU.

use heapless::Deque;
use spin::mutex::SpinMutex;
use vmm::console::{
    Backlog, CommandError, ErrorKind, Event, MAX_PENDING, Reply, ResizeReport, Token, What,
};
use vmm::vm::resize::{Limits, Origin, Report};
use vmm::vm::{Home, Vcpu, Vm};

use super::{Slate, all, carry_out, slate};
use crate::cpu::PLACEMENTS;
use crate::{clock, console, deferred};
use core::sync::atomic::{AtomicBool, Ordering};

/// How long a resize may take unless the operator says otherwise, and how long a guest may boot before that time begins.
pub(crate) const DEFAULT_LIMITS: Limits = Limits {
    timeout_ns: 10_000_000_000,
    boot_grace_ns: 60_000_000_000,
};

/// Events that wait to be told.
static QUEUE: SpinMutex<Backlog> = SpinMutex::new(Backlog::new());
/// Answers that wait to be given; at most as many as the console takes requests.
static ANSWERS: SpinMutex<Deque<(Token, ResizeReport), MAX_PENDING>> = SpinMutex::new(Deque::new());
/// The vCPU that is to move: who asked, where to, and until when. One at a time does.
pub(super) static MOVE: SpinMutex<Option<(Token, &Vcpu, Home, u64)>> = SpinMutex::new(None);
/// Something changed that the boot CPU has to look at.
pub(super) static DIRTY: AtomicBool = AtomicBool::new(false);

/// Notes an event.
pub(super) fn push(vm: &Vm, what: What) {
    push_at(clock::now_ns(), vm, what);
}

/// Notes an event that happened at a time.
fn push_at(time_ns: u64, vm: &Vm, what: What) {
    let event = Event {
        time_ns,
        vm: vm.id,
        what,
    };
    QUEUE.lock().push(event);
    look_again();
}

/// Makes the boot CPU look at deadlines and events.
pub(super) fn look_again() {
    if !DIRTY.swap(true, Ordering::AcqRel) {
        deferred::ask_boot_cpu_soon();
    }
}

/// Hears that a vCPU was turned on or turned itself off, at this value of the counter.
pub(crate) fn vcpu_changed(vm: &'static Vm, vcpu: &'static Vcpu, on: bool, ticks: u64) {
    let slate = slate(vm);
    if on && slate.resizing.load(Ordering::Acquire) {
        let progress = slate.resizer.lock().on_cpu_started(vcpu.id);
        carry_out(slate, progress);
    }
    if console::is_heard() {
        let what = if on {
            What::VcpuOnline(vcpu.id)
        } else {
            What::VcpuOffline(vcpu.id)
        };
        push_at(clock::ticks_to_time_ns(ticks), vm, what);
    }
}

/// Answers who asked for a vCPU to move if it has, or does not; returns when to look again.
fn tell_move() -> Option<u64> {
    let (token, vcpu, to, deadline_ns) = (*MOVE.lock())?;
    if vcpu.at.is_wanted() && clock::now_ns() < deadline_ns {
        return Some(deadline_ns);
    }
    *MOVE.lock() = None;
    let mut result = Ok(Reply::Done);
    if vcpu.at.change_wish(to, Home::NOWHERE) {
        PLACEMENTS.free(to);
        let why = "its CPU does not give it up";
        result = Err(CommandError::new(ErrorKind::Timeout, why));
    }
    console::reply(token, &result);
    None
}

/// Tells the end of a resize.
pub(super) fn resized(slate: &'static Slate, report: Report) {
    let by_operator = report.origin == Origin::Operator;
    let requested = report.requested;
    let report = ResizeReport {
        vm: slate.vm.id,
        report,
    };
    if by_operator {
        slate.target.store(requested, Ordering::Release);
        // Each resize the operator begins ends once, in turn.
        let asked = slate.asked.lock().pop_front();
        if let Some(token) = asked {
            let _has_room = ANSWERS.lock().push_back((token, report.clone()));
        }
    }
    push(slate.vm, What::ResizeDone(report));
}

/// Tells what has happened and looks at deadlines; returns when to look again, in nanoseconds since start.
pub(super) fn tell() -> Option<u64> {
    DIRTY.store(false, Ordering::Release);
    let mut next = tell_move();
    for slate in all() {
        let mut resizer = slate.resizer.lock();
        let now = clock::now_ns();
        let is_due = resizer.deadline_ns().is_some_and(|at| at <= now);
        if is_due {
            let progress = resizer.on_deadline(slate.vm, now);
            drop(resizer);
            carry_out(slate, progress);
            resizer = slate.resizer.lock();
        }
        if let Some(deadline) = resizer.deadline_ns() {
            next = Some(next.unwrap_or(u64::MAX).min(deadline));
        }
    }
    // No lock is held while something is told.
    let (event, answer) = (|| QUEUE.lock().pop(), || ANSWERS.lock().pop_front());
    while let Some((event, lost)) = event() {
        console::event(&event, lost);
    }
    while let Some((token, report)) = answer() {
        console::reply(token, &Ok(Reply::Resize(report)));
    }
    next
}
