//! QEMU's own trees, as `testdata/README.md` says they were made, and trees of ours for what those do not have.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use super::*;
use crate::serial::Model;
use crate::topology::Topology;

const GIC3_4: &[u8] = include_bytes!("testdata/virt-gic3-4.dtb");
/// All trees of QEMU: GIC version, number of CPUs, tree.
const VIRT: &[(u8, usize, &[u8])] = &[
    (2, 1, include_bytes!("testdata/virt-gic2-1.dtb")),
    (2, 4, include_bytes!("testdata/virt-gic2-4.dtb")),
    (2, 8, include_bytes!("testdata/virt-gic2-8.dtb")),
    (3, 1, include_bytes!("testdata/virt-gic3-1.dtb")),
    (3, 4, GIC3_4),
    (3, 8, include_bytes!("testdata/virt-gic3-8.dtb")),
    (3, 128, include_bytes!("testdata/virt-gic3-128.dtb")),
];

/// Reads a tree on a machine of which the hypervisor uses nothing that matters.
fn describe(dtb: &[u8]) -> Result<HostDescription, HostError> {
    super::describe(dtb, &[], None)
}

fn range(base: u64, size: u64) -> HostRange {
    HostRange {
        base: HostPhys::new(base),
        size,
    }
}

/// The private interrupts of most machines (Arm BSA, 4.1.5).
const USUAL: PrivateInterrupts = PrivateInterrupts {
    hyp: 26,
    virt: 27,
    physical: 30,
    maintenance: 25,
    pmu: None,
};

#[test]
fn qemu_virt_is_understood_in_every_form() {
    for (gic, cpus, dtb) in VIRT {
        let host = describe(dtb).expect("QEMU's tree");
        assert_eq!(host.model, "linux,dummy-virt");
        assert_eq!(host.cpus.len(), *cpus);
        assert!(host.cpus.iter().all(|cpu| cpu.enable == EnableMethod::Psci));
        assert_eq!(host.memory, [range(0x4000_0000, 1 << 30)]);
        assert_eq!(
            host.psci,
            Some(Psci {
                conduit: Conduit::Smc,
                at_least_1_0: true
            })
        );
        let pmu = Some(23);
        assert_eq!(host.private, PrivateInterrupts { pmu, ..USUAL });
        let uart = |uart: Option<&Uart>| {
            uart.map(|uart| {
                (
                    uart.registers.base.get(),
                    uart.interrupt.map(|line| line.intid),
                )
            })
        };
        assert_eq!(uart(host.console()), Some((0x0900_0000, Some(33))));
        assert_eq!(uart(host.control()), Some((0x0904_0000, Some(40))));
        assert_eq!(find_console(dtb).as_ref(), host.console());
        match host.gic {
            Gic::V2(v2) => {
                assert_eq!((*gic, v2.distributor), (2, range(0x0800_0000, 0x1_0000)));
                assert_eq!(v2.cpu_interface, range(0x0801_0000, 0x1_0000));
                assert_eq!(v2.hypervisor_interface, range(0x0803_0000, 0x1_0000));
                assert_eq!(
                    (v2.virtual_interface, v2.maintenance),
                    (range(0x0804_0000, 0x1_0000), 25)
                );
            }
            Gic::V3(v3) => {
                assert_eq!((*gic, v3.distributor), (3, range(0x0800_0000, 0x1_0000)));
                let first = range(0x080a_0000, 0xf6_0000);
                let second = (*cpus > 123).then_some(range(0x40_0000_0000, 0x400_0000));
                assert_eq!(
                    v3.redistributors,
                    [first].into_iter().chain(second).collect::<Vec<_>>()
                );
                assert_eq!((v3.stride, v3.maintenance), (None, 25));
            }
        }
        assert_eq!(host.warnings, [""; 0]);
    }
    let many = describe(VIRT[6].2).expect("QEMU's tree");
    assert_eq!(many.cpus[17].mpidr, 0x101, "16 CPUs to an Aff1 value");
}

/// One step of writing a tree.
#[derive(Clone)]
enum Step {
    Open(&'static str),
    Close,
    Cells(&'static str, &'static [u32]),
    Text(&'static str, &'static str),
    Flag(&'static str),
    Bytes(&'static str, &'static [u8]),
}
use Step::{Bytes, Cells, Close, Flag, Open, Text};

/// Writes the tree that the steps describe, below a root of 2 address and 2 size cells.
fn write(steps: &[Step]) -> Vec<u8> {
    let reserved = [FdtReserveEntry::new(0x0, 0x1000).expect("a range")];
    let mut writer = FdtWriter::new_with_mem_reserv(&reserved).expect("a tree");
    let root = writer.begin_node("").expect("root");
    writer.property_u32("#address-cells", 2).expect("cells");
    writer.property_u32("#size-cells", 2).expect("cells");
    let mut open = Vec::from([root]);
    for step in steps {
        match step {
            Open(name) => open.push(writer.begin_node(name).expect("node")),
            Close => writer
                .end_node(open.pop().expect("an open node"))
                .expect("end"),
            Cells(name, cells) => writer.property_array_u32(name, cells).expect("cells"),
            Text(name, text) => writer.property_string(name, text).expect("text"),
            Flag(name) => writer.property_null(name).expect("flag"),
            Bytes(name, bytes) => writer.property(name, bytes).expect("bytes"),
        }
    }
    while let Some(node) = open.pop() {
        writer.end_node(node).expect("end");
    }
    writer.finish().expect("a tree")
}

/// A board like a Raspberry Pi 4: GICv2 behind a bus, spin table, a console of another make.
fn pi() -> Vec<Step> {
    Vec::from([
        Text("model", "Test Pi"),
        Text("compatible", "raspberrypi,4-model-b"),
        Cells("interrupt-parent", &[1]),
        Open("aliases"),
        Text("serial1", "/soc/serial@7e215040"),
        Text("serial0", "/soc/serial@7e201000"),
        Close,
        Open("chosen"),
        Text("stdout-path", "serial1:115200n8"),
        Text("bootargs", "bullpen.log=debug quiet"),
        Cells("linux,initrd-start", &[0x800_0000]),
        Cells("linux,initrd-end", &[0, 0x900_0000]),
        Bytes("rng-seed", &[1, 2, 3]),
        Cells("kaslr-seed", &[1, 2]),
        Close,
        Open("reserved-memory"),
        Cells("#address-cells", &[2]),
        Cells("#size-cells", &[2]),
        Flag("ranges"),
        Open("tz@10000000"),
        Cells("reg", &[0, 0x1000_0000, 0, 0x10_0000]),
        Flag("no-map"),
        Close,
        Open("linux,cma"),
        Cells("size", &[0, 0x400_0000]),
        Close,
        Close,
        Open("memory@0"),
        Text("device_type", "memory"),
        Cells(
            "reg",
            &[
                0,
                0x4000_0000,
                0,
                0x1000_0000,
                0,
                0,
                0,
                0x3c00_0000,
                0,
                0x5000_0000,
                0,
                0,
            ],
        ),
        Close,
        Open("memory@50000000"),
        Text("device_type", "memory"),
        Cells("reg", &[0, 0x5000_0000, 0, 0x1000_0000]),
        Close,
        Open("cpus"),
        Cells("#address-cells", &[1]),
        Cells("#size-cells", &[0]),
        Open("cpu@0"),
        Text("device_type", "cpu"),
        Text("enable-method", "spin-table"),
        Cells("cpu-release-addr", &[0, 0xd8]),
        Cells("reg", &[0]),
        Close,
        Open("cpu@1"),
        Text("device_type", "cpu"),
        Text("enable-method", "spin-table"),
        Cells("cpu-release-addr", &[0, 0xe0]),
        Cells("reg", &[1]),
        Close,
        Open("cpu@2"),
        Text("device_type", "cpu"),
        Text("status", "disabled"),
        Cells("reg", &[2]),
        Close,
        Open("l2-cache"),
        Close,
        Close,
        Open("timer"),
        Text("compatible", "arm,armv8-timer"),
        Cells(
            "interrupts",
            &[
                1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08, 1, 12, 0xf08,
            ],
        ),
        Close,
        Open("soc"),
        Cells("#address-cells", &[1]),
        Cells("#size-cells", &[1]),
        Cells(
            "ranges",
            &[
                0x7e00_0000,
                0,
                0xfe00_0000,
                0x180_0000,
                0x4000_0000,
                0,
                0xff80_0000,
                0x80_0000,
            ],
        ),
        Open("interrupt-controller@40041000"),
        Text("compatible", "arm,gic-400"),
        Flag("interrupt-controller"),
        Cells("#interrupt-cells", &[3]),
        Cells("phandle", &[1]),
        Cells("interrupts", &[1, 9, 0xf04]),
        Cells(
            "reg",
            &[
                0x4004_1000,
                0x1000,
                0x4004_2000,
                0x2000,
                0x4004_4000,
                0x2000,
                0x4004_6000,
                0x2000,
            ],
        ),
        Close,
        Open("serial@7e215040"),
        Text("compatible", "brcm,bcm2835-aux-uart"),
        Cells("reg", &[0x7e21_5040, 0x40]),
        Cells("interrupts", &[0, 93, 4]),
        Close,
        Open("serial@7e201000"),
        Text("compatible", "arm,pl011"),
        Cells("reg", &[0x7e20_1000, 0x200]),
        Cells("interrupts", &[0, 121, 4]),
        Close,
        Open("serial@7e201400"),
        Text("compatible", "arm,pl011"),
        Text("status", "disabled"),
        Cells("reg", &[0x7e20_1400, 0x200]),
        Close,
        Open("serial@99"),
        Text("compatible", "arm,pl011"),
        Cells("reg", &[0x99, 0x200]),
        Close,
        Close,
    ])
}

#[test]
fn a_board_with_buses_spin_table_and_gicv2_is_understood() {
    let host = describe(&write(&pi())).expect("a board");
    assert_eq!(
        (host.model.as_str(), host.compatible.as_slice()),
        ("Test Pi", &["raspberrypi,4-model-b".to_string()][..])
    );
    assert_eq!(
        host.memory,
        [range(0, 0x3c00_0000), range(0x4000_0000, 0x2000_0000)]
    );
    let firmware = Reservation {
        range: range(0x1000_0000, 0x10_0000),
        no_map: true,
    };
    assert_eq!(
        host.reserved,
        [
            Reservation {
                range: range(0, 0x1000),
                no_map: false
            },
            firmware
        ]
    );
    assert_eq!(
        host.mappable,
        [
            range(0x1010_0000, 0x2bf0_0000),
            range(0x4000_0000, 0x2000_0000),
            range(0, 0x1000_0000)
        ],
        "all but what is no-map, the largest first"
    );
    let spin = |mpidr, release| HostCpu {
        mpidr,
        place: host.cpus[mpidr as usize].place,
        enable: EnableMethod::SpinTable {
            release: HostPhys::new(release),
        },
    };
    assert_eq!(host.cpus, [spin(0, 0xd8), spin(1, 0xe0)]);
    assert_eq!(host.private, USUAL);
    assert_eq!(host.psci, None);
    let Gic::V2(gic) = &host.gic else {
        panic!("{:?}", host.gic)
    };
    assert_eq!(
        (gic.distributor.base.get(), gic.virtual_interface.base.get()),
        (0xff84_1000, 0xff84_6000)
    );
    let models: Vec<&Model> = host.uarts.iter().map(|uart| uart.model).collect();
    assert_eq!(
        models,
        [&serial::BCM2835_AUX, &serial::PL011],
        "disabled and unreachable ones are left out"
    );
    let place = |uart: Option<&Uart>| {
        uart.map(|uart| (uart.registers, uart.interrupt.map(|line| line.intid)))
    };
    // `stdout-path` names the mini UART.
    let console = (range(0xfe21_5040, 0x40), Some(125));
    assert_eq!(place(host.console()), Some(console));
    let control = (range(0xfe20_1000, 0x200), Some(153));
    assert_eq!(place(host.control()), Some(control));
    let chosen = Chosen {
        bootargs: "bullpen.log=debug quiet".to_string(),
        initrd: Some(range(0x800_0000, 0x100_0000)),
        rng_seed: Vec::from([1, 2, 3]),
        kaslr_seed: Some(0x1_0000_0002),
    };
    assert_eq!(host.chosen, chosen);
    assert_eq!(host.warnings.len(), 1, "{:?}", host.warnings);
    assert!(
        host.warnings[0].contains("/soc/serial@99"),
        "{:?}",
        host.warnings
    );
}

/// Replaces the value of a property, the `nth` of that name, or removes it.
fn change(name: &str, nth: usize, with: Option<Step>) -> Vec<Step> {
    let mut seen = 0;
    let mut found = false;
    let steps = pi().into_iter().filter_map(|step| {
        let own = match &step {
            Cells(name, _) | Text(name, _) | Flag(name) | Bytes(name, _) => *name,
            Open(_) | Close => return Some(step),
        };
        let is_it = own == name && seen == nth;
        seen += usize::from(own == name);
        found |= is_it;
        if is_it { with.clone() } else { Some(step) }
    });
    let steps = steps.collect();
    assert!(found, "no {name} number {nth}");
    steps
}

#[test]
fn what_cannot_be_used_is_named_with_node_property_and_value() {
    let cases: &[(&str, usize, Option<Step>, &str)] = &[
        ("reg", 1, None, "/memory@0: `reg` is missing"),
        (
            "reg",
            1,
            Some(Cells("reg", &[0, 1])),
            "/memory@0: `reg` = <0x0 0x1>: is not a list of RAM banks",
        ),
        (
            "reg",
            2,
            Some(Cells("reg", &[0, 0x3000_0000, 0, 0x1000_0000])),
            "overlaps another RAM bank",
        ),
        (
            "reg",
            2,
            Some(Cells("reg", &[0xffff_ffff, 0xffff_f000, 0, 0x2000])),
            "/memory@50000000: `reg`",
        ),
        ("reg", 3, None, "/cpus/cpu@0: `reg` is missing"),
        (
            "reg",
            3,
            Some(Cells("reg", &[1])),
            "/cpus/cpu@1: `reg` = <0x1>: names the same CPU as another node",
        ),
        (
            "reg",
            3,
            Some(Cells("reg", &[0x8000_0000])),
            "has bits outside MPIDR's affinity fields",
        ),
        (
            "interrupts",
            0,
            Some(Cells("interrupts", &[1, 13, 4])),
            "/timer: `interrupts` = <0x1 0xd 0x4>: gives no PPI",
        ),
        (
            "interrupts",
            0,
            Some(Cells(
                "interrupts",
                &[1, 99, 4, 1, 99, 4, 1, 99, 4, 1, 99, 4],
            )),
            "gives no PPI",
        ),
        ("#interrupt-cells", 0, None, "/timer: `interrupts`"),
        ("interrupt-parent", 0, None, "/timer: `interrupts`"),
        (
            "compatible",
            1,
            Some(Text("compatible", "arm,none")),
            "no generic timer",
        ),
        (
            "compatible",
            2,
            Some(Text("compatible", "arm,none")),
            "no interrupt controller",
        ),
        (
            "reg",
            6,
            Some(Cells("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000])),
            "has no GICH and GICV",
        ),
        (
            "reg",
            6,
            Some(Cells("reg", &[0x1, 0x1000])),
            "is not a list of mapped register frames",
        ),
        ("ranges", 1, None, "is not a list of mapped register frames"),
    ];
    for (name, nth, with, expected) in cases {
        let error = describe(&write(&change(name, *nth, with.clone())))
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
    let empty = write(&[]);
    assert_eq!(
        describe(&empty),
        Err(HostError::Missing {
            what: "RAM (no /memory node with a size)"
        })
    );
    assert_eq!(
        describe(b"ATAG"),
        Err(HostError::Tree(TreeError::Magic(0x4154_4147)))
    );
}

#[test]
fn a_pmu_interrupts_by_a_ppi_of_its_own_or_not_at_all() {
    let with = |node: &[Step]| {
        let mut all = pi();
        all.extend_from_slice(node);
        describe(&write(&all)).expect("a board").private.pmu
    };
    let told = |cells| with(&[Open("pmu"), Cells("interrupts", cells), Close]);
    assert_eq!(told(&[1, 7, 4]), Some(23));
    assert_eq!(told(&[1, 9, 4]), None, "the maintenance interrupt");
    assert_eq!(told(&[0, 16, 4]), None, "an SPI for each CPU");
    assert_eq!(with(&[Open("pmu"), Close]), None);
    let off = [
        Open("pmu"),
        Text("status", "disabled"),
        Cells("interrupts", &[1, 7, 4]),
        Close,
    ];
    assert_eq!(with(&off), None);
}

/// Returns how CPUs are grouped by a `cpu-map` of these words: a node that opens, the CPU there, `^` where the innermost ends.
fn mapped(words: &str, cpus: u32) -> Option<Topology> {
    let mut writer = FdtWriter::new().expect("a tree");
    let mut open = Vec::from(["", "cpus", "cpu-map"].map(|name| writer.begin_node(name).unwrap()));
    for word in words.split(' ') {
        match word.split_once('=') {
            Some((_, cpu)) => writer.property_u32("cpu", cpu.parse().unwrap()).unwrap(),
            None if word == "^" => writer.end_node(open.pop().unwrap()).unwrap(),
            None => open.push(writer.begin_node(word).unwrap()),
        }
    }
    for node in open.drain(2..).rev() {
        writer.end_node(node).unwrap();
    }
    for cpu in 0..cpus {
        let node = writer.begin_node(&format!("cpu@{cpu}")).unwrap();
        writer.property_array_u32("reg", &[0, cpu]).unwrap();
        writer.property_u32("phandle", 100 + cpu).unwrap();
        writer.end_node(node).unwrap();
    }
    for node in open.into_iter().rev() {
        writer.end_node(node).unwrap();
    }
    let blob = writer.finish().expect("a tree");
    let tree = Tree::parse(&blob).expect("a tree");
    let found = cpus::find_all(&tree, true, &[], &mut Vec::new()).expect("CPUs");
    Topology::of(&found.iter().map(|cpu| cpu.place).collect::<Vec<_>>())
}

#[test]
fn cpu_map_says_where_cpus_are() {
    let shape = |groups: [u32; 4]| Topology::new(groups, groups.iter().product::<u32>() as u16);
    for (words, expected) in [
        (
            "cluster0 core0 cpu=100 ^ core1 cpu=101 ^ ^ cluster1 core0 cpu=102 ^ core1 cpu=103",
            shape([1, 2, 2, 1]),
        ),
        (
            "socket0 cluster0 core0 cpu=100 ^ core1 cpu=101 ^ ^ ^ socket1 cluster0 core0 cpu=102 ^ core1 cpu=103",
            shape([2, 1, 2, 1]),
        ),
        (
            "socket0 cluster0 core0 thread0 cpu=100 ^ thread1 cpu=101 ^ ^ core1 thread0 cpu=102 ^ thread1 cpu=103",
            shape([1, 1, 2, 2]),
        ),
        // Clusters of clusters: the innermost.
        (
            "cluster0 cluster0 core0 cpu=100 ^ core1 cpu=101 ^ ^ cluster1 core0 cpu=102 ^ core1 cpu=103",
            shape([1, 2, 2, 1]),
        ),
        // Three and one; the same CPU twice; none that there is; threads of nothing.
        (
            "cluster0 core0 cpu=100 ^ core1 cpu=101 ^ core2 cpu=102 ^ ^ cluster1 core0 cpu=103",
            None,
        ),
        ("cluster0 core0 cpu=100 ^ core1 cpu=100", None),
        ("cluster0 core0 cpu=1", shape([1, 1, 4, 1])),
        (
            "thread0 cpu=100 ^ thread1 cpu=101 ^ thread2 cpu=102 ^ thread3 cpu=103",
            shape([1, 1, 1, 4]),
        ),
    ] {
        assert_eq!(mapped(words, 4), expected, "{words}");
    }
    for (_, cpus, dtb) in VIRT {
        let host = describe(dtb).expect("QEMU's tree");
        let places: Vec<_> = host.cpus.iter().map(|cpu| cpu.place).collect();
        let flat = Topology::flat(*cpus as u16);
        assert_eq!(Topology::of(&places), Some(flat), "{cpus}");
    }
}

/// QEMU's tree with other words in place of these cells, which are looked for behind the name of a node.
fn altered(node: &str, from: &[u32], to: &[u32]) -> Vec<u8> {
    let bytes =
        |cells: &[u32]| -> Vec<u8> { cells.iter().flat_map(|cell| cell.to_be_bytes()).collect() };
    let mut tree = GIC3_4.to_vec();
    let find = |tree: &[u8], part: &[u8]| {
        let at = tree.windows(part.len()).position(|window| window == part);
        at.unwrap_or_else(|| panic!("no {part:x?}"))
    };
    let start = find(&tree, node.as_bytes());
    let at = start + find(&tree[start..], &bytes(from));
    tree[at..at + 4 * to.len()].copy_from_slice(&bytes(to));
    tree
}

#[test]
fn a_tree_that_lies_is_refused_with_node_and_property() {
    // The four timers' specifiers begin with the secure one's: PPI 13, edge or level in the flags.
    let timer = |ppi: u32| altered("timer\0", &[1, 13], &[1, ppi]);
    let pmu = Some(23);
    let usual = PrivateInterrupts { pmu, ..USUAL };
    assert_eq!(describe(&timer(13)).expect("QEMU's tree").private, usual);
    let own = |from: &[u32], to: &[u32]| describe(&altered("intc@8000000", from, to));
    let error = own(&[1, 9, 4], &[1, 16, 4]).expect_err("there are 16 PPIs");
    assert_eq!(
        error.to_string(),
        "host device tree: /intc@8000000: `interrupts` = <0x1 0x10 0x4>: names no PPI or SPI that a GIC has"
    );
    let still = [
        Open("timer"),
        Text("compatible", "arm,armv8-timer"),
        Cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]),
        Cells("clock-frequency", &[0]),
        Close,
    ];
    let mut steps = change("compatible", 1, Some(Text("compatible", "arm,none")));
    steps.extend(still);
    let error = describe(&write(&steps)).expect_err("the counter stands");
    assert_eq!(
        error.to_string(),
        "host device tree: /timer: `clock-frequency` = <0x0>: the counter would stand still"
    );
}

#[test]
fn phandles_in_a_circle_end() {
    // The timer's interrupts go to itself; then to a node whose own go back to the timer.
    for parent in [7, 8] {
        let mut steps = change("compatible", 1, Some(Text("compatible", "arm,none")));
        steps.extend([
            Open("timer"),
            Text("compatible", "arm,armv8-timer"),
            Cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]),
            Cells("phandle", &[7]),
            Cells("interrupt-parent", if parent == 7 { &[7] } else { &[8] }),
            Close,
            Open("nexus"),
            Cells("phandle", &[8]),
            Cells("interrupt-parent", &[7]),
            Close,
        ]);
        let error = describe(&write(&steps)).expect_err("no controller");
        let line = error.to_string();
        assert!(line.contains("/timer: `interrupts`"), "{line}");
        assert!(
            line.ends_with("gives no PPI for one of the EL1 and EL2 timers"),
            "{line}"
        );
    }
}

#[test]
fn a_uart_whose_interrupt_is_out_of_range_is_used_without_it() {
    let host = describe(&altered("pl011@9000000", &[0, 1, 4], &[0, 988, 4])).expect("a board");
    assert_eq!(host.console().map(|uart| uart.interrupt), Some(None));
    let warning = host.warnings.first().expect("a warning");
    assert!(
        warning.contains("/pl011@9000000: `interrupts` = <0x0 0x3dc 0x4>: names no PPI or SPI"),
        "{warning}"
    );
}

#[test]
fn a_uarts_interrupt_is_configured_as_its_flags_say() {
    // SPI 1 is INTID 33: the second field of its word. The lower bit of a field is not ours.
    const BEFORE: u32 = 0x5aa5_5a5a;
    for (flags, is_edge, after) in [
        (1, true, BEFORE | 0b10 << 2),
        (2, true, BEFORE | 0b10 << 2),
        (4, false, BEFORE & !(0b10 << 2)),
        (8, false, BEFORE & !(0b10 << 2)),
        (0xf04, false, BEFORE & !(0b10 << 2)),
        (0, false, BEFORE & !(0b10 << 2)),
    ] {
        let tree = altered("pl011@9000000", &[0, 1, 4], &[0, 1, flags]);
        let host = describe(&tree).expect("a board");
        let line = host.console().and_then(|uart| uart.interrupt);
        let line = line.expect("an interrupt");
        assert_eq!((line.intid, line.is_edge), (33, is_edge), "{flags}");
        assert_eq!(line.configured(BEFORE), after, "{flags}");
    }
    let last = Line {
        intid: 47,
        is_edge: true,
    };
    assert_eq!(last.configured(0), 0x8000_0000);
}

#[test]
fn what_can_be_done_without_is_a_warning() {
    let warned = |steps: &[Step]| {
        describe(&write(steps))
            .expect("a board")
            .warnings
            .join("\n")
    };
    let cases: &[(&str, usize, Option<Step>, &str)] = &[
        (
            "linux,initrd-end",
            0,
            Some(Cells("linux,initrd-end", &[0, 1])),
            "lies before the start",
        ),
        (
            "linux,initrd-start",
            0,
            Some(Cells("linux,initrd-start", &[0, 1, 2])),
            "is not an address",
        ),
        (
            "linux,initrd-end",
            0,
            Some(Cells("linux,initrd-end", &[0, 0x3c00_0001])),
            "`linux,initrd-end` = <0x0 0x3c000001>: lies outside of RAM",
        ),
        (
            "linux,initrd-start",
            0,
            Some(Cells("linux,initrd-start", &[0, 1])),
            "",
        ),
        (
            "enable-method",
            0,
            Some(Text("enable-method", "magic")),
            "\"magic\" cannot be used",
        ),
        (
            "enable-method",
            0,
            Some(Text("enable-method", "psci")),
            "\"psci\" cannot be used",
        ),
        ("cpu-release-addr", 0, None, "`cpu-release-addr` is missing"),
        (
            "cpu-release-addr",
            0,
            Some(Cells("cpu-release-addr", &[3])),
            "not an address",
        ),
        (
            "reg",
            0,
            Some(Cells("reg", &[0, 1, 2])),
            "/reserved-memory/tz@10000000: `reg` ignored",
        ),
    ];
    for (name, nth, with, expected) in cases {
        let warnings = warned(&change(name, *nth, with.clone()));
        assert!(
            warnings.contains(expected),
            "{warnings}\nshould contain {expected}"
        );
    }
    let psci = |compatible, method| {
        let node = [
            Open("psci"),
            Text("compatible", compatible),
            Text("method", method),
            Close,
        ];
        describe(&write(&[pi(), node.to_vec()].concat())).expect("a board")
    };
    assert_eq!(
        psci("arm,psci-0.2", "hvc").psci,
        Some(Psci {
            conduit: Conduit::Hvc,
            at_least_1_0: false
        })
    );
    assert_eq!(
        (
            psci("arm,psci", "smc").psci,
            psci("arm,psci-1.0", "svc").psci
        ),
        (None, None)
    );
}

#[test]
fn memory_that_must_not_be_mapped_is_left_out_by_whole_pages() {
    let hole = |base, size, no_map| Reservation {
        range: range(base, size),
        no_map,
    };
    let banks = [range(0x800, 0x7900), range(0x10_0000, 0x1000)];
    let reserved = [
        hole(0x2fff, 2, true),
        hole(0x5000, 0x1000, false),
        hole(0x7000, 0x10_0000, true),
    ];
    assert_eq!(
        memory::mappable(&banks, &reserved),
        [range(0x4000, 0x3000), range(0x1000, 0x1000)]
    );
    assert_eq!(
        memory::mappable(&banks, &[]),
        [range(0x1000, 0x7000), range(0x10_0000, 0x1000)],
        "of a page that is RAM in part, nobody knows the rest"
    );
    assert_eq!(memory::mappable(&[range(0x800, 0x900)], &[]), []);
}

#[test]
fn an_initrd_in_memory_that_must_not_be_mapped_is_not_read() {
    let steps = change(
        "linux,initrd-end",
        0,
        Some(Cells("linux,initrd-end", &[0, 0x1000_0001])),
    );
    let host = describe(&write(&steps)).expect("a board");
    assert_eq!(host.chosen.initrd, None);
    let warnings = host.warnings.join("\n");
    assert!(
        warnings.contains("lies outside of RAM that may be read"),
        "{warnings}"
    );
}

#[test]
fn release_addresses_that_must_not_be_written_are_refused() {
    let tree = |cells| {
        write(&change(
            "cpu-release-addr",
            1,
            Some(Cells("cpu-release-addr", cells)),
        ))
    };
    let image = [0x20_0000..0x28_0000, 0x3000_0000..0x3000_1000];
    let cases: &[(&'static [u32], &str)] = &[
        (&[0, 0], "is missing or not an address"),
        (&[0, 0xe1], "is missing or not an address"),
        (&[0, 0xe4], "is missing or not an address"),
        (&[0x1_0000, 0], "is missing or not an address"),
        (&[u32::MAX, 0xffff_fff8], "is missing or not an address"),
        (&[], "is missing or not an address"),
        (&[0, 0, 0xe0], "is missing or not an address"),
        (&[0, 0x20_0000], "= 0x200000 lies in the hypervisor"),
        (&[0, 0x27_fff8], "= 0x27fff8 lies in the hypervisor"),
        (&[0, 0x3000_0ff8], "= 0x30000ff8 lies in the hypervisor"),
        (&[0, 0x800_0000], "= 0x8000000 lies in the hypervisor"),
    ];
    for (cells, expected) in cases {
        let host = super::describe(&tree(cells), &image, None).expect("a board");
        let expected = format!("/cpus/cpu@1: `cpu-release-addr` {expected}");
        assert!(
            host.warnings.iter().any(|line| line.contains(&expected)),
            "{:?} should contain {expected}",
            host.warnings
        );
        assert_eq!(host.cpus[1].enable, EnableMethod::None, "{cells:x?}");
        // Nothing else is to blame.
        assert_ne!(host.cpus[0].enable, EnableMethod::None, "{cells:x?}");
    }
    let good: &[(&'static [u32], u64)] = &[
        (&[0, 0xe0], 0xe0),
        (&[0, 0xd8], 0xd8),
        (&[0, 0x28_0000], 0x28_0000),
        (&[0, 0x1f_fff8], 0x1f_fff8),
        (&[0xffff, 0xffff_fff8], 0xffff_ffff_fff8),
        // As some old trees have it: one cell.
        (&[0xe0], 0xe0),
    ];
    for (cells, release) in good {
        let host = super::describe(&tree(cells), &image, None).expect("a board");
        let release = HostPhys::new(*release);
        assert_eq!(
            host.cpus[1].enable,
            EnableMethod::SpinTable { release },
            "{:?}",
            host.warnings
        );
    }
}

#[test]
fn a_gicv3_may_have_a_cpu_interface_for_guests_of_a_gicv2() {
    // GICD, GICR, GICC, GICH, GICV.
    const FRAMES: [u32; 10] = [
        0x4004_0000,
        0x1_0000,
        0x4010_0000,
        0xc_0000,
        0x4020_0000,
        0x1_0000,
        0x4021_0000,
        0x1_0000,
        0x4022_0000,
        0x1_0000,
    ];
    let gicv = |frames: &'static [u32]| {
        let mut steps = pi();
        let at = steps
            .iter()
            .position(|step| matches!(step, Text(_, "arm,gic-400")))
            .expect("a GIC");
        steps[at] = Text("compatible", "arm,gic-v3");
        let reg = steps[at..]
            .iter()
            .position(|step| matches!(step, Cells("reg", _)))
            .expect("its registers");
        steps[at + reg] = Cells("reg", frames);
        let host = describe(&write(&steps)).expect("a board");
        assert!(matches!(host.gic, Gic::V3(_)));
        host.gic.virtual_interface()
    };
    assert_eq!(gicv(&FRAMES), Some(range(0xffa2_0000, 0x1_0000)));
    assert_eq!(gicv(&FRAMES[..4]), None);
}

#[test]
fn each_cpu_has_its_own_way_to_start() {
    let mut steps = change("enable-method", 1, Some(Text("enable-method", "psci")));
    steps.extend([
        Open("psci"),
        Text("compatible", "arm,psci-1.0"),
        Text("method", "smc"),
        Close,
    ]);
    let host = describe(&write(&steps)).expect("a board");
    let release = HostPhys::new(0xd8);
    assert_eq!(
        [host.cpus[0].enable, host.cpus[1].enable],
        [EnableMethod::SpinTable { release }, EnableMethod::Psci]
    );
}

#[test]
fn names_of_interrupts_win_over_their_order() {
    let mut steps = change(
        "interrupts",
        0,
        Some(Cells("interrupts", &[1, 11, 4, 1, 14, 4, 1, 10, 4])),
    );
    let timer = steps
        .iter()
        .position(|step| matches!(step, Text(_, "arm,armv8-timer")))
        .expect("a timer");
    steps.insert(timer, Bytes("interrupt-names", b"virt\0phys\0hyp-phys\0"));
    assert_eq!(describe(&write(&steps)).expect("a board").private, USUAL);
}

#[test]
fn private_interrupts_are_those_of_the_tree_and_all_different() {
    // The timers' `interrupts` come first in this tree, the interrupt controller's second.
    let private = |nth, cells| {
        let found = describe(&write(&change(
            "interrupts",
            nth,
            Some(Cells("interrupts", cells)),
        )));
        found
            .map(|host| host.private)
            .map_err(|error| error.to_string())
    };
    let x_gene = PrivateInterrupts {
        hyp: 31,
        virt: 30,
        physical: 29,
        maintenance: 25,
        pmu: None,
    };
    assert_eq!(
        private(0, &[1, 0, 4, 1, 13, 4, 1, 14, 4, 1, 15, 4]),
        Ok(x_gene)
    );
    let maintenance = |of: PrivateInterrupts| of.maintenance;
    assert_eq!(private(1, &[1, 8, 4]).map(maintenance), Ok(24));
    assert_eq!(
        private(1, &[0, 8, 4]).map(maintenance),
        Ok(25),
        "an SPI cannot be it"
    );
    let refused = |nth, cells, problem| {
        let error = private(nth, cells).expect_err(problem);
        assert!(error.contains(problem), "{error}");
    };
    let no_ppi = "gives no PPI for one of the EL1 and EL2 timers";
    refused(0, &[1, 13, 4, 1, 14, 4, 1, 11, 4, 0, 10, 4], no_ppi);
    let twice = "gives one PPI to two of";
    refused(0, &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 11, 4], twice);
    refused(1, &[1, 10, 4], twice);
}

#[test]
fn interrupts_may_name_their_controllers() {
    const GIC: u32 = 1;
    let entries = &[GIC, 1, 13, 4, GIC, 1, 14, 4, GIC, 1, 11, 4, GIC, 1, 10, 4];
    let timer = |cells| {
        describe(&write(&change(
            "interrupts",
            0,
            Some(Cells("interrupts-extended", cells)),
        )))
        .map(|host| host.private)
    };
    assert_eq!(timer(entries), Ok(USUAL));
    assert!(timer(&entries[..13]).is_err(), "one is cut short");
    assert!(timer(&[9, 1, 13, 4]).is_err(), "nobody has this phandle");
}

#[test]
fn without_a_usable_console_there_is_none() {
    let steps: Vec<Step> = pi()
        .into_iter()
        .map(|step| match step {
            Text(name, "arm,pl011" | "brcm,bcm2835-aux-uart") => Text(name, "acme,uart"),
            step => step,
        })
        .collect();
    let dtb = write(&steps);
    let host = describe(&dtb).expect("a board");
    assert_eq!(host.console(), None);
    let warnings = host.warnings.join("\n");
    let why = "/soc/serial@7e215040: `compatible` = \"acme,uart\": this UART cannot be used";
    assert!(warnings.contains(why), "{warnings}");
    assert_eq!((find_console(&dtb), find_console(b"no tree")), (None, None));
}

#[test]
fn registers_of_a_uart_lie_as_its_node_or_its_kind_says() {
    let steps = |kind, lines: &[Step]| {
        let mut steps: Vec<Step> = pi()
            .into_iter()
            .map(|step| match step {
                Text(name, "brcm,bcm2835-aux-uart") => Text(name, kind),
                step => step,
            })
            .collect();
        let at = steps
            .iter()
            .position(|step| matches!(step, Open("serial@7e215040")))
            .expect("a UART");
        steps.splice(at + 1..at + 1, lines.iter().cloned());
        describe(&write(&steps)).expect("a board")
    };
    let console = |kind, lines: &[Step]| {
        let host = steps(kind, lines);
        let uart = host.console().expect("a UART");
        (
            uart.model,
            uart.registers.base.get(),
            uart.shift,
            uart.width,
        )
    };
    let base = 0xfe21_5040;
    let lines = [Cells("reg-shift", &[2]), Cells("reg-io-width", &[4])];
    assert_eq!(
        console("snps,dw-apb-uart", &lines),
        (&serial::NS16550, base, 2, 4)
    );
    assert_eq!(console("ns16550a", &[]), (&serial::NS16550, base, 0, 1));
    assert_eq!(
        console("ns16550a", &[Cells("reg-offset", &[0x20])]),
        (&serial::NS16550, base + 0x20, 0, 1)
    );
    assert_eq!(
        console("mediatek,mt6577-uart", &[]),
        (&serial::NS16550, base, 2, 4)
    );
    assert_eq!(console("fsl,imx6q-uart", &[]), (&serial::IMX, base, 0, 4));
    for (line, problem) in [
        (Cells("reg-shift", &[9]), "`reg-shift` = 9"),
        (Cells("reg-io-width", &[8]), "`reg-io-width` = 8 cannot be"),
        (Cells("reg-offset", &[0x40]), "`reg-offset` lies behind"),
        (Cells("reg-offset", &[2]), "not aligned to 4 bytes"),
    ] {
        let host = steps("mediatek,mt6577-uart", &[line]);
        let warnings = host.warnings.join("\n");
        assert!(warnings.contains(problem), "{warnings}");
        assert_eq!(host.console().expect("the other one").model, &serial::PL011);
    }
}

/// Everything a description promises.
fn check(host: &HostDescription) {
    assert!(!host.memory.is_empty() && !host.cpus.is_empty());
    assert!(
        host.memory
            .iter()
            .all(|bank| bank.size != 0 && bank.base.get().checked_add(bank.size).is_some())
    );
    assert!(
        host.memory
            .windows(2)
            .all(|pair| pair[0].end() < pair[1].base.get()),
        "sorted, joined, apart"
    );
    assert!(host.uarts.len() <= 16 && host.chosen.rng_seed.len() <= 256);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_trees_never_panic(
        tree in 0..VIRT.len(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
    ) {
        let mut dtb = VIRT[tree].2.to_vec();
        for (at, byte) in bytes {
            let at = at.index(dtb.len());
            dtb[at] = byte;
        }
        let _ = find_console(&dtb);
        match describe(&dtb) {
            Ok(host) => check(&host),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn numbers_turned_upside_down_never_panic(
        words in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(u32::MAX), 0_u32..64, any::<u32>()]), 1..8),
    ) {
        let mut dtb = write(&pi());
        for (at, word) in words {
            let at = at.index(dtb.len() / 4) * 4;
            dtb[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        if let Ok(host) = describe(&dtb) {
            check(&host);
        }
    }

    #[test]
    fn trees_cut_short_are_refused(length in 0..GIC3_4.len()) {
        let is_truncated = matches!(describe(&GIC3_4[..length]), Err(HostError::Tree(TreeError::Truncated { .. })));
        prop_assert!(is_truncated);
    }
}

#[test]
fn messages_stay_short() {
    let long: String = HostError::Property {
        node: "/n".into(),
        property: "reg",
        value: crate::devicetree::show(&[0x80; 4096]),
        problem: "is wrong",
    }
    .to_string();
    assert!(long.len() < 200, "{long}");
}

/// A descriptor of EFI's memory map as newer firmware writes it, longer than the structure is (UEFI 2.10, 7.2.3).
fn piece(kind: u32, start: u64, pages: u64, attributes: u64) -> [u64; 6] {
    [kind.into(), start, u64::MAX, pages, attributes, u64::MAX]
}

/// What firmware hands over with this map.
fn efi<R>(
    map: &[[u64; 6]],
    initrd: Option<Range<u64>>,
    options: &str,
    with: impl FnOnce(&efi::Handover<'_>) -> R,
) -> R {
    let map: Vec<u8> = map
        .iter()
        .flatten()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let options: Vec<u16> = options.encode_utf16().chain([0, 0xffff]).collect();
    with(&efi::Handover {
        map: &map,
        descriptor_size: 48,
        initrd,
        file: Some(0x5000..0x5008),
        options: &options,
    })
}

/// Write-back, as RAM has it; and memory set aside for something special (UEFI 2.10, 7.2.3).
const WB: u64 = 8;
const SP: u64 = 0x4_0000;

#[test]
fn ram_is_what_efi_calls_usable_at_the_exit() {
    let map = [
        // Conventional, out of order, joined with boot services' code and data, and a loader's.
        piece(7, 0x4020_0000, 0x100, WB | 0xf),
        piece(3, 0x4010_0000, 0x100, WB),
        piece(4, 0x4000_0000, 0x100, WB),
        piece(1, 0x4030_0000, 0x10, WB),
        piece(2, 0x4031_0000, 0x10, WB),
        // Runtime services, ACPI's, reserved, unusable, registers, persistent, not accepted: nobody's.
        piece(5, 0x4100_0000, 0x10, WB),
        piece(6, 0x4101_0000, 0x10, WB),
        piece(9, 0x4102_0000, 0x10, WB),
        piece(10, 0x4103_0000, 0x10, WB),
        piece(0, 0x4104_0000, 0x10, WB),
        piece(8, 0x4105_0000, 0x10, WB),
        piece(11, 0x4106_0000, 0x10, 1),
        piece(14, 0x4107_0000, 0x10, WB),
        piece(15, 0x4108_0000, 0x10, WB),
        // Not cached, or for something special.
        piece(7, 0x4200_0000, 0x10, 1),
        piece(7, 0x4201_0000, 0x10, WB | SP),
        // Nonsense: empty, and past the end of addresses.
        piece(7, 0x4202_0000, 0, WB),
        piece(7, 0x4203_0000, u64::MAX, WB),
        piece(7, u64::MAX - 0xfff, 2, WB),
        // Named twice.
        piece(7, 0x5000_0000, 2, WB),
        piece(7, 0x5000_1000, 2, WB),
        // Not in the tree.
        piece(7, 0x1_0000_0000, 1, WB),
    ];
    let host = efi(&map, None, "", |efi| {
        super::describe(GIC3_4, &[], Some(efi))
    });
    let host = host.expect("QEMU's tree");
    let ram = [
        range(0x4000_0000, 0x32_0000),
        range(0x5000_0000, 0x3000),
        range(0x1_0000_0000, 0x1000),
    ];
    assert_eq!(host.memory, ram);
    assert_eq!(host.mappable.len(), 3);
    let warning = "no memory node has 0x100000000..0x100001000, which EFI calls RAM";
    assert_eq!(host.warnings, [warning]);
    // What boards call disabled because firmware keeps it for its own services is read all the same.
    assert_eq!(host.rtc, describe(GIC3_4).expect("QEMU's tree").rtc);
}

#[test]
fn a_map_without_ram_is_refused() {
    for size in [0, 1, 40] {
        let firmware = efi::Handover {
            map: &[0; 100],
            descriptor_size: size,
            initrd: None,
            file: None,
            options: &[],
        };
        let error = super::describe(GIC3_4, &[], Some(&firmware)).expect_err("no RAM");
        let text = "host device tree: no RAM (the EFI memory map has none that is usable)";
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn what_a_loader_gives_by_efi_counts_before_what_the_tree_says() {
    const TOLD: &str = "bullpen.log=debug quiet";
    let tree = write(&pi());
    let map = [piece(7, 0, 0x9000, WB)];
    let chosen = |initrd, options: &str| {
        let host = efi(&map, initrd, options, |efi| {
            super::describe(&tree, &[], Some(efi))
        });
        host.expect("a board").chosen
    };
    for (options, bootargs) in [
        ("", TOLD),
        (" ", TOLD),
        ("bullpen.efi", TOLD),
        ("bullpen.log=debug x", "bullpen.log=debug x"),
        // The EFI shell begins with the program.
        ("FS0:\\Bullpen.EFI  bullpen.log=debug", "bullpen.log=debug"),
        ("a\u{e9}\u{20ac} b", "a?? b"),
    ] {
        assert_eq!(chosen(None, options).bootargs, bootargs, "{options}");
    }
    let told = range(0x800_0000, 0x100_0000);
    assert_eq!(chosen(None, "").initrd, Some(told));
    let initrd = chosen(Some(0x3000..0x3010), "").initrd;
    assert_eq!(initrd, Some(range(0x3000, 0x10)));
    let host = efi(&map, None, "", |efi| {
        super::describe(GIC3_4, &[], Some(efi))
    });
    let initrd = host.expect("QEMU's tree").chosen.initrd;
    assert_eq!(
        initrd,
        Some(range(0x5000, 8)),
        "the disk's, if no loader has one"
    );
}

#[test]
fn the_tree_is_found_among_firmwares_tables() {
    use r_efi::efi::{ACPI_20_TABLE_GUID, ConfigurationTable, DTB_TABLE_GUID, SMBIOS3_TABLE_GUID};
    let table = |guid, address: usize| ConfigurationTable {
        vendor_guid: guid,
        vendor_table: core::ptr::without_provenance_mut(address),
    };
    let (smbios, acpi) = (table(SMBIOS3_TABLE_GUID, 1), table(ACPI_20_TABLE_GUID, 2));
    let tree = table(DTB_TABLE_GUID, 0x4800_0000);
    assert_eq!(efi::find_tree(&[smbios, acpi, tree]), Ok(0x4800_0000));
    let error = efi::find_tree(&[smbios, acpi]).expect_err("no tree");
    assert!(error.starts_with("firmware has ACPI and no device tree"));
    assert_eq!(
        efi::find_tree(&[smbios]),
        Err("firmware has no device tree")
    );
}
