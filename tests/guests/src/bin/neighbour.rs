//! A guest that wants nothing but its peace: it keeps a beat, guards a pattern in its memory, and says so when asked.
//!
//! Each byte typed on its console is a question: `?` prints `BEATS n late_us=m damaged=k` (beats so far, the longest delay
//! of one since the last question, words of the pattern that have changed), `s` says its share as the word `share` does, `1` to
//! `9` of so many seconds and `0` of ten, `t` prints `CLOCK n`, the seconds since 1970 of its clock, `q` turns it off. Words: `spin`:
//! never waits, so
//! that its CPU is always busy. `flood`: prints without end between beats. `reset`: resets itself at every beat.
//! `thief`: resets itself at once. `flicker`: its first CPU turns the second on without end, which turns itself off at once.
//! `share`: says after half a second of its clock what share of it the guest had, and its longest pause
//! (`SHARE permille=n pause_us=m`); with `spin`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "guards memory that no Rust object owns")]

use guest_rt::machine::Region;
use guest_rt::{cpu, gic, guest, insn, machine, mmio, print, println, psci, timer, uart};

guest!(main);

/// Beats a second.
const RATE: u64 = 100;
const PAGE: u64 = 4096;
/// The data register of its clock, a PL031 (Arm DDI 0224, 3.3.1).
const RTCDR: u64 = 0x0901_0000;
/// The device tree and the firmware's tables lie below this offset, and may be looked at until the end.
const FIRMWARE: u64 = 2 << 20;

fn main() {
    if machine().word("thief") {
        psci::system_reset();
    }
    if machine().word("flicker") {
        loop {
            let _is_on = cpu::start(1, |_| {}, 0);
        }
    }
    gic::init_distributor();
    gic::init_cpu();
    // Interrupts stay masked: this one ends a WFI, and is acknowledged by hand.
    gic::enable(timer::VIRTUAL_INTID);
    println!("SUITE neighbour cpus={}", machine().cpus().len());
    let ram = machine().ram();
    if let Some(ram) = ram.filter(|_| machine().word("stain")) {
        println!("STRANGE {}", stain(ram));
    } else if let Some(ram) = ram {
        each_word(ram, |word, pattern| {
            // SAFETY: RAM outside the image, which nothing else uses.
            unsafe { word.write_volatile(pattern) };
        });
    }
    println!("READY");
    if machine().word("share") {
        say_share(timer::frequency() / 2);
    }
    let period = timer::frequency() / RATE;
    let (mut beats, mut late) = (0_u64, 0);
    let mut next = timer::now() + period;
    loop {
        rest_until(next);
        late = late.max(timer::now().saturating_sub(next));
        beats += 1;
        next += period;
        match uart::get() {
            Some(b'?') => {
                let microseconds = late * 1_000_000 / timer::frequency();
                let damaged = ram.map_or(0, damaged);
                println!("BEATS {beats} late_us={microseconds} damaged={damaged}");
                // The answer takes its time, which is no delay of ours.
                (late, next) = (0, timer::now() + period);
            }
            Some(b's') => {
                say_share(timer::frequency() / 2);
                (late, next) = (0, timer::now() + period);
            }
            Some(digit @ b'0'..=b'9') => {
                let seconds = match digit - b'0' {
                    0 => 10,
                    seconds => seconds.into(),
                };
                say_share(seconds * timer::frequency());
                (late, next) = (0, timer::now() + period);
            }
            Some(b't') => println!("CLOCK {}", mmio::read32(RTCDR)),
            Some(b'q') => return,
            _ if machine().word("reset") => psci::system_reset(),
            _ => {}
        }
    }
}

/// Spins for some ticks and says how much of them were this guest's.
fn say_share(ticks: u64) {
    // Far more than the loop takes, and less than anything that another vCPU does in between.
    let pause = timer::frequency() / 1_000_000;
    let start = timer::now();
    let (mut last, mut lost, mut longest) = (start, 0, 0);
    while last - start < ticks {
        let now = timer::now();
        if now - last > pause {
            lost += now - last;
            longest = longest.max(now - last);
        }
        last = now;
    }
    let all = last - start;
    let (permille, pause_us) = (
        (all - lost) * 1000 / all,
        longest * 1_000_000 / timer::frequency(),
    );
    println!("SHARE permille={permille} pause_us={pause_us}");
}

/// Waits for a point in time in the way that the command line says.
fn rest_until(deadline: u64) {
    timer::arm_virtual(deadline);
    while timer::now() < deadline {
        if machine().word("flood") {
            print!("0123456789abcdef");
        } else if !machine().word("spin") {
            insn!("wfi");
        }
    }
    timer::stop_virtual();
    let intid = gic::acknowledge();
    if intid == timer::VIRTUAL_INTID {
        gic::end(intid);
    }
}

/// Calls a function for one word of every page of RAM that is free, with what belongs there.
fn each_word(ram: Region, mut each: impl FnMut(*mut u64, u64)) {
    let image = machine().image();
    let mut page = ram.base + FIRMWARE;
    while page < ram.base + ram.size {
        if !(image.base..image.base + image.size).contains(&page) {
            let place = page + page / PAGE % 512 * 8;
            each(place as *mut u64, place ^ 0x5a5a_a5a5_c3c3_3c3c);
        }
        page += PAGE;
    }
}

fn damaged(ram: Region) -> u64 {
    let mut count = 0;
    each_word(ram, |word, pattern| {
        // SAFETY: as where it was written.
        count += u64::from(unsafe { word.read_volatile() } != pattern);
    });
    count
}

/// Distance of the words that are looked at and left behind: each cache line's first.
const LINE: usize = 64;
/// What is left behind.
const STAIN: u64 = 0x5ec2_e75e_c2e7_5ec2;

/// Counts words of RAM that are not zero, and leaves none that is.
fn stain(ram: Region) -> u64 {
    let image = machine().image();
    // The stacks and whatever else the run-time has lie in the image's memory.
    let free = (image.base + image.size).max(ram.base + FIRMWARE)..ram.base + ram.size;
    let mut strange = 0;
    for word in free.step_by(LINE) {
        let word = word as *mut u64;
        // SAFETY: RAM that nothing uses.
        strange += u64::from(unsafe { word.read_volatile() } != 0);
        // SAFETY: as above.
        unsafe { word.write_volatile(STAIN) };
    }
    strange
}
