//! vCPUs at work while the operator moves them from CPU to CPU: what a guest must not notice of it.
//!
//! Words: `asked cpus=n`: a harness is there, and the machine has n CPUs. `moves=n`: how often a vCPU is moved at work.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "fills registers that the compiler does not use")]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    ask, check, check_eq, cpu, exception, gic, guest, insn, machine, mrs, msr, psci, tests, timer,
};

guest!(main);

/// The SGI that goes round among the workers.
const TOKEN: u32 = 5;
/// Most workers.
const MOST: usize = 8;
/// How long anything may take, in milliseconds; a move waits for a slice or two.
const PATIENCE_MS: u64 = 10_000;

static STOP: AtomicBool = AtomicBool::new(false);
static HOPS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static TICKS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static LOOKS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static SPOILT: AtomicU64 = AtomicU64::new(0);
/// What a CPU found of its timers when it was turned on.
static TIMERS: AtomicU64 = AtomicU64::new(0);
static STARTS: AtomicU64 = AtomicU64::new(0);

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "moves",
        tests![
            timers_are_off_after_a_reset,
            refusals,
            an_off_cpu_moves_and_starts,
            a_start_and_a_move_at_once,
            cpus_at_work_move,
        ],
    );
}

fn cpus() -> usize {
    machine().number("cpus").unwrap_or(1) as usize
}

fn pin(vcpu: usize, cpu: usize) -> Option<ask::Reply> {
    ask::ask(format_args!("control vcpu pin @ {vcpu} {cpu}"))
}

/// Asks for a move and fails unless it is made.
macro_rules! moved {
    ($vcpu:expr, $cpu:expr) => {
        let reply = pin($vcpu, $cpu);
        let text = reply.as_ref().map_or("nothing", ask::Reply::text);
        check!(text == "ok", "vcpu {} to cpu {}: {text}", $vcpu, $cpu);
    };
}

fn note_timers(_: u64) {
    TIMERS.store(
        mrs!("cntv_ctl_el0") | mrs!("cntp_ctl_el0"),
        Ordering::Release,
    );
    STARTS.fetch_add(1, Ordering::Release);
}

fn leave_timers_on(_: u64) {
    exception::mask();
    timer::arm_virtual(timer::now());
    timer::arm_physical(mrs!("cntpct_el0"));
    STARTS.fetch_add(1, Ordering::Release);
    loop {
        insn!("wfi");
    }
}

/// The first life leaves timers running that have fired; the second one's CPUs must not find them.
fn timers_are_off_after_a_reset() -> Outcome {
    let boot = ask::ask(format_args!("boot-number"));
    let first = boot.as_ref().is_some_and(|boot| boot.text() == "1");
    let task = if first { leave_timers_on } else { note_timers };
    check_eq!(cpu::start(1, task, 0), psci::SUCCESS, "CPU_ON");
    let started = timer::within_ms(PATIENCE_MS, || STARTS.load(Ordering::Acquire) == 1);
    check!(started, "CPU 1 does not start");
    if first {
        let _ = ask::ask(format_args!("control vm reset @"));
        check!(!timer::within_ms(PATIENCE_MS, || false), "no reset");
    }
    check!(cpu::wait_off(1), "CPU 1 does not turn off");
    let timers = TIMERS.load(Ordering::Acquire);
    check_eq!(timers & timer::CTL_ENABLE, 0, "CNTV_CTL or CNTP_CTL");
    Ok(())
}

fn refusals() -> Outcome {
    for (vcpu, cpu, kind) in [
        (machine().cpus().len(), 0, "error bad-number"),
        (0, cpus(), "error bad-number"),
        (0, 65_535, "error bad-number"),
    ] {
        let reply = pin(vcpu, cpu);
        let text = reply.as_ref().map_or("nothing", ask::Reply::text);
        check!(text == kind, "vcpu {vcpu} to cpu {cpu}: {text}");
    }
    Ok(())
}

fn start_last() -> Outcome {
    let last = machine().cpus().len() - 1;
    let before = STARTS.load(Ordering::Acquire);
    check_eq!(cpu::start(last, note_timers, 0), psci::SUCCESS, "CPU_ON");
    let started = timer::within_ms(PATIENCE_MS, || STARTS.load(Ordering::Acquire) > before);
    check!(started, "the CPU does not start");
    check!(cpu::wait_off(last), "the CPU does not turn off");
    Ok(())
}

fn an_off_cpu_moves_and_starts() -> Outcome {
    let last = machine().cpus().len() - 1;
    for round in 0..3 * cpus() {
        moved!(last, round % cpus());
        start_last()?;
    }
    Ok(())
}

fn a_start_and_a_move_at_once() -> Outcome {
    let last = machine().cpus().len() - 1;
    for round in 0..8 * cpus() {
        let cpu = (round * 3 + 1) % cpus();
        let ticket = ask::send(format_args!("control vcpu pin @ {last} {cpu}"));
        for _ in 0..1 + round % 3 {
            start_last()?;
        }
        let reply = ask::await_reply(ticket, 60 * timer::frequency());
        let text = reply.as_ref().map_or("nothing", ask::Reply::text);
        check!(text == "ok", "round {round}: {text}");
    }
    Ok(())
}

/// Fills registers of every kind that moves with a vCPU.
fn fill(pattern: u64) {
    // SAFETY: the soft-float target keeps nothing in these registers.
    unsafe {
        asm!(".arch_extension fp", ".arch_extension simd", "dup v0.2d, {p}", "dup v9.2d, {p}", "dup v31.2d, {p}",
            p = in(reg) pattern, options(nostack))
    };
    msr!("tpidr_el0", pattern);
    msr!("tpidrro_el0", pattern);
    msr!("contextidr_el1", pattern & 0xffff_ffff);
    msr!("afsr0_el1", pattern & 0xffff_ffff);
    if has_keys() {
        msr!("apiakeylo_el1", pattern);
        msr!("apgakeyhi_el1", pattern);
    }
}

fn is_whole(pattern: u64) -> bool {
    let (a, b, c): (u64, u64, u64);
    // SAFETY: as in `fill`.
    unsafe {
        asm!(".arch_extension fp", ".arch_extension simd", "umov {a}, v0.d[1]", "umov {b}, v9.d[0]", "umov {c}, v31.d[1]",
            a = out(reg) a, b = out(reg) b, c = out(reg) c, options(nostack))
    };
    let keys = !has_keys() || mrs!("apiakeylo_el1") == pattern && mrs!("apgakeyhi_el1") == pattern;
    [a, b, c] == [pattern; 3]
        && mrs!("tpidr_el0") == pattern
        && mrs!("tpidrro_el0") == pattern
        && mrs!("contextidr_el1") == pattern & 0xffff_ffff
        && keys
}

/// ID_AA64ISAR1_EL1 names an algorithm for addresses.
fn has_keys() -> bool {
    mrs!("id_aa64isar1_el1") & 0xff0 != 0
}

fn arm_tick() {
    timer::arm_virtual(timer::now() + timer::frequency() / 500);
}

fn on_interrupt(intid: u32) {
    let me = cpu::current().index();
    match intid {
        timer::VIRTUAL_INTID => {
            arm_tick();
            TICKS[me % MOST].fetch_add(1, Ordering::Relaxed);
        }
        TOKEN => {
            HOPS[me % MOST].fetch_add(1, Ordering::Relaxed);
            let workers = machine().cpus().len() - 1;
            let next = if me == workers { 1 } else { me + 1 };
            gic::send_sgi(machine().cpus()[next], TOKEN);
        }
        _ => {}
    }
}

/// Passes the token on, counts its ticks and looks at its registers, spinning or resting by its number.
fn work(me: u64) {
    let me = me as usize;
    msr!("cpacr_el1", 3 << 20);
    let pattern = 0x0123_4567_89ab_cd00 | me as u64;
    fill(pattern);
    gic::enable(TOKEN);
    gic::enable(timer::VIRTUAL_INTID);
    arm_tick();
    while !STOP.load(Ordering::Acquire) {
        exception::unmask();
        if me.is_multiple_of(2) {
            insn!("wfi");
        } else {
            timer::delay(2000);
        }
        LOOKS[me % MOST].fetch_add(1, Ordering::Relaxed);
        if !is_whole(pattern) {
            SPOILT.fetch_or(1 << me, Ordering::Relaxed);
            fill(pattern);
        }
    }
    exception::mask();
    timer::stop_virtual();
    msr!("cpacr_el1", 0);
}

/// Waits until every worker has got on; a lost interrupt stops the token or the ticks for good.
fn all_go_on(what: &str, round: usize) -> Outcome {
    let workers = 1..machine().cpus().len();
    for counts in [&HOPS, &TICKS, &LOOKS] {
        for worker in workers.clone() {
            let before = counts[worker].load(Ordering::Relaxed);
            let on = || counts[worker].load(Ordering::Relaxed) > before;
            let kind = if core::ptr::eq(counts, &HOPS) {
                "token"
            } else {
                "tick or look"
            };
            check!(
                timer::within_ms(PATIENCE_MS, on),
                "{what} {round}: no {kind} at {worker}"
            );
        }
    }
    Ok(())
}

fn cpus_at_work_move() -> Outcome {
    let vcpus = machine().cpus().len().min(MOST);
    gic::set_handler(on_interrupt);
    for worker in 1..vcpus {
        check_eq!(
            cpu::start(worker, work, worker as u64),
            psci::SUCCESS,
            "CPU_ON"
        );
    }
    let ready = || (1..vcpus).all(|worker| LOOKS[worker].load(Ordering::Relaxed) > 0);
    check!(
        timer::within_ms(PATIENCE_MS, ready),
        "a worker does not work"
    );
    gic::send_sgi(machine().cpus()[1], TOKEN);
    all_go_on("before", 0)?;
    for round in 0..machine().number("moves").unwrap_or(20) as usize {
        let vcpu = round % vcpus;
        moved!(vcpu, (round * 7 + round / vcpus) % cpus());
        all_go_on("move", round)?;
    }
    STOP.store(true, Ordering::Release);
    for worker in 1..vcpus {
        check!(cpu::wait_off(worker), "CPU {worker} does not turn off");
    }
    gic::reset_counts();
    check_eq!(
        SPOILT.load(Ordering::Relaxed),
        0,
        "workers whose registers changed"
    );
    // Where the harness looks for them.
    for vcpu in 0..vcpus {
        moved!(vcpu, (vcpu + 1) % cpus());
    }
    Ok(())
}
