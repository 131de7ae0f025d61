//! The few A64 instructions that the runtime services are made of (Arm ARM DDI0487, C6.2), as code that a person can read.

use alloc::vec::Vec;

/// A general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct X(pub(super) u8);

impl X {
    /// The register as the destination, target or transfer register: bits 4..0.
    const fn d(self) -> u32 {
        self.0 as u32
    }

    /// The register as the base: bits 9..5.
    const fn n(self) -> u32 {
        (self.0 as u32) << 5
    }

    /// The register as the second operand: bits 20..16.
    const fn m(self) -> u32 {
        (self.0 as u32) << 16
    }
}

/// A branch whose target is still to come.
#[must_use = "a branch must be given a target"]
pub(super) struct Branch(usize);

/// Bits of the branch distance in CBZ and CBNZ, in words.
const DISTANCE_SHIFT: u32 = 5;
const DISTANCE_MASK: u32 = (1 << 19) - 1;

/// The unsigned offset of loads and stores, in units of what they access: bits 21..10.
const OFFSET_SHIFT: u32 = 10;

/// The immediate of MOVZ and MOVK, and which 16 bits of the register it goes to.
const IMMEDIATE_SHIFT: u32 = 5;
const HALF_SHIFT: u32 = 21;

/// Code under construction.
pub(super) struct Assembler(Vec<u32>);

impl Assembler {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the offset in bytes of the next instruction.
    pub(super) fn offset(&self) -> u64 {
        self.0.len() as u64 * 4
    }

    /// Returns the code as it lies in memory.
    pub(super) fn finish(self) -> impl Iterator<Item = u8> {
        self.0.into_iter().flat_map(u32::to_le_bytes)
    }

    /// BTI c: an indirect call may land here.
    pub(super) fn bti_c(&mut self) {
        self.0.push(0xd503_245f);
    }

    /// MOV Xd, Xm (ORR Xd, XZR, Xm).
    pub(super) fn mov(&mut self, to: X, from: X) {
        self.0.push(0xaa00_03e0 | from.m() | to.d());
    }

    /// MOVZ, and a MOVK for each further 16 bits that are not zero.
    pub(super) fn mov_immediate(&mut self, to: X, value: u64) {
        self.0
            .push(0xd280_0000 | (((value & 0xffff) as u32) << IMMEDIATE_SHIFT) | to.d());
        for half in 1..4 {
            let bits = ((value >> (16 * half)) & 0xffff) as u32;
            if bits != 0 {
                let place = half << HALF_SHIFT;
                self.0
                    .push(0xf280_0000 | place | (bits << IMMEDIATE_SHIFT) | to.d());
            }
        }
    }

    /// LDR Xt, [Xn, #offset]; the offset is a multiple of 8 below 32 KiB.
    pub(super) fn load(&mut self, to: X, base: X, offset: u32) {
        self.0
            .push(0xf940_0000 | ((offset / 8) << OFFSET_SHIFT) | base.n() | to.d());
    }

    /// STR Xt, [Xn, #offset]; the offset is a multiple of 8 below 32 KiB.
    pub(super) fn store(&mut self, from: X, base: X, offset: u32) {
        self.0
            .push(0xf900_0000 | ((offset / 8) << OFFSET_SHIFT) | base.n() | from.d());
    }

    /// STR Wt, [Xn, #offset]; the offset is a multiple of 4 below 16 KiB.
    pub(super) fn store_word(&mut self, from: X, base: X, offset: u32) {
        self.0
            .push(0xb900_0000 | ((offset / 4) << OFFSET_SHIFT) | base.n() | from.d());
    }

    /// STRB Wt, [Xn, #offset]; the offset is below 4 KiB.
    pub(super) fn store_byte(&mut self, from: X, base: X, offset: u32) {
        self.0
            .push(0x3900_0000 | (offset << OFFSET_SHIFT) | base.n() | from.d());
    }

    /// HVC #0.
    pub(super) fn hvc(&mut self) {
        self.0.push(0xd400_0002);
    }

    /// RET.
    pub(super) fn ret(&mut self) {
        self.0.push(0xd65f_03c0);
    }

    /// CBZ Xt, to a target that [`Assembler::land`] gives.
    pub(super) fn branch_if_zero(&mut self, register: X) -> Branch {
        self.branch(0xb400_0000 | register.d())
    }

    /// CBNZ Xt, to a target that [`Assembler::land`] gives.
    pub(super) fn branch_unless_zero(&mut self, register: X) -> Branch {
        self.branch(0xb500_0000 | register.d())
    }

    fn branch(&mut self, instruction: u32) -> Branch {
        let branch = Branch(self.0.len());
        self.0.push(instruction);
        branch
    }

    /// Lets `branch` go to the next instruction.
    pub(super) fn land(&mut self, branch: Branch) {
        let distance = self.0.len() - branch.0;
        if let Some(instruction) = self.0.get_mut(branch.0) {
            *instruction |= (distance as u32 & DISTANCE_MASK) << DISTANCE_SHIFT;
        }
    }
}
