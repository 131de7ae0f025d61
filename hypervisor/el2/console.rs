//! The two UARTs and the console behind them: bytes in, requests, answers and guests' output out. It knows no VM but by its number:
//! `vms` carries requests out and moves what guests send and are sent.
//!
//! A CPU that has something to show tries the console's lock; if another CPU holds it, that one shows it after it has let go. The
//! console's lock is taken before any device's and held while none of a VM's is. Nothing waits for a wire: what a UART does not take
//! stays in its `Outlet`, which the UART's interrupt empties, or the boot CPU's timer. A guest whose output finds no room there keeps
//! it in its own UART.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use control_plane::console::{
    ByteSink, CommandError, Console, EscapeKey, Event, Left, Outlet, Pace, Port, Reply, Request,
    Sinks, Token,
};
use control_plane::host::Line;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use spin::Once;
use types::ids::{MAX_VMS, VmId};
use vmm::ops::earlier;
use vmm::sync::{FairMutex, FairMutexGuard};

use crate::uart::Uart;
use crate::{clock, deferred};

/// How long to wait before a byte that was not taken is offered again.
const RETRY_NS: u64 = 1_000_000;
/// Bytes of the control channel that are looked at together.
const PIECE: usize = 64;
/// How many rows of an answer are written at a visit, and when the next are if nothing else says so.
const ROWS_A_VISIT: usize = 4;
const SOON_NS: u64 = 100_000;

/// The console and its ports.
pub(crate) struct State {
    pub(crate) console: Box<Console>,
    terminal: Option<Outlet<Uart>>,
    control: Option<Outlet<Uart>>,
    /// The ports ask for no interrupts when bytes come, because bytes have to wait there.
    masked: bool,
    /// Something may wait to be sent or written.
    busy: bool,
    /// VMs whose output waits in their UARTs until the terminal has room, a bit each.
    held: u64,
    /// The boot CPU looks again by itself, because bytes wait that no interrupt sends.
    timed: bool,
}

static STATE: Once<FairMutex<State>> = Once::new();
/// VMs whose UARTs have bytes to show, a bit each.
static OUTPUT: AtomicU64 = AtomicU64::new(0);
/// Whether a port shows single vCPUs' events.
static HEARD: AtomicBool = AtomicBool::new(false);
/// The ports, and their INTIDs; 0 for none.
pub(crate) const PORTS: [Port; 2] = [Port::Terminal, Port::Control];
static INTERRUPTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

impl State {
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> R {
        self.busy = true;
        let (terminal, control) = (&mut self.terminal, &mut self.control);
        work(&mut self.console, &mut Sinks { terminal, control })
    }

    /// Returns whether a port shows single vCPUs' events.
    pub(crate) fn is_heard(&self) -> bool {
        self.control.is_some() || self.console.tells_events()
    }

    /// Has the ports ask for no interrupts or for some: a level interrupt stays asserted until all bytes are taken.
    pub(crate) fn set_masked(&mut self, masked: bool) {
        if core::mem::replace(&mut self.masked, masked) == masked {
            return;
        }
        let change = match masked {
            true => Uart::mask_receive_interrupt,
            false => Uart::enable_receive_interrupt,
        };
        let ports = [&self.terminal, &self.control];
        let uarts = ports.into_iter().flatten().map(Outlet::uart);
        uarts.for_each(change);
    }

    /// Sends what the ports take now, goes on with answers that are being written, and has guests go on whose output waited for
    /// that; returns when to look again, in nanoseconds since start, if no interrupt says so.
    fn drain(&mut self) -> Option<u64> {
        if self.is_busy() {
            self.drain_some()
        } else {
            None
        }
    }

    /// Returns whether something waits to be sent or written.
    #[inline]
    fn is_busy(&mut self) -> bool {
        let has_sent = self.terminal.waiting() | self.control.waiting() == 0;
        let has_written = !PORTS
            .map(|port| self.console.is_writing(port))
            .contains(&true);
        self.busy = !(has_sent && has_written && self.held == 0);
        self.busy
    }

    #[inline(never)]
    fn drain_some(&mut self) -> Option<u64> {
        let mut again = self.send();
        if PORTS.iter().any(|&port| self.console.is_writing(port)) {
            again = self.write_rows();
        }
        if self.held != 0 {
            self.release();
        }
        again
    }

    fn uart(&self, port: Port) -> Option<&Uart> {
        let outlet = match port {
            Port::Terminal => &self.terminal,
            Port::Control => &self.control,
        };
        outlet.as_ref().map(Outlet::uart)
    }

    /// Takes some of a port's bytes, unless they are to wait there; returns the request that they end, and whether there were no more.
    /// Without bytes the error says whether some have to wait.
    pub(crate) fn take_piece(
        &mut self,
        port: Port,
        is_to_wait: bool,
    ) -> Result<(Option<Request>, bool), bool> {
        let mut piece = [0; PIECE];
        let room = match port {
            // What is typed may change what the next key means.
            Port::Terminal => &mut piece[..1],
            Port::Control => &mut piece[..],
        };
        let uart = self.uart(port).ok_or(false)?;
        let is_typed = port == Port::Terminal && uart.has_byte();
        let waits = is_typed && !self.console.accepts_input(clock::now_ns());
        if waits || is_to_wait || self.busy && !self.has_room(port) {
            return Err(true);
        }
        let count = self.uart(port).map_or(0, |uart| uart.receive(room));
        let bytes = &room[..count];
        if bytes.is_empty() {
            return Err(false);
        }
        let request = self.with(|console, sinks| console.input(port, bytes, sinks));
        Ok((request, count < room.len()))
    }

    /// Returns whether a port has room for the answer to its next command.
    #[inline(never)]
    fn has_room(&mut self, port: Port) -> bool {
        self.with(|console, sinks| console.has_room(port, sinks))
    }

    fn send(&mut self) -> Option<u64> {
        let mut again = None;
        for port in [&mut self.terminal, &mut self.control] {
            let left = port.as_mut().map(|port| port.drain(&clock::now_ns));
            if let Some(Left::Until(ns)) = left {
                again = earlier(again, Some(ns));
            }
        }
        again
    }

    /// Writes some rows of the answers that are being written, and sends them.
    #[cold]
    fn write_rows(&mut self) -> Option<u64> {
        for port in PORTS {
            let row = |state: &mut Self| state.with(|console, sinks| console.go_on(port, sinks));
            // As many as there are room and patience for.
            let _rows = (0..ROWS_A_VISIT).take_while(|_| row(self)).count();
        }
        let again = self.send();
        let ports = [self.terminal.waiting(), self.control.waiting()];
        let mut ports = PORTS.into_iter().zip(ports);
        // What waits in an outlet brings us back.
        let is_idle = ports.any(|(port, waiting)| waiting == 0 && self.console.is_writing(port));
        earlier(again, is_idle.then(|| clock::now_ns() + SOON_NS))
    }

    /// Has guests go on whose output waited, if there is room for it.
    #[cold]
    fn release(&mut self) {
        let held = core::mem::take(&mut self.held);
        for index in (0..MAX_VMS as u16).filter(|index| held & 1 << index != 0) {
            self.release_vm(VmId::new(index));
        }
    }

    /// Has a guest's output go on, if there is room for it.
    fn release_vm(&mut self, vm: VmId) {
        match self.accepts_output(vm) {
            true => note_output(vm),
            false => self.hold(vm),
        }
    }

    /// Returns whether there is room for a VM's output.
    pub(crate) fn accepts_output(&mut self, vm: VmId) -> bool {
        self.with(|console, sinks| console.accepts_output(vm, sinks))
    }

    /// Has a VM's output wait in its UART until there is room.
    pub(crate) fn hold(&mut self, vm: VmId) {
        self.held |= output_bit(vm);
    }

    /// Sends what can be sent, for the boot CPU; returns when to look again. The ports ask for interrupts unless bytes have to wait there
    /// until then, and the request is what the console does by itself.
    pub(crate) fn attend(&mut self, has_waiting: bool) -> (Option<u64>, Option<Request>) {
        self.set_masked(has_waiting);
        let next = self.drain();
        // Last, so that what asks for the timer from here on is not overruled.
        let next = earlier(next, has_waiting.then(retry_ns));
        self.timed = next.is_some();
        let due = self.console.due_ns();
        let request = due.and_then(|_| self.console.tick(clock::now_ns()));
        (earlier(next, self.console.due_ns()), request)
    }
}

/// Gives the console back after sending what can be sent; the boot CPU goes on with what is left, if no interrupt does.
#[inline]
pub(crate) fn finish(mut state: FairMutexGuard<'_, State>) {
    if state.is_busy() {
        finish_busy(state);
    }
}

#[inline(never)]
fn finish_busy(mut state: FairMutexGuard<'_, State>) {
    let asks = state.drain_some().is_some() && !core::mem::replace(&mut state.timed, true);
    drop(state);
    if asks {
        deferred::ask_boot_cpu_soon();
    }
}

/// Makes the console for the VMs with these names; returns whether a port shows single vCPUs' events.
#[inline(never)]
pub(crate) fn start(
    names: Vec<String>,
    ports: [Option<(Uart, Option<Line>)>; 2],
    attach: Option<VmId>,
    pace: Option<Pace>,
) -> bool {
    let outlet = |(uart, line): (Uart, Option<Line>)| Outlet::new(uart, line.is_some(), pace);
    let [terminal, control] = ports.map(|port| port.map(outlet));
    for (own, port) in INTERRUPTS.iter().zip(ports) {
        let line = port.and_then(|port| port.1);
        own.store(line.map_or(0, |line| line.intid), Ordering::Relaxed);
    }
    let state = STATE.call_once(|| {
        FairMutex::new(State {
            console: make(names),
            terminal,
            control,
            masked: true,
            busy: true,
            held: 0,
            timed: false,
        })
    });
    let mut state = state.lock();
    state.with(|console, sinks| console.start(attach, sinks));
    state.set_masked(false);
    let heard = state.is_heard();
    finish(state);
    heard
}

/// Makes the console on the heap; its lines would fill a good part of a stack, so they pass over it here only.
#[inline(never)]
fn make(names: Vec<String>) -> Box<Console> {
    Box::new(Console::new(names, EscapeKey::DEFAULT))
}

/// Returns whether a port shows single vCPUs' events.
pub(crate) fn is_heard() -> bool {
    HEARD.load(Ordering::Acquire)
}

/// Notes whether a port shows single vCPUs' events; returns whether that has changed.
pub(crate) fn hear(heard: bool) -> bool {
    HEARD.swap(heard, Ordering::AcqRel) != heard
}

/// Returns the console, once it is made.
pub(crate) fn state() -> Option<&'static FairMutex<State>> {
    STATE.get()
}

/// Returns the port whose interrupt this is.
pub(crate) fn ports_of(intid: u32) -> impl Iterator<Item = Port> {
    let own = PORTS.into_iter().zip(&INTERRUPTS);
    own.filter_map(move |(port, own)| (own.load(Ordering::Relaxed) == intid).then_some(port))
}

const fn output_bit(vm: VmId) -> u64 {
    1 << (vm.index() % MAX_VMS)
}

/// Notes that a VM has sent something.
pub(crate) fn note_output(vm: VmId) {
    OUTPUT.fetch_or(output_bit(vm), Ordering::AcqRel);
    fence(Ordering::SeqCst);
}

/// Takes the VMs that have sent something, a bit each.
pub(crate) fn take_output() -> u64 {
    OUTPUT.swap(0, Ordering::AcqRel)
}

/// Works with the console.
fn with_console<R>(work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> Option<R> {
    let mut state = STATE.get()?.lock();
    let result = state.with(work);
    finish(state);
    Some(result)
}

/// Returns whether VMs have sent something. Asked after the console is given back: a CPU notes first that there is something, then tries
/// the lock, so one of the two sees the other.
#[inline]
pub(crate) fn is_waiting() -> bool {
    fence(Ordering::SeqCst);
    OUTPUT.load(Ordering::Relaxed) != 0
}

/// When to look again for what had to wait, in nanoseconds since start.
pub(crate) fn retry_ns() -> u64 {
    clock::now_ns() + RETRY_NS
}

/// Answers a request.
pub(crate) fn reply(token: Token, result: Result<Reply, CommandError>) {
    with_console(|console, sinks| console.reply(token, result, sinks));
}

/// Returns whether there is room for the answer to a request, or else for an event.
#[inline(never)]
pub(crate) fn accepts(answer: Option<Token>) -> bool {
    let Some(state) = STATE.get() else {
        return true;
    };
    state.lock().with(|console, sinks| match answer {
        Some(token) => console.accepts_reply(token, sinks),
        None => console.accepts_events(sinks),
    })
}

/// Returns whether something waits to be sent or written.
pub(crate) fn is_busy() -> bool {
    STATE.get().is_some_and(|state| state.lock().is_busy())
}

/// Tells an event, before which so many of its VM were lost.
pub(crate) fn event(event: &Event, lost: u32) {
    with_console(|console, sinks| console.event(event, lost, sinks));
}
