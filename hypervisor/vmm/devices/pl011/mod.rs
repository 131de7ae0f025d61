//! The PL011 UART: a guest's console, complete for Linux's `amba-pl011` and SBSA drivers, earlycon and bare-metal guests.
//!
//! Bytes from the operator enter with [`Uart::feed`], bytes from the guest leave with [`Uart::take`].
//!
//! Neighbours: `registers` (what accesses do), `types::pl011` (the map).

mod fifo;
mod registers;
mod spec;
#[cfg(test)]
mod tests;

use super::{Access, Device, Fed, Parts, Surroundings, Vcpus, Wired, Work};
use registers::Pl011;
use types::pl011::FR;

/// One UART.
#[derive(Debug)]
pub struct Uart(Wired<Pl011>);

impl Uart {
    /// Gives the guest the byte that `next` returns, which is asked only if there is room for one.
    pub fn feed(&self, around: &mut impl Surroundings, next: impl FnOnce() -> Option<u8>) -> Fed {
        self.0.with(around, |uart| {
            if !uart.rx_room() {
                return Fed::Full;
            }
            let Some(byte) = next() else {
                return Fed::Nothing;
            };
            uart.receive(byte);
            Fed::Byte
        })
    }

    /// Takes the oldest byte that the guest has sent.
    pub fn take(&self, around: &mut impl Surroundings) -> Option<u8> {
        self.0.with(around, Pl011::pop_transmit)
    }
}

impl Device for Uart {
    fn new(_: &Parts) -> Self {
        Self(Wired::new(Pl011::new()))
    }

    /// Reads the flags, which guests poll.
    #[inline(always)]
    fn peek(&self, access: Access, _: &impl Vcpus) -> Option<u64> {
        if access.offset != FR {
            return None;
        }
        Some(u64::from(self.0.0.lock().flags()))
    }

    #[inline]
    fn read(&self, access: Access, around: &mut impl Surroundings) -> Result<u64, Work> {
        let Access { offset, width } = access;
        Ok(self.0.with(around, |uart| uart.read(offset, width)))
    }

    #[inline]
    fn write(&self, access: Access, value: u64, around: &mut impl Surroundings) -> Option<Work> {
        let Access { offset, width } = access;
        self.0.with(around, |uart| {
            uart.write(offset, width, value);
            uart.has_transmit().then_some(Work::Show)
        })
    }

    fn reset(&self) {
        *self.0.0.lock() = Pl011::new();
    }
}
