//! What waits to be sent on a UART: a queue that the UART's transmit interrupt empties, so that no CPU waits for a wire.
//!
//! The interrupt follows from a transition: it is raised when the FIFO falls to its trigger level, and not because the FIFO is
//! low (Arm DDI0183, 2.8). So it is asked for only after the FIFO was seen full, when such a transition is certain to come,
//! and it is masked when nothing waits. Where no interrupt can come (a UART that has none, a pace that is only reckoned, a
//! visit that ended before the FIFO was full) the caller looks again at a time that it is told.
//!
//! Neighbours: `sink` (the way in). The driver and the lock around it are the caller's.

use super::sink::ByteSink;
use alloc::collections::VecDeque;
use core::num::NonZeroU32;

/// Room that is always there; what exceeds it, as a guest's kept output may, takes memory until it has been sent.
const RING_BYTES: usize = 1024;
/// Most bytes that are sent at a visit, however fast the UART takes them: eight times what its FIFO holds.
const BYTES_A_VISIT: usize = 256;
/// How many bytes wait at most when a guest's output is added: what it has more waits in the guest's own UART.
pub(super) const GUEST_BYTES: usize = 128;
/// How many bytes wait at most when an event is told, when the next row of an answer is written, and when the next command is taken.
/// Each has precedence over the one before, or a flood of events would keep commands away.
pub(super) const EVENT_BYTES: usize = 256;
pub(super) const ROW_BYTES: usize = 512;
pub(super) const COMMAND_BYTES: usize = 1024;
/// When to look again where nothing else says so.
const SOON_NS: u64 = 100_000;

/// The transmit side of a UART.
pub trait Transmit {
    /// Returns whether there is no room for another byte (FR.TXFF).
    fn is_full(&self) -> bool;
    /// Sends a byte, for which there is room (DR).
    fn send(&mut self, byte: u8);
    /// Unmasks or masks the transmit interrupt (IMSC.TXIM).
    fn ask(&mut self, wanted: bool);
}

/// What goes on with the bytes that still wait.
#[must_use = "what waits has to be sent some time"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing waits.
    Nothing,
    /// The UART's transmit interrupt comes.
    UntilInterrupt,
    /// Look again at this time, in nanoseconds since start.
    Until(u64),
}

/// The pace of a wire, kept by the clock: a FIFO that a byte leaves at each tick of it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    byte_ns: u64,
    /// When all that was sent has left.
    empty_ns: u64,
}

impl Pace {
    /// Start bit, eight data bits, stop bit.
    const BITS_A_BYTE: u64 = 10;
    /// The FIFO of the PL011's older revisions.
    const FIFO: u64 = 16;

    /// Makes the pace of a wire with so many bits a second.
    #[must_use]
    pub const fn new(baud: NonZeroU32) -> Self {
        Self {
            byte_ns: (Self::BITS_A_BYTE * 1_000_000_000).div_euclid(baud.get() as u64),
            empty_ns: 0,
        }
    }

    /// Returns when the FIFO is half empty, if there is no room in it at this time.
    fn full_until(&self, now_ns: u64) -> Option<u64> {
        let bytes = |count: u64| self.byte_ns.saturating_mul(count);
        if self.empty_ns.saturating_sub(now_ns) <= bytes(Self::FIFO.saturating_sub(1)) {
            return None;
        }
        Some(self.empty_ns.saturating_sub(bytes(Self::FIFO / 2)))
    }

    fn sent(&mut self, now_ns: u64) {
        self.empty_ns = self.empty_ns.max(now_ns).saturating_add(self.byte_ns);
    }
}

/// A UART and what waits to be sent on it.
#[derive(Debug)]
pub struct Outlet<U> {
    uart: U,
    waiting: VecDeque<u8>,
    pace: Option<Pace>,
    has_interrupt: bool,
    asks: bool,
}

impl<U: Transmit> Outlet<U> {
    /// Makes one for a UART whose transmit interrupt is masked. A paced one never asks for its interrupt.
    #[must_use]
    pub fn new(uart: U, has_interrupt: bool, pace: Option<Pace>) -> Self {
        Self {
            uart,
            waiting: VecDeque::with_capacity(RING_BYTES),
            has_interrupt: has_interrupt && pace.is_none(),
            pace,
            asks: false,
        }
    }

    /// Returns the UART, for its receive side.
    pub const fn uart(&self) -> &U {
        &self.uart
    }

    /// Sends what the UART takes now, and no more than a bounded number of bytes.
    #[inline(never)]
    pub fn drain(&mut self, now_ns: &dyn Fn() -> u64) -> Left {
        let left = self.send_some(now_ns);
        let asks = left == Left::UntilInterrupt;
        if core::mem::replace(&mut self.asks, asks) != asks {
            self.uart.ask(asks);
        }
        left
    }

    fn send_some(&mut self, now_ns: &dyn Fn() -> u64) -> Left {
        let (uart, pace) = (&mut self.uart, &mut self.pace);
        let (head, tail) = self.waiting.as_slices();
        let mut sent = 0_usize;
        let mut stopped = None;
        for &byte in head.iter().chain(tail).take(BYTES_A_VISIT) {
            let full_until = |pace: &Pace| pace.full_until(now_ns());
            stopped = pace.as_ref().and_then(full_until).map(Left::Until);
            if stopped.is_none() && uart.is_full() {
                let soon = || Left::Until(now_ns().saturating_add(SOON_NS));
                stopped = Some(if self.has_interrupt {
                    Left::UntilInterrupt
                } else {
                    soon()
                });
            }
            if stopped.is_some() {
                break;
            }
            uart.send(byte);
            sent = sent.saturating_add(1);
            if let Some(pace) = pace {
                pace.sent(now_ns());
            }
        }
        drop(self.waiting.drain(..sent));
        if !self.waiting.is_empty() {
            return stopped.unwrap_or_else(|| Left::Until(now_ns().saturating_add(SOON_NS)));
        }
        if self.waiting.capacity() > RING_BYTES {
            self.waiting.shrink_to(RING_BYTES);
        }
        Left::Nothing
    }
}

/// Never waits: what the UART takes goes there at once if nothing is before it, so that the queue costs nothing where the wire is
/// fast. Without memory for a long reply its end is left out.
impl<U: Transmit> ByteSink for Outlet<U> {
    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes.iter();
        if self.waiting.is_empty() && self.pace.is_none() {
            for _ in 0..bytes.len().min(BYTES_A_VISIT) {
                if self.uart.is_full() {
                    break;
                }
                rest.next().iter().for_each(|&&byte| self.uart.send(byte));
            }
        }
        let rest = rest.as_slice();
        if !rest.is_empty() && self.waiting.try_reserve(rest.len()).is_ok() {
            self.waiting.extend(rest);
        }
    }

    #[inline]
    fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::cell::Cell;
    use proptest::prelude::*;

    /// A PL011's transmit side by the rules of Arm DDI0183 (2.8, 3.3); it fails on a byte without room.
    #[derive(Debug, Default)]
    struct Pl011 {
        fifo: VecDeque<u8>,
        wire: Vec<u8>,
        /// RIS.TXRIS and IMSC.TXIM.
        raw: bool,
        mask: bool,
    }

    impl Pl011 {
        const DEPTH: usize = 32;
        /// IFLS at reset: half.
        const TRIGGER: usize = 16;

        /// A byte leaves for the wire: the interrupt is raised in passing the level.
        fn tick(&mut self) {
            if let Some(byte) = self.fifo.pop_front() {
                self.wire.push(byte);
                self.raw |= self.fifo.len() == Self::TRIGGER;
            }
        }

        /// MIS.TXMIS, the interrupt's line.
        fn line(&self) -> bool {
            self.raw && self.mask
        }
    }

    impl Transmit for Pl011 {
        fn is_full(&self) -> bool {
            self.fifo.len() == Self::DEPTH
        }

        fn send(&mut self, byte: u8) {
            assert!(!self.is_full(), "a byte was lost");
            self.fifo.push_back(byte);
            if self.fifo.len() > Self::TRIGGER {
                self.raw = false;
            }
        }

        fn ask(&mut self, wanted: bool) {
            self.mask = wanted;
        }
    }

    /// QEMU's: it is never full, and raises its interrupt with each byte.
    #[derive(Debug, Default)]
    struct Endless {
        sent: usize,
        asked: bool,
    }

    impl Transmit for Endless {
        fn is_full(&self) -> bool {
            false
        }

        fn send(&mut self, _: u8) {
            self.sent += 1;
        }

        fn ask(&mut self, wanted: bool) {
            self.asked |= wanted;
        }
    }

    fn no_clock() -> u64 {
        0
    }

    #[test]
    fn a_full_fifo_asks_for_the_interrupt_and_an_empty_queue_does_not() {
        let mut outlet = Outlet::new(Pl011::default(), true, None);
        assert_eq!(outlet.drain(&no_clock), Left::Nothing);
        outlet.put(&[b'x'; Pl011::DEPTH]);
        assert_eq!(outlet.drain(&no_clock), Left::Nothing);
        assert!(!outlet.uart.mask, "nothing waits");
        outlet.put(b"y");
        assert_eq!(outlet.drain(&no_clock), Left::UntilInterrupt);
        assert!(outlet.uart.mask && !outlet.uart.line());
        for _ in Pl011::TRIGGER..Pl011::DEPTH {
            assert!(!outlet.uart.line(), "above the level");
            outlet.uart.tick();
        }
        assert!(outlet.uart.line(), "at the level");
        assert_eq!(outlet.drain(&no_clock), Left::Nothing);
        assert!(!outlet.uart.mask && outlet.waiting() == 0);
    }

    #[test]
    fn a_uart_that_is_never_full_gets_so_much_a_visit_and_is_never_asked() {
        let mut outlet = Outlet::new(Endless::default(), true, None);
        outlet.put(&[b'x'; BYTES_A_VISIT * 3 + 1]);
        assert_eq!(outlet.uart.sent, BYTES_A_VISIT, "at once");
        for visit in 2..=3 {
            assert_eq!(outlet.drain(&|| 7), Left::Until(7 + SOON_NS));
            assert_eq!(outlet.uart.sent, visit * BYTES_A_VISIT);
        }
        assert_eq!(outlet.drain(&|| 7), Left::Nothing);
        assert!(!outlet.uart.asked);
    }

    #[test]
    fn a_uart_without_an_interrupt_is_looked_at_again() {
        let mut outlet = Outlet::new(Pl011::default(), false, None);
        outlet.put(&[b'x'; Pl011::DEPTH + 1]);
        assert_eq!(outlet.drain(&|| 7), Left::Until(7 + SOON_NS));
        assert!(!outlet.uart.mask);
    }

    #[test]
    fn a_paced_uart_sends_no_faster_than_its_wire() {
        const BAUD: u64 = 115_200;
        let pace = NonZeroU32::new(BAUD as u32).map(Pace::new);
        let mut outlet = Outlet::new(Endless::default(), true, pace);
        outlet.put(&[b'x'; 4000]);
        let now = Cell::new(5_000_000_000);
        let start = now.get();
        let mut visits = 0;
        while let Left::Until(at) = outlet.drain(&|| now.get()) {
            assert!(at > now.get(), "time goes on");
            visits += 1;
            now.set(at);
            let most = (at - start) * BAUD / 10_000_000_000 + Pace::FIFO + 1;
            assert!(outlet.uart.sent as u64 <= most, "{}", outlet.uart.sent);
        }
        assert_eq!(outlet.uart.sent, 4000);
        let took = now.get() - start;
        assert!((340_000_000..350_000_000).contains(&took), "{took} ns");
        assert!(visits <= 4000 / 8 && !outlet.uart.asked);
        assert_eq!(outlet.drain(&|| now.get()), Left::Nothing);
    }

    #[test]
    fn a_long_reply_gives_its_memory_back() {
        let mut outlet = Outlet::new(Endless::default(), true, None);
        let room = outlet.waiting.capacity();
        outlet.put(&[b'x'; 100 * RING_BYTES]);
        while outlet.drain(&no_clock) != Left::Nothing {}
        assert_eq!(outlet.waiting.capacity(), room);
    }

    proptest! {
        /// Whatever is said, and whenever bytes leave: all of it is sent, in order, by the interrupt alone.
        #[test]
        fn everything_is_sent_in_order(steps in proptest::collection::vec((0usize..300, 0usize..100), 1..40)) {
            let mut outlet = Outlet::new(Pl011::default(), true, None);
            let mut said = Vec::new();
            for (count, ticks) in steps {
                let bytes: Vec<u8> = (0..count).map(|n| (said.len() + n) as u8).collect();
                said.extend_from_slice(&bytes);
                outlet.put(&bytes);
                let mut left = outlet.drain(&no_clock);
                for _ in 0..ticks {
                    outlet.uart.tick();
                    if outlet.uart.line() {
                        left = outlet.drain(&no_clock);
                    }
                }
                prop_assert_eq!(left == Left::Nothing, outlet.waiting() == 0);
                prop_assert_eq!(outlet.uart.mask, outlet.waiting() != 0, "masked when nothing waits");
            }
            for _ in 0..said.len() {
                outlet.uart.tick();
                if outlet.uart.line() {
                    let before = outlet.waiting();
                    let _ = outlet.drain(&no_clock);
                    prop_assert!(outlet.waiting() < before || before == 0, "an interrupt for nothing");
                }
            }
            prop_assert_eq!(outlet.uart.wire, said);
        }
    }
}
