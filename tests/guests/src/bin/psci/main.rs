//! Power control as a careless or hostile guest uses it: unknown calls, wrong arguments, and races.
//!
//! Words: `bare` leaves out what QEMU's own PSCI is known to do otherwise; `held=n max=m` says that vCPUs n to m-1 are
//! held back; `resets=n` (with `asked`) makes the guest reset itself until it has booted n times.
#![no_std]
#![no_main]

mod calls;
mod races;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_rt::stub::{self, Mailbox};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    ask, check, check_eq, cpu, gic, guest, ignore, machine, mmio, mrs, psci, tests, timer,
};

guest!(main);

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
            calls::version_and_features,
            calls::the_hypervisor_names_itself,
            calls::unknown_functions,
            calls::many_unknown_functions,
            calls::immediates_other_than_zero,
            calls::upper_half_of_the_function_is_ignored,
            calls::cpu_on_of_no_cpu,
            cpu_on_of_a_running_cpu,
            cpu_on_starts_as_promised,
            cpu_on_32_bit,
            cpu_on_at_no_memory,
            cpu_on_of_a_held_cpu,
            calls::bad_suspend_and_bad_level,
            on_off_cycles,
            races::cpu_on_races,
            races::cpu_on_against_cpu_off,
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
    let all = if gic::is_v2() { &[] } else { machine().cpus() };
    for &affinity in all {
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
        let affinity = ((index / 16) << 8) | (index % 16);
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
