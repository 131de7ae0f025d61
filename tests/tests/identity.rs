//! What Debian's programs say of the machine: whose it is, what it is called, and what is in it.
#![forbid(unsafe_code)]

use tests::machine::{Machine, Running};
use tests::{Vm, artefacts, linux};

/// The UUID of the VM called "linux" (`control_plane::uuid`), and one of a manifest.
const UUID: &str = "bf2af833-0590-8e98-ac9b-9f4e9efa7df7";
const OWN_UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// A guest with the programs.
fn guest(kernel: &str) -> Vm {
    Vm::linux("linux", kernel).text("initrd", &artefacts::initrd_tools().to_string_lossy())
}

fn boot(name: &str, model: &str, vm: Vm) -> Running {
    boot_on(Machine::new(name).cpus(4).model(model), vm)
}

fn boot_on(machine: Machine, vm: Vm) -> Running {
    let (mut running, _) = linux::boot(machine, vm);
    linux::run(&mut running.console, "dmesg -n 1");
    running
}

fn say(running: &mut Running, line: &str) -> String {
    let said = linux::run(&mut running.console, line);
    println!("{line}\n{said}");
    said.trim().to_owned()
}

/// Returns the value of a line `key: value` of what a program said.
fn value<'a>(said: &'a str, key: &str) -> &'a str {
    said.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| (found.trim() == key).then_some(value.trim()))
        .unwrap_or_else(|| panic!("{key} in {said}"))
}

/// Checks what every guest is told, by ACPI or by a tree: a virtual machine, and none of those that have a name; and of performance
/// monitors whose counters interrupt when they overflow.
fn expect_vm_other(running: &mut Running) {
    let said = say(
        running,
        "grep arm-pmu /proc/interrupts; dmesg | grep -E 'PMU|perfevents'",
    );
    assert!(
        said.contains(" 23 Level ") && said.contains("armv8_pmuv3"),
        "{said}"
    );
    assert!(
        !said.contains("No ACPI PMU IRQ") && !said.contains("no irqs"),
        "{said}"
    );
    assert_eq!(say(running, "systemd-detect-virt"), "vm-other");
    // It knows other hypervisors by their names: nothing is what it says of those that it does not know.
    assert_eq!(say(running, "virt-what; echo status $?"), "status 0");
}

fn expect_uuid(running: &mut Running, uuid: &str) {
    for path in ["product_uuid", "product_serial"] {
        let said = say(running, &format!("cat /sys/class/dmi/id/{path}"));
        assert_eq!(said, uuid, "{path}");
    }
    assert_eq!(say(running, "dmidecode -s system-uuid"), uuid);
}

fn acpi_guest(name: &str, kernel: &str, model: &str) {
    let mut running = boot(name, model, guest(kernel));
    expect_vm_other(&mut running);
    expect_uuid(&mut running, UUID);
    let said = say(&mut running, "dmesg | grep -E 'DMI:|SMBIOS'");
    assert!(said.contains("SMBIOS 3.5.0 present"), "{said}");
    assert!(
        said.contains("DMI: Bullpen Bullpen virtual machine"),
        "{said}"
    );
    let said = say(&mut running, "dmidecode");
    for wrong in [
        "<BAD INDEX>",
        "<TRUNCATED>",
        "OUT OF SPEC",
        "Wrong",
        "Invalid",
    ] {
        assert!(!said.contains(wrong), "{wrong}");
    }
    assert!(said.contains("System is a virtual machine"));
    let memory = say(&mut running, "dmidecode -t 17");
    assert_eq!(value(&memory, "Size"), "512 MB");
    let said = say(&mut running, "lscpu");
    // 2 vCPUs are on; those of the reserve come to the same package.
    let counts = [
        "On-line CPU(s) list",
        "Thread(s) per core",
        "Core(s) per socket",
        "Socket(s)",
    ];
    assert_eq!(counts.map(|key| value(&said, key)), ["0,1", "1", "2", "1"]);
    linux::resize_to(&mut running, "linux", 8);
    let said = say(&mut running, "lscpu");
    assert_eq!(counts.map(|key| value(&said, key)), ["0-7", "1", "8", "1"]);
    linux::expect_no_complaints(&mut running.console);
    // The same after a reset.
    linux::reboot(&mut running, "linux");
    linux::run(&mut running.console, "dmesg -n 1");
    expect_uuid(&mut running, UUID);
}

#[test]
fn linux_6_12_knows_whose_machine_it_is() {
    acpi_guest("identity-6.12", "linux-6.12", "max,pauth=off");
}

#[test]
fn linux_7_2_knows_whose_machine_it_is() {
    acpi_guest("identity-7.2", "linux-7.2", "neoverse-n1");
}

#[test]
fn a_manifests_topology_and_uuid_reach_the_guest() {
    let vm = guest("linux-6.12")
        .vcpus(8, 8)
        .text("uuid", OWN_UUID)
        .raw("topology", "[2, 1, 2, 2]");
    let mut running = boot("identity-topology", "cortex-a57", vm);
    expect_uuid(&mut running, OWN_UUID);
    let said = say(&mut running, "lscpu");
    let counts = [
        "On-line CPU(s) list",
        "Thread(s) per core",
        "Core(s) per socket",
        "Socket(s)",
    ];
    assert_eq!(counts.map(|key| value(&said, key)), ["0-7", "2", "2", "2"]);
    // A Cortex-A57's: 32 and 48 KiB for each of 4 cores, 2 MiB for each of 2 packages.
    assert_eq!(value(&said, "L1d"), "128 KiB (4 instances)");
    assert_eq!(value(&said, "L1i"), "192 KiB (4 instances)");
    assert_eq!(value(&said, "L2"), "4 MiB (2 instances)");
    let said = say(
        &mut running,
        "cat /sys/devices/system/cpu/cpu5/topology/thread_siblings_list",
    );
    assert_eq!(said, "4-5");
    linux::expect_no_complaints(&mut running.console);
}

#[test]
fn vcpus_with_cpus_of_their_own_are_grouped_as_those_are() {
    let machine = Machine::new("identity-host-topology").cpus(4);
    // Besides the number, which the harness gives.
    let machine = machine
        .argument("-smp")
        .argument("sockets=2,cores=1,threads=2");
    let vm = guest("linux-7.2").vcpus(4, 4).cpus(&[0, 1, 2, 3]);
    let mut running = boot_on(machine, vm);
    let said = say(&mut running, "lscpu");
    let counts = ["Thread(s) per core", "Core(s) per socket", "Socket(s)"];
    assert_eq!(counts.map(|key| value(&said, key)), ["2", "1", "2"]);
    let said = say(
        &mut running,
        "cat /sys/devices/system/cpu/cpu3/topology/thread_siblings_list",
    );
    assert_eq!(said, "2-3");
}

#[test]
fn a_guest_with_a_tree_knows_too() {
    let vm = guest("linux-6.12").text("firmware", "fdt");
    let mut running = boot("identity-tree", "max,pauth=off", vm);
    expect_vm_other(&mut running);
    let tree = "/proc/device-tree";
    for (file, expected) in [
        ("model", "bullpen,virt"),
        ("serial-number", UUID),
        ("hypervisor/compatible", "bullpen,hypervisor"),
    ] {
        let said = say(&mut running, &format!("cat {tree}/{file} | tr '\\0' '\\n'"));
        assert_eq!(said, expected, "{file}");
    }
}
