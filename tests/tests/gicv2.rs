//! Machines with a GICv2: what Linux does on a GICv3, what is refused, and the Raspberry Pi 4. The bare-metal guests run on both
//! versions by the tables of `baremetal` and `hostile`.
#![forbid(unsafe_code)]

use tests::guest::{expect_green, run};
use tests::linux::{expect_no_complaints, resize_at_the_prompt, resize_to};
use tests::machine::{Machine, PATIENCE};
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts, linux};

fn machine(name: &str, cpus: u32) -> Machine {
    Machine::new(&format!("gicv2-{name}")).gic(2).cpus(cpus)
}

#[test]
fn linux_grows_shrinks_and_is_reset() {
    for (name, cpus, model, most) in [
        ("linux-a72", 4, "cortex-a72", 4),
        ("linux-on-2", 2, "max,pauth=off", 8),
    ] {
        let vm = Vm::linux("linux", "linux-6.12").vcpus(1, most);
        let (mut running, online) = linux::boot(machine(name, cpus).model(model), vm);
        assert_eq!(online, 1);
        for vcpus in [most, 1, most] {
            resize_to(&mut running, "linux", vcpus);
        }
        expect_no_complaints(&mut running.console);
        linux::reboot(&mut running, "linux");
        resize_to(&mut running, "linux", most);
        expect_no_complaints(&mut running.console);
        linux::power_off(&mut running, "linux");
    }
}

#[test]
fn two_linux_share_two_cpus() {
    let vms =
        ["first", "second"].map(|name| Vm::linux(name, "linux-6.12").vcpus(2, 4).memory_mib(384));
    let mut running = machine("linux-two", 2).boot(&Manifest::new(vms));
    for name in ["second", "first"] {
        running.command(&format!("console {name}"));
        linux::wait_for_shell(&mut running.console);
        resize_to(&mut running, name, 4);
    }
    for vcpu in 0..4 {
        running.command(&format!("vcpu pin first {vcpu} 0"));
    }
    assert_eq!(linux::online(&mut running.console), 4);
    expect_no_complaints(&mut running.console);
    running.command("vm reset first");
    linux::wait_for_shell(&mut running.console);
    running.command("console second");
    expect_no_complaints(&mut running.console);
}

#[test]
fn linux_boots_by_device_tree() {
    let vm = Vm::linux("linux", "linux-6.12").text("firmware", "fdt");
    let (mut running, online) = linux::boot(machine("linux-fdt", 4), vm);
    assert_eq!(online, 2);
    let named = linux::run(&mut running.console, "grep -c GIC-0 /proc/interrupts");
    assert_ne!(named.trim(), "0");
    expect_no_complaints(&mut running.console);
}

#[test]
fn what_the_machine_cannot_give_is_named() {
    let guest = |name: &str| Vm::guest(name, "smoke");
    let vms = [
        guest("newer").text("gic", "v3"),
        guest("larger").vcpus(1, 9),
        guest("guest").text("gic", "v2"),
    ];
    let mut running = machine("refused", 2).boot(&Manifest::new(vms));
    expect_green(&mut running, "guest", PATIENCE);
    let log = running.console.everything();
    for line in [
        "/vms/newer: `gic` = v3 cannot be had: this machine's interrupt controller is a GICv2",
        "/vms/larger: `max-vcpus` = 9 is not between 1 and 8",
    ] {
        assert!(log.contains(line), "no {line:?}: {log}");
    }
}

#[test]
fn a_gicv3_without_gicv_gives_no_gicv2() {
    let vms = [
        Vm::guest("older", "smoke").text("gic", "v2"),
        Vm::guest("guest", "smoke").text("gic", "v3"),
    ];
    let mut running = Machine::new("gicv2-on-gicv3").boot(&Manifest::new(vms));
    expect_green(&mut running, "guest", PATIENCE);
    let line = "/vms/older: `gic` = v2 cannot be had: this machine's GICv3 has no GICV, which a GICv2's guest needs";
    assert!(running.console.everything().contains(line));
}

#[test]
fn a_gicv2_without_its_virtual_half_is_refused() {
    let test = "gicv2-half";
    let own = "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x8010000 0x00 0x10000 0x00 0x8030000 0x00 0x10000 0x00 0x8040000 0x00 0x10000>;";
    let half = "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x8010000 0x00 0x10000>;";
    let tree = Tree::of_virt_with(&artefacts::log_directory(test), 2, 2).replace(own, half);
    let machine = Machine::new(test).gic(2).cpus(2).exact_memory_mib(512);
    let machine = machine.tree(&tree);
    let manifest = Manifest::new([Vm::guest("guest", "smoke")]);
    let mut running = machine.launch(&manifest, |_| {});
    let why = "has no GICH and GICV: this GICv2 cannot serve guests";
    running.console.expect(why, PATIENCE);
}

#[test]
fn a_raspberry_pi_4_runs_the_guests() {
    for (guest, vcpus, words) in [
        ("smoke", 4, "no-clock"),
        ("gic", 4, ""),
        ("psci", 8, "rounds=10 cycles=10"),
    ] {
        let vm = Vm::guest("guest", guest)
            .vcpus(vcpus, vcpus)
            .command_line(words);
        run(Machine::pi4(&format!("pi4-{guest}")), vm);
    }
}

#[test]
fn a_raspberry_pi_4_without_psci_is_ended_by_its_watchdog() {
    let boot = |machine: Machine| {
        let mut running = machine.boot(&Manifest::new([Vm::guest("guest", "neighbour")]));
        running.console.expect("READY", PATIENCE);
        running
    };
    let mut running = boot(Machine::pi4("pi4-poweroff"));
    running.command("host poweroff --force");
    assert!(running.wait_for_end(PATIENCE).success());
    let machine = Machine::pi4("pi4-reboot").argument("-action");
    let mut running = boot(machine.argument("reboot=reset"));
    running.command("host reboot --force");
    running.console.expect("READY", PATIENCE);
    assert_eq!(running.command("vm list")["vms"][0]["state"], "running");
}

#[test]
fn linux_grows_on_a_raspberry_pi_4() {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 4).memory_mib(384);
    let (mut running, online) = linux::boot(Machine::pi4("pi4-linux"), vm);
    assert_eq!(online, 1);
    for vcpus in [4, 1, 4] {
        resize_to(&mut running, "linux", vcpus);
    }
    expect_no_complaints(&mut running.console);
    linux::reboot(&mut running, "linux");
    resize_to(&mut running, "linux", 4);
    linux::power_off(&mut running, "linux");
}

#[test]
fn a_raspberry_pi_4_with_tf_a_starts_its_cpus_and_ends_by_psci() {
    let vm = Vm::guest("guest", "smoke")
        .vcpus(4, 4)
        .command_line("no-clock");
    let machine = Machine::pi4_by_armstub("pi4-tf-a");
    let mut running = machine.launch(&Manifest::new([vm]), |_| {});
    expect_green(&mut running, "guest", PATIENCE);
    running.prompt();
    running.console.line("host");
    running.console.expect("4 of 4", PATIENCE);
    running.console.line("host poweroff --force");
    assert!(running.wait_for_end(PATIENCE).success());
}

#[test]
fn linux_grows_on_a_raspberry_pi_4_with_tf_a() {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 4).memory_mib(384);
    let machine = Machine::pi4_by_armstub("pi4-tf-a-linux");
    let mut running = machine.launch(&Manifest::new([vm]), |_| {});
    assert_eq!(linux::wait_for_shell(&mut running.console), 1);
    for vcpus in [4, 1] {
        resize_at_the_prompt(&mut running, "linux", vcpus);
    }
    expect_no_complaints(&mut running.console);
}
