//! A UART's other end: everything received is kept and logged, and can be waited for.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much of the end of the output a failure repeats, in bytes.
const TAIL: usize = 3000;

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    closed: bool,
}

struct Shared {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end of a UART.
pub struct Console {
    stream: UnixStream,
    shared: Arc<Shared>,
    /// Everything before this has been expected already.
    position: usize,
    log: PathBuf,
}

impl Console {
    /// Takes a connected socket and logs what comes from it to a file.
    ///
    /// # Panics
    /// If the log cannot be written.
    #[must_use]
    pub fn new(stream: UnixStream, log: PathBuf) -> Self {
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut reader = stream.try_clone().expect("a socket can be cloned");
        let mut file =
            File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                // The log is an aid: a full disk must not end the test in a strange place.
                let _ = file.write_all(&buffer[..count]);
                theirs.lock().bytes.extend_from_slice(&buffer[..count]);
                theirs.changed.notify_all();
            }
            theirs.lock().closed = true;
            theirs.changed.notify_all();
        });
        Self {
            stream,
            shared,
            position: 0,
            log,
        }
    }

    /// Types a text.
    ///
    /// # Panics
    /// If the machine is gone.
    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Types bytes that need not be text.
    ///
    /// # Panics
    /// If the machine is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = self.stream.write_all(bytes);
        assert!(
            sent.is_ok(),
            "cannot type {} bytes: {sent:?}{}",
            bytes.len(),
            self.tail()
        );
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.send(text);
        self.send("\r");
    }

    /// Waits for a text; returns what came before it. The next search starts after it.
    ///
    /// # Panics
    /// If it does not come in time, with the end of the output.
    pub fn expect(&mut self, text: &str, timeout: Duration) -> String {
        match self.wait_for(&[text], timeout) {
            Some((_, before)) => before,
            None => panic!("no {text:?} within {} s{}", timeout.as_secs(), self.tail()),
        }
    }

    /// Waits for the first of several texts; returns which one and what came before it, or `None`.
    #[must_use]
    pub fn wait_for(&mut self, texts: &[&str], timeout: Duration) -> Option<(usize, String)> {
        let deadline = Instant::now() + timeout;
        let mut received = self.shared.lock();
        loop {
            let fresh = received.bytes.get(self.position..).unwrap_or(&[]);
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(which, text)| Some((find(fresh, text.as_bytes())?, which)))
                .min();
            if let Some((at, which)) = found {
                let before = String::from_utf8_lossy(&fresh[..at]).into_owned();
                self.position += at + texts[which].len();
                return Some((which, before));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || received.closed {
                return None;
            }
            received = self
                .shared
                .changed
                .wait_timeout(received, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the end of a line; returns it without its line break.
    #[must_use]
    pub fn next_line(&mut self, timeout: Duration) -> Option<String> {
        let (_, line) = self.wait_for(&["\n"], timeout)?;
        Some(line.trim_end_matches('\r').to_owned())
    }

    /// Returns everything received so far.
    #[must_use]
    pub fn everything(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().bytes).into_owned()
    }

    /// Tells whether the other side has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Returns the end of the output and where the rest is, for a failure's message.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.everything();
        let mut start = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        format!(
            "\n--- end of {} ---\n{}\n---",
            self.log.display(),
            &text[start..]
        )
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    fn console(name: &str) -> (Console, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = std::env::temp_dir().join(format!("console-{}-{name}.log", std::process::id()));
        (Console::new(ours, log), theirs)
    }

    #[test]
    fn texts_are_found_in_order_and_once() {
        let (mut console, mut machine) = console("order");
        machine.write_all(b"one two one\r\nthree\r\n").unwrap();
        assert_eq!(console.expect("one", LONG), "");
        assert_eq!(console.expect("one", LONG), " two ");
        assert_eq!(console.next_line(LONG).unwrap(), "");
        assert_eq!(console.next_line(LONG).unwrap(), "three");
        assert!(console.wait_for(&["one"], SOON).is_none());
    }

    #[test]
    fn the_earliest_of_several_texts_counts() {
        let (mut console, mut machine) = console("earliest");
        machine.write_all(b"xx FAILED yy ok").unwrap();
        let (which, before) = console.wait_for(&["ok", "FAILED"], LONG).unwrap();
        assert_eq!((which, before.as_str()), (1, "xx "));
    }

    #[test]
    fn a_machine_that_ends_ends_the_wait() {
        let (mut console, machine) = console("end");
        drop(machine);
        assert!(console.wait_for(&["never"], LONG).is_none());
        assert!(console.is_closed());
    }
}
