//! The log: lines to the operator's UART while EL2 starts, and always into a ring that `log` shows.

use alloc::string::String;
use control_plane::trace::LogRing;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use log::{LevelFilter, Log, Metadata, Record};
use vmm::sync::FairMutex;

use crate::{clock, uart};

/// Bytes of log that are kept.
const RING_BYTES: usize = 8 * 1024;

struct Logger;

static LOGGER: Logger = Logger;
static RING: FairMutex<LogRing<RING_BYTES>> = FairMutex::new(LogRing::new());
/// Whether lines go to the UART as well: until the console has it.
static TO_UART: AtomicBool = AtomicBool::new(true);

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let ns = clock::now_ns();
        let (seconds, micros) = (ns / 1_000_000_000, ns / 1000 % 1_000_000);
        let mut line = String::new();
        let _ = write!(line, "[{seconds:5}.{micros:06}] ");
        if record.level() <= log::Level::Warn {
            let _ = write!(line, "{}: ", record.level().as_str().to_ascii_lowercase());
        }
        let _ = write!(line, "{}", record.args());
        RING.lock().push_line(&line);
        if TO_UART.load(Ordering::Relaxed)
            && let Some(mut uart) = uart::console()
        {
            let _ = writeln!(uart, "{line}");
        }
    }

    fn flush(&self) {}
}

/// Starts logging.
pub(crate) fn start(level: LevelFilter) {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Leaves the UART to the console; errors are still kept for `log`.
pub(crate) fn leave_uart() {
    TO_UART.store(false, Ordering::Relaxed);
}

/// Returns the lines that are kept.
pub(crate) fn text() -> String {
    let ring = RING.lock();
    let (first, second) = ring.as_slices();
    let mut bytes = first.to_vec();
    bytes.extend_from_slice(second);
    // Whole lines of text are kept.
    String::from_utf8(bytes).unwrap_or_default()
}
