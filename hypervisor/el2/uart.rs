//! The machine's PL011 UARTs: one for the operator, and where there is a second, one for the control channel.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use crate::mmio::Registers;
use control_plane::console::Transmit;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use types::pl011 as spec;
use vmm::sync::FairMutex;

/// The interrupts when bytes have come: enough of them, or none more for a while.
const RECEIVE: u32 = spec::INT_RX | spec::INT_RT;

/// One UART.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uart(Registers);

impl Uart {
    /// Names the PL011 at `base` and turns it on; the baud rate stays as the firmware set it.
    ///
    /// # Safety
    /// `base` is the address of a PL011, mapped as device memory or with the MMU off.
    pub(crate) unsafe fn start(base: u64) -> Self {
        // SAFETY: the caller's promise.
        let registers = unsafe { Registers::new(base, spec::SIZE) };
        registers.write32(spec::IMSC, 0);
        registers.write32(spec::LCR_H, spec::LCR_H_WLEN_8 | spec::LCR_H_FEN);
        registers.write32(spec::CR, spec::CR_UARTEN | spec::CR_TXE | spec::CR_RXE);
        Self(registers)
    }

    /// Asks for an interrupt when a byte has come, also if it has come already: taking all bytes is what ends the
    /// interrupt (DDI0183 2.8), and clearing it here would lose one that came since.
    pub(crate) fn enable_receive_interrupt(self) {
        self.set_mask(RECEIVE, true);
    }

    /// Asks for no interrupt when a byte has come.
    pub(crate) fn mask_receive_interrupt(self) {
        self.set_mask(RECEIVE, false);
    }

    /// Lets interrupts through or not; whoever calls this holds the console's lock.
    fn set_mask(self, bits: u32, wanted: bool) {
        let others = self.0.read32(spec::IMSC) & !bits;
        let wanted = if wanted { bits } else { 0 };
        self.0.write32(spec::IMSC, others | wanted);
    }

    /// Returns whether a byte has come.
    pub(crate) fn has_byte(self) -> bool {
        self.0.read32(spec::FR) & spec::FR_RXFE == 0
    }

    /// Takes received bytes up to the end of a line (or another control character of that kind), as many as there are and as
    /// there is room for; returns how many.
    pub(crate) fn receive(self, to: &mut [u8]) -> usize {
        let room = to.len();
        let mut places = to.iter_mut();
        while self.has_byte()
            && let Some(place) = places.next()
        {
            *place = self.0.read32(spec::DR) as u8;
            if *place <= b'\r' {
                break;
            }
        }
        room - places.len()
    }

    /// Sends a byte, waiting for room: before there are guests, and when all is over.
    fn send_now(mut self, byte: u8) {
        while self.is_full() {
            core::hint::spin_loop();
        }
        self.send(byte);
    }
}

impl Transmit for Uart {
    #[inline]
    fn is_full(&self) -> bool {
        self.0.read32(spec::FR) & spec::FR_TXFF != 0
    }

    #[inline]
    fn send(&mut self, byte: u8) {
        self.0.write32(spec::DR, u32::from(byte));
    }

    fn ask(&mut self, wanted: bool) {
        self.set_mask(spec::INT_TX, wanted);
    }
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

static CONSOLE: FairMutex<Option<Uart>> = FairMutex::new(None);
/// The console's address for a panic, which takes no lock.
static CONSOLE_BASE: AtomicU64 = AtomicU64::new(0);

/// Makes a UART the operator's console.
pub(crate) fn set_console(uart: Uart, base: u64) {
    *CONSOLE.lock() = Some(uart);
    CONSOLE_BASE.store(base, Ordering::Release);
}

/// Returns the operator's UART.
pub(crate) fn console() -> Option<Uart> {
    *CONSOLE.lock()
}

/// Returns the console for a panic, without a lock that the panicking CPU may hold.
pub(crate) fn console_for_panic() -> Option<Uart> {
    let base = CONSOLE_BASE.load(Ordering::Acquire);
    // SAFETY: `set_console` published the address of a mapped PL011.
    (base != 0).then(|| Uart(unsafe { Registers::new(base, spec::SIZE) }))
}
