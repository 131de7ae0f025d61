//! The first guest: is there a console, PSCI, a timer, an interrupt controller, a clock, and every CPU?
#![no_std]
#![no_main]

use guest_rt::suite::{self, Outcome};
use guest_rt::{
    check, check_eq, cpu, exception, gic, guest, ignore, machine, mmio, mrs, psci, tests, timer,
};

guest!(main);

fn main() {
    guest_rt::println!(
        "Bullpen smoke guest at {:#x}, arguments: {}",
        machine().image().base,
        machine().bootargs()
    );
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "smoke",
        tests![
            psci_version,
            counter_runs,
            gic_identity,
            sgi_to_self,
            virtual_timer_fires,
            physical_timer_fires,
            wfi_wakes,
            pl031_answers,
            pl031_alarm_ends_a_sleep,
            all_cpus_start,
            sgi_to_every_cpu,
        ],
    );
}

fn psci_version() -> Outcome {
    let version = psci::version();
    check!(
        version >> 16 >= 1 || version == 2,
        "PSCI_VERSION {version:#x}"
    );
    Ok(())
}

fn counter_runs() -> Outcome {
    let before = timer::now();
    timer::delay(1000);
    check!(timer::now() > before, "the virtual counter stands still");
    check!(timer::frequency() != 0, "CNTFRQ_EL0 is 0");
    Ok(())
}

fn gic_identity() -> Outcome {
    let (register, expected) = if gic::is_v2() {
        (gic::V2_PIDR2, 2..=2)
    } else {
        (gic::PIDR2, 3..=4)
    };
    let revision = mmio::read32(machine().distributor() + register) >> 4 & 0xf;
    check!(
        expected.contains(&revision),
        "GICD_PIDR2 says architecture {revision}"
    );
    check!(gic::lines() >= 64, "only {} INTIDs", gic::lines());
    Ok(())
}

fn sgi_to_self() -> Outcome {
    gic::reset_counts();
    gic::enable(3);
    gic::send_sgi(cpu::affinity(), 3);
    exception::unmask();
    check!(
        timer::within_ms(1000, || gic::count(3) == 1),
        "the SGI came {} times",
        gic::count(3)
    );
    Ok(())
}

fn virtual_timer_fires() -> Outcome {
    gic::reset_counts();
    gic::enable(timer::VIRTUAL_INTID);
    let deadline = timer::now() + timer::frequency() / 1000;
    timer::arm_virtual(deadline);
    exception::unmask();
    check!(
        timer::within_ms(1000, || gic::count(timer::VIRTUAL_INTID) == 1),
        "no interrupt 27"
    );
    check!(
        timer::now() >= deadline,
        "the interrupt came before its time"
    );
    Ok(())
}

fn physical_timer_fires() -> Outcome {
    gic::reset_counts();
    gic::enable(timer::PHYSICAL_INTID);
    timer::arm_physical(mrs!("cntpct_el0") + timer::frequency() / 1000);
    exception::unmask();
    check!(
        timer::within_ms(1000, || gic::count(timer::PHYSICAL_INTID) == 1),
        "no interrupt 30"
    );
    Ok(())
}

fn wfi_wakes() -> Outcome {
    gic::reset_counts();
    gic::enable(timer::VIRTUAL_INTID);
    for _ in 0..20 {
        exception::mask();
        timer::arm_virtual(timer::now() + timer::frequency() / 2000);
        guest_rt::insn!("wfi");
        exception::unmask();
    }
    check!(
        timer::within_ms(1000, || gic::count(timer::VIRTUAL_INTID) == 20),
        "{} of 20",
        gic::count(27)
    );
    Ok(())
}

/// Where QEMU virt has its clock, and its interrupt.
const PL031: u64 = 0x0901_0000;
const PL031_INTID: u32 = 34;
/// Registers of a PL031 (Arm DDI 0224, 3.3).
const RTCDR: u64 = PL031;
const RTCMR: u64 = PL031 + 4;
const RTCIMSC: u64 = PL031 + 0x10;
const RTCICR: u64 = PL031 + 0x1c;

macro_rules! needs_a_pl031 {
    () => {
        if !machine().described() || machine().distributor() != 0x0800_0000 {
            ignore!("this machine's map is not QEMU virt's, or the tree names no device");
        }
    };
}

/// UARTPeriphID-like identification of a PL031 (Arm DDI 0224): part number 0x031 in its first two registers.
fn pl031_answers() -> Outcome {
    needs_a_pl031!();
    let part = mmio::read32(PL031 + 0xfe0) & 0xff | (mmio::read32(PL031 + 0xfe4) & 0xf) << 8;
    check_eq!(part, 0x031, "part number");
    // Where the host has no clock, time begins with the host.
    if !machine().word("no-clock") {
        check!(mmio::read32(PL031) != 0, "RTCDR is 0");
    }
    Ok(())
}

/// Lowers the line that interrupts.
fn quiet(intid: u32) {
    match intid {
        PL031_INTID => mmio::write32(RTCICR, 1),
        _ => timer::stop_virtual(),
    }
}

/// The alarm rings although every CPU sleeps and none looks at the clock.
fn pl031_alarm_ends_a_sleep() -> Outcome {
    needs_a_pl031!();
    gic::reset_counts();
    gic::set_handler(quiet);
    gic::route(PL031_INTID, cpu::affinity());
    gic::enable(PL031_INTID);
    gic::enable(timer::VIRTUAL_INTID);
    mmio::write32(RTCIMSC, 1);
    mmio::write32(RTCMR, mmio::read32(RTCDR).wrapping_add(2));
    // Ends the sleep if the clock does not.
    timer::arm_virtual(timer::now() + 10 * timer::frequency());
    let rung = || gic::count(PL031_INTID);
    while rung() + gic::count(timer::VIRTUAL_INTID) == 0 {
        exception::mask();
        guest_rt::insn!("wfi");
        exception::unmask();
    }
    timer::stop_virtual();
    mmio::write32(RTCIMSC, 0);
    gic::disable(PL031_INTID);
    check_eq!(rung(), 1, "alarms");
    check_eq!(gic::count(timer::VIRTUAL_INTID), 0, "timers");
    gic::reset_counts();
    Ok(())
}

fn nothing(_: u64) {}

fn all_cpus_start() -> Outcome {
    for index in 1..machine().cpus().len() {
        check_eq!(
            cpu::start(index, nothing, 0),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
        check!(
            timer::within_ms(1000, || cpu::is_running(index)),
            "CPU {index} does not run"
        );
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    Ok(())
}

fn wait_for_sgi(intid: u64) {
    gic::enable(intid as u32);
    let before = gic::count(intid as u32);
    exception::unmask();
    // The target runs alone on this INTID: a count above the one it started with is its own.
    let _ = timer::within_ms(2000, || gic::count(intid as u32) > before);
}

fn sgi_to_every_cpu() -> Outcome {
    for (index, &affinity) in machine().cpus().iter().enumerate().skip(1) {
        gic::reset_counts();
        check_eq!(
            cpu::start(index, wait_for_sgi, 5),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
        check!(
            timer::within_ms(1000, || cpu::is_running(index)),
            "CPU {index} does not run"
        );
        timer::delay(timer::frequency() / 10_000);
        gic::send_sgi(affinity, 5);
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
        check_eq!(gic::count(5), 1, "SGIs that CPU {index} took");
    }
    Ok(())
}
