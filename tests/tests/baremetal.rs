//! The bare-metal guests under Bullpen: the architecture as a guest sees it, on few and many CPUs, owned and shared.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};
use tests::guest::{self, follow};
use tests::machine::{Machine, PATIENCE};
use tests::versions::At;
use tests::{Manifest, Running, Vm, artefacts, on_both_gics};

/// How many vCPUs a guest gets, and on how many CPUs.
#[derive(Clone, Copy)]
struct Shape {
    cpus: u32,
    vcpus: u32,
    model: &'static str,
}

const fn shape(cpus: u32, vcpus: u32) -> Shape {
    Shape {
        cpus,
        vcpus,
        model: "max,pauth=off",
    }
}

/// The same on a CPU of this model.
const fn on(model: &'static str, cpus: u32, vcpus: u32) -> Shape {
    Shape {
        model,
        ..shape(cpus, vcpus)
    }
}

/// Runs a guest to its end and checks that the hypervisor is well afterwards.
fn run(at: At, guest: &str, shape: Shape, words: &str) {
    let vm = Vm::guest("guest", guest)
        .vcpus(shape.vcpus, shape.vcpus)
        .command_line(words);
    run_vm(at, vm, shape);
}

fn run_vm(at: At, vm: Vm, shape: Shape) {
    guest::run(at.machine().cpus(shape.cpus).model(shape.model), vm);
}

on_both_gics! {
    smoke_1_on_1: Gate, |at| run(at, "smoke", shape(1, 1), "");
    smoke_4_on_4: Gate, |at| run(at, "smoke", shape(4, 4), "");
    smoke_8_on_2: Gate, |at| run(at, "smoke", shape(2, 8), "");
    smoke_8_on_8: Gate, |at| run(at, "smoke", on("cortex-a72", 8, 8), "");
    smoke_4_on_1: Gate, |at| run(at, "smoke", shape(1, 4), "");
    smoke_on_cortex_a57: Full, |at| run(at, "smoke", on("cortex-a57", 4, 4), "");
    smoke_on_neoverse_n1: Full, |at| run(at, "smoke", on("neoverse-n1", 4, 4), "");
    psci_1_on_1: Full, |at| run(at, "psci", shape(1, 1), "");
    psci_4_on_4: Gate, |at| run(at, "psci", shape(4, 4), "");
    psci_8_on_4: Gate, |at| run(at, "psci", shape(4, 8), "rounds=30 cycles=20");
    psci_4_on_1: Gate, |at| run(at, "psci", shape(1, 4), "rounds=10 cycles=10");
    sysreg_1_on_1: Gate, |at| run(at, "sysreg", shape(1, 1), "");
    sysreg_4_on_4: Full, |at| run(at, "sysreg", shape(4, 4), "");
    sysreg_4_on_1: Full, |at| run(at, "sysreg", shape(1, 4), "only=breakpoints_and_watchpoints_fire,breakpoints_stay_with_their_cpu,performance_monitors_count_and_start_afresh,counters_that_overflow_interrupt");
    sysreg_on_cortex_a57: Full, |at| run(at, "sysreg", on("cortex-a57", 2, 2), "");
    sysreg_on_neoverse_n1: Full, |at| run(at, "sysreg", on("neoverse-n1", 2, 2), "");
    user_1_on_1: Full, |at| run(at, "user", shape(1, 1), "");
    user_on_cortex_a57: Full, |at| run(at, "user", on("cortex-a57", 1, 1), "");
    memory_1_on_1: Full, |at| run(at, "memory", shape(1, 1), "");
    memory_4_on_4: Gate, |at| run(at, "memory", shape(4, 4), "");
    memory_on_cortex_a57: Gate, |at| run(at, "memory", on("cortex-a57", 2, 2), "");
    gic_1_on_1: Gate, |at| run(at, "gic", shape(1, 1), "");
    gic_4_on_4: Gate, |at| run(at, "gic", shape(4, 4), "");
    gic_4_on_1: Gate, |at| run(at, "gic", shape(1, 4), "");
    gic_on_cortex_a57: Gate, |at| run(at, "gic", on("cortex-a57", 4, 4), "");
    virtio_1_on_1: Full, |at| drive_disks(at, shape(1, 1));
    virtio_2_on_2: Gate, |at| drive_disks(at, on("cortex-a57", 2, 2));
    vcpus_move_4_on_4: Full, |at| move_about(at, on("max,pauth-impdef=on", 4, 4), if artefacts::full() { 2000 } else { 200 });
    vcpus_move_6_on_2: Gate, |at| move_about(at, on("cortex-a57", 2, 6), 60);
    held_vcpus_are_denied: Gate, held;
    resets_leave_nothing_behind: Gate, resets;
    hotplug_block_as_a_driver_and_an_abuser_see_it: Gate, |at| hotplug(at, shape(4, 8), "");
    hotplug_on_one_cpu: Gate, |at| hotplug(at, shape(1, 8), " cycles=1");
    cpus_of_a_reserve_are_off_until_they_are_wanted: Full, reserve;
    the_last_cpu_off_turns_the_vm_off: Gate, last_off;
    two_guests_side_by_side: Gate, two_side_by_side;
    registers_of_two_guests_on_one_cpu_do_not_mix: Full, two_on_one_cpu;
}

/// Runs the guest that drives two disks, one of them as a hostile driver would, beside its harness.
fn drive_disks(at: At, shape: Shape) {
    let image = artefacts::log_directory(at.machine().name()).join("disk.img");
    let content: Vec<u8> = (0..128 * 1024)
        .map(|n| (n / 512 * 7 + n % 251) as u8)
        .collect();
    std::fs::write(&image, content).expect("an image");
    let vm = Vm::guest("guest", "virtio")
        .vcpus(shape.vcpus, shape.vcpus)
        .disk("fixed", &image, 0)
        .disk("changing", &image, 1);
    run_vm(at, vm, shape);
}

/// Has vCPUs moved while they are at work, and looks where they are in the end.
fn move_about(at: At, shape: Shape, moves: u32) {
    let Shape { cpus, vcpus, model } = shape;
    let vm = Vm::guest("guest", "moves")
        .vcpus(vcpus, vcpus)
        .command_line(&format!("asked cpus={cpus} moves={moves}"));
    let machine = at.machine().cpus(cpus).model(model);
    let mut running = machine.boot(&Manifest::new([vm]));
    guest::run_to_end(&mut running, "guest", PATIENCE * 2);
    let list = running.command("vcpu list guest");
    for vcpu in 0..vcpus {
        let cpu = &list["vcpus"][vcpu as usize]["cpu"];
        assert_eq!(*cpu, (vcpu + 1) % cpus, "{list}");
    }
}

fn held(at: At) {
    let vm = Vm::guest("guest", "psci")
        .vcpus(2, 8)
        .command_line("held=2 max=8 only=cpu_on_of_a_held_cpu,on_off_cycles");
    run_vm(at, vm, shape(4, 2));
}

fn resets(at: At) {
    let resets = if artefacts::full() { 1000 } else { 20 };
    let vm = Vm::guest("guest", "psci")
        .vcpus(4, 4)
        .command_line(&format!(
            "asked resets={resets} only=machine_was_as_after_reset,on_off_cycles"
        ));
    let machine = at.machine().cpus(4);
    let mut running = machine.boot(&Manifest::new([vm]));
    let before = reset_until_done(&mut running, resets);
    running.control().forget_events();
    running.command("vm start guest");
    let after = reset_until_done(&mut running, resets);
    assert_eq!(before, after, "free pages of the host");
}

/// Follows the guest through its resets to its end; returns the pages that are free then.
fn reset_until_done(running: &mut Running, resets: usize) -> serde_json::Value {
    guest::expect_green(running, "guest", PATIENCE * 4);
    for _ in 1..resets {
        running.control().event("vm-reset", "guest", PATIENCE);
    }
    running.control().event("vm-off", "guest", PATIENCE);
    running.command("host")["free_pages"].clone()
}

fn hotplug(at: At, shape: Shape, words: &str) {
    let vm = Vm::guest("guest", "hotplug")
        .text("firmware", "acpi")
        .vcpus(2, 8)
        // 64 MiB from boot, and two blocks of 128.
        .text("max-memory", "320M")
        .command_line(&format!("asked cpus=2 boot=2 max=8 slots=2{words}"));
    run_vm(at, vm, shape);
}

fn reserve(at: At) {
    let vm = Vm::guest("guest", "hotplug")
        .text("firmware", "acpi")
        .text("reserve-idle", "psci-off")
        .vcpus(2, 8)
        .command_line("asked reserve-off cpus=2 boot=2 max=8 cycles=5");
    let machine = at.machine().cpus(8);
    let mut running = machine.boot(&Manifest::new([vm]));
    for life in 0..2 {
        guest::run_to_end(&mut running, "guest", PATIENCE);
        wait_for_cpus(&mut running, 2);
        running.control().forget_events();
        if life == 0 {
            running.command("vm start guest");
        }
    }
}

/// Waits until this many CPUs are on.
fn wait_for_cpus(running: &mut Running, wanted: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let host = running.command("host");
        if host["cpus_online"] == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted} CPUs: {host}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn last_off(at: At) {
    let vm = Vm::guest("guest", "smoke").command_line("only=psci_version end=cpu-off");
    run_vm(at, vm, shape(1, 1));
}

#[test]
fn bench_gives_every_row() {
    let vm = Vm::guest("guest", "bench")
        .vcpus(4, 4)
        .cpus(&[0, 1, 2, 3])
        .command_line("samples=20");
    let name = "baremetal-bench";
    let machine = Machine::new(name).cpus(4).deterministic();
    let mut running = machine.boot(&Manifest::new([vm]));
    let report = guest::expect_green(&mut running, "guest", PATIENCE);
    assert_eq!(report.bench.len(), 17, "{:?}", report.bench);
}

#[test]
fn bench_counts_cycles_where_there_is_a_pmu() {
    let vm = Vm::guest("guest", "bench").command_line("cycles samples=20");
    let machine = Machine::new("baremetal-bench-cycles")
        .model("cortex-a57")
        .deterministic();
    let mut running = machine.boot(&Manifest::new([vm]));
    let report = guest::expect_green(&mut running, "guest", PATIENCE);
    assert_eq!(report.bench.len(), 9, "{:?}", report.bench);
    // QEMU's cycle is a nanosecond, and so an instruction.
    let version = report.bench.iter().find(|row| row[0] == "hvc-psci-version");
    let median: u64 = version.expect("the row")[2].parse().expect("a number");
    assert!((40..80).contains(&median), "{version:?}");
}

#[test]
fn bench_resizes_from_a_cpu_that_is_off() {
    let vm = Vm::guest("guest", "bench")
        .text("firmware", "acpi")
        .text("reserve-idle", "psci-off")
        .vcpus(1, 2)
        .cpus(&[0, 1])
        .command_line("samples=8 elastic asked reserve-off cpus=2");
    let machine = Machine::new("baremetal-bench-off").cpus(2).deterministic();
    let mut running = machine.boot(&Manifest::new([vm]));
    let report = guest::expect_green(&mut running, "guest", PATIENCE);
    assert_eq!(report.bench_failed, []);
}

#[test]
fn a_neighbour_does_not_meet_breakpoints() {
    let only = "only=breakpoints_stay_with_their_cpu";
    let vm = |name: &str, words: &str| Vm::guest(name, "sysreg").cpus(&[0]).command_line(words);
    let armed = vm("armed", only);
    let bystander = vm("bystander", &format!("{only} bystander"));
    both_green(
        Machine::new("baremetal-breakpoints").cpus(1),
        [armed, bystander],
    );
}

fn two_on_one_cpu(at: At) {
    let vm = |name: &str| {
        Vm::guest(name, "sysreg")
            .vcpus(2, 2)
            .cpus(&[0])
            .command_line("only=floating_point_survives,keys_survive")
    };
    let machine = at.machine().cpus(1).model("max");
    both_green(machine, [vm("one"), vm("other")]);
}

fn two_side_by_side(at: At) {
    let noisy = Vm::guest("noisy", "memory").vcpus(2, 2).cpus(&[0, 1]);
    let quiet = Vm::guest("quiet", "gic").vcpus(2, 2).cpus(&[1, 0]);
    both_green(at.machine().cpus(2), [noisy, quiet]);
}

/// Runs two guests beside each other to their ends.
fn both_green(machine: Machine, vms: [Vm; 2]) {
    let names = vms.each_ref().map(|vm| vm.name().to_owned());
    let mut running = machine.boot(&Manifest::new(vms));
    let begin = Instant::now();
    // In either order.
    while running
        .control()
        .events()
        .iter()
        .filter(|event| event["event"] == "vm-off")
        .count()
        < names.len()
    {
        assert!(
            begin.elapsed() < PATIENCE,
            "no end{}",
            running.console.tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    for name in &names {
        running.command(&format!("console {name}"));
        let report = follow(&mut running.console, None, name, PATIENCE);
        report.assert_green(&running.console);
    }
}
