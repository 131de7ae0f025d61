//! What the device trees must say, read by the parser that reads the host's.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{GIB, blob, build, described, described_with, machine, u64_at};
use crate::devicetree::{Node, Tree};
use crate::firmware::fdt::Full;
use crate::firmware::{Firmware, Machine};
use types::layout::{GicVersion, GuestLayout, Region};

/// The cells of a property.
fn cells(node: &Node<'_, '_>, property: &str) -> Vec<u32> {
    let bytes = node.property(property).unwrap();
    bytes
        .chunks_exact(4)
        .map(|cell| u32::from_be_bytes(cell.try_into().unwrap()))
        .collect()
}

fn ranges(node: &Node<'_, '_>) -> Vec<(u64, u64)> {
    node.reg()
        .map(|range| range.unwrap())
        .map(|range| (range.base, range.size))
        .collect()
}

fn strings<'a>(node: &Node<'_, 'a>, property: &str) -> Vec<&'a str> {
    node.strings(property).collect()
}

/// A neighbour's vCPU waits for a step, so a step has to be short whatever is described.
#[test]
fn no_step_describes_more_than_some_nodes() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    for boot_vcpus in [1, 8, 512] {
        let machine = Machine {
            boot_vcpus,
            max_vcpus: 512,
            ..machine(&layout, &memory, Firmware::Fdt)
        };
        let mut full = Full::new();
        let (mut written, mut longest, mut steps) = (0, 0, 1);
        while full.step(&machine).is_none() {
            longest = longest.max(full.written() - written);
            written = full.written();
            steps += 1;
        }
        assert!(longest <= 640, "{longest} bytes of {written} in one step");
        assert!(
            steps <= 9 + usize::from(boot_vcpus) / 4 + 1,
            "{steps} steps"
        );
    }
}

#[test]
fn the_full_tree_is_qemu_virts_without_what_is_not_there() {
    let layout = GuestLayout::default();
    let memory = [
        Region::new(0x4000_0000, GIB),
        Region::new(0x1_0000_0000, 5 * GIB),
    ];
    let base = machine(&layout, &memory, Firmware::Fdt);
    let image = build(&Machine {
        boot_vcpus: 18,
        max_vcpus: 200,
        ..base
    })
    .unwrap();
    assert_eq!((image.dtb, image.blobs.len()), (layout.ram_base, 1));
    let tree = Tree::parse(&image.blobs[0].bytes).unwrap();
    let node = |path| tree.find(path).unwrap();

    assert_eq!(
        node("/chosen").string("stdout-path"),
        Some("/pl011@9000000")
    );
    assert_eq!(node("/aliases").string("serial0"), Some("/pl011@9000000"));
    assert_eq!(ranges(&node("/memory@40000000")), [(0x4000_0000, GIB)]);
    assert_eq!(
        ranges(&node("/memory@100000000")),
        [(0x1_0000_0000, 5 * GIB)]
    );
    // Not "linux,dummy-virt", which virt-what takes for kvmtool.
    assert_eq!(strings(&tree.root(), "compatible"), ["bullpen,virt"]);
    assert_eq!(tree.root().string("model"), Some("bullpen,virt"));
    let uuid = base.uuid.to_string();
    assert_eq!(tree.root().string("serial-number"), Some(uuid.as_str()));
    assert_eq!(
        strings(&node("/hypervisor"), "compatible"),
        ["bullpen,hypervisor"]
    );
    let cpus: Vec<u32> = node("/cpus")
        .children()
        .map(|cpu| cpu.u32("reg").unwrap())
        .collect();
    let affinities: Vec<u32> = (0..16).chain([0x100, 0x101]).collect();
    assert_eq!(cpus, affinities);
    assert_eq!(node("/cpus/cpu@101").string("enable-method"), Some("psci"));
    assert_eq!(
        strings(&node("/psci"), "compatible"),
        ["arm,psci-1.0", "arm,psci-0.2"]
    );
    assert_eq!(node("/psci").string("method"), Some("hvc"));
    let timers: Vec<u32> = cells(&node("/timer"), "interrupts");
    assert_eq!(timers, [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    assert!(node("/timer").property("always-on").is_some());
    assert_eq!(strings(&node("/pmu"), "compatible"), ["arm,armv8-pmuv3"]);
    assert_eq!(cells(&node("/pmu"), "interrupts"), [1, 7, 4]);
    let gic = node("/intc@8000000");
    assert_eq!(gic.string("compatible"), Some("arm,gic-v3"));
    assert_eq!(gic.u32("#redistributor-regions"), Some(2));
    let frames = [
        (0x0800_0000, 0x1_0000),
        (0x080a_0000, 123 << 17),
        (0x40_0000_0000, 77 << 17),
    ];
    assert_eq!(ranges(&gic), frames);
    assert_eq!(tree.root().u32("interrupt-parent"), gic.u32("phandle"));

    let clock = tree
        .by_phandle(cells(&node("/pl011@9000000"), "clocks")[0])
        .unwrap();
    assert_eq!(clock.u32("clock-frequency"), Some(24_000_000));
    for (path, interrupts, clocks) in [
        ("/pl011@9000000", [0, 1, 4], &["uartclk", "apb_pclk"][..]),
        ("/pl031@9010000", [0, 2, 4], &["apb_pclk"][..]),
    ] {
        assert_eq!(cells(&node(path), "interrupts"), interrupts);
        assert_eq!(strings(&node(path), "clock-names"), clocks);
        assert_eq!(cells(&node(path), "clocks").len(), clocks.len());
    }
}

#[test]
fn a_gicv2_has_a_distributor_and_a_cpu_interface() {
    let image = described_with(GicVersion::V2, 2, 8, Firmware::Fdt);
    let tree = Tree::parse(&image.blobs[0].bytes).unwrap();
    let gic = tree.find("/intc@8000000").unwrap();
    let models = ["arm,gic-400", "arm,cortex-a15-gic"];
    assert_eq!(strings(&gic, "compatible"), models);
    let frames = [(0x0800_0000, 0x1_0000), (0x0801_0000, 0x2000)];
    assert_eq!(ranges(&gic), frames);
    assert_eq!(gic.property("#redistributor-regions"), None);
    assert_eq!(gic.u32("#interrupt-cells"), Some(3));
}

#[test]
fn both_trees_choose_alike() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    for firmware in [Firmware::Fdt, Firmware::Acpi] {
        let image = build(&machine(&layout, &memory, firmware)).unwrap();
        let tree = Tree::parse(&blob(&image, "device tree").bytes).unwrap();
        let chosen = tree.find("/chosen").unwrap();
        assert_eq!(chosen.string("bootargs"), Some("console=ttyAMA0"));
        assert_eq!(chosen.number("linux,initrd-start"), Some(0x4800_0000));
        assert_eq!(chosen.number("linux,initrd-end"), Some(0x4923_4567));
        assert_eq!(chosen.property("rng-seed"), Some(&[0x5a; 32][..]));
        assert_eq!(chosen.number("kaslr-seed"), Some(0x0123_4567_89ab_cdef));
    }
    let image = described(1, 1, Firmware::Fdt);
    let tree = Tree::parse(&image.blobs[0].bytes).unwrap();
    assert_eq!(
        tree.find("/chosen").unwrap().property("linux,initrd-start"),
        None
    );
}

#[test]
fn the_stub_leads_to_efi_and_says_nothing_else() {
    let image = described(2, 8, Firmware::Acpi);
    let stub = blob(&image, "device tree");
    assert_eq!(stub.address, image.dtb);
    let tree = Tree::parse(&stub.bytes).unwrap();
    let names: Vec<&str> = tree.root().children().map(|node| node.name()).collect();
    assert_eq!(names, ["chosen"]);
    assert_eq!(tree.root().u32("#address-cells"), Some(2));
    assert_eq!(tree.root().u32("#size-cells"), Some(2));

    let chosen = tree.find("/chosen").unwrap();
    let (system_table, map) = (
        blob(&image, "EFI system table"),
        blob(&image, "EFI memory map"),
    );
    let address = |blob: &super::Blob| Some(blob.address.get());
    assert_eq!(
        chosen.number("linux,uefi-system-table"),
        address(system_table)
    );
    assert_eq!(chosen.number("linux,uefi-mmap-start"), address(map));
    assert_eq!(
        chosen.u32("linux,uefi-mmap-size"),
        Some(map.bytes.len() as u32)
    );
    assert_eq!(chosen.u32("linux,uefi-mmap-desc-size"), Some(40));
    assert_eq!(chosen.u32("linux,uefi-mmap-desc-ver"), Some(1));
    assert_eq!(chosen.u32("linux,uefi-secure-boot"), Some(2));

    // From the system table on to the RSDP and the runtime services.
    let runtime = blob(&image, "EFI runtime services");
    assert_eq!(u64_at(&system_table.bytes, 88), runtime.address.get());
    let entries = (u64_at(&system_table.bytes, 112) - system_table.address.get()) as usize;
    let rsdp = u64_at(&system_table.bytes, entries + 16);
    assert_eq!(rsdp, blob(&image, "RSDP").address.get());
}
