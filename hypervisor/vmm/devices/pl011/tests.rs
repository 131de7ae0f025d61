//! The UART as drivers drive it.

extern crate std;

use super::Uart;
use crate::devices::tests::{Board, Effect};
use crate::devices::{Fed, Work};
use proptest::prelude::*;
use std::{collections::VecDeque, vec::Vec};
use types::access::AccessWidth;
use types::pl011::{
    CR, CR_LBE, DMACR, DR, FBRD, FR, FR_BUSY, FR_RXFE, FR_RXFF, FR_TXFE, FR_TXFF, IBRD, ICR, IFLS,
    ILPR, IMSC, INT_RT, INT_RX, INT_TX, LCR_H, LCR_H_FEN, MIS, RIS, RSR_ECR,
};

type Pl011 = Board<Uart>;

impl Board<Uart> {
    fn rx_room(&self) -> bool {
        self.device.0.0.lock().rx_room()
    }

    fn flags(&self) -> u32 {
        self.device.0.0.lock().flags()
    }

    fn has_transmit(&self) -> bool {
        self.device.0.0.lock().has_transmit()
    }

    fn receive(&mut self, byte: u8) -> Effect {
        let room = self.rx_room();
        let (fed, line) = self.step(|uart, around| uart.feed(around, || Some(byte)));
        assert_eq!(fed, if room { Fed::Byte } else { Fed::Full });
        Effect { line, work: None }
    }

    fn pop_transmit(&mut self) -> Option<(u8, Option<bool>)> {
        let (byte, line) = self.step(|uart, around| uart.take(around));
        byte.map(|byte| (byte, line))
    }
}

fn get(uart: &mut Pl011, offset: u64) -> u32 {
    uart.read(offset, AccessWidth::Word, 0).value as u32
}

fn set(uart: &mut Pl011, offset: u64, value: u32) -> Effect {
    uart.write(offset, AccessWidth::Word, u64::from(value), 0)
}

fn drain(uart: &mut Pl011) -> Vec<u8> {
    core::iter::from_fn(|| uart.pop_transmit().map(|(byte, _)| byte)).collect()
}

#[test]
fn registers_at_reset_and_what_of_a_write_they_keep() {
    let cases = [
        (RSR_ECR, 0, 0),
        (ILPR, 0, 0xff),
        (IBRD, 0, 0xffff),
        (FBRD, 0, 0x3f),
        (LCR_H, 0x70, 0xff),
        (CR, 0x301, 0xff87),
        (IFLS, 0x12, 0x3f),
        (IMSC, 0, 0x7ff),
        (RIS, 0, 0),
        (MIS, 0, 0),
        (ICR, 0, 0),
        (DMACR, 0, 7),
        (0x00c, 0, 0),
        (0x080, 0, 0),
        (0xfdc, 0, 0),
        (0xfe0, 0x11, 0x11),
        (0xffc, 0xb1, 0xb1),
    ];
    for (offset, reset, written) in cases {
        let mut uart = Pl011::new();
        assert_eq!(get(&mut uart, offset), reset, "reset value of {offset:#x}");
        let _ = set(&mut uart, offset, u32::MAX);
        assert_eq!(
            get(&mut uart, offset),
            written,
            "{offset:#x} after writing ones"
        );
        uart.reset();
        assert_eq!(get(&mut uart, offset), reset, "{offset:#x} after a reset");
    }
    assert_eq!(get(&mut Pl011::new(), FR), 0x90);
}

#[test]
fn revision_says_fifos_of_32_to_the_amba_bus() {
    let mut uart = Pl011::new();
    let id = (0..4)
        .map(|n| get(&mut uart, 0xfe0 + 4 * n) << (8 * n))
        .sum::<u32>();
    assert_eq!(id & 0x000f_ffff, 0x0004_1011, "what Linux matches");
    assert!(
        id >> 20 & 0xf >= 3,
        "below revision 3 Linux believes in FIFOs of 16"
    );
}

#[test]
fn odd_widths_and_offsets_read_zero_and_change_nothing() {
    let mut uart = Pl011::new();
    let _ = uart.receive(b'x');
    for (offset, width) in [
        (DR, AccessWidth::Double),
        (DR + 1, AccessWidth::Byte),
        (DR + 2, AccessWidth::Half),
        (1 << 40, AccessWidth::Word),
    ] {
        assert_eq!(
            uart.read(offset, width, 0).value,
            0,
            "{offset:#x} {width:?}"
        );
        assert_eq!(
            uart.write(offset, width, u64::MAX, 0),
            Effect::NONE,
            "{offset:#x} {width:?}"
        );
    }
    assert_eq!(
        get(&mut uart, DR),
        u32::from(b'x'),
        "no odd access took the character"
    );
    for width in [AccessWidth::Byte, AccessWidth::Half, AccessWidth::Word] {
        assert_eq!(uart.read(FR, width, 0).value, 0x90);
        assert_eq!(uart.write(DR, width, 0x141, 0).work, Some(Work::Show));
        assert_eq!(uart.pop_transmit().map(|(byte, _)| byte), Some(0x41));
    }
}

#[test]
fn a_byte_sent_leaves_in_order_and_shows_in_the_flags() {
    let mut uart = Pl011::new();
    for byte in 0..32u8 {
        assert_eq!(get(&mut uart, FR) & FR_TXFF, 0);
        assert_eq!(set(&mut uart, DR, u32::from(byte)).work, Some(Work::Show));
    }
    assert_eq!(get(&mut uart, FR), FR_TXFF | FR_BUSY | FR_RXFE);
    let _ = set(&mut uart, DR, 0xff);
    assert_eq!(
        drain(&mut uart),
        (0..32).collect::<Vec<u8>>(),
        "the byte beyond TXFF is the guest's own loss"
    );
    assert_eq!(get(&mut uart, FR), FR_TXFE | FR_RXFE);
}

#[test]
fn transmit_interrupt_comes_when_the_fifo_falls_to_its_level() {
    let mut uart = Pl011::new();
    assert_eq!(
        set(&mut uart, IMSC, INT_TX).line,
        None,
        "an idle transmitter has nothing to report before the first byte"
    );
    for byte in 0..20 {
        assert_eq!(set(&mut uart, DR, byte).line, None);
    }
    let moves: Vec<_> = core::iter::from_fn(|| uart.pop_transmit().map(|(_, line)| line)).collect();
    assert_eq!(
        moves.iter().position(|line| *line == Some(true)),
        Some(3),
        "20 bytes fall to 16 with the fourth"
    );
    assert_eq!(moves.iter().flatten().count(), 1);
    assert_eq!(get(&mut uart, MIS), INT_TX);
    assert_eq!(set(&mut uart, ICR, INT_TX).line, Some(false));
    for byte in 0..17 {
        let _ = set(&mut uart, DR, byte);
    }
    let _ = uart.pop_transmit();
    assert_eq!(get(&mut uart, RIS), INT_TX);
    assert_eq!(
        set(&mut uart, DR, 0).line,
        Some(false),
        "filled above the level again"
    );
}

#[test]
fn received_bytes_interrupt_until_the_fifo_is_empty() {
    let mut uart = Pl011::new();
    let _ = set(&mut uart, IMSC, INT_RX | INT_RT);
    assert_eq!(
        uart.receive(b'a').line,
        Some(true),
        "the time-out counts as over at once"
    );
    assert_eq!(uart.receive(b'b').line, None);
    assert_eq!(get(&mut uart, MIS), INT_RT);
    assert_eq!(uart.read(DR, AccessWidth::Word, 0).value, u64::from(b'a'));
    assert!(uart.line(), "a character is left");
    let last = uart.read(DR, AccessWidth::Word, 0);
    assert_eq!((last.value, last.line), (u64::from(b'b'), Some(false)));
    assert_eq!(
        uart.read(DR, AccessWidth::Word, 0).value,
        0,
        "an empty FIFO reads zero"
    );
}

#[test]
fn clearing_the_timeout_cannot_lose_characters() {
    let mut uart = Pl011::new();
    let _ = uart.receive(b'a');
    let _ = uart.receive(b'b');
    let _ = uart.receive(b'c');
    let _ = set(&mut uart, ICR, INT_RT | INT_RX);
    assert_eq!(set(&mut uart, IMSC, INT_RT).line, None);
    assert_eq!(
        uart.read(DR, AccessWidth::Word, 0).line,
        Some(true),
        "two are left"
    );
    let _ = set(&mut uart, ICR, INT_RT);
    assert_eq!(uart.receive(b'd').line, Some(true), "a new one tells");
}

#[test]
fn receive_level_follows_ifls() {
    for (field, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28), (5, 16), (7, 16)] {
        let mut uart = Pl011::new();
        let _ = set(&mut uart, IFLS, field << 3);
        for n in 1..=32u32 {
            let _ = uart.receive(0);
            assert_eq!(
                get(&mut uart, RIS) & INT_RX != 0,
                n >= level,
                "field {field}, {n} received"
            );
        }
        for n in (0..32u32).rev() {
            let _ = get(&mut uart, DR);
            assert_eq!(
                get(&mut uart, RIS) & INT_RX != 0,
                n >= level,
                "field {field}, {n} left"
            );
        }
    }
}

#[test]
fn full_fifo_refuses_instead_of_losing() {
    let mut uart = Pl011::new();
    for byte in 0..32 {
        assert!(uart.rx_room());
        let _ = uart.receive(byte);
    }
    assert!(!uart.rx_room());
    assert_eq!(get(&mut uart, FR) & FR_RXFF, FR_RXFF);
    assert_eq!(uart.receive(99), Effect::NONE);
    let read: Vec<u32> = (0..32).map(|_| get(&mut uart, DR)).collect();
    assert_eq!(read, (0..32).collect::<Vec<u32>>());
}

#[test]
fn without_fifos_one_character_fits_and_toggling_flushes() {
    let mut uart = Pl011::new();
    let _ = uart.receive(1);
    let _ = uart.receive(2);
    let _ = set(&mut uart, IMSC, INT_RT | INT_RX);
    assert_eq!(set(&mut uart, LCR_H, 0x60).line, Some(false), "flushed");
    assert_eq!(get(&mut uart, FR), FR_RXFE | FR_TXFE);
    let _ = uart.receive(3);
    assert!(!uart.rx_room());
    assert_eq!(get(&mut uart, MIS), INT_RX | INT_RT);
    let _ = set(&mut uart, DR, 0x41);
    assert_eq!(get(&mut uart, FR) & FR_TXFF, FR_TXFF);
    let _ = set(&mut uart, LCR_H, 0x60 | LCR_H_FEN);
    assert_eq!(drain(&mut uart), [0x41], "what was sent still leaves");
    assert_eq!(get(&mut uart, FR), FR_RXFE | FR_TXFE);
}

#[test]
fn loopback_returns_what_is_sent() {
    let mut uart = Pl011::new();
    let _ = set(&mut uart, CR, 0x301 | CR_LBE);
    assert_eq!(set(&mut uart, DR, 0x55).work, None);
    assert_eq!(get(&mut uart, RIS), INT_RT | INT_TX);
    assert_eq!(get(&mut uart, DR), 0x55);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, u64),
    Write(u64, u64, u64),
    Receive(u8),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = || prop_oneof![4 => (0u64..0x50).prop_map(|word| word & !3), 1 => any::<u64>()];
    prop_oneof![
        (offset(), 0u64..4).prop_map(|(offset, width)| Step::Read(offset, width)),
        (offset(), 0u64..4, any::<u64>())
            .prop_map(|(offset, width, value)| Step::Write(offset, width, value)),
        any::<u8>().prop_map(Step::Receive),
        Just(Step::Pop),
    ]
}

proptest! {
    /// Whatever a guest does: no panic, every move of the line is told, the line is MIS, and the flags agree with each other.
    #[test]
    fn line_moves_are_all_told(steps in proptest::collection::vec(step(), 1..100)) {
        let mut uart = Pl011::new();
        let mut line = false;
        for step in steps {
            let moved = match step {
                Step::Read(offset, width) => uart.read(offset, AccessWidth::from_sas(width), 0).line,
                Step::Write(offset, width, value) => uart.write(offset, AccessWidth::from_sas(width), value, 0).line,
                Step::Receive(byte) => uart.receive(byte).line,
                Step::Pop => uart.pop_transmit().and_then(|(_, line)| line),
            };
            if let Some(level) = moved {
                prop_assert_ne!(level, line, "a move is a change");
                line = level;
            }
            prop_assert_eq!(line, uart.line());
            prop_assert_eq!(line, get(&mut uart, MIS) != 0);
            let flags = uart.flags();
            prop_assert!(flags & FR_RXFE == 0 || flags & FR_RXFF == 0);
            prop_assert!(flags & FR_TXFE == 0 || flags & (FR_TXFF | FR_BUSY) == 0);
            prop_assert_eq!(uart.has_transmit(), flags & FR_TXFE == 0);
        }
    }

    /// Bytes accepted while there was room arrive complete and in order, in both directions.
    #[test]
    fn bytes_arrive_in_order(script in proptest::collection::vec((0u8..4, any::<u8>()), 1..200)) {
        let mut uart = Pl011::new();
        let (mut inbound, mut outbound) = (VecDeque::new(), VecDeque::new());
        for (what, byte) in script {
            match what {
                0 if uart.rx_room() => {
                    inbound.push_back(byte);
                    let _ = uart.receive(byte);
                }
                1 if uart.flags() & FR_TXFF == 0 => {
                    outbound.push_back(byte);
                    let _ = set(&mut uart, DR, u32::from(byte));
                }
                2 if uart.flags() & FR_RXFE == 0 => prop_assert_eq!(Some(get(&mut uart, DR) as u8), inbound.pop_front()),
                3 => prop_assert_eq!(uart.pop_transmit().map(|(byte, _)| byte), outbound.pop_front()),
                _ => {}
            }
        }
    }
}
