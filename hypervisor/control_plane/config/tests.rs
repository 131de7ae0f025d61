//! Manifests, good and bad, as `cargo xtask bundle` or an enemy would write them.

mod devices;

use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;
use vm_fdt::FdtWriter;

use super::*;
use crate::firmware::Firmware;
use crate::topology::Topology;
use crate::uuid::Uuid;
use types::address::GuestPhys;
use types::devices::DeviceId;
use types::entitlement::{Entitlement, NotEntitled};
use types::ids::{MAX_VCPUS, PcpuId, VcpuId};
use types::layout::{GicVersion, Slots};

/// A value of a property.
#[derive(Clone, Debug)]
enum Value {
    Text(&'static str),
    U32(u32),
    U64(u64),
    Cells(&'static [u32]),
    Bytes(&'static [u8]),
}
use Value::{Bytes, Cells, Text, U32, U64};

type Properties = Vec<(&'static str, Value)>;

fn put(writer: &mut FdtWriter, name: &str, value: &Value) {
    match value {
        Text(text) => writer.property_string(name, text),
        U32(number) => writer.property_u32(name, *number),
        U64(number) => writer.property_u64(name, *number),
        Cells(cells) => writer.property_array_u32(name, cells),
        Bytes(bytes) => writer.property(name, bytes),
    }
    .expect("property");
}

/// Writes a manifest with these VMs.
fn manifest(vms: &[(&str, Properties)]) -> Vec<u8> {
    let mut writer = FdtWriter::new().expect("empty tree");
    let root = writer.begin_node("").expect("root");
    writer
        .property_string("compatible", COMPATIBLE)
        .expect("compatible");
    let parent = writer.begin_node("vms").expect("vms");
    for (name, properties) in vms {
        let node = writer.begin_node(name).expect("VM");
        for (name, value) in properties {
            put(&mut writer, name, value);
        }
        writer.end_node(node).expect("end of VM");
    }
    writer.end_node(parent).expect("end of vms");
    writer.end_node(root).expect("end of root");
    writer.finish().expect("tree")
}

/// The least a VM must have.
fn minimal() -> Properties {
    Vec::from([("kernel", Text("kernel")), ("memory", U64(64 << 20))])
}

fn parse(dtb: &[u8]) -> Manifest {
    Manifest::parse(dtb, |name| name == "kernel" || name == "initrd").expect("a manifest")
}

#[test]
fn defaults_are_the_documented_ones() {
    let manifest = parse(&manifest(&[("linux", minimal())]));
    assert_eq!(manifest.problems, []);
    let vm = manifest
        .vms
        .first()
        .and_then(|vm| vm.as_ref().ok())
        .expect("a VM");
    let expected = VmConfig {
        name: VmName::new("linux").expect("a name"),
        kernel: "kernel".to_string(),
        initrd: None,
        command_line: String::new(),
        memory_bytes: 64 << 20,
        memory_base: DEFAULT_MEMORY_BASE,
        slots: Slots::NONE,
        boot_vcpus: 1,
        max_vcpus: 1,
        placement: Placement::Auto,
        firmware: Firmware::Acpi,
        autostart: true,
        on_reset: OnReset::KeepTarget,
        gic: GicChoice::Auto,
        spis: 64,
        reserve_idle: ReserveIdle::Wfi,
        cpu_cap: None,
        cpu_weight: 100,
        entitlement: Entitlement::default(),
        idle: Idle::Native,
        uuid: Uuid::of_name("linux"),
        topology: None,
        disks: Vec::new(),
        nets: Vec::new(),
        rng: false,
    };
    assert_eq!(vm, &expected);
}

#[test]
fn every_wrong_value_is_named_and_spares_the_other_vm() {
    use Problem::*;
    let range = |min, max| OutOfRange { min, max };
    let cases: &[(&str, Value, Problem)] = &[
        ("kernel", Text("absent"), NoSuchFile),
        ("kernel", U32(1), NotText),
        ("initrd", Text("absent"), NoSuchFile),
        ("memory", U64(1 << 20), range(4 << 20, 255 << 30)),
        ("memory", U64((64 << 20) + 4096), NotMultipleOf(2 << 20)),
        ("memory", Bytes(b"x"), NotNumber),
        ("memory", U64(256 << 30), range(4 << 20, 255 << 30)),
        ("memory-base", U64(0x4010_0000), NotMultipleOf(2 << 20)),
        (
            "memory-base",
            U32(0),
            range(0x4000_0000, (256 << 30) - (4 << 20)),
        ),
        ("gic", Text("v4"), NotOneOf(&["auto", "v2", "v3"])),
        ("boot-vcpus", U32(0), range(1, 512)),
        ("max-vcpus", U32(513), range(1, 512)),
        ("max-vcpus", U32(0), range(1, 512)),
        ("cpus", Cells(&[0, 1, 0]), Duplicate),
        ("cpus", Cells(&[512]), range(0, 511)),
        ("cpus", Bytes(&[]), NotList),
        ("cpus", Bytes(&[0, 0, 0]), NotList),
        ("firmware", Text("uefi"), NotOneOf(&["acpi", "fdt"])),
        ("autostart", Text("maybe"), NotOneOf(&["no", "yes"])),
        ("on-reset", Text(""), NotOneOf(&["keep-target", "boot-set"])),
        (
            "reserve-idle",
            Text("sleep"),
            NotOneOf(&["wfi", "psci-off"]),
        ),
        ("spis", U32(31), range(32, 960)),
        ("spis", U32(961), range(32, 960)),
        ("spis", U32(33), NotMultipleOf(32)),
        ("uuid", Text("00112233445566778899aabbccddeeff"), NotUuid),
        ("uuid", U32(1), NotText),
        ("topology", U32(1), NotTopology { vcpus: 1 }),
        ("topology", Cells(&[1, 1, 2, 1]), NotTopology { vcpus: 1 }),
        (
            "topology",
            Cells(&[1, 1, 1, 1, 1]),
            NotTopology { vcpus: 1 },
        ),
        ("cpu-weight", U32(0), range(1, 10_000)),
        ("cpu-weight", U32(10_001), range(1, 10_000)),
        ("entitlement.vcpus", Cells(&[1]), NotBounds),
        ("entitlement.vcpus", Cells(&[1, 1, 1]), NotBounds),
        ("entitlement.vcpus", Cells(&[1, 0]), NotBounds),
        ("entitlement.vcpus", Cells(&[0, 1]), range(1, 1)),
        ("entitlement.vcpus", Cells(&[1, 2]), range(1, 1)),
        ("entitlement.cpu-cap", Text("250m"), NotBounds),
        ("entitlement.cpu-cap", Cells(&[49, 50]), range(50, 512_000)),
        (
            "entitlement.cpu-cap",
            Cells(&[50, 512_001]),
            range(50, 512_000),
        ),
        ("command-line", Text("a\nb"), NotPrintable(2)),
        ("command-line", U32(7), NotText),
        ("comand-line", Text("x"), Unknown),
        ("max-memory", U64(1 << 20), range(64 << 20, 256 << 30)),
        ("max-memory", U64(100 << 20), NotBlocks(128 << 20)),
        (
            "max-memory",
            U64((64 << 20) + (255 << 30)),
            range(64 << 20, (64 << 20) + (509 << 29)),
        ),
        ("memory-block", U64(1 << 20), range(128 << 20, 512 << 20)),
    ];
    for (name, value, problem) in cases {
        let mut properties = minimal();
        properties.retain(|(known, _)| known != name);
        properties.push((name, value.clone()));
        let manifest = parse(&manifest(&[("bad", properties), ("good", minimal())]));
        let [Err(error), Ok(good)] = &manifest.vms[..] else {
            panic!("{name} = {value:?}: {:?}", manifest.vms)
        };
        assert_eq!(
            (error.file, error.node.as_str(), error.property.as_str()),
            (MANIFEST_FILE, "/vms/bad", *name)
        );
        assert_eq!(&error.problem, problem, "{name} = {value:?}");
        assert_eq!(good.name.to_string(), "good");
    }
}

#[test]
fn every_value_is_understood() {
    let properties = Vec::from([
        ("kernel", Text("kernel")),
        ("initrd", Text("initrd")),
        ("command-line", Text("console=ttyAMA0 quiet")),
        ("memory", U64(1 << 30)),
        ("memory-base", U64(0x1_0000_0000)),
        ("boot-vcpus", U32(2)),
        ("max-vcpus", U64(512)),
        ("cpus", Cells(&[3, 1])),
        ("firmware", Text("fdt")),
        ("autostart", Text("no")),
        ("on-reset", Text("boot-set")),
        ("spis", U32(960)),
        ("reserve-idle", Text("psci-off")),
        ("uuid", Text("00112233-4455-6677-8899-AABBCCDDEEFF")),
        ("topology", Cells(&[2, 4, 32, 2])),
        ("rng", Text("yes")),
        ("cpu-weight", U32(10_000)),
    ]);
    let manifest = parse(&manifest(&[("a-0", properties)]));
    let vm = manifest.vms[0].as_ref().expect("a VM");
    assert_eq!(
        (vm.initrd.as_deref(), vm.command_line.as_str()),
        (Some("initrd"), "console=ttyAMA0 quiet")
    );
    assert_eq!(
        (vm.memory_bytes, vm.memory_base.get(), vm.spis),
        (1 << 30, 0x1_0000_0000, 960)
    );
    assert_eq!((vm.boot_vcpus, vm.max_vcpus, vm.autostart), (2, 512, false));
    assert!(vm.rng);
    assert_eq!(vm.cpu_weight, 10_000);
    assert_eq!(
        (vm.firmware, vm.on_reset, vm.reserve_idle),
        (Firmware::Fdt, OnReset::BootSet, ReserveIdle::PsciOff)
    );
    assert_eq!(vm.uuid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    let topology = vm.topology.expect("it is told");
    assert_eq!(
        (topology.packages, topology.clusters),
        (2, 4),
        "{topology:?}"
    );
    assert_eq!((topology.cores, topology.threads), (32, 2), "{topology:?}");
    let pinned: Vec<Option<PcpuId>> = (0..3)
        .map(|vcpu| vm.placement.pinned(VcpuId::new(vcpu)))
        .collect();
    assert_eq!(pinned, [3, 1, 3].map(|cpu| Some(PcpuId::new(cpu))));
    assert_eq!(Placement::Auto.pinned(VcpuId::new(0)), None);
}

/// Reads the slots of a VM at 1 GiB with so many MiB of memory.
fn slots(mib: u64, more: &[(&'static str, Value)]) -> Result<Slots, (String, Problem)> {
    let mut properties = Vec::from([("kernel", Text("kernel")), ("memory", U64(mib << 20))]);
    properties.extend_from_slice(more);
    let vm = parse(&manifest(&[("vm", properties)])).vms.remove(0);
    vm.map(|vm| vm.layout(GicVersion::V3).slots)
        .map_err(|error| (error.property, error.problem))
}

#[test]
fn memory_comes_in_blocks_above_what_is_there_from_boot() {
    let max = |bytes| ("max-memory", U64(bytes));
    let block = |mib: u64| ("memory-block", U64(mib << 20));
    let expected = |base, mib: u64, count| {
        Ok(Slots {
            base: GuestPhys::new(base),
            block: mib << 20,
            count,
        })
    };
    assert_eq!(slots(512, &[max(512 << 20), block(512)]), Ok(Slots::NONE));
    assert_eq!(slots(512, &[max(2 << 30)]), expected(0x6000_0000, 128, 12));
    // Boot memory ends in the middle of a block: the next one begins above.
    let odd = [max((500 + 256) << 20)];
    assert_eq!(slots(500, &odd), expected(0x6000_0000, 128, 2));
    assert_eq!(
        slots(500, &[max((500 + 512) << 20), block(512)]),
        expected(0x6000_0000, 512, 1)
    );
    // More than 512 blocks are larger ones.
    assert_eq!(
        slots(1024, &[max(65 << 30)]),
        expected(0x8000_0000, 128, 512)
    );
    assert_eq!(
        slots(1024, &[max(66 << 30)]),
        expected(0x8000_0000, 256, 260)
    );
    assert_eq!(
        slots(1024, &[max(130 << 30)]),
        expected(0x8000_0000, 512, 258)
    );
    let refused = |property: &str, problem| Err((property.to_string(), problem));
    let (min, most) = (256 << 20, 512 << 20);
    assert_eq!(
        slots(1024, &[max(66 << 30), block(128)]),
        refused("memory-block", Problem::OutOfRange { min, max: most })
    );
    let (min, most) = (128 << 20, 512 << 20);
    assert_eq!(
        slots(1024, &[max(2 << 30), block(384)]),
        refused("memory-block", Problem::OutOfRange { min, max: most })
    );
    assert_eq!(
        slots(1024, &[max(2 << 30), ("command-line", Text("acpi=off"))]),
        refused("max-memory", Problem::Contradicts("firmware"))
    );
}

/// Reads a VM of at most eight vCPUs that is entitled to two to six of them, with these properties too.
fn entitled(properties: &[(&'static str, Value)]) -> Result<VmConfig, String> {
    let mut all = minimal();
    all.extend([
        ("max-vcpus", U32(8)),
        ("entitlement.vcpus", Cells(&[2, 6])),
        ("entitlement.cpu-cap", Cells(&[250, 1500])),
    ]);
    all.extend_from_slice(properties);
    let vm = parse(&manifest(&[("vm", all)])).vms.remove(0);
    vm.map_err(|error| error.to_string())
}

#[test]
fn what_the_manifest_itself_asks_for_lies_within_the_entitlement() {
    let error =
        "manifest.dtb: /vms/vm: `boot-vcpus` = 1 is not within the VM's entitlement, 2 to 6 vCPUs";
    assert_eq!(entitled(&[]).err(), Some(error.to_string()));
    let boot = ("boot-vcpus", U32(2));
    let cap = |millicores| {
        let properties = [boot.clone(), ("cpu-cap", U32(millicores))];
        entitled(&properties).map(|vm| vm.cpu_cap)
    };
    let error = "manifest.dtb: /vms/vm: `cpu-cap` = 1501 is not within the VM's entitlement, 250 to 1500 millicores";
    assert_eq!(cap(1501), Err(error.to_string()));
    assert!(cap(249).is_err());
    assert_eq!((cap(250), cap(1500)), (Ok(Some(250)), Ok(Some(1500))));
    // Without a cap of its own it has no more than it is entitled to.
    let vm = entitled(core::slice::from_ref(&boot)).expect("a VM");
    assert_eq!(vm.cpu_cap, Some(1500));
    let error = "manifest.dtb: /vms/vm: `idle` = \"native\" contradicts `entitlement.cpu-cap`";
    let native = entitled(&[boot, ("idle", Text("native"))]);
    assert_eq!(native.err(), Some(error.to_string()));
}

#[test]
fn an_entitlement_allows_what_lies_between_its_bounds() {
    let vm = entitled(&[("boot-vcpus", U32(2))]).expect("a VM");
    let vcpus = |count| vm.entitlement.allow_vcpus(count).is_ok();
    assert_eq!([1, 2, 6, 7].map(vcpus), [false, true, true, false]);
    let cap = |millicores| vm.entitlement.allow_cap(millicores).is_ok();
    let asked = [Some(249), Some(250), Some(1500), Some(1501), None];
    assert_eq!(asked.map(cap), [false, true, true, false, false]);
    let NotEntitled(bounds) = vm.entitlement.allow_vcpus(7).expect_err("too many");
    assert_eq!(bounds.to_string(), "2 to 6 vCPUs");
    let free = Entitlement::default();
    assert_eq!(
        (free.allow_vcpus(512), free.allow_cap(None)),
        (Ok(()), Ok(()))
    );
}

#[test]
fn acpi_off_is_a_word_and_means_fdt() {
    for (line, firmware) in [
        ("acpi=off", Firmware::Fdt),
        ("quiet acpi=off root=/dev/vda", Firmware::Fdt),
        ("acpi=offline", Firmware::Acpi),
        ("xacpi=off", Firmware::Acpi),
        ("acpi=force", Firmware::Acpi),
    ] {
        let mut properties = minimal();
        properties.extend([("firmware", Text("acpi")), ("command-line", Text(line))]);
        let manifest = parse(&manifest(&[("vm", properties)]));
        assert_eq!(
            manifest.vms[0].as_ref().map(|vm| vm.firmware),
            Ok(firmware),
            "{line}"
        );
    }
}

#[test]
fn what_must_be_there_is_missed() {
    for (name, _) in minimal() {
        let properties = minimal()
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        let error = parse(&manifest(&[("vm", properties)]))
            .vms
            .remove(0)
            .expect_err(name);
        assert_eq!(
            (error.property.as_str(), error.problem),
            (name, Problem::Missing)
        );
    }
    assert_eq!(
        parse(&manifest(&[])).problems.len(),
        1,
        "a manifest without VMs"
    );
}

#[test]
fn names_are_checked_and_used_once() {
    let longest = "a23456789012345678901234567890a";
    let cases = [
        ("a", true),
        ("x-0", true),
        (longest, true),
        ("Linux", false),
        ("a.b", false),
        ("a_b", false),
        ("a@1", false),
    ];
    for (name, is_good) in cases {
        let vms = parse(&manifest(&[(name, minimal())])).vms;
        let problem = vms[0].as_ref().err().map(|error| error.problem.clone());
        assert_eq!(problem, (!is_good).then_some(Problem::NotName), "{name}");
    }
    assert!(
        VmName::new("").is_none()
            && VmName::new("0x").is_none()
            && VmName::new("-x").is_none()
            && VmName::new(&"a".repeat(32)).is_none()
    );
    let twice = parse(&manifest(&[
        ("same", minimal()),
        ("same", minimal()),
        ("other", minimal()),
    ]))
    .vms;
    let [Ok(_), Err(error), Ok(_)] = &twice[..] else {
        panic!("{twice:?}")
    };
    assert_eq!(
        (error.node.as_str(), &error.problem),
        ("/vms/same", &Problem::Duplicate)
    );
}

#[test]
fn more_boot_vcpus_than_possible_ones_are_refused() {
    let mut properties = minimal();
    properties.extend([("boot-vcpus", U32(4)), ("max-vcpus", U32(2))]);
    let error = parse(&manifest(&[("vm", properties)]))
        .vms
        .remove(0)
        .expect_err("an error");
    let expected = "manifest.dtb: /vms/vm: `max-vcpus` = 2 is not between 4 and 512";
    assert_eq!(error.to_string(), expected);
}

/// Describes QEMU's `virt` with this version of the interrupt controller and four CPUs.
fn virt(gic: u8) -> crate::host::HostDescription {
    let tree: &[u8] = match gic {
        2 => include_bytes!("../host/testdata/virt-gic2-4.dtb"),
        _ => include_bytes!("../host/testdata/virt-gic3-4.dtb"),
    };
    crate::host::describe(tree, &[], None).expect("QEMU's tree")
}

#[test]
fn the_machine_sets_limits_too() {
    let check = |name, value, version: u8| {
        let mut properties = minimal();
        properties.push((name, value));
        let mut vm = parse(&manifest(&[("vm", properties)]))
            .vms
            .remove(0)
            .expect("a VM");
        let host = virt(version);
        vm.settle(&host, host.gic.virtual_interface().is_some())
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("cpus", Cells(&[0, 3]), 3), Ok(()));
    let error = "manifest.dtb: /vms/vm: `cpus` = 4 is not between 0 and 3";
    assert_eq!(check("cpus", Cells(&[0, 4]), 3), Err(error.to_string()));
    assert_eq!(
        (check("max-vcpus", U32(8), 2), check("max-vcpus", U32(9), 3)),
        (Ok(()), Ok(()))
    );
    let error = "manifest.dtb: /vms/vm: `max-vcpus` = 9 is not between 1 and 8";
    assert_eq!(check("max-vcpus", U32(9), 2), Err(error.to_string()));
}

#[test]
fn vcpus_are_grouped_as_their_cpus_are_unless_the_manifest_says_otherwise() {
    let mut host = crate::host::describe(
        include_bytes!("../host/testdata/virt-gic3-8.dtb"),
        &[],
        None,
    )
    .expect("QEMU's tree");
    // Two packages of two cores of two threads.
    for (index, cpu) in host.cpus.iter_mut().enumerate() {
        let node = |size: usize, kind| (10 * (index / size) + kind) as u32;
        cpu.place = [node(4, 1), node(4, 2), node(2, 3)];
    }
    let topology = |values: &[(&'static str, Value)]| {
        let mut properties = minimal();
        properties.extend_from_slice(values);
        let vms = parse(&manifest(&[("vm", properties)])).vms;
        let mut vm = vms.into_iter().next().expect("a VM").expect("a good one");
        vm.settle(&host, false).expect("it suits");
        vm.topology
    };
    let max = |vcpus| ("max-vcpus", U32(vcpus));
    let all = ("cpus", Cells(&[0, 1, 2, 3, 4, 5, 6, 7]));
    let wanted = |groups, vcpus| Topology::new(groups, vcpus);
    assert_eq!(topology(&[max(8), all.clone()]), wanted([2, 1, 2, 2], 8));
    // The first four of these CPUs are one package.
    assert_eq!(topology(&[max(4), all.clone()]), wanted([1, 1, 2, 2], 4));
    let cores = ("cpus", Cells(&[0, 2, 4, 6]));
    assert_eq!(topology(&[max(4), cores]), wanted([2, 1, 2, 1], 4));
    // In the manifest's words, though that is what it is called where nothing is known.
    let flat = ("topology", Cells(&[1, 1, 8, 1]));
    assert_eq!(
        topology(&[max(8), all.clone(), flat]),
        wanted([1, 1, 8, 1], 8)
    );
    // CPUs of no such shape, vCPUs that share CPUs, and vCPUs that have no CPU of their own.
    assert_eq!(topology(&[max(6), all]), None);
    assert_eq!(topology(&[max(8), ("cpus", Cells(&[0, 1, 2, 3]))]), None);
    assert_eq!(topology(&[max(8)]), None);
}

#[test]
fn the_interrupt_controller_is_the_machine_s_or_one_that_it_can_give() {
    let version = |word, machine: u8, has_gicv| {
        let mut properties = minimal();
        properties.push(("gic", Text(word)));
        let mut vm = parse(&manifest(&[("vm", properties)]))
            .vms
            .remove(0)
            .expect("a VM");
        let host = virt(machine);
        vm.settle(&host, has_gicv)
            .map(|()| vm.layout(host.gic.version()).gic)
            .map_err(|error| error.to_string())
    };
    use GicVersion::{V2, V3};
    let no_gicv = "manifest.dtb: /vms/vm: `gic` = v2 cannot be had: this machine's GICv3 has no GICV, which a GICv2's guest needs";
    let no_v3 = "manifest.dtb: /vms/vm: `gic` = v3 cannot be had: this machine's interrupt controller is a GICv2";
    let table = [
        ("auto", 3, false, Ok(V3)),
        ("auto", 2, true, Ok(V2)),
        ("v3", 3, true, Ok(V3)),
        ("v2", 2, true, Ok(V2)),
        ("v2", 3, true, Ok(V2)),
        ("v2", 3, false, Err(no_gicv.to_string())),
        ("v3", 2, true, Err(no_v3.to_string())),
    ];
    for (word, machine, has_gicv, expected) in table {
        assert_eq!(
            version(word, machine, has_gicv),
            expected,
            "{word} on {machine}"
        );
    }
}

#[test]
fn a_gicv2_has_eight_cpus() {
    let refused = |properties: &[(&'static str, Value)]| {
        let mut all = minimal();
        all.push(("gic", Text("v2")));
        all.extend(properties.iter().cloned());
        let error = parse(&manifest(&[("vm", all)])).vms.remove(0);
        error.expect_err("an error").to_string()
    };
    assert_eq!(
        refused(&[("max-vcpus", U32(9))]),
        "manifest.dtb: /vms/vm: `max-vcpus` = 9 is not between 1 and 8"
    );
    assert_eq!(
        refused(&[("boot-vcpus", U32(9))]),
        "manifest.dtb: /vms/vm: `boot-vcpus` = 9 is not between 1 and 8"
    );
}

/// Admits VMs with this many possible vCPUs, pinned or not, to two CPUs; returns what is said of each, and the places.
fn admit(vms: &[(u32, &'static [u32])]) -> (Vec<String>, CpuSlots) {
    let mut slots = CpuSlots::new(2);
    let answers = vms.iter().map(|(count, pinned)| {
        let mut properties = minimal();
        properties.push(("max-vcpus", U32(*count)));
        if !pinned.is_empty() {
            properties.push(("cpus", Cells(pinned)));
        }
        let vm = parse(&manifest(&[("vm", properties)])).vms.remove(0);
        match slots.admit(&vm.expect("a VM")) {
            Ok(()) => "ok".into(),
            Err(error) => error.to_string(),
        }
    });
    (answers.collect(), slots)
}

#[test]
fn a_vm_that_has_no_room_on_its_cpus_is_named_and_takes_none() {
    let full = "manifest.dtb: /vms/vm: `cpus` = 0 is full: 512 vCPUs fit on a CPU; name more CPUs or ask for fewer `max-vcpus`";
    let (answers, _) = admit(&[(300, &[0]), (213, &[0]), (212, &[0]), (1, &[0])]);
    assert_eq!(answers, ["ok", full, "ok", full]);
    let more = "manifest.dtb: /vms/vm: `max-vcpus` = 511 is more than the CPUs have room for: 512 vCPUs fit on each; ask for fewer";
    let (answers, _) = admit(&[(512, &[1]), (2, &[]), (511, &[]), (510, &[])]);
    assert_eq!(answers, ["ok", "ok", more, "ok"]);
    let (answers, _) = admit(&[(512, &[]), (512, &[]), (1, &[1])]);
    assert!(
        answers[2].contains("the CPUs have room for"),
        "{}",
        answers[2]
    );
}

#[test]
fn vcpus_without_a_pin_go_round_the_cpus_that_have_room() {
    let (_, mut slots) = admit(&[(3, &[]), (511, &[0])]);
    let dealt: Vec<_> = (0..3)
        .filter_map(|_| slots.deal())
        .map(PcpuId::get)
        .collect();
    assert_eq!(dealt, [0, 1, 1]);
}

#[test]
fn options_come_from_the_manifest_and_then_from_the_boot_loader() {
    let mut options = Options::default();
    let expected = Options {
        scrub: Scrub::Release,
        log: log::LevelFilter::Info,
        autostart: true,
        uart_baud: None,
    };
    assert_eq!(options, expected);
    let wrong = options.apply_bootargs(
        "quiet bullpen.scrub=boot bullpen.log=loud bullpen.autostart=no bullpen.x bullpen. \
         bullpen.uart-baud=115200 bullpen.uart-baud=fast bullpen.uart-baud=0",
    );
    let expected = Options {
        scrub: Scrub::Boot,
        log: log::LevelFilter::Info,
        autostart: false,
        uart_baud: core::num::NonZeroU32::new(115_200),
    };
    assert_eq!(options, expected);
    let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(
        wrong,
        [
            "bootargs: `bullpen.log` = loud is not one of off, error, warn, info, debug, trace",
            "bootargs: `bullpen.x` is not known",
            "bootargs: `bullpen.` is not known",
            "bootargs: `bullpen.uart-baud` = fast is not one number",
            "bootargs: `bullpen.uart-baud` = 0 is not between 300 and 4000000",
        ]
    );
}

/// Writes one entry of an archive, its name padded with this many further NULs.
fn entry(name: &str, mode: u32, content: &[u8], nuls: usize) -> Vec<u8> {
    let (size, name_size) = (content.len(), name.len() + 1 + nuls);
    let mut bytes = std::format!(
        "07070100000001{mode:08x}{:032}{size:08x}{:032}{name_size:08x}{:08}",
        0,
        0,
        0
    )
    .into_bytes();
    bytes.extend(name.as_bytes());
    bytes.resize(bytes.len() + 1 + nuls, 0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const REGULAR: u32 = 0o100_644;

/// An archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes: Vec<u8> = files
        .iter()
        .flat_map(|(name, content)| entry(name, REGULAR, content, 7))
        .collect();
    bytes.extend(entry("TRAILER!!!", 0, b"", 0));
    bytes
}

#[test]
fn archives_give_their_files_by_name() {
    let mut bytes = entry(".", 0o040_755, b"", 0);
    bytes.extend(entry("./a", REGULAR, b"one", 0));
    bytes.extend(entry("dir/b", REGULAR, b"two--", 100));
    bytes.extend(entry("link", 0o120_777, b"a", 0));
    bytes.extend(entry("TRAILER!!!", 0, b"", 0));
    bytes.extend([0; 512]);
    let archive = Archive::parse(&bytes).expect("an archive");
    assert_eq!(
        (archive.file("a"), archive.file("dir/b")),
        (Some(&b"one"[..]), Some(&b"two--"[..]))
    );
    assert_eq!(
        (archive.file("link"), archive.file("."), archive.file("c")),
        (None, None, None)
    );
}

#[test]
fn damaged_archives_are_named() {
    let whole = archive(&[("a", b"contents"), ("b", b"")]);
    let parse = |bytes: &[u8]| {
        Archive::parse(bytes)
            .map(|archive| ["a", "b"].map(|name| archive.file(name).map(<[u8]>::len)))
            .map_err(|error| error.to_string())
    };
    assert_eq!(parse(&whole), Ok([Some(8), Some(0)]));
    assert_eq!(
        parse(&[]),
        Err("no cpio (newc) header at byte 0".to_string())
    );
    assert_eq!(
        parse(&whole[..100]),
        Err("archive ends inside entry \"\"".to_string())
    );
    assert_eq!(
        parse(&whole[..125]),
        Err("archive ends inside entry \"a\"".to_string())
    );
    assert!(parse(&whole[..whole.len() / 2]).is_err());
    let twice = archive(&[("a", b""), ("./a", b"")]);
    assert_eq!(
        parse(&twice),
        Err("archive has two entries named \"a\"".to_string())
    );
    let broken = |at: usize, bytes: &[u8]| {
        let mut broken = whole.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&broken)
    };
    assert_eq!(
        broken(54, b"zzzzzzzz"),
        Err("malformed cpio header at byte 0".to_string())
    );
    assert_eq!(
        broken(54, b"ffffffff"),
        Err("archive ends inside entry \"a\"".to_string())
    );
    assert_eq!(
        broken(94, b"00000000"),
        Err("malformed cpio header at byte 0".to_string())
    );
    assert_eq!(
        broken(94, b"ffffffff"),
        Err("malformed cpio header at byte 0".to_string())
    );
    assert_eq!(
        broken(110, &[0xff]),
        Err("malformed cpio header at byte 0".to_string())
    );
    assert_eq!(
        broken(0, b"070707"),
        Err("no cpio (newc) header at byte 0".to_string())
    );
    let endless: Vec<u8> = (0..2000)
        .flat_map(|_| entry("d", 0o040_755, b"", 0))
        .collect();
    assert_eq!(
        parse(&endless),
        Err("archive has more than 1024 entries".to_string())
    );
}

#[test]
fn what_is_no_bundle_is_named_with_the_remedy() {
    let cases: &[(&[u8], &str)] = &[
        (
            b"",
            "the initrd is empty, not a bundle: pass the file that `cargo xtask bundle` writes",
        ),
        (b"\x1f\x8b\x08", "is a gzip file, not a bundle"),
        (b"MZ", "is a kernel, not a bundle"),
        (b"[[vm]]", "is a text file, perhaps the manifest's source"),
        (
            b"\0\0\0\0",
            "is a damaged bundle: no cpio (newc) header at byte 0",
        ),
    ];
    for (initrd, expected) in cases {
        let error = Bundle::open(initrd).expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
    let initramfs = archive(&[("init", b"#!/bin/sh")]);
    assert_eq!(
        Bundle::open(&initramfs).err(),
        Some(BundleError::NoManifest)
    );
    let garbage = archive(&[(MANIFEST_FILE, b"garbage.")]);
    let error = Bundle::open(&garbage).expect_err("no manifest").to_string();
    assert!(
        error.starts_with("manifest.dtb: /: not a manifest: not a device tree"),
        "{error}"
    );
    let mut writer = FdtWriter::new().expect("a tree");
    let root = writer.begin_node("").expect("root");
    writer
        .property_string("compatible", "bullpen,manifest-9")
        .expect("compatible");
    writer.end_node(root).expect("end");
    let newer = archive(&[(MANIFEST_FILE, &writer.finish().expect("a tree"))]);
    let error = Bundle::open(&newer)
        .expect_err("another version")
        .to_string();
    assert!(
        error.contains("= bullpen,manifest-9 is not one of bullpen,manifest-1"),
        "{error}"
    );
}

#[test]
fn a_bundle_is_opened() {
    let dtb = manifest(&[("linux", minimal())]);
    let initrd = archive(&[(MANIFEST_FILE, &dtb), ("kernel", b"code")]);
    let bundle = Bundle::open(&initrd).expect("a bundle");
    let vm = bundle.manifest.vms[0].as_ref().expect("a VM");
    assert_eq!(bundle.archive.file(&vm.kernel), Some(&b"code"[..]));
}

/// What a manifest promises of each VM that it lets through.
fn check(vm: &VmConfig) {
    assert!(VmName::new(&vm.name.to_string()).is_some());
    assert!(1 <= vm.boot_vcpus && vm.boot_vcpus <= vm.max_vcpus && vm.max_vcpus <= MAX_VCPUS);
    assert!(vm.memory_bytes >= MIN_MEMORY && vm.memory_bytes.is_multiple_of(MEMORY_UNIT));
    assert!(vm.memory_base >= DEFAULT_MEMORY_BASE && vm.memory_base.is_aligned(MEMORY_UNIT));
    assert!(vm.memory_base.get() + vm.memory_bytes <= MEMORY_LIMIT.get());
    assert!((MIN_SPIS..=MAX_SPIS).contains(&vm.spis) && vm.spis.is_multiple_of(32));
    assert!(vm.command_line.len() <= MAX_COMMAND_LINE);
    let layout = vm.layout(GicVersion::V3);
    let mut windows = Vec::from([layout.distributor, vm.memory()]);
    windows.extend(layout.redistributors(vm.max_vcpus).regions());
    windows.extend(layout.devices.map(|slot| slot.registers));
    for (index, window) in windows.iter().enumerate() {
        assert!(window.end().is_some(), "{window:?}");
        let mut others = windows[index + 1..].iter();
        assert!(!others.any(|other| other.overlaps(*window)), "{windows:?}");
    }
    for device in DeviceId::ALL {
        let intid = layout.device(device).intid;
        assert!((32..32 + u32::from(vm.spis)).contains(&intid), "{device:?}");
    }
    if let Some(topology) = vm.topology {
        let cores = topology.packages * topology.package_cores();
        assert_eq!(cores * topology.threads, vm.max_vcpus);
    }
}

proptest! {
    #[test]
    fn damaged_bundles_never_panic(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let dtb = manifest(&[("one", minimal()), ("two", minimal())]);
        let mut initrd = archive(&[(MANIFEST_FILE, &dtb), ("kernel", b"code")]);
        for (at, byte) in bytes {
            let at = at.index(initrd.len());
            initrd[at] = byte;
        }
        if is_cut {
            initrd.truncate(length.index(initrd.len()));
        }
        match Bundle::open(&initrd) {
            Ok(bundle) => bundle.manifest.vms.iter().flatten().for_each(check),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_numbers_are_survived(
        memory in prop_oneof![any::<u64>(), (0_u64..200_000).prop_map(|units| units * MEMORY_UNIT)],
        base in prop_oneof![any::<u64>(), (0_u64..200_000).prop_map(|units| units * MEMORY_UNIT)],
        boot in 0_u32..600,
        max in 0_u32..600,
        spis in 0_u32..1100,
    ) {
        let properties = Vec::from([
            ("kernel", Text("kernel")),
            ("memory", U64(memory)),
            ("memory-base", U64(base)),
            ("boot-vcpus", U32(boot)),
            ("max-vcpus", U32(max)),
            ("spis", U32(spis)),
        ]);
        let manifest = parse(&manifest(&[("vm", properties)]));
        manifest.vms.iter().flatten().for_each(check);
    }

    #[test]
    fn any_bytes_are_no_archive_or_one(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut cpio = Vec::from(*b"070701");
        cpio.extend(&bytes);
        let _ = (Archive::parse(&bytes), Archive::parse(&cpio));
    }

    #[test]
    fn any_bootargs_are_survived(line in "( |bullpen\\.|log|scrub|=|boot|[a-z]){0,40}") {
        let _ = Options::default().apply_bootargs(&line);
    }
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../docs/manifest.md");
    let sections = schema::SECTIONS.iter().flat_map(|section| section.keys);
    for key in schema::VM.iter().chain(schema::HYPERVISOR).chain(sections) {
        let row = page
            .lines()
            .find(|line| line.starts_with(&std::format!("| `{}`", key.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", key.name));
        if let schema::Form::Word(words) = key.form {
            for word in words {
                assert!(row.contains(word), "{}: {word}", key.name);
            }
        }
    }
}
