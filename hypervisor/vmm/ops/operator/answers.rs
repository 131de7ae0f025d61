//! Answers that depend on what CPUs keep to themselves (`crate::cpu`): each waits for a round in which the CPUs of its VM publish that.

use alloc::vec::Vec;
use control_plane::console::{ResizeReport, Token};
use core::sync::atomic::Ordering;

use super::super::Vms;
use super::{Console, Operator};
use crate::vm::Vm;
use types::ids::PcpuSet;

/// How long a round may take: then a CPU that has stopped is not waited for any more.
const TIMEOUT_NS: u64 = 100_000_000;

/// What waits for a round.
pub(super) enum Answer {
    /// The end of a resize, and where it was asked for: every vCPU that it counts is told before.
    Resized(Option<Token>, ResizeReport),
    /// The vCPUs of a VM, and where they were asked for: what each has had of its CPU is told up to now.
    VcpuList(Token),
    /// What every VM has had, and where that was asked for.
    Top(Token),
    /// The meters of a VM or of all, and where that was asked for; `None` for the programs that watch them.
    Usage(Option<Token>),
}

/// The round under way, which only the boot CPU looks at.
pub(super) struct Round {
    number: u32,
    /// The CPUs that have not published yet.
    open: PcpuSet,
    deadline_ns: u64,
    answers: Vec<(Option<&'static Vm>, Answer)>,
}

impl Operator {
    /// Has an answer wait until the CPUs of a VM's vCPUs, or of all VMs', have published what they know; the boot CPU is to look after.
    pub(super) fn wait(&self, vm: Option<&'static Vm>, answer: Answer) {
        let mut waiting = self.waiting.lock();
        waiting.push((vm, answer));
        self.awaited.store(true, Ordering::Release);
        drop(waiting);
    }

    /// Returns whether an answer waits for a round. It is soon there: commands that come meanwhile wait in their port, so that they are
    /// not too many at a time.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire)
    }

    /// Ends the round under way if every CPU has published, and begins the next; returns its answers, each with its VM, and when to look
    /// again at the latest.
    pub(super) fn go_on<H: Console>(
        &self,
        vms: &Vms<H>,
    ) -> (Vec<(Option<&'static Vm>, Answer)>, Option<u64>) {
        let mut round = self.round.lock();
        round.look(vms);
        if !round.open.is_empty() && vms.host.now_ns() < round.deadline_ns {
            return (Vec::new(), Some(round.deadline_ns));
        }
        let answers = core::mem::take(&mut round.answers);
        let mut waiting = self.waiting.lock();
        self.awaited.store(!waiting.is_empty(), Ordering::Release);
        let next = core::mem::take(&mut *waiting);
        drop(waiting);
        let deadline_ns = round.begin(vms, next);
        (answers, deadline_ns)
    }
}

impl Round {
    /// None is under way.
    pub(super) const NONE: Self = Self {
        number: 0,
        open: PcpuSet::EMPTY,
        deadline_ns: 0,
        answers: Vec::new(),
    };

    /// Takes those out of the open ones that have published.
    fn look<H: Console>(&mut self, vms: &Vms<H>) {
        let mut open = core::mem::take(&mut self.open);
        while let Some(id) = open.take_first() {
            if !vms.has_published(id, self.number) {
                self.open.insert(id);
            }
        }
    }

    /// Asks the CPUs that are concerned, if something waits; returns when the round ends at the latest.
    fn begin<H: Console>(
        &mut self,
        vms: &Vms<H>,
        waiting: Vec<(Option<&'static Vm>, Answer)>,
    ) -> Option<u64> {
        if waiting.is_empty() {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        self.open = PcpuSet::EMPTY;
        for (vm, answer) in waiting {
            let concerned = vms.all().iter().map(|instance| instance.vm);
            for concerned in concerned.filter(|one| vm.is_none_or(|vm| vm.id == one.id)) {
                let cpus = concerned
                    .vcpus
                    .iter()
                    .map(|vcpu| vcpu.at.placement().pcpu());
                for id in cpus.filter(|id| vms.host.is_there(*id)) {
                    self.open.insert(id);
                }
            }
            self.answers.push((vm, answer));
        }
        for id in self.open.iter() {
            vms.ask_to_publish(id, self.number);
        }
        self.deadline_ns = vms.host.now_ns().saturating_add(TIMEOUT_NS);
        Some(self.deadline_ns)
    }
}
