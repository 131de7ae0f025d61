//! What comes by the console's ports: requests are carried out, and what is typed for a guest is handed to it.

use control_plane::console::{Port, Request};
use types::devices::DeviceId;
use vmm::devices::Fed;
use vmm::ops::earlier;
use vmm::sync::FairMutex;
use vmm::vm::{Around, Kicks};

use super::output::show_waiting;
use super::{El2, OPERATOR, vms};
use crate::console::{self, State};
use crate::{deferred, percpu};

/// How many pieces of a port's bytes are taken before guests get their turn: more than a UART brings before the next look, and no
/// more however fast they come.
const PIECES_A_POLL: usize = 64;

/// Has vCPUs that come and go be noted or not, after what was typed may have changed that; no lock is held.
pub(crate) fn listen(heard: bool) {
    if console::hear(heard) {
        vms().watch();
    }
}

/// Handles a physical interrupt, if it is one of the ports': takes what has come.
pub(crate) fn interrupt(intid: u32) {
    let Some(state) = console::state() else {
        return;
    };
    let (mut again, mut is_ours) = (false, false);
    for port in console::ports_of(intid) {
        is_ours = true;
        again |= poll_port(state, port);
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
pub(super) fn poll() -> Option<u64> {
    let state = console::state()?;
    let has_waiting = console::PORTS
        .map(|port| poll_port(state, port))
        .contains(&true);
    show_waiting();
    let (next, request) = state.lock().attend(has_waiting);
    if let Some(Request { token, command }) = request {
        vms().execute(&OPERATOR, token, command);
    }
    // What a CPU brought that found the console taken, and what may go on since: no other CPU looks.
    earlier(next, console::is_waiting().then(console::retry_ns))
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
        let taken = guard.take_piece(port, OPERATOR.is_awaited());
        let heard = guard.is_heard();
        // The transmit interrupt may have brought us here, and stays until something is sent.
        console::finish(guard);
        let (request, is_last) = match taken {
            Ok(taken) => taken,
            Err(waits) => return waits,
        };
        listen(heard);
        if let Some(Request { token, command }) = request {
            vms().execute(&OPERATOR, token, command);
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
            .and_then(|id| vms().vm(id))
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
