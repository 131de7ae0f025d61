//! A flattened device tree as a list of nodes that know their parents.
//!
//! Both the machine's own tree ([`crate::host`]) and the manifest ([`crate::config`]) are read through this view. The
//! `fdt` crate walks the blob with its fallible parser, once: its own look-ups walk the whole tree each time, and know
//! neither full paths nor all ancestors, buses or the memory reservation block. The view is made before any RAM is
//! known, so it keeps offsets: sixteen bytes a node and a property, at most four thirds of the structure block.
//!
//! Three things are checked here because the crate does not: the header's offsets, which it adds without looking; a
//! structure block of NOPs, on which it subtracts below zero; and the nesting, as it goes on where the root or the
//! block has ended early. Layout: Devicetree Specification v0.4, chapter 5.
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
/// Deepest nesting accepted; the walker of the `fdt` crate keeps 16 levels and drops what is below them.
const MAX_DEPTH: usize = 14;
/// Oldest and newest format this reader understands (Devicetree Specification 5.2: version, last_comp_version).
const VERSION: u32 = 17;
/// Oldest format that a version 17 tree can be read as (Devicetree Specification 5.2, last_comp_version).
const COMPATIBLE_VERSION: usize = 16;
/// Smallest structure block: a root node's BEGIN, empty name, END_NODE and END.
const MIN_STRUCTURE_BYTES: usize = 16;
/// The header's word that holds the size of the structure block (Devicetree Specification 5.2, size_dt_struct).
const STRUCTURE_SIZE_WORD: usize = 9;

/// The tokens that are counted here (Devicetree Specification 5.4.1), as they stand in the blob.
const END_NODE: [u8; WORD] = 2_u32.to_be_bytes();
const NOP: [u8; WORD] = 4_u32.to_be_bytes();
const END: [u8; WORD] = 9_u32.to_be_bytes();
/// Bytes of a token, and what everything behind one is aligned to.
const WORD: usize = 4;

/// A device tree: where its nodes and properties are in the blob.
#[derive(Debug)]
pub struct Tree<'a> {
    /// The structure block from the root's BEGIN_NODE on.
    structure: &'a [u8],
    strings: &'a [u8],
    nodes: Vec<Entry>,
    /// All nodes' properties, node by node.
    properties: Vec<Property>,
    reservations: Vec<AddressRange>,
}

/// A part of a block. [`MAX_BYTES`] bounds both numbers.
#[derive(Clone, Copy, Debug)]
struct Part {
    offset: u32,
    bytes: u32,
}

/// What is kept of one node.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its name with unit address, in the structure block.
    name: Part,
    /// Index of its parent; the root's is its own.
    parent: u32,
    /// Index behind its last property; its first one is behind the last of the node before.
    properties: u32,
}

/// What is kept of one property.
#[derive(Clone, Copy, Debug)]
struct Property {
    /// In the strings block.
    name: Part,
    /// In the structure block.
    value: Part,
}

impl Part {
    /// Returns where `part` is in `block`, which it was cut from.
    fn of(part: &[u8], block: &[u8]) -> Self {
        let offset = part.as_ptr().addr().wrapping_sub(block.as_ptr().addr());
        Self {
            offset: offset as u32,
            bytes: part.len() as u32,
        }
    }

    /// Returns the bytes.
    fn bytes(self, block: &[u8]) -> &[u8] {
        let rest = block.get(self.offset as usize..);
        rest.and_then(|rest| rest.get(..self.bytes as usize))
            .unwrap_or_default()
    }

    /// Returns where the next token stands, with `terminator` bytes behind this.
    const fn next(self, terminator: usize) -> usize {
        let end = (self.offset as usize).saturating_add(self.bytes as usize);
        end.saturating_add(terminator).saturating_add(WORD - 1) & !(WORD - 1)
    }
}

impl<'a> Tree<'a> {
    /// Reads the tree at the start of `blob`, which may be longer than the tree.
    ///
    /// # Errors
    /// A [`TreeError`] when the blob is not a well-formed tree, or there is no room for the list of its nodes.
    pub fn parse(blob: &'a [u8]) -> Result<Self, TreeError> {
        let blocks = check_header(blob)?;
        let fdt = Fdt::new_unaligned_fallible(blocks.tree)
            .map_err(|_| TreeError::Structure { nodes: 0 })?;
        let mut tree = Self {
            structure: blocks.structure,
            strings: blocks.strings,
            nodes: Vec::new(),
            properties: Vec::new(),
            reservations: read_reservations(blocks.tree)?,
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

/// Reads how many bytes the structure block has: [`Tree::parse`] and what is made of the tree need room in proportion.
pub fn structure_size(blob: &[u8]) -> Option<usize> {
    word(blob, 4 * STRUCTURE_SIZE_WORD).map(|size| size as usize)
}

/// The parts of a blob that the header names.
struct Blocks<'a> {
    /// The blob cut to the tree's own size.
    tree: &'a [u8],
    /// The structure block without the NOPs before the root.
    structure: &'a [u8],
    strings: &'a [u8],
}

/// Checks everything the `fdt` crate takes on trust.
fn check_header(blob: &[u8]) -> Result<Blocks<'_>, TreeError> {
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
    let block = |offset: u32, size: u32| {
        let end = (offset as usize).checked_add(size as usize)?;
        tree.get(offset as usize..end)
    };
    let structure = block(field(2)?, field(STRUCTURE_SIZE_WORD)?)
        .map(|block| {
            let words = block.chunks_exact(WORD);
            let nops = words.take_while(|word| **word == NOP).count();
            block.get(nops.saturating_mul(WORD)..).unwrap_or_default()
        })
        .filter(|block| block.len() >= MIN_STRUCTURE_BYTES)
        .ok_or(TreeError::Block("structure"))?;
    let strings = block(field(3)?, field(8)?).ok_or(TreeError::Block("strings"))?;
    Ok(Blocks {
        tree,
        structure,
        strings,
    })
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
        let malformed = |nodes: usize| TreeError::Structure { nodes };
        let root = fdt.root().map_err(|_| malformed(0))?;
        let mut behind = self.add(fdt::nodes::AsNode::as_node(&root), 0)?;
        // The index of the last node seen at each depth: the parent of what comes one level below it.
        let mut last_at = [0_u32; MAX_DEPTH + 1];
        let mut depth = 0_usize;
        for item in root.all_nodes().map_err(|_| malformed(1))? {
            let count = self.nodes.len();
            let (level, node) = item.map_err(|_| malformed(count))?;
            let above = level.checked_sub(1).ok_or(malformed(count))?;
            let parent = *last_at.get(above).ok_or(TreeError::TooDeep)?;
            *last_at.get_mut(level).ok_or(TreeError::TooDeep)? = count as u32;
            let next = self.add(node, parent)?;
            let name = self.nodes.last().map_or(0, |entry| entry.name.offset);
            // From the level of the node before, one END_NODE for each level up to this node's parent.
            if self.ended(behind..name as usize).saturating_add(above) != depth {
                return Err(malformed(count));
            }
            (behind, depth) = (next, level);
        }
        if self.ended(behind..self.structure.len()) != depth.saturating_add(1) {
            return Err(malformed(self.nodes.len()));
        }
        Ok(())
    }

    /// Counts the nodes that end in a part of the structure block, up to its END.
    fn ended(&self, part: Range<usize>) -> usize {
        let words = self
            .structure
            .get(part)
            .unwrap_or_default()
            .chunks_exact(WORD);
        words
            .take_while(|word| **word != END)
            .filter(|word| **word == END_NODE)
            .count()
    }

    /// Adds one node; returns where its last property ends.
    fn add(&mut self, node: UnalignedFallibleNode<'a>, parent: u32) -> Result<usize, TreeError> {
        let nodes = self.nodes.len();
        let malformed = TreeError::Structure { nodes };
        let found = node.name().map_err(|_| malformed)?;
        // The crate calls a node without a name "/", which only the root may be.
        let name = match (found.name, nodes) {
            ("/", 0) => Part {
                offset: WORD as u32,
                bytes: 0,
            },
            ("/", _) => return Err(malformed),
            (name, _) => {
                let mut part = Part::of(name.as_bytes(), self.structure);
                let unit = found
                    .unit_address
                    .map_or(0, |unit| unit.len().saturating_add(1));
                part.bytes = part.bytes.saturating_add(unit as u32);
                part
            }
        };
        let mut behind = name.next(1);
        for property in node.properties().map_err(|_| malformed)?.iter() {
            let property = property.map_err(|_| malformed)?;
            let value = Part::of(property.value, self.structure);
            behind = value.next(0);
            let name = Part::of(property.name.as_bytes(), self.strings);
            push(&mut self.properties, Property { name, value }, nodes)?;
        }
        let properties = self.properties.len() as u32;
        let entry = Entry {
            name,
            parent,
            properties,
        };
        push(&mut self.nodes, entry, nodes)?;
        Ok(behind)
    }
}

/// Adds to a list, if there is room.
fn push<T>(list: &mut Vec<T>, item: T, nodes: usize) -> Result<(), TreeError> {
    list.try_reserve(1)
        .map_err(|_| TreeError::NoRoom { nodes })?;
    list.push(item);
    Ok(())
}
