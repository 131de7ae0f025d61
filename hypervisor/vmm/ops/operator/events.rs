//! What happens to VMs, on its way to the operator: noted by any CPU, told by the boot CPU.

use alloc::boxed::Box;
use control_plane::console::{
    CommandError, ErrorKind, Event, MemoryUnit, Reply, ResizeReport, Token, What,
};
use control_plane::resize::{Origin, Report};
use core::sync::atomic::Ordering;

use types::hotplug::Kind;

use super::super::{Instance, Vms};
use super::answers::Answer;
use super::{Console, Operator, Watch, earlier};
use crate::vm::{Placement, Vm};

const NS_PER_S: u64 = 1_000_000_000;
/// Most events that are told before the guests have their turn.
const EVENTS_A_VISIT: usize = 4;

impl Operator {
    /// Notes an event that happened at a time.
    pub fn push_at<H: Console>(&self, host: &H, time_ns: u64, vm: &Vm, what: What) {
        let event = Event {
            time_ns,
            vm: vm.id,
            what,
        };
        // One that is lost is counted, and costs no VM but the one that made it.
        if self.outbox.events.lock().push(event) {
            self.look_again(host);
        }
    }

    /// Makes the boot CPU look at deadlines and events.
    pub fn look_again<H: Console>(&self, host: &H) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            host.ask_boot_cpu_soon();
        }
    }

    /// Returns whether something is left that the boot CPU has to look at.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Answers the client that asked for a vCPU to move if it has, or does not; returns when to look again.
    fn tell_move<H: Console>(&self, host: &H) -> Option<u64> {
        let mut moving = self.moving.lock();
        let one = moving.as_ref()?;
        if one.vcpu.at.is_pending() && host.now_ns() < one.deadline_ns {
            return Some(one.deadline_ns);
        }
        if !host.accepts(Some(one.token)) {
            return Some(host.retry_ns());
        }
        let one = moving.take()?;
        drop(moving);
        let mut result = Ok(Reply::Done);
        if one.vcpu.at.change_pending(one.to, Placement::NOWHERE) {
            host.placements().free(one.to);
            let why = "its CPU does not give it up";
            result = Err(CommandError::new(ErrorKind::Timeout, why));
        }
        host.reply(one.token, result);
        None
    }

    /// Has the end of a resize told, after what each CPU knows of the vCPUs that the resize counts.
    pub fn resized<H: Console>(&self, host: &H, instance: &Instance<H>, report: Report) {
        let hot = instance.vm.hot.slots;
        let (memory, queue) = match report.kind {
            Kind::Vcpu => (None, &instance.asked),
            Kind::Slot => {
                let boot_bytes = instance.vm.memory.size;
                let block_bytes = hot.block;
                let unit = MemoryUnit {
                    boot_bytes,
                    block_bytes,
                };
                (Some(unit), &instance.memory.asked)
            }
        };
        let mut asked = None;
        if report.origin == Origin::Operator {
            if memory.is_none() {
                instance.target.store(report.requested, Ordering::Release);
            }
            // Each resize the operator begins ends once, in turn.
            asked = queue.lock().pop_front().map(|(token, asked_ns)| {
                if memory.is_none() {
                    let latency_ns = host.now_ns().saturating_sub(asked_ns);
                    instance.meter.lock().resized(report.outcome, latency_ns);
                }
                token
            });
        }
        let report = ResizeReport {
            vm: instance.vm.id,
            memory,
            report,
        };
        self.wait(Some(instance.vm), Answer::Resized(asked, report));
        self.look_again(host);
    }

    /// Keeps an answer until its port has room.
    fn give(&self, token: Token, reply: Reply) {
        let _has_room = self.outbox.answers.lock().push_back((token, reply));
    }

    /// Tells the end of a resize, now that every vCPU it counts has been told.
    fn resize_done<H: Console>(
        &self,
        host: &H,
        vm: &Vm,
        asked: Option<Token>,
        report: ResizeReport,
    ) {
        if let Some(token) = asked {
            self.give(token, Reply::Resize(report.clone()));
        }
        self.push_at(host, host.now_ns(), vm, What::ResizeDone(report));
    }

    /// Has the meters of all VMs told as events from now on, or no more.
    pub(super) fn watch_usage<H: Console>(&self, host: &H, period_s: Option<u32>) {
        let period_ns = period_s.map(|seconds| u64::from(seconds).saturating_mul(NS_PER_S));
        let watch = period_ns.map(|period_ns| Watch {
            period_ns,
            next_ns: host.now_ns().saturating_add(period_ns),
        });
        *self.watch.lock() = watch;
        self.look_again(host);
    }

    /// Has the meters told if it is time; returns when it is the next time.
    fn look_at_watch<H: Console>(&self, host: &H) -> Option<u64> {
        let mut watch = self.watch.lock();
        let watch = watch.as_mut()?;
        let now_ns = host.now_ns();
        if now_ns >= watch.next_ns {
            // What was missed while the boot CPU had other work is left out.
            let late_ns = now_ns.saturating_sub(watch.next_ns) % watch.period_ns.max(1);
            let in_ns = watch.period_ns.saturating_sub(late_ns);
            watch.next_ns = now_ns.saturating_add(in_ns);
            self.wait(None, Answer::Usage(None));
        }
        Some(watch.next_ns)
    }

    /// Tells what has happened and looks at deadlines; returns when to look again, in nanoseconds since start.
    pub fn tell<H: Console>(&self, vms: &Vms<H>) -> Option<u64> {
        let host = &vms.host;
        self.dirty.store(false, Ordering::Release);
        let mut next = self.tell_move(host);
        for instance in vms.all() {
            for kind in [Kind::Vcpu, Kind::Slot] {
                next = earlier(next, vms.look_at_resize(instance, kind));
            }
        }
        next = earlier(next, self.look_at_watch(host));
        let (answers, round) = self.go_on(vms);
        next = earlier(next, round);
        for (vm, answer) in answers {
            match (answer, vm) {
                // Told with the events below.
                (Answer::Resized(asked, report), Some(vm)) => {
                    self.resize_done(host, vm, asked, report)
                }
                (Answer::VcpuList(token), Some(vm)) => self.give(token, vms.vcpu_list(vm)),
                (Answer::Usage(Some(token)), vm) => self.give(token, vms.usage(vm)),
                (Answer::Usage(None), _) => {
                    for instance in vms.all() {
                        let row = Box::new(vms.meter_row(instance));
                        self.push_at(host, host.now_ns(), instance.vm, What::Usage(row));
                    }
                }
                (Answer::Top(token), _) => self.give(token, vms.sample()),
                (_, None) => {}
            }
        }
        next = earlier(next, self.tell_some(host));
        earlier(next, self.answer(host).then(|| host.retry_ns()))
    }

    /// Tells some of the events, as far as there is room for them; returns when to go on, in nanoseconds since start.
    fn tell_some<H: Console>(&self, host: &H) -> Option<u64> {
        for _ in 0..EVENTS_A_VISIT {
            if self.outbox.events.lock().is_empty() {
                return None;
            }
            if !host.accepts(None) {
                return Some(host.retry_ns());
            }
            // The lock is let go before the event is told.
            let next = self.outbox.events.lock().pop(host.now_ns());
            match next {
                Ok((event, lost)) => host.tell(&event, lost),
                Err(next_ns) => return next_ns,
            }
        }
        // The guests have their turn first.
        self.dirty.store(true, Ordering::Release);
        None
    }

    /// Gives one of the answers that wait, if its port has room; returns whether more wait.
    fn answer<H: Console>(&self, host: &H) -> bool {
        // A port that has no room keeps no other one's answers.
        let count = self.outbox.answers.lock().len();
        for _ in 0..count {
            let Some((token, reply)) = self.outbox.answers.lock().pop_front() else {
                break;
            };
            if host.accepts(Some(token)) {
                host.reply(token, Ok(reply));
                break;
            }
            let _has_room = self.outbox.answers.lock().push_back((token, reply));
        }
        !self.outbox.answers.lock().is_empty()
    }
}
