//! The two UARTs and the console behind them: bytes in, commands to [`crate::vms`], answers and guests' output out.
//!
//! Whoever has something to show tries the console's lock; if another CPU holds it, that one shows it after it has let go. The
//! console's lock is taken before any device's and held while none of a VM's is.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use spin::mutex::SpinMutex;
use vmm::config::MAX_VMS;
use vmm::console::{ByteSink, Console, EscapeKey, Event, Port, Request, Silent, Sinks};
use vmm::console::{CommandError, Reply, Token};
use vmm::ids::{PcpuId, VmId};
use vmm::vm::{Kicks, Vm};

use crate::uart::Uart;
use crate::{clock, percpu, run, vms};

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
}

static STATE: Once<SpinMutex<State>> = Once::new();
/// VMs whose UARTs have bytes to show, a bit each.
static OUTPUT: AtomicU64 = AtomicU64::new(0);
/// INTIDs of the two ports.
static INTERRUPTS: Once<[Option<u32>; 2]> = Once::new();

impl ByteSink for Uart {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(*byte);
        }
    }
}

impl State {
    fn with<R>(&mut self, work: impl FnOnce(&mut Console, &mut Sinks<'_>) -> R) -> R {
        let (mut no_terminal, mut no_control) = (Silent, Silent);
        let terminal: &mut dyn ByteSink = match &mut self.terminal {
            Some(uart) => uart,
            None => &mut no_terminal,
        };
        let control: &mut dyn ByteSink = match &mut self.control {
            Some(uart) => uart,
            None => &mut no_control,
        };
        work(&mut self.console, &mut Sinks { terminal, control })
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
    INTERRUPTS.call_once(|| {
        [
            terminal.and_then(|port| port.1),
            control.and_then(|port| port.1),
        ]
    });
    let state = STATE.call_once(|| {
        SpinMutex::new(State {
            console: make(names),
            terminal: terminal.map(|port| port.0),
            control: control.map(|port| port.0),
        })
    });
    state
        .lock()
        .with(|console, sinks| console.start(attach, sinks));
    for (uart, _) in [terminal, control].into_iter().flatten() {
        uart.enable_receive_interrupt();
    }
}

/// Makes the console on the heap; its lines would fill a good part of a stack, so they pass over it here only.
#[inline(never)]
fn make(names: Vec<String>) -> Box<Console> {
    Box::new(Console::new(names, EscapeKey::DEFAULT))
}

/// Returns whether somebody listens for events.
pub(crate) fn has_control() -> bool {
    STATE
        .get()
        .is_some_and(|state| state.lock().control.is_some())
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

/// Shows what VMs have sent, unless another CPU has the console: it comes here when it has let go.
///
/// Only so much at once, for a guest that sends without end must not keep this CPU: the boot CPU goes on.
fn show_waiting() {
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
            if let Some(vm) = vms::vm(VmId::new(index as u16)) {
                show(&mut state, vm);
            }
        }
    }
    if OUTPUT.load(Ordering::Acquire) != 0 {
        run::ask_chores(PcpuId::new(0));
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

/// Handles a physical interrupt, if it is one of the ports': the boot CPU will look.
pub(crate) fn interrupt(intid: u32) {
    let Some(ports) = INTERRUPTS.get() else {
        return;
    };
    if ports.contains(&Some(intid)) {
        let Some(state) = STATE.get() else { return };
        let state = state.lock();
        // A level interrupt stays asserted until the byte is taken: silent until then.
        for uart in [state.terminal, state.control].into_iter().flatten() {
            uart.mask_receive_interrupt();
        }
        run::ask_chores(percpu::this().id);
    } else {
        log::warn!("interrupt {intid} is nobody's");
    }
}

/// Takes the bytes that have come and carries out the commands in them; returns whether to look again soon.
pub(crate) fn poll() -> bool {
    let Some(state) = STATE.get() else {
        return false;
    };
    let mut again = false;
    for port in [Port::Terminal, Port::Control] {
        again |= poll_port(state, port);
    }
    again |= feed_guests(state);
    if !again {
        let state = state.lock();
        for uart in [state.terminal, state.control].into_iter().flatten() {
            uart.enable_receive_interrupt();
        }
    }
    show_waiting();
    again
}

/// Takes a port's bytes; returns whether some were left.
fn poll_port(state: &SpinMutex<State>, port: Port) -> bool {
    for _ in 0..PIECES_A_POLL {
        let mut guard = state.lock();
        let uart = match port {
            Port::Terminal => guard.terminal,
            Port::Control => guard.control,
        };
        let Some(uart) = uart.filter(|uart| uart.has_byte()) else {
            return false;
        };
        if !guard.console.accepts_input(port, clock::now_ns()) {
            return true;
        }
        // What is typed may change what the next key means.
        let most = if port == Port::Control { PIECE } else { 1 };
        let mut piece = heapless::Vec::<u8, PIECE>::new();
        piece.extend(core::iter::from_fn(|| uart.receive()).take(most));
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let (taken, request) = guard.with(|console, sinks| console.input(port, rest, sinks));
            rest = rest.get(taken..).unwrap_or_default();
            if let Some(Request { token, command }) = request {
                drop(guard);
                vms::execute(token, command);
                guard = state.lock();
            }
        }
    }
    true
}

/// Hands typed bytes to the guest they are for; returns whether some had to wait.
fn feed_guests(state: &SpinMutex<State>) -> bool {
    let mut kicks = Kicks::NONE;
    let waits = loop {
        let mut guard = state.lock();
        let Some(vm) = guard.console.guest_input_waits().and_then(vms::vm) else {
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
