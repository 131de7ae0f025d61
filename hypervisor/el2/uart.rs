//! The machine's UARTs: one for the operator, and where there is a second, one for the control channel.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use control_plane::console::Transmit;
use control_plane::serial::{self, Model, Reason};
use core::fmt;
use core::ops::Range;
use spin::Once;

use crate::mmio::Registers;
use crate::mmu;

/// Where a UART's registers are, and which they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    base: u64,
    shift: u8,
    width: u8,
    model: &'static Model,
}

impl Place {
    /// Names a PL011.
    pub(crate) const fn pl011(base: u64) -> Self {
        Self {
            base,
            shift: 0,
            width: 4,
            model: &serial::PL011,
        }
    }

    /// Returns the pages of its registers.
    pub(crate) const fn pages(self) -> Range<u64> {
        mmu::pages(self.base..self.base + (SIZE << self.shift))
    }
}

impl From<&control_plane::host::Uart> for Place {
    fn from(uart: &control_plane::host::Uart) -> Self {
        Self {
            base: uart.registers.base.get(),
            shift: uart.shift,
            width: uart.width,
            model: uart.model,
        }
    }
}

/// Registers are numbered below this: the last one that is used is IMSC or UTS.
const SIZE: u64 = 0x100;
/// How often it is asked whether there is room before a byte is sent nevertheless: more than a byte takes at 1200 baud.
const PATIENCE: u32 = 10_000_000;

/// One UART.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uart {
    registers: Registers,
    place: Place,
    /// Whether it is a PL011 with registers of words: what each byte costs is counted for it, and the compiler knows its model.
    is_plain: bool,
}

/// Words, by their offset in bytes.
impl serial::Registers for Registers {
    #[inline(always)]
    fn read(&self, register: u16) -> u32 {
        self.read32(register)
    }

    #[inline(always)]
    fn write(&self, register: u16, value: u32) {
        self.write32(register, value);
    }
}

impl serial::Registers for Uart {
    fn read(&self, register: u16) -> u32 {
        let offset = u64::from(register) << self.place.shift;
        match self.place.width {
            1 => u32::from(self.registers.read8(offset)),
            2 => u32::from(self.registers.read16(offset)),
            _ => self.registers.read32(offset),
        }
    }

    fn write(&self, register: u16, value: u32) {
        let offset = u64::from(register) << self.place.shift;
        match self.place.width {
            1 => self.registers.write8(offset, value as u8),
            2 => self.registers.write16(offset, value as u16),
            _ => self.registers.write32(offset, value),
        }
    }
}

impl Uart {
    /// Turns a UART on; the baud rate stays as the firmware set it.
    ///
    /// # Safety
    /// There is a UART of this kind, mapped as device memory or reached with the MMU off.
    pub(crate) unsafe fn start(place: Place) -> Self {
        // SAFETY: the caller's promise.
        let registers = unsafe { Registers::new(place.base, SIZE << place.shift) };
        let is_plain =
            core::ptr::eq(place.model, &serial::PL011) && (place.shift, place.width) == (0, 4);
        let uart = Self {
            registers,
            place,
            is_plain,
        };
        place.model.start(&uart);
        uart
    }

    /// Asks for an interrupt when a byte has come, also if it has come already: taking all bytes is what ends the
    /// interrupt, and clearing it here would lose one that came since.
    pub(crate) fn enable_receive_interrupt(&self) {
        self.place.model.ask(self, Reason::Receive, true);
    }

    /// Asks for no interrupt when a byte has come.
    pub(crate) fn mask_receive_interrupt(&self) {
        self.place.model.ask(self, Reason::Receive, false);
    }

    /// Returns whether a byte has come.
    pub(crate) fn has_byte(&self) -> bool {
        if self.is_plain {
            return serial::PL011.has_byte(&self.registers);
        }
        self.place.model.has_byte(self)
    }

    /// Takes received bytes up to the end of a line (or another control character of that kind), as many as there are and as
    /// there is room for; returns how many.
    pub(crate) fn receive(&self, to: &mut [u8]) -> usize {
        if self.is_plain {
            return receive(&serial::PL011, &self.registers, to);
        }
        receive(self.place.model, self, to)
    }

    /// Sends a byte, waiting for room, but not for ever: before there are guests, and when all is over.
    fn send_now(&mut self, byte: u8) {
        let mut patience = PATIENCE;
        while self.is_full() && patience != 0 {
            core::hint::spin_loop();
            patience -= 1;
        }
        self.send(byte);
    }

    /// What [`Transmit`] says of one that is no plain PL011; apart, so that the others need no stack.
    #[inline(never)]
    fn is_another_full(&self) -> bool {
        self.place.model.is_full(self)
    }

    #[inline(never)]
    fn send_to_another(&self, byte: u8) {
        self.place.model.send(self, byte);
    }
}

impl Transmit for Uart {
    #[inline]
    fn is_full(&self) -> bool {
        if self.is_plain {
            serial::PL011.is_full(&self.registers)
        } else {
            self.is_another_full()
        }
    }

    #[inline]
    fn send(&mut self, byte: u8) {
        if self.is_plain {
            serial::PL011.send(&self.registers, byte);
        } else {
            self.send_to_another(byte);
        }
    }

    fn ask(&mut self, wanted: bool) {
        self.place.model.ask(self, Reason::Transmit, wanted);
    }
}

#[inline(always)]
fn receive(model: &Model, registers: &impl serial::Registers, to: &mut [u8]) -> usize {
    let room = to.len();
    let mut places = to.iter_mut();
    while model.has_byte(registers)
        && let Some(place) = places.next()
    {
        *place = model.take(registers);
        if *place <= b'\r' {
            break;
        }
    }
    let taken = room - places.len();
    if taken == 0 {
        model.end_stray(registers);
    }
    taken
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send_now(b'\r');
            }
            self.send_now(byte);
        }
        Ok(())
    }
}

/// The operator's UART. A panic takes no lock to find it.
static CONSOLE: Once<Uart> = Once::new();

/// Makes a UART the operator's console.
pub(crate) fn set_console(uart: Uart) {
    CONSOLE.call_once(|| uart);
}

/// Returns the operator's UART.
pub(crate) fn console() -> Option<Uart> {
    CONSOLE.get().copied()
}
