//! The tables of a VM's devices.

use std::string::ToString;
use std::vec::Vec;

use vm_fdt::FdtWriter;

use super::{Properties, Text, U32, U64, Value, minimal, parse, put};
use crate::config::{COMPATIBLE, ConfigError, DiskConfig, Problem};

/// A disk: its name and properties.
type Disk = (&'static str, Properties);

/// Reads the disks of a VM whose nodes of this name hold these nodes.
fn disks(sections: &[(&str, Vec<Disk>)]) -> Result<Vec<DiskConfig>, ConfigError> {
    let mut writer = FdtWriter::new().expect("empty tree");
    let root = writer.begin_node("").expect("root");
    writer
        .property_string("compatible", COMPATIBLE)
        .expect("compatible");
    let vms = writer.begin_node("vms").expect("vms");
    let vm = writer.begin_node("vm").expect("VM");
    for (name, value) in minimal() {
        put(&mut writer, name, &value);
    }
    for (section, disks) in sections {
        let parent = writer.begin_node(section).expect("section");
        for (name, properties) in disks {
            let node = writer.begin_node(name).expect("node");
            for (name, value) in properties {
                put(&mut writer, name, value);
            }
            writer.end_node(node).expect("end");
        }
        writer.end_node(parent).expect("end");
    }
    for node in [vm, vms, root] {
        writer.end_node(node).expect("end");
    }
    let mut manifest = parse(&writer.finish().expect("tree"));
    assert_eq!(manifest.problems, []);
    manifest.vms.remove(0).map(|vm| vm.disks)
}

fn image(more: &[(&'static str, Value)]) -> Properties {
    let mut properties = Vec::from([("image", Text("initrd"))]);
    properties.extend_from_slice(more);
    properties
}

#[test]
fn disks_are_read_in_order() {
    let given = Vec::from([
        ("root", image(&[("cow-quota", U64(8192))])),
        ("data", image(&[])),
        ("a-0", image(&[("readonly", Text("yes"))])),
        (
            "rw",
            image(&[("readonly", Text("no")), ("cow-quota", U32(4096))]),
        ),
    ]);
    let disks = disks(&[("disk", given)]).expect("disks");
    let seen: Vec<_> = disks
        .iter()
        .map(|disk| (disk.name.as_str(), disk.cow_quota))
        .collect();
    assert_eq!(
        seen,
        [("root", 8192), ("data", 0), ("a-0", 0), ("rw", 4096)]
    );
    assert!(disks.iter().all(|disk| disk.image == "initrd"));
}

#[test]
fn every_wrong_disk_is_named() {
    let quota = |min, max| Problem::OutOfRange { min, max };
    for (name, properties, key, problem) in [
        ("d", Vec::new(), "image", Problem::Missing),
        (
            "d",
            Vec::from([("image", Text("absent"))]),
            "image",
            Problem::NoSuchFile,
        ),
        (
            "d",
            image(&[("cow-quota", U64(0))]),
            "cow-quota",
            quota(4096, 1 << 40),
        ),
        (
            "d",
            image(&[("cow-quota", U64(5000))]),
            "cow-quota",
            Problem::NotMultipleOf(4096),
        ),
        (
            "d",
            image(&[("readonly", Text("no"))]),
            "cow-quota",
            Problem::Missing,
        ),
        (
            "d",
            image(&[("readonly", Text("yes")), ("cow-quota", U64(4096))]),
            "cow-quota",
            Problem::Contradicts("readonly"),
        ),
        (
            "d",
            image(&[("readonly", Text("maybe"))]),
            "readonly",
            Problem::NotOneOf(&["no", "yes"]),
        ),
        ("d", image(&[("size", U64(4096))]), "size", Problem::Unknown),
        ("D", image(&[]), "", Problem::NotName),
        ("d@0", image(&[]), "", Problem::NotName),
        (
            "a-name-of-21-letters-",
            image(&[]),
            "",
            Problem::TooLong(20),
        ),
    ] {
        let error = disks(&[("disk", Vec::from([(name, properties)]))]).expect_err("an error");
        assert_eq!(error.node, std::format!("/vms/vm/disk/{name}"));
        assert_eq!(
            (error.property.as_str(), error.problem),
            (key, problem),
            "{name}"
        );
    }
}

#[test]
fn disks_are_counted_and_their_names_differ() {
    let many = (0..9).map(|n| (["a", "b", "c", "d", "e", "f", "g", "h", "i"][n], image(&[])));
    let error = disks(&[("disk", many.collect())]).expect_err("9");
    assert_eq!(
        (error.node.as_str(), &error.problem),
        ("/vms/vm/disk/i", &Problem::TooMany(8, "disks"))
    );
    assert!(error.to_string().ends_with("more than 8 disks"), "{error}");
    let twice = Vec::from([("a", image(&[])), ("a", image(&[]))]);
    let error = disks(&[("disk", twice)]).expect_err("two of a name");
    assert_eq!(error.problem, Problem::Duplicate);
    for (sections, problem) in [
        (["disk", "disk"], Problem::Duplicate),
        (["disk", "disks"], Problem::Unknown),
        (["disk", "disk@1"], Problem::Unknown),
    ] {
        let error = disks(&sections.map(|name| (name, Vec::new()))).expect_err("a section");
        assert_eq!(error.problem, problem, "{sections:?}");
    }
}
