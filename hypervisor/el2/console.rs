//! The two UARTs and the console behind them: bytes in, commands to [`crate::vms`], answers and guests' output out.
//!
//! Whoever has something to show tries the console's lock; if another CPU holds it, that one shows it after it has let go. The
//! console's lock is taken before any device's and held while none of a VM's is.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use control_plane::console::{
    ByteSink, CommandError, Console, EscapeKey, Event, Port, Reply, Request, Sinks, Token,
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spin::Once;
use types::ids::{MAX_VMS, PcpuId, VmId};
use vmm::sync::FairMutex;
use vmm::vm::{Kicks, Vm};

use crate::uart::Uart;
use crate::{clock, deferred, percpu, vms};

/// How long to wait before a byte that nobody took is offered again.
const RETRY_NS: u64 = 1_000_000;
/// How often a CPU looks for output in a row, and how many bytes of a VM it shows each time.
const ROUNDS: usize = 4;
const BYTES_A_ROUND: usize = 64;
/// How many pieces of a port's bytes are taken before guests get their turn: more than a UART brings before the next look, and no
/// more however fast they come.
const PIECES_A_POLL: usize = 64;
/// Bytes of the control channel that are looked at together.
const PIECE: usize = 64;

/// The console and its ports.
struct State {
    console: Box<Console>,
    terminal: Option<Uart>,
    control: Option<Uart>,
    /// The ports ask for no interrupts, because bytes have to wait there.
    masked: bool,
}

static STATE: Once<FairMutex<State>> = Once::new();
/// VMs whose UARTs have bytes to show, a bit each.
static OUTPUT: AtomicU64 = AtomicU64::new(0);
/// Whether a port shows single vCPUs' events.
static HEARD: AtomicBool = AtomicBool::new(false);
/// The ports, and their INTIDs; 0 for none.
const PORTS: [Port; 2] = [Port::Terminal, Port::Control];
static INTERRUPTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

impl ByteSink for Uart {
    fn put(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.send(*byte));
    }
}

impl State {
    fn with<R>(&mut self, work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> R {
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
        let ports = [self.terminal, self.control];
        ports.into_iter().flatten().for_each(change);
    }
}

/// Makes the console for the VMs with these names.
#[inline(never)]
pub(crate) fn start(
    names: Vec<String>,
    ports: [Option<(Uart, Option<u32>)>; 2],
    attach: Option<VmId>,
) {
    let [terminal, control] = ports;
    for (own, port) in INTERRUPTS.iter().zip(ports) {
        let intid = port.and_then(|port| port.1).unwrap_or(0);
        own.store(intid, Ordering::Relaxed);
    }
    let state = STATE.call_once(|| {
        FairMutex::new(State {
            console: make(names),
            terminal: terminal.map(|port| port.0),
            control: control.map(|port| port.0),
            masked: true,
        })
    });
    let mut state = state.lock();
    state.with(|console, sinks| console.start(attach, sinks));
    state.set_masked(false);
    let heard = state.is_heard();
    drop(state);
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

fn note_output(vm: &Vm) {
    OUTPUT.fetch_or(1 << (vm.id.index() % MAX_VMS), Ordering::AcqRel);
}

/// Works with the console, then shows what others could not show meanwhile.
fn with_console<R>(work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> Option<R> {
    let result = STATE.get()?.lock().with(work);
    show_waiting();
    Some(result)
}

/// Shows what VMs have sent, if they have.
#[inline]
fn show_waiting() {
    if OUTPUT.load(Ordering::Acquire) != 0 {
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
        if OUTPUT.load(Ordering::Acquire) == 0 {
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
    }
    if OUTPUT.load(Ordering::Acquire) != 0 {
        deferred::ask(PcpuId::new(0));
    }
}

/// Moves some bytes from a VM's UART to the terminal.
fn show(state: &mut State, vm: &'static Vm) {
    let mut kicks = Kicks::NONE;
    let mut room = BYTES_A_ROUND;
    loop {
        if room == 0 {
            note_output(vm);
            break;
        }
        room -= 1;
        let Some((byte, line)) = vm.uart.lock().pop_transmit() else {
            break;
        };
        state.with(|console, sinks| console.guest_output(vm.id, &[byte], sinks));
        if let Some(high) = line {
            vm.set_line(vm.layout.uart.intid, high, &mut kicks);
        }
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

/// Takes the bytes that have come and carries out the commands in them; returns whether to look again soon.
pub(crate) fn poll() -> bool {
    let Some(state) = STATE.get() else {
        return false;
    };
    let again = PORTS.map(|port| poll_port(state, port)).contains(&true);
    state.lock().set_masked(again);
    show_waiting();
    again
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
    let mut piece = [0; PIECE];
    for _ in 0..PIECES_A_POLL {
        if vms::is_awaited() {
            return true;
        }
        let mut guard = state.lock();
        let (uart, room) = match port {
            // What is typed may change what the next key means.
            Port::Terminal => (guard.terminal, &mut piece[..1]),
            Port::Control => (guard.control, &mut piece[..]),
        };
        let Some(uart) = uart else { return false };
        let is_typed = port == Port::Terminal && uart.has_byte();
        if is_typed && !guard.console.accepts_input(clock::now_ns()) {
            return true;
        }
        let count = uart.receive(room);
        let bytes = &room[..count];
        if bytes.is_empty() {
            return false;
        }
        let request = guard.with(|console, sinks| console.input(port, bytes, sinks));
        let heard = guard.is_heard();
        drop(guard);
        listen(heard);
        if let Some(Request { token, command }) = request {
            vms::execute(token, command);
        } else if count < room.len() {
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
        let mut uart = vm.uart.lock();
        if !uart.rx_room() {
            break true;
        }
        let Some(byte) = guard.console.pop_guest_input(vm.id) else {
            break false;
        };
        let effect = uart.receive(byte);
        drop(uart);
        if let Some(high) = effect.line {
            vm.set_line(vm.layout.uart.intid, high, &mut kicks);
        }
    };
    percpu::kick(kicks);
    waits
}

/// When to poll again after [`poll`] said so, in nanoseconds since start.
pub(crate) fn retry_ns() -> u64 {
    clock::now_ns() + RETRY_NS
}

/// Answers a request.
pub(crate) fn reply(token: Token, result: &Result<Reply, CommandError>) {
    with_console(|console, sinks| console.reply(token, result, sinks));
}

/// Tells an event, before which so many of its VM were lost.
pub(crate) fn event(event: &Event, lost: u32) {
    with_console(|console, sinks| console.event(event, lost, sinks));
}
