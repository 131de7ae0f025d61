//! Rounds in which CPUs publish what they keep to themselves (`crate::cpu`): the boot CPU asks, one round after the other.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use types::ids::PcpuId;

use super::{Host, Vms};

/// The last round in which each CPU was asked, and the last one that it has answered.
#[derive(Debug)]
pub(super) struct Rounds {
    asked: Vec<AtomicU32>,
    answered: Vec<AtomicU32>,
}

impl Rounds {
    pub(super) fn new(cpus: usize) -> Self {
        let none = || (0..cpus).map(|_| AtomicU32::new(0)).collect();
        let [asked, answered] = [none(), none()];
        Self { asked, answered }
    }

    /// Returns the round that a CPU has been asked in and has not answered.
    pub(super) fn open(&self, cpu: PcpuId) -> Option<u32> {
        let round = self.asked[cpu.index()].load(Ordering::Acquire);
        (self.answered[cpu.index()].load(Ordering::Relaxed) != round).then_some(round)
    }

    /// Notes that a CPU has published all it had when it was asked.
    pub(super) fn answer(&self, cpu: PcpuId, round: u32) {
        self.answered[cpu.index()].store(round, Ordering::Release);
    }
}

impl<H: Host> Vms<H> {
    /// Asks a CPU to publish what it keeps; only the boot CPU asks.
    pub fn ask_to_publish(&self, cpu: PcpuId, round: u32) {
        self.rounds.asked[cpu.index()].store(round, Ordering::Release);
        self.host.ask(cpu);
    }

    /// Returns whether a CPU has answered a round. One that is off has published everything before.
    pub fn has_published(&self, cpu: PcpuId, round: u32) -> bool {
        let answered = self.rounds.answered[cpu.index()].load(Ordering::Acquire);
        answered == round || self.host.is_off(cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::Rounds;
    use core::sync::atomic::Ordering;
    use types::ids::PcpuId;

    #[test]
    fn a_round_is_answered_once_and_an_old_answer_does_not_count() {
        let (rounds, cpu) = (Rounds::new(4), PcpuId::new(3));
        assert_eq!(rounds.open(cpu), None);
        rounds.asked[3].store(1, Ordering::Relaxed);
        assert_eq!(rounds.open(cpu), Some(1));
        rounds.asked[3].store(2, Ordering::Relaxed);
        rounds.answer(cpu, 1);
        assert_eq!(rounds.open(cpu), Some(2), "asked again meanwhile");
        rounds.answer(cpu, 2);
        assert_eq!(rounds.open(cpu), None);
    }
}
