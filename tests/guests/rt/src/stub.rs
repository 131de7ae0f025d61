//! The smallest thing a CPU can be started at: it notes how it finds itself and turns itself off.
//!
//! No stack, no MMU, no exception vectors: what PSCI promises of a started CPU is all it uses (DEN0022 6.4). Its first
//! instruction reads the virtual count, for the bench.
#![expect(unsafe_code, reason = "the first instructions of a CPU")]

use crate::machine::{Conduit, machine};
use crate::mmu;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

global_asm!(
    r#"
    .section .text.stub, "ax"
    .global rt_stub
rt_stub:
    mrs     x1, cntvct_el0
    str     x1, [x0]
    mrs     x1, sctlr_el1
    str     x1, [x0, #16]
    mrs     x1, daif
    str     x1, [x0, #24]
    mrs     x1, CurrentEL
    str     x1, [x0, #32]
    mrs     x1, mpidr_el1
    str     x1, [x0, #40]
    mrs     x1, cntv_ctl_el0
    str     x1, [x0, #48]
    mrs     x1, SPSel
    str     x1, [x0, #56]
    dsb     sy
    ldr     x1, [x0, #8]
    ldr     x0, =0x84000002     // CPU_OFF
    cbz     x1, 1f
    smc     #0
1:  hvc     #0
    b       .
    .ltorg
    "#
);

/// Where a started CPU leaves what it found. Lies in one cache line, since that CPU's caches are off.
#[repr(C, align(64))]
pub struct Mailbox {
    stamp: AtomicU64,
    smc: AtomicU64,
    state: [AtomicU64; 6],
}

/// How a CPU found itself when it was started.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// CNTVCT_EL0 at the first instruction.
    pub stamp: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// DAIF.
    pub daif: u64,
    /// CurrentEL, as a level from 0 to 3.
    pub level: u64,
    /// The affinity fields of MPIDR_EL1.
    pub affinity: u64,
    /// CNTV_CTL_EL0.
    pub timer: u64,
    /// SPSel.
    pub stack_select: u64,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Mailbox {
    /// Makes an empty mailbox.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stamp: AtomicU64::new(0),
            smc: AtomicU64::new(0),
            state: [const { AtomicU64::new(0) }; 6],
        }
    }

    /// Empties it, also for a CPU whose caches are off.
    pub fn clear(&self) {
        self.stamp.store(0, Ordering::Relaxed);
        self.smc.store(
            u64::from(machine().conduit() == Conduit::Smc),
            Ordering::Relaxed,
        );
        mmu::clean(self.address(), size_of::<Self>() as u64);
    }

    /// Returns the count that was left there, if one was.
    #[must_use]
    pub fn stamp(&self) -> Option<u64> {
        mmu::clean(self.address(), size_of::<Self>() as u64);
        match self.stamp.load(Ordering::Acquire) {
            0 => None,
            stamp => Some(stamp),
        }
    }

    /// Returns everything that was left there, if something was.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let stamp = self.stamp()?;
        let [sctlr, daif, level, affinity, timer, stack_select] =
            [0, 1, 2, 3, 4, 5].map(|index: usize| self.state[index].load(Ordering::Relaxed));
        Some(State {
            stamp,
            sctlr,
            daif,
            level: level >> 2,
            affinity: affinity & crate::cpu::AFFINITY,
            timer,
            stack_select,
        })
    }

    /// Leaves a count, from a CPU that runs normally.
    pub fn put(&self, stamp: u64) {
        self.stamp.store(stamp, Ordering::Release);
    }

    /// Returns its address: the context to start a CPU with.
    #[must_use]
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }
}

/// Returns the address to start a CPU at.
#[must_use]
pub fn address() -> u64 {
    unsafe extern "C" {
        fn rt_stub();
    }
    rt_stub as *const () as u64
}
