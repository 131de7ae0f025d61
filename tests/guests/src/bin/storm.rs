//! A guest that never rests: all its CPUs send each other interrupts, touch devices, holes and the GIC, sleep, turn themselves off
//! and each other on, at random, until the operator ends it.
//!
//! Word: `reset`: after a while it resets itself, on whichever CPU that befalls, from inside of an interrupt's handler.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::probe::{self, Width};
use guest_rt::{cpu, exception, gic, guest, insn, machine, mmio, println, psci, timer};

guest!(main);

/// Interrupts of the whole machine after which it resets itself.
const RESET_AFTER: u64 = 2_000;
/// Below the GIC of QEMU's virt there is nothing.
const HOLE: u64 = 0x0700_0000;

static TAKEN: AtomicU64 = AtomicU64::new(0);

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    gic::set_handler(take);
    println!("SUITE storm cpus={}", machine().cpus().len());
    println!("READY");
    storm(1);
}

/// Handles every interrupt; a CPU's timer is stopped when it has fired.
fn take(intid: u32) {
    if intid == timer::VIRTUAL_INTID {
        timer::stop_virtual();
    }
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    if taken > RESET_AFTER && machine().word("reset") {
        psci::system_reset();
    }
}

/// What each CPU does; all but the first end it now and then.
fn storm(seed: u64) {
    let own = cpu::current().index();
    let cpus = machine().cpus();
    for intid in (0..16).chain([timer::VIRTUAL_INTID]) {
        gic::enable(intid);
    }
    exception::unmask();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let other = (random >> 32) as usize % cpus.len();
        let affinity = cpus.get(other).copied().unwrap_or(0);
        let intid = (random >> 20) as u32 & 15;
        let word = (random >> 40) % 0x400 * 4;
        match random >> 8 & 15 {
            0..4 => gic::send_sgi(affinity, intid),
            4 => gic::send_sgi_to_others(intid),
            5 => drop(mmio::read32(machine().distributor() + word)),
            // A GICv2 has each CPU's own in the distributor, which is read above.
            6 if gic::is_v2() => gic::write_bit(gic::ICPENDR, 32 + intid),
            6 => drop(gic::find_redistributor(affinity).map(|frame| mmio::read32(frame + word))),
            7 => drop(probe::load(HOLE + word, Width::Word)),
            8 => drop(psci::affinity_info(affinity)),
            9 if other != 0 => drop(cpu::start(other, storm, random)),
            10 if own != 0 && random >> 50 & 7 == 0 => return,
            11 => {
                // Masked: taken before the WFI, it would wake no CPU.
                exception::mask();
                timer::arm_virtual(timer::now() + timer::frequency() / 20_000);
                insn!("wfi");
                exception::unmask();
            }
            12 => timer::arm_virtual(timer::now()),
            13 => gic::write_bit(gic::ISPENDR, 32 + intid),
            14 => gic::route(32 + intid, affinity),
            _ => gic::enable(32 + intid),
        }
    }
}
