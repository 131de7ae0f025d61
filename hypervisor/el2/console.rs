//! The two UARTs and the console behind them: bytes in, commands to [`crate::vms`], answers and guests' output out.
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
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use spin::Once;
use types::devices::DeviceId;
use types::ids::{MAX_VMS, PcpuId, VmId};
use vmm::devices::Fed;
use vmm::sync::{FairMutex, FairMutexGuard};
use vmm::vm::{Around, Kicks, Vm};

use crate::uart::Uart;
use crate::vms::El2;
use crate::{clock, deferred, percpu, vms};

/// How long to wait before a byte that was not taken is offered again.
const RETRY_NS: u64 = 1_000_000;
/// How often a CPU looks for output in a row, and how many bytes of a VM it shows each time.
const ROUNDS: usize = 4;
const BYTES_A_ROUND: usize = 64;
/// How many pieces of a port's bytes are taken before guests get their turn: more than a UART brings before the next look, and no
/// more however fast they come.
const PIECES_A_POLL: usize = 64;
/// Bytes of the control channel that are looked at together.
const PIECE: usize = 64;
/// How many rows of an answer are written at a visit, and when the next are if nothing else says so.
const ROWS_A_VISIT: usize = 4;
const SOON_NS: u64 = 100_000;

/// The console and its ports.
struct State {
    console: Box<Console>,
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
const PORTS: [Port; 2] = [Port::Terminal, Port::Control];
static INTERRUPTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

impl State {
    fn with<R>(&mut self, work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> R {
        self.busy = true;
        let (terminal, control) = (&mut self.terminal, &mut self.control);
        work(&mut self.console, &mut Sinks { terminal, control })
    }

    /// Returns whether a port shows single vCPUs' events.
    fn is_heard(&self) -> bool {
        self.control.is_some() || self.console.tells_events()
    }

    /// Has the ports ask for no interrupts or for some: a level interrupt stays asserted until all bytes are taken.
    fn set_masked(&mut self, masked: bool) {
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

    /// Takes some of a port's bytes; returns the request that they end, and whether there were no more. Without bytes the error says
    /// whether some have to wait there.
    fn take_piece(&mut self, port: Port) -> Result<(Option<Request>, bool), bool> {
        let mut piece = [0; PIECE];
        let room = match port {
            // What is typed may change what the next key means.
            Port::Terminal => &mut piece[..1],
            Port::Control => &mut piece[..],
        };
        let uart = self.uart(port).ok_or(false)?;
        let is_typed = port == Port::Terminal && uart.has_byte();
        let waits = is_typed && !self.console.accepts_input(clock::now_ns());
        if waits || vms::is_awaited() || self.busy && !self.has_room(port) {
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
                again = clock::earlier(again, Some(ns));
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
        clock::earlier(again, is_idle.then(|| clock::now_ns() + SOON_NS))
    }

    /// Has guests go on whose output waited, if there is room for it.
    #[cold]
    fn release(&mut self) {
        let held = core::mem::take(&mut self.held);
        for vm in vms::vms().all().iter().map(|instance| instance.vm) {
            let own = output_bit(vm);
            if held & own == 0 {
                continue;
            }
            match self.with(|console, sinks| console.accepts_output(vm.id, sinks)) {
                true => note_output(vm),
                false => self.held |= own,
            }
        }
    }
}

/// Gives the console back after sending what can be sent; the boot CPU goes on with what is left, if no interrupt does.
#[inline]
fn finish(mut state: FairMutexGuard<'_, State>) {
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

/// Makes the console for the VMs with these names.
#[inline(never)]
pub(crate) fn start(
    names: Vec<String>,
    ports: [Option<(Uart, Option<u32>)>; 2],
    attach: Option<VmId>,
    pace: Option<Pace>,
) {
    let outlet = |(uart, intid): (Uart, Option<u32>)| Outlet::new(uart, intid.is_some(), pace);
    let [terminal, control] = ports.map(|port| port.map(outlet));
    for (own, port) in INTERRUPTS.iter().zip(ports) {
        let intid = port.and_then(|port| port.1).unwrap_or(0);
        own.store(intid, Ordering::Relaxed);
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
    listen(heard);
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

/// Has vCPUs that come and go be noted or not, after what was typed may have changed that; no lock is held.
fn listen(heard: bool) {
    if HEARD.swap(heard, Ordering::AcqRel) != heard {
        vms::vms().watch();
    }
}

/// Shows what a VM has sent.
pub(crate) fn drain(vm: &'static Vm) {
    note_output(vm);
    show_waiting();
}

const fn output_bit(vm: &Vm) -> u64 {
    1 << (vm.id.index() % MAX_VMS)
}

fn note_output(vm: &Vm) {
    OUTPUT.fetch_or(output_bit(vm), Ordering::AcqRel);
    fence(Ordering::SeqCst);
}

/// Works with the console, then shows what others could not show meanwhile.
fn with_console<R>(work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> Option<R> {
    let mut state = STATE.get()?.lock();
    let result = state.with(work);
    finish(state);
    show_waiting();
    Some(result)
}

/// Returns whether VMs have sent something. Asked after the console is given back: a CPU notes first that there is something, then tries
/// the lock, so one of the two sees the other.
#[inline]
fn is_waiting() -> bool {
    fence(Ordering::SeqCst);
    OUTPUT.load(Ordering::Relaxed) != 0
}

/// Shows what VMs have sent, if they have.
#[inline]
fn show_waiting() {
    if is_waiting() {
        show_all();
    }
}

/// Shows what VMs have sent, unless another CPU has the console: it comes here when it has let go.
///
/// Only so much at once, for a guest that sends without end must not keep this CPU: the boot CPU goes on.
#[inline(never)]
fn show_all() {
    let Some(state) = STATE.get() else { return };
    for _ in 0..ROUNDS {
        if !is_waiting() {
            return;
        }
        let Some(mut state) = state.try_lock() else {
            return;
        };
        let mut waiting = OUTPUT.swap(0, Ordering::AcqRel);
        while waiting != 0 {
            let index = waiting.trailing_zeros();
            waiting &= waiting - 1;
            if let Some(vm) = vms::vms().vm(VmId::new(index as u16)) {
                show(&mut state, vm);
            }
        }
        finish(state);
    }
    if is_waiting() {
        deferred::ask(PcpuId::new(0));
    }
}

/// Moves some bytes from a VM's UART to the terminal, as far as there is room.
fn show(state: &mut State, vm: &'static Vm) {
    let mut kicks = Kicks::NONE;
    let mut room = BYTES_A_ROUND;
    loop {
        if room == 0 {
            note_output(vm);
            break;
        }
        room -= 1;
        if !state.with(|console, sinks| console.accepts_output(vm.id, sinks)) {
            state.held |= output_bit(vm);
            break;
        }
        let mut around = Around::new(vm, DeviceId::Uart, &El2, &mut kicks);
        let Some(byte) = vm.devices.uart.take(&mut around) else {
            break;
        };
        state.with(|console, sinks| console.guest_output(vm.id, &[byte], sinks));
    }
    percpu::kick(kicks);
}

/// Handles a physical interrupt, if it is one of the ports': takes what has come.
pub(crate) fn interrupt(intid: u32) {
    let Some(state) = STATE.get() else { return };
    let (mut again, mut is_ours) = (false, false);
    for (port, own) in PORTS.iter().zip(&INTERRUPTS) {
        if own.load(Ordering::Relaxed) == intid {
            is_ours = true;
            again |= poll_port(state, *port);
        }
    }
    if again {
        state.lock().set_masked(true);
        deferred::ask_boot_cpu_soon();
    }
    if !is_ours {
        log::warn!("interrupt {intid} is nobody's");
    }
    show_waiting();
}

/// Takes the bytes that have come, carries out the commands in them and what the console does by itself, and sends what waits; returns
/// when to look again, in nanoseconds since start.
pub(crate) fn poll() -> Option<u64> {
    let state = STATE.get()?;
    let again = PORTS.map(|port| poll_port(state, port)).contains(&true);
    show_waiting();
    let mut guard = state.lock();
    guard.set_masked(again);
    let next = guard.drain();
    // Last, so that what asks for the timer from here on is not overruled.
    let next = clock::earlier(next, again.then(retry_ns));
    guard.timed = next.is_some();
    let due = guard.console.due_ns();
    let request = due.and_then(|_| guard.console.tick(clock::now_ns()));
    let next = clock::earlier(next, guard.console.due_ns());
    drop(guard);
    if let Some(Request { token, command }) = request {
        vms::execute(token, command);
    }
    // What a CPU brought that found the console taken, and what may go on since: no other CPU looks.
    clock::earlier(next, is_waiting().then(retry_ns))
}

/// Takes a port's bytes; returns whether some were left, in the port or on their way to a guest.
fn poll_port(state: &FairMutex<State>, port: Port) -> bool {
    match port {
        Port::Control => take(state, port),
        Port::Terminal => take(state, port) | feed_guests(state),
    }
}

/// Takes a port's bytes and carries out the commands in them; returns whether bytes have to wait there.
fn take(state: &FairMutex<State>, port: Port) -> bool {
    for _ in 0..PIECES_A_POLL {
        let mut guard = state.lock();
        let taken = guard.take_piece(port);
        let heard = guard.is_heard();
        // The transmit interrupt may have brought us here, and stays until something is sent.
        finish(guard);
        let (request, is_last) = match taken {
            Ok(taken) => taken,
            Err(waits) => return waits,
        };
        listen(heard);
        if let Some(Request { token, command }) = request {
            vms::execute(token, command);
        } else if is_last {
            // What has come since interrupts once more.
            return false;
        }
    }
    true
}

/// Hands typed bytes to the guest they are for; returns whether some had to wait.
fn feed_guests(state: &FairMutex<State>) -> bool {
    let mut kicks = Kicks::NONE;
    let waits = loop {
        let mut guard = state.lock();
        let Some(vm) = guard
            .console
            .guest_input_waits()
            .and_then(|id| vms::vms().vm(id))
        else {
            break false;
        };
        let mut around = Around::new(vm, DeviceId::Uart, &El2, &mut kicks);
        let next = || guard.console.pop_guest_input(vm.id);
        match vm.devices.uart.feed(&mut around, next) {
            Fed::Byte => {}
            Fed::Nothing => break false,
            Fed::Full => break true,
        }
    };
    percpu::kick(kicks);
    waits
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
