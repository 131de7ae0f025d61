//! UARTs at the pace of real ones (`bullpen.uart-baud`): whatever is printed, the console answers and no guest waits for a wire.
#![forbid(unsafe_code)]

use tests::machine::{Machine, PATIENCE, Running};
use tests::neighbour::ask;
use tests::{Manifest, Vm};

/// A machine whose UARTs are as slow as real ones, in time that is counted in instructions.
fn slow_wire(test: &str) -> Machine {
    let machine = Machine::new(test).deterministic();
    machine
        .argument("-append")
        .argument("bullpen.uart-baud=115200")
}

/// How late an answer may be on a slow wire.
const ANSWER_NS: u64 = 1_000_000_000;

/// Reads how much of half a second a neighbour guest had, in thousandths.
fn share(running: &mut Running) -> u64 {
    running.console.expect("SHARE permille=", PATIENCE);
    let line = running.console.next_line(PATIENCE).expect("two numbers");
    println!("share and longest pause: {line}");
    let share = line.split(' ').next().and_then(|text| text.parse().ok());
    share.unwrap_or_else(|| panic!("{line}"))
}

/// Beside a guest on other CPUs that has the first CPU print without end, the console answers, and the guest there is well.
fn a_slow_wire_holds_nobody_up(test: &str, words: &str) -> Running {
    let loud = Vm::guest("loud", "neighbour").vcpus(2, 2).cpus(&[1, 2]);
    let victim = Vm::guest("victim", "neighbour").cpus(&[0]);
    let vms = [loud.command_line(words), victim];
    let mut running = slow_wire(test).cpus(3).boot(&Manifest::new(vms));
    let slowest = (0..3).map(|_| running.answer_ns()).max();
    println!("beside {words}: answered within {slowest:?} ns");
    assert!(slowest.is_some_and(|ns| ns < ANSWER_NS), "{slowest:?} ns");
    let beats = ask(&mut running, "victim");
    println!("beside {words}: {beats:?}");
    assert!(
        beats.late_us < LATE_US_OF_THREE && beats.damaged == 0,
        "{beats:?}"
    );
    running
}

/// How late a beat may be where the instructions of three CPUs are counted in turns, and a lock's holder may have to wait for its turn.
const LATE_US_OF_THREE: u64 = 500_000;

#[test]
fn a_guest_beside_one_that_has_others_print_on_a_slow_wire_keeps_its_half() {
    for words in ["flood", "thief", "flicker"] {
        let loud = Vm::guest("loud", "neighbour").vcpus(2, 2).cpus(&[0]);
        let victim = Vm::guest("victim", "neighbour").cpus(&[0]);
        let vms = [loud.command_line(words), victim.command_line("spin share")];
        let test = format!("hostile-slow-half-{words}");
        let mut running = slow_wire(&test).cpus(1).boot(&Manifest::new(vms));
        running.command("console victim");
        let share = share(&mut running);
        assert!(share >= 490, "beside {words} it had {share} of 1000");
    }
}

#[test]
fn a_guest_that_prints_without_end_on_a_slow_wire_holds_nobody_up() {
    let mut running = a_slow_wire_holds_nobody_up("hostile-slow-flood", "flood");
    // What it says is shown, and the escape key works in the middle of it.
    running.command("console loud");
    running
        .console
        .expect("0123456789abcdef0123456789abcdef", PATIENCE);
    running.prompt();
}

#[test]
fn a_guest_that_resets_itself_without_end_on_a_slow_wire_holds_nobody_up() {
    let mut running = a_slow_wire_holds_nobody_up("hostile-slow-thief", "thief");
    for event in ["vm-reset", "vm-start"].repeat(10) {
        running.control().event(event, "loud", PATIENCE);
    }
    // What has happened to another VM comes through.
    running.stop("victim");
}

#[test]
fn vcpus_that_come_and_go_without_end_on_a_slow_wire_hold_nobody_up() {
    let mut running = a_slow_wire_holds_nobody_up("hostile-slow-flicker", "flicker");
    running.stop("victim");
}

#[test]
fn long_replies_on_a_slow_wire_hold_nobody_up_and_are_whole() {
    let victim = Vm::guest("victim", "neighbour").vcpus(1, 128);
    let vms = [victim.command_line("spin")];
    let machine = slow_wire("hostile-slow-replies").cpus(1);
    let mut running = machine.boot(&Manifest::new(vms));
    running.command("console victim");
    let commands = ["host", "vcpu list victim", "log", "help", "stats", "host"];
    let control = running.control();
    let ids = commands.map(|command| control.send(command));
    running.console.send("s");
    let share = share(&mut running);
    let control = running.control();
    let replies = ids.map(|id| control.reply(id, PATIENCE).expect("it is answered"));
    let ns = |host: &serde_json::Value| host["uptime_ns"].as_u64().expect("a number");
    let took_ns = ns(&replies[5]) - ns(&replies[0]);
    println!("long replies took {took_ns} ns");
    // The wire was busy for longer than the guest looked.
    assert!(took_ns > 1_000_000_000, "{took_ns} ns");
    assert_eq!(replies[1]["vcpus"].as_array().map(Vec::len), Some(128));
    assert!(share >= 980, "it had {share} of 1000");
}
