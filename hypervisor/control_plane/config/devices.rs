//! The devices of a VM that its manifest describes in tables of their own.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::{ConfigError, Problem};
use super::manifest::{
    file, full_name, multiple, node_error, number, property_error, unknown_properties, word,
};
use super::schema::{self, YES_NO};
use super::vm::VmName;
use crate::devicetree::Node;

/// Most disks of a VM.
pub const MAX_DISKS: usize = 8;
/// Longest name of a disk: what its driver can be told (VIRTIO 1.2, 5.2.6.1).
pub const MAX_DISK_NAME: usize = 20;
/// What `cow-quota` is a multiple of: writes replace an image in pages.
const QUOTA_UNIT: u64 = 4096;
/// Largest `cow-quota`.
const MAX_QUOTA: u64 = 1 << 40;

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
