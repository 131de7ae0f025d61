//! A flattened device tree as a list of nodes that know their parents.
//!
//! Both the machine's own tree ([`crate::host`]) and the manifest ([`crate::config`]) are read through this view. The
//! `fdt` crate walks the blob with its fallible parser; this file checks the header first (the crate trusts its offsets),
//! bounds size, depth and node count, and adds what the crate lacks: full paths, all ancestors, address translation
//! through every bus, and the memory reservation block. Layout: Devicetree Specification v0.4, chapter 5.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod error;
mod node;
mod reg;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use alloc::vec::Vec;
use core::ops::Range;

use fdt::Fdt;
use fdt::helpers::UnalignedFallibleNode;

pub use error::TreeError;
pub use node::Node;
pub use reg::{AddressRange, RegError};
use value::word;
pub use value::{Cells, show};
pub use writer::TreeWriter;

/// First word of every flattened device tree (Devicetree Specification 5.2).
pub const MAGIC: u32 = 0xd00d_feed;
/// Size of the header of format version 17 in bytes.
pub const HEADER_BYTES: usize = 40;
/// Largest tree accepted: the arm64 boot protocol's own limit (Linux Documentation/arch/arm64/booting.rst).
pub const MAX_BYTES: usize = 2 << 20;
/// Largest number of nodes accepted.
pub const MAX_NODES: usize = 8192;
/// Largest number of properties accepted, of all nodes together.
pub const MAX_PROPERTIES: usize = 32_768;
/// Deepest nesting accepted; the walker of the `fdt` crate keeps 16 levels and drops what is below them.
const MAX_DEPTH: usize = 14;
/// Most entries of the memory reservation block accepted.
const MAX_RESERVATIONS: usize = 256;
/// Oldest and newest format this reader understands (Devicetree Specification 5.2: version, last_comp_version).
const VERSION: u32 = 17;
/// Oldest format that a version 17 tree can be read as (Devicetree Specification 5.2, last_comp_version).
const COMPATIBLE_VERSION: usize = 16;
/// Smallest structure block: a root node's BEGIN, empty name, END_NODE and END.
const MIN_STRUCTURE_BYTES: u64 = 16;

/// A device tree, read once.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Entry<'a>>,
    /// Names and values of all nodes' properties, node by node: decoded once, looked up many times.
    properties: Vec<(&'a str, &'a [u8])>,
    reservations: Vec<AddressRange>,
}

/// What is kept of one node.
#[derive(Debug)]
struct Entry<'a> {
    name: &'a str,
    unit: Option<&'a str>,
    parent: usize,
    /// Where the node's properties are in [`Tree::properties`].
    properties: Range<usize>,
}

impl<'a> Tree<'a> {
    /// Reads the tree at the start of `blob`, which may be longer than the tree.
    ///
    /// # Errors
    /// A [`TreeError`] when the blob is not a well-formed tree within this file's bounds.
    pub fn parse(blob: &'a [u8]) -> Result<Self, TreeError> {
        let blob = check_header(blob)?;
        let reservations = read_reservations(blob)?;
        let fdt =
            Fdt::new_unaligned_fallible(blob).map_err(|_| TreeError::Structure { nodes: 0 })?;
        let mut tree = Self {
            nodes: Vec::new(),
            properties: Vec::new(),
            reservations,
        };
        tree.read_nodes(fdt)?;
        Ok(tree)
    }

    /// Returns the root node.
    pub fn root(&self) -> Node<'_, 'a> {
        Node {
            tree: self,
            index: 0,
        }
    }

    /// Goes through all nodes, parents before children.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_, 'a>> {
        (0..self.nodes.len()).map(|index| Node { tree: self, index })
    }

    /// Finds the node with this full path; a component without unit address matches the first node of that name.
    pub fn find(&self, path: &str) -> Option<Node<'_, 'a>> {
        let mut node = self.root();
        for component in path
            .strip_prefix('/')?
            .split('/')
            .filter(|component| !component.is_empty())
        {
            let (name, unit) = match component.split_once('@') {
                Some((name, unit)) => (name, Some(unit)),
                None => (component, None),
            };
            node = node.children().find(|child| child.is_called(name, unit))?;
        }
        Some(node)
    }

    /// Finds the node that a phandle names.
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'_, 'a>> {
        self.nodes()
            .find(|node| node.u32("phandle").or_else(|| node.u32("linux,phandle")) == Some(phandle))
    }

    /// Returns the memory reservation block (Devicetree Specification 5.3).
    pub fn reservations(&self) -> &[AddressRange] {
        &self.reservations
    }
}

/// Reads the tree's declared size if `start` begins like a device tree: what must be known before the rest is looked at.
pub fn declared_size(start: &[u8]) -> Option<usize> {
    (word(start, 0)? == MAGIC)
        .then(|| word(start, 4))
        .flatten()
        .map(|size| size as usize)
}

/// Checks everything the `fdt` crate takes from the header on trust and cuts the blob to the tree's own size.
fn check_header(blob: &[u8]) -> Result<&[u8], TreeError> {
    let present = blob.len() as u64;
    let field = |index: usize| {
        word(blob, index.saturating_mul(4)).ok_or(TreeError::Truncated {
            declared: HEADER_BYTES as u64,
            present,
        })
    };
    let magic = field(0)?;
    if magic != MAGIC {
        return Err(TreeError::Magic(magic));
    }
    let declared = u64::from(field(1)?);
    if declared > MAX_BYTES as u64 {
        return Err(TreeError::TooLarge(declared));
    }
    let tree = blob
        .get(..declared as usize)
        .ok_or(TreeError::Truncated { declared, present })?;
    let (version, oldest) = (field(5)?, field(6)?);
    if version < VERSION || oldest > VERSION {
        return Err(TreeError::Version(version));
    }
    let inside =
        |offset: u32, size: u32| u64::from(offset).saturating_add(u64::from(size)) <= declared;
    let (structure, structure_size) = (field(2)?, field(9)?);
    if !inside(structure, structure_size) || u64::from(structure_size) < MIN_STRUCTURE_BYTES {
        return Err(TreeError::Block("structure"));
    }
    if !inside(field(3)?, field(8)?) {
        return Err(TreeError::Block("strings"));
    }
    Ok(tree)
}

/// Reads address and size pairs up to the pair of zeros.
fn read_reservations(tree: &[u8]) -> Result<Vec<AddressRange>, TreeError> {
    const BAD: TreeError = TreeError::Block("memory reservation");
    let mut offset = word(tree, 16).ok_or(BAD)? as usize;
    let mut found = Vec::new();
    loop {
        let mut next = || {
            let (high, low) = (word(tree, offset)?, word(tree, offset.checked_add(4)?)?);
            offset = offset.checked_add(8)?;
            Some(u64::from(high) << 32 | u64::from(low))
        };
        let (base, size) = (next().ok_or(BAD)?, next().ok_or(BAD)?);
        if base == 0 && size == 0 {
            return Ok(found);
        }
        if found.len() == MAX_RESERVATIONS {
            return Err(BAD);
        }
        found.push(AddressRange { base, size });
    }
}

/// The tree type of the `fdt` crate that returns errors.
type FallibleFdt<'a> = Fdt<
    'a,
    (
        fdt::parsing::unaligned::UnalignedParser<'a>,
        fdt::parsing::NoPanic,
    ),
>;

impl<'a> Tree<'a> {
    /// Lists all nodes, each with its parent and its properties.
    fn read_nodes(&mut self, fdt: FallibleFdt<'a>) -> Result<(), TreeError> {
        let malformed = |nodes: usize| move |_| TreeError::Structure { nodes };
        let root = fdt.root().map_err(malformed(0))?;
        self.add(fdt::nodes::AsNode::as_node(&root), 0)?;
        // The index of the last node seen at each depth: the parent of what comes one level below it.
        let mut last_at = [0_usize; MAX_DEPTH + 1];
        for item in root.all_nodes().map_err(malformed(1))? {
            let count = self.nodes.len();
            let (depth, node) = item.map_err(malformed(count))?;
            let above = depth
                .checked_sub(1)
                .ok_or(TreeError::Structure { nodes: count })?;
            let parent = *last_at.get(above).ok_or(TreeError::TooDeep)?;
            *last_at.get_mut(depth).ok_or(TreeError::TooDeep)? = count;
            self.add(node, parent)?;
        }
        Ok(())
    }

    /// Adds one node.
    fn add(&mut self, node: UnalignedFallibleNode<'a>, parent: usize) -> Result<(), TreeError> {
        let malformed = TreeError::Structure {
            nodes: self.nodes.len(),
        };
        let name = node.name().map_err(|_| malformed)?;
        let first = self.properties.len();
        for property in node.properties().map_err(|_| malformed)?.iter() {
            let property = property.map_err(|_| malformed)?;
            if self.properties.len() == MAX_PROPERTIES {
                return Err(TreeError::TooMany);
            }
            self.properties.push((property.name, property.value));
        }
        if self.nodes.len() == MAX_NODES {
            return Err(TreeError::TooMany);
        }
        self.nodes.push(Entry {
            name: if name.name == "/" { "" } else { name.name },
            unit: name.unit_address,
            parent,
            properties: first..self.properties.len(),
        });
        Ok(())
    }
}
