//! The devices of a VM that its manifest describes in tables of their own.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::{ConfigError, Problem};
use super::manifest::{
    file, full_name, multiple, node_error, number, property_error, text, unknown_properties, word,
};
use super::schema::{self, YES_NO};
use super::vm::VmName;
use crate::devicetree::Node;
use crate::uuid::Uuid;

/// Most disks of a VM.
pub const MAX_DISKS: usize = 8;
/// Longest name of a disk: what its driver can be told (VIRTIO 1.2, 5.2.6.1).
pub const MAX_DISK_NAME: usize = 20;
/// What `cow-quota` is a multiple of: writes replace an image in pages.
const QUOTA_UNIT: u64 = 4096;
/// Largest `cow-quota`.
const MAX_QUOTA: u64 = 1 << 40;

/// Most ports of networks of a VM.
pub const MAX_NETS: usize = 8;
/// Smallest and largest MTU: what IPv4 asks for (RFC 791), and what a frame's buffer has room for.
const MIN_MTU: u64 = 68;
const MAX_MTU: u64 = 9000;
const DEFAULT_MTU: u64 = 1500;
/// Slowest and fastest `rate`, in bytes a second: a port holds back no frame without end.
const MIN_RATE: u64 = 64 << 10;
const MAX_RATE: u64 = 1 << 40;
/// Of a MAC address's first byte: it is of several stations; it is nobody's but ours (IEEE 802, 8.2.2).
const GROUP: u8 = 1;
const LOCAL: u8 = 2;

/// A port of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// What the operator calls it.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// Its address.
    pub mac: [u8; 6],
    /// Largest packet.
    pub mtu: u16,
    /// Bytes that it may send in a second; 0 for no limit.
    pub rate: u64,
    /// Whether it may send with addresses of others.
    pub may_spoof: bool,
}

/// A disk with an image of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Its name; no other disk of the VM has it.
    pub name: String,
    /// Name of the image's file in the bundle.
    pub image: String,
    /// How many bytes of it the guest may replace by its own, in pages of RAM; 0 for a disk that is only read.
    pub cow_quota: u64,
}

/// Reads the disks of a VM.
pub(super) fn disks(
    vm: &Node<'_, '_>,
    has_file: &impl Fn(&str) -> bool,
) -> Result<Vec<DiskConfig>, ConfigError> {
    let mut disks: Vec<DiskConfig> = Vec::new();
    for node in section(vm, schema::DISK) {
        let name = full_name(&node);
        if disks.len() == MAX_DISKS {
            return Err(node_error(&node, Problem::TooMany(MAX_DISKS, "disks")));
        }
        if VmName::new(&name).is_none() {
            return Err(node_error(&node, Problem::NotName));
        }
        if name.len() > MAX_DISK_NAME {
            return Err(node_error(&node, Problem::TooLong(MAX_DISK_NAME)));
        }
        if disks.iter().any(|disk| disk.name == name) {
            return Err(node_error(&node, Problem::Duplicate));
        }
        disks.push(disk(&node, name, has_file)?);
    }
    Ok(disks)
}

fn disk(
    node: &Node<'_, '_>,
    name: String,
    has_file: &impl Fn(&str) -> bool,
) -> Result<DiskConfig, ConfigError> {
    const QUOTA: &str = "cow-quota";
    const READ_ONLY: &str = "readonly";
    check_keys(node, schema::DISK)?;
    let image = file(node, "image", has_file)?
        .ok_or_else(|| property_error(node, "image", Problem::Missing))?;
    let quota = number(node, QUOTA, QUOTA_UNIT, MAX_QUOTA)?;
    if let Some(quota) = quota {
        multiple(node, QUOTA, quota, QUOTA_UNIT)?;
    }
    match (word(node, READ_ONLY, &YES_NO, &[false, true])?, quota) {
        (Some(true), Some(_)) => {
            return Err(property_error(node, QUOTA, Problem::Contradicts(READ_ONLY)));
        }
        (Some(false), None) => return Err(property_error(node, QUOTA, Problem::Missing)),
        _ => {}
    }
    Ok(DiskConfig {
        name,
        image,
        cow_quota: quota.unwrap_or(0),
    })
}

/// Reads the ports of a VM: first those of `networks`, then those with tables of their own.
pub(super) fn nets(vm: &Node<'_, '_>) -> Result<Vec<NetConfig>, ConfigError> {
    let mut nets = Vec::new();
    for network in vm.strings(schema::NETWORKS) {
        if VmName::new(network).is_none() {
            let value = network.to_string();
            return Err(ConfigError {
                value,
                ..property_error(vm, schema::NETWORKS, Problem::NotName)
            });
        }
        nets.push(port(vm, nets.len(), network));
    }
    if vm.property(schema::NETWORKS).is_some() && nets.is_empty() {
        return Err(property_error(vm, schema::NETWORKS, Problem::NotText));
    }
    for node in section(vm, schema::NET) {
        nets.push(net(vm, &node, nets.len())?);
    }
    match nets.len() > MAX_NETS {
        true => Err(node_error(
            vm,
            Problem::TooMany(MAX_NETS, "ports of networks"),
        )),
        false => Ok(nets),
    }
}

fn net(vm: &Node<'_, '_>, node: &Node<'_, '_>, index: usize) -> Result<NetConfig, ConfigError> {
    check_keys(node, schema::NET)?;
    let network =
        text(node, "network")?.ok_or_else(|| property_error(node, "network", Problem::Missing))?;
    if VmName::new(network).is_none() {
        return Err(property_error(node, "network", Problem::NotName));
    }
    let default = port(vm, index, network);
    let wrong = || property_error(node, "mac", Problem::NotMac);
    let given = text(node, "mac")?;
    let given = given.map(|text| mac(text).ok_or_else(wrong)).transpose()?;
    Ok(NetConfig {
        mac: given.unwrap_or(default.mac),
        // Within the limits it fits.
        mtu: number(node, "mtu", MIN_MTU, MAX_MTU)?.unwrap_or(DEFAULT_MTU) as u16,
        rate: number(node, "rate", MIN_RATE, MAX_RATE)?.unwrap_or(0),
        may_spoof: word(node, "allow-spoof", &YES_NO, &[false, true])?.unwrap_or(false),
        ..default
    })
}

/// Makes a port with an address of its own, always the same for a VM's name and the port's number.
fn port(vm: &Node<'_, '_>, index: usize, network: &str) -> NetConfig {
    let name = format!("{}{index}", schema::NET);
    let unique = Uuid::of_name(&format!("{}/{name}", vm.name())).to_le_bytes();
    let [.., first, b, c, d, e, f] = unique;
    NetConfig {
        name,
        network: network.to_string(),
        mac: [first & !GROUP | LOCAL, b, c, d, e, f],
        mtu: DEFAULT_MTU as u16,
        rate: 0,
        may_spoof: false,
    }
}

/// Reads the address of one station.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        let is_hex = part.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_hex)?;
    }
    let [first, ..] = mac;
    let is_station = first & GROUP == 0 && mac != [0; 6];
    (parts.next().is_none() && is_station).then_some(mac)
}

/// Returns an address that two of these ports have in one network, as text.
pub(super) fn same_mac<'n>(
    before: impl Iterator<Item = &'n NetConfig> + Clone,
    own: &'n [NetConfig],
) -> Option<String> {
    let same = own.iter().enumerate().find(|(index, net)| {
        let mut others = before.clone().chain(own.iter().take(*index));
        others.any(|other| other.network == net.network && other.mac == net.mac)
    });
    same.map(|(_, net)| mac_text(net.mac))
}

/// Writes an address.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Goes through the nodes of one of a VM's sections.
fn section<'t, 'a>(vm: &Node<'t, 'a>, name: &'static str) -> impl Iterator<Item = Node<'t, 'a>> {
    let parents = vm.children().filter(move |node| node.name() == name);
    parents.flat_map(|node| node.children())
}

/// Refuses properties and children that a node of a section cannot have.
fn check_keys(node: &Node<'_, '_>, section: &str) -> Result<(), ConfigError> {
    let keys = schema::SECTIONS
        .iter()
        .find(|known| known.name == section)
        .map_or(&[][..], |known| known.keys);
    let known = |name: &str| keys.iter().any(|key| key.name == name);
    let children = node
        .children()
        .map(|child| node_error(&child, Problem::Unknown));
    let problem = unknown_properties(node, known).chain(children).next();
    problem.map_or(Ok(()), Err)
}
