//! Registers: every one answers any access, identification is constant, and what is out of range does nothing.

use crate::delivery::edge_is_taken_once;
use crate::{FIRST_SPARE, fresh, order, quiet, taken};
use guest_rt::exception::Fault;
use guest_rt::probe::{self, Encoding, Width};
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, exception, gic, machine, mmio};

pub(crate) fn nothing_is_pending() -> Outcome {
    fresh();
    let intid = gic::acknowledge();
    check_eq!(intid, 1023, "ICC_IAR1_EL1 with nothing pending");
    check_eq!(
        gic::highest_pending(),
        1023,
        "ICC_HPPIR1_EL1 with nothing pending"
    );
    check_eq!(
        gic::running_priority(),
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

pub(crate) fn every_register_answers() -> Outcome {
    fresh();
    // Interrupts stay masked: some of what is written enables and pends them all.
    sweep(machine().distributor(), 0x1_0000)?;
    if !gic::is_v2() {
        sweep(cpu::current().redistributor(), 0x2_0000)?;
    }
    for register in [gic::ICENABLER, gic::ICPENDR, gic::ICACTIVER] {
        for word in 1..gic::lines() / 32 {
            mmio::write32(
                machine().distributor() + register + u64::from(word) * 4,
                u32::MAX,
            );
        }
        mmio::write32(gic::private_frame() + register, u32::MAX);
    }
    gic::init_distributor();
    gic::init_cpu();
    // Everything works as before.
    edge_is_taken_once()
}

pub(crate) fn writes_do_not_reach_identification() -> Outcome {
    let gicd = machine().distributor();
    let (pidr2, own) = if gic::is_v2() {
        // GICD_ITARGETSR0: whose interrupts these are.
        (gic::V2_PIDR2, gicd + gic::V2_ITARGETSR)
    } else {
        let frame = cpu::current().redistributor();
        (gic::PIDR2, frame + gic::GICR_TYPER)
    };
    for address in [
        gicd + gic::GICD_TYPER,
        gicd + gic::GICD_IIDR,
        gicd + pidr2,
        own,
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

pub(crate) fn intids_out_of_range() -> Outcome {
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
        if gic::is_v2() {
            gic::end(intid as u32);
            gic::deactivate(intid);
            continue;
        }
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

pub(crate) fn priorities_by_the_byte() -> Outcome {
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
    if gic::is_v2() {
        return Ok(());
    }
    // GICD_IROUTER by halves: the other half is kept.
    let router = machine().distributor() + gic::IROUTER + u64::from(FIRST_SPARE) * 8;
    mmio::write64(router, 0);
    mmio::write32(router + 4, 0);
    check_eq!(mmio::read64(router), 0, "GICD_IROUTER");
    Ok(())
}
