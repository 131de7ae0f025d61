//! The interrupt controller as a careful, careless or hostile guest drives it: order, edges and levels, other CPUs' parts.
//!
//! Words: `bare` leaves out what QEMU's own GIC is known to do otherwise.
#![no_std]
#![no_main]

mod delivery;
mod lines;
mod nesting;
mod others;
mod registers;
mod timers;

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use guest_rt::suite;
use guest_rt::{cpu, exception, gic, guest, machine, mmio, tests, timer};

guest!(main);

/// SPIs that no device of the machine uses.
const FIRST_SPARE: u32 = 64;
/// The end of those used here: every GIC that is offered has this many.
const END_SPARE: u32 = 96;
/// GICD_INMIR0 and GICR_INMIR0.
const NON_MASKABLE: u64 = 0x0f80;
/// How long nothing may happen before that is believed, in milliseconds.
const QUIET_MS: u64 = 5;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "gic",
        tests![
            registers::nothing_is_pending,
            registers::every_register_answers,
            registers::writes_do_not_reach_identification,
            delivery::edge_is_taken_once,
            delivery::disabled_stays_pending,
            delivery::pending_can_be_taken_back,
            delivery::everything_pending_comes_in_order,
            delivery::masked_by_priority,
            nesting::higher_priority_preempts,
            nesting::more_active_than_list_registers,
            delivery::edge_again_while_active,
            delivery::level_is_taken_again,
            delivery::separate_deactivation,
            nesting::separate_deactivation_beyond_list_registers,
            delivery::group_and_interface_enables,
            registers::intids_out_of_range,
            registers::priorities_by_the_byte,
            others::routing_to_each_cpu,
            others::sgi_to_nobody,
            others::sgi_to_all_but_self,
            others::sgi_between_all_pairs,
            others::anothers_redistributor,
            others::sgi_flood,
            others::sgi_to_a_cpu_that_is_off,
            others::edge_from_another_cpu_while_masked,
            others::edge_from_another_cpu_at_any_time,
            timers::timer_conditions,
            timers::timer_masking,
            timers::timer_held_back,
            lines::a_line_that_fell_is_forgotten,
            lines::a_line_that_rose_again_counts_once,
            lines::a_written_one_outlives_the_line,
            lines::a_written_one_and_the_line_come_once,
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
    let own = gic::private_frame();
    mmio::write32(own + gic::ICACTIVER, u32::MAX);
    for intid in 0..32 {
        gic::set_priority(intid, 0xa0);
    }
    if !gic::is_v2() {
        // With FEAT_GICv3_NMI an interrupt may have more than the highest priority.
        mmio::write32(own + NON_MASKABLE, 0);
        for word in 1..gic::lines() / 32 {
            mmio::write32(
                machine().distributor() + NON_MASKABLE + u64::from(word) * 4,
                0,
            );
        }
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
