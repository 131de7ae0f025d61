//! The vCPU hot-plug block (docs/hotplug-registers.md) as a driver uses it, and as a guest abuses it.
//!
//! Words: `asked boot=n max=m`: a harness is there, the VM boots with n of m vCPUs. `bare`: there is no such block. Each
//! test leaves the VM with its boot vCPUs only.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_rt::probe::{self, Width};
use guest_rt::suite::{self, Outcome, Reason, Stop};
use guest_rt::{
    ask, check, check_eq, cpu, exception, gic, guest, ignore, machine, mmio, psci, tests, timer,
};

guest!(main);

/// Where the block is, and how long.
const BLOCK: u64 = 0x090c_0000;
const BLOCK_SIZE: u64 = 0x1_0000;
/// EVENT: the next event; reading takes it.
const EVENT: u64 = BLOCK;
/// COUNT: possible vCPUs.
const COUNT: u64 = BLOCK + 4;
/// The GED's interrupt.
const INTID: u32 = 41;
/// EVENT.VALID.
const VALID: u32 = 1 << 31;
/// EVENT.CODE: a vCPU was added.
const ADDED: u32 = 1;
/// EVENT.CODE: a vCPU is asked back.
const ASKED_BACK: u32 = 3;
/// STA of an enabled vCPU.
const ENABLED: u32 = 0x0f;
/// STA of a vCPU in reserve.
const RESERVE: u32 = 0x0d;
/// How long the hypervisor gets for anything, in milliseconds.
const PATIENCE_MS: u64 = 20_000;

fn sta(uid: u64) -> u64 {
    BLOCK + 0x1000 + 16 * uid
}

fn eject(uid: u64) {
    mmio::write32(sta(uid) + 4, 1);
}

fn report(uid: u64, source: u32, status: u32) {
    mmio::write32(sta(uid) + 8, source << 16 | status);
}

fn boot() -> u64 {
    machine().number("boot").unwrap_or(1)
}

fn max() -> u64 {
    machine().number("max").unwrap_or(1)
}

fn affinity(uid: u64) -> u64 {
    ((uid / 16) << 8) | (uid % 16)
}

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    if machine().word("bare") {
        suite::run("hotplug", tests![no_block]);
        return;
    }
    gic::set_edge(INTID, true);
    gic::route(INTID, cpu::affinity());
    gic::enable(INTID);
    suite::run(
        "hotplug",
        tests![
            states_at_boot,
            junk_changes_nothing,
            odd_accesses_change_nothing,
            eject_of_a_boot_cpu_is_not_accepted,
            eject_of_a_reserve_cpu_changes_nothing,
            add_and_take_back,
            add_all_and_take_all_back,
            interrupt_while_masked_is_kept,
            eject_while_on_is_not_accepted,
            add_is_refused,
            take_back_is_refused,
            add_is_never_answered,
            acknowledged_but_never_on,
            ejection_by_the_guest_alone,
            boot_cpus_are_not_taken,
            add_then_remove_before_it_is_read,
        ],
    );
}

fn no_block() -> Outcome {
    let seen = probe::load(COUNT, Width::Word);
    check!(
        seen.fault.is_some() || seen.x0 == 0,
        "something answers: {:#x}",
        seen.x0
    );
    Ok(())
}

/// Checks that every vCPU is as after a boot.
fn as_at_boot() -> Outcome {
    for uid in 0..max() {
        let expected = if uid < boot() { ENABLED } else { RESERVE };
        check_eq!(mmio::read32(sta(uid)), expected, "STA of vCPU {uid}");
        if uid >= boot() {
            check_eq!(
                psci::cpu_on(affinity(uid), 0x4000_0000, 0),
                psci::DENIED,
                "CPU_ON of vCPU {uid}"
            );
            check_eq!(
                psci::affinity_info(affinity(uid)),
                psci::AFFINITY_OFF,
                "AFFINITY_INFO of vCPU {uid}"
            );
        }
    }
    Ok(())
}

fn states_at_boot() -> Outcome {
    check_eq!(u64::from(mmio::read32(COUNT)), max(), "COUNT");
    check_eq!(mmio::read32(EVENT), 0, "EVENT with nothing to tell");
    as_at_boot()
}

fn junk_changes_nothing() -> Outcome {
    for offset in (0..BLOCK_SIZE).step_by(4) {
        let address = BLOCK + offset;
        // EJECT and OST of vCPUs that exist are not junk.
        let frame = offset >= 0x1000 && offset < 0x1000 + 16 * max();
        if frame && matches!(offset % 16, 4 | 8) {
            continue;
        }
        mmio::write32(address, u32::MAX);
        let known = offset < 8 || frame && offset % 16 == 0;
        if !known {
            check_eq!(mmio::read32(address), 0, "the word at +{offset:#x}");
        }
    }
    check_eq!(u64::from(mmio::read32(COUNT)), max(), "COUNT");
    as_at_boot()
}

fn odd_accesses_change_nothing() -> Outcome {
    let places = [
        EVENT,
        COUNT,
        sta(0),
        sta(1),
        sta(max() - 1) + 4,
        sta(max() - 1) + 8,
        sta(max()),
        BLOCK + 0xfff8,
    ];
    for address in places {
        for width in Width::ALL {
            for unaligned in 0..4 {
                if width == Width::Word && unaligned == 0 {
                    continue;
                }
                let seen = probe::load(address + unaligned, width);
                check!(
                    seen.fault.is_some() || seen.x0 == 0,
                    "{width:?} at {address:#x}+{unaligned}: {:#x}",
                    seen.x0
                );
                let seen = probe::store(address + unaligned, width, u64::MAX);
                check!(
                    seen.fault.is_none() || seen.exact,
                    "{width:?} at {address:#x}+{unaligned}: {:x?}",
                    seen.fault
                );
            }
        }
    }
    as_at_boot()
}

fn eject_of_a_boot_cpu_is_not_accepted() -> Outcome {
    for uid in 0..boot() {
        eject(uid);
        check_eq!(
            mmio::read32(sta(uid)),
            ENABLED,
            "STA of the boot vCPU {uid} after EJECT"
        );
    }
    as_at_boot()
}

fn eject_of_a_reserve_cpu_changes_nothing() -> Outcome {
    for uid in boot()..max() {
        eject(uid);
        eject(uid);
        report(uid, ASKED_BACK, 0);
        report(uid, 0xffff, 0xffff);
    }
    check_eq!(mmio::read32(EVENT), 0, "EVENT");
    as_at_boot()
}

static STOP: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Runs until its bit in STOP is set.
fn work(uid: u64) {
    RUNNING.fetch_add(1, Ordering::AcqRel);
    while STOP.load(Ordering::Acquire) & 1 << uid == 0 {
        core::hint::spin_loop();
    }
    RUNNING.fetch_sub(1, Ordering::AcqRel);
}

fn turn_on(uid: u64) -> Outcome {
    STOP.fetch_and(!(1 << uid), Ordering::AcqRel);
    let context = cpu::prepare(uid as usize, work, uid);
    let answer = psci::cpu_on(affinity(uid), cpu::entry_address(), context);
    check_eq!(answer, psci::SUCCESS, "CPU_ON of the added vCPU {uid}");
    let runs = timer::within_ms(PATIENCE_MS, || cpu::is_running(uid as usize));
    check!(runs, "the added vCPU {uid} does not run");
    Ok(())
}

fn turn_off(uid: u64) -> Outcome {
    STOP.fetch_or(1 << uid, Ordering::AcqRel);
    let off = timer::within_ms(PATIENCE_MS, || {
        psci::affinity_info(affinity(uid)) == psci::AFFINITY_OFF
    });
    check!(off, "vCPU {uid} does not turn off");
    Ok(())
}

/// Asks the harness for a command without waiting for its reply.
fn request(command: core::fmt::Arguments<'_>) -> ask::Ticket {
    gic::reset_counts();
    exception::unmask();
    ask::send(format_args!("control {command}"))
}

/// Asks the operator for this many vCPUs, without waiting for the reply.
fn resize(vcpus: u64) -> ask::Ticket {
    request(format_args!("vcpu set @ {vcpus} --timeout 15"))
}

/// Waits for what the operator is told when the resize has ended.
fn reply(ticket: ask::Ticket) -> Result<ask::Reply, Stop> {
    ask::await_reply(ticket, PATIENCE_MS * timer::frequency() / 1000).ok_or_else(|| {
        Stop::Failed(Reason::new(format_args!(
            "no reply to the operator: a resize without an end"
        )))
    })
}

/// Waits for the interrupt and takes the next event.
fn next_event() -> Result<(u32, u64), Stop> {
    let mut event = 0;
    let came = timer::within_ms(PATIENCE_MS, || {
        event = mmio::read32(EVENT);
        event & VALID != 0
    });
    if !came {
        let why = format_args!("no event comes; interrupts: {}", gic::count(INTID));
        return Err(Stop::Failed(Reason::new(why)));
    }
    Ok((event >> 16 & 0xff, u64::from(event & 0xffff)))
}

/// Serves events as Linux does until this many vCPUs were added.
fn serve_adds(count: u64) -> Outcome {
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
fn serve_ejects(count: u64) -> Outcome {
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

/// Gives everything above the boot set back, whatever is under way; tests begin and end with it.
fn clean_up() -> Outcome {
    for _ in 0..5 {
        let asked = request(format_args!("vcpu set @ {} --timeout 15", boot()));
        let deadline = timer::now() + PATIENCE_MS * timer::frequency() / 1000;
        let mut replied = false;
        while timer::now() < deadline && !(replied && as_at_boot().is_ok()) {
            replied |= ask::await_reply(asked, timer::frequency() / 20).is_some();
            give_back_what_is_asked()?;
        }
        if replied && as_at_boot().is_ok() {
            return Ok(());
        }
    }
    as_at_boot()
}

/// Serves the events that are there, giving back every vCPU that is asked back.
fn give_back_what_is_asked() -> Outcome {
    for _ in 0..2 * max() {
        let event = mmio::read32(EVENT);
        if event & VALID == 0 {
            break;
        }
        let uid = u64::from(event & 0xffff);
        if event >> 16 & 0xff == ASKED_BACK {
            turn_off(uid)?;
            eject(uid);
            report(uid, ASKED_BACK, 0);
        }
    }
    // What was announced to a test that failed is given back unasked.
    for uid in boot()..max() {
        let off = psci::affinity_info(affinity(uid)) == psci::AFFINITY_OFF;
        if off && mmio::read32(sta(uid)) == ENABLED {
            eject(uid);
        }
    }
    Ok(())
}

macro_rules! needs_a_harness {
    () => {
        if !ask::available() {
            ignore!("no harness answers");
        }
        if boot() + 1 >= max() || boot() + 1 > 4 {
            ignore!("too few vCPUs in reserve");
        }
        if as_at_boot().is_err() {
            clean_up()?;
        }
    };
}

fn add_and_take_back() -> Outcome {
    needs_a_harness!();
    for _ in 0..machine().number("cycles").unwrap_or(3) {
        let asked = resize(boot() + 1);
        serve_adds(1)?;
        check!(gic::count(INTID) >= 1, "an event without an interrupt");
        expect_done(asked, boot() + 1)?;
        let asked = resize(boot());
        serve_ejects(1)?;
        expect_done(asked, boot())?;
    }
    as_at_boot()
}

/// Expects that the operator is told "done", with this many vCPUs.
fn expect_done(asked: ask::Ticket, reached: u64) -> Outcome {
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

fn add_all_and_take_all_back() -> Outcome {
    needs_a_harness!();
    if max() != 8 {
        ignore!("made for 8 possible vCPUs");
    }
    for _ in 0..machine().number("cycles").unwrap_or(3) {
        let asked = resize(max());
        serve_adds(max() - boot())?;
        expect_done(asked, max())?;
        check_eq!(
            u64::from(RUNNING.load(Ordering::Acquire)),
            max() - boot(),
            "vCPUs that run"
        );
        let asked = resize(boot());
        serve_ejects(max() - boot())?;
        expect_done(asked, boot())?;
    }
    as_at_boot()
}

fn interrupt_while_masked_is_kept() -> Outcome {
    needs_a_harness!();
    // An interrupt of an event that an earlier test found by looking may be on its way still.
    exception::unmask();
    timer::delay(timer::frequency() / 50);
    // Masked before it is asked for: the answer may be quicker than the next instruction.
    exception::mask();
    gic::reset_counts();
    let asked = ask::send(format_args!(
        "control vcpu set @ {} --timeout 15",
        boot() + 1
    ));
    let came = timer::within_ms(PATIENCE_MS, || gic::read_bit(gic::ISPENDR, INTID));
    check!(came, "INTID 41 does not become pending");
    exception::unmask();
    // One at least: an interrupt without an event does no harm, an event without one is lost.
    check!(
        timer::within_ms(1000, || gic::count(INTID) >= 1),
        "INTID 41 does not come"
    );
    serve_adds(1)?;
    expect_done(asked, boot() + 1)?;
    clean_up()
}

fn eject_while_on_is_not_accepted() -> Outcome {
    needs_a_harness!();
    let asked = resize(boot() + 1);
    serve_adds(1)?;
    expect_done(asked, boot() + 1)?;
    let uid = boot();
    for _ in 0..10 {
        eject(uid);
        check_eq!(
            mmio::read32(sta(uid)),
            ENABLED,
            "STA of vCPU {uid}, ejected while it is on"
        );
    }
    check_eq!(
        psci::affinity_info(affinity(uid)),
        psci::AFFINITY_ON,
        "AFFINITY_INFO"
    );
    clean_up()
}

fn add_is_refused() -> Outcome {
    needs_a_harness!();
    let asked = resize(boot() + 1);
    let (code, uid) = next_event()?;
    check_eq!(code, ADDED, "CODE");
    report(uid, ADDED, 0x81);
    let reply = reply(asked)?;
    check!(
        reply.text().starts_with("refused"),
        "the operator reads \"{}\"",
        reply.text()
    );
    clean_up()
}

fn take_back_is_refused() -> Outcome {
    needs_a_harness!();
    let asked = resize(boot() + 1);
    serve_adds(1)?;
    expect_done(asked, boot() + 1)?;
    let asked = resize(boot());
    let (code, uid) = next_event()?;
    check_eq!(code, ASKED_BACK, "CODE");
    report(uid, ASKED_BACK, 0x84);
    report(uid, ASKED_BACK, 0x82);
    let reply = reply(asked)?;
    check!(
        reply.text().starts_with("refused"),
        "the operator reads \"{}\"",
        reply.text()
    );
    check_eq!(mmio::read32(sta(uid)), ENABLED, "STA after a refusal");
    check_eq!(
        psci::affinity_info(affinity(uid)),
        psci::AFFINITY_ON,
        "AFFINITY_INFO after a refusal"
    );
    clean_up()
}

fn add_is_never_answered() -> Outcome {
    needs_a_harness!();
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    let (_, uid) = next_event()?;
    let reply = reply(asked)?;
    check!(
        reply.text().starts_with("timed-out"),
        "the operator reads \"{}\"",
        reply.text()
    );
    check_eq!(
        psci::cpu_on(affinity(uid), cpu::entry_address(), 0),
        psci::DENIED,
        "CPU_ON after the deadline"
    );
    check_eq!(mmio::read32(sta(uid)), ENABLED, "STA after the deadline");
    let (code, again) = next_event()?;
    check!(
        code == ASKED_BACK && again == uid,
        "event {code} of vCPU {again} after the deadline"
    );
    eject(uid);
    check_eq!(mmio::read32(sta(uid)), RESERVE, "STA after EJECT");
    as_at_boot()
}

fn acknowledged_but_never_on() -> Outcome {
    needs_a_harness!();
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    let (_, uid) = next_event()?;
    // What Linux 6.1 and a guest with nr_cpus= say.
    report(uid, ADDED, 0);
    let reply = reply(asked)?;
    check!(
        !reply.text().starts_with("done"),
        "the operator reads \"{}\"",
        reply.text()
    );
    clean_up()
}

fn ejection_by_the_guest_alone() -> Outcome {
    needs_a_harness!();
    let asked = resize(boot() + 1);
    serve_adds(1)?;
    expect_done(asked, boot() + 1)?;
    let uid = boot();
    turn_off(uid)?;
    eject(uid);
    check_eq!(
        mmio::read32(sta(uid)),
        RESERVE,
        "STA after an ejection that nobody asked for"
    );
    report(uid, 0x103, 0);
    check_eq!(
        psci::cpu_on(affinity(uid), cpu::entry_address(), 0),
        psci::DENIED,
        "CPU_ON after the ejection"
    );
    clean_up()
}

fn boot_cpus_are_not_taken() -> Outcome {
    needs_a_harness!();
    if boot() < 2 {
        ignore!("one boot vCPU");
    }
    let asked = resize(boot() - 1);
    let reply = reply(asked)?;
    check!(
        !reply.text().starts_with("done"),
        "the operator reads \"{}\"",
        reply.text()
    );
    check_eq!(mmio::read32(EVENT), 0, "EVENT");
    as_at_boot()
}

fn add_then_remove_before_it_is_read() -> Outcome {
    needs_a_harness!();
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    let came = timer::within_ms(PATIENCE_MS, || gic::count(INTID) > 0);
    check!(came, "no interrupt");
    // Nothing is read until the deadline has passed: only the newest request may be found then.
    let reply = reply(asked)?;
    check!(
        !reply.text().starts_with("done"),
        "the operator reads \"{}\"",
        reply.text()
    );
    clean_up()
}
