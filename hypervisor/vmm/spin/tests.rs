//! Loops as compilers and kernels write them, assembled by LLVM, on a flat memory; and the walk of tables of each granule.

use super::{Doing, Sight, Word, look, tables::translate};
use crate::vm::context::Frame;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::Cell;
use types::access::AccessWidth;
use types::address::GuestPhys;

const CODE: u64 = 0x4008_0000;
const DATA: u64 = 0x4100_0040;
/// PSTATE of EL1h with interrupts masked.
const EL1: u64 = 0x3c5;

/// The wait for a word in Linux (`__cmpwait_case_32`) inside of `smp_cond_load_acquire`: until bits 7:0 of [x19] are zero.
const CMPWAIT: [u32; 11] = [
    0x88df_fe61, // ldar    w1, [x19]
    0x7200_1c3f, // tst     w1, #0xff
    0x5400_0120, // b.eq    out
    0xd503_20bf, // sevl
    0xd503_205f, // wfe
    0x885f_7e60, // ldxr    w0, [x19]
    0x4a01_0000, // eor     w0, w0, w1
    0x3500_0040, // cbnz    w0, 1f
    0xd503_205f, // wfe
    0x17ff_fff7, // 1: b    the first
    0xd65f_03c0, // out: ret
];

/// A guest's memory: words by address, everything else zero, and nothing outside of RAM.
#[derive(Default)]
struct Memory {
    words: BTreeMap<u64, u32>,
    reads: Cell<u32>,
}

impl Memory {
    fn with_code(code: &[u32]) -> Self {
        let mut memory = Self::default();
        for (index, word) in code.iter().enumerate() {
            memory.put(CODE + 4 * index as u64, *word);
        }
        memory
    }

    fn put(&mut self, at: u64, word: u32) {
        self.words.insert(at, word);
    }

    fn put_double(&mut self, at: u64, value: u64) {
        self.put(at, value as u32);
        self.put(at + 4, (value >> 32) as u32);
    }

    fn read(&self, at: GuestPhys, width: AccessWidth) -> Option<u64> {
        self.reads.set(self.reads.get() + 1);
        let at = at.get();
        let word = |at: u64| u64::from(self.words.get(&at).copied().unwrap_or(0));
        let value = word(at & !3) >> (8 * (at & 3)) | word((at & !3) + 4) << 32;
        (0x4000_0000..0x8000_0000)
            .contains(&at)
            .then_some(value & width.mask())
    }
}

/// Says what a vCPU does at an instruction of this code, with registers as given.
fn at(memory: &Memory, index: u64, registers: &[(usize, u64)]) -> Doing {
    let mut frame = Frame {
        pc: CODE + 4 * index,
        pstate: EL1,
        ..Frame::default()
    };
    for (register, value) in registers {
        frame.x[*register] = *value;
    }
    look(&frame, &Sight::default(), &|at, width| {
        memory.read(at, width)
    })
}

fn waits_for(words: &[(u64, AccessWidth, u64)]) -> Doing {
    let word = |&(address, width, value): &(u64, AccessWidth, u64)| Word {
        address: GuestPhys::new(address),
        width,
        value,
    };
    Doing::Waiting(words.iter().map(word).collect())
}

#[test]
fn wherever_in_the_wait_for_a_word_a_vcpu_stands_it_waits_for_it() {
    let mut memory = Memory::with_code(&CMPWAIT);
    memory.put(DATA, 0x105);
    for index in 0..10 {
        // What it has seen, and what the exclusive load left.
        let doing = at(&memory, index, &[(19, DATA), (1, 0x105), (0, 0)]);
        assert_eq!(
            doing,
            waits_for(&[(DATA, AccessWidth::Word, 0x105)]),
            "at {index}"
        );
    }
}

#[test]
fn a_vcpu_whose_word_has_changed_runs() {
    let mut memory = Memory::with_code(&CMPWAIT);
    memory.put(DATA, 0x100);
    for index in 0..10 {
        let doing = at(&memory, index, &[(19, DATA), (1, 0x105), (0, 0)]);
        assert_eq!(doing, Doing::Running, "at {index}");
    }
}

/// The word has changed to another one with which it waits too.
#[test]
fn a_vcpu_waits_for_what_it_would_see_now() {
    let mut memory = Memory::with_code(&CMPWAIT);
    memory.put(DATA, 0x107);
    let doing = at(&memory, 8, &[(19, DATA), (1, 0x105)]);
    assert_eq!(doing, waits_for(&[(DATA, AccessWidth::Word, 0x107)]));
}

#[test]
fn before_its_loop_a_vcpu_is_not_in_it() {
    let mut memory = Memory::with_code(&CMPWAIT);
    // x1 holds what is in memory, by chance: the first load says that it need not wait.
    memory.put(DATA, 0x300);
    let doing = at(&memory, 0, &[(19, DATA), (1, 0x300)]);
    assert_eq!(doing, Doing::Running);
}

/// The slow path of a ticket lock: the ticket in bits 31:16 of w2, the owner in a half word.
#[test]
fn a_ticket_lock_is_a_wait_for_its_owner() {
    let mut memory = Memory::with_code(&[
        0xd503_20bf, // sevl
        0xd503_205f, // wfe
        0x485f_fc05, // ldaxrh  w5, [x0]
        0x4a42_40a4, // eor     w4, w5, w2, lsr #16
        0x35ff_ffa4, // cbnz    w4, the wfe
        0xd65f_03c0, // ret
    ]);
    memory.put(DATA, 0x0007_0003);
    for index in 0..5 {
        let waiting = at(
            &memory,
            index,
            &[(0, DATA), (2, 0x0006_0000), (4, 5), (5, 3)],
        );
        assert_eq!(
            waiting,
            waits_for(&[(DATA, AccessWidth::Half, 3)]),
            "at {index}"
        );
    }
    memory.put(DATA, 0x0007_0006);
    assert_eq!(
        at(&memory, 1, &[(0, DATA), (2, 0x0006_0000)]),
        Doing::Running
    );
}

#[test]
fn a_loop_with_yield_that_reads_words_waits_for_them() {
    let mut memory = Memory::with_code(&[
        0xd503_203f, // yield
        0xf940_0293, // ldr     x19, [x20]
        0xb400_0093, // cbz     x19, out
        0x3940_2260, // ldrb    w0, [x19, #8]
        0x3707_ff80, // tbnz    w0, #0, the yield
        0xd503_201f, // nop
        0xd65f_03c0, // out: ret
    ]);
    memory.put_double(DATA, DATA + 0x100);
    memory.put(DATA + 0x108, 0xf1);
    let expected = [
        (DATA, AccessWidth::Double, DATA + 0x100),
        (DATA + 0x108, AccessWidth::Byte, 0xf1),
    ];
    let doing = at(&memory, 0, &[(20, DATA)]);
    assert_eq!(doing, waits_for(&expected));
    memory.put(DATA + 0x108, 0xf0);
    assert_eq!(at(&memory, 0, &[(20, DATA)]), Doing::Running);
}

#[test]
fn a_loop_without_a_hint_waits_too_if_it_reads_a_word() {
    let mut memory = Memory::with_code(&[
        0xb940_0001, // ldr     w1, [x0]
        0x6b02_003f, // cmp     w1, w2
        0x54ff_ffc1, // b.ne    the first
        0xd65f_03c0, // ret
    ]);
    memory.put(DATA, 4);
    let doing = at(&memory, 1, &[(0, DATA), (1, 4), (2, 9)]);
    assert_eq!(doing, waits_for(&[(DATA, AccessWidth::Word, 4)]));
    assert_eq!(at(&memory, 1, &[(0, DATA), (1, 4), (2, 4)]), Doing::Running);
}

#[test]
fn a_loop_that_reads_nothing_spins_if_it_gives_a_hint() {
    let spin = Memory::with_code(&[0xd503_203f, 0x17ff_ffff]);
    assert_eq!(at(&spin, 0, &[]), Doing::Spinning);
    // `b .`, and with an ISB as languages spin: what it does, it wants to.
    for code in [&[0x1400_0000][..], &[0xd503_3fdf, 0x17ff_ffff]] {
        assert_eq!(at(&Memory::with_code(code), 0, &[]), Doing::Running);
    }
}

#[test]
fn a_loop_that_counts_or_looks_at_the_time_spins() {
    let counts = Memory::with_code(&[
        0xd503_203f, // yield
        0xb940_0001, // ldr     w1, [x0]
        0x7100_0463, // subs    w3, w3, #1
        0x54ff_ffa1, // b.ne    the yield
    ]);
    assert_eq!(at(&counts, 0, &[(0, DATA), (3, 5000)]), Doing::Spinning);
    // __delay: until the counter is x2 behind x1.
    let delays = Memory::with_code(&[
        0xd503_203f, // yield
        0xd503_3fdf, // isb
        0xd53b_e040, // mrs     x0, cntvct_el0
        0xcb01_0000, // sub     x0, x0, x1
        0xeb02_001f, // cmp     x0, x2
        0x54ff_ff63, // b.lo    the yield
    ]);
    assert_eq!(at(&delays, 0, &[(1, 0), (2, 100)]), Doing::Spinning);
    assert_eq!(
        at(&delays, 3, &[(0, 200), (1, 0), (2, 100)]),
        Doing::Running
    );
}

#[test]
fn a_loop_that_counts_without_a_hint_runs() {
    // subs x0, x0, #1; b.ne .-4
    let counts = Memory::with_code(&[0xf100_0400, 0x54ff_ffe1]);
    assert_eq!(at(&counts, 0, &[(0, 1_000_000)]), Doing::Running);
}

#[test]
fn a_loop_that_stores_or_calls_the_firmware_runs() {
    for instruction in [
        0xb900_0001, // str     w1, [x0]
        0x8805_7c01, // stxr    w5, w1, [x0]
        0xd400_0002, // hvc     #0
        0xd503_207f, // wfi
        0xa9bf_7bfd, // stp     x29, x30, [sp, #-16]!
        0xd65f_0bff, // retaa
        0x0000_0000, // udf
    ] {
        let code = [0xd503_203f, 0xb940_0001, instruction, 0x17ff_fffd];
        let doing = at(&Memory::with_code(&code), 0, &[(0, DATA)]);
        assert_eq!(doing, Doing::Running, "{instruction:#x}");
    }
}

#[test]
fn more_words_than_can_be_watched_are_a_spin() {
    let loads: Vec<u32> = (0..5).map(|n| 0xb940_0001 | n << 10).collect();
    let code = [&[0xd503_203f], &loads[..], &[0x17ff_fffa]].concat();
    let doing = at(&Memory::with_code(&code), 0, &[(0, DATA)]);
    assert_eq!(doing, Doing::Spinning);
}

#[test]
fn what_lies_outside_of_ram_or_across_words_is_not_read() {
    // yield; ldr w1, [x0]; b .-8
    let memory = Memory::with_code(&[0xd503_203f, 0xb940_0001, 0x17ff_fffe]);
    for address in [0x0900_0000, DATA + 2, u64::MAX - 3] {
        assert_eq!(at(&memory, 0, &[(0, address)]), Doing::Running);
    }
    let nowhere = Frame {
        pc: 0x1000,
        pstate: EL1,
        ..Frame::default()
    };
    let read = |at, width| memory.read(at, width);
    assert_eq!(look(&nowhere, &Sight::default(), &read), Doing::Running);
}

#[test]
fn a_guest_of_32_bits_or_of_the_other_order_is_left_alone() {
    let memory = Memory::with_code(&[0xd503_203f, 0x17ff_ffff]);
    let mut frame = Frame {
        pc: CODE,
        pstate: EL1,
        ..Frame::default()
    };
    let read = |at, width| memory.read(at, width);
    let big = Sight {
        sctlr_el1: 1 << 25,
        ..Sight::default()
    };
    assert_eq!(look(&frame, &Sight::default(), &read), Doing::Spinning);
    assert_eq!(look(&frame, &big, &read), Doing::Running);
    frame.pstate = 0x10;
    assert_eq!(look(&frame, &Sight::default(), &read), Doing::Running);
}

/// One instruction by itself, and what it leaves in x0 and in NZCV; x1 and x2 as given.
#[test]
fn instructions_do_what_the_manual_says() {
    let (big, minus) = (0x8000_0000_0000_0000, u64::MAX);
    // The result is compared with x3 by a loop that waits only if they are equal: cmp x0, x3; b.eq .-8.
    for (instruction, x1, x2, result) in [
        (0x8b02_0c20, 1, 2, 17),                    // add     x0, x1, x2, lsl #3
        (0x0b02_0020, 0xffff_ffff, 2, 1),           // add     w0, w1, w2
        (0xcb02_0020, 1, 2, minus),                 // sub     x0, x1, x2
        (0x8b22_c020, 1, 0xffff_fffe, minus),       // add     x0, x1, w2, sxtw
        (0x8a22_0020, 0xff, 0x0f, 0xf0),            // bic     x0, x1, x2
        (0xca42_0420, 0, big, big >> 1),            // eor     x0, x1, x2, lsr #1
        (0x9240_0c20, 0x1234, 0, 4),                // and     x0, x1, #0xf
        (0xb200_c3e0, 0, 0, 0x0101_0101_0101_0101), // orr    x0, xzr, #0x0101010101010101
        (0xd37f_f820, big | 3, 0, 6),               // lsl     x0, x1, #1
        (0xd341_fc20, big | 3, 0, big >> 1 | 1),    // lsr     x0, x1, #1
        (0x9341_fc20, big, 0, big | big >> 1),      // asr     x0, x1, #1
        (0x1300_1c20, 0x80, 0, 0xffff_ff80),        // sxtb    w0, w1
        (0x5300_3c20, 0x12345, 0, 0x2345),          // uxth    w0, w1
        (0xd2a0_0020, 0, 0, 0x1_0000),              // movz    x0, #1, lsl #16
        (0x9280_0000, 0, 0, minus),                 // movn    x0, #0
        (0x9a82_0020, 7, 8, 8),                     // csel    x0, x1, x2, eq: Z is clear
        (0x9a82_1420, 7, 8, 7),                     // csinc   x0, x1, x2, ne
    ] {
        let code = [
            instruction,
            0xb940_0085, // ldr     w5, [x4]
            0xeb03_001f, // cmp     x0, x3
            0x54ff_ffc0, // b.eq    the load
            0xd400_0002, // hvc     #0
        ];
        let memory = Memory::with_code(&code);
        let registers = |x3| [(1, x1), (2, x2), (3, x3), (4, DATA)];
        let waits = waits_for(&[(DATA, AccessWidth::Word, 0)]);
        assert_eq!(
            at(&memory, 0, &registers(result)),
            waits,
            "{instruction:#x}"
        );
        let other = at(&memory, 0, &registers(result ^ 1));
        assert_eq!(other, Doing::Running, "{instruction:#x}");
    }
}

#[test]
fn conditions_follow_the_flags_of_a_comparison() {
    let minus = u64::MAX;
    // cmp x1, x2; then each condition: eq ne hs lo mi pl vs vc hi ls ge lt gt le.
    for (x1, x2, holds) in [
        (5, 5, 0b01_1010_1010_0101_u32),
        (6, 5, 0b01_0101_1010_0110),
        (5, 6, 0b10_1010_1001_1010),
        (minus, 1, 0b10_1001_1001_0110),
        (1 << 63, 1, 0b10_1001_0110_0110),
    ] {
        for condition in 0..14 {
            let code = [
                0xb940_0085,             // ldr     w5, [x4]
                0xeb02_003f,             // cmp     x1, x2
                0x54ff_ffc0 | condition, // b.cond  the load
                0xd400_0002,             // hvc     #0
            ];
            let doing = at(&Memory::with_code(&code), 0, &[(1, x1), (2, x2), (4, DATA)]);
            let met = matches!(doing, Doing::Waiting(_));
            let expected = match condition {
                0 => x1 == x2,
                1 => x1 != x2,
                2 => x1 >= x2,
                3 => x1 < x2,
                8 => x1 > x2,
                9 => x1 <= x2,
                10 => x1 as i64 >= x2 as i64,
                11 => (x1 as i64) < x2 as i64,
                12 => x1 as i64 > x2 as i64,
                13 => x1 as i64 <= x2 as i64,
                _ => holds >> condition & 1 != 0,
            };
            assert_eq!(met, expected, "condition {condition} of {x1:#x}, {x2:#x}");
        }
    }
}

#[test]
fn a_look_is_bounded_whatever_the_code_is() {
    // Branches from page to page, each of which has to be translated: b . + 4096.
    let mut memory = Memory::default();
    for page in 0..200 {
        memory.put(CODE + page * 4096, 0x1400_0400);
    }
    assert_eq!(at(&memory, 0, &[]), Doing::Running);
    assert!(memory.reads.get() <= 64, "{} reads", memory.reads.get());
}

/// Makes tables that map one page at `address` to `page`, in the half that begins at the top if `high`.
fn tables(granule: u32, width: u32, address: u64, page: u64, block: u32) -> (Memory, u64) {
    let mut memory = Memory::default();
    let stride = granule - 3;
    let levels = (width - granule).div_ceil(stride);
    let (root, mut table) = (0x4400_0000, 0x4400_0000);
    for level in (0..levels).rev() {
        let low = granule + level * stride;
        let high = (low + stride).min(width);
        let index = address >> low & ((1 << (high - low)) - 1);
        let last = level == block;
        let next = table + 0x10_0000;
        let entry = match (last, level) {
            (true, 0) => page | 3,
            (true, _) => page | 1,
            _ => next | 3,
        };
        memory.put_double(table + index * 8, entry | 1 << 54 | 0x700);
        if last {
            break;
        }
        table = next;
    }
    (memory, root)
}

#[test]
fn tables_of_every_granule_are_walked() {
    for (granule, tg0, tg1) in [(12, 0, 2), (14, 2, 1), (16, 1, 3)] {
        for width in [36, 39, 42, 47, 48] {
            for high in [false, true] {
                let offset = 0x12_3456_7678_u64 & ((1 << width) - 1);
                let address = match high {
                    true => offset | u64::MAX << width,
                    false => offset,
                };
                let page = 0x5ab0_0000;
                let (memory, root) = tables(granule, width, offset, page, 0);
                let size = u64::from(64 - width);
                let sight = Sight {
                    sctlr_el1: 1,
                    tcr_el1: size | size << 16 | tg0 << 14 | tg1 << 30,
                    ttbr0_el1: if high { 0 } else { root | 7 << 48 | 1 },
                    ttbr1_el1: if high { root } else { 0 },
                    ..Sight::default()
                };
                let found = translate(&sight, address, |at, width| memory.read(at, width));
                let expected = page | address & ((1 << granule) - 1);
                assert_eq!(
                    found,
                    Some(GuestPhys::new(expected)),
                    "{granule} {width} {high}"
                );
                let beside = translate(&sight, address ^ 1 << granule, |at, width| {
                    memory.read(at, width)
                });
                assert_eq!(beside, None, "{granule} {width} {high}");
                assert!(memory.reads.get() <= 8);
            }
        }
    }
}

#[test]
fn blocks_tags_and_what_is_off_are_understood() {
    let (memory, root) = tables(12, 39, 0x20_1234, 0x4820_0000, 1);
    let read = |at, width| memory.read(at, width);
    let sight = |tcr: u64| Sight {
        sctlr_el1: 1,
        tcr_el1: 25 | tcr,
        ttbr0_el1: root,
        ..Sight::default()
    };
    let there = Some(GuestPhys::new(0x4820_1234));
    assert_eq!(translate(&sight(0), 0x20_1234, read), there);
    let tagged = 0x5a00_0000_0020_1234;
    assert_eq!(translate(&sight(0), tagged, read), None);
    assert_eq!(translate(&sight(1 << 37), tagged, read), there);
    assert_eq!(translate(&sight(1 << 7), 0x20_1234, read), None, "EPD0");
    assert_eq!(translate(&sight(1 << 59), 0x20_1234, read), None, "LPA2");
    assert_eq!(translate(&sight(0x3f), 0x20_1234, read), None, "T0SZ");
    let off = Sight::default();
    assert_eq!(translate(&off, 0x1234, read), Some(GuestPhys::new(0x1234)));
    assert_eq!(translate(&off, tagged, read), None);
}
