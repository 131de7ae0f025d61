//! Each kind of UART against a fake that keeps its manual's rules, written down a second time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use super::*;

/// What a fake has besides plain registers.
#[derive(Default)]
struct State {
    plain: BTreeMap<u16, u32>,
    received: VecDeque<u8>,
    sent: Vec<u8>,
    /// How many more bytes there is room for.
    room: usize,
    /// A character time-out without a cause, and a setting made while busy.
    silent: bool,
    busy: bool,
    /// What was told of and not acknowledged yet, as bits of the kind's status: received bytes, room to send.
    told: u32,
}

/// A UART whose rules these functions hold.
struct Fake {
    read: fn(&mut State, u16) -> u32,
    write: fn(&mut State, u16, u32),
    /// Whether its interrupt is asserted.
    interrupts: fn(&State) -> bool,
    state: RefCell<State>,
}

impl Registers for Fake {
    fn read(&self, register: u16) -> u32 {
        (self.read)(&mut self.state.borrow_mut(), register)
    }

    fn write(&self, register: u16, value: u32) {
        (self.write)(&mut self.state.borrow_mut(), register, value);
    }
}

impl State {
    fn get(&self, register: u16) -> u32 {
        self.plain.get(&register).copied().unwrap_or(0)
    }

    fn push(&mut self, value: u32) {
        assert!(self.room > 0, "a byte is lost: there was no room");
        self.room -= 1;
        self.sent.push(value as u8);
    }

    fn pop(&mut self) -> u32 {
        u32::from(self.received.pop_front().expect("nothing was received"))
    }

    /// Returns a bit each for a byte that came and for room, as two masks want them.
    fn flags(&self, came: u32, room: u32) -> u32 {
        let bit = |holds: bool, mask| if holds { mask } else { 0 };
        bit(!self.received.is_empty(), came) | bit(self.room > 0, room)
    }
}

fn pl011_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0 => state.pop(),
            0x18 => !state.flags(0x10, 0x20) & 0x30,
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0 => state.push(value),
            0x18 => panic!("UARTFR is read-only"),
            _ => drop(state.plain.insert(register, value)),
        },
        interrupts: |state| {
            // RXRIS or RTRIS, and TXRIS.
            let raw = state.flags(0x50, 0x20);
            state.get(0x30) & 0x201 == 0x201 && raw & state.get(0x38) != 0
        },
        state: RefCell::default(),
    }
}

fn ns16550_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0 | 1 if state.get(3) & 0x80 != 0 => {
                panic!("the divisor latch is in the place of data")
            }
            0 if state.silent => {
                state.silent = false;
                0
            }
            0 => state.pop(),
            2 if state.busy => 0xc7,
            2 if state.silent => 0xcc,
            2 => 0xc1,
            5 => state.flags(1, 0x20),
            0x1f => {
                state.busy = false;
                0
            }
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0 | 1 if state.get(3) & 0x80 != 0 => {
                panic!("the divisor latch is in the place of data")
            }
            0 => state.push(value),
            2 => assert_eq!(value & 0b110, 0, "FIFOs are emptied"),
            5 => panic!("LSR is for factory tests"),
            _ => drop(state.plain.insert(register, value & 0xff)),
        },
        interrupts: |state| {
            let raw = state.flags(1, 2) | u32::from(state.silent);
            state.busy || state.get(4) & 8 != 0 && raw & state.get(1) != 0
        },
        state: RefCell::default(),
    }
}

fn bcm2835_aux_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0 | 4 if state.get(0xc) & 0x80 != 0 => panic!("DLAB gives access to the baud register"),
            0 => state.pop(),
            0x14 => state.flags(1, 0x20),
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0 | 4 if state.get(0xc) & 0x80 != 0 => panic!("DLAB gives access to the baud register"),
            0 => state.push(value),
            _ => drop(state.plain.insert(register, value)),
        },
        interrupts: |state| {
            let is_on = state.get(0x20) & 3 == 3 && state.get(0xc) & 3 == 3;
            is_on && state.get(4) & 0b1100 == 0b1100 && state.flags(1, 2) & state.get(4) != 0
        },
        state: RefCell::default(),
    }
}

fn cadence_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0x30 => {
                // What has been told of stays so when the byte is gone.
                state.told |= state.flags(1, 8);
                state.pop()
            }
            0x2c => !state.flags(2, 0x10) & 0x12,
            0x08 | 0x0c => panic!("write-only"),
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0x30 => state.push(value),
            0x08 => *state.plain.entry(0x10).or_default() |= value,
            0x0c => *state.plain.entry(0x10).or_default() &= !value,
            0x10 => panic!("Intrpt_mask is read-only"),
            0x14 => state.told = state.told & !value | state.flags(1, 8),
            _ => drop(state.plain.insert(register, value)),
        },
        interrupts: |state| {
            // RTRIG and TEMPTY stay until they are acknowledged, and come again while there is a byte, or room.
            let status = state.told | state.flags(1, 8);
            let is_on = state.get(0) & 0b11_1100 == 0b01_0100 && state.get(0x20) == 1;
            is_on && status & state.get(0x10) != 0
        },
        state: RefCell::default(),
    }
}

fn imx_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0 => state.pop() | 1 << 15,
            0x40 => panic!("UTXD is write-only"),
            0xb4 => !state.flags(0x20, 0x10) & 0x30,
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0 => panic!("URXD is read-only"),
            0x40 => state.push(value),
            0x84 => {
                assert_ne!(value & 1, 0, "SRST: the UART is reset");
                state.plain.insert(register, value);
            }
            _ => drop(state.plain.insert(register, value)),
        },
        interrupts: |state| {
            let is_on = state.get(0x80) & 1 != 0 && state.get(0x84) & 6 == 6;
            is_on
                && state.get(0x90) & 0x3f == 1
                && state.flags(1 << 9, 1 << 13) & state.get(0x80) != 0
        },
        state: RefCell::default(),
    }
}

fn meson_fake() -> Fake {
    Fake {
        read: |state, register| match register {
            0 => panic!("the write FIFO cannot be read"),
            4 => state.pop(),
            0xc => !state.flags(1 << 20, 1 << 21) & 3 << 20,
            _ => state.get(register),
        },
        write: |state, register, value| match register {
            0 => state.push(value),
            4 | 0xc => panic!("read-only"),
            _ => drop(state.plain.insert(register, value)),
        },
        interrupts: |state| {
            let is_on = state.get(8) & 3 << 12 == 3 << 12 && state.get(0x10) & 0xffff == 0x2001;
            is_on && state.flags(1 << 27, 1 << 28) & state.get(8) != 0
        },
        state: RefCell::default(),
    }
}

/// All kinds with their fakes, as a firmware may have left them: interrupts asked for, a divisor latch open.
fn all() -> [(&'static Model, Fake); 6] {
    let left = |fake: Fake, registers: &[(u16, u32)]| {
        fake.state
            .borrow_mut()
            .plain
            .extend(registers.iter().copied());
        fake
    };
    [
        (&PL011, left(pl011_fake(), &[(0x38, 0x7f0)])),
        (&NS16550, left(ns16550_fake(), &[(1, 0xf), (3, 3)])),
        (&BCM2835_AUX, left(bcm2835_aux_fake(), &[(4, 0xf)])),
        (&CADENCE, left(cadence_fake(), &[(0, 0x28), (0x10, 0x1fff)])),
        (&IMX, left(imx_fake(), &[(0x84, 0x4021), (0x90, 0x0a1f)])),
        (&MESON, left(meson_fake(), &[(8, 3 << 27), (0x10, 0x8020)])),
    ]
}

#[test]
fn bytes_go_and_come_by_the_rules_of_every_kind() {
    for (model, fake) in all() {
        model.start(&fake);
        assert!(!model.has_byte(&fake) && model.is_full(&fake), "{model:?}");
        fake.state.borrow_mut().room = 1;
        assert!(!model.is_full(&fake), "{model:?}");
        model.send(&fake, b'!');
        assert!(model.is_full(&fake), "{model:?}");
        fake.state.borrow_mut().received.extend(*b"ok");
        assert!(model.has_byte(&fake), "{model:?}");
        let bytes = [model.take(&fake), model.take(&fake)];
        assert_eq!(
            (&bytes, fake.state.borrow().sent.as_slice()),
            (b"ok", &b"!"[..]),
            "{model:?}"
        );
        assert!(!model.has_byte(&fake), "{model:?}");
    }
}

#[test]
fn interrupts_come_for_what_was_asked_and_for_nothing_else() {
    for (model, fake) in all() {
        let comes = || (fake.interrupts)(&fake.state.borrow());
        model.start(&fake);
        fake.state.borrow_mut().room = 1;
        fake.state.borrow_mut().received.push_back(b'x');
        assert!(!comes(), "nobody asked: {model:?}");
        model.ask(&fake, Reason::Receive, true);
        assert!(comes(), "{model:?}");
        model.take(&fake);
        assert!(!model.has_byte(&fake), "{model:?}");
        assert!(
            !comes(),
            "there is room, which was not asked for: {model:?}"
        );
        model.ask(&fake, Reason::Transmit, true);
        assert!(comes(), "{model:?}");
        model.ask(&fake, Reason::Transmit, false);
        fake.state.borrow_mut().received.push_back(b'x');
        assert!(comes(), "receiving goes on: {model:?}");
        model.ask(&fake, Reason::Receive, false);
        assert!(!comes(), "{model:?}");
    }
}

#[test]
fn what_was_told_of_is_over_when_it_is_no_longer_so() {
    let fake = cadence_fake();
    CADENCE.start(&fake);
    CADENCE.ask(&fake, Reason::Receive, true);
    fake.state.borrow_mut().received.push_back(b'x');
    CADENCE.take(&fake);
    assert!((fake.interrupts)(&fake.state.borrow()), "not looked again");
    assert!(!CADENCE.has_byte(&fake));
    assert!(!(fake.interrupts)(&fake.state.borrow()));
    CADENCE.ask(&fake, Reason::Transmit, true);
    fake.state.borrow_mut().told = 8;
    assert!(CADENCE.is_full(&fake));
    assert!(!(fake.interrupts)(&fake.state.borrow()), "it is full");
}

#[test]
fn strays_of_a_16550_end() {
    let fake = ns16550_fake();
    NS16550.start(&fake);
    NS16550.ask(&fake, Reason::Receive, true);
    fake.state.borrow_mut().silent = true;
    assert!(!NS16550.has_byte(&fake) && (fake.interrupts)(&fake.state.borrow()));
    NS16550.end_stray(&fake);
    assert!(!(fake.interrupts)(&fake.state.borrow()));
    fake.state.borrow_mut().busy = true;
    NS16550.end_stray(&fake);
    assert!(!(fake.interrupts)(&fake.state.borrow()));
    // With none, no byte is taken from the queue.
    fake.state.borrow_mut().received.push_back(b'x');
    NS16550.end_stray(&fake);
    assert_eq!(NS16550.take(&fake), b'x');
}

#[test]
fn a_16550_is_found_with_its_divisor_latch_open() {
    let fake = ns16550_fake();
    fake.state.borrow_mut().plain.insert(3, 0x83);
    NS16550.start(&fake);
    assert_eq!(fake.state.borrow().get(3), 3);
}
