//! What goes to the console: answers, events, and what guests send.
//!
//! Whatever has worked with the console shows afterwards what other CPUs could not show meanwhile ([`show_waiting`]).

use alloc::string::{String, ToString};
use control_plane::console::{CommandError, Event, HostReport, Reply, Token};
use types::devices::DeviceId;
use types::ids::{PcpuId, VmId};
use vmm::cpu::Placements;
use vmm::ops::Console;
use vmm::vm::{Around, Kicks, Vm};

use super::{El2, vms};
use crate::console::{self, State};
use crate::{clock, deferred, logger, machine, memory, mmu, percpu, smp};

/// How often a CPU looks for output in a row, and how many bytes of a VM it shows each time.
const ROUNDS: usize = 4;
const BYTES_A_ROUND: usize = 64;
impl Console for El2 {
    fn accepts(&self, answer: Option<Token>) -> bool {
        console::accepts(answer)
    }

    fn reply(&self, token: Token, result: Result<Reply, CommandError>) {
        console::reply(token, result);
        show_waiting();
    }

    fn tell(&self, event: &Event, lost: u32) {
        console::event(event, lost);
        show_waiting();
    }

    fn retry_ns(&self) -> u64 {
        console::retry_ns()
    }

    fn ask_boot_cpu_soon(&self) {
        deferred::ask_boot_cpu_soon();
    }

    fn is_there(&self, cpu: PcpuId) -> bool {
        smp::is_there(cpu)
    }

    fn placements(&self) -> &'static Placements {
        percpu::placements()
    }

    fn log(&self) -> String {
        logger::text()
    }

    fn report(&self) -> HostReport {
        let facts = machine::facts();
        HostReport {
            version: env!("CARGO_PKG_VERSION"),
            machine: facts.machine.to_string(),
            cpus_online: smp::online() as u16,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            free_pages: memory::with_pool(|pool| pool.free_bytes()) / mmu::PAGE,
            page_bytes: mmu::PAGE,
            uptime_ns: clock::now_ns(),
        }
    }
}

/// Shows what a VM has sent.
pub(super) fn drain(vm: &'static Vm) {
    console::note_output(vm.id);
    show_waiting();
}

/// Shows what VMs have sent, if they have.
#[inline]
pub(super) fn show_waiting() {
    if console::is_waiting() {
        show_all();
    }
}

/// Shows what VMs have sent, unless another CPU has the console: it comes here when it has let go.
///
/// Only so much at once, for a guest that sends without end must not keep this CPU: the boot CPU goes on.
#[inline(never)]
fn show_all() {
    let Some(state) = console::state() else {
        return;
    };
    for _ in 0..ROUNDS {
        if !console::is_waiting() {
            return;
        }
        let Some(mut state) = state.try_lock() else {
            return;
        };
        let mut waiting = console::take_output();
        while waiting != 0 {
            let index = waiting.trailing_zeros();
            waiting &= waiting - 1;
            if let Some(vm) = vms().vm(VmId::new(index as u16)) {
                show(&mut state, vm);
            }
        }
        console::finish(state);
    }
    if console::is_waiting() {
        deferred::ask(PcpuId::new(0));
    }
}

/// Moves some bytes from a VM's UART to the terminal, as far as there is room.
fn show(state: &mut State, vm: &'static Vm) {
    let mut kicks = Kicks::NONE;
    let mut room = BYTES_A_ROUND;
    loop {
        if room == 0 {
            console::note_output(vm.id);
            break;
        }
        room -= 1;
        if !state.accepts_output(vm.id) {
            state.hold(vm.id);
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
