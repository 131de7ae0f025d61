//! Registers of the PrimeCell UART PL011 (Arm DDI 0183, chapter 3), with the manual's names less the UART prefix.
//!
//! EL2 drives the machine's UARTs by them, and `vmm::devices::pl011` emulates a guest's.

/// Size of the register window in bytes.
pub const SIZE: u64 = 0x1000;

/// Data register.
pub const DR: u64 = 0x000;
/// Receive status register; error clear register when written.
pub const RSR_ECR: u64 = 0x004;
/// Flag register.
pub const FR: u64 = 0x018;
/// IrDA low-power counter.
pub const ILPR: u64 = 0x020;
/// Integer baud rate divisor.
pub const IBRD: u64 = 0x024;
/// Fractional baud rate divisor.
pub const FBRD: u64 = 0x028;
/// Line control.
pub const LCR_H: u64 = 0x02c;
/// Control.
pub const CR: u64 = 0x030;
/// Interrupt FIFO level select.
pub const IFLS: u64 = 0x034;
/// Interrupt mask: a 1 lets the interrupt through.
pub const IMSC: u64 = 0x038;
/// Raw interrupt status.
pub const RIS: u64 = 0x03c;
/// Masked interrupt status.
pub const MIS: u64 = 0x040;
/// Interrupt clear.
pub const ICR: u64 = 0x044;
/// DMA control.
pub const DMACR: u64 = 0x048;

/// FR: the transmit FIFO holds something.
pub const FR_BUSY: u32 = 1 << 3;
/// FR: the receive FIFO is empty.
pub const FR_RXFE: u32 = 1 << 4;
/// FR: the transmit FIFO is full.
pub const FR_TXFF: u32 = 1 << 5;
/// FR: the receive FIFO is full.
pub const FR_RXFF: u32 = 1 << 6;
/// FR: the transmit FIFO is empty.
pub const FR_TXFE: u32 = 1 << 7;

/// LCR_H: the FIFOs are enabled; without it each holds one character.
pub const LCR_H_FEN: u32 = 1 << 4;
/// LCR_H: 8-bit words.
pub const LCR_H_WLEN_8: u32 = 0b11 << 5;
/// LCR_H: the bits that exist.
pub const LCR_H_MASK: u32 = 0xff;

/// CR: the UART is enabled.
pub const CR_UARTEN: u32 = 1 << 0;
/// CR: what is transmitted is received.
pub const CR_LBE: u32 = 1 << 7;
/// CR: the transmitter is enabled.
pub const CR_TXE: u32 = 1 << 8;
/// CR: the receiver is enabled.
pub const CR_RXE: u32 = 1 << 9;
/// CR: the bits that exist.
pub const CR_MASK: u32 = 0xff87;

/// IFLS: the trigger level of the transmit FIFO.
pub const IFLS_TX: u32 = 0b111;
/// IFLS: where the trigger level of the receive FIFO stands.
pub const IFLS_RX_SHIFT: u32 = 3;
/// IFLS: the bits that exist.
pub const IFLS_MASK: u32 = 0x3f;
/// IFLS at reset: both FIFOs trigger at half.
pub const IFLS_RESET: u32 = 0b010_010;

/// Interrupt bit of RIS, MIS, IMSC and ICR: the receive FIFO has reached its trigger level.
pub const INT_RX: u32 = 1 << 4;
/// Interrupt bit: the transmit FIFO has fallen to its trigger level.
pub const INT_TX: u32 = 1 << 5;
/// Interrupt bit: characters have been left in the receive FIFO.
pub const INT_RT: u32 = 1 << 6;
/// The interrupt bits that exist: modem, RX, TX, RT and errors.
pub const INT_MASK: u32 = 0x7ff;

/// Bits of the baud rate divisors, the IrDA counter and the DMA control that exist.
pub const IBRD_MASK: u32 = 0xffff;
/// See [`IBRD_MASK`].
pub const FBRD_MASK: u32 = 0x3f;
/// See [`IBRD_MASK`].
pub const ILPR_MASK: u32 = 0xff;
/// See [`IBRD_MASK`].
pub const DMACR_MASK: u32 = 0b111;
