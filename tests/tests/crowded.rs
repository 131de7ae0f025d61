//! Many vCPUs on few CPUs: unmodified Linux makes progress under load, and none of its watchdogs complains.
//!
//! Each load is the one of which guests died: 24 jobs that copy and hash, while CPUs go off and on. The gate runs two of them once,
//! counting instructions instead of time, since a guest with so many vCPUs wants all of two cores to keep up with its own ticks;
//! `cargo xtask test --full` runs all, ten times each, in real time, with limits several times what they take alone.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};
use tests::machine::Machine;
use tests::{Manifest, Vm, artefacts, linux};

/// How long a load may take.
const LOAD_LIMIT: Duration = Duration::from_secs(900);
/// How often each load runs with `--full`.
const FULL_RUNS: u32 = 10;

/// The jobs; while they run, CPUs go off and on one after the other. Prints how often one did.
const LOAD: &str = "jobs=; for job in $(seq 24); do dd if=/dev/zero bs=1M count=24 2>/dev/null | md5sum >/dev/null & jobs=\"$jobs $!\"; done; \
(wait_for() { for job in $jobs; do [ ! -d /proc/$job ] || return 0; done; return 1; }; n=0; \
while wait_for; do for cpu in 3 5 6; do at=/sys/devices/system/cpu/cpu$cpu/online; echo 0 >$at; echo 1 >$at; n=$((n + 1)); done; done; echo off-and-on: $n) & \
toggler=$!; wait $jobs; wait $toggler";

/// Boots a kernel with so many vCPUs on so few CPUs and runs the load; returns the seconds that boot and load took.
fn once(name: &str, kernel: &str, vcpus: u32, cpus: u32) -> (u64, u64) {
    let vm = Vm::linux("linux", kernel)
        .vcpus(vcpus, vcpus)
        .memory_mib(1024);
    let machine = Machine::new(name).cpus(cpus).model("neoverse-n1");
    // Counted, it does not depend on what else this machine does.
    let machine = match artefacts::full() {
        true => machine,
        false => machine.deterministic(),
    };
    let begun = Instant::now();
    let mut running = machine.boot(&Manifest::new([vm]));
    let console = &mut running.console;
    assert_eq!(linux::wait_for_shell(console), vcpus, "CPUs online");
    let booted = begun.elapsed().as_secs();
    // Only what is worth a complaint.
    linux::run(console, "dmesg -n 4");
    let begun = Instant::now();
    let said = linux::run_within(console, LOAD, LOAD_LIMIT);
    let took = begun.elapsed().as_secs();
    let toggles = said.split("off-and-on: ").nth(1);
    let toggles = toggles.and_then(|text| text.split_whitespace().next());
    println!("{name}: boot {booted} s, load {took} s, off and on {toggles:?}");
    assert!(toggles.is_some_and(|number| number != "0"), "{said}");
    linux::expect_no_complaints(console);
    (booted, took)
}

/// Runs a load once in the gate if it belongs there, ten times with `--full`.
fn load(kernel: &str, vcpus: u32, cpus: u32, in_gate: bool) {
    let runs = match (artefacts::full(), in_gate) {
        (true, _) => FULL_RUNS,
        (false, true) => 1,
        (false, false) => {
            eprintln!("skipped: `cargo xtask test --full` runs it");
            return;
        }
    };
    let name = format!("crowded-{kernel}-{vcpus}-on-{cpus}");
    for _ in 0..runs {
        once(&name, kernel, vcpus, cpus);
    }
}

/// How long the control channel may take to answer beside the load, by the clock of the machine.
const ANSWER_NS: u64 = 100_000_000;

/// `vm list` is answered in time while 24 jobs keep 8 vCPUs busy on 2 CPUs: asked 20 times in the gate, 200 times with `--full`.
#[test]
fn a_program_is_answered_beside_24_busy_jobs() {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(8, 8);
    let machine = Machine::new("crowded-answers").cpus(2).deterministic();
    let machine = machine.model("neoverse-n1");
    let mut running = machine.boot(&Manifest::new([vm]));
    linux::wait_for_shell(&mut running.console);
    let jobs = "for job in $(seq 24); do sh -c 'while :; do :; done' & done";
    linux::run(&mut running.console, jobs);
    let asks = if artefacts::full() { 200 } else { 20 };
    let mut took: Vec<u64> = (0..asks).map(|_| running.answer_ns()).collect();
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{asks} asks: median {median} ns, slowest {slowest} ns");
    assert!(slowest < ANSWER_NS, "{took:?}");
    // They were busy all the while.
    let said = linux::run(&mut running.console, "jobs | grep -c Running");
    assert!(said.contains("24"), "{said}");
}

#[test]
fn rt_8_vcpus_on_1() {
    load("linux-6.12-rt", 8, 1, true);
}

#[test]
fn cloud_6_12_64_vcpus_on_2() {
    load("linux-6.12", 64, 2, true);
}

#[test]
fn cloud_6_12_32_vcpus_on_2() {
    load("linux-6.12", 32, 2, false);
}

#[test]
fn cloud_6_12_16_vcpus_on_1() {
    load("linux-6.12", 16, 1, false);
}

#[test]
fn cloud_7_2_64_vcpus_on_2() {
    load("linux-7.2", 64, 2, false);
}

#[test]
fn cloud_7_2_32_vcpus_on_2() {
    load("linux-7.2", 32, 2, false);
}

#[test]
fn cloud_7_2_16_vcpus_on_1() {
    load("linux-7.2", 16, 1, false);
}
