//! Delivery: once, in order of priority, and only while nothing forbids it.

use crate::{END_SPARE, FIRST_SPARE, TAKEN, fresh, note, order, quiet, taken};
use core::sync::atomic::Ordering;
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, exception, gic, machine, mmio, timer};

pub(crate) fn edge_is_taken_once() -> Outcome {
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

pub(crate) fn disabled_stays_pending() -> Outcome {
    fresh();
    for intid in [FIRST_SPARE, gic::spare_private()] {
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

pub(crate) fn pending_can_be_taken_back() -> Outcome {
    fresh();
    for intid in [FIRST_SPARE + 1, gic::spare_private()] {
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

pub(crate) fn everything_pending_comes_in_order() -> Outcome {
    fresh();
    exception::mask();
    let all = || (0..16).chain(FIRST_SPARE..END_SPARE);
    // Distinct priorities as far as 5 bits go, in an order that is neither that of the INTIDs nor its reverse.
    let priority = |intid: u32| (((intid * 7 + 3) % 29) << 3) as u8;
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

pub(crate) fn masked_by_priority() -> Outcome {
    fresh();
    gic::enable(FIRST_SPARE);
    gic::set_priority(FIRST_SPARE, 0xa0);
    gic::set_mask(0xa0);
    exception::unmask();
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(
        quiet() && taken() == 0,
        "priority 0xa0 passed ICC_PMR_EL1 0xa0"
    );
    gic::set_mask(0xa8);
    check!(
        timer::within_ms(1000, || taken() == 1),
        "priority 0xa0 does not pass ICC_PMR_EL1 0xa8"
    );
    gic::set_mask(0xff);
    Ok(())
}

fn pend_itself(intid: u32) {
    note(intid);
    if taken() < 5 {
        gic::write_bit(gic::ISPENDR, intid);
    }
}

pub(crate) fn edge_again_while_active() -> Outcome {
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

pub(crate) fn level_is_taken_again() -> Outcome {
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

pub(crate) fn separate_deactivation() -> Outcome {
    fresh();
    gic::set_separate(true);
    gic::enable(FIRST_SPARE);
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    let acknowledged = timer::within_ms(1000, || gic::acknowledge() == FIRST_SPARE);
    check!(acknowledged, "INTID {FIRST_SPARE} is not acknowledged");
    gic::end(FIRST_SPARE);
    check!(
        gic::read_bit(gic::ISACTIVER, FIRST_SPARE),
        "EOI alone deactivated it"
    );
    check_eq!(gic::running_priority(), 0xff, "ICC_RPR_EL1 after EOI");
    // Pending again: it must not come while it is active.
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    timer::delay(timer::frequency() / 1000);
    let early = gic::acknowledge();
    check_eq!(early, 1023, "acknowledged while it is active");
    gic::deactivate(FIRST_SPARE.into());
    check!(
        !gic::read_bit(gic::ISACTIVER, FIRST_SPARE),
        "DIR did not deactivate it"
    );
    check!(
        timer::within_ms(1000, || gic::acknowledge() == FIRST_SPARE),
        "it does not come again"
    );
    gic::end(FIRST_SPARE);
    gic::deactivate(FIRST_SPARE.into());
    gic::set_separate(false);
    Ok(())
}

pub(crate) fn group_and_interface_enables() -> Outcome {
    fresh();
    gic::enable(FIRST_SPARE);
    exception::unmask();
    gic::set_open(false);
    gic::write_bit(gic::ISPENDR, FIRST_SPARE);
    check!(quiet() && taken() == 0, "it came with the group off");
    gic::set_open(true);
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
