//! Adding a vCPU and giving it back, in phases: from the operator's command to the added vCPU's first instruction, and
//! from the command that asks it back until its CPU is free.
//!
//! Every CPU is in WFI and no timer is armed when the command comes, so QEMU's clock stands still until its first byte
//! arrives: what is counted begins with the hypervisor's receiving it. Needs a harness that answers (`asked`). The word
//! `reserve-off` says that the vCPU's CPU is off while it is in reserve: that is checked, and the rows end in `-psci-off`.

use crate::paths::{self, MAILBOX};
use crate::report::{Samples, nanoseconds, ticks};
use guest_rt::gic::sgi_word;
use guest_rt::{ask, cpu, exception, gic, insn, machine, mmio, println, psci, timer};

/// The vCPU hot-plug block (docs/hotplug-registers.md): EVENT.
const EVENT: u64 = 0x090c_0000;
/// EVENT.VALID.
const VALID: u32 = 1 << 31;
/// The vCPUs' frames of 16 bytes: STA, EJECT, OST.
const FRAMES: u64 = EVENT + 0x1000;
/// The GED's interrupt.
const GED: u32 = 41;
/// Notify codes, as OST's source event.
const ADDED: u32 = 1;
const ASKED_BACK: u32 = 3;
/// OST's status "ejection in progress" (ACPI 6.5, 6.3.5).
const EJECTING: u32 = 0x84;
/// The vCPU that comes and goes.
const UID: u64 = 1;
/// Most rounds; the command line's `samples` may ask for fewer.
const ROUNDS_MAX: usize = 64;
/// How long the added vCPU gets before its stamp is read.
const PATIENCE_NS: u64 = 200_000;
/// The period of QEMU's round robin among CPUs: `-icount sleep=off` sometimes leaps by it when a byte arrives.
const LEAP_NS: u64 = 100_000_000;
/// How long the operator's reply may take, in seconds of the guest's time.
const REPLY_S: u64 = 30;

const NAMES: [&str; 8] = [
    "resize-to-ged",
    "ged-to-cpu-on",
    "cpu-on-to-first",
    "resize-to-first",
    "eject-to-ged",
    "ged-to-off",
    "ej0",
    "eject-to-free",
];

/// One round: the phases of NAMES in ticks.
type Round = [u64; NAMES.len()];

/// Measures the rounds and prints the rows; returns how many there are and how many gave no number.
pub fn run(samples: &mut Samples) -> (usize, usize) {
    gic::set_edge(GED, true);
    gic::route(GED, cpu::affinity());
    gic::enable(GED);
    gic::enable(paths::rows_sgi());
    gic::enable(timer::VIRTUAL_INTID);
    let mut rounds: [Round; ROUNDS_MAX] = [[0; NAMES.len()]; ROUNDS_MAX];
    let wanted = machine().number("samples").unwrap_or(20) as usize;
    let suffix = if reserve_is_off() { "-psci-off" } else { "" };
    let (mut count, mut leaps) = (0, 0);
    while let Some(slot) = rounds
        .get_mut(count)
        .filter(|_| count < wanted && leaps < wanted)
    {
        let Some(round) = round() else { break };
        *slot = round;
        if round.iter().all(|&phase| nanoseconds(phase) < LEAP_NS) {
            count += 1;
        } else {
            leaps += 1;
        }
    }
    if leaps > 0 {
        println!(
            "BENCH-NOTE elastic{suffix}: {leaps} rounds in which the clock leapt or the answer was early were done again"
        );
    }
    let mut failed = 0;
    for (phase, name) in NAMES.iter().enumerate() {
        samples.clear();
        for round in rounds.iter().take(count) {
            samples.add(nanoseconds(round.get(phase).copied().unwrap_or(0)));
        }
        if !samples.print(name, suffix) {
            failed += 1;
        }
    }
    (NAMES.len(), failed)
}

fn reserve_is_off() -> bool {
    machine().word("reserve-off")
}

fn round() -> Option<Round> {
    if reserve_is_off() {
        let host = ask::ask(format_args!("control host"))?;
        if host.text() != "ok 1" {
            println!("BENCH-FAILED elastic: CPUs that are on: {}", host.text());
            return None;
        }
    }
    let [ged, call, first, added] = add()?;
    let [back, off, write, free] = take_back()?;
    Some([ged, call, first, added, back, off, write, free])
}

/// Has the vCPU added and turns it on at a stub that notes the count and turns itself off.
fn add() -> Option<[u64; 4]> {
    MAILBOX.clear();
    let (asked, start, handler) = command(2);
    take_event(ADDED)?;
    report(ADDED, 0);
    timer::arm_virtual(timer::now() + ticks(PATIENCE_NS));
    let (call, answer) = paths::cpu_on(UID);
    // Another interrupt than the timer's may have ended the wait.
    let _ = paths::timer_waiting(timer::now() + ticks(PATIENCE_NS));
    let Some(first) = MAILBOX.stamp() else {
        println!("BENCH-FAILED elastic: CPU_ON gave {answer}, and nothing ran");
        return None;
    };
    // It is off again already, or almost: the operator is told whether it is.
    let told = replied(asked, &["partly 1", "done 2"]);
    if answer != psci::SUCCESS || !told || !cpu::wait_off(UID as usize) {
        println!("BENCH-FAILED elastic: CPU_ON gave {answer}");
        return None;
    }
    Some([handler - start, call - handler, first - call, first - start])
}

/// Has the vCPU asked back while it waits in WFI; turns it off and ejects it.
fn take_back() -> Option<[u64; 4]> {
    if cpu::start(UID as usize, until_told, 0) != psci::SUCCESS {
        return None;
    }
    let _ = paths::timer_waiting(timer::now() + ticks(PATIENCE_NS));
    let (asked, start, handler) = command(1);
    take_event(ASKED_BACK)?;
    report(ASKED_BACK, EJECTING);
    let off = paths::poll_until_off(sgi_word(UID, paths::rows_sgi()), UID);
    insn!("isb");
    let before = timer::now();
    mmio::write32(FRAMES + 16 * UID + 4, 1);
    let free = timer::now();
    report(ASKED_BACK, 0);
    replied(asked, &["done 1"]).then_some([
        handler - start,
        off - handler,
        free - before,
        free - start,
    ])
}

/// Has the operator ask for this many vCPUs; returns the question, and the count before and in the GED's handler.
///
/// On a machine that is slow, as one that is traced, the answer may come while the line is on its way. The GED then waits, for the guest
/// would take it for the timer's and sleep until the resize has timed out; and the round is no shorter than one with a leap.
fn command(vcpus: u32) -> (ask::Ticket, u64, u64) {
    gic::disable(GED);
    let asked = ask::send(format_args!(
        "later control vcpu set @ {vcpus} --timeout 30"
    ));
    // The line has left the hypervisor too when this is over, and the answer has not come yet.
    let _ = paths::timer_waiting(timer::now() + ticks(PATIENCE_NS));
    let is_early = gic::read_bit(gic::ISPENDR, GED);
    gic::enable(GED);
    let start = timer::now();
    let handler = paths::wait();
    let before = if is_early { ticks(LEAP_NS) } else { 0 };
    (asked, start.saturating_sub(before), handler)
}

/// Takes the event of which the GED tells.
fn take_event(code: u32) -> Option<()> {
    let event = mmio::read32(EVENT);
    let expected = VALID | code << 16 | UID as u32;
    if event != expected {
        println!("BENCH-FAILED elastic: EVENT is {event:#x}, not {expected:#x}");
        return None;
    }
    Some(())
}

fn report(source: u32, status: u32) {
    mmio::write32(FRAMES + 16 * UID + 8, source << 16 | status);
}

/// Waits for what the operator is told in the end; returns whether that is expected.
fn replied(asked: ask::Ticket, expected: &[&str]) -> bool {
    let reply = ask::await_reply(asked, REPLY_S * timer::frequency());
    let text = reply.as_ref().map_or("nothing", |reply| reply.text());
    let is_expected = expected.contains(&text);
    if !is_expected {
        println!("BENCH-FAILED elastic: the operator is told {text}");
    }
    is_expected
}

/// What the vCPU does before it is asked back.
fn until_told(_: u64) {
    paths::prepare_secondary();
    let _ = paths::wait();
    exception::mask();
}
