//! Exit counters by reason, one set for each vCPU.
//!
//! Only the CPU that runs a vCPU counts its exits; others may read at any time. A load and a store therefore suffice, with no
//! atomic read-modify-write on the hot path.
//!
//! Neighbours: `exit` (what an exit is), `console` (shows the sums), `trace` (events one by one).

use core::sync::atomic::{AtomicU64, Ordering};

crate::words! {
    /// Why a guest left its CPU to the hypervisor.
    ExitReason:
    /// A PSCI call, or another one of SMCCC.
    Psci = "psci",
    /// A read of an ID register.
    IdRegister = "id-register",
    /// A write to ICC_SGI*R: an interrupt from one vCPU to another.
    Sgi = "sgi",
    /// Another system register.
    SystemRegister = "system-register",
    /// Wait for interrupt.
    Wfi = "wfi",
    /// Wait for event.
    Wfe = "wfe",
    /// FP or SIMD use after a switch.
    Fp = "fp",
    /// Cache maintenance by set and way.
    SetWay = "set-way",
    /// The distributor.
    Distributor = "gicd",
    /// A redistributor.
    Redistributor = "gicr",
    /// The UART.
    Uart = "uart",
    /// The real-time clock.
    Rtc = "rtc",
    /// The hot-plug block.
    Hotplug = "hotplug",
    /// Another device.
    Device = "device",
    /// An access to nothing, answered with an abort.
    Abort = "abort",
    /// An instruction that does not exist for the guest.
    Undefined = "undefined",
    /// The virtual timer's interrupt.
    TimerInterrupt = "timer-irq",
    /// The hypervisor's own timer: a slice has ended or a soft timer is due.
    HostTimer = "host-timer",
    /// A virtual interrupt needs attention: GIC maintenance.
    Maintenance = "maintenance",
    /// Another CPU asked for attention.
    Kick = "kick",
    /// Another physical interrupt.
    Interrupt = "irq",
    /// An SError.
    SError = "serror",
    /// Anything else.
    Other = "other",
}

/// How many reasons there are.
pub const REASONS: usize = ExitReason::ALL.len();

/// The counters of one vCPU.
#[derive(Debug, Default)]
pub struct ExitCounters([AtomicU64; REASONS]);

impl ExitCounters {
    /// Makes counters at zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; REASONS])
    }

    /// Counts an exit; only the CPU that runs the vCPU may call this.
    #[inline]
    pub fn count(&self, reason: ExitReason) {
        // Every reason has a counter: the index is an enum that `ALL` enumerates.
        if let Some(counter) = self.0.get(reason as usize) {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
    }

    /// Reads all counters; exits that happen meanwhile are counted or not.
    pub fn snapshot(&self) -> ExitCounts {
        ExitCounts(core::array::from_fn(|index| {
            self.0
                .get(index)
                .map_or(0, |counter| counter.load(Ordering::Relaxed))
        }))
    }

    /// Sets all counters to zero, as a VM's start does.
    pub fn clear(&self) {
        for counter in &self.0 {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Exits by reason at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCounts([u64; REASONS]);

impl Default for ExitCounts {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

impl ExitCounts {
    /// Returns the exits for all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, &count| sum.wrapping_add(count))
    }

    /// Adds the exits of another vCPU.
    pub fn add(&mut self, other: &Self) {
        for (sum, &count) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.wrapping_add(count);
        }
    }

    /// Returns the reasons that occurred, with their counts.
    pub fn occurred(&self) -> impl Iterator<Item = (ExitReason, u64)> {
        ExitReason::ALL
            .into_iter()
            .zip(self.0)
            .filter(|&(_, count)| count != 0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{ExitCounters, ExitCounts, ExitReason};
    use std::{collections::BTreeSet, vec::Vec};

    #[test]
    fn each_reason_has_its_own_counter_and_word() {
        let words: BTreeSet<_> = ExitReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(words.len(), ExitReason::ALL.len());
        for reason in ExitReason::ALL {
            let counters = ExitCounters::new();
            counters.count(reason);
            counters.count(reason);
            let counts = counters.snapshot();
            assert_eq!(
                (counts.0[reason as usize], counts.total()),
                (2, 2),
                "{}",
                reason.name()
            );
            counters.clear();
            assert_eq!(counters.snapshot(), ExitCounts::default());
        }
    }

    #[test]
    fn counts_of_vcpus_add_up() {
        let (one, two) = (ExitCounters::new(), ExitCounters::new());
        one.count(ExitReason::Wfi);
        two.count(ExitReason::Wfi);
        two.count(ExitReason::Uart);
        let mut sum = ExitCounts::default();
        sum.add(&one.snapshot());
        sum.add(&two.snapshot());
        assert_eq!(
            sum.occurred().collect::<Vec<_>>(),
            [(ExitReason::Wfi, 2), (ExitReason::Uart, 1)]
        );
    }
}
