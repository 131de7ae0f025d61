//! The PL011 console (Arm DDI 0183): polled, both directions.

use crate::mmio;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where QEMU's virt machine has its first UART: the default of a guest whose device tree names none.
pub const DEFAULT_BASE: u64 = 0x0900_0000;
/// UARTDR: data.
const DR: u64 = 0x00;
/// UARTFR: flags.
pub const FR: u64 = 0x18;
/// UARTLCR_H: line control.
const LCR_H: u64 = 0x2c;
/// UARTLCR_H: 8 bits, FIFOs on.
const LCR_H_8_BITS_FIFO: u32 = 3 << 5 | 1 << 4;
/// UARTCR: control.
const CR: u64 = 0x30;
/// UARTCR: receiver, transmitter and UART on.
const CR_ON: u32 = 1 << 9 | 1 << 8 | 1;
/// UARTFR.RXFE: nothing to read.
const FR_RXFE: u32 = 1 << 4;
/// UARTFR.TXFF: no room to write.
const FR_TXFF: u32 = 1 << 5;

static BASE: AtomicU64 = AtomicU64::new(DEFAULT_BASE);
static PRESET: AtomicBool = AtomicBool::new(false);
static LOCK: AtomicBool = AtomicBool::new(false);

/// Says where the UART is.
pub(crate) fn set_base(base: u64) {
    BASE.store(base, Ordering::Relaxed);
}

/// Says that the UART has no registers for its line: the SBSA's generic UART is always on.
pub(crate) fn set_preset() {
    PRESET.store(true, Ordering::Relaxed);
}

/// Turns the UART on, with its FIFOs, so that a line typed at once is not lost.
pub(crate) fn init() {
    if PRESET.load(Ordering::Relaxed) {
        return;
    }
    mmio::write32(base() + CR, 0);
    mmio::write32(base() + LCR_H, LCR_H_8_BITS_FIFO);
    mmio::write32(base() + CR, CR_ON);
}

/// Returns where the UART is.
#[must_use]
pub fn base() -> u64 {
    BASE.load(Ordering::Relaxed)
}

/// Sends one byte, waiting for room.
fn put(byte: u8) {
    while mmio::read32(base() + FR) & FR_TXFF != 0 {
        core::hint::spin_loop();
    }
    mmio::write32(base() + DR, u32::from(byte));
}

/// Takes one received byte, if there is one.
#[must_use]
pub fn get() -> Option<u8> {
    if mmio::read32(base() + FR) & FR_RXFE != 0 {
        return None;
    }
    Some(mmio::read32(base() + DR) as u8)
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

/// Prints formatted text; a line of one CPU is not mixed with another's.
pub fn print(arguments: fmt::Arguments<'_>) {
    while LOCK.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    // The console's writer never fails.
    let _ = Console.write_fmt(arguments);
    LOCK.store(false, Ordering::Release);
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::uart::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Prints on the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {
        $crate::uart::print(format_args!($($argument)*))
    };
}
