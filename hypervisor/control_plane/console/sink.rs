//! Where the console's bytes go.

use super::Port;
use core::fmt;

/// Something that takes bytes: a UART's transmit side, or a test's buffer.
pub trait ByteSink {
    /// Takes all of `bytes`, in order.
    fn put(&mut self, bytes: &[u8]);

    /// Returns how many bytes have been taken that have not left yet.
    fn waiting(&self) -> usize {
        0
    }
}

/// A port that may not exist.
impl<T: ByteSink> ByteSink for Option<T> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(port) = self {
            port.put(bytes);
        }
    }

    #[inline]
    fn waiting(&self) -> usize {
        self.as_ref().map_or(0, T::waiting)
    }
}

#[cfg(test)]
impl ByteSink for alloc::vec::Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The operator's two ports.
pub struct Sinks<'a> {
    /// The terminal: guests' consoles and the prompt.
    pub terminal: &'a mut dyn ByteSink,
    /// The control channel: JSON lines only.
    pub control: &'a mut dyn ByteSink,
}

impl Sinks<'_> {
    /// Returns a port's.
    pub(super) fn of(&mut self, port: Port) -> &mut dyn ByteSink {
        match port {
            Port::Terminal => self.terminal,
            Port::Control => self.control,
        }
    }
}

/// Writes formatted text into a [`ByteSink`], which cannot fail.
pub(super) struct Writer<'a>(pub(super) &'a mut dyn ByteSink);

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.put(text.as_bytes());
        Ok(())
    }
}

/// Formats into a [`ByteSink`].
macro_rules! put {
    ($out:expr, $($arguments:tt)*) => {{
        use core::fmt::Write as _;
        // A sink takes everything, so that only a failing `Display` could end up here.
        let _ = write!($crate::console::sink::Writer(&mut *$out), $($arguments)*);
    }};
}
pub(super) use put;
