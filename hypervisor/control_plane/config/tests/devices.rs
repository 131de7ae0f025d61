//! The tables of a VM's devices.

use std::string::ToString;
use std::vec::Vec;

use vm_fdt::FdtWriter;

use super::{Bytes, Properties, Text, U32, U64, Value, minimal, parse, put};
use crate::config::{COMPATIBLE, ConfigError, DiskConfig, NetConfig, Problem, VmConfig};

/// A disk: its name and properties.
type Disk = (&'static str, Properties);

/// Reads the disks of a VM whose nodes of this name hold these nodes.
fn disks(sections: &[(&str, Vec<Disk>)]) -> Result<Vec<DiskConfig>, ConfigError> {
    vm(&[], sections).map(|vm| vm.disks)
}

/// Reads a VM with these properties and nodes.
fn vm(
    properties: &[(&'static str, Value)],
    sections: &[(&str, Vec<Disk>)],
) -> Result<VmConfig, ConfigError> {
    let mut writer = FdtWriter::new().expect("empty tree");
    let root = writer.begin_node("").expect("root");
    writer
        .property_string("compatible", COMPATIBLE)
        .expect("compatible");
    let vms = writer.begin_node("vms").expect("vms");
    let vm = writer.begin_node("vm").expect("VM");
    for (name, value) in minimal().iter().chain(properties) {
        put(&mut writer, name, value);
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
    manifest.vms.remove(0)
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

fn nets(
    properties: &[(&'static str, Value)],
    nets: &[(&'static str, Properties)],
) -> Result<Vec<NetConfig>, ConfigError> {
    vm(properties, &[("net", nets.to_vec())]).map(|vm| vm.nets)
}

fn lan(more: &[(&'static str, Value)]) -> Properties {
    let mut properties = Vec::from([("network", Text("lan"))]);
    properties.extend_from_slice(more);
    properties
}

#[test]
fn ports_have_addresses_of_their_own_by_default() {
    let given = [("networks", Bytes(b"lan\0dmz\0"))];
    let ports = nets(&given, &[("net0", lan(&[]))]).expect("ports");
    let seen: Vec<_> = ports
        .iter()
        .map(|port| (port.name.as_str(), port.network.as_str()))
        .collect();
    assert_eq!(seen, [("net0", "lan"), ("net1", "dmz"), ("net2", "lan")]);
    for (index, port) in ports.iter().enumerate() {
        assert_eq!(port.mac[0] & 3, 2, "one station, locally administered");
        assert!(
            ports
                .iter()
                .skip(index + 1)
                .all(|other| other.mac != port.mac)
        );
        assert_eq!((port.mtu, port.rate, port.may_spoof), (1500, 0, false));
    }
    assert_eq!(
        nets(&given, &[("net0", lan(&[]))]).expect("ports"),
        ports,
        "always the same"
    );
    let full = lan(&[
        ("mac", Text("02:Ab:00:00:00:01")),
        ("mtu", U32(9000)),
        ("rate", U64(1 << 20)),
        ("allow-spoof", Text("yes")),
    ]);
    let port = nets(&[], &[("net0", full)]).expect("a port").remove(0);
    assert_eq!(
        (port.mac, port.mtu, port.rate, port.may_spoof),
        ([2, 0xab, 0, 0, 0, 1], 9000, 1 << 20, true)
    );
}

#[test]
fn every_wrong_port_is_named() {
    for (properties, key, problem) in [
        (Vec::new(), "network", Problem::Missing),
        (
            Vec::from([("network", Text("Lan"))]),
            "network",
            Problem::NotName,
        ),
        (
            lan(&[("mac", Text("02:00:00:00:00"))]),
            "mac",
            Problem::NotMac,
        ),
        (
            lan(&[("mac", Text("02:00:00:00:00:00:00"))]),
            "mac",
            Problem::NotMac,
        ),
        (
            lan(&[("mac", Text("02:00:00:00:00:+1"))]),
            "mac",
            Problem::NotMac,
        ),
        (
            lan(&[("mac", Text("00:00:00:00:00:00"))]),
            "mac",
            Problem::NotMac,
        ),
        (
            lan(&[("mac", Text("ff:ff:ff:ff:ff:ff"))]),
            "mac",
            Problem::NotMac,
        ),
        (
            lan(&[("mtu", U32(67))]),
            "mtu",
            Problem::OutOfRange { min: 68, max: 9000 },
        ),
        (
            lan(&[("mtu", U32(9001))]),
            "mtu",
            Problem::OutOfRange { min: 68, max: 9000 },
        ),
        (
            lan(&[("rate", U64(1))]),
            "rate",
            Problem::OutOfRange {
                min: 65536,
                max: 1 << 40,
            },
        ),
        (lan(&[("vlan", U32(1))]), "vlan", Problem::Unknown),
    ] {
        let error = nets(&[], &[("net0", properties)]).expect_err(key);
        assert_eq!(error.node, "/vms/vm/net/net0");
        assert_eq!((error.property.as_str(), error.problem), (key, problem));
    }
    let error = nets(&[("networks", Bytes(b"lan\0LAN\0"))], &[]).expect_err("a name");
    assert_eq!(
        (error.value.as_str(), error.problem),
        ("LAN", Problem::NotName)
    );
    let many = [("networks", Bytes(b"a\0b\0c\0d\0e\0f\0g\0h\0i\0"))];
    let error = nets(&many, &[]).expect_err("9");
    assert_eq!(error.problem, Problem::TooMany(8, "ports of networks"));
}

#[test]
fn an_address_is_there_once_in_a_network() {
    let same = || lan(&[("mac", Text("02:00:00:00:00:01"))]);
    let error = nets(&[], &[("net0", same()), ("net1", same())]).expect_err("the same");
    assert_eq!(
        (error.property.as_str(), &error.problem),
        ("mac", &Problem::Duplicate)
    );
    assert_eq!(error.value, "02:00:00:00:00:01");
    let mut other = same();
    other[0].1 = Text("dmz");
    assert!(
        nets(&[], &[("net0", same()), ("net1", other)]).is_ok(),
        "in two networks"
    );
}
