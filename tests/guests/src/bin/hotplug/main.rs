//! The vCPU hot-plug block (docs/hotplug-registers.md) as a driver uses it, and as a guest abuses it.
//!
//! Words: `asked boot=n max=m`: a harness is there, the VM boots with n of m vCPUs. `bare`: there is no such block.
//! `reserve-off`: each vCPU has a CPU, which is off while the vCPU is in reserve. Each test leaves the VM with its
//! boot vCPUs only. Neighbours: `driver`, `memory` (the memory slots, and the word `slots`).
#![no_std]
#![no_main]

mod driver;
mod memory;

use core::sync::atomic::Ordering;
use driver::*;
use guest_rt::probe::{self, Width};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    ask, check, check_eq, cpu, exception, gic, guest, ignore, machine, mmio, psci, tests, timer,
};

guest!(main);

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
    // A resize counts what is on.
    for uid in 1..boot() {
        let _answer = cpu::start(uid as usize, rest, uid);
    }
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
            cpus_of_the_reserve_go_off,
            interrupt_while_masked_is_kept,
            eject_while_on_is_not_accepted,
            add_is_refused,
            take_back_is_refused,
            add_is_never_answered,
            acknowledged_but_never_on,
            ejection_by_the_guest_alone,
            no_offer_before_an_eject_is_closed,
            boot_cpus_are_not_taken,
            add_then_remove_before_it_is_read,
            memory::all_slots_are_empty,
            memory::answers_of_absent_slots_change_nothing,
            memory::memory_comes_empty_and_goes_at_once,
            memory::no_other_vcpu_reads_what_is_ejected,
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
        let known = offset < 12 || frame && offset % 16 == 0;
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
        BLOCK + 8,
        memory::slot_sta(0),
        memory::slot_sta(0) + 4,
        memory::slot_sta(memory::slots()) + 8,
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
            report(uid, EJECTED_UNASKED, 0);
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

fn cpus_of_the_reserve_go_off() -> Outcome {
    needs_a_harness!();
    if !machine().word("reserve-off") {
        ignore!("CPUs of vCPUs in reserve stay on");
    }
    for _ in 0..machine().number("cycles").unwrap_or(3) {
        for vcpus in boot()..max() {
            add_one_to(vcpus)?;
            cpus_are_on(vcpus + 1)?;
        }
        for vcpus in (boot()..max()).rev() {
            take_one_of(vcpus + 1)?;
            cpus_are_on(vcpus)?;
        }
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
    add_one_to(boot())?;
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
    expect(asked, "refused")?;
    clean_up()
}

fn take_back_is_refused() -> Outcome {
    needs_a_harness!();
    add_one_to(boot())?;
    let asked = resize(boot());
    let (code, uid) = next_event()?;
    check_eq!(code, ASKED_BACK, "CODE");
    report(uid, ASKED_BACK, 0x84);
    report(uid, ASKED_BACK, 0x82);
    expect(asked, "refused")?;
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
    expect(asked, "timed-out")?;
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
    report(uid, ASKED_BACK, 0);
    as_at_boot()
}

fn acknowledged_but_never_on() -> Outcome {
    needs_a_harness!();
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    let (_, uid) = next_event()?;
    // What Linux 6.1 and a guest with nr_cpus= say.
    report(uid, ADDED, 0);
    expect_failure(asked)?;
    clean_up()
}

fn ejection_by_the_guest_alone() -> Outcome {
    needs_a_harness!();
    add_one_to(boot())?;
    let uid = boot();
    turn_off(uid)?;
    eject(uid);
    check_eq!(
        mmio::read32(sta(uid)),
        RESERVE,
        "STA after an ejection that nobody asked for"
    );
    report(uid, EJECTED_UNASKED, 0);
    check_eq!(
        psci::cpu_on(affinity(uid), cpu::entry_address(), 0),
        psci::DENIED,
        "CPU_ON after the ejection"
    );
    clean_up()
}

fn no_offer_before_an_eject_is_closed() -> Outcome {
    needs_a_harness!();
    add_one_to(boot())?;
    let uid = boot();
    turn_off(uid)?;
    eject(uid);
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    expect(asked, "timed-out")?;
    check_eq!(mmio::read32(sta(uid)), RESERVE, "STA of what is ejected");
    check_eq!(mmio::read32(EVENT), 0, "EVENT while it is ejected");
    report(uid, EJECTED_UNASKED, 0);
    let asked = resize(boot() + 1);
    serve_adds(1)?;
    expect_done(asked, boot() + 1)?;
    clean_up()
}

fn boot_cpus_are_not_taken() -> Outcome {
    needs_a_harness!();
    if boot() < 2 {
        ignore!("one boot vCPU");
    }
    let asked = resize(boot() - 1);
    expect_failure(asked)?;
    check_eq!(mmio::read32(EVENT), 0, "EVENT");
    as_at_boot()
}

fn add_then_remove_before_it_is_read() -> Outcome {
    needs_a_harness!();
    let asked = request(format_args!("vcpu set @ {} --timeout 1", boot() + 1));
    let came = timer::within_ms(PATIENCE_MS, || gic::count(INTID) > 0);
    check!(came, "no interrupt");
    // Nothing is read until the deadline has passed: only the newest request may be found then.
    expect_failure(asked)?;
    clean_up()
}
