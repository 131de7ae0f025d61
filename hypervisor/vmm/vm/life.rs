//! What a VM is doing as a whole, and how many of its vCPUs take part: started, stopped, paused by the first that asks.
//!
//! One word holds the phase and the reason for it, so that of several CPUs that want to end a VM exactly one does, and its reason is
//! told. Requests to single vCPUs (`vcpu::request`) only make them look here: the phase is the truth, a stale request does no harm.
//! Model-checked by loom, with what CPUs and the VM's manager do around it (`model`).

#[cfg(not(all(loom, test)))]
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(all(loom, test))]
use model::sequential::{AtomicBool, AtomicU32, AtomicU64};

use core::sync::atomic::Ordering;

types::words! {
    /// What a VM is doing as a whole.
    Phase:
    /// Nothing runs and its memory is not loaded.
    Off = "off",
    /// Images are being copied and tables made.
    Starting = "starting",
    /// Its vCPUs run.
    Running = "running",
    /// Its vCPUs are held where they are.
    Paused = "paused",
    /// Its vCPUs are leaving; then it is off.
    Stopping = "stopping",
    /// Its vCPUs are leaving; then it starts again.
    Resetting = "resetting",
}

impl Phase {
    const fn from_word(word: u32) -> Self {
        match word & PHASE {
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Paused,
            4 => Self::Stopping,
            5 => Self::Resetting,
            _ => Self::Off,
        }
    }

    /// Returns the word of lists: a VM counts as running from its start until it is off.
    #[must_use]
    pub const fn state(self, cause: Cause) -> &'static str {
        match self {
            Self::Off => match cause {
                Cause::Failed => "failed",
                _ => "off",
            },
            Self::Paused => "paused",
            Self::Starting | Self::Running | Self::Stopping | Self::Resetting => "running",
        }
    }
}

types::words! {
    /// What ended a VM's last life.
    Cause:
    /// The operator asked for it.
    Operator = "operator",
    /// The guest asked for it.
    Guest = "guest",
    /// The guest turned its last vCPU off.
    AllVcpusOff = "all-vcpus-off",
    /// It could not be started, or did what it must not.
    Failed = "failed",
}

impl Cause {
    fn from_word(word: u32) -> Self {
        let index = (word >> CAUSE_SHIFT) as usize;
        Self::ALL.get(index).copied().unwrap_or(Self::Failed)
    }
}

/// Bits of the word that hold the phase; the cause is above.
const PHASE: u32 = 0xff;
const CAUSE_SHIFT: u32 = 8;

const fn word(phase: Phase, cause: Cause) -> u32 {
    phase as u32 | (cause as u32) << CAUSE_SHIFT
}

/// How a request to resume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Resume {
    /// Nothing wants it.
    NotAsked,
    /// Some vCPU has not come to rest yet: try again.
    Wait,
    /// It runs again. The virtual counter is to be set back by this many ticks: the time for which it stood still.
    Done {
        /// Ticks of the counter.
        still_ticks: u64,
    },
}

/// A VM's phase and its vCPUs that are on CPUs.
#[derive(Debug, Default)]
pub struct Life {
    word: AtomicU32,
    /// vCPUs that are attached to a CPU.
    attached: AtomicU32,
    /// vCPUs whose registers some CPU owns, on or off.
    owned: AtomicU32,
    /// Those among them that stand still because of a pause.
    halted: AtomicU32,
    /// When the last vCPU came to rest, in counter ticks. Grows only.
    halted_ticks: AtomicU64,
    resume: AtomicBool,
}

impl Life {
    /// Returns the phase.
    #[inline(always)]
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from_word(self.word.load(Ordering::SeqCst))
    }

    /// Returns what ended the last life; of use while the VM is off, stopping or resetting.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::from_word(self.word.load(Ordering::SeqCst))
    }

    /// Begins a start; returns whether the VM was off.
    #[must_use]
    pub fn start(&self) -> bool {
        self.change(|phase| phase == Phase::Off, Phase::Starting, None)
    }

    /// Begins the start after a reset, or lets a VM be off, once no vCPU is left.
    pub fn left(&self) {
        let next = match self.phase() {
            Phase::Resetting => Phase::Starting,
            _ => Phase::Off,
        };
        let _always = self.change(|_| true, next, None);
    }

    /// Ends a start with success; returns whether the VM was not stopped meanwhile.
    #[must_use]
    pub fn started(&self) -> bool {
        self.change(|phase| phase == Phase::Starting, Phase::Running, None)
    }

    /// Ends a life that cannot begin or go on.
    pub fn failed(&self) {
        let _always = self.change(|_| true, Phase::Off, Some(Cause::Failed));
    }

    /// Begins to turn the VM off; returns whether it was on. Then every vCPU is to be told.
    #[must_use]
    pub fn stop(&self, cause: Cause) -> bool {
        let on = |phase| matches!(phase, Phase::Starting | Phase::Running | Phase::Paused);
        self.change(on, Phase::Stopping, Some(cause))
    }

    /// Begins a reset; returns whether the VM was on. Then every vCPU is to be told.
    #[must_use]
    pub fn reset(&self, cause: Cause) -> bool {
        let on = |phase| matches!(phase, Phase::Running | Phase::Paused);
        self.change(on, Phase::Resetting, Some(cause))
    }

    /// Begins a pause; returns whether the VM ran. Then every vCPU is to be told.
    ///
    /// A pause while an earlier one is about to end just goes on.
    #[must_use]
    pub fn pause(&self, now_ticks: u64) -> bool {
        if self.phase() == Phase::Paused {
            return self.resume.swap(false, Ordering::SeqCst);
        }
        let paused = self.change(|phase| phase == Phase::Running, Phase::Paused, None);
        if paused {
            self.halted_ticks.fetch_max(now_ticks, Ordering::SeqCst);
        }
        paused
    }

    /// Asks for the end of a pause; returns whether there is one. [`Life::resume`] ends it.
    #[must_use]
    pub fn ask_resume(&self) -> bool {
        let paused = self.phase() == Phase::Paused;
        if paused {
            self.resume.store(true, Ordering::SeqCst);
        }
        paused
    }

    /// Ends a pause if that was asked for and every vCPU has come to rest, so that they agree on the time that has passed.
    ///
    /// `set_back` is called with the ticks of the pause before any vCPU can run.
    pub fn resume(&self, now_ticks: u64, set_back: impl FnOnce(u64)) -> Resume {
        if !self.resume.load(Ordering::SeqCst) {
            return Resume::NotAsked;
        }
        if self.phase() == Phase::Paused
            && self.halted.load(Ordering::SeqCst) != self.attached.load(Ordering::SeqCst)
        {
            return Resume::Wait;
        }
        if !self.resume.swap(false, Ordering::SeqCst) || self.phase() != Phase::Paused {
            return Resume::NotAsked;
        }
        let still_ticks = now_ticks.saturating_sub(self.halted_ticks.load(Ordering::SeqCst));
        set_back(still_ticks);
        // The VM may have been stopped: then nothing runs that could look at the time.
        if self.change(|phase| phase == Phase::Paused, Phase::Running, None) {
            Resume::Done { still_ticks }
        } else {
            Resume::NotAsked
        }
    }

    /// Counts a vCPU in before it runs; returns whether the VM still wants that. Otherwise call [`Life::detach`] at once.
    ///
    /// Counted first and asked after, so that an end of the VM either is seen here or sees the count.
    #[must_use]
    pub fn attach(&self) -> bool {
        self.attached.fetch_add(1, Ordering::SeqCst);
        matches!(self.phase(), Phase::Running | Phase::Paused)
    }

    /// Counts a vCPU out; returns whether it was the last one.
    #[must_use]
    pub fn detach(&self) -> bool {
        self.attached.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Returns how many vCPUs are attached to a CPU.
    #[must_use]
    pub fn attached(&self) -> u32 {
        self.attached.load(Ordering::SeqCst)
    }

    /// Counts a vCPU whose registers a CPU takes over; returns whether the VM wants that. Otherwise call [`Life::disown`] at once.
    ///
    /// Counted first and asked after, so that an end of the VM either is seen here or sees the count.
    #[must_use]
    pub fn own(&self) -> bool {
        self.owned.fetch_add(1, Ordering::SeqCst);
        matches!(self.phase(), Phase::Running | Phase::Paused)
    }

    /// Counts a vCPU whose registers are given back; returns whether no CPU owns any now.
    #[must_use]
    pub fn disown(&self) -> bool {
        self.owned.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Returns whether no CPU runs a vCPU or owns the registers of one.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.attached() == 0 && self.owned.load(Ordering::SeqCst) == 0
    }

    /// Counts an attached vCPU that has come to rest for a pause.
    pub fn halt(&self, now_ticks: u64) {
        self.halted_ticks.fetch_max(now_ticks, Ordering::SeqCst);
        self.halted.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a vCPU out that was at rest, because it goes on or leaves.
    pub fn unhalt(&self) {
        self.halted.fetch_sub(1, Ordering::SeqCst);
    }

    /// Moves to `next` from the phases that `from` allows, with the cause given or the one there was.
    fn change(&self, from: impl Fn(Phase) -> bool, next: Phase, cause: Option<Cause>) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                from(Phase::from_word(old))
                    .then(|| word(next, cause.unwrap_or(Cause::from_word(old))))
            })
            .is_ok()
    }
}

#[cfg(all(loom, test))]
mod model;

#[cfg(test)]
mod tests;
