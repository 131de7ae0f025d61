//! Manifests, good and bad, as `cargo xtask bundle` or an enemy would write them.

use std::string::{String, ToString};
use std::vec::Vec;

use vm_fdt::FdtWriter;

use super::*;

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
            match value {
                Text(text) => writer.property_string(name, text),
                U32(number) => writer.property_u32(name, *number),
                U64(number) => writer.property_u64(name, *number),
                Cells(cells) => writer.property_array_u32(name, cells),
                Bytes(bytes) => writer.property(name, bytes),
            }
            .expect("property");
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
        boot_vcpus: 1,
        max_vcpus: 1,
        placement: Placement::Auto,
        firmware: Firmware::Acpi,
        autostart: true,
        on_reset: OnReset::KeepTarget,
        spis: 64,
        reserve_idle: ReserveIdle::Wfi,
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
        ("command-line", Text("a\nb"), NotPrintable),
        ("command-line", U32(7), NotText),
        ("comand-line", Text("x"), Unknown),
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
        assert_eq!(good.name.as_str(), "good");
    }
}
