//! Handlers within handlers: preemption by priority, deeper than there are list registers.

use crate::{FIRST_SPARE, fresh, note, order, quiet, taken};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, exception, gic, mrs, msr, timer};

static NESTED: AtomicU32 = AtomicU32::new(0);
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// Raises a higher-priority interrupt from inside a handler, and lets it in.
fn nesting(intid: u32) {
    note(intid);
    RUNNING.store(gic::running_priority(), Ordering::Release);
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
    check_eq!(gic::running_priority(), 0xff, "ICC_RPR_EL1 after all");
    Ok(())
}

pub(crate) fn higher_priority_preempts() -> Outcome {
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

pub(crate) fn more_active_than_list_registers() -> Outcome {
    // 16 is the most that an implementation can have; 5 bits of priority allow 12 levels from 0xf0 down to 0x98.
    nested(11)?;
    nested(11)
}

/// Acknowledges more interrupts than there are list registers, drops all priorities, and then ends them in the order in which they
/// came: that is not the order in which a count of ends could be told apart.
pub(crate) fn separate_deactivation_beyond_list_registers() -> Outcome {
    fresh();
    gic::set_separate(true);
    let outcome = ended_by_name();
    gic::set_separate(false);
    outcome
}

fn ended_by_name() -> Outcome {
    // 16 is the most that an implementation can have; these are priorities of 5 bits.
    const COUNT: u32 = 20;
    for round in 0..2 {
        for level in 0..COUNT {
            let intid = FIRST_SPARE + level;
            gic::set_priority(intid, (0xf0 - level * 8) as u8);
            gic::enable(intid);
            gic::write_bit(gic::ISPENDR, intid);
            let came = timer::within_ms(1000, || gic::acknowledge() == intid);
            check!(came, "round {round}: {intid} is not acknowledged");
        }
        for level in (0..COUNT).rev() {
            gic::end(FIRST_SPARE + level);
        }
        check_eq!(gic::running_priority(), 0xff, "ICC_RPR_EL1 after all");
        for level in 0..COUNT {
            let intid = FIRST_SPARE + level;
            check!(
                gic::read_bit(gic::ISACTIVER, intid),
                "round {round}: EOI deactivated {intid}"
            );
            gic::deactivate(intid.into());
            check!(
                !gic::read_bit(gic::ISACTIVER, intid),
                "round {round}: DIR did not deactivate {intid}"
            );
        }
    }
    Ok(())
}
