//! Machines that are not as their device tree says, and loaders that enter at the wrong level: each ends in one line.
#![forbid(unsafe_code)]

use tests::machine::{Machine, PATIENCE};
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts};

/// Where QEMU's `virt` has its GIC, in its tree.
const GIC: &str = "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x80a0000 0x00 0xf60000>;";
const TIMER: &str =
    "interrupts = <0x01 0x0d 0x04 0x01 0x0e 0x04 0x01 0x0b 0x04 0x01 0x0a 0x04 0x01 0x0c 0x04>;";

fn machine(test: &str, tree: &Tree, cpus: u32) -> Machine {
    Machine::new(test)
        .cpus(cpus)
        .exact_memory_mib(512)
        .tree(tree)
}

fn manifest() -> Manifest {
    Manifest::new([Vm::guest("guest", "smoke")])
}

#[test]
fn a_tree_that_lies_ends_in_one_line_with_node_and_property() {
    // RAM that overlaps itself is not among them: QEMU writes the memory node itself.
    let cases = [
        // Nothing is there; flash is there; no redistributor is there.
        (
            GIC,
            "reg = <0x00 0xb000000 0x00 0x10000 0x00 0xb0a0000 0x00 0x20000>;",
            "bullpen: device tree: /intc@8000000: `reg`: nothing answers there (near 0xb00ffe8)",
        ),
        (
            GIC,
            "reg = <0x00 0x4000000 0x00 0x10000 0x00 0x80a0000 0x00 0xf60000>;",
            "bullpen: device tree: /intc@8000000: `reg`: no GICv3 or GICv4 answers there",
        ),
        (
            GIC,
            "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x80c0000 0x00 0x20000>;",
            "bullpen: device tree: /intc@8000000: `reg`: none of these redistributors is the boot CPU's",
        ),
        (
            TIMER,
            "interrupts = <1 13 4 1 14 4 1 16 4 1 10 4>;",
            "/timer: `interrupts` = ",
        ),
        (
            TIMER,
            "interrupts = <1 13 4 1 14 4 1 11 4 1 10 4>; clock-frequency = <0>;",
            "/timer: `clock-frequency` = <0x0>: the counter would stand still",
        ),
        (
            TIMER,
            "interrupts = <1 13 4 1 14 4 1 11 4 1 10 4>; interrupt-parent = <0x7777>; phandle = <0x7777>;",
            "gives no PPI for one of the EL1 and EL2 timers",
        ),
    ];
    for (number, (from, to, expected)) in cases.into_iter().enumerate() {
        let test = format!("lies-{number}");
        let tree = Tree::of_virt(&artefacts::log_directory(&test), 2).replace(from, to);
        let mut running = machine(&test, &tree, 2).launch(&manifest(), |_| {});
        running.console.expect(expected, PATIENCE);
        running.console.expect("\n", PATIENCE);
    }
}

#[test]
fn a_cpu_without_a_redistributor_stays_out() {
    let test = "lies-redistributor";
    // Room for the first one only.
    let tree = Tree::of_virt(&artefacts::log_directory(test), 2).replace(
        GIC,
        "reg = <0x00 0x8000000 0x00 0x10000 0x00 0x80a0000 0x00 0x20000>;",
    );
    let mut running = machine(test, &tree, 2).boot(&manifest());
    let console = running.console.everything();
    let line =
        "cpu@1: no redistributor of the interrupt controller is its own; going on without it";
    assert!(console.contains(line), "{console}");
    assert_eq!(running.command("host")["cpus_online"], 1);
}

#[test]
fn a_redistributor_that_does_not_wake_is_named() {
    let test = "lies-asleep";
    // Memory in its place, which keeps what it is given: GICR_TYPER.Last, and GICR_WAKER.ChildrenAsleep.
    const REDISTRIBUTOR: u64 = 0x5000_0000;
    let tree = Tree::of_virt(&artefacts::log_directory(test), 1)
        .replace(
            GIC,
            "reg = <0 0x8000000 0 0x10000 0 0x50000000 0 0x20000>;",
        )
        .replace(
            "chosen {",
            "reserved-memory { #address-cells = <2>; #size-cells = <2>; ranges; gic@50000000 { reg = <0 0x50000000 0 0x20000>; no-map; }; }; chosen {",
        );
    let holds = |offset: u64, data: u64| {
        format!(
            "loader,addr={:#x},data={data:#x},data-len=8",
            REDISTRIBUTOR + offset
        )
    };
    let machine = machine(test, &tree, 1)
        .argument("-device")
        .argument(&holds(8, 1 << 4))
        .argument("-device")
        .argument(&holds(0x10, 0b110 << 32));
    let mut running = machine.launch(&manifest(), |_| {});
    let line = "bullpen: the boot CPU can't be used: its redistributor does not wake (GICR_WAKER.ChildrenAsleep)";
    running.console.expect(line, PATIENCE);
}

#[test]
fn a_uart_whose_interrupt_is_an_edge_is_heard() {
    for gic in [2, 3] {
        let test = format!("lies-edge-{gic}");
        let tree = Tree::of_virt_with(&artefacts::log_directory(&test), gic, 2)
            .replace("interrupts = <0x00 0x01 0x04>;", "interrupts = <0 1 1>;")
            .replace("interrupts = <0x00 0x08 0x04>;", "interrupts = <0 8 1>;");
        let vm = Vm::guest("guest", "smoke");
        let machine = machine(&test, &tree, 2).gic(gic);
        let mut running = machine.boot(&Manifest::new([vm]));
        // More at once than a FIFO holds.
        for _ in 0..20 {
            running.command("vcpu list guest");
            running.command("host");
        }
        running.console.send("\x1d");
        for _ in 0..20 {
            running.console.line("vm list");
            running.console.expect("STATE", PATIENCE);
        }
    }
}

#[test]
fn entered_at_el1_it_says_how_to_get_to_el2() {
    let machine = Machine::new("lies-el1").cpus(1);
    let mut running = machine.bare(&artefacts::hypervisor(), "");
    let line =
        "bullpen: entered at EL1, but a hypervisor needs EL2: let the boot loader stay at it";
    running.console.expect(line, PATIENCE);
    running.console.expect("virtualization=on)", PATIENCE);
}

#[test]
fn entered_at_el3_it_says_how_to_get_to_el2() {
    let test = "lies-el3";
    // Firmware that jumps to the image where a loader would have put it: ldr x1, .+8; br x1; the address.
    const IMAGE: u64 = 0x4020_0000;
    let code = [0x5800_0041_u32, 0xd61f_0020];
    let mut firmware: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    firmware.extend(IMAGE.to_le_bytes());
    let path = artefacts::log_directory(test).join("firmware.bin");
    std::fs::write(&path, firmware).expect("the log directory can be written");
    let image = artefacts::hypervisor();
    let loader = format!(
        "loader,file={},addr={IMAGE:#x},force-raw=on",
        image.display()
    );
    let machine = Machine::new(test)
        .cpus(1)
        .option("secure=on,virtualization=on")
        .argument("-bios")
        .argument(&path.to_string_lossy())
        .argument("-device")
        .argument(&loader);
    let mut running = machine.bare(&image, "");
    let line = "bullpen: entered at EL3, but a hypervisor needs EL2: let firmware drop to it";
    running.console.expect(line, PATIENCE);
}
