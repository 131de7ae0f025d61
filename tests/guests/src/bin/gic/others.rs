//! Several CPUs: routing, SGIs, and one CPU's redistributor in another's hands.

use crate::{FIRST_SPARE, bare, fresh, note, quiet, taken};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_rt::exception::Fault;
use guest_rt::probe::Encoding;
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, exception, gic, ignore, machine, mmio, psci, timer};

static TAKER: AtomicU64 = AtomicU64::new(u64::MAX);
static STOP: AtomicU32 = AtomicU32::new(0);

fn note_taker(intid: u32) {
    TAKER.store(cpu::affinity(), Ordering::Release);
    note(intid);
}

/// Takes interrupts until told to stop.
fn take(_: u64) {
    for intid in 0..16 {
        gic::enable(intid);
    }
    READY.fetch_add(1, Ordering::AcqRel);
    exception::unmask();
    while STOP.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
}

static READY: AtomicU32 = AtomicU32::new(0);

/// Runs a test with every CPU taking interrupts.
fn with_all_cpus(test: fn() -> Outcome) -> Outcome {
    let cpus = machine().cpus().len();
    if cpus < 2 {
        ignore!("one CPU");
    }
    fresh();
    STOP.store(0, Ordering::Release);
    READY.store(0, Ordering::Release);
    gic::set_handler(note_taker);
    for index in 1..cpus {
        check_eq!(
            cpu::start(index, take, 0),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
    }
    let ready = timer::within_ms(5000, || READY.load(Ordering::Acquire) as usize == cpus - 1);
    let outcome = if ready { test() } else { Ok(()) };
    STOP.store(1, Ordering::Release);
    for index in 1..cpus {
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    check!(ready, "not all CPUs started");
    outcome
}

pub(crate) fn routing_to_each_cpu() -> Outcome {
    with_all_cpus(|| {
        gic::enable(FIRST_SPARE);
        exception::unmask();
        for &affinity in machine().cpus() {
            TAKER.store(u64::MAX, Ordering::Release);
            gic::route(FIRST_SPARE, affinity);
            gic::write_bit(gic::ISPENDR, FIRST_SPARE);
            let arrived = timer::within_ms(2000, || TAKER.load(Ordering::Acquire) != u64::MAX);
            check!(arrived, "the SPI routed to {affinity:#x} does not come");
            check_eq!(
                TAKER.load(Ordering::Acquire),
                affinity,
                "the CPU that took the SPI"
            );
        }
        // To no CPU: it waits until it is routed to one.
        TAKER.store(u64::MAX, Ordering::Release);
        gic::route_nowhere(FIRST_SPARE);
        gic::write_bit(gic::ISPENDR, FIRST_SPARE);
        check!(quiet(), "an SPI routed to nobody came");
        gic::route(FIRST_SPARE, cpu::affinity());
        check!(
            timer::within_ms(2000, || TAKER.load(Ordering::Acquire) == cpu::affinity()),
            "it does not come at last"
        );
        Ok(())
    })
}

pub(crate) fn sgi_to_nobody() -> Outcome {
    if gic::is_v2() {
        return sgi_to_no_bit();
    }
    fresh();
    gic::enable(4);
    exception::unmask();
    // Unknown Aff1, Aff2, Aff3; a range selector that is not supported; an empty list.
    for value in [
        4 << 24 | 0xff << 16 | 1,
        4 << 24 | 0x77 << 32 | 1,
        4 << 24 | 0x55 << 48 | 1,
        4 << 24,
        4 << 24 | 0xf << 44 | 0xffff,
    ] {
        if bare() && value >> 44 & 0xf != 0 {
            // QEMU's own GIC ignores the range selector.
            continue;
        }
        gic::write_sgi1r(value);
        check!(
            quiet() && taken() == 0,
            "ICC_SGI1R_EL1 {value:#x} reached this CPU"
        );
    }
    // ICC_SGI0R_EL1 and ICC_ASGI1R_EL1: other groups; nothing may come of them but their being undefined.
    for register in [Encoding(3, 0, 12, 11, 7), Encoding(3, 0, 12, 11, 6)] {
        let seen = register.write(4 << 24 | 1);
        check!(
            seen.fault.is_none() || seen.class() == Some(Fault::UNDEFINED),
            "{register:?}: {:x?}",
            seen.fault
        );
    }
    gic::send_sgi(cpu::affinity(), 4);
    check!(
        timer::within_ms(1000, || gic::count(4) > 0),
        "an SGI to itself does not come any more"
    );
    Ok(())
}

/// The same by GICD_SGIR: an empty list, vCPUs that there are not, and the filter that is reserved.
fn sgi_to_no_bit() -> Outcome {
    fresh();
    gic::enable(4);
    exception::unmask();
    let none = !((1 << machine().cpus().len()) - 1) & 0xff;
    for value in [4, none << 16 | 4, 3 << 24 | 0xff << 16 | 4] {
        gic::write_sgir(value);
        check!(
            quiet() && taken() == 0,
            "GICD_SGIR {value:#x} reached this CPU"
        );
    }
    gic::write_sgir(2 << 24 | 4);
    check!(
        timer::within_ms(1000, || gic::count(4) > 0),
        "an SGI to itself does not come any more"
    );
    Ok(())
}

pub(crate) fn sgi_to_all_but_self() -> Outcome {
    with_all_cpus(|| {
        gic::enable(6);
        exception::unmask();
        let others = machine().cpus().len() as u32 - 1;
        for round in 1..=20 {
            gic::send_sgi_to_others(6);
            let all = timer::within_ms(2000, || gic::count(6) == others * round);
            check!(
                all,
                "{} of {} in round {round}",
                gic::count(6),
                others * round
            );
        }
        check!(
            TAKER.load(Ordering::Acquire) != cpu::affinity(),
            "it came to the sender"
        );
        Ok(())
    })
}

/// Sends SGI number `index` to every CPU, one after the other.
pub(crate) fn sgi_between_all_pairs() -> Outcome {
    with_all_cpus(|| {
        for intid in 0..16 {
            gic::enable(intid);
        }
        exception::unmask();
        for round in 1..=10_u32 {
            for (index, &affinity) in machine().cpus().iter().enumerate() {
                let intid = index as u32 % 16;
                let before = gic::count(intid);
                TAKER.store(u64::MAX, Ordering::Release);
                gic::send_sgi(affinity, intid);
                let arrived = timer::within_ms(2000, || gic::count(intid) == before + 1);
                check!(
                    arrived,
                    "round {round}: SGI {intid} does not reach {affinity:#x}"
                );
                check!(
                    timer::within_ms(2000, || TAKER.load(Ordering::Acquire) == affinity),
                    "it went elsewhere"
                );
            }
        }
        Ok(())
    })
}

pub(crate) fn anothers_redistributor() -> Outcome {
    if gic::is_v2() {
        ignore!("a GICv2 has none");
    }
    with_all_cpus(|| {
        for &affinity in machine().cpus().iter().skip(1) {
            let Some(frame) = gic::find_redistributor(affinity) else {
                ignore!("no redistributor")
            };
            let sgi = frame + gic::SGI_FRAME;
            TAKER.store(u64::MAX, Ordering::Release);
            mmio::write32(sgi + gic::ISPENDR, 1 << 11);
            let arrived = timer::within_ms(2000, || TAKER.load(Ordering::Acquire) == affinity);
            check!(
                arrived,
                "SGI 11 pended for {affinity:#x} was taken by {:#x}",
                TAKER.load(Ordering::Acquire)
            );
            mmio::write8(sgi + gic::IPRIORITYR + 21, 0x50);
            check_eq!(
                mmio::read32(sgi + gic::IPRIORITYR + 20) & 0xff00,
                0x5000,
                "priority of a PPI of {affinity:#x}"
            );
        }
        check!(
            gic::count(11) as usize == machine().cpus().len() - 1,
            "{} of them",
            gic::count(11)
        );
        Ok(())
    })
}

/// What is sent to a CPU while it is off does not keep it from hearing what comes later.
pub(crate) fn sgi_to_a_cpu_that_is_off() -> Outcome {
    let Some(&other) = machine().cpus().get(1) else {
        ignore!("one CPU");
    };
    fresh();
    gic::set_handler(note_taker);
    for before in [5, 6, 7] {
        STOP.store(1, Ordering::Release);
        check_eq!(cpu::start(1, take, 0), psci::SUCCESS, "CPU_ON");
        // QEMU's own PSCI says OFF until a CPU that it turns on has come.
        let came = timer::within_ms(5000, || cpu::is_running(1));
        check!(came && cpu::wait_off(1), "CPU 1 does not turn off");
        gic::send_sgi(other, before);
        STOP.store(0, Ordering::Release);
        READY.store(0, Ordering::Release);
        check_eq!(cpu::start(1, take, 0), psci::SUCCESS, "CPU_ON again");
        let ready = timer::within_ms(5000, || READY.load(Ordering::Acquire) == 1);
        gic::reset_counts();
        gic::send_sgi(other, 8);
        let heard = timer::within_ms(1000, || gic::count(8) == 1);
        STOP.store(1, Ordering::Release);
        check!(cpu::wait_off(1), "CPU 1 does not turn off again");
        check!(ready, "CPU 1 does not start");
        check!(heard, "the SGI is not taken");
    }
    Ok(())
}

pub(crate) fn sgi_flood() -> Outcome {
    const FLOOD: u32 = 5000;
    with_all_cpus(|| {
        let last = machine().cpus().last().copied().unwrap_or(0);
        for _ in 0..FLOOD {
            gic::send_sgi(last, 2);
        }
        // SGIs that meet a pending one merge with it: at least one comes, and not more than were sent.
        check!(
            timer::within_ms(2000, || gic::count(2) > 0),
            "no SGI of a flood came"
        );
        check!(timer::within_ms(2000, quiet), "they do not end");
        check!(gic::count(2) <= FLOOD, "{} of {FLOOD}", gic::count(2));
        // Another INTID: it can't merge with a late one of the flood, and its count is its own.
        gic::send_sgi(last, 3);
        check!(
            timer::within_ms(2000, || gic::count(3) == 1),
            "the CPU takes no SGI after a flood"
        );
        Ok(())
    })
}

static PEND: AtomicU32 = AtomicU32::new(0);
const PENDS: u32 = 200;

/// Pends an SPI each time it is asked to.
fn pend_when_asked(_: u64) {
    let mut pended = 0;
    while pended < PENDS && STOP.load(Ordering::Acquire) == 0 {
        if PEND.load(Ordering::Acquire) > pended {
            gic::write_bit(gic::ISPENDR, FIRST_SPARE);
            pended += 1;
        }
        core::hint::spin_loop();
    }
}

/// An edge that another CPU raises while this one has interrupts masked and looks whether it is pending.
pub(crate) fn edge_from_another_cpu_while_masked() -> Outcome {
    edges_from_another_cpu(|round| {
        exception::mask();
        PEND.store(round, Ordering::Release);
        let pending = timer::within_ms(5000, || gic::read_bit(gic::ISPENDR, FIRST_SPARE));
        check!(pending, "round {round}: it does not become pending");
        exception::unmask();
        Ok(())
    })
}

/// An edge that another CPU raises while this one runs, traps and waits.
pub(crate) fn edge_from_another_cpu_at_any_time() -> Outcome {
    edges_from_another_cpu(|round| {
        exception::unmask();
        PEND.store(round, Ordering::Release);
        for _ in 0..round % 64 {
            let _ = mmio::read32(machine().distributor() + gic::GICD_TYPER);
        }
        Ok(())
    })
}

fn edges_from_another_cpu(one_edge: fn(u32) -> Outcome) -> Outcome {
    if machine().cpus().len() < 2 {
        ignore!("one CPU");
    }
    fresh();
    STOP.store(0, Ordering::Release);
    PEND.store(0, Ordering::Release);
    gic::enable(FIRST_SPARE);
    check_eq!(cpu::start(1, pend_when_asked, 0), psci::SUCCESS, "CPU_ON");
    let mut outcome = Ok(());
    for round in 1..=PENDS {
        outcome = one_edge(round).and_then(|()| taken_once(round));
        if outcome.is_err() {
            break;
        }
    }
    STOP.store(1, Ordering::Release);
    check!(cpu::wait_off(1), "CPU 1 does not turn off");
    outcome
}

fn taken_once(round: u32) -> Outcome {
    let taken = timer::within_ms(5000, || gic::count(FIRST_SPARE) >= round);
    check!(taken, "round {round}: it is not taken");
    // Rounds follow each other at once, but for a few that wait for a second one of the same edge.
    check!(
        !round.is_multiple_of(16) || quiet(),
        "round {round}: it comes again"
    );
    check_eq!(gic::count(FIRST_SPARE), round, "how often it was taken");
    Ok(())
}
