//! The PL011's registers and FIFOs: what each access changes, and what the interrupt line is then.
//!
//! Both FIFOs are bounded and nothing is dropped: a full receive FIFO refuses, a full transmit FIFO shows the guest TXFF. There is no
//! baud rate: a byte moves when the other side takes it, and the receive timeout counts as over at once, so RT is raised
//! whenever characters wait. At reset the UART is as firmware leaves it, enabled and with FIFOs on, since the SBSA driver
//! never sets it up; like QEMU's, it works whatever CR says.
//!
//! Neighbours: `types::pl011` (the map), `spec` (what this one is).

use super::fifo::Fifo;
use super::spec::{self, FIFO_DEPTH};
use crate::devices::{Line, primecell};
use types::access::AccessWidth;
use types::pl011::{
    self as map, FR_BUSY, FR_RXFE, FR_RXFF, FR_TXFE, FR_TXFF, INT_MASK, INT_RT, INT_RX, INT_TX,
};

/// One UART's registers.
#[derive(Debug)]
pub(super) struct Pl011 {
    /// FR, kept current by every change of a FIFO: the register that guests poll.
    flags: u32,
    raw: u32,
    mask: u32,
    control: u32,
    line_control: u32,
    fifo_levels: u32,
    integer_baud: u32,
    fractional_baud: u32,
    low_power: u32,
    dma: u32,
    received: Fifo,
    transmitted: Fifo,
}

impl Pl011 {
    /// Makes a UART in its reset state.
    pub(super) const fn new() -> Self {
        Self {
            flags: FR_RXFE | FR_TXFE,
            raw: 0,
            mask: 0,
            control: map::CR_UARTEN | map::CR_TXE | map::CR_RXE,
            line_control: map::LCR_H_WLEN_8 | map::LCR_H_FEN,
            fifo_levels: map::IFLS_RESET,
            integer_baud: 0,
            fractional_baud: 0,
            low_power: 0,
            dma: 0,
            received: Fifo::EMPTY,
            transmitted: Fifo::EMPTY,
        }
    }

    /// Returns the flag register, which is what a guest polls; reading it has no effect.
    #[inline]
    pub(super) const fn flags(&self) -> u32 {
        self.flags
    }

    /// Returns whether [`Pl011::receive`] will take a byte.
    #[inline]
    pub(super) const fn rx_room(&self) -> bool {
        self.flags & FR_RXFF == 0
    }

    /// Takes the oldest byte that the guest has sent.
    pub(super) fn pop_transmit(&mut self) -> Option<u8> {
        let byte = self.transmitted.pop()?;
        if self.transmitted.len() <= self.transmit_trigger() {
            self.raw |= INT_TX;
        }
        self.update_flags();
        Some(byte)
    }

    /// Returns whether [`Pl011::pop_transmit`] has a byte.
    #[inline]
    pub(super) const fn has_transmit(&self) -> bool {
        self.flags & FR_TXFE == 0
    }

    const fn depth(&self) -> usize {
        if self.line_control & map::LCR_H_FEN == 0 {
            1
        } else {
            FIFO_DEPTH
        }
    }

    /// The level at or below which the transmit FIFO asks for more.
    const fn transmit_trigger(&self) -> usize {
        if self.depth() == 1 {
            0
        } else {
            spec::trigger_level(self.fifo_levels & map::IFLS_TX)
        }
    }

    /// The level at or above which the receive FIFO asks to be read.
    const fn receive_trigger(&self) -> usize {
        if self.depth() == 1 {
            1
        } else {
            spec::trigger_level(self.fifo_levels >> map::IFLS_RX_SHIFT)
        }
    }

    /// Gives the guest a byte; one for which there is no room ([`Pl011::rx_room`]) is left out.
    pub(super) fn receive(&mut self, byte: u8) {
        if !self.rx_room() {
            return;
        }
        self.received.push(byte);
        self.raw |= INT_RT;
        if self.received.len() >= self.receive_trigger() {
            self.raw |= INT_RX;
        }
        self.update_flags();
    }

    /// Reads DR: takes a character. RT stays as long as characters are left, so that none is forgotten.
    fn read_data(&mut self) -> u32 {
        let byte = self.received.pop().unwrap_or(0);
        let left = self.received.len();
        if left < self.receive_trigger() {
            self.raw &= !INT_RX;
        }
        self.raw = if left == 0 {
            self.raw & !INT_RT
        } else {
            self.raw | INT_RT
        };
        self.update_flags();
        u32::from(byte)
    }

    fn write_data(&mut self, byte: u8) {
        if self.control & map::CR_LBE != 0 {
            self.receive(byte);
            self.raw |= INT_TX;
            return;
        }
        if self.flags & FR_TXFF != 0 {
            return;
        }
        self.transmitted.push(byte);
        if self.transmitted.len() > self.transmit_trigger() {
            self.raw &= !INT_TX;
        }
        self.update_flags();
    }

    /// Writes LCR_H; a change of FEN flushes what the guest has not read (DDI 0183, 3.3.7). Bytes already sent still leave.
    fn write_line_control(&mut self, value: u32) {
        let changed = self.line_control ^ value;
        self.line_control = value & map::LCR_H_MASK;
        if changed & map::LCR_H_FEN != 0 {
            self.received = Fifo::EMPTY;
            self.raw &= !(INT_RX | INT_RT);
            self.update_flags();
        }
    }

    fn update_flags(&mut self) {
        let (depth, received, transmitted) =
            (self.depth(), self.received.len(), self.transmitted.len());
        let mut flags = 0;
        flags |= if received == 0 { FR_RXFE } else { 0 };
        flags |= if received >= depth { FR_RXFF } else { 0 };
        flags |= if transmitted == 0 { FR_TXFE } else { FR_BUSY };
        flags |= if transmitted >= depth { FR_TXFF } else { 0 };
        self.flags = flags;
    }

    /// Reads a register. Accesses of 1, 2 and 4 bytes at a register's own offset are served (drivers use all three); others read 0.
    pub(super) fn read(&mut self, offset: u64, width: AccessWidth) -> u64 {
        if !serves(offset, width) {
            return 0;
        }
        u64::from(self.read_register(offset)) & width.mask()
    }

    /// Writes a register, if the access is one that is served.
    pub(super) fn write(&mut self, offset: u64, width: AccessWidth, value: u64) {
        if serves(offset, width) {
            self.write_register(offset, (value & width.mask()) as u32);
        }
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        match offset {
            map::FR => self.flags,
            map::DR => self.read_data(),
            map::ILPR => self.low_power,
            map::IBRD => self.integer_baud,
            map::FBRD => self.fractional_baud,
            map::LCR_H => self.line_control,
            map::CR => self.control,
            map::IFLS => self.fifo_levels,
            map::IMSC => self.mask,
            map::RIS => self.raw,
            map::MIS => self.raw & self.mask,
            map::DMACR => self.dma,
            // No reception error ever happens here, so RSR is zero like the registers that do not exist.
            _ => primecell::read_id(spec::PERIPHERAL_ID, offset) as u32,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            map::DR => self.write_data(value as u8),
            map::ILPR => self.low_power = value & map::ILPR_MASK,
            map::IBRD => self.integer_baud = value & map::IBRD_MASK,
            map::FBRD => self.fractional_baud = value & map::FBRD_MASK,
            map::LCR_H => self.write_line_control(value),
            map::CR => self.control = value & map::CR_MASK,
            map::IFLS => self.fifo_levels = value & map::IFLS_MASK,
            map::IMSC => self.mask = value & INT_MASK,
            map::ICR => self.raw &= !value,
            map::DMACR => self.dma = value & map::DMACR_MASK,
            _ => {}
        }
    }
}

impl Line for Pl011 {
    #[inline]
    fn line(&self) -> bool {
        self.raw & self.mask != 0
    }
}

#[inline]
const fn serves(offset: u64, width: AccessWidth) -> bool {
    offset & 0b11 == 0 && !matches!(width, AccessWidth::Double)
}
