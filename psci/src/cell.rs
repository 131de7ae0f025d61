//! One virtual CPU's power state as one atomic word, and the hand-over of its entry point.
//!
//! Any physical CPU may apply any event of [`crate::power`] at any time; a compare-exchange loop around the pure function makes each one
//! happen at one instant. CPU_ON has to hand two more words over, so its winner claims the start first ([`State::Starting`]), writes
//! them, and then publishes ([`State::OnPending`]); the losers see ALREADY_ON from the claim on, AFFINITY_INFO sees ON_PENDING, and only
//! what is published can be started. Guest memory that the caller of CPU_ON wrote is visible to the started one, and what a CPU wrote
//! before CPU_OFF is visible to a CPU that reads OFF.
//!
//! Model-checked by loom, with this very code: `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p psci --release --lib model`.

#[cfg(not(all(loom, test)))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::call::EntryPoint;
use crate::power::{Event, Refusal, Role, State, transition};
use crate::smccc::ReturnCode;

/// Bits of the word that hold the [`State`].
const STATE_MASK: u32 = 0xf;
/// Bit of the word that is set for [`Role::Boot`].
const BOOT: u32 = 1 << 8;

/// A virtual CPU's power state, shared by all CPUs that act on it.
#[derive(Debug)]
pub struct PowerCell {
    word: AtomicU32,
    entry: AtomicU64,
    context_id: AtomicU64,
}

const fn pack(role: Role, state: State) -> u32 {
    state as u32
        | match role {
            Role::Boot => BOOT,
            Role::Hotplug => 0,
        }
}

#[inline]
const fn unpack(word: u32) -> (Role, State) {
    let role = if word & BOOT != 0 {
        Role::Boot
    } else {
        Role::Hotplug
    };
    (role, State::from_bits((word & STATE_MASK) as u8))
}

impl PowerCell {
    /// Makes the cell of a virtual CPU in the state its role begins with.
    #[must_use]
    #[cfg(not(all(loom, test)))]
    pub const fn new(role: Role) -> Self {
        Self {
            word: AtomicU32::new(pack(role, State::at_reset(role))),
            entry: AtomicU64::new(0),
            context_id: AtomicU64::new(0),
        }
    }

    /// Returns the state at this moment.
    #[inline]
    #[must_use]
    pub fn state(&self) -> State {
        unpack(self.word.load(Ordering::Acquire)).1
    }

    /// Returns the role the cell was made with.
    #[inline]
    #[must_use]
    pub fn role(&self) -> Role {
        unpack(self.word.load(Ordering::Relaxed)).0
    }

    /// Returns what AFFINITY_INFO says of the virtual CPU, as the guest's x0.
    #[inline]
    #[must_use]
    pub fn affinity_info(&self) -> u64 {
        AFFINITY_INFO.get(self.word.load(Ordering::Acquire))
    }

    /// Returns what `_STA` of the processor evaluates to.
    #[inline]
    #[must_use]
    pub fn sta(&self) -> u32 {
        self.state().sta()
    }

    /// Applies an event and returns the state that it led to.
    ///
    /// CPU_ON and the start go through [`PowerCell::cpu_on`] and [`PowerCell::start`], which carry the entry point.
    ///
    /// # Errors
    /// The [`Refusal`] of [`transition`]; the state is then unchanged.
    #[inline]
    pub fn apply(&self, event: Event) -> Result<State, Refusal> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (role, state) = unpack(word);
            let next = transition(role, state, event)?;
            match self.word.compare_exchange_weak(
                word,
                pack(role, next),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(next),
                Err(now) => word = now,
            }
        }
    }

    /// Carries out CPU_ON: on [`ReturnCode::Success`] the caller has to queue the virtual CPU and wake its physical CPU.
    ///
    /// The entry point must have been checked; of several callers exactly one succeeds.
    #[inline]
    pub fn cpu_on(&self, at: EntryPoint) -> ReturnCode {
        if let Err(refusal) = self.apply(Event::CpuOn) {
            return refusal.code();
        }
        self.entry.store(at.address, Ordering::Relaxed);
        self.context_id.store(at.context_id, Ordering::Relaxed);
        match self.apply(Event::Publish) {
            Ok(_) => ReturnCode::Success,
            Err(refusal) => refusal.code(),
        }
    }

    /// Turns a started virtual CPU on and returns where it begins; `None` when no start is published.
    ///
    /// Called by the physical CPU that is about to enter it.
    #[inline]
    #[must_use]
    pub fn start(&self) -> Option<EntryPoint> {
        let _entered = self.apply(Event::Started).ok()?;
        Some(EntryPoint {
            address: self.entry.load(Ordering::Relaxed),
            context_id: self.context_id.load(Ordering::Relaxed),
        })
    }
}

/// A signed 4-bit answer for each state, in one word, so that a query is a load, a shift and a sign extension.
struct NibbleTable(u64);

const AFFINITY_INFO: NibbleTable = NibbleTable::of_affinity_info();

impl NibbleTable {
    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "evaluated by the compiler, over a constant"
    )]
    const fn of_affinity_info() -> Self {
        let mut bits = u64::MAX / 0xf * (ReturnCode::InvalidParameters as u64 & 0xf);
        let mut index = 0;
        while index < crate::power::STATES.len() {
            let state = crate::power::STATES[index];
            let shift = 4 * (state as u32);
            bits = bits & !(0xf << shift) | (state.affinity_info() as u64 & 0xf) << shift;
            index += 1;
        }
        Self(bits)
    }

    #[inline]
    const fn get(self, word: u32) -> u64 {
        let shift = 60_u32.wrapping_sub(4_u32.wrapping_mul(word & STATE_MASK));
        ((self.0.wrapping_shl(shift) as i64) >> 60) as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(loom, test))]
mod model;
