//! A virtual CPU interface as IHI0069 describes it, for tests: it acknowledges by priority, ends and
//! deactivates, counts ends without a list register, knows when a maintenance interrupt is due, and
//! fails on what software must not do.

use std::vec::Vec;

use crate::{IntId, ListRegister, ListRegisters, Maintenance};

/// List registers with the CPU interface behind them.
#[derive(Debug)]
pub(crate) struct FakeCpu {
    lrs: Vec<ListRegister>,
    maintenance: Maintenance,
    eoi_count: u32,
    /// Acknowledged, priority not yet dropped; the last one runs.
    running: Vec<(IntId, u8)>,
    /// Private interrupts whose line is high.
    pub(crate) lines: u32,
    /// Physical interrupts that the hardware has deactivated.
    pub(crate) deactivated: Vec<u32>,
    /// Accesses by software, to count what a path costs.
    pub(crate) accesses: std::cell::Cell<u32>,
}

impl FakeCpu {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            lrs: std::vec![ListRegister::EMPTY; count],
            maintenance: Maintenance::NONE,
            eoi_count: 0,
            running: Vec::new(),
            lines: u32::MAX,
            deactivated: Vec::new(),
            accesses: std::cell::Cell::new(0),
        }
    }

    fn touch(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }

    /// The most urgent pending interrupt that preempts what runs.
    pub(crate) fn candidate(&self) -> Option<(IntId, u8)> {
        let running = self
            .running
            .last()
            .map_or(u32::MAX, |&(_, priority)| u32::from(priority));
        let pending = self
            .lrs
            .iter()
            .filter(|lr| lr.is_pending() && !lr.is_active());
        let best = pending.map(|lr| (lr.priority(), lr.intid())).min()?;
        (u32::from(best.0) < running).then(|| (IntId::new(best.1).unwrap(), best.0))
    }

    /// A read of ICC_IAR1_EL1.
    pub(crate) fn acknowledge(&mut self) -> Option<IntId> {
        let (intid, priority) = self.candidate()?;
        let lr = self
            .lrs
            .iter_mut()
            .find(|lr| lr.is_pending() && !lr.is_active() && lr.intid() == intid.get());
        let lr = lr.unwrap();
        *lr = lr.acknowledged();
        self.running.push((intid, priority));
        Some(intid)
    }

    /// Acknowledged interrupts whose priority has not been dropped, the running one last.
    pub(crate) fn running(&self) -> &[(IntId, u8)] {
        &self.running
    }

    /// A write of ICC_EOIR1_EL1 for what runs: the priority drop alone.
    pub(crate) fn drop_priority(&mut self) -> Option<IntId> {
        self.running.pop().map(|(intid, _)| intid)
    }

    /// The deactivation that an EOI (EOImode 0) or a write of ICC_DIR_EL1 (EOImode 1) does.
    pub(crate) fn deactivate(&mut self, intid: IntId) {
        let found = self
            .lrs
            .iter_mut()
            .find(|lr| lr.is_active() && lr.intid() == intid.get());
        let Some(lr) = found else {
            self.eoi_count += 1;
            return;
        };
        if lr.is_hardware() {
            self.deactivated.push(lr.link().into());
        }
        *lr = lr.without_active();
    }

    pub(crate) fn traps_dir(&self) -> bool {
        self.maintenance.has(Maintenance::DEACTIVATION)
    }

    /// Whether ICH_MISR_EL2 is not zero.
    pub(crate) fn maintenance_due(&self) -> bool {
        let on = |event| self.maintenance.has(event);
        let pending = self.lrs.iter().any(|lr| lr.is_pending() && !lr.is_active());
        self.eoi_status() != 0
            || (on(Maintenance::ENTRY_NOT_PRESENT) && self.eoi_count != 0)
            || (on(Maintenance::NO_PENDING) && !pending)
    }

    fn mask_of(&self, test: impl Fn(&ListRegister) -> bool) -> u32 {
        self.lrs
            .iter()
            .enumerate()
            .fold(0, |mask, (n, lr)| mask | (u32::from(test(lr)) << n))
    }
}

impl ListRegisters for FakeCpu {
    fn count(&self) -> usize {
        self.lrs.len()
    }

    fn read(&self, n: usize) -> ListRegister {
        self.touch();
        self.lrs[n]
    }

    fn write(&mut self, n: usize, value: ListRegister) {
        self.touch();
        if !value.is_inactive() {
            for (other, lr) in self.lrs.iter().enumerate() {
                let twice = other != n && !lr.is_inactive() && lr.intid() == value.intid();
                assert!(
                    !twice,
                    "INTID {} in list registers {n} and {other}",
                    value.intid()
                );
            }
            let both = value.is_pending() && value.is_active();
            assert!(
                !(value.is_hardware() && both),
                "a linked interrupt is pending and active"
            );
        }
        let old = self.lrs[n];
        let same = old.intid() == value.intid() && !value.is_inactive();
        let loses_end = old.is_active() && old.is_hardware() && same && !value.is_active();
        assert!(!loses_end, "the end of a linked interrupt is lost");
        self.lrs[n] = value;
    }

    fn empty(&self) -> u32 {
        self.touch();
        self.mask_of(|lr| lr.is_inactive() && !lr.wants_eoi())
    }

    fn eoi_status(&self) -> u32 {
        self.mask_of(|lr| lr.is_inactive() && lr.wants_eoi())
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        self.touch();
        self.maintenance = events;
    }

    fn take_eoi_count(&mut self) -> u32 {
        self.touch();
        core::mem::take(&mut self.eoi_count)
    }

    fn lines(&self) -> u32 {
        self.touch();
        self.lines
    }
}
