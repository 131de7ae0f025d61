//! Single instructions under observation: run one, learn its result or the exception it takes.
//!
//! The instruction may use x0 and x1 as operands and results, and nothing else.
#![expect(unsafe_code, reason = "runs instructions that are made at run time")]

use crate::cpu;
use crate::exception::Fault;
use core::arch::{asm, global_asm};

/// What an instruction did.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// x0 afterwards, when nothing went wrong.
    pub x0: u64,
    /// x1 afterwards, when nothing went wrong.
    pub x1: u64,
    /// The exception it took, if it took one.
    pub fault: Option<Fault>,
    /// Whether the recorded ELR was the instruction itself.
    pub exact: bool,
    /// How many bytes behind the instruction the recorded ELR was.
    pub behind: u64,
}

impl Observation {
    /// Returns the exception's class, if there was an exception.
    #[must_use]
    pub fn class(&self) -> Option<u64> {
        self.fault.map(|fault| fault.class())
    }

    /// Tells whether the instruction took a synchronous external data abort at this address, with an exact ELR.
    #[must_use]
    pub fn is_external_abort(&self, far: u64) -> bool {
        self.exact
            && self.fault.is_some_and(|fault| {
                fault.class() == Fault::DATA_ABORT
                    && fault.status() == Fault::SYNCHRONOUS_EXTERNAL
                    && fault.far == far
            })
    }
}

#[repr(C)]
struct Pair {
    x0: u64,
    x1: u64,
}

global_asm!(
    r#"
    .section .text.probe, "ax"
rt_probe:
    stp     x29, x30, [sp, #-16]!
    blr     x2
rt_probe_resume:
    ldp     x29, x30, [sp], #16
    ret
    "#
);

unsafe extern "C" {
    fn rt_probe(x0: u64, x1: u64, code: u64) -> Pair;
    fn rt_probe_resume();
}

/// Encoding of `ret`.
const RET: u32 = 0xd65f_03c0;

/// Returns where the exception handler continues after a probe's fault.
pub(crate) fn resume_address() -> u64 {
    rt_probe_resume as *const () as u64
}

/// Runs one instruction with these values of x0 and x1.
#[must_use]
pub fn run(instruction: u32, x0: u64, x1: u64) -> Observation {
    let cpu = cpu::current();
    let code = cpu.code_slot();
    // SAFETY: this CPU's own slot.
    if unsafe { code.read_volatile() } == instruction {
        return at(code as u64, x0, x1);
    }
    // SAFETY: this CPU's own slot, of two instructions.
    unsafe { code.cast::<[u32; 2]>().write_volatile([instruction, RET]) };
    // SAFETY: makes the slot's new contents visible to instruction fetch (DDI0487 B2.4.4).
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) code, options(nostack))
    };
    at(code as u64, x0, x1)
}

/// Calls an address with these values of x0 and x1, and expects it to return or to fault.
#[must_use]
pub fn at(code: u64, x0: u64, x1: u64) -> Observation {
    let cpu = cpu::current();
    cpu.arm_probe();
    // SAFETY: the callee uses x0 and x1 only, and a fault in it comes back to `rt_probe_resume`.
    let pair = unsafe { rt_probe(x0, x1, code) };
    let fault = if cpu.take_probe() {
        None
    } else {
        Some(cpu.recorded())
    };
    Observation {
        x0: pair.x0,
        x1: pair.x1,
        fault,
        exact: fault.is_some_and(|fault| fault.elr == code),
        behind: fault.map_or(0, |fault| fault.elr.wrapping_sub(code)),
    }
}

/// A system register by its encoding: op0, op1, CRn, CRm, op2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(pub u32, pub u32, pub u32, pub u32, pub u32);

impl Encoding {
    /// Returns the bits of an MSR or MRS instruction that name the register.
    const fn bits(self) -> u32 {
        let Self(op0, op1, crn, crm, op2) = self;
        (op0 & 3) << 19 | (op1 & 7) << 16 | (crn & 15) << 12 | (crm & 15) << 8 | (op2 & 7) << 5
    }

    /// Reads it into x0.
    #[must_use]
    pub fn read(self) -> Observation {
        run(0xd520_0000 | self.bits(), 0, 0)
    }

    /// Writes it.
    #[must_use]
    pub fn write(self, value: u64) -> Observation {
        run(0xd500_0000 | self.bits(), value, 0)
    }
}

/// Width of an access in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// Every width.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Half, Self::Word, Self::Double];

    const fn size_field(self) -> u32 {
        (self as u32) << 30
    }
}

/// Loads from an address.
#[must_use]
pub fn load(address: u64, width: Width) -> Observation {
    // ldr{b,h,,} x0, [x0]
    run(0x3940_0000 | width.size_field(), address, 0)
}

/// Stores x1 to an address.
#[must_use]
pub fn store(address: u64, width: Width, value: u64) -> Observation {
    // str{b,h,,} x1, [x0]
    run(0x3900_0001 | width.size_field(), address, value)
}
