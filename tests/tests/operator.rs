//! The operator of a board: ends its run, and tells it the time of day.
#![forbid(unsafe_code)]

use tests::machine::{Machine, PATIENCE, Running};
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts};

const CPUS: u32 = 1;

/// A VM that runs until it is ended.
fn manifest() -> Manifest {
    Manifest::new([Vm::guest("guest", "neighbour")])
}

/// Boots it and goes to the prompt.
fn boot(machine: Machine) -> Running {
    let mut running = machine.cpus(CPUS).boot(&manifest());
    running.console.expect("READY", PATIENCE);
    running.prompt();
    running
}

#[test]
fn a_host_is_turned_off_after_a_question() {
    let mut running = boot(Machine::new("operator-poweroff"));
    let refusal = running.control().command("host poweroff", PATIENCE);
    let refusal = refusal.expect_err("a guest runs");
    assert_eq!(refusal.kind, "needs-force");
    assert!(refusal.message.contains("guest"), "{}", refusal.message);
    running.console.send("host poweroff\r");
    running
        .console
        .expect("poweroff all the same? yes or no", PATIENCE);
    running.console.send("no\r");
    running.console.expect("bullpen> ", PATIENCE);
    running.command("host");
    running.console.send("host poweroff\r");
    running
        .console
        .expect("poweroff all the same? yes or no", PATIENCE);
    running.console.send("yes\r");
    running.console.expect("ok\r\n", PATIENCE);
    assert!(running.wait_for_end(PATIENCE).success());
}

#[test]
fn a_host_without_vms_that_run_is_turned_off_unasked() {
    let mut running = boot(Machine::new("operator-quiet"));
    running.stop("guest");
    running.command("host poweroff");
    assert!(running.wait_for_end(PATIENCE).success());
}

#[test]
fn a_host_starts_anew() {
    // The last word on what a reset does: QEMU's machine goes on after it.
    let machine = Machine::new("operator-reboot")
        .argument("-action")
        .argument("reboot=reset");
    let mut running = boot(machine);
    running.command("host reboot --force");
    running.console.expect("READY", PATIENCE);
    assert_eq!(running.command("vm list")["vms"][0]["state"], "running");
}

/// Asks the guest what its clock shows.
fn clock(running: &mut Running) -> u64 {
    running.command("console guest");
    running.console.send("t");
    running.console.expect("CLOCK ", PATIENCE);
    let line = running.console.next_line(PATIENCE).expect("a number");
    line.trim().parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn a_board_without_a_clock_is_told_the_time() {
    let test = "operator-time";
    let tree = Tree::of_virt(&artefacts::log_directory(test), CPUS);
    let tree = tree.replace("arm,pl031", "acme,clock");
    let machine = Machine::new(test).exact_memory_mib(512).tree(&tree);
    let mut running = boot(machine);
    // What a test may take, in seconds.
    let patience = PATIENCE.as_secs();
    assert_eq!(running.command("host time")["known"], false);
    assert!(clock(&mut running) < patience, "counts from 1970");
    let set = 1_795_968_726;
    let told = running.command("host time set 2026-11-29T16:12:06Z");
    assert_eq!(told["unix_s"], set, "{told}");
    assert!((set..set + patience).contains(&clock(&mut running)));
    // It goes on when the guest begins anew.
    running.command("vm reset guest");
    running.console.expect("READY", PATIENCE);
    assert!((set..set + patience).contains(&clock(&mut running)));
    let told = running.command("host time");
    assert_eq!(told["known"], true, "{told}");
    let refusal = running.control().command("host time set noon", PATIENCE);
    assert_eq!(refusal.expect_err("no time").kind, "bad-number");
}
