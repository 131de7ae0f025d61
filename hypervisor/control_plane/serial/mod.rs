//! The UARTs of boards as data: which register does what, one literal for each kind, in `models.rs`.
//!
//! A console needs little of a UART: send a byte if there is room, take one that has come, and interrupts for both. Speed and
//! format stay as the firmware set them. What `el2` adds is the access to the registers, behind [`Registers`].
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod models;
#[cfg(test)]
mod tests;

pub use models::{BCM2835_AUX, CADENCE, IMX, MESON, NS16550, PL011};

/// The registers of one UART, by their number: for most kinds the offset in bytes, for those with `reg-shift` the index.
pub trait Registers {
    /// Reads a register.
    fn read(&self, register: u16) -> u32;
    /// Writes a register.
    fn write(&self, register: u16, value: u32);
}

/// A kind of UART.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// Bytes to send are written here.
    send: u16,
    /// Bytes that have come are read here.
    receive: u16,
    /// Whether there is no room for a byte to send.
    full: Flag,
    /// Whether no byte has come.
    empty: Flag,
    /// What asks for interrupts, and the bits for received bytes and for room to send.
    interrupts: Enable,
    receive_bits: u32,
    transmit_bits: u32,
    /// Where interrupts are ended by writing their bits; elsewhere what they are about ends them.
    acknowledge: Option<u16>,
    /// What has to be written before it is used.
    start: &'static [Step],
    /// Reads that end an interrupt that was not asked for.
    strays: &'static [Stray],
}

/// A bit that says something by being set, or by being clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Set(u16, u32),
    Clear(u16, u32),
}

impl Flag {
    #[inline(always)]
    fn holds(self, registers: &(impl Registers + ?Sized)) -> bool {
        match self {
            Self::Set(register, bit) => registers.read(register) & bit != 0,
            Self::Clear(register, bit) => registers.read(register) & bit == 0,
        }
    }
}

/// How interrupts are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enable {
    /// By the bits of one register, of which the others stay; these are always set too.
    Mask(u16, u32),
    /// By writing the bits to one register, and to another that they are no longer wanted.
    SetClear(u16, u16),
}

/// A write at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Writes a register.
    Write(u16, u32),
    /// Clears bits of a register and then sets some, if that changes anything.
    Adjust(u16, u32, u32),
}

/// Where `register & mask` is `value`, reading `end` ends the interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stray {
    register: u16,
    mask: u32,
    value: u32,
    end: u16,
}

/// What a UART may interrupt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A byte has come.
    Receive,
    /// There is room to send.
    Transmit,
}

impl Model {
    /// Makes a UART that the firmware has set up ready, without interrupts.
    pub fn start(&self, registers: &dyn Registers) {
        for step in self.start {
            match *step {
                Step::Write(register, value) => registers.write(register, value),
                Step::Adjust(register, clear, set) => {
                    let old = registers.read(register);
                    let new = old & !clear | set;
                    if new != old {
                        registers.write(register, new);
                    }
                }
            }
        }
    }

    /// Returns whether a byte that is sent now would be lost.
    #[must_use]
    #[inline(always)]
    pub fn is_full(&self, registers: &(impl Registers + ?Sized)) -> bool {
        if !self.full.holds(registers) {
            return false;
        }
        let Some(register) = self.acknowledge else {
            return true;
        };
        // That there was room has been told of and is no longer so. If there is room again, that may just have been cleared too.
        registers.write(register, self.transmit_bits);
        self.full.holds(registers)
    }

    /// Sends a byte, for which there must be room.
    #[inline(always)]
    pub fn send(&self, registers: &(impl Registers + ?Sized), byte: u8) {
        registers.write(self.send, u32::from(byte));
    }

    /// Returns whether a byte has come; if none has, the interrupt of those that were taken ends.
    #[must_use]
    #[inline(always)]
    pub fn has_byte(&self, registers: &(impl Registers + ?Sized)) -> bool {
        if !self.empty.holds(registers) {
            return true;
        }
        let Some(register) = self.acknowledge else {
            return false;
        };
        // That a byte came has been told of and is no longer so. If one has come since, its word may just have been cleared too.
        registers.write(register, self.receive_bits);
        !self.empty.holds(registers)
    }

    /// Takes a byte that has come.
    #[inline(always)]
    pub fn take(&self, registers: &(impl Registers + ?Sized)) -> u8 {
        registers.read(self.receive) as u8
    }

    /// Ends an interrupt for which there is no byte; some UARTs have them (a line that was silent, a setting made while busy).
    #[inline(always)]
    pub fn end_stray(&self, registers: &(impl Registers + ?Sized)) {
        for stray in self.strays {
            if registers.read(stray.register) & stray.mask == stray.value {
                let _ = registers.read(stray.end);
            }
        }
    }

    /// Asks for interrupts, or no longer.
    pub fn ask(&self, registers: &dyn Registers, reason: Reason, wanted: bool) {
        let bits = match reason {
            Reason::Receive => self.receive_bits,
            Reason::Transmit => self.transmit_bits,
        };
        match (self.interrupts, wanted) {
            (Enable::Mask(register, always), true) => {
                registers.write(register, registers.read(register) | bits | always);
            }
            (Enable::Mask(register, _), false) => {
                registers.write(register, registers.read(register) & !bits);
            }
            (Enable::SetClear(register, _), true) | (Enable::SetClear(_, register), false) => {
                registers.write(register, bits);
            }
        }
    }
}
