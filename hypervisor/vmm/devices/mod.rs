//! Emulated devices: register reads and writes in, values and interrupt levels out.
//!
//! A device owns its registers and nothing else. It never calls out: what an access must cause (an interrupt line that moves,
//! bytes to send) is a return value, time is an argument, and the caller holds whatever lock it needs. Offsets, widths and
//! values come from guests, so every combination of them is answered; what no register claims reads as zero and ignores writes.
//!
//! Neighbours: `bus` finds the device for an address, `vm` owns the devices, `console` feeds and drains the UART.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod cpu_hotplug;
pub mod pl011;
pub mod pl031;
pub mod primecell;
pub mod virtio_mmio;

use types::access::AccessWidth;

/// What a register read gives.
#[must_use = "a read can move the interrupt line"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The bytes read, zero-extended.
    pub value: u64,
    /// The new level of the device's interrupt line, when this access changed it.
    pub line: Option<bool>,
}

impl Reading {
    /// A read without side effects.
    #[inline]
    pub const fn value(value: u64) -> Self {
        Self { value, line: None }
    }
}

/// What a register write (or another change of a device's state) causes.
#[must_use = "the interrupt line or the transmit queue may have changed"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The new level of the device's interrupt line, when it changed.
    pub line: Option<bool>,
    /// Whether bytes wait to be taken with [`pl011::Pl011::pop_transmit`].
    pub transmit: bool,
}

impl Effect {
    /// Nothing to do.
    pub const NONE: Self = Self {
        line: None,
        transmit: false,
    };

    /// Returns the effect of a line that was `before` and is `after`.
    #[inline]
    pub const fn line_moved(before: bool, after: bool) -> Self {
        Self {
            line: if before == after { None } else { Some(after) },
            transmit: false,
        }
    }
}

/// A device with one level-sensitive interrupt line and a window of registers.
pub trait Device {
    /// Reads the register at `offset` from the start of the window.
    fn read(&mut self, offset: u64, width: AccessWidth, now_ns: u64) -> Reading;

    /// Writes the low `width` bytes of `value` to the register at `offset`.
    fn write(&mut self, offset: u64, width: AccessWidth, value: u64, now_ns: u64) -> Effect;

    /// Returns the level of the interrupt line.
    fn line(&self) -> bool;

    /// Puts the device into the state in which a guest finds it at system reset; the line is low then.
    fn reset(&mut self);
}
