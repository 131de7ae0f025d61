//! The vCPU hot-plug block as its driver uses it, and the operator who asks for vCPUs, played by the harness.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use guest_rt::probe::{self, Width};
use guest_rt::suite::{Outcome, Reason, Stop};
use guest_rt::{ask, check, check_eq, cpu, exception, gic, machine, mmio, psci, timer};

/// Where the block is.
pub const BLOCK: u64 = 0x090c_0000;
/// Its length in bytes.
pub const BLOCK_SIZE: u64 = 0x1_0000;
/// EVENT: the next event; reading takes it.
pub const EVENT: u64 = BLOCK;
/// COUNT: possible vCPUs.
pub const COUNT: u64 = BLOCK + 4;
/// The GED's interrupt.
pub const INTID: u32 = 41;
/// EVENT.VALID.
pub const VALID: u32 = 1 << 31;
/// EVENT.CODE: a vCPU was added.
pub const ADDED: u32 = 1;
/// EVENT.CODE: a vCPU is asked back.
pub const ASKED_BACK: u32 = 3;
/// Beside EVENT.CODE: it is about a memory slot.
pub const OF_A_SLOT: u32 = 1 << 8;
/// OST's source event of an ejection that was not asked for.
pub const EJECTED_UNASKED: u32 = 0x103;
/// STA of an enabled vCPU.
pub const ENABLED: u32 = 0x0f;
/// STA of a vCPU in reserve.
pub const RESERVE: u32 = 0x0d;
/// How long the hypervisor gets for anything, in milliseconds.
pub const PATIENCE_MS: u64 = 20_000;
/// How long a CPU may take to go off after the last vCPU of its own was ejected, with the question about it.
pub const GO_OFF_MS: u64 = 1_000;

/// Returns the address of a vCPU's STA.
pub fn sta(uid: u64) -> u64 {
    BLOCK + 0x1000 + 16 * uid
}

/// Writes EJECT.
pub fn eject(uid: u64) {
    mmio::write32(sta(uid) + 4, 1);
}

/// Writes OST.
pub fn report(uid: u64, source: u32, status: u32) {
    mmio::write32(sta(uid) + 8, source << 16 | status);
}

/// Returns how many vCPUs the VM boots with.
pub fn boot() -> u64 {
    machine().number("boot").unwrap_or(1)
}

/// Returns how many vCPUs are possible.
pub fn max() -> u64 {
    machine().number("max").unwrap_or(1)
}

/// Returns a vCPU's affinity by its number.
pub fn affinity(uid: u64) -> u64 {
    ((uid / 16) << 8) | (uid % 16)
}

/// vCPUs that are to end, a bit each.
pub static STOP: AtomicU64 = AtomicU64::new(0);
/// How many run.
pub static RUNNING: AtomicU32 = AtomicU32::new(0);

/// What vCPUs at work read until that takes an exception, which ends it; 0 for nothing.
pub static WATCHED: AtomicU64 = AtomicU64::new(0);
/// How often they have read it.
pub static READS: AtomicU64 = AtomicU64::new(0);
/// Whether the exception was an external abort at that address.
pub static IS_ABORT: AtomicBool = AtomicBool::new(false);

/// Runs until its bit in STOP is set.
pub fn work(uid: u64) {
    RUNNING.fetch_add(1, Ordering::AcqRel);
    while STOP.load(Ordering::Acquire) & 1 << uid == 0 {
        match WATCHED.load(Ordering::Acquire) {
            0 => core::hint::spin_loop(),
            address => watch(address),
        }
    }
    RUNNING.fetch_sub(1, Ordering::AcqRel);
}

fn watch(address: u64) {
    let seen = probe::load(address, Width::Double);
    if seen.fault.is_none() {
        READS.fetch_add(1, Ordering::AcqRel);
    } else {
        IS_ABORT.store(seen.is_external_abort(address), Ordering::Release);
        WATCHED.store(0, Ordering::Release);
    }
}

/// Is what the other vCPUs of the boot set do: nothing, for good.
pub fn rest(_uid: u64) {
    loop {
        guest_rt::insn!("wfi");
    }
}

/// Turns an added vCPU on at [`work`].
pub fn turn_on(uid: u64) -> Outcome {
    STOP.fetch_and(!(1 << uid), Ordering::AcqRel);
    let context = cpu::prepare(uid as usize, work, uid);
    let answer = psci::cpu_on(affinity(uid), cpu::entry_address(), context);
    check_eq!(answer, psci::SUCCESS, "CPU_ON of the added vCPU {uid}");
    let runs = timer::within_ms(PATIENCE_MS, || cpu::is_running(uid as usize));
    check!(runs, "the added vCPU {uid} does not run");
    Ok(())
}

/// Makes a vCPU turn itself off.
pub fn turn_off(uid: u64) -> Outcome {
    STOP.fetch_or(1 << uid, Ordering::AcqRel);
    let off = timer::within_ms(PATIENCE_MS, || {
        psci::affinity_info(affinity(uid)) == psci::AFFINITY_OFF
    });
    check!(off, "vCPU {uid} does not turn off");
    Ok(())
}

/// Asks the harness for a command without waiting for its reply.
pub fn request(command: core::fmt::Arguments<'_>) -> ask::Ticket {
    gic::reset_counts();
    exception::unmask();
    ask::send(format_args!("control {command}"))
}

/// Asks the operator for this many vCPUs, without waiting for the reply.
pub fn resize(vcpus: u64) -> ask::Ticket {
    request(format_args!("vcpu set @ {vcpus} --timeout 15"))
}

/// Waits for what the operator is told when the resize has ended.
pub fn reply(ticket: ask::Ticket) -> Result<ask::Reply, Stop> {
    ask::await_reply(ticket, PATIENCE_MS * timer::frequency() / 1000).ok_or_else(|| {
        Stop::Failed(Reason::new(format_args!(
            "no reply to the operator: a resize without an end"
        )))
    })
}

/// Waits for the interrupt and takes the next event: CODE, with [`OF_A_SLOT`], and the number.
pub fn next_event() -> Result<(u32, u64), Stop> {
    let mut event = 0;
    let came = timer::within_ms(PATIENCE_MS, || {
        event = mmio::read32(EVENT);
        event & VALID != 0
    });
    if !came {
        let why = format_args!("no event comes; interrupts: {}", gic::count(INTID));
        return Err(Stop::Failed(Reason::new(why)));
    }
    Ok((event >> 16 & 0x1ff, u64::from(event & 0xffff)))
}

/// Serves events as Linux does until this many vCPUs were added.
pub fn serve_adds(count: u64) -> Outcome {
    for _ in 0..count {
        let (code, uid) = next_event()?;
        check_eq!(code, ADDED, "CODE of the event of vCPU {uid}");
        check!((boot()..max()).contains(&uid), "an event of vCPU {uid}");
        check_eq!(
            mmio::read32(sta(uid)),
            ENABLED,
            "STA of the added vCPU {uid}"
        );
        report(uid, ADDED, 0);
        turn_on(uid)?;
    }
    Ok(())
}

/// Serves events as Linux does until this many vCPUs were given back.
pub fn serve_ejects(count: u64) -> Outcome {
    for _ in 0..count {
        let (code, uid) = next_event()?;
        check_eq!(code, ASKED_BACK, "CODE of the event of vCPU {uid}");
        check_eq!(
            mmio::read32(sta(uid)),
            ENABLED,
            "STA of vCPU {uid}, asked back"
        );
        report(uid, ASKED_BACK, 0x84);
        turn_off(uid)?;
        eject(uid);
        check_eq!(
            mmio::read32(sta(uid)),
            RESERVE,
            "STA of vCPU {uid} after EJECT"
        );
        report(uid, ASKED_BACK, 0);
    }
    Ok(())
}

/// Has one vCPU added to this many.
pub fn add_one_to(vcpus: u64) -> Outcome {
    let asked = resize(vcpus + 1);
    serve_adds(1)?;
    expect_done(asked, vcpus + 1)
}

/// Gives one of this many vCPUs back.
pub fn take_one_of(vcpus: u64) -> Outcome {
    let asked = resize(vcpus - 1);
    serve_ejects(1)?;
    expect_done(asked, vcpus - 1)
}

/// Expects that what the operator is told begins with this word.
pub fn expect(asked: ask::Ticket, outcome: &str) -> Outcome {
    let reply = reply(asked)?;
    let said = reply.text();
    check!(said.starts_with(outcome), "the operator reads \"{said}\"");
    Ok(())
}

/// Expects that the operator is told something else than "done".
pub fn expect_failure(asked: ask::Ticket) -> Outcome {
    let reply = reply(asked)?;
    let said = reply.text();
    check!(!said.starts_with("done"), "the operator reads \"{said}\"");
    Ok(())
}

/// Expects that the operator is told "done", with this many vCPUs.
pub fn expect_done(asked: ask::Ticket, reached: u64) -> Outcome {
    let reply = reply(asked)?;
    let mut words = reply.text().split(' ');
    let (outcome, number) = (
        words.next(),
        words.next().and_then(|word| word.parse().ok()),
    );
    check!(
        outcome == Some("done") && number == Some(reached),
        "the operator reads \"{}\"",
        reply.text()
    );
    Ok(())
}

/// Expects that this many CPUs are on, soon: the harness asks the hypervisor.
pub fn cpus_are_on(expected: u64) -> Outcome {
    let mut seen = 0;
    let soon = timer::within_ms(GO_OFF_MS, || {
        let host = ask::ask(format_args!("control host"));
        let words = host.as_ref().map_or("", |reply| reply.text());
        seen = words
            .strip_prefix("ok ")
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);
        seen == expected
    });
    check!(soon, "{seen} CPUs are on, not {expected}");
    Ok(())
}
