//! The rows of the table: each takes one sample, or says why it cannot.

use crate::cycles;
use crate::paths::{self, MAILBOX};
use crate::report::{SAMPLES_MAX, Samples, nanoseconds, ticks};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_rt::gic::{GICD_TYPER, ISENABLER, sgi_word};
use guest_rt::uart::FR;
use guest_rt::{cpu, exception, gic, insn, machine, println, psci, timer, uart, virtio};

/// How many samples a row takes unless the command line says otherwise.
const SAMPLES: u64 = 1000;
/// How long everything rests before a sample, so that every other CPU is in WFI.
const SETTLE_NS: u64 = 20_000;
/// How long a two-CPU operation gets before its result is read.
const PATIENCE_NS: u64 = 200_000;
/// How far ahead a timer is set.
const AHEAD_NS: u64 = 20_000;
/// Operations per sample where the counter is coarser than a nanosecond.
const COARSE_BATCH: u64 = 256;
/// A function that neither PSCI nor any other SMCCC service defines.
const UNKNOWN_FUNCTION: u64 = 0x8400_ff00;
/// An SPI that no device uses; its word of GICD_ISENABLER is the one written.
const SPARE_WORD: u64 = 4;

/// The vCPU that shares vCPU 0's CPU, where CPUs are shared: four vCPUs run on two CPUs in turn.
const PARTNER: usize = 2;
/// Samples of a row that waits for whole slices of a scheduler: each takes tens of milliseconds.
const CONTENDED_SAMPLES: u64 = 5;
/// Longer than a slice: what a vCPU that waits for its end gets.
const CONTENDED_NS: u64 = 15_000_000;

/// One sample in nanoseconds or cycles, or `None` when the operation did not happen.
type Sample = fn() -> Option<u64>;

/// What a row needs of the other CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Nothing.
    None,
    /// One that waits in WFI and leaves its handler's count.
    Waiting,
    /// One that answers an SGI with an SGI.
    Echoing,
    /// One that is off.
    Off,
    /// The one that shares this CPU, and spins.
    Busy,
    /// One that waits in WFI while the one that shares its CPU spins.
    WaitingBesideBusy,
}

/// What sharing CPUs is to a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// It makes no difference.
    Same,
    /// It is measured with and without.
    Both,
    /// There is no such row without.
    Only,
}

struct Row {
    name: &'static str,
    peer: Peer,
    sharing: Sharing,
    /// Whether it can be counted in cycles.
    cycles: bool,
    sample: Sample,
}

const fn row(name: &'static str, peer: Peer, sharing: Sharing, sample: Sample) -> Row {
    Row {
        name,
        peer,
        sharing,
        cycles: false,
        sample,
    }
}

/// A row of one operation that the measured code repeats: begun and ended on this CPU.
const fn repeated(name: &'static str, sample: Sample) -> Row {
    Row {
        cycles: true,
        ..row(name, Peer::None, Sharing::Same, sample)
    }
}

static ROWS: [Row; 25] = [
    repeated("hvc-psci-version", || {
        batch(|n| paths::call1(psci::VERSION, n))
    }),
    repeated("hvc-affinity-info", || {
        batch(|n| paths::call3(psci::AFFINITY_INFO, cpu::affinity(), 0, n))
    }),
    repeated("hvc-unknown", || {
        batch(|n| paths::call1(UNKNOWN_FUNCTION, n))
    }),
    repeated("gicd-typer-read", || {
        batch(|n| paths::load32(machine().distributor() + GICD_TYPER, n))
    }),
    repeated("gicd-isenabler-write", || {
        batch(|n| paths::store32(machine().distributor() + ISENABLER + SPARE_WORD, 0x100, n))
    }),
    repeated("gicr-typer-read", || {
        batch(|n| paths::load32(cpu::current().redistributor() + gic::GICR_TYPER, n))
    }),
    repeated("pl011-fr-read", || {
        batch(|n| paths::load32(uart::base() + FR, n))
    }),
    repeated("id-register-read", || batch(paths::id_register)),
    repeated("physical-timer-write", || batch(paths::physical_timer)),
    row("disk-notify", Peer::None, Sharing::Same, || {
        notify(None, false)
    }),
    row("disk-read-4k", Peer::None, Sharing::Same, || {
        notify(Some(virtio::READ), false)
    }),
    row("disk-write-4k", Peer::None, Sharing::Same, || {
        notify(Some(virtio::WRITE_OUT), false)
    }),
    row("disk-read-4k-irq", Peer::None, Sharing::Same, || {
        notify(Some(virtio::READ), true)
    }),
    row("sgi-self", Peer::None, Sharing::Same, sgi_self),
    row("vtimer-spinning", Peer::None, Sharing::Same, || {
        from_deadline(paths::timer_spinning)
    }),
    row("vtimer-wfi", Peer::None, Sharing::Both, || {
        from_deadline(paths::timer_waiting)
    }),
    row("cpu-suspend-resume", Peer::None, Sharing::Both, cpu_suspend),
    row("sgi-to-wfi", Peer::Waiting, Sharing::Both, sgi_to_wfi),
    row(
        "sgi-ping-pong-wfi",
        Peer::Echoing,
        Sharing::Both,
        sgi_ping_pong,
    ),
    row("cpu-on-first-instruction", Peer::Off, Sharing::Both, cpu_on),
    row("cpu-off-to-affinity-off", Peer::Off, Sharing::Both, cpu_off),
    row("sgi-switch", Peer::Waiting, Sharing::Only, sgi_to_wfi),
    row(
        "sgi-switch-ping-pong",
        Peer::Echoing,
        Sharing::Only,
        sgi_ping_pong,
    ),
    row("vtimer-contended", Peer::Busy, Sharing::Only, || {
        from_deadline(paths::timer_waiting)
    }),
    row(
        "sgi-contended",
        Peer::WaitingBesideBusy,
        Sharing::Only,
        sgi_contended,
    ),
];

struct Holder(UnsafeCell<Samples>);

#[expect(unsafe_code, reason = "a large static buffer")]
// SAFETY: only the boot CPU touches it.
unsafe impl Sync for Holder {}

static SAMPLES_BUFFER: Holder = Holder(UnsafeCell::new(Samples::new()));
static STOP: AtomicBool = AtomicBool::new(false);

/// Returns how many rows there are to run.
pub fn count() -> usize {
    ROWS.iter().filter(|row| wanted(row)).count()
}

fn wanted(row: &Row) -> bool {
    let shared = machine().word("shared");
    let chosen = machine()
        .value("rows")
        .is_none_or(|list| list.split(',').any(|name| name == row.name));
    let cpus = machine().cpus().len();
    let enough = tasks(row)
        .into_iter()
        .flatten()
        .all(|(index, _)| index < cpus);
    let exists = row.name != "gicr-typer-read" || !gic::is_v2();
    let countable = row.cycles || !machine().word("cycles");
    let placed = match row.sharing {
        Sharing::Same => !shared,
        Sharing::Both => true,
        Sharing::Only => shared,
    };
    let there = !row.name.starts_with("disk-") || machine().word("disk");
    exists && chosen && enough && countable && placed && there
}

/// Returns the index of the other CPU: the one that shares this CPU, or one on another.
fn peer(row: &Row) -> usize {
    if row.name.starts_with("sgi-switch") || row.peer == Peer::Busy {
        PARTNER
    } else {
        1
    }
}

/// Runs something with the buffer of samples; called once.
pub fn with_samples<R>(work: impl FnOnce(&mut Samples) -> R) -> R {
    #[expect(unsafe_code, reason = "a large static buffer")]
    // SAFETY: only the boot CPU calls this, once in a run.
    let samples = unsafe { &mut *SAMPLES_BUFFER.0.get() };
    work(samples)
}

/// Runs the rows; returns how many gave no number.
pub fn run_all(samples: &mut Samples) -> usize {
    let shared = machine().word("shared");
    gic::enable(paths::rows_sgi());
    gic::enable(timer::VIRTUAL_INTID);
    if shared {
        // What shares a CPU is on, and idle.
        for index in [PARTNER, PARTNER + 1] {
            if index < machine().cpus().len() && cpu::start(index, idle, 0) != psci::SUCCESS {
                println!("BENCH-FAILED CPU {index} does not start");
            }
        }
    }
    let mut failed = 0;
    for row in ROWS.iter().filter(|row| wanted(row)) {
        if !measure(row, samples, if shared { "-shared" } else { "" }) {
            failed += 1;
        }
    }
    failed
}

fn measure(row: &Row, samples: &mut Samples, suffix: &str) -> bool {
    let wanted = machine()
        .number("samples")
        .unwrap_or(SAMPLES)
        .clamp(1, SAMPLES_MAX as u64);
    let wanted = match row.peer {
        Peer::Busy | Peer::WaitingBesideBusy => wanted.min(CONTENDED_SAMPLES),
        _ => wanted,
    };
    samples.clear();
    PEER.store(peer(row), Ordering::Relaxed);
    if !start_peer(row) {
        println!(
            "BENCH-FAILED {}{suffix}: the other CPU does not start",
            row.name
        );
        return false;
    }
    rest(10 * SETTLE_NS);
    // The first samples warm what can be warmed: translated code in QEMU, caches and predictors on a board.
    for _ in 0..4 {
        let _ = (row.sample)();
    }
    for _ in 0..wanted {
        if row.peer != Peer::None {
            rest(SETTLE_NS);
        }
        // NOPs by which QEMU's plugin finds what belongs to a sample; outside of what is counted.
        insn!("hint #96");
        let sample = (row.sample)();
        insn!("hint #97");
        match sample {
            Some(value) => samples.add(value),
            None => break,
        }
    }
    stop_peer(row);
    samples.print(row.name, suffix)
}

static PEER: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(1);

fn peer_affinity() -> u64 {
    machine()
        .cpus()
        .get(PEER.load(Ordering::Relaxed))
        .copied()
        .unwrap_or(0)
}

fn to_peer() -> u64 {
    sgi_word(peer_affinity(), paths::rows_sgi())
}

/// Waits in WFI, so that everything else is idle too afterwards.
fn rest(nanoseconds: u64) {
    let _ = paths::timer_waiting(timer::now() + ticks(nanoseconds));
}

fn batch(operation: impl Fn(u64) -> u64) -> Option<u64> {
    if machine().word("cycles") {
        return Some(cycles::of(|| operation(COARSE_BATCH)) / COARSE_BATCH);
    }
    let count = if timer::frequency() >= 1_000_000_000 {
        1
    } else {
        COARSE_BATCH
    };
    // One instruction of the measured ticks is the second read of the counter; a coarse counter's quotient is rounded.
    Some((nanoseconds(operation(count)).saturating_sub(1) + count / 2) / count)
}

/// Bytes of a disk's request.
const REQUEST: u32 = 4096;

/// Tells the disk of a request of 4 KiB, or of none; it is done, and its interrupt pending if one is wanted, when the store is.
fn notify(kind: Option<u32>, interrupts: bool) -> Option<u64> {
    let disk = virtio::Device::at(0)?;
    if disk.get(virtio::STATUS) & virtio::DRIVER_OK == 0 {
        disk.enable_interrupt();
        let features = virtio::VERSION_1 | virtio::EVENT_IDX | virtio::INDIRECT;
        disk.start(features).then_some(())?;
    }
    let before = disk.used();
    // The used index goes over `used_event` now, or not for a long time.
    disk.set_used_event(if interrupts {
        before
    } else {
        before.wrapping_sub(1)
    });
    if let Some(kind) = kind {
        disk.prepare(kind, 0, REQUEST);
    }
    let register = disk.register(virtio::QUEUE_NOTIFY);
    let sample = batch(|n| paths::store32(register, 0, n));
    disk.put(virtio::INTERRUPT_ACK, 1);
    let answered = disk.used() != before;
    (answered == kind.is_some()).then_some(sample)?
}

fn sgi_self() -> Option<u64> {
    let (start, end) = paths::sgi_to_self(sgi_word(cpu::affinity(), paths::rows_sgi()));
    Some(nanoseconds(end - start))
}

fn from_deadline(wait: fn(u64) -> u64) -> Option<u64> {
    let deadline = timer::now() + ticks(AHEAD_NS);
    Some(nanoseconds(wait(deadline).saturating_sub(deadline)))
}

fn cpu_suspend() -> Option<u64> {
    let deadline = timer::now() + ticks(AHEAD_NS);
    Some(nanoseconds(paths::suspend(deadline)? - deadline))
}

fn sgi_to_wfi() -> Option<u64> {
    MAILBOX.clear();
    timer::arm_virtual(timer::now() + ticks(PATIENCE_NS));
    let (start, _) = paths::send_and_wait(to_peer());
    Some(nanoseconds(MAILBOX.stamp()?.saturating_sub(start)))
}

/// The other vCPU has just had the CPU and given it up, so that the one that spins there has a whole slice before it.
///
/// All waits are short ones by the timer: QEMU's round robin gives a spinning CPU half of the time to the next timer at a stretch.
fn sgi_contended() -> Option<u64> {
    rest(CONTENDED_NS);
    MAILBOX.clear();
    timer::arm_virtual(timer::now() + ticks(PATIENCE_NS));
    let _ = paths::send_and_wait(to_peer());
    MAILBOX.stamp()?;
    MAILBOX.clear();
    timer::arm_virtual(timer::now() + ticks(PATIENCE_NS));
    let (start, _) = paths::send_and_wait(to_peer());
    while MAILBOX.stamp().is_none() && timer::now() - start < ticks(CONTENDED_NS) {
        rest(PATIENCE_NS);
    }
    Some(nanoseconds(MAILBOX.stamp()?.saturating_sub(start)))
}

fn sgi_ping_pong() -> Option<u64> {
    let (start, end) = paths::send_and_wait(to_peer());
    Some(nanoseconds(end - start))
}

fn cpu_on() -> Option<u64> {
    MAILBOX.clear();
    let affinity = peer_affinity();
    timer::arm_virtual(timer::now() + ticks(PATIENCE_NS));
    let (start, answer) = paths::cpu_on(affinity);
    let stamp = MAILBOX.stamp()?;
    let off = timer::within_ms(1000, || psci::affinity_info(affinity) == psci::AFFINITY_OFF);
    (answer == psci::SUCCESS && off).then(|| nanoseconds(stamp.saturating_sub(start)))
}

fn cpu_off() -> Option<u64> {
    MAILBOX.clear();
    if cpu::start(PEER.load(Ordering::Relaxed), off_when_told, 0) != psci::SUCCESS {
        return None;
    }
    rest(PATIENCE_NS);
    let end = paths::poll_until_off(to_peer(), peer_affinity());
    Some(nanoseconds(end.saturating_sub(MAILBOX.stamp()?)))
}

/// A CPU and what it does.
type Task = (usize, fn(u64));

/// What other CPUs do while a row is measured.
fn tasks(row: &Row) -> [Option<Task>; 2] {
    let index = peer(row);
    match row.peer {
        Peer::None | Peer::Off => [None; 2],
        Peer::Waiting => [Some((index, waiting)), None],
        Peer::Echoing => [Some((index, echoing)), None],
        Peer::Busy => [Some((index, busy)), None],
        Peer::WaitingBesideBusy => [Some((index, waiting)), Some((index + PARTNER, busy))],
    }
}

/// Returns whether a CPU has nothing to do but to share another one's, between rows.
fn idles(index: usize) -> bool {
    machine().word("shared") && index >= PARTNER
}

fn start_peer(row: &Row) -> bool {
    if row.peer == Peer::Off {
        return cpu::wait_off(peer(row));
    }
    for (index, task) in tasks(row).into_iter().flatten() {
        // A CPU that shares one idles already: it leaves that for this row's task.
        if idles(index) {
            STOP.store(true, Ordering::Release);
            paths::send(index, paths::rows_sgi());
            if !cpu::wait_off(index) {
                return false;
            }
        }
        STOP.store(false, Ordering::Release);
        let runs = || timer::within_ms(1000, || cpu::is_running(index));
        if cpu::start(index, task, 0) != psci::SUCCESS || !runs() {
            return false;
        }
    }
    true
}

fn stop_peer(row: &Row) {
    STOP.store(true, Ordering::Release);
    for (index, _) in tasks(row).into_iter().flatten() {
        rest(PATIENCE_NS);
        paths::send(index, paths::rows_sgi());
        rest(PATIENCE_NS);
        if !cpu::wait_off(index) {
            println!("BENCH-FAILED {}: CPU {index} does not turn off", row.name);
        }
    }
    STOP.store(false, Ordering::Release);
    for (index, _) in tasks(row).into_iter().flatten() {
        if idles(index) {
            let _ = cpu::start(index, idle, 0);
            rest(10 * SETTLE_NS);
        }
    }
}

/// Rests until told to stop, with nothing to do.
fn idle(_: u64) {
    paths::prepare_secondary();
    while !STOP.load(Ordering::Acquire) {
        let _ = paths::wait();
    }
}

/// Takes all it can get of its CPU.
fn busy(_: u64) {
    paths::prepare_secondary();
    while !STOP.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

/// Leaves the handler's count of every SGI in the mailbox.
fn waiting(_: u64) {
    paths::prepare_secondary();
    while !STOP.load(Ordering::Acquire) {
        let stamp = paths::wait();
        MAILBOX.put(stamp);
    }
}

/// Answers every SGI with one to the boot CPU.
fn echoing(_: u64) {
    paths::prepare_secondary();
    let boot = machine().cpus().first().copied().unwrap_or(0);
    let to_boot = sgi_word(boot, paths::rows_sgi());
    while !STOP.load(Ordering::Acquire) {
        paths::echo(to_boot, 1);
    }
}

/// Turns itself off at the next SGI, leaving the count just before.
fn off_when_told(_: u64) {
    paths::prepare_secondary();
    let _ = paths::wait();
    exception::mask();
    insn!("isb");
    paths::stamp_and_off();
}
