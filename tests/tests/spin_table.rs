//! CPUs that wait for an address in memory instead of a PSCI call: firmware of ours brings QEMU's into that state first.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};
use tests::guest::expect_green;
use tests::machine::{Machine, PATIENCE, Running};
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts};

/// CPUs of every machine here.
const CPUS: u32 = 4;
/// Where the firmware's CPU n waits is 8 n bytes behind this; here all of them do.
const SHARED: u64 = 0x4000_1000;

/// The firmware keeps the start of RAM.
const RESERVED: &str = "/dts-v1/;\n/memreserve/ 0x40000000 0x210000;";
/// How QEMU says that a CPU is started; what takes its place has two blanks, so that the next one is found.
const PSCI: &str = "enable-method = \"psci\";";

/// Where the firmware's CPU waits alone.
const fn own(cpu: u32) -> u64 {
    SHARED + 8 * cpu as u64
}

/// Returns the tree of a machine whose firmware keeps the start of RAM and offers no PSCI.
fn tree(test: &str) -> Tree {
    Tree::of_virt(&artefacts::log_directory(test), CPUS)
        .replace("/dts-v1/;", "/dts-v1/;\n/memreserve/ 0x40000000 0x210000;")
        .replace(
            "method = \"smc\";",
            "method = \"smc\"; status = \"disabled\";",
        )
}

/// A CPU that waits at this address.
fn waits_at(release: u64) -> String {
    format!(
        "enable-method  = \"spin-table\"; cpu-release-addr = <{:#x} {:#x}>;",
        release >> 32,
        release & 0xffff_ffff
    )
}

/// The machine that the firmware starts Bullpen on.
fn machine(test: &str, tree: &Tree) -> Machine {
    Machine::new(test)
        .cpus(CPUS)
        .exact_memory_mib(512)
        .after(&artefacts::guest("spin_table"))
        .tree(tree)
}

/// Boots a machine, expects so many CPUs, and runs a guest's tests with a vCPU on each of them.
fn check(machine: Machine, cpus: u32) -> Running {
    let places: Vec<u32> = (0..cpus).collect();
    let vm = Vm::guest("guest", "smoke").vcpus(cpus, cpus).cpus(&places);
    let mut running = machine.boot(&Manifest::new([vm]));
    let report = expect_green(&mut running, "guest", PATIENCE);
    assert!(report.passed.iter().any(|name| name == "all_cpus_start"));
    assert_eq!(running.command("host")["cpus_online"], cpus);
    running
}

/// Fails unless the console has said this.
fn said(running: &Running, line: &str) {
    assert!(
        running.console.everything().contains(line),
        "the console does not say {line:?}{}",
        running.console.tail()
    );
}

#[test]
fn every_cpu_is_released_from_where_it_waits() {
    let test = "spin-table-own";
    let tree = (0..CPUS).fold(tree(test), |tree, cpu| {
        tree.replace(PSCI, &waits_at(own(cpu)))
    });
    check(machine(test, &tree), CPUS);
}

#[test]
fn cpus_may_wait_at_the_same_address_and_come_all_at_once() {
    let test = "spin-table-shared";
    let tree = (0..CPUS).fold(tree(test), |tree, _| tree.replace(PSCI, &waits_at(SHARED)));
    check(machine(test, &tree), CPUS);
}

#[test]
fn a_cpu_that_cannot_be_started_is_named_and_the_others_come() {
    let test = "spin-table-hostile";
    // The boot CPU's own address is of no use, and no CPU waits at CPU 2's.
    let ways = [
        waits_at(0),
        waits_at(own(1)),
        waits_at(0x4000_1ff8),
        waits_at(own(3)),
    ];
    let tree = ways
        .iter()
        .fold(tree(test), |tree, way| tree.replace(PSCI, way));
    let running = check(machine(test, &tree), 3);
    said(
        &running,
        "/cpus/cpu@0: `cpu-release-addr` is missing or not an address",
    );
    said(
        &running,
        "cpu@2: did not come up within 1 s; going on without it",
    );

    let test = "spin-table-image";
    // In the image, and no doubleword.
    let ways = [
        waits_at(own(0)),
        waits_at(0x4402_0000),
        waits_at(own(2)),
        waits_at(own(3) + 4),
    ];
    let tree = ways
        .iter()
        .fold(self::tree(test), |tree, way| tree.replace(PSCI, way));
    let running = check(machine(test, &tree), 2);
    said(
        &running,
        "/cpus/cpu@1: `cpu-release-addr` = 0x44020000 lies in the hypervisor",
    );
    said(
        &running,
        "/cpus/cpu@3: `cpu-release-addr` is missing or not an address",
    );
    for cpu in [1, 3] {
        said(
            &running,
            &format!("cpu@{cpu}: the device tree names no usable way to start it"),
        );
    }
}

#[test]
fn a_cpu_that_comes_too_late_stays_out() {
    let test = "spin-table-late";
    let tree = (0..CPUS).fold(tree(test), |tree, cpu| {
        tree.replace(PSCI, &waits_at(own(cpu)))
    });
    // While another is being started, and after the last one.
    let machine = machine(test, &tree)
        .argument("-device")
        .argument("loader,addr=0x40001808,data=0xa,data-len=8");
    let mut running = check(machine, 2);
    for cpu in [1, 3] {
        said(&running, &format!("cpu@{cpu}: did not come up within 1 s"));
    }
    let up_ns = |running: &mut Running| running.command("host")["uptime_ns"].as_u64();
    let deadline = Instant::now() + PATIENCE;
    while up_ns(&mut running) < Some(6_000_000_000) {
        assert!(Instant::now() < deadline, "{}", running.console.tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running.command("host")["cpus_online"], 2);
    running.command("vm start guest");
    expect_green(&mut running, "guest", PATIENCE);
}

#[test]
fn some_cpus_may_be_started_by_psci_and_some_not() {
    let test = "spin-table-mixed";
    let tree = Tree::of_virt(&artefacts::log_directory(test), CPUS)
        .replace("/dts-v1/;", RESERVED)
        .replace(PSCI, &waits_at(own(0)))
        .replace(PSCI, &waits_at(own(1)))
        // CPU 2 is PSCI's.
        .replace(
            "reg = <0x03>;",
            "reg = <0x03>; cpu-release-addr = <0x0 0x40001018>;",
        )
        .replace(PSCI, "enable-method  = \"psci\";")
        .replace(PSCI, "enable-method  = \"spin-table\";");
    let vm = Vm::guest("guest", "hotplug")
        .text("firmware", "acpi")
        .text("reserve-idle", "psci-off")
        .vcpus(2, 4)
        .cpus(&[0, 1, 2, 3])
        .command_line("asked cpus=2 boot=2 max=4 cycles=2");
    let mut running = machine(test, &tree)
        .argument("-device")
        .argument("loader,addr=0x40001800,data=4,data-len=8")
        .boot(&Manifest::new([vm]));
    said(
        &running,
        "guest: `reserve-idle` = \"psci-off\": CPUs that PSCI did not start wait in WFI",
    );
    assert_eq!(running.command("host")["cpus"], CPUS);
    expect_green(&mut running, "guest", PATIENCE);
    // Both of its CPUs have nothing but vCPUs in reserve, but only one can be turned off.
    let deadline = Instant::now() + PATIENCE;
    while running.command("host")["cpus_online"] != CPUS - 1 {
        assert!(Instant::now() < deadline, "{}", running.console.tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    // The CPUs of its vCPUs answer this, and then look whether they may go off: one that answers again does not.
    for _ in 0..2 {
        running.command("vcpu list guest");
    }
    assert_eq!(running.command("host")["cpus_online"], CPUS - 1);
}
