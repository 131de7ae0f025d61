//! The instructions of A64 that loops which wait are made of, on a copy of a guest's registers (Arm ARM C4, C6).
//!
//! An instruction that stores, takes or returns from an exception, or has to do with the stack pointer is not followed.

use super::tables::translate;
use super::{Read, Sight, Word, Words};
use crate::exit::system_register;
use crate::vm::context::Frame;
use types::access::AccessWidth;
use types::address::GuestPhys;

/// Register 31: zero, or the stack pointer.
const ZERO: u32 = 31;
/// A guest's page for this purpose; its own may be larger.
const PAGE: u64 = 4096;
/// PSTATE.NZCV.
const FLAGS: u64 = 0xf << 28;

/// The registers that an instruction may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    x: [u64; 31],
    pub(super) pc: u64,
    /// N, Z, C and V where PSTATE has them.
    flags: u64,
}

/// What was met since the round began.
#[derive(Debug)]
pub(super) struct Passed {
    /// A hint: WFE, or YIELD.
    pub(super) hint: bool,
    /// A look at the counter.
    pub(super) time: bool,
    /// What was read; `None` if that is more than may be waited for.
    pub(super) words: Option<Words>,
}

impl Passed {
    const fn nothing() -> Self {
        Self {
            hint: false,
            time: false,
            words: Some(Words::new()),
        }
    }
}

/// A copy of a vCPU that runs ahead of it.
pub(super) struct Interpreter<'a> {
    pub(super) registers: Registers,
    pub(super) passed: Passed,
    sight: &'a Sight,
    read: Read<'a>,
    /// The page of the code and that of the data that were translated last.
    pages: [(u64, u64); 2],
}

/// Takes the field of a word that begins at bit `low`.
const fn field(word: u32, low: u32, bits: u32) -> u32 {
    word >> low & ((1 << bits) - 1)
}

/// Returns an immediate of so many bits with its sign.
const fn signed(value: u32, bits: u32) -> u64 {
    ((value << (32 - bits)) as i32 >> (32 - bits)) as i64 as u64
}

/// Keeps what a register of 32 or 64 bits holds.
const fn sized(value: u64, wide: bool) -> u64 {
    if wide { value } else { value as u32 as u64 }
}

fn shifted(value: u64, kind: u32, amount: u32, wide: bool) -> u64 {
    let narrow = value as u32;
    match (kind, wide) {
        (0, _) => sized(value.wrapping_shl(amount), wide),
        (1, true) => value.wrapping_shr(amount),
        (1, false) => narrow.wrapping_shr(amount).into(),
        (2, true) => (value as i64).wrapping_shr(amount) as u64,
        (2, false) => (narrow as i32).wrapping_shr(amount) as u32 as u64,
        (_, true) => value.rotate_right(amount),
        (_, false) => narrow.rotate_right(amount).into(),
    }
}

/// Extends a register as the option field of an instruction says, and shifts it.
const fn extended(value: u64, option: u32, amount: u32) -> u64 {
    let value = match option & 7 {
        0 => value as u8 as u64,
        1 => value as u16 as u64,
        2 => value as u32 as u64,
        4 => value as i8 as u64,
        5 => value as i16 as u64,
        6 => value as i32 as u64,
        _ => value,
    };
    value << (amount & 7)
}

/// Returns a logical immediate, and the mask that the bit field instructions keep (Arm ARM, `DecodeBitMasks`).
fn bit_masks(n: u32, imms: u32, immr: u32) -> Option<(u64, u64)> {
    let length = (n << 6 | !imms & 0x3f).checked_ilog2()?;
    let size = 1 << length;
    let levels = size - 1;
    if length == 0 {
        return None;
    }
    let (s, r) = (imms & levels, immr & levels);
    let ones = |count: u32| u64::MAX >> (64 - count);
    let element = ones(s + 1);
    let rotated = (element >> r | element << ((size - r) % size)) & ones(size);
    let all = (0..64 / size).fold(0, |all, n| all | rotated << (n * size));
    let top = ones((s.wrapping_sub(r) & levels) + 1);
    Some((all, top))
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(frame: &Frame, sight: &'a Sight, read: Read<'a>) -> Self {
        Self {
            registers: Registers {
                x: frame.x,
                pc: frame.pc,
                flags: frame.pstate & FLAGS,
            },
            passed: Passed::nothing(),
            sight,
            read,
            pages: [(u64::MAX, 0); 2],
        }
    }

    /// Forgets what was met.
    pub(super) fn begin_round(&mut self) {
        self.passed = Passed::nothing();
    }

    /// Follows one instruction; `None` if it is none of those that are understood.
    pub(super) fn step(&mut self) -> Option<()> {
        let pc = self.registers.pc;
        let (_, word) = self.load(0, pc, AccessWidth::Word)?;
        let word = word as u32;
        self.registers.pc = pc.wrapping_add(4);
        match word >> 25 & 0xf {
            0b1000 | 0b1001 => self.immediate(word, pc),
            0b1010 | 0b1011 => self.branch(word, pc),
            0b0101 | 0b1101 => self.register(word),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => self.memory(word),
            _ => None,
        }
    }

    /// Reads memory, `kind` 0 for code and 1 for data; an address that is no multiple of its size is not followed.
    fn load(&mut self, kind: usize, at: u64, width: AccessWidth) -> Option<(GuestPhys, u64)> {
        if !at.is_multiple_of(width.bytes()) {
            return None;
        }
        let (page, within) = (at & !(PAGE - 1), at & (PAGE - 1));
        let known = self.pages.get_mut(kind)?;
        if known.0 != page {
            *known = (page, translate(self.sight, page, self.read)?.get());
        }
        let address = GuestPhys::new(known.1 | within);
        Some((address, (self.read)(address, width)?))
    }

    /// Reads a register; 31 is zero.
    fn x(&self, n: u32) -> u64 {
        self.registers.x.get(n as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, n: u32, value: u64, wide: bool) {
        if let Some(register) = self.registers.x.get_mut(n as usize) {
            *register = sized(value, wide);
        }
    }

    /// Adds with the carry and sets the flags, if they are to be set (Arm ARM, `AddWithCarry`).
    fn add(&mut self, a: u64, b: u64, carry: bool, wide: bool, sets: bool) -> u64 {
        let (a, b) = (sized(a, wide), sized(b, wide));
        let sum = u128::from(a) + u128::from(b) + u128::from(carry);
        let result = sized(sum as u64, wide);
        let sign = if wide { 63 } else { 31 };
        if sets {
            let carried = sum >> (sign + 1) != 0;
            let overflow = ((a ^ result) & (b ^ result)) >> sign & 1;
            self.set_flags(result, wide, u64::from(carried) << 29 | overflow << 28);
        }
        result
    }

    /// Sets N and Z by a result, and C and V as given.
    fn set_flags(&mut self, result: u64, wide: bool, rest: u64) {
        let negative = result >> if wide { 63 } else { 31 } & 1;
        let zero = u64::from(result == 0);
        self.registers.flags = negative << 31 | zero << 30 | rest;
    }

    /// Returns whether a condition holds (Arm ARM, `ConditionHolds`).
    fn holds(&self, condition: u32) -> bool {
        let flag = |bit: u32| self.registers.flags >> bit & 1 != 0;
        let (n, z, c, v) = (flag(31), flag(30), flag(29), flag(28));
        let met = match condition >> 1 & 7 {
            0 => z,
            1 => c,
            2 => n,
            3 => v,
            4 => c && !z,
            5 => n == v,
            6 => n == v && !z,
            _ => return true,
        };
        met != (condition & 1 != 0)
    }

    /// Data processing with an immediate.
    fn immediate(&mut self, word: u32, pc: u64) -> Option<()> {
        let (wide, rd, rn) = (word >> 31 != 0, field(word, 0, 5), field(word, 5, 5));
        let opcode = field(word, 29, 2);
        match field(word, 23, 3) {
            // ADR, ADRP.
            0 | 1 => {
                let offset = signed(field(word, 5, 19) << 2 | field(word, 29, 2), 21);
                let value = match wide {
                    false => pc.wrapping_add(offset),
                    true => (pc & !(PAGE - 1)).wrapping_add(offset << 12),
                };
                self.set(rd, value, true);
            }
            // ADD and SUB; register 31 is the stack pointer but where only flags are set.
            2 => {
                let sets = opcode & 1 != 0;
                if rn == ZERO || rd == ZERO && !sets {
                    return None;
                }
                let imm = u64::from(field(word, 10, 12)) << (field(word, 22, 1) * 12);
                let (b, carry) = if opcode & 2 != 0 {
                    (!imm, true)
                } else {
                    (imm, false)
                };
                let result = self.add(self.x(rn), b, carry, wide, sets);
                self.set(rd, result, wide);
            }
            // AND, ORR, EOR and ANDS.
            4 => {
                if rd == ZERO && opcode != 3 {
                    return None;
                }
                let masks = bit_masks(field(word, 22, 1), field(word, 10, 6), field(word, 16, 6));
                self.logical(opcode, rd, self.x(rn), masks?.0, wide);
            }
            5 => self.move_wide(word)?,
            6 => self.bit_field(word)?,
            _ => return None,
        }
        Some(())
    }

    /// MOVN, MOVZ and MOVK.
    fn move_wide(&mut self, word: u32) -> Option<()> {
        let rd = field(word, 0, 5);
        let shift = field(word, 21, 2) * 16;
        let imm = u64::from(field(word, 5, 16)) << shift;
        let value = match field(word, 29, 2) {
            0 => !imm,
            2 => imm,
            3 => self.x(rd) & !(0xffff << shift) | imm,
            _ => return None,
        };
        self.set(rd, value, word >> 31 != 0);
        Some(())
    }

    /// SBFM and UBFM: shifts and extensions.
    fn bit_field(&mut self, word: u32) -> Option<()> {
        let (wide, rd, rn) = (word >> 31 != 0, field(word, 0, 5), field(word, 5, 5));
        let (immr, imms) = (field(word, 16, 6), field(word, 10, 6));
        let (mask, top) = bit_masks(field(word, 22, 1), imms, immr)?;
        let from = sized(self.x(rn), wide);
        let low = shifted(from, 3, immr, wide) & mask & top;
        let sign = 0_u64.wrapping_sub(from.wrapping_shr(imms) & 1);
        match field(word, 29, 2) {
            0 => self.set(rd, sign & !top | low, wide),
            2 => self.set(rd, low, wide),
            _ => return None,
        }
        Some(())
    }

    fn logical(&mut self, opcode: u32, rd: u32, a: u64, b: u64, wide: bool) {
        let result = match opcode & 3 {
            1 => a | b,
            2 => a ^ b,
            _ => a & b,
        };
        let result = sized(result, wide);
        if opcode & 3 == 3 {
            self.set_flags(result, wide, 0);
        }
        self.set(rd, result, wide);
    }

    /// Data processing of registers.
    fn register(&mut self, word: u32) -> Option<()> {
        let (wide, rd, rn) = (word >> 31 != 0, field(word, 0, 5), field(word, 5, 5));
        let opcode = field(word, 29, 2);
        let (a, b) = (self.x(rn), self.x(field(word, 16, 5)));
        match field(word, 24, 5) {
            // AND, ORR, EOR, ANDS, and with the second operand inverted.
            0b01010 => {
                let b = shifted(sized(b, wide), field(word, 22, 2), field(word, 10, 6), wide);
                let b = if field(word, 21, 1) != 0 { !b } else { b };
                self.logical(opcode, rd, a, b, wide);
            }
            // ADD and SUB of a shifted or extended register.
            0b01011 => {
                let extends = field(word, 21, 1) != 0;
                let sets = opcode & 1 != 0;
                if extends && (rn == ZERO || rd == ZERO && !sets) {
                    return None;
                }
                let b = match extends {
                    true => extended(b, field(word, 13, 3), field(word, 10, 3)),
                    false => shifted(sized(b, wide), field(word, 22, 2), field(word, 10, 6), wide),
                };
                let (b, carry) = if opcode & 2 != 0 {
                    (!b, true)
                } else {
                    (b, false)
                };
                let result = self.add(a, b, carry, wide, sets);
                self.set(rd, result, wide);
            }
            // CCMP and CCMN, CSEL and its kin.
            0b11010 => {
                let condition = self.holds(field(word, 12, 4));
                match (field(word, 21, 3), opcode & 1 != 0) {
                    (2, true) if field(word, 10, 1) == 0 && field(word, 4, 1) == 0 => {
                        let imm = u64::from(field(word, 16, 5));
                        let b = if field(word, 11, 1) != 0 { imm } else { b };
                        let (b, carry) = if opcode & 2 != 0 {
                            (!b, true)
                        } else {
                            (b, false)
                        };
                        match condition {
                            true => _ = self.add(a, b, carry, wide, true),
                            false => self.registers.flags = u64::from(field(word, 0, 4)) << 28,
                        }
                    }
                    (4, false) if field(word, 11, 1) == 0 => {
                        let b = if opcode & 2 != 0 { !b } else { b };
                        let b = b.wrapping_add(field(word, 10, 1).into());
                        self.set(rd, if condition { a } else { b }, wide);
                    }
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Branches, hints, barriers, and reads of the few system registers that are known.
    fn branch(&mut self, word: u32, pc: u64) -> Option<()> {
        let rt = field(word, 0, 5);
        let value = sized(self.x(rt), word >> 31 != 0);
        let (offset, taken) = match word >> 24 {
            0x14..=0x17 | 0x94..=0x97 => {
                if word >> 31 != 0 {
                    self.set(30, pc.wrapping_add(4), true);
                }
                (signed(field(word, 0, 26), 26), true)
            }
            0x54 if field(word, 4, 1) == 0 => (
                signed(field(word, 5, 19), 19),
                self.holds(field(word, 0, 4)),
            ),
            0x34 | 0x35 | 0xb4 | 0xb5 => {
                let wants_zero = field(word, 24, 1) == 0;
                (signed(field(word, 5, 19), 19), (value == 0) == wants_zero)
            }
            0x36 | 0x37 | 0xb6 | 0xb7 => {
                let bit = field(word, 31, 1) << 5 | field(word, 19, 5);
                let is_set = self.x(rt) >> bit & 1 != 0;
                (
                    signed(field(word, 5, 14), 14),
                    is_set == (field(word, 24, 1) != 0),
                )
            }
            // BR and RET.
            0xd6 if matches!(word & 0xffff_fc1f, 0xd61f_0000 | 0xd65f_0000) => {
                self.registers.pc = self.x(field(word, 5, 5));
                return Some(());
            }
            0xd5 => return self.system(word),
            _ => return None,
        };
        if taken {
            self.registers.pc = pc.wrapping_add(offset << 2);
        }
        Some(())
    }

    fn system(&mut self, word: u32) -> Option<()> {
        const SP_EL0: u32 = system_register(3, 0, 4, 1, 0);
        const TPIDR_EL1: u32 = system_register(3, 0, 13, 0, 4);
        const CNTVCT_EL0: u32 = system_register(3, 3, 14, 0, 2);
        match word {
            // YIELD, WFE.
            0xd503_203f | 0xd503_205f => self.passed.hint = true,
            // NOP, SEVL, BTI.
            0xd503_201f | 0xd503_20bf | 0xd503_241f | 0xd503_245f | 0xd503_249f | 0xd503_24df => {}
            // CLREX, DSB, DMB, ISB.
            _ if matches!(
                word & 0xffff_f0ff,
                0xd503_305f | 0xd503_309f | 0xd503_30bf | 0xd503_30df
            ) => {}
            // MRS; the fields lie as in a syndrome, but in the order of the encoding.
            _ if word & 0xfff0_0000 == 0xd530_0000 => {
                let name = system_register(
                    field(word, 19, 2),
                    field(word, 16, 3),
                    field(word, 12, 4),
                    field(word, 8, 4),
                    field(word, 5, 3),
                );
                let value = match name {
                    SP_EL0 => self.sight.sp_el0,
                    TPIDR_EL1 => self.sight.tpidr_el1,
                    CNTVCT_EL0 => {
                        self.passed.time = true;
                        self.sight.counter
                    }
                    _ => return None,
                };
                self.set(field(word, 0, 5), value, true);
            }
            _ => return None,
        }
        Some(())
    }

    /// Loads of one register, and prefetches.
    fn memory(&mut self, word: u32) -> Option<()> {
        let (size, rt, rn) = (field(word, 30, 2), field(word, 0, 5), field(word, 5, 5));
        let base = self.x(rn);
        // Without its size.
        let address = match word & 0x3fff_ffff {
            // PRFM with an immediate, or a register.
            rest if size == 3 && matches!(rest & 0x3fc0_0000, 0x3980_0000) => return Some(()),
            // LDAR, LDXR and LDAXR, LDAPR.
            rest if matches!(
                rest & 0x3fff_fc00,
                0x08df_fc00 | 0x085f_7c00 | 0x085f_fc00 | 0x38bf_c000
            ) =>
            {
                base
            }
            // LDR with an immediate, LDUR, LDR with a register.
            rest if rest & 0x3fc0_0000 == 0x3940_0000 => {
                base.wrapping_add(u64::from(field(word, 10, 12)) << size)
            }
            rest if rest & 0x3fe0_0c00 == 0x3840_0000 => {
                base.wrapping_add(signed(field(word, 12, 9), 9))
            }
            rest if rest & 0x3fe0_0c00 == 0x3860_0800 && field(word, 14, 1) != 0 => {
                let index = self.x(field(word, 16, 5));
                let amount = if field(word, 12, 1) != 0 { size } else { 0 };
                base.wrapping_add(extended(index, field(word, 13, 3), amount))
            }
            _ => return None,
        };
        if rn == ZERO {
            return None;
        }
        let width = AccessWidth::from_sas(size.into());
        let (address, value) = self.load(1, address, width)?;
        self.note(Word {
            address,
            width,
            value,
        });
        self.set(rt, value, true);
        Some(())
    }

    /// Notes a word that was read.
    fn note(&mut self, word: Word) {
        let Some(words) = &mut self.passed.words else {
            return;
        };
        let is_known = |known: &Word| (known.address, known.width) == (word.address, word.width);
        if !words.iter().any(is_known) && words.push(word).is_err() {
            self.passed.words = None;
        }
    }
}
