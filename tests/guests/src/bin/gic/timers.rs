//! The two timers of EL1 at the edges of their ranges, masked and held back.

use crate::{bare, fresh, note, quiet, taken};
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, exception, gic, insn, mrs, msr, timer};

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

pub(crate) fn timer_conditions() -> Outcome {
    virtual_conditions()?;
    physical_conditions()
}

pub(crate) fn mask_the_timer(intid: u32) {
    note(intid);
    msr!("cntv_ctl_el0", timer::CTL_ENABLE | timer::CTL_IMASK);
    msr!("cntp_ctl_el0", timer::CTL_ENABLE | timer::CTL_IMASK);
}

pub(crate) fn timer_masking() -> Outcome {
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

pub(crate) fn timer_held_back() -> Outcome {
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
    timer::stop_virtual();
    timer::stop_physical();
    insn!("isb");
    // A line that falls takes its pending state with it, but this one is in a list register already: a hypervisor may deliver
    // what is in there once, as KVM does, and not more. `lines` has all the cases in which it may not.
    let spurious = if bare() { 0 } else { 2 };
    let gone = timer::within_ms(100, || !gic::read_bit(gic::ISPENDR, timer::VIRTUAL_INTID));
    check!(gone || !bare(), "pending after it fell");
    exception::unmask();
    check!(timer::within_ms(1000, quiet), "no end of interrupts");
    check!(
        taken() <= spurious,
        "{} interrupts after the lines had fallen",
        taken()
    );
    Ok(())
}
