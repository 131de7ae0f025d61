//! Why a guest was left: ESR_EL2 taken apart (Arm ARM D19.2.40).

use types::access::AccessWidth;

/// Exception classes that guests can cause at EL2.
pub mod class {
    /// Unknown reason.
    pub const UNKNOWN: u64 = 0x00;
    /// Trapped WFI or WFE.
    pub const WFX: u64 = 0x01;
    /// Access to the FP or SIMD registers.
    pub const FP: u64 = 0x07;
    /// HVC from AArch64.
    pub const HVC64: u64 = 0x16;
    /// SMC from AArch64.
    pub const SMC64: u64 = 0x17;
    /// MSR, MRS or system instruction.
    pub const SYSTEM: u64 = 0x18;
    /// Instruction abort from a lower exception level.
    pub const INSTRUCTION_ABORT: u64 = 0x20;
    /// Data abort from a lower exception level.
    pub const DATA_ABORT: u64 = 0x24;
}

/// A syndrome register's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syndrome(u64);

impl Syndrome {
    /// Names the value of ESR_EL2.
    #[inline]
    pub const fn new(esr: u64) -> Self {
        Self(esr)
    }

    /// Returns the whole register.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the exception class.
    #[inline]
    pub const fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    /// Returns the size of the trapped instruction in bytes: 2 only for a 16-bit one of T32 (ISS IL).
    #[inline]
    pub const fn instruction_bytes(self) -> u64 {
        2 + (self.0 >> 24 & 2)
    }

    /// Returns the immediate of an HVC or SMC.
    #[inline]
    pub const fn immediate(self) -> u64 {
        self.0 & 0xffff
    }

    /// Returns whether a trapped wait is WFIT or WFET.
    #[inline]
    pub const fn is_timed_wait(self) -> bool {
        self.0 & 2 != 0
    }

    /// Returns whether a trapped wait is WFI (and not WFE, WFIT or WFET).
    #[inline]
    pub const fn is_wfi(self) -> bool {
        self.0 & 3 == 0
    }
}

/// The ISS of a trapped MSR, MRS or system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess(u32);

/// Composes the part of the ISS that names a register: op0, op1, CRn, CRm, op2.
pub const fn system_register(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
}

impl SystemAccess {
    /// Bits that name the register.
    pub const REGISTER: u32 = system_register(3, 7, 15, 15, 7);
    /// Bits that name everything but CRm and op2.
    pub const GROUP: u32 = system_register(3, 7, 15, 0, 0);

    /// Takes the ISS out of a syndrome.
    #[inline]
    pub const fn new(syndrome: Syndrome) -> Self {
        Self(syndrome.0 as u32 & 0x1ff_ffff)
    }

    /// Returns the register's name as [`system_register`] composes it.
    #[inline]
    pub const fn register(self) -> u32 {
        self.0 & Self::REGISTER
    }

    /// Returns whether it reads a feature register: op0 3, op1 0, CRn 0, CRm 0 to 7.
    #[inline]
    pub const fn is_id_register_read(self) -> bool {
        const CRM_8: u32 = 8 << 1;
        const READ: u32 = 1;
        self.0 & (Self::GROUP | CRM_8 | READ) == system_register(3, 0, 0, 0, 0) | READ
    }

    /// Returns whether it is a read.
    #[inline]
    pub const fn is_read(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns the general register.
    #[inline]
    pub const fn rt(self) -> u32 {
        self.0 >> 5 & 0x1f
    }

    /// Returns CRm.
    #[inline]
    pub const fn crm(self) -> u32 {
        self.0 >> 1 & 0xf
    }

    /// Returns op2.
    #[inline]
    pub const fn op2(self) -> u32 {
        self.0 >> 17 & 7
    }
}

/// The ISS of a data or instruction abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort(u64);

impl Abort {
    /// Takes the ISS out of a syndrome.
    #[inline]
    pub const fn new(syndrome: Syndrome) -> Self {
        Self(syndrome.0 & 0x1ff_ffff)
    }

    /// Returns whether it is a translation fault, at any level.
    #[inline]
    pub const fn is_translation_fault(self) -> bool {
        self.0 & 0x3c == 0x04
    }

    /// Returns whether the hardware has described the access (ISV): its register, width and extension.
    #[inline]
    pub const fn is_described(self) -> bool {
        self.0 & 1 << 24 != 0
    }

    /// Returns whether a described access may be one of a device register: a translation fault of neither a cache
    /// operation nor a table walk.
    #[inline]
    pub const fn is_device_access(self) -> bool {
        self.0 & (1 << 8 | 1 << 7 | 0x3c) == 0x04
    }

    /// Returns whether it was a cache maintenance instruction.
    #[inline]
    pub const fn is_cache_maintenance(self) -> bool {
        self.0 & 1 << 8 != 0
    }

    /// Returns whether it was a stage-1 table walk.
    #[inline]
    pub const fn is_table_walk(self) -> bool {
        self.0 & 1 << 7 != 0
    }

    /// Returns whether it was a write.
    #[inline]
    pub const fn is_write(self) -> bool {
        self.0 & 1 << 6 != 0
    }

    /// Returns the width of a plain access.
    #[inline]
    pub const fn width(self) -> AccessWidth {
        AccessWidth::from_sas(self.0 >> 22)
    }

    /// Returns the general register of a plain access.
    #[inline]
    pub const fn rt(self) -> u32 {
        (self.0 >> 16) as u32 & 0x1f
    }

    /// Extends a value that was read as the instruction asks: sign (SSE) and register width (SF).
    #[inline]
    pub const fn extend(self, value: u64) -> u64 {
        let sign_extend = self.0 & 1 << 21 != 0;
        if !sign_extend {
            return value;
        }
        let unused = 64 - 8 * self.width().bytes();
        let wide = ((value << unused) as i64 >> unused) as u64;
        if self.0 & 1 << 15 != 0 {
            wide
        } else {
            wide & 0xffff_ffff
        }
    }
}

impl Abort {
    /// Turns the bytes of a plain access round: a register's low bytes from the guest's order to a device's, or back.
    pub const fn reversed(self, value: u64) -> u64 {
        value.swap_bytes() >> (64 - 8 * self.width().bytes())
    }
}

/// SCTLR_EL1.EE and E0E: data is big-endian at EL1, at EL0 (Arm ARM D19.2.118). The vectors send aborts under them a longer way.
///
/// Not so an AArch32 program's that has only said SETEND: it reaches devices in little-endian order.
pub const BIG_ENDIAN_DATA: u64 = SCTLR_EE | SCTLR_E0E;
const SCTLR_EE: u64 = 1 << 25;
const SCTLR_E0E: u64 = 1 << 24;
/// PSTATE of AArch32: the state itself (M[4]), and its order of data (E), which SETEND changes (Arm ARM G8.2.33).
const AARCH32: u64 = 1 << 4;
const AARCH32_E: u64 = 1 << 9;
/// PSTATE.IT: its upper six bits and its lower two (Arm ARM C5.2.20).
const IT_HIGH: u64 = 0x3f << 10;
const IT_LOW: u64 = 3 << 25;
/// PSTATE.M's level.
const LEVEL: u64 = 3 << 2;

/// Returns whether an instruction trapped from AArch32.
#[inline]
pub const fn is_aarch32(pstate: u64) -> bool {
    pstate & AARCH32 != 0
}

/// Returns the PSTATE behind an instruction of AArch32 that is stepped over: it counts in its IT block (Arm ARM F2.3, ITAdvance).
///
/// Outside of a block, and in A32, PSTATE.IT is 0 and stays so.
#[must_use]
pub const fn behind_aarch32(pstate: u64) -> u64 {
    let it = (pstate & IT_HIGH) >> 8 | (pstate & IT_LOW) >> 25;
    let goes_on = (it & 7 != 0) as u64;
    let it = goes_on * (it & 0xe0 | it << 1 & 0x1f);
    pstate & !(IT_HIGH | IT_LOW) | it << 8 & IT_HIGH | it << 25 & IT_LOW
}

/// Returns whether an instruction that trapped from this PSTATE accesses data in big-endian order.
pub const fn is_big_endian(pstate: u64, sctlr: u64) -> bool {
    if pstate & AARCH32 != 0 {
        pstate & AARCH32_E != 0
    } else if pstate & LEVEL == 0 {
        sctlr & SCTLR_E0E != 0
    } else {
        sctlr & SCTLR_EE != 0
    }
}

/// Composes the guest address of an abort from HPFAR_EL2 and FAR_EL2 (Arm ARM D19.2.53).
#[inline]
pub const fn fault_address(hpfar: u64, far: u64) -> u64 {
    const OFFSET: u64 = 0xfff;
    hpfar << 8 & !OFFSET | far & OFFSET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_syndrome_of_a_32_bit_load_decodes() {
        // Measured with Linux's AML: a 32-bit read into x3.
        let abort = Abort::new(Syndrome::new(0x9383_0006));
        assert_eq!(Syndrome::new(0x9383_0006).class(), class::DATA_ABORT);
        assert!(abort.is_device_access() && abort.is_described() && !abort.is_write());
        assert_eq!((abort.width(), abort.rt()), (AccessWidth::Word, 3));
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        let isv = 1 << 24;
        let (byte, signed, wide) = (0, 1 << 21, 1 << 15);
        assert_eq!(Abort(isv | byte).extend(0x80), 0x80);
        assert_eq!(Abort(isv | byte | signed).extend(0x80), 0xffff_ff80);
        assert_eq!(
            Abort(isv | byte | signed | wide).extend(0x80),
            0xffff_ffff_ffff_ff80
        );
        assert_eq!(Abort(isv | byte | signed).extend(0x7f), 0x7f);
    }

    #[test]
    fn a_device_access_is_a_described_translation_fault() {
        let plain = 1 << 24 | 0x06;
        assert!(Abort(plain).is_device_access());
        for (name, iss) in [
            ("permission fault", plain ^ 0x08),
            ("access flag fault", plain ^ 0x0c),
            ("external abort", 1 << 24 | 0x10),
            ("cache maintenance", plain | 1 << 8),
            ("table walk", plain | 1 << 7),
        ] {
            assert!(!Abort(iss).is_device_access(), "{name}");
        }
        for iss in 0..1 << 9 {
            let abort = Abort(1 << 24 | iss);
            let is_plain = !abort.is_cache_maintenance() && !abort.is_table_walk();
            let both = abort.is_translation_fault() && is_plain;
            assert_eq!(abort.is_device_access(), both, "{iss:#x}");
        }
    }

    #[test]
    fn bytes_are_turned_round_within_the_width() {
        let sizes = [
            (0, 0x88),
            (1, 0x8877),
            (2, 0x8877_6655),
            (3, 0x8877_6655_4433_2211),
        ];
        for (sas, expected) in sizes {
            let abort = Abort(1 << 24 | sas << 22);
            assert_eq!(abort.reversed(0x1122_3344_5566_7788), expected);
            assert_eq!(abort.reversed(abort.reversed(expected)), expected);
        }
    }

    #[test]
    fn the_order_of_data_is_that_of_the_level_and_the_state() {
        // PSTATE: EL1h, EL1t, EL0, AArch32 EL0 with E clear and set.
        for (pstate, orders) in [
            (0x3c5, [false, false, true, true]),
            (0x3c4, [false, false, true, true]),
            (0x000, [false, true, false, true]),
            (0x010, [false; 4]),
            (0x210, [true; 4]),
        ] {
            let sctlr = [0, SCTLR_E0E, SCTLR_EE, BIG_ENDIAN_DATA];
            assert_eq!(
                sctlr.map(|sctlr| is_big_endian(pstate, sctlr)),
                orders,
                "{pstate:#x}"
            );
        }
    }

    #[test]
    fn an_it_block_counts_its_instructions() {
        let pstate = |it: u64| 0x8000_0030 | (it & 0xfc) << 8 | (it & 3) << 25;
        // ITE NE from its first instruction to its end; ITTTT with its mask running out; no block.
        for (before, after) in [
            (0x14, 0x08),
            (0x08, 0x00),
            (0xe1, 0xe2),
            (0xe2, 0xe4),
            (0xe4, 0xe8),
            (0xe8, 0x00),
            (0x1f, 0x1e),
            (0, 0),
        ] {
            let found = behind_aarch32(pstate(before));
            assert_eq!(found, pstate(after), "{before:#x}");
        }
    }

    #[test]
    fn a_16_bit_instruction_has_two_bytes() {
        let bytes = |esr| Syndrome::new(esr).instruction_bytes();
        assert_eq!((bytes(0x9000_0000), bytes(0x9200_0000)), (2, 4));
    }

    #[test]
    fn a_fault_address_has_its_page_offset_from_far() {
        assert_eq!(
            fault_address(0x0000_0000_0009_0000, 0xffff_8000_0000_1018),
            0x0900_0018
        );
    }

    #[test]
    fn register_names_survive_the_syndrome() {
        let name = system_register(3, 0, 12, 11, 5);
        let access = SystemAccess::new(Syndrome::new(
            class::SYSTEM << 26 | u64::from(name) | 7 << 5,
        ));
        assert_eq!(
            (access.register(), access.rt(), access.is_read()),
            (name, 7, false)
        );
    }
}
