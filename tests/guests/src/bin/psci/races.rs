//! CPU_ON from several CPUs at once, and against CPU_OFF.

use crate::{MAILBOXES, RACERS, RUNS, bare, count_a_run};
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use guest_rt::stub::{self, Mailbox};
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, ignore, machine, psci, timer};

/// What the racers share: the round that has begun, how many are done with it, and each one's answer.
static ROUND: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
static ANSWERS: [AtomicI64; RACERS] = [const { AtomicI64::new(0) }; RACERS];
const LAST_ROUND: usize = usize::MAX;

fn race_once(racer: usize, target: u64) {
    let answer = psci::cpu_on(target, stub::address(), MAILBOXES[racer].address());
    ANSWERS[racer].store(answer, Ordering::Release);
}

fn racer(racer: u64) {
    let target = machine().cpus().last().copied().unwrap_or(0);
    let mut seen = 0;
    loop {
        let round = ROUND.load(Ordering::Acquire);
        if round == LAST_ROUND {
            return;
        }
        if round != seen {
            seen = round;
            race_once(racer as usize, target);
            DONE.fetch_add(1, Ordering::AcqRel);
        }
        core::hint::spin_loop();
    }
}

pub(crate) fn cpu_on_races() -> Outcome {
    let cpus = machine().cpus().len();
    if cpus < 3 {
        ignore!("a race needs three CPUs");
    }
    if bare() {
        ignore!("QEMU's own PSCI loses this race under load");
    }
    let racers = (cpus - 1).min(RACERS);
    ROUND.store(0, Ordering::Release);
    for index in 1..racers {
        check_eq!(
            cpu::start(index, racer, index as u64),
            psci::SUCCESS,
            "CPU_ON of racer {index}"
        );
    }
    let outcome = race_rounds(racers, cpus - 1);
    ROUND.store(LAST_ROUND, Ordering::Release);
    for index in 1..racers {
        check!(cpu::wait_off(index), "racer {index} does not turn off");
    }
    outcome
}

fn race_rounds(racers: usize, target: usize) -> Outcome {
    let affinity = machine().cpus()[target];
    for round in 1..=machine().number("rounds").unwrap_or(100) as usize {
        MAILBOXES.iter().for_each(Mailbox::clear);
        DONE.store(0, Ordering::Release);
        ROUND.store(round, Ordering::Release);
        race_once(0, affinity);
        check!(
            timer::within_ms(5000, || DONE.load(Ordering::Acquire) == racers - 1),
            "round {round}: stuck racers"
        );
        check!(
            cpu::wait_off(target),
            "round {round}: the target does not turn off"
        );
        // The target may turn off, and be started again, while slower racers are still to come: every start that was
        // granted ran with its own context, and no other did.
        let mut granted = 0;
        for racer in 0..racers {
            let answer = ANSWERS[racer].load(Ordering::Acquire);
            check!(
                answer == psci::SUCCESS || answer == psci::ALREADY_ON,
                "round {round}: racer {racer}: {answer}"
            );
            let ran = MAILBOXES[racer].stamp().is_some();
            check!(
                ran == (answer == psci::SUCCESS),
                "round {round}: racer {racer}: {answer}, but ran: {ran}"
            );
            granted += usize::from(ran);
        }
        check!(granted >= 1, "round {round}: nobody won");
    }
    Ok(())
}

pub(crate) fn cpu_on_against_cpu_off() -> Outcome {
    let Some(&affinity) = machine().cpus().get(1) else {
        ignore!("one CPU")
    };
    if bare() {
        ignore!("QEMU's own PSCI loses starts in this race");
    }
    RUNS.store(0, Ordering::Release);
    let starts = machine().number("rounds").unwrap_or(100) as u32;
    let deadline = timer::now() + 30 * timer::frequency();
    for number in 0..starts {
        // The task of the run before may still be on its way to CPU_OFF: that one and the next share their data.
        let context = cpu::prepare(1, count_a_run, 0);
        loop {
            let info = psci::affinity_info(affinity);
            check!((0..=2).contains(&info), "AFFINITY_INFO {info}");
            match psci::cpu_on(affinity, cpu::entry_address(), context) {
                psci::SUCCESS => break,
                psci::ALREADY_ON | psci::ON_PENDING => {}
                other => check!(false, "CPU_ON number {number}: {other}"),
            }
            check!(
                timer::now() < deadline,
                "CPU_ON number {number} never succeeds"
            );
        }
    }
    check!(cpu::wait_off(1), "CPU 1 does not turn off");
    check_eq!(
        RUNS.load(Ordering::Acquire),
        starts,
        "runs for as many starts"
    );
    Ok(())
}
