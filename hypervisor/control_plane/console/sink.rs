//! Where the console's bytes go.

use core::fmt;

/// Something that takes bytes: a UART's transmit side, or a test's buffer.
pub trait ByteSink {
    /// Takes all of `bytes`, in order.
    fn put(&mut self, bytes: &[u8]);
}

/// A port that may not exist.
impl<T: ByteSink> ByteSink for Option<T> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(port) = self {
            port.put(bytes);
        }
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
