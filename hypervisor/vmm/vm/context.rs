//! The register state of a virtual CPU: what its pCPU loads and saves, and the values at reset.
//!
//! Only plain data; `el2` moves it into and out of the hardware.

use super::{Vcpu, Vm};
use crate::exit::{self, Syndrome};

/// The general registers of a guest, laid out for the exception vectors of `el2`.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where the guest goes on: ELR_EL2. Current only when the guest was left, not on the hot path.
    pub pc: u64,
    /// The guest's PSTATE: SPSR_EL2. Current only when the guest was left, not on the hot path.
    pub pstate: u64,
    /// `el2`'s stack pointer while the guest runs.
    pub host_stack: u64,
    /// Whose registers these are, for the hot path; set while the vCPU is attached to a CPU.
    pub owner: Option<Owner>,
}

/// A vCPU and its VM.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The VM.
    pub vm: &'static Vm,
    /// The vCPU.
    pub vcpu: &'static Vcpu,
}

/// PSTATE of a CPU that PSCI turns on: EL1h with D, A, I and F masked (PSCI DEN0022, 6.4).
pub const PSTATE_EL1_MASKED: u64 = 0x3c5;

/// PSTATE.I: interrupts are masked (Arm ARM D1.7).
pub const PSTATE_I: u64 = 1 << 7;

/// PSTATE.SS: the next instruction is executed before a software step exception is taken (Arm ARM D2.12).
const PSTATE_SS: u64 = 1 << 21;

/// SCTLR_EL1 at reset: its RES1 bits, MMU and caches off (Arm ARM D19.2.118).
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

impl Frame {
    /// Reads general register `n` as an instruction's Rt field names it; 31 reads as zero.
    #[inline]
    #[must_use]
    pub fn register(&self, n: u32) -> u64 {
        self.x.get(n as usize).copied().unwrap_or(0)
    }

    /// Goes on behind the trapped instruction, which counts as one for a debugger in the guest that steps (Arm ARM D2.12).
    #[inline]
    pub fn step_over(&mut self, syndrome: Syndrome) {
        self.pc = self.pc.wrapping_add(syndrome.instruction_bytes());
        self.pstate &= !PSTATE_SS;
        if exit::is_aarch32(self.pstate) {
            self.pstate = exit::behind_aarch32(self.pstate);
        }
    }

    /// Writes general register `n` as an instruction's Rt field names it; writes to 31 are dropped.
    #[inline]
    pub fn set_register(&mut self, n: u32, value: u64) {
        if let Some(register) = self.x.get_mut(n as usize) {
            *register = value;
        }
    }
}

/// The exceptions in a row that a vCPU took at EL1 without getting on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// The instruction that faults.
    pub pc: u64,
    /// The address it asks for, if the exception has one.
    pub far: Option<u64>,
    /// How often it has faulted so far.
    pub count: u32,
}

macro_rules! system_registers {
    ($($name:ident)*) => {
        /// The EL1 and EL0 system registers of a guest that runs in AArch64 at EL1.
        #[expect(missing_docs, reason = "each field is the register of that name, Arm ARM D19")]
        #[derive(Clone, Debug)]
        #[repr(C)]
        pub struct SystemRegisters {
            $(pub $name: u64,)*
        }

        impl SystemRegisters {
            const ZERO: Self = Self { $($name: 0,)* };
        }
    };
}

system_registers! {
    sp_el0 sp_el1 elr_el1 spsr_el1 sctlr_el1 cpacr_el1 ttbr0_el1 ttbr1_el1 tcr_el1 mair_el1 amair_el1 vbar_el1
    contextidr_el1 esr_el1 far_el1 afsr0_el1 afsr1_el1 par_el1 tpidr_el0 tpidr_el1 tpidrro_el0 cntkctl_el1 mdscr_el1 csselr_el1
    apiakeylo_el1 apiakeyhi_el1 apibkeylo_el1 apibkeyhi_el1 apdakeylo_el1 apdakeyhi_el1
    apdbkeylo_el1 apdbkeyhi_el1 apgakeylo_el1 apgakeyhi_el1
}

impl SystemRegisters {
    /// The values after a reset; the architecturally unknown ones are zero.
    pub const RESET: Self = Self {
        sctlr_el1: SCTLR_EL1_RESET,
        ..Self::ZERO
    };
}

/// The guest's two generic timers (Arm ARM D12).
#[expect(missing_docs, reason = "registers of these names, Arm ARM D19.12")]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TimerRegisters {
    pub cntv_ctl: u64,
    pub cntv_cval: u64,
    pub cntp_ctl: u64,
    pub cntp_cval: u64,
}

impl TimerRegisters {
    /// CNTx_CTL of a timer that fires: enabled, and not masked (Arm ARM D24.10.15).
    const FIRES: u64 = 1;

    /// Returns when the first of them fires, in ticks of the physical counter, for a VM whose virtual counter is `offset` behind it;
    /// `None` for never.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self, offset: u64) -> Option<u64> {
        let mut deadline = u64::MAX;
        if self.cntv_ctl == Self::FIRES {
            deadline = self.cntv_cval.saturating_add(offset);
        }
        if self.cntp_ctl == Self::FIRES {
            deadline = deadline.min(self.cntp_cval);
        }
        (deadline != u64::MAX).then_some(deadline)
    }
}

/// The FP and SIMD registers, saved only when another vCPU wants the unit.
#[expect(missing_docs, reason = "registers of these names, Arm ARM B1")]
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct FpRegisters {
    pub v: [u128; 32],
    pub fpcr: u64,
    pub fpsr: u64,
}

#[cfg(test)]
mod tests {
    use super::Frame;

    #[test]
    fn register_31_is_the_zero_register() {
        let mut frame = Frame {
            x: [7; 31],
            ..Frame::default()
        };
        frame.set_register(31, 9);
        assert_eq!(frame.register(31), 0);
        assert_eq!(frame.register(30), 7);
    }
}
