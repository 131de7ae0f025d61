//! Machines that are like no other: trees as real boards have them, handed to QEMU's `virt` in the place of its own.
#![forbid(unsafe_code)]

use std::fmt::Write;
use tests::guest::expect_green;
use tests::machine::{Machine, PATIENCE, Running};
use tests::neighbour::ask;
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts, linux};

/// CPUs of the machines here, unless said otherwise.
const CPUS: u32 = 2;

/// The machine that a tree describes.
fn machine(test: &str, tree: &Tree) -> Machine {
    Machine::new(test)
        .cpus(CPUS)
        .exact_memory_mib(512)
        .tree(tree)
}

/// One VM that uses every CPU.
fn manifest() -> Manifest {
    Manifest::new([Vm::guest("guest", "smoke").vcpus(CPUS, CPUS)])
}

/// Boots the machine that a tree describes and runs a guest's tests on it.
fn check(test: &str, tree: &Tree) -> Running {
    check_machine(machine(test, tree))
}

/// Boots a machine and runs a guest's tests on it.
fn check_machine(machine: Machine) -> Running {
    check_manifest(machine, &manifest())
}

fn check_manifest(machine: Machine, manifest: &Manifest) -> Running {
    let mut running = machine.boot(manifest);
    expect_green(&mut running, "guest", PATIENCE);
    running
}

/// QEMU's own tree, whose files go to this test's directory.
fn tree(test: &str) -> Tree {
    Tree::of_virt(&artefacts::log_directory(test), CPUS)
}

#[test]
fn a_tree_of_many_nodes_and_properties_is_read() {
    const GROUPS: u32 = 110;
    const NODES: u32 = 200;
    let test = "boards-large-tree";
    // A mebibyte, of which QEMU makes almost two, the most that a kernel must take. dtc takes no more nodes side by side.
    let mut extra = String::from("extra {");
    for group in 0..GROUPS {
        write!(extra, "group{group} {{").expect("a string grows");
        for node in 0..NODES {
            writeln!(extra, "n{node} {{ a; b = <{node}>; }};").expect("a string grows");
        }
        extra.push_str("};\n");
    }
    extra.push_str("};\nchosen {");
    drop(check(test, &tree(test).replace("chosen {", &extra)));
}

/// Boots a machine of many CPUs and runs a guest's tests on the first, the last and some between; vCPUs move among them.
fn use_every_cpu(test: &str, cpus: u32) {
    let machine = Machine::new(test).cpus(cpus).memory_mib(2048);
    let last = cpus - 1;
    let many = Vm::guest("many", "smoke")
        .vcpus(4, 4)
        .cpus(&[0, 64, last - 1, last]);
    let still = Vm::guest("still", "neighbour").cpus(&[65]);
    let mut running = machine.boot(&Manifest::new([many, still]));
    let console = running.console.everything();
    let line = format!("{cpus} of {cpus} CPUs");
    assert!(console.contains(&line), "{}", running.console.tail());
    expect_green(&mut running, "many", PATIENCE);
    assert_eq!(running.command("host")["cpus_online"], cpus);
    for cpu in [last, 63, 64] {
        running.command(&format!("vcpu pin still 0 {cpu}"));
        let list = running.command("vcpu list still");
        assert_eq!(list["vcpus"][0]["cpu"], cpu, "{list}");
        assert_eq!(running.command("vm show still")["cpus"][0], cpu);
    }
    assert_eq!(ask(&mut running, "still").damaged, 0);
}

#[test]
fn cpus_beyond_the_first_64_are_used() {
    use_every_cpu("boards-80-cpus", 80);
}

#[test]
fn all_of_512_cpus_are_used() {
    if artefacts::full() {
        use_every_cpu("boards-512-cpus", 512);
    }
}

/// How QEMU names the RAM of these machines.
const RAM: &str = "reg = <0x00 0x40000000 0x00 0x20000000>;";

/// RAM in pieces whose ends lie between two blocks of 2 MiB, as firmware leaves it.
fn scattered(banks: u64) -> String {
    let (start, end) = (0x5400_0000, 0x6000_0000);
    let step = ((end - start) / banks) & !0xfff;
    let mut ram = format!("reg = <0 0x40000000 0 {:#x}", start - 0x4000_0000);
    for bank in 1..banks {
        let (at, size) = (start + bank * step + 0x1_1000, step - 0x2_3000);
        write!(ram, " 0 {at:#x} 0 {size:#x}").expect("a string grows");
    }
    ram + ">;"
}

#[test]
fn ram_in_any_number_of_pieces_is_used() {
    for banks in [12, 24, 64] {
        let test = format!("boards-{banks}-banks");
        let running = check(&test, &tree(&test).replace(RAM, &scattered(banks)));
        let console = running.console.everything();
        assert!(!console.contains("can't be mapped"), "{banks}: {console}");
    }
}

#[test]
fn memory_of_the_firmware_is_neither_mapped_nor_given_away() {
    let test = "boards-no-map";
    // 64 MiB and 128 MiB, and the first page, of 512 MiB.
    let firmware = "reserved-memory { #address-cells = <2>; #size-cells = <2>; ranges; \
        firmware@40000000 { reg = <0 0x40000000 0 0x1000>; no-map; }; \
        firmware@50000000 { reg = <0 0x50000fff 0 0x4000002>; no-map; }; \
        firmware@58000000 { reg = <0 0x58000000 0 0x8000000>; }; }; chosen {";
    let mut running = check(test, &tree(test).replace("chosen {", firmware));
    let host = running.command("host");
    let free = host["free_pages"].as_u64().expect("a number") * 4096;
    assert!(free < (512 - 192) << 20, "{host}");
}

#[test]
fn a_timer_whose_interrupt_is_not_where_the_tree_says_is_named() {
    let own = "interrupts = <0x01 0x0d 0x04 0x01 0x0e 0x04 0x01 0x0b 0x04 0x01 0x0a 0x04 0x01 0x0c 0x04>;";
    let cases = [
        (
            "1 0 4 1 1 4 1 2 4 1 3 4",
            "the EL2 timer's interrupt is not INTID 19",
        ),
        (
            "1 13 4 1 14 4 1 12 4 1 10 4",
            "the virtual timer's interrupt is not INTID 28",
        ),
        (
            "1 13 4 1 11 4 1 14 4 1 10 4",
            "the virtual timer's interrupt is not INTID 30",
        ),
        (
            "1 13 4 1 13 4 1 11 4 1 10 4",
            "the EL1 physical timer's interrupt is not INTID 29",
        ),
        ("1 13 4 1 14 4 1 11 4 1 11 4", "gives one PPI to two of"),
    ];
    for (number, (interrupts, expected)) in cases.into_iter().enumerate() {
        let test = format!("boards-timer-{number}");
        let tree = tree(&test).replace(own, &format!("interrupts = <{interrupts}>;"));
        let mut running = machine(&test, &tree).launch(&manifest(), |_| {});
        running.console.expect(expected, PATIENCE);
    }
}

#[test]
fn a_uart_without_a_driver_is_named_on_the_boards_own() {
    let test = "boards-uart";
    let own = r#"compatible = "arm,pl011\0arm,primecell";"#;
    let other = r#"compatible = "qcom,geni-debug-uart";"#;
    // The second time for the second UART.
    let tree = tree(test).replace(own, other).replace(own, other);
    let mut running = machine(test, &tree).launch(&manifest(), |_| {});
    let line = "/pl011@9000000: `compatible` = \"qcom,geni-debug-uart\": this UART cannot be used";
    running.console.expect(line, PATIENCE);
}

/// QEMU's AST2700, whose UART is a 16550: what it has that Bullpen wants, by the addresses of QEMU's `hw/arm/aspeed_ast27x0.c`.
/// Its other CPUs have no way to be started.
const AST2700: &str = r#"/dts-v1/;
/ {
    #address-cells = <2>; #size-cells = <2>; interrupt-parent = <&gic>;
    compatible = "aspeed,ast2700-evb";
    aliases { serial0 = "/serial@14c33b00"; };
    chosen { stdout-path = "serial0:115200n8"; };
    memory@400000000 { device_type = "memory"; reg = <4 0 0 0x40000000>; };
    cpus {
        #address-cells = <2>; #size-cells = <0>;
        cpu@0 { device_type = "cpu"; compatible = "arm,cortex-a35"; reg = <0 0>; };
    };
    gic: interrupt-controller@12200000 {
        compatible = "arm,gic-v3"; #interrupt-cells = <3>; interrupt-controller;
        reg = <0 0x12200000 0 0x10000 0 0x12280000 0 0x80000>;
    };
    timer { compatible = "arm,armv8-timer"; interrupts = <1 13 8 1 14 8 1 11 8 1 10 8>; };
    serial@14c33b00 {
        compatible = "ns16550a"; reg = <0 0x14c33b00 0 0x100>; reg-shift = <2>; reg-io-width = <4>;
    };
};
"#;

/// QEMU's ZCU102: a GIC-400 of 64 KiB frames, a Cadence UART, PSCI. Its tree is Debian's.
fn zcu102(test: &str) -> Machine {
    let tree = artefacts::tree("xilinx/zynqmp-zcu102-rev1.0.dtb");
    let machine = Machine::new(test).board("xlnx-zcu102,virtualization=on");
    machine
        .model("cortex-a53")
        .exact_memory_mib(1024)
        .one_uart()
        .argument("-dtb")
        .argument(&tree.to_string_lossy())
}

/// QEMU's Versal: a GICv3 where no `virt` has it, two PL011, PSCI, two CPUs. Its tree is QEMU's.
fn versal(test: &str) -> Machine {
    let machine = Machine::new(test).board("xlnx-versal-virt");
    // Two more are Cortex-R5 for the real-time side.
    machine.model("cortex-a72").exact_memory_mib(2048)
}

#[test]
fn other_machines_of_qemus_run_a_guest() {
    let vm = || Vm::guest("guest", "smoke").vcpus(4, 4);
    for machine in [zcu102("boards-zcu102"), versal("boards-versal")] {
        // Neither has a clock.
        drop(check_manifest(
            machine,
            &Manifest::new([vm().command_line("no-clock")]),
        ));
    }
}

#[test]
fn linux_grows_on_a_versal() {
    if !artefacts::full() {
        eprintln!("skipped: `cargo xtask test --full` runs it");
        return;
    }
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 4);
    let mut running = versal("boards-versal-linux").boot(&Manifest::new([vm]));
    assert_eq!(linux::wait_for_shell(&mut running.console), 1);
    for vcpus in [4, 1] {
        let result = running.command(&format!("vcpu set linux {vcpus} --timeout 100"));
        assert_eq!(result["outcome"], "done", "{result}");
    }
    linux::expect_no_complaints(&mut running.console);
}

#[test]
fn linux_grows_on_a_zcu102() {
    if !artefacts::full() {
        eprintln!("skipped: `cargo xtask test --full` runs it");
        return;
    }
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 4);
    let mut running = zcu102("boards-zcu102-linux").boot(&Manifest::new([vm]));
    assert_eq!(linux::wait_for_shell(&mut running.console), 1);
    // Its only UART is the operator's and the guest's, both ways.
    for vcpus in [4, 1] {
        linux::resize_at_the_prompt(&mut running, "linux", vcpus);
    }
    linux::expect_no_complaints(&mut running.console);
}

#[test]
fn a_16550_is_a_console() {
    let test = "boards-16550";
    let tree = Tree::of(&artefacts::log_directory(test), AST2700);
    let machine = Machine::new(test)
        .board("ast2700a0-evb")
        .model("cortex-a35")
        .cpus(4)
        .memory_mib(1024);
    let machine = machine.tree(&tree);
    let mut running = machine.bare(&artefacts::hypervisor(), "");
    running
        .console
        .expect("no VMs: no bundle was given as initrd", PATIENCE);
    running.console.expect(
        "Ctrl-] switches between guest and Bullpen console",
        PATIENCE,
    );
}
