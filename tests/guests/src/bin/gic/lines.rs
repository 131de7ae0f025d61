//! A timer's line that falls before its interrupt was let through: pending is the line, or a write of ISPENDR, and nothing that
//! was once high.

use crate::timers::mask_the_timer;
use crate::{fresh, quiet, taken};
use guest_rt::suite::Outcome;
use guest_rt::{check, exception, gic, insn, machine, mmio, msr, timer};

/// One of the two timers of EL1.
struct Timer {
    intid: u32,
    set_control: fn(u64),
    set_deadline: fn(u64),
}

const TIMERS: [Timer; 2] = [
    Timer {
        intid: timer::VIRTUAL_INTID,
        set_control: |value| msr!("cntv_ctl_el0", value),
        set_deadline: |value| msr!("cntv_cval_el0", value),
    },
    Timer {
        intid: timer::PHYSICAL_INTID,
        set_control: |value| msr!("cntp_ctl_el0", value),
        set_deadline: |value| msr!("cntp_cval_el0", value),
    },
];

/// A way for the line to fall.
type Fall = (&'static str, fn(&Timer));

const FALLS: [Fall; 3] = [
    ("stopped", |timer| (timer.set_control)(0)),
    ("masked", |timer| {
        (timer.set_control)(timer::CTL_ENABLE | timer::CTL_IMASK)
    }),
    ("put off", |timer| (timer.set_deadline)(u64::MAX)),
];

/// What holds an interrupt back: closed, and opened again.
type Gate = (&'static str, fn(u32), fn(u32));

const GATES: [Gate; 4] = [
    ("disabled", gic::disable, gic::enable),
    (
        "active",
        |intid| gic::write_bit(gic::ISACTIVER, intid),
        |intid| gic::write_bit(gic::ICACTIVER, intid),
    ),
    (
        "all groups off",
        |_| set_groups(0),
        |_| set_groups(gic::group_enable()),
    ),
    (
        "in a group that is off",
        |intid| set_group(intid, 1 - used_group()),
        |intid| set_group(intid, used_group()),
    ),
];

/// GICD_CTLR.EnableGrp1 and EnableGrp0.
const GROUPS: u32 = 1 << 1 | 1 << 0;

/// The group that all interrupts are in.
fn used_group() -> u32 {
    gic::group_enable() >> 1
}

fn set_groups(groups: u32) {
    let ctlr = machine().distributor() + gic::GICD_CTLR;
    mmio::write32(ctlr, mmio::read32(ctlr) & !GROUPS | groups);
}

fn set_group(intid: u32, group: u32) {
    let register = gic::private_frame() + gic::IGROUPR;
    let others = mmio::read32(register) & !(1 << intid);
    mmio::write32(register, others | group << intid);
}

fn is_pending(timer: &Timer) -> bool {
    insn!("isb");
    gic::read_bit(gic::ISPENDR, timer.intid)
}

/// Lets the timer's condition be met since long.
fn arm(timer: &Timer) {
    (timer.set_control)(0);
    (timer.set_deadline)(0);
    (timer.set_control)(timer::CTL_ENABLE);
    insn!("isb");
}

/// Starts with the interrupt enabled, and interrupts let in.
fn begin(timer: &Timer) {
    fresh();
    set_groups(gic::group_enable());
    gic::set_handler(mask_the_timer);
    gic::enable(timer.intid);
    exception::unmask();
}

/// Checks that `expected` interrupts came, and that the timer works: one more for one more expiry.
fn ends_with(timer: &Timer, expected: usize, what: &str, how: &str) -> Outcome {
    let intid = timer.intid;
    check!(
        timer::within_ms(1000, || taken() >= expected) && quiet() && taken() == expected,
        "{intid} {what}, {how}: {} interrupts instead of {expected}",
        taken()
    );
    arm(timer);
    check!(
        timer::within_ms(1000, || taken() > expected) && quiet() && taken() == expected + 1,
        "{intid} {what}, {how}, armed again: {} interrupts instead of {}",
        taken(),
        expected + 1
    );
    Ok(())
}

pub(crate) fn a_line_that_fell_is_forgotten() -> Outcome {
    for timer in &TIMERS {
        for (what, close, open) in GATES {
            for (how, fall) in FALLS {
                begin(timer);
                close(timer.intid);
                arm(timer);
                check!(
                    timer::within_ms(1000, || is_pending(timer)),
                    "{} {what}: not pending",
                    timer.intid
                );
                fall(timer);
                check!(
                    !is_pending(timer),
                    "{} {what}, {how}: still pending",
                    timer.intid
                );
                open(timer.intid);
                ends_with(timer, 0, what, how)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn a_line_that_rose_again_counts_once() -> Outcome {
    for timer in &TIMERS {
        begin(timer);
        gic::disable(timer.intid);
        for (_, fall) in FALLS {
            arm(timer);
            check!(
                timer::within_ms(1000, || is_pending(timer)),
                "{}: not pending",
                timer.intid
            );
            fall(timer);
        }
        arm(timer);
        gic::enable(timer.intid);
        ends_with(timer, 1, "disabled", "risen again")?;
    }
    Ok(())
}

pub(crate) fn a_written_one_outlives_the_line() -> Outcome {
    for timer in &TIMERS {
        for (how, fall) in FALLS {
            for clear in [false, true] {
                begin(timer);
                gic::disable(timer.intid);
                arm(timer);
                check!(
                    timer::within_ms(1000, || is_pending(timer)),
                    "{}: not pending",
                    timer.intid
                );
                gic::write_bit(gic::ISPENDR, timer.intid);
                fall(timer);
                check!(
                    is_pending(timer),
                    "{} written, {how}: not pending",
                    timer.intid
                );
                if clear {
                    gic::write_bit(gic::ICPENDR, timer.intid);
                    check!(
                        !is_pending(timer),
                        "{} cleared, {how}: pending",
                        timer.intid
                    );
                }
                gic::enable(timer.intid);
                ends_with(timer, usize::from(!clear), "written", how)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn a_written_one_and_the_line_come_once() -> Outcome {
    for timer in &TIMERS {
        // Which of the two comes first, with interrupts masked until both are there.
        for written_first in [false, true] {
            begin(timer);
            exception::mask();
            if written_first {
                gic::write_bit(gic::ISPENDR, timer.intid);
                arm(timer);
            } else {
                arm(timer);
                gic::write_bit(gic::ISPENDR, timer.intid);
            }
            check!(
                timer::within_ms(1000, || is_pending(timer)),
                "{}: not pending",
                timer.intid
            );
            exception::unmask();
            ends_with(timer, 1, "written and high", "together")?;
        }
    }
    Ok(())
}
