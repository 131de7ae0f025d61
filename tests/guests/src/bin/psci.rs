//! Power control as a careless or hostile guest uses it: unknown calls, wrong arguments, and races.
//!
//! Words: `bare` leaves out what QEMU's own PSCI is known to do otherwise; `held=n max=m` says that vCPUs n to m-1 are
//! held back; `resets=n` (with `asked`) makes the guest reset itself until it has booted n times.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use guest_rt::exception::Fault;
use guest_rt::machine::Conduit;
use guest_rt::stub::{self, Mailbox};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    ask, check, check_eq, cpu, gic, guest, ignore, machine, mmio, mrs, probe, psci, tests, timer,
};

guest!(main);

/// SMCCC_VERSION.
const SMCCC_VERSION: u64 = 0x8000_0000;
/// A function number that no service owner defines.
const UNDEFINED_NUMBER: u64 = 0x7e5a;
/// CPUs that race for one.
const RACERS: usize = 8;

fn main() {
    let clean = starts_clean();
    gic::init_distributor();
    gic::init_cpu();
    if let Some(wanted) = machine().number("resets") {
        reset_until(wanted);
    }
    // What the machine looked like before the run-time touched it is reported as a test like the others.
    CLEAN.store(clean, Ordering::Relaxed);
    suite::run(
        "psci",
        tests![
            machine_was_as_after_reset,
            version_and_features,
            unknown_functions,
            many_unknown_functions,
            immediates_other_than_zero,
            upper_half_of_the_function_is_ignored,
            cpu_on_of_no_cpu,
            cpu_on_of_a_running_cpu,
            cpu_on_starts_as_promised,
            cpu_on_32_bit,
            cpu_on_at_no_memory,
            cpu_on_of_a_held_cpu,
            bad_suspend_and_bad_level,
            on_off_cycles,
            cpu_on_races,
            cpu_on_against_cpu_off,
            all_cpus_at_once,
        ],
    );
}

static CLEAN: AtomicU64 = AtomicU64::new(0);

/// Returns a bit for each thing that is not as after a reset.
fn starts_clean() -> u64 {
    let gicd = machine().distributor();
    let mut dirty = 0;
    let mut note = |bit: u64, wrong: bool| dirty |= u64::from(wrong) << bit;
    note(0, mrs!("cntv_ctl_el0") & timer::CTL_ENABLE != 0);
    note(1, mrs!("cntp_ctl_el0") & timer::CTL_ENABLE != 0);
    note(2, mmio::read32(gicd + gic::GICD_CTLR) & 3 != 0);
    note(
        3,
        (1..gic::lines() / 32)
            .any(|word| mmio::read32(gicd + gic::ISENABLER + u64::from(word) * 4) != 0),
    );
    note(
        4,
        (1..gic::lines() / 32)
            .any(|word| mmio::read32(gicd + gic::ISACTIVER + u64::from(word) * 4) != 0),
    );
    for &affinity in machine().cpus() {
        let frame = gic::find_redistributor(affinity).unwrap_or(0);
        note(5, frame == 0);
        if frame != 0 {
            note(
                6,
                mmio::read32(frame + gic::SGI_FRAME + gic::ISENABLER) != 0,
            );
            note(
                7,
                mmio::read32(frame + gic::SGI_FRAME + gic::ISACTIVER) != 0,
            );
        }
    }
    for &affinity in machine().cpus().iter().skip(1) {
        note(8, psci::affinity_info(affinity) != psci::AFFINITY_OFF);
    }
    dirty
}

fn machine_was_as_after_reset() -> Outcome {
    check_eq!(
        CLEAN.load(Ordering::Relaxed),
        0,
        "what was not as after a reset, a bit each"
    );
    Ok(())
}

/// Leaves as much behind as it can, and resets, until the harness says that this is the wanted boot.
fn reset_until(wanted: u64) {
    let Some(reply) = ask::ask(format_args!("boot-number")) else {
        return;
    };
    let number: u64 = reply.text().parse().unwrap_or(wanted);
    if number >= wanted {
        return;
    }
    for index in 1..machine().cpus().len() {
        let _ = cpu::start(index, spin, 0);
    }
    for intid in 0..gic::lines() {
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
    }
    timer::arm_virtual(0);
    timer::arm_physical(0);
    psci::system_reset()
}

fn spin(_: u64) {
    loop {
        core::hint::spin_loop();
    }
}

fn bare() -> bool {
    machine().word("bare")
}

fn version_and_features() -> Outcome {
    let version = psci::version();
    check!(version >> 16 >= 1, "PSCI_VERSION {version:#x}");
    for function in [
        psci::VERSION,
        psci::CPU_OFF,
        psci::CPU_ON,
        psci::AFFINITY_INFO,
        psci::SYSTEM_OFF,
    ] {
        let answer = psci::call(psci::FEATURES, function, 0, 0);
        check!(answer >= 0, "PSCI_FEATURES({function:#x}): {answer}");
    }
    for function in [0x8400_00ff, 0xc400_00fe, 0x1234_5678] {
        check_eq!(
            psci::call(psci::FEATURES, function, 0, 0),
            psci::NOT_SUPPORTED,
            "PSCI_FEATURES({function:#x})"
        );
    }
    if !bare() {
        check_eq!(
            psci::call(psci::MIGRATE_INFO_TYPE, 0, 0, 0),
            2,
            "MIGRATE_INFO_TYPE"
        );
    }
    Ok(())
}

fn conduit(registers: psci::Registers) -> psci::Registers {
    match machine().conduit() {
        Conduit::Hvc => psci::hvc(registers),
        Conduit::Smc => psci::smc(registers),
    }
}

/// Calls a function that nobody defines, with recognisable values in every register.
fn call_unknown(function: u64, seed: u64) -> Outcome {
    let mut registers: psci::Registers =
        core::array::from_fn(|index| seed.rotate_left(index as u32 * 3));
    registers[0] = function;
    let result = conduit(registers);
    check_eq!(result[0] as i32, -1, "x0 of {function:#x}");
    for index in 4..18 {
        check_eq!(
            result[index],
            registers[index],
            "x{index} after {function:#x}"
        );
    }
    Ok(())
}

fn unknown_functions() -> Outcome {
    for owner in 0..64 {
        for class in [0x8000_0000, 0xc000_0000, 0x0000_0000, 0x4000_0000] {
            call_unknown(
                class | owner << 24 | UNDEFINED_NUMBER,
                0x0123_4567_89ab_cdef ^ owner,
            )?;
        }
    }
    call_unknown(0xffff_ffff, u64::MAX)
}

fn many_unknown_functions() -> Outcome {
    let count = if machine().word("long") {
        1_000_000
    } else {
        20_000
    };
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..count {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Owner 4 holds PSCI itself: its numbers below 0x100 are left alone.
        call_unknown(0x8400_0000 | seed & 0x4000_fe00 | 0x100, seed)?;
    }
    Ok(())
}

fn immediates_other_than_zero() -> Outcome {
    if bare() {
        ignore!("QEMU's own PSCI does not look at the immediate");
    }
    for immediate in [1_u32, 0x42, 0xea1, 0xffff] {
        for base in [0xd400_0002_u32, 0xd400_0003] {
            let seen = probe::run(base | immediate << 5, psci::VERSION, 0);
            let refused = seen.fault.is_none() && seen.x0 as i32 == -1;
            let undefined = seen.exact && seen.class() == Some(Fault::UNDEFINED);
            check!(
                refused || undefined,
                "{:#x}: x0 {:#x}, {:?}",
                base | immediate << 5,
                seen.x0,
                seen.fault
            );
        }
    }
    Ok(())
}

fn upper_half_of_the_function_is_ignored() -> Outcome {
    if bare() {
        ignore!("QEMU's own PSCI compares all of x0");
    }
    check_eq!(
        psci::call(0xdead_beef_0000_0000 | psci::VERSION, 0, 0, 0),
        psci::version(),
        "x0 of the call"
    );
    Ok(())
}

fn cpu_on_of_no_cpu() -> Outcome {
    let last = machine().cpus().iter().copied().max().unwrap_or(0);
    let strange = [
        last | 1 << 16,
        0x0f0f,
        1 << 32,
        u64::MAX,
        1 << 63,
        1 << 24,
        1 << 40,
        0xffff_ffff,
    ];
    for affinity in strange {
        check_eq!(
            psci::cpu_on(affinity, stub::address(), 0),
            psci::INVALID_PARAMETERS,
            "CPU_ON of {affinity:#x}"
        );
        let info = psci::affinity_info(affinity);
        check_eq!(
            info,
            psci::INVALID_PARAMETERS,
            "AFFINITY_INFO of {affinity:#x}"
        );
    }
    Ok(())
}

fn cpu_on_of_a_running_cpu() -> Outcome {
    let itself = cpu::affinity();
    check_eq!(
        psci::cpu_on(itself, stub::address(), 0),
        psci::ALREADY_ON,
        "CPU_ON of itself"
    );
    check_eq!(
        psci::affinity_info(itself),
        psci::AFFINITY_ON,
        "AFFINITY_INFO of itself"
    );
    let Some(&other) = machine().cpus().get(1) else {
        return Ok(());
    };
    GO.store(0, Ordering::Release);
    check_eq!(cpu::start(1, until_go, 0), psci::SUCCESS, "CPU_ON");
    check!(
        timer::within_ms(1000, || cpu::is_running(1)),
        "CPU 1 does not run"
    );
    for _ in 0..100 {
        check_eq!(
            psci::cpu_on(other, stub::address(), 0),
            psci::ALREADY_ON,
            "CPU_ON of a running CPU"
        );
        check_eq!(
            psci::affinity_info(other),
            psci::AFFINITY_ON,
            "AFFINITY_INFO of a running CPU"
        );
    }
    GO.store(1, Ordering::Release);
    check!(cpu::wait_off(1), "CPU 1 does not turn off");
    Ok(())
}

/// Waits until a CPU that was started has turned itself off.
///
/// QEMU's own PSCI goes on saying "off" for a while after CPU_ON has succeeded: there, what the CPU did is awaited first.
fn finished(index: usize, ran: impl FnMut() -> bool) -> bool {
    (!bare() || timer::within_ms(1000, ran)) && cpu::wait_off(index)
}

static GO: AtomicU32 = AtomicU32::new(0);

fn until_go(_: u64) {
    while GO.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
}

static MAILBOXES: [Mailbox; RACERS] = [const { Mailbox::new() }; RACERS];

fn cpu_on_starts_as_promised() -> Outcome {
    for (index, &affinity) in machine().cpus().iter().enumerate().skip(1) {
        MAILBOXES[0].clear();
        check_eq!(
            psci::cpu_on(affinity, stub::address(), MAILBOXES[0].address()),
            psci::SUCCESS,
            "CPU_ON"
        );
        check!(
            finished(index, || MAILBOXES[0].stamp().is_some()),
            "CPU {index} does not turn off"
        );
        let Some(state) = MAILBOXES[0].state() else {
            check!(false, "CPU {index} did not run, or not with its context");
            return Ok(());
        };
        check_eq!(
            state.sctlr & 0x1005,
            0,
            "SCTLR_EL1's M, C and I of CPU {index}"
        );
        check_eq!(state.daif, 0x3c0, "DAIF of CPU {index}");
        check!(
            state.level == 1 || bare() && state.level == 2,
            "CPU {index} started at EL{}",
            state.level
        );
        check_eq!(state.affinity, affinity, "affinity of CPU {index}");
        check_eq!(
            state.timer & timer::CTL_ENABLE,
            0,
            "CNTV_CTL_EL0 of CPU {index}"
        );
        check_eq!(state.stack_select, 1, "SPSel of CPU {index}");
    }
    Ok(())
}

fn cpu_on_32_bit() -> Outcome {
    let Some(&affinity) = machine().cpus().get(1) else {
        ignore!("one CPU")
    };
    if stub::address() >> 32 != 0 {
        ignore!("the image lies above 4 GiB");
    }
    MAILBOXES[0].clear();
    let answer = psci::call(
        psci::CPU_ON_32,
        affinity,
        stub::address(),
        MAILBOXES[0].address(),
    );
    check_eq!(answer, psci::SUCCESS, "CPU_ON of the 32-bit convention");
    check!(
        finished(1, || MAILBOXES[0].stamp().is_some()),
        "CPU 1 does not turn off"
    );
    check!(MAILBOXES[0].stamp().is_some(), "CPU 1 did not run");
    Ok(())
}

fn cpu_on_at_no_memory() -> Outcome {
    let Some(&affinity) = machine().cpus().get(1) else {
        ignore!("one CPU")
    };
    if bare() {
        ignore!("QEMU's own PSCI does not check");
    }
    let end = machine()
        .ram()
        .map_or(0x80_0000_0000, |ram| ram.base + ram.size);
    let entries = [
        stub::address() + 2,
        machine().distributor(),
        end,
        end + 0x1000_0000,
        u64::MAX - 3,
        1 << 52,
    ];
    for entry in entries {
        check_eq!(
            psci::cpu_on(affinity, entry, 0),
            psci::INVALID_ADDRESS,
            "CPU_ON at {entry:#x}"
        );
        check_eq!(
            psci::affinity_info(affinity),
            psci::AFFINITY_OFF,
            "AFFINITY_INFO after CPU_ON at {entry:#x}"
        );
    }
    Ok(())
}

fn cpu_on_of_a_held_cpu() -> Outcome {
    let (Some(first), Some(max)) = (machine().number("held"), machine().number("max")) else {
        ignore!("no CPU is held back");
    };
    for index in first..max {
        let affinity = (index / 16) << 8 | index % 16;
        for _ in 0..10 {
            check_eq!(
                psci::cpu_on(affinity, stub::address(), 0),
                psci::DENIED,
                "CPU_ON of the held CPU {index}"
            );
            check_eq!(
                psci::affinity_info(affinity),
                psci::AFFINITY_OFF,
                "AFFINITY_INFO of the held CPU {index}"
            );
        }
    }
    Ok(())
}

fn bad_suspend_and_bad_level() -> Outcome {
    let answer = psci::call(psci::CPU_SUSPEND, 0xffff_ffff, stub::address(), 0);
    check_eq!(
        answer,
        psci::INVALID_PARAMETERS,
        "CPU_SUSPEND with no such power state"
    );
    if bare() {
        ignore!("QEMU's own PSCI takes any affinity level");
    }
    for level in [4, 0xff, 0xffff_ffff] {
        let answer = psci::call(psci::AFFINITY_INFO, cpu::affinity(), level, 0);
        check_eq!(
            answer,
            psci::INVALID_PARAMETERS,
            "AFFINITY_INFO at level {level}"
        );
    }
    Ok(())
}

static RUNS: AtomicU32 = AtomicU32::new(0);

fn count_a_run(_: u64) {
    RUNS.fetch_add(1, Ordering::AcqRel);
}

fn on_off_cycles() -> Outcome {
    let cycles = machine().number("cycles").unwrap_or(50) as u32;
    for index in 1..machine().cpus().len() {
        RUNS.store(0, Ordering::Release);
        for cycle in 0..cycles {
            check_eq!(
                cpu::start(index, count_a_run, 0),
                psci::SUCCESS,
                "CPU_ON number {cycle} of CPU {index}"
            );
            let ran = || RUNS.load(Ordering::Acquire) > cycle;
            check!(
                finished(index, ran),
                "CPU {index} does not turn off after cycle {cycle}"
            );
        }
        check_eq!(RUNS.load(Ordering::Acquire), cycles, "runs of CPU {index}");
    }
    Ok(())
}

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

fn cpu_on_races() -> Outcome {
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
        // granted ran with its own context, and nobody else's did.
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

fn cpu_on_against_cpu_off() -> Outcome {
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

fn all_cpus_at_once() -> Outcome {
    let others = machine().cpus().len() - 1;
    GO.store(0, Ordering::Release);
    RUNS.store(0, Ordering::Release);
    for index in 1..=others {
        check_eq!(
            cpu::start(index, count_then_wait, 0),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
    }
    check!(
        timer::within_ms(5000, || RUNS.load(Ordering::Acquire) as usize == others),
        "not all CPUs run"
    );
    GO.store(1, Ordering::Release);
    for index in 1..=others {
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    Ok(())
}

fn count_then_wait(_: u64) {
    RUNS.fetch_add(1, Ordering::AcqRel);
    until_go(0);
}
