//! The interrupt controller as a careful, careless or hostile guest drives it: order, edges and levels, other CPUs' parts.
//!
//! Words: `bare` leaves out what QEMU's own GIC is known to do otherwise.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use guest_rt::exception::Fault;
use guest_rt::machine::machine;
use guest_rt::probe::{self, Encoding, Width};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    check, check_eq, cpu, exception, gic, guest, ignore, insn, mmio, mrs, msr, psci, tests, timer,
};

guest!(main);

/// SPIs that no device of the machine uses.
const FIRST_SPARE: u32 = 64;
/// The end of those used here: every GIC that is offered has this many.
const END_SPARE: u32 = 96;
/// How long nothing may happen before that is believed, in milliseconds.
const QUIET_MS: u64 = 5;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "gic",
        tests![
            nothing_is_pending,
            every_register_answers,
            writes_do_not_reach_identification,
            edge_is_taken_once,
            disabled_stays_pending,
            pending_can_be_taken_back,
            everything_pending_comes_in_order,
            masked_by_priority,
            higher_priority_preempts,
            more_active_than_list_registers,
            edge_again_while_active,
            level_is_taken_again,
            separate_deactivation,
            group_and_interface_enables,
            intids_out_of_range,
            priorities_by_the_byte,
            routing_to_each_cpu,
            sgi_to_nobody,
            sgi_to_all_but_self,
            sgi_between_all_pairs,
            anothers_redistributor,
            sgi_flood,
            timer_conditions,
            timer_masking,
            timer_held_back,
        ],
    );
}

fn bare() -> bool {
    machine().word("bare")
}

/// INTIDs in the order in which they were taken.
static ORDER: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn note(intid: u32) {
    let at = TAKEN.fetch_add(1, Ordering::AcqRel);
    if let Some(slot) = ORDER.get(at) {
        slot.store(intid, Ordering::Release);
    }
}

fn taken() -> usize {
    TAKEN.load(Ordering::Acquire)
}

fn order(at: usize) -> u32 {
    ORDER
        .get(at)
        .map_or(u32::MAX, |slot| slot.load(Ordering::Acquire))
}

/// Starts a test with nothing enabled, pending or active on this CPU and among the spare SPIs.
fn fresh() {
    exception::mask();
    timer::stop_virtual();
    timer::stop_physical();
    gic::init_cpu();
    let sgi = cpu::current().redistributor() + gic::SGI_FRAME;
    mmio::write32(sgi + gic::ICACTIVER, u32::MAX);
    for intid in 0..32 {
        gic::set_priority(intid, 0xa0);
    }
    for intid in 16..32 {
        gic::set_edge(intid, false);
    }
    for intid in FIRST_SPARE..END_SPARE {
        gic::disable(intid);
        gic::write_bit(gic::ICPENDR, intid);
        gic::write_bit(gic::ICACTIVER, intid);
        gic::set_priority(intid, 0xa0);
        gic::set_edge(intid, true);
        gic::route(intid, cpu::affinity());
    }
    gic::reset_counts();
    TAKEN.store(0, Ordering::Release);
    gic::set_handler(note);
}

fn quiet() -> bool {
    let before = taken();
    timer::delay(QUIET_MS * timer::frequency() / 1000);
    taken() == before
}

fn nothing_is_pending() -> Outcome {
    fresh();
    let intid = gic::acknowledge();
    check_eq!(intid, 1023, "ICC_IAR1_EL1 with nothing pending");
    check_eq!(
        mrs!("S3_0_C12_C12_2"),
        1023,
        "ICC_HPPIR1_EL1 with nothing pending"
    );
    check_eq!(
        mrs!("S3_0_C12_C11_3"),
        0xff,
        "ICC_RPR_EL1 with nothing active"
    );
    Ok(())
}

/// Makes one kind of access at every `step`th address of a frame, also unaligned; whatever comes back, it comes back.
fn sweep_with(
    frame: u64,
    size: u64,
    step: u64,
    access: impl Fn(u64) -> probe::Observation,
) -> Outcome {
    for address in (frame..frame + size).step_by(step as usize) {
        let seen = access(address);
        let calm = seen
            .fault
            .is_none_or(|fault| seen.exact && fault.class() == Fault::DATA_ABORT);
        check!(calm, "at {address:#x}: {:x?}", seen.fault);
    }
    Ok(())
}

/// Accesses a frame in every width, with nothing and with everything.
fn sweep(frame: u64, size: u64) -> Outcome {
    /// Not a multiple of any register's size or stride, so that every array is met at every phase.
    const ODD_STEP: u64 = 0x1f;
    sweep_with(frame, size, 4, |address| {
        probe::store(address, Width::Word, 0)
    })?;
    sweep_with(frame, size, 4, |address| probe::load(address, Width::Word))?;
    sweep_with(frame, size, 4, |address| {
        probe::store(address, Width::Word, u64::MAX)
    })?;
    sweep_with(frame, size, 4, |address| probe::load(address, Width::Word))?;
    for width in Width::ALL {
        sweep_with(frame, size, ODD_STEP, |address| probe::load(address, width))?;
        sweep_with(frame, size, ODD_STEP, |address| {
            probe::store(address, width, u64::MAX)
        })?;
    }
    Ok(())
}

fn every_register_answers() -> Outcome {
    fresh();
    // Interrupts stay masked: some of what is written enables and pends them all.
    sweep(machine().distributor(), 0x1_0000)?;
    let frame = cpu::current().redistributor();
    sweep(frame, 0x2_0000)?;
    for register in [gic::ICENABLER, gic::ICPENDR, gic::ICACTIVER] {
        for word in 1..gic::lines() / 32 {
            mmio::write32(
                machine().distributor() + register + u64::from(word) * 4,
                u32::MAX,
            );
        }
        mmio::write32(frame + gic::SGI_FRAME + register, u32::MAX);
    }
    gic::init_distributor();
    gic::init_cpu();
    // Everything works as before.
    edge_is_taken_once()
}

fn writes_do_not_reach_identification() -> Outcome {
    let gicd = machine().distributor();
    let frame = cpu::current().redistributor();
    for address in [
        gicd + gic::GICD_TYPER,
        gicd + gic::GICD_IIDR,
        gicd + gic::PIDR2,
        frame + gic::GICR_TYPER,
    ] {
        let before = mmio::read32(address);
        mmio::write32(address, !before);
        check_eq!(
            mmio::read32(address),
            before,
            "the register at {address:#x} after a write"
        );
    }
    Ok(())
}

fn edge_is_taken_once() -> Outcome {
    fresh();
    for intid in [FIRST_SPARE, END_SPARE - 1, 7] {
        gic::enable(intid);
        TAKEN.store(0, Ordering::Release);
        exception::unmask();
        if intid < 16 {
            gic::send_sgi(cpu::affinity(), intid)
        } else {
            gic::write_bit(gic::ISPENDR, intid)
        }
        check!(
            timer::within_ms(1000, || taken() > 0),
            "INTID {intid} does not come"
        );
        check!(
            quiet() && taken() == 1,
            "INTID {intid} came {} times",
            taken()
        );
        check!(
            !gic::read_bit(gic::ISPENDR, intid),
            "INTID {intid} is still pending"
        );
        check!(
            !gic::read_bit(gic::ISACTIVER, intid),
            "INTID {intid} is still active"
        );
        exception::mask();
    }
    Ok(())
}

fn disabled_stays_pending() -> Outcome {
    fresh();
    for intid in [FIRST_SPARE, 9] {
        gic::disable(intid);
        TAKEN.store(0, Ordering::Release);
        exception::unmask();
        gic::write_bit(gic::ISPENDR, intid);
        check!(quiet() && taken() == 0, "INTID {intid} came while disabled");
        check!(
            gic::read_bit(gic::ISPENDR, intid),
            "INTID {intid} is not pending"
        );
        gic::enable(intid);
        check!(
            timer::within_ms(1000, || taken() == 1),
            "INTID {intid} does not come once enabled"
        );
        // Disabled again before the CPU can take it.
        exception::mask();
        gic::write_bit(gic::ISPENDR, intid);
        gic::disable(intid);
        exception::unmask();
        check!(
            quiet() && taken() == 1,
            "INTID {intid} came after it had been disabled"
        );
        gic::write_bit(gic::ICPENDR, intid);
    }
    Ok(())
}

fn pending_can_be_taken_back() -> Outcome {
    fresh();
    for intid in [FIRST_SPARE + 1, 10] {
        gic::enable(intid);
        exception::mask();
        gic::write_bit(gic::ISPENDR, intid);
        check!(
            timer::within_ms(1000, || gic::read_bit(gic::ISPENDR, intid)),
            "INTID {intid} is not pending"
        );
        gic::write_bit(gic::ICPENDR, intid);
        exception::unmask();
        check!(
            quiet() && taken() == 0,
            "INTID {intid} came though it was taken back"
        );
    }
    Ok(())
}

fn everything_pending_comes_in_order() -> Outcome {
    fresh();
    exception::mask();
    let all = || (0..16).chain(FIRST_SPARE..END_SPARE);
    // Distinct priorities as far as 5 bits go, in an order that is neither that of the INTIDs nor its reverse.
    let priority = |intid: u32| ((intid * 7 + 3) % 29 << 3) as u8;
    for intid in all() {
        gic::set_priority(intid, priority(intid));
        gic::enable(intid);
    }
    for intid in all() {
        if intid < 16 {
            gic::send_sgi(cpu::affinity(), intid)
        } else {
            gic::write_bit(gic::ISPENDR, intid)
        }
    }
    timer::delay(timer::frequency() / 1000);
    exception::unmask();
    let total = all().count();
    check!(
        timer::within_ms(5000, || taken() >= total),
        "{} of {total}",
        taken()
    );
    check!(
        quiet() && taken() == total,
        "{} instead of {total}",
        taken()
    );
    for at in 1..total {
        let (before, after) = (order(at - 1), order(at));
        check!(
            priority(before) <= priority(after),
            "INTID {before} came before INTID {after}"
        );
    }
    for intid in all() {
        check_eq!(gic::count(intid), 1, "how often INTID {intid} came");
    }
    Ok(())
}

fn masked_by_priority() -> Outcome {
    fresh();
    gic::enable(FIRST_SPARE);
    gic::set_priority(FIRST_SPARE, 0xa0);
    msr!("S3_0_C4_C6_0", 0xa0);
    exception::unmask();
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(
        quiet() && taken() == 0,
        "priority 0xa0 passed ICC_PMR_EL1 0xa0"
    );
    msr!("S3_0_C4_C6_0", 0xa8);
    check!(
        timer::within_ms(1000, || taken() == 1),
        "priority 0xa0 does not pass ICC_PMR_EL1 0xa8"
    );
    msr!("S3_0_C4_C6_0", 0xff);
    Ok(())
}

static NESTED: AtomicU32 = AtomicU32::new(0);
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Raises a higher-priority interrupt from inside a handler, and lets it in.
fn nesting(intid: u32) {
    note(intid);
    RUNNING.store(mrs!("S3_0_C12_C11_3"), Ordering::Release);
    let depth = NESTED.fetch_add(1, Ordering::AcqRel);
    if depth < NEST_MAX.load(Ordering::Acquire) {
        nest(FIRST_SPARE + depth + 1);
    }
}

static NEST_MAX: AtomicU32 = AtomicU32::new(0);

/// Takes one more interrupt while this handler's is active; keeps what an exception overwrites.
fn nest(intid: u32) {
    let (elr, spsr) = (mrs!("elr_el1"), mrs!("spsr_el1"));
    gic::write_bit(gic::ISPENDR, intid);
    let before = taken();
    exception::unmask();
    let _ = timer::within_ms(500, || taken() > before);
    exception::mask();
    msr!("elr_el1", elr);
    msr!("spsr_el1", spsr);
}

/// Nests handlers of ever higher priority, this many deep.
fn nested(depth: u32) -> Outcome {
    fresh();
    for level in 0..=depth {
        gic::set_priority(FIRST_SPARE + level, (0xf0 - level * 8) as u8);
        gic::enable(FIRST_SPARE + level);
    }
    NESTED.store(0, Ordering::Release);
    NEST_MAX.store(depth, Ordering::Release);
    gic::set_handler(nesting);
    exception::unmask();
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    let all = depth as usize + 1;
    check!(
        timer::within_ms(5000, || taken() == all),
        "{} of {all} nested interrupts",
        taken()
    );
    check!(quiet() && taken() == all, "{} instead of {all}", taken());
    for level in 0..=depth {
        check_eq!(
            order(level as usize),
            FIRST_SPARE + level,
            "interrupt at depth {level}"
        );
        check!(
            !gic::read_bit(gic::ISACTIVER, FIRST_SPARE + level),
            "depth {level} is still active"
        );
    }
    check_eq!(mrs!("S3_0_C12_C11_3"), 0xff, "ICC_RPR_EL1 after all");
    Ok(())
}

fn higher_priority_preempts() -> Outcome {
    nested(1)?;
    check_eq!(
        RUNNING.load(Ordering::Acquire),
        0xe8,
        "ICC_RPR_EL1 in the inner handler"
    );
    // Equal priority does not preempt.
    fresh();
    gic::set_priority(FIRST_SPARE, 0xa0);
    gic::set_priority(FIRST_SPARE + 1, 0xa0);
    gic::enable(FIRST_SPARE);
    gic::enable(FIRST_SPARE + 1);
    gic::set_handler(equal);
    SEEN_INSIDE.store(u32::MAX, Ordering::Release);
    exception::unmask();
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(timer::within_ms(1000, || taken() == 2), "{} of 2", taken());
    check_eq!(
        SEEN_INSIDE.load(Ordering::Acquire),
        1,
        "interrupts taken by the end of the first handler"
    );
    Ok(())
}

static SEEN_INSIDE: AtomicU32 = AtomicU32::new(0);

fn equal(intid: u32) {
    note(intid);
    if intid != FIRST_SPARE {
        return;
    }
    let (elr, spsr) = (mrs!("elr_el1"), mrs!("spsr_el1"));
    gic::write_bit(gic::ISPENDR, FIRST_SPARE + 1);
    exception::unmask();
    timer::delay(timer::frequency() / 1000);
    exception::mask();
    SEEN_INSIDE.store(taken() as u32, Ordering::Release);
    msr!("elr_el1", elr);
    msr!("spsr_el1", spsr);
}

fn more_active_than_list_registers() -> Outcome {
    // 16 is the most that an implementation can have; 5 bits of priority allow 12 levels from 0xf0 down to 0x98.
    nested(11)?;
    nested(11)
}

fn pend_itself(intid: u32) {
    note(intid);
    if taken() < 5 {
        gic::write_bit(gic::ISPENDR, intid);
    }
}

fn edge_again_while_active() -> Outcome {
    fresh();
    gic::enable(FIRST_SPARE);
    gic::set_handler(pend_itself);
    exception::unmask();
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(timer::within_ms(1000, || taken() == 5), "{} of 5", taken());
    check!(quiet() && taken() == 5, "{} instead of 5", taken());
    Ok(())
}

fn lower_at_the_fifth(intid: u32) {
    note(intid);
    if taken() >= 5 {
        timer::stop_virtual();
    }
}

fn level_is_taken_again() -> Outcome {
    fresh();
    gic::enable(timer::VIRTUAL_INTID);
    gic::set_handler(lower_at_the_fifth);
    timer::arm_virtual(timer::now());
    exception::unmask();
    check!(
        timer::within_ms(2000, || taken() >= 5),
        "{} of 5 while the line stays high",
        taken()
    );
    check!(quiet() && taken() == 5, "{} instead of 5", taken());
    check!(
        !gic::read_bit(gic::ISPENDR, timer::VIRTUAL_INTID),
        "pending though the line is low"
    );
    Ok(())
}

/// ICC_CTLR_EL1.EOImode.
const SEPARATE: u64 = 1 << 1;

fn separate_deactivation() -> Outcome {
    fresh();
    msr!("S3_0_C12_C12_4", SEPARATE);
    gic::enable(FIRST_SPARE);
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    let acknowledged = timer::within_ms(1000, || gic::acknowledge() == FIRST_SPARE);
    check!(acknowledged, "INTID {FIRST_SPARE} is not acknowledged");
    gic::end(FIRST_SPARE);
    check!(
        gic::read_bit(gic::ISACTIVER, FIRST_SPARE),
        "EOI alone deactivated it"
    );
    check_eq!(mrs!("S3_0_C12_C11_3"), 0xff, "ICC_RPR_EL1 after EOI");
    // Pending again: it must not come while it is active.
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    timer::delay(timer::frequency() / 1000);
    let early = gic::acknowledge();
    check_eq!(early, 1023, "acknowledged while it is active");
    // ICC_DIR_EL1.
    msr!("S3_0_C12_C11_1", u64::from(FIRST_SPARE));
    check!(
        !gic::read_bit(gic::ISACTIVER, FIRST_SPARE),
        "DIR did not deactivate it"
    );
    check!(
        timer::within_ms(1000, || gic::acknowledge() == FIRST_SPARE),
        "it does not come again"
    );
    gic::end(FIRST_SPARE);
    msr!("S3_0_C12_C11_1", u64::from(FIRST_SPARE));
    msr!("S3_0_C12_C12_4", 0);
    Ok(())
}

fn group_and_interface_enables() -> Outcome {
    fresh();
    gic::enable(FIRST_SPARE);
    exception::unmask();
    // ICC_IGRPEN1_EL1.
    msr!("S3_0_C12_C12_7", 0);
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(quiet() && taken() == 0, "it came with the group off");
    msr!("S3_0_C12_C12_7", 1);
    check!(
        timer::within_ms(1000, || taken() == 1),
        "it does not come with the group on"
    );
    let ctlr = machine().distributor() + gic::GICD_CTLR;
    let on = mmio::read32(ctlr);
    mmio::write32(ctlr, on & !3);
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(quiet() && taken() == 1, "it came with the distributor off");
    mmio::write32(ctlr, on);
    check!(
        timer::within_ms(1000, || taken() == 2),
        "it does not come with the distributor on"
    );
    Ok(())
}

fn intids_out_of_range() -> Outcome {
    fresh();
    // ICC_EOIR1_EL1, ICC_DIR_EL1, ICC_EOIR0_EL1 with INTIDs that are not active, not there, or special.
    for intid in [
        0,
        31,
        200,
        987,
        1019,
        1020,
        1021,
        1022,
        1023,
        4096,
        8192,
        0xff_ffff,
        u64::MAX,
    ] {
        for register in [
            Encoding(3, 0, 12, 12, 1),
            Encoding(3, 0, 12, 11, 1),
            Encoding(3, 0, 12, 8, 1),
        ] {
            let seen = register.write(intid);
            let calm = seen.fault.is_none() || seen.class() == Some(Fault::UNDEFINED);
            check!(calm, "{register:?} with {intid:#x}: {:x?}", seen.fault);
        }
    }
    for intid in [gic::lines(), 1019, 1020, 1023] {
        if intid < gic::lines() {
            continue;
        }
        gic::write_bit(gic::ISPENDR, intid);
        gic::enable(intid);
        gic::set_priority(intid, 0);
    }
    exception::unmask();
    check!(quiet() && taken() == 0, "INTID {} came", order(0));
    exception::mask();
    edge_is_taken_once()
}

fn priorities_by_the_byte() -> Outcome {
    fresh();
    let base = machine().distributor() + gic::IPRIORITYR + u64::from(FIRST_SPARE);
    mmio::write32(base, 0x1020_3040);
    check_eq!(mmio::read32(base), 0x1020_3040, "a word of GICD_IPRIORITYR");
    mmio::write8(base + 1, 0x78);
    check_eq!(
        mmio::read32(base),
        0x1020_7840,
        "the word after a byte of it was written"
    );
    check_eq!(probe::load(base + 2, Width::Byte).x0, 0x20, "a byte");
    let half = probe::load(base + 2, Width::Half);
    check!(
        half.fault.is_some() || half.x0 == 0x1020 || half.x0 == 0,
        "a half word reads {:#x}",
        half.x0
    );
    // GICD_IROUTER by halves: the other half is kept.
    let router = machine().distributor() + gic::IROUTER + u64::from(FIRST_SPARE) * 8;
    mmio::write64(router, 0);
    mmio::write32(router + 4, 0);
    check_eq!(mmio::read64(router), 0, "GICD_IROUTER");
    Ok(())
}

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

fn routing_to_each_cpu() -> Outcome {
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
        // To nobody: it waits until it is routed to somebody.
        TAKER.store(u64::MAX, Ordering::Release);
        gic::route(FIRST_SPARE, 0x00ff_ff0f);
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

fn sgi_to_nobody() -> Outcome {
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

fn sgi_to_all_but_self() -> Outcome {
    with_all_cpus(|| {
        gic::enable(6);
        exception::unmask();
        let others = machine().cpus().len() as u32 - 1;
        for round in 1..=20 {
            gic::write_sgi1r(1 << 40 | 6 << 24);
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
fn sgi_between_all_pairs() -> Outcome {
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
                    timer::within_ms(100, || TAKER.load(Ordering::Acquire) == affinity),
                    "it went elsewhere"
                );
            }
        }
        Ok(())
    })
}

fn anothers_redistributor() -> Outcome {
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

fn sgi_flood() -> Outcome {
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
        check!(quiet(), "they do not end");
        check!(gic::count(2) <= FLOOD, "{} of {FLOOD}", gic::count(2));
        let before = gic::count(2);
        gic::send_sgi(last, 2);
        check!(
            timer::within_ms(2000, || gic::count(2) == before + 1),
            "the CPU takes no SGI after a flood"
        );
        Ok(())
    })
}

/// A timer: its registers by name, and its INTID.
macro_rules! timer_tests {
    ($check:ident, $cval:literal, $ctl:literal, $tval:literal, $count:literal, $intid:expr) => {
        fn $check() -> Outcome {
            fresh();
            msr!($ctl, timer::CTL_ENABLE | timer::CTL_IMASK);
            let conditions = [
                (0, true, "0"),
                (u64::MAX, false, "2^64 - 1"),
                (mrs!($count), true, "now"),
                (
                    mrs!($count) + 100 * timer::frequency(),
                    false,
                    "a while ahead",
                ),
                (1 << 63, false, "2^63"),
            ];
            for (value, met, what) in conditions {
                msr!($cval, value);
                let status = mrs!($ctl) & timer::CTL_ISTATUS != 0;
                check!(status == met, "compare value {what}: ISTATUS is {status}");
                check_eq!(mrs!($cval), value, "compare value {what} reads");
            }
            // TVAL is signed: below zero the condition is met.
            msr!($tval, 0xffff_ff00);
            check!(
                mrs!($ctl) & timer::CTL_ISTATUS != 0,
                "a negative TVAL does not meet the condition"
            );
            msr!($tval, 0x7fff_ffff);
            check!(
                mrs!($ctl) & timer::CTL_ISTATUS == 0,
                "the largest TVAL meets the condition"
            );
            let left = mrs!($tval);
            check!(
                left <= 0x7fff_ffff && left > 0x7000_0000,
                "TVAL reads {left:#x}"
            );
            // Off: no interrupt, whatever the value.
            msr!($ctl, 0);
            msr!($cval, 0);
            gic::enable($intid);
            exception::unmask();
            check!(
                quiet() && taken() == 0,
                "an interrupt of a timer that is off"
            );
            Ok(())
        }
    };
}

timer_tests!(
    virtual_conditions,
    "cntv_cval_el0",
    "cntv_ctl_el0",
    "cntv_tval_el0",
    "cntvct_el0",
    timer::VIRTUAL_INTID
);
timer_tests!(
    physical_conditions,
    "cntp_cval_el0",
    "cntp_ctl_el0",
    "cntp_tval_el0",
    "cntpct_el0",
    timer::PHYSICAL_INTID
);

fn timer_conditions() -> Outcome {
    virtual_conditions()?;
    physical_conditions()
}

fn mask_the_timer(intid: u32) {
    note(intid);
    msr!("cntv_ctl_el0", timer::CTL_ENABLE | timer::CTL_IMASK);
    msr!("cntp_ctl_el0", timer::CTL_ENABLE | timer::CTL_IMASK);
}

fn timer_masking() -> Outcome {
    fresh();
    gic::set_handler(mask_the_timer);
    gic::enable(timer::VIRTUAL_INTID);
    gic::enable(timer::PHYSICAL_INTID);
    exception::unmask();
    msr!("cntv_cval_el0", 0);
    msr!("cntp_cval_el0", u64::MAX);
    for round in 1..=50 {
        msr!("cntv_ctl_el0", timer::CTL_ENABLE);
        check!(
            timer::within_ms(1000, || taken() == round),
            "virtual: {} of {round}",
            taken()
        );
        check!(
            mrs!("cntv_ctl_el0") & timer::CTL_ISTATUS != 0,
            "ISTATUS is hidden by IMASK"
        );
    }
    timer::stop_virtual();
    msr!("cntp_cval_el0", 0);
    for round in 51..=100 {
        msr!("cntp_ctl_el0", timer::CTL_ENABLE);
        check!(
            timer::within_ms(1000, || taken() == round),
            "physical: {} of {round}",
            taken()
        );
    }
    timer::stop_physical();
    check!(quiet() && taken() == 100, "{} instead of 100", taken());
    Ok(())
}

fn timer_held_back() -> Outcome {
    fresh();
    gic::set_handler(mask_the_timer);
    gic::enable(timer::VIRTUAL_INTID);
    gic::enable(timer::PHYSICAL_INTID);
    exception::mask();
    timer::arm_virtual(0);
    timer::arm_physical(0);
    // Asserted, and not taken: nothing else may suffer.
    timer::delay(20 * timer::frequency() / 1000);
    check!(
        gic::read_bit(gic::ISPENDR, timer::VIRTUAL_INTID),
        "the virtual timer is not pending"
    );
    check!(
        gic::read_bit(gic::ISPENDR, timer::PHYSICAL_INTID) || bare(),
        "the physical timer is not pending"
    );
    // A line that falls takes its pending state with it.
    timer::stop_virtual();
    timer::stop_physical();
    insn!("isb");
    check!(
        timer::within_ms(100, || !gic::read_bit(gic::ISPENDR, timer::VIRTUAL_INTID)),
        "pending after it fell"
    );
    exception::unmask();
    check!(
        quiet() && taken() == 0,
        "INTID {} came after its line had fallen",
        order(0)
    );
    Ok(())
}
