//! What happens to VMs, on its way to the operator: noted by any CPU, told by the boot CPU.

use control_plane::console::{
    Backlog, CommandError, ErrorKind, Event, MAX_PENDING, Reply, ResizeReport, Token, VcpuRow, What,
};
use control_plane::resize::{Origin, Report};
use heapless::Deque;
use vmm::sync::FairMutex;
use vmm::vm::{Home, Vcpu, Vm};

use super::rounds::{self, Answer};
use super::{Instance, vms};
use crate::percpu::PLACEMENTS;
use crate::{clock, console, deferred};
use core::sync::atomic::{AtomicBool, Ordering};

/// Events that wait to be told.
static QUEUE: FairMutex<Backlog> = FairMutex::new(Backlog::new());
/// Answers that wait to be given; at most as many as the console takes requests.
static ANSWERS: FairMutex<Deque<(Token, ResizeReport), MAX_PENDING>> = FairMutex::new(Deque::new());
/// The vCPU that is to move: who asked, where to, and until when. One at a time does.
pub(super) static MOVE: FairMutex<Option<(Token, &Vcpu, Home, u64)>> = FairMutex::new(None);
/// Something changed that the boot CPU has to look at.
pub(super) static DIRTY: AtomicBool = AtomicBool::new(false);

/// Notes an event that happened at a time.
pub(super) fn push_at(time_ns: u64, vm: &Vm, what: What) {
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

/// Has the end of a resize told, after what each CPU knows of the vCPUs that the resize counts.
pub(super) fn resized(instance: &Instance, report: Report) {
    let by_operator = report.origin == Origin::Operator;
    let requested = report.requested;
    let report = ResizeReport {
        vm: instance.vm.id,
        report,
    };
    let mut asked = None;
    if by_operator {
        instance.target.store(requested, Ordering::Release);
        // Each resize the operator begins ends once, in turn.
        asked = instance.asked.lock().pop_front();
    }
    rounds::wait(instance.vm, Answer::Resized(asked, report));
    look_again();
}

/// Tells the end of a resize, now that every vCPU it counts has been told.
fn resize_done(vm: &Vm, asked: Option<Token>, report: ResizeReport) {
    if let Some(token) = asked {
        let _has_room = ANSWERS.lock().push_back((token, report.clone()));
    }
    push_at(clock::now_ns(), vm, What::ResizeDone(report));
}

/// Returns the answer to `vcpu list`, of what the CPUs have published.
fn vcpu_list(vm: &Vm) -> Reply {
    Reply::VcpuList {
        vm: vm.id,
        vcpus: vm.vcpus.iter().map(vcpu_row).collect(),
    }
}

fn vcpu_row(vcpu: &Vcpu) -> VcpuRow {
    let (state, usage) = (vcpu.power.state(), &vcpu.usage);
    VcpuRow {
        vcpu: vcpu.id,
        state: state.word(),
        cpu: vcpu.at.home().pcpu(),
        exits: vcpu.exits.snapshot().total(),
        ran_ns: clock::ticks_to_ns(usage.ran_ticks()),
        counts_sleep: state.is_on() && usage.counts_sleep(),
        stolen_ns: clock::ticks_to_ns(usage.stolen_ticks()),
    }
}

/// Tells what has happened and looks at deadlines; returns when to look again, in nanoseconds since start.
pub(super) fn tell() -> Option<u64> {
    DIRTY.store(false, Ordering::Release);
    let mut next = tell_move();
    for instance in vms().all() {
        let mut resizer = instance.resizer.lock();
        let now = clock::now_ns();
        let is_due = resizer.deadline_ns().is_some_and(|at| at <= now);
        if is_due {
            let progress = resizer.on_deadline(instance.vm, now);
            drop(resizer);
            vms().carry_out(instance, progress);
            resizer = instance.resizer.lock();
        }
        if let Some(deadline) = resizer.deadline_ns() {
            next = Some(next.unwrap_or(u64::MAX).min(deadline));
        }
    }
    let (answers, round) = rounds::go_on();
    next = next.into_iter().chain(round).min();
    for (vm, answer) in answers {
        match answer {
            // Told with the events below.
            Answer::Resized(asked, report) => resize_done(vm, asked, report),
            Answer::VcpuList(token) => console::reply(token, &Ok(vcpu_list(vm))),
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
