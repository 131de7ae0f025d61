//! What happens to VMs, on its way to the operator: noted by any CPU, told by the boot CPU.

use control_plane::console::{
    Backlog, CommandError, ErrorKind, Event, MAX_PENDING, Reply, ResizeReport, Token, What,
};
use control_plane::resize::{Origin, Report};
use heapless::Deque;
use vmm::sync::FairMutex;
use vmm::vm::{Home, Vcpu, Vm};

use super::rounds::{self, Answer};
use super::{Instance, output, vms};
use crate::percpu::PLACEMENTS;
use crate::{clock, console, deferred};
use core::sync::atomic::{AtomicBool, Ordering};

/// Most events that are told before the guests have their turn.
const EVENTS_A_VISIT: usize = 4;

/// Events that wait to be told.
static QUEUE: FairMutex<Backlog> = FairMutex::new(Backlog::new());
/// Answers that wait to be given; at most as many as the console takes requests.
static ANSWERS: FairMutex<Deque<(Token, Reply), MAX_PENDING>> = FairMutex::new(Deque::new());
/// The vCPU that is to move: who asked for it, where to, and until when. One at a time does.
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
    // One that is lost is counted, and costs no VM but the one that made it.
    if QUEUE.lock().push(event) {
        look_again();
    }
}

/// Makes the boot CPU look at deadlines and events.
pub(super) fn look_again() {
    if !DIRTY.swap(true, Ordering::AcqRel) {
        deferred::ask_boot_cpu_soon();
    }
}

/// Answers the client that asked for a vCPU to move if it has, or does not; returns when to look again.
fn tell_move() -> Option<u64> {
    let (token, vcpu, to, deadline_ns) = (*MOVE.lock())?;
    if vcpu.at.is_wanted() && clock::now_ns() < deadline_ns {
        return Some(deadline_ns);
    }
    if !console::accepts(Some(token)) {
        return Some(console::retry_ns());
    }
    *MOVE.lock() = None;
    let mut result = Ok(Reply::Done);
    if vcpu.at.change_wish(to, Home::NOWHERE) {
        PLACEMENTS.free(to);
        let why = "its CPU does not give it up";
        result = Err(CommandError::new(ErrorKind::Timeout, why));
    }
    output::reply(token, result);
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
    rounds::wait(Some(instance.vm), Answer::Resized(asked, report));
    look_again();
}

/// Keeps an answer until its port has room.
fn wait(token: Token, reply: Reply) {
    let _has_room = ANSWERS.lock().push_back((token, reply));
}

/// Tells the end of a resize, now that every vCPU it counts has been told.
fn resize_done(vm: &Vm, asked: Option<Token>, report: ResizeReport) {
    if let Some(token) = asked {
        wait(token, Reply::Resize(report.clone()));
    }
    push_at(clock::now_ns(), vm, What::ResizeDone(report));
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
            next = clock::earlier(next, Some(deadline));
        }
    }
    let (answers, round) = rounds::go_on();
    next = clock::earlier(next, round);
    for (vm, answer) in answers {
        match (answer, vm) {
            // Told with the events below.
            (Answer::Resized(asked, report), Some(vm)) => resize_done(vm, asked, report),
            (Answer::VcpuList(token), Some(vm)) => wait(token, vms().vcpu_list(vm)),
            (Answer::Top(token), _) => wait(token, vms().sample()),
            (_, None) => {}
        }
    }
    next = clock::earlier(next, tell_some());
    clock::earlier(next, answer().then(console::retry_ns))
}

/// Tells some of the events, as far as there is room for them; returns when to go on, in nanoseconds since start.
fn tell_some() -> Option<u64> {
    for _ in 0..EVENTS_A_VISIT {
        if QUEUE.lock().is_empty() {
            return None;
        }
        if !console::accepts(None) {
            return Some(console::retry_ns());
        }
        // The lock is let go before the event is told.
        let next = QUEUE.lock().pop(clock::now_ns());
        match next {
            Ok((event, lost)) => output::event(&event, lost),
            Err(next_ns) => return next_ns,
        }
    }
    // The guests have their turn first.
    DIRTY.store(true, Ordering::Release);
    None
}

/// Gives one of the answers that wait, if its port has room; returns whether more wait.
fn answer() -> bool {
    // A port that has no room keeps no other one's answers.
    let count = ANSWERS.lock().len();
    for _ in 0..count {
        let Some((token, reply)) = ANSWERS.lock().pop_front() else {
            break;
        };
        if console::accepts(Some(token)) {
            output::reply(token, Ok(reply));
            break;
        }
        let _has_room = ANSWERS.lock().push_back((token, reply));
    }
    !ANSWERS.lock().is_empty()
}
