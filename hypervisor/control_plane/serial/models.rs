//! The kinds of UART, each from its manual.

use types::pl011;

use super::{Enable, Flag, Model, Step, Stray};

/// Arm PL011 (DDI0183, 3.2), and the subset of it in the SBSA (DEN0029, appendix B), which ignores writes of LCR_H and CR.
pub static PL011: Model = Model {
    send: pl011::DR as u16,
    receive: pl011::DR as u16,
    full: Flag::Set(pl011::FR as u16, pl011::FR_TXFF),
    empty: Flag::Set(pl011::FR as u16, pl011::FR_RXFE),
    interrupts: Enable::Mask(pl011::IMSC as u16, 0),
    receive_bits: pl011::INT_RX | pl011::INT_RT,
    transmit_bits: pl011::INT_TX,
    acknowledge: None,
    start: &[
        Step::Write(pl011::IMSC as u16, 0),
        Step::Write(pl011::LCR_H as u16, pl011::LCR_H_WLEN_8 | pl011::LCR_H_FEN),
        Step::Write(
            pl011::CR as u16,
            pl011::CR_UARTEN | pl011::CR_TXE | pl011::CR_RXE,
        ),
    ],
    strays: &[],
};

/// 16550 (National Semiconductor PC16550D, 8) and its relatives; registers by index.
pub static NS16550: Model = Model {
    send: 0,
    receive: 0,
    // LSR: THRE, which with FIFOs means that all of it is sent; DR.
    full: Flag::Clear(5, 1 << 5),
    empty: Flag::Clear(5, 1),
    // IER: ERBFI, which covers the time-out too; ETBEI.
    interrupts: Enable::Mask(1, 0),
    receive_bits: 1,
    transmit_bits: 1 << 1,
    acknowledge: None,
    start: &[
        // LCR: no divisor latch in the place of data; a DesignWare part that is busy takes no write, so none without need.
        Step::Adjust(3, 1 << 7, 0),
        // IER.
        Step::Write(1, 0),
        // FCR: FIFOs on, nothing thrown away.
        Step::Write(2, 1),
        // MCR: DTR, RTS; OUT2, which lets interrupts through on some.
        Step::Adjust(4, 0, 1 | 1 << 1 | 1 << 3),
    ],
    strays: &[
        // IIR: character time-out without a byte (seen on DesignWare parts) ends with a read of RBR.
        Stray {
            register: 2,
            mask: 0xf,
            value: 0xc,
            end: 0,
        },
        // IIR: busy detect (DW_apb_uart databook, IIR and USR) ends with a read of USR.
        Stray {
            register: 2,
            mask: 0xf,
            value: 0x7,
            end: 0x1f,
        },
    ],
};

/// "Mini UART" of BCM2835 and BCM2711 (BCM2711 ARM Peripherals, 2.2), from AUX_MU_IO on.
pub static BCM2835_AUX: Model = Model {
    send: 0,
    receive: 0,
    // AUX_MU_LSR: transmitter can accept a byte; data ready.
    full: Flag::Clear(0x14, 1 << 5),
    empty: Flag::Clear(0x14, 1),
    // AUX_MU_IER: bits 3:2 have to be set for interrupts to come at all.
    interrupts: Enable::Mask(0x4, 0b1100),
    receive_bits: 1,
    transmit_bits: 1 << 1,
    acknowledge: None,
    start: &[
        // AUX_MU_LCR: eight bits are 0b11, no divisor latch; AUX_MU_IER; AUX_MU_CNTL: transmitter and receiver on.
        Step::Adjust(0xc, 1 << 7, 0b11),
        Step::Write(0x4, 0),
        Step::Adjust(0x20, 0, 0b11),
    ],
    strays: &[],
};

/// Cadence UART of Zynq UltraScale+ (UG1087, module UART).
pub static CADENCE: Model = Model {
    send: 0x30,
    receive: 0x30,
    // Channel_sts: TFUL, REMPTY.
    full: Flag::Set(0x2c, 1 << 4),
    empty: Flag::Set(0x2c, 1 << 1),
    // Intrpt_en and Intrpt_dis: RTRIG and TIMEOUT, TEMPTY.
    interrupts: Enable::SetClear(0x08, 0x0c),
    receive_bits: 1 | 1 << 8,
    transmit_bits: 1 << 3,
    // Chnl_int_sts.
    acknowledge: Some(0x14),
    start: &[
        // Intrpt_dis: all of them.
        Step::Write(0x0c, 0x1fff),
        // Rcvr_FIFO_trigger_level: one byte.
        Step::Write(0x20, 1),
        // Control: RXEN and TXEN, not RXDIS and TXDIS.
        Step::Adjust(0x00, 1 << 3 | 1 << 5, 1 << 2 | 1 << 4),
    ],
    strays: &[],
};

/// UCR1: ADEN, TRDYEN, IDEN, RRDYEN, RXDMAEN, TXMPTYEN, RTSDEN, TXDMAEN and ATDMAEN.
const IMX_UCR1_INTERRUPTS: u32 = 0xb36c | 1 << 5;

/// UART of i.MX6 to i.MX8M (IMX8MPRM, 15.2.14).
pub static IMX: Model = Model {
    send: 0x40,
    receive: 0x00,
    // UTS: TXFULL, RXEMPTY.
    full: Flag::Set(0xb4, 1 << 4),
    empty: Flag::Set(0xb4, 1 << 5),
    // UCR1: RRDYEN, TRDYEN.
    interrupts: Enable::Mask(0x80, 0),
    receive_bits: 1 << 9,
    transmit_bits: 1 << 13,
    acknowledge: None,
    start: &[
        // UFCR.RXTL: one byte, of six bits.
        Step::Adjust(0x90, 0x3f, 1),
        // UCR2: RXEN, TXEN and no reset, which is a zero; none of its interrupts. UCR1: UARTEN, none of its interrupts.
        Step::Adjust(0x84, 1 << 3 | 1 << 4 | 1 << 15, 1 | 1 << 1 | 1 << 2),
        Step::Adjust(0x80, IMX_UCR1_INTERRUPTS, 1),
    ],
    strays: &[],
};

/// UART of Amlogic Meson (S905X3 datasheet, UART).
pub static MESON: Model = Model {
    send: 0x00,
    receive: 0x04,
    // AML_UART_STATUS: TX FIFO full, RX FIFO empty.
    full: Flag::Set(0x0c, 1 << 21),
    empty: Flag::Set(0x0c, 1 << 20),
    // AML_UART_CONTROL: interrupt on receive and on transmit.
    interrupts: Enable::Mask(0x08, 0),
    receive_bits: 1 << 27,
    transmit_bits: 1 << 28,
    acknowledge: None,
    start: &[
        // AML_UART_MISC: interrupts at the first byte that has come, and with less than half of 64 to send.
        Step::Adjust(0x10, 0xffff, 32 << 8 | 1),
        // AML_UART_CONTROL: transmitter and receiver on, no interrupts.
        Step::Adjust(0x08, 1 << 27 | 1 << 28, 1 << 12 | 1 << 13),
    ],
    strays: &[],
};
