//! The memory slots of the hot-plug block, as their driver uses them and as a guest abuses them.
//!
//! Words: `slots=n`: the VM has n slots of 128 MiB, and 64 MiB from boot at 1 GiB. Each test leaves all slots empty.

use crate::driver::*;
use core::sync::atomic::Ordering;
use guest_rt::probe::{self, Width};
use guest_rt::suite::Outcome;
use guest_rt::{ask, check, check_eq, ignore, machine, mmio, timer};

/// Memory from boot, in MiB.
const BOOT_MIB: u64 = 64;
/// Size of a slot, in MiB.
const SLOT_MIB: u64 = 128;
const SLOT_BYTES: u64 = SLOT_MIB << 20;
/// Where the first slot's window is.
const WINDOWS: u64 = 0x4800_0000;
const PAGE: u64 = 4096;
/// STA of a slot without memory.
const ABSENT: u32 = 0;
/// What is left in memory that is given back.
const CANARY: u64 = 0x6361_6e61_7279_2121;

/// Returns how many memory slots the VM has.
pub fn slots() -> u64 {
    machine().number("slots").unwrap_or(0)
}

/// Returns the address of a slot's STA.
pub fn slot_sta(slot: u64) -> u64 {
    BLOCK + 0x4000 + 16 * slot
}

fn eject_slot(slot: u64) {
    mmio::write32(slot_sta(slot) + 4, 1);
}

fn report_slot(slot: u64, source: u32, status: u32) {
    mmio::write32(slot_sta(slot) + 8, source << 16 | status);
}

fn window(slot: u64) -> u64 {
    WINDOWS + slot * SLOT_BYTES
}

macro_rules! needs_slots {
    () => {
        if slots() == 0 || !ask::available() {
            ignore!("no memory slots, or no harness");
        }
    };
}

/// Checks that a slot has no memory: every access to its window is answered as one to any hole is.
fn nothing_in(slot: u64) -> Outcome {
    check_eq!(mmio::read32(slot_sta(slot)), ABSENT, "STA of slot {slot}");
    for at in [0, PAGE, SLOT_BYTES / 2, SLOT_BYTES - PAGE].map(|offset| window(slot) + offset) {
        for width in Width::ALL {
            for seen in [probe::load(at, width), probe::store(at, width, CANARY)] {
                let fault = seen.fault;
                check!(
                    seen.is_external_abort(at),
                    "{width:?} at {at:#x}: {fault:x?}"
                );
            }
        }
    }
    Ok(())
}

/// Has the operator give this many slots, of which this one is added, and finds nothing but zeros in it.
fn add_slot(count: u64, slot: u64) -> Outcome {
    let mib = BOOT_MIB + count * SLOT_MIB;
    let asked = request(format_args!("mem set @ {mib}M --timeout 15"));
    let (code, added) = next_event()?;
    check_eq!((code, added), (OF_A_SLOT | ADDED, slot), "the event");
    check_eq!(mmio::read32(slot_sta(slot)), ENABLED, "STA of slot {slot}");
    let words = (window(slot)..window(slot) + SLOT_BYTES).step_by(8);
    for at in words {
        let word = mmio::read64(at);
        check!(word == 0, "{word:#x} at {at:#x}");
    }
    for page in (0..SLOT_BYTES).step_by(PAGE as usize) {
        mmio::write64(window(slot) + page + page / PAGE % 512 * 8, CANARY);
    }
    report_slot(slot, ADDED, 0);
    expect_done(asked, mib << 20)
}

/// Has the operator leave this many slots, and gives this one back.
fn take_slot(count: u64, slot: u64) -> Outcome {
    let mib = BOOT_MIB + count * SLOT_MIB;
    let asked = request(format_args!("mem set @ {mib}M --timeout 15 --force"));
    let event = next_event()?;
    check_eq!(event, (OF_A_SLOT | ASKED_BACK, slot), "the event");
    report_slot(slot, ASKED_BACK, 0x84);
    eject_slot(slot);
    nothing_in(slot)?;
    // Once more is nothing.
    eject_slot(slot);
    nothing_in(slot)?;
    report_slot(slot, ASKED_BACK, 0);
    expect_done(asked, mib << 20)
}

/// Checks that no slot has memory, and that nothing is to be told.
pub fn all_slots_are_empty() -> Outcome {
    needs_slots!();
    check_eq!(u64::from(mmio::read32(BLOCK + 8)), slots(), "SLOTS");
    for slot in 0..slots() {
        nothing_in(slot)?;
    }
    check_eq!(mmio::read32(EVENT), 0, "EVENT with nothing to tell");
    Ok(())
}

/// EJECT and OST of slots that have no memory, or are none.
pub fn answers_of_absent_slots_change_nothing() -> Outcome {
    needs_slots!();
    for slot in [0, slots() - 1, slots(), 511, 512, 0xbff] {
        for (source, status) in [(ADDED, 0), (ASKED_BACK, 0), (0x103, 0), (0xffff, 0xffff)] {
            eject_slot(slot);
            report_slot(slot, source, status);
            eject_slot(slot);
        }
        check_eq!(mmio::read32(slot_sta(slot)), ABSENT, "STA of slot {slot}");
    }
    all_slots_are_empty()
}

/// What is given back is out of reach at once, and empty when it comes again.
pub fn memory_comes_empty_and_goes_at_once() -> Outcome {
    needs_slots!();
    add_slot(1, 0)?;
    odd_ejects(0)?;
    nothing_in(1)?;
    take_slot(0, 0)?;
    add_slot(1, 0)?;
    // The guest's user gives it back, without being asked.
    eject_slot(0);
    nothing_in(0)?;
    report_slot(0, EJECTED_UNASKED, 0);
    all_slots_are_empty()
}

/// Everything that is nearly an EJECT, of a slot that has memory.
fn odd_ejects(slot: u64) -> Outcome {
    let register = slot_sta(slot) + 4;
    mmio::write32(register, !1);
    for width in [Width::Byte, Width::Half, Width::Double] {
        let _whatever = probe::store(register, width, 1);
    }
    for other in [slot_sta(slot), slot_sta(slot) + 12, BLOCK + 4, BLOCK + 8] {
        mmio::write32(other, 1);
    }
    check_eq!(mmio::read32(slot_sta(slot)), ENABLED, "STA of slot {slot}");
    check_eq!(mmio::read64(window(slot)), CANARY, "its first word");
    Ok(())
}

/// A vCPU that reads a slot all the time reads nothing of it any more when another vCPU has ejected it.
pub fn no_other_vcpu_reads_what_is_ejected() -> Outcome {
    needs_slots!();
    add_one_to(boot())?;
    add_slot(1, 0)?;
    READS.store(0, Ordering::Release);
    WATCHED.store(window(0), Ordering::Release);
    let reads = timer::within_ms(PATIENCE_MS, || READS.load(Ordering::Acquire) > 100);
    check!(reads, "vCPU {} does not read slot 0", boot());
    eject_slot(0);
    let before = READS.load(Ordering::Acquire);
    let ends = timer::within_ms(PATIENCE_MS, || WATCHED.load(Ordering::Acquire) == 0);
    check!(ends, "vCPU {} goes on reading slot 0", boot());
    // One may have been read before, and counted after.
    let more = READS.load(Ordering::Acquire) - before;
    check!(more <= 1, "{more} reads of slot 0 after EJECT");
    check!(IS_ABORT.load(Ordering::Acquire), "no external abort");
    report_slot(0, EJECTED_UNASKED, 0);
    take_one_of(boot() + 1)?;
    all_slots_are_empty()
}
