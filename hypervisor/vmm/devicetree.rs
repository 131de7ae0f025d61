//! A flattened device tree as a list of nodes that know their parents.
//!
//! Both the machine's own tree ([`crate::host`]) and the manifest ([`crate::config`]) are read through this view. The
//! `fdt` crate walks the blob with its fallible parser; this file checks the header first (the crate trusts its offsets),
//! bounds size, depth and node count, and adds what the crate lacks: full paths, all ancestors, address translation
//! through every bus, and the memory reservation block. Layout: Devicetree Specification v0.4, chapter 5.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use fdt::Fdt;
use fdt::helpers::UnalignedFallibleNode;

/// First word of every flattened device tree (Devicetree Specification 5.2).
pub const MAGIC: u32 = 0xd00d_feed;
/// Size of the header of format version 17 in bytes.
pub const HEADER_BYTES: usize = 40;
/// Largest tree accepted: the arm64 boot protocol's own limit (Linux Documentation/arch/arm64/booting.rst).
pub const MAX_BYTES: usize = 2 << 20;
/// Largest number of nodes accepted.
pub const MAX_NODES: usize = 16_384;
/// Deepest nesting accepted; the walker of the `fdt` crate keeps 16 levels and drops what is below them.
const MAX_DEPTH: usize = 14;
/// Most entries of the memory reservation block accepted.
const MAX_RESERVATIONS: usize = 256;
/// Oldest and newest format this reader understands (Devicetree Specification 5.2: version, last_comp_version).
const VERSION: u32 = 17;
/// Smallest structure block: a root node's BEGIN, empty name, END_NODE and END.
const MIN_STRUCTURE_BYTES: u64 = 16;

/// Why a blob is not a device tree that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The first word is not [`MAGIC`]; the word found.
    Magic(u32),
    /// The blob ends before the tree it declares; bytes declared and bytes there.
    Truncated {
        /// Size that the header declares, in bytes.
        declared: u64,
        /// Size of what was handed over, in bytes.
        present: u64,
    },
    /// The tree is larger than [`MAX_BYTES`]; bytes declared.
    TooLarge(u64),
    /// The format version is not one this reader understands; the version found.
    Version(u32),
    /// A block of the tree lies outside the blob, or is too small.
    Block(&'static str),
    /// The structure block holds something that is not a token, name or property where one must be; nodes read before.
    Structure {
        /// How many nodes had been read.
        nodes: usize,
    },
    /// More than [`MAX_NODES`] nodes.
    TooManyNodes,
    /// Nodes nested deeper than any real tree.
    TooDeep,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(word) => write!(
                f,
                "not a device tree: first word is {word:#010x}, not {MAGIC:#010x}"
            ),
            Self::Truncated { declared, present } => {
                write!(
                    f,
                    "device tree cut short: header says {declared} bytes, {present} are there"
                )
            }
            Self::TooLarge(bytes) => {
                write!(f, "device tree of {bytes} bytes is larger than {MAX_BYTES}")
            }
            Self::Version(version) => {
                write!(f, "device tree format version {version} is not {VERSION}")
            }
            Self::Block(name) => write!(f, "device tree's {name} block lies outside the tree"),
            Self::Structure { nodes } => write!(
                f,
                "device tree's structure block is malformed after {nodes} nodes"
            ),
            Self::TooManyNodes => write!(f, "device tree has more than {MAX_NODES} nodes"),
            Self::TooDeep => write!(f, "device tree nests deeper than {MAX_DEPTH} levels"),
        }
    }
}

/// A range as the tree tells it: not yet known to be memory or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A device tree, read once.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Entry<'a>>,
    reservations: Vec<AddressRange>,
}

/// What is kept of one node.
#[derive(Debug)]
struct Entry<'a> {
    node: UnalignedFallibleNode<'a>,
    name: &'a str,
    unit: Option<&'a str>,
    parent: usize,
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
        Ok(Self {
            nodes: read_nodes(fdt)?,
            reservations,
        })
    }

    /// Returns the root node.
    #[must_use]
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
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node<'_, 'a>> {
        let mut node = self.root();
        for component in path
            .strip_prefix('/')?
            .split('/')
            .filter(|component| !component.is_empty())
        {
            node = node.children().find(|child| child.is_called(component))?;
        }
        Some(node)
    }

    /// Finds the node that a phandle names.
    #[must_use]
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'_, 'a>> {
        self.nodes()
            .find(|node| node.u32("phandle").or_else(|| node.u32("linux,phandle")) == Some(phandle))
    }

    /// Returns the memory reservation block (Devicetree Specification 5.3).
    #[must_use]
    pub fn reservations(&self) -> &[AddressRange] {
        &self.reservations
    }
}

/// Reads the big-endian word at byte `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_be_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// Reads the tree's declared size if `start` begins like a device tree: what must be known before the rest is looked at.
#[must_use]
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
        word(blob, index * 4).ok_or(TreeError::Truncated {
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
    let inside = |offset: u32, size: u32| u64::from(offset) + u64::from(size) <= declared;
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

/// Lists all nodes with the index of each one's parent.
fn read_nodes(fdt: FallibleFdt<'_>) -> Result<Vec<Entry<'_>>, TreeError> {
    let malformed = |nodes: usize| move |_| TreeError::Structure { nodes };
    let root = fdt.root().map_err(malformed(0))?;
    let mut nodes = Vec::new();
    nodes.push(Entry {
        node: fdt::nodes::AsNode::as_node(&root),
        name: "",
        unit: None,
        parent: 0,
    });
    // The index of the last node seen at each depth: the parent of what comes one level below it.
    let mut last_at = [0_usize; MAX_DEPTH + 1];
    for item in root.all_nodes().map_err(malformed(1))? {
        let (depth, node) = item.map_err(malformed(nodes.len()))?;
        let name = node.name().map_err(malformed(nodes.len()))?;
        let above = depth
            .checked_sub(1)
            .ok_or(TreeError::Structure { nodes: nodes.len() })?;
        let parent = *last_at.get(above).ok_or(TreeError::TooDeep)?;
        *last_at.get_mut(depth).ok_or(TreeError::TooDeep)? = nodes.len();
        if nodes.len() == MAX_NODES {
            return Err(TreeError::TooManyNodes);
        }
        nodes.push(Entry {
            node,
            name: name.name,
            unit: name.unit_address,
            parent,
        });
    }
    Ok(nodes)
}

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'t, 'a> {
    tree: &'t Tree<'a>,
    index: usize,
}

impl<'t, 'a> Node<'t, 'a> {
    fn entry(&self) -> Option<&'t Entry<'a>> {
        self.tree.nodes.get(self.index)
    }

    /// Returns the tree this is a node of.
    #[must_use]
    pub fn tree(&self) -> &'t Tree<'a> {
        self.tree
    }

    /// Returns the node's name without unit address; the root's is empty.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.entry().map_or("", |entry| entry.name)
    }

    /// Returns whether `component` is the node's name, or its name with unit address.
    fn is_called(&self, component: &str) -> bool {
        let Some(entry) = self.entry() else {
            return false;
        };
        match component.split_once('@') {
            Some((name, unit)) => entry.name == name && entry.unit == Some(unit),
            None => entry.name == component,
        }
    }

    /// Returns the node's full path, for messages.
    #[must_use]
    pub fn path(&self) -> String {
        let Some(parent) = self.parent() else {
            return "/".to_string();
        };
        let mut path = parent.path();
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(self.name());
        if let Some(unit) = self.entry().and_then(|entry| entry.unit) {
            path.push('@');
            path.push_str(unit);
        }
        path
    }

    /// Returns the node that this one is a child of, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Node<'t, 'a>> {
        let index = self.entry()?.parent;
        (self.index != 0).then_some(Node {
            tree: self.tree,
            index,
        })
    }

    /// Goes through the node's children in the tree's order.
    pub fn children(&self) -> impl Iterator<Item = Node<'t, 'a>> + use<'t, 'a> {
        let (tree, parent) = (self.tree, self.index);
        let below = tree.nodes.iter().enumerate().skip(parent.saturating_add(1));
        // Parents come before children, so the first node with an earlier parent ends this node's subtree.
        below
            .take_while(move |(_, entry)| entry.parent >= parent)
            .filter_map(move |(index, entry)| {
                (entry.parent == parent).then_some(Node { tree, index })
            })
    }

    /// Goes through the node's properties as names and values; stops at the first that is malformed.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let properties = self.entry().and_then(|entry| entry.node.properties().ok());
        properties
            .into_iter()
            .flat_map(|properties| properties.iter())
            .map_while(Result::ok)
            .map(|property| (property.name, property.value))
    }

    /// Returns whether a property has no readable name, so that [`Node::properties`] does not show all of them.
    #[must_use]
    pub fn has_malformed_property(&self) -> bool {
        let properties = self.entry().map(|entry| entry.node.properties());
        properties
            .is_none_or(|properties| properties.is_ok_and(|all| all.iter().any(|one| one.is_err())))
    }

    /// Returns a property's bytes.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        self.properties()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// Returns a property that is one 32-bit cell.
    #[must_use]
    pub fn u32(&self, name: &str) -> Option<u32> {
        Some(u32::from_be_bytes(self.property(name)?.try_into().ok()?))
    }

    /// Returns a property that is a number of one or two cells.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        matches!(value.len(), 4 | 8)
            .then(|| Cells(value).number(value.len() / 4))
            .flatten()
    }

    /// Returns a property that is one string.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<&'a str> {
        single_string(self.property(name)?)
    }

    /// Goes through a property that is a list of strings; strings that are not UTF-8 are left out.
    pub fn strings(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.property(name).unwrap_or_default();
        value
            .split(|byte| *byte == 0)
            .filter_map(|bytes| core::str::from_utf8(bytes).ok())
            .filter(|s| !s.is_empty())
    }

    /// Returns whether `compatible` lists one of these models.
    #[must_use]
    pub fn is_compatible(&self, models: &[&str]) -> bool {
        self.strings("compatible")
            .any(|model| models.contains(&model))
    }

    /// Returns whether the node may be used: no `status`, or one that says so (Devicetree Specification 2.3.4).
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        match self.property("status") {
            None => true,
            Some(value) => matches!(single_string(value), Some("okay" | "ok")),
        }
    }

    /// Returns how many cells an address and a size take in this node's children (Devicetree Specification 2.3.5).
    #[must_use]
    pub fn child_cells(&self) -> (usize, usize) {
        let cells = |name, default| self.u32(name).map_or(default, |cells| cells as usize);
        (cells("#address-cells", 2), cells("#size-cells", 1))
    }

    /// Goes through `reg` as CPU physical ranges: each address is translated through the `ranges` of every bus above.
    pub fn reg(&self) -> impl Iterator<Item = Result<AddressRange, RegError>> + use<'t, 'a> {
        let node = *self;
        let (address, size) = self.parent().map_or((2, 1), |parent| parent.child_cells());
        let mut cells = Cells(self.property("reg").unwrap_or_default());
        core::iter::from_fn(move || {
            if cells.0.is_empty() {
                return None;
            }
            if address.saturating_add(size) == 0 {
                cells.0 = &[];
                return Some(Err(RegError::Malformed));
            }
            let entry = (cells.number(address), cells.number(size));
            let (Some(base), Some(size)) = entry else {
                cells.0 = &[];
                return Some(Err(RegError::Malformed));
            };
            Some(node.translate(AddressRange { base, size }))
        })
    }

    /// Follows one range of this node's `reg` up to the root.
    fn translate(&self, mut range: AddressRange) -> Result<AddressRange, RegError> {
        range
            .base
            .checked_add(range.size.saturating_sub(1))
            .ok_or(RegError::Wraps)?;
        let mut bus = self.parent();
        while let Some(node) = bus {
            let Some(above) = node.parent() else { break };
            range = translate_once(&node, &above, range)?;
            bus = Some(above);
        }
        Ok(range)
    }
}

/// Why a `reg` entry gives no physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegError {
    /// The property's length is not a multiple of an entry, or a number needs more than 64 bits.
    Malformed,
    /// The range passes the end of the address space.
    Wraps,
    /// A bus above has no `ranges`, or none that covers the address.
    NotMapped,
}

impl fmt::Display for RegError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not a list of address and size",
            Self::Wraps => "passes the end of the address space",
            Self::NotMapped => "is not mapped by the `ranges` of the buses above",
        })
    }
}

/// Translates a range by the `ranges` of `bus`, whose own parent is `above` (Devicetree Specification 2.3.8).
fn translate_once(
    bus: &Node<'_, '_>,
    above: &Node<'_, '_>,
    range: AddressRange,
) -> Result<AddressRange, RegError> {
    let mut cells = Cells(bus.property("ranges").ok_or(RegError::NotMapped)?);
    let (child_cells, size_cells) = bus.child_cells();
    let (parent_cells, _) = above.child_cells();
    if cells.0.is_empty() {
        return Ok(range);
    }
    if size_cells == 0 {
        return Err(RegError::Malformed);
    }
    while !cells.0.is_empty() {
        let window = (
            cells.number(child_cells),
            cells.number(parent_cells),
            cells.number(size_cells),
        );
        let (Some(child), Some(parent), Some(size)) = window else {
            return Err(RegError::Malformed);
        };
        let Some(offset) = range.base.checked_sub(child) else {
            continue;
        };
        if offset.checked_add(range.size).is_none_or(|end| end > size) {
            continue;
        }
        let base = parent.checked_add(offset).ok_or(RegError::Wraps)?;
        base.checked_add(range.size.saturating_sub(1))
            .ok_or(RegError::Wraps)?;
        return Ok(AddressRange {
            base,
            size: range.size,
        });
    }
    Err(RegError::NotMapped)
}

/// A property's bytes, taken apart from the front in 32-bit cells.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a>(pub &'a [u8]);

impl Cells<'_> {
    /// Takes the next cell, if there is one.
    pub fn cell(&mut self) -> Option<u32> {
        let value = word(self.0, 0)?;
        self.0 = self.0.get(4..)?;
        Some(value)
    }

    /// Takes a number of `count` cells, if they are there and the number fits 64 bits.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        let mut value = 0_u64;
        for _ in 0..count {
            if value >> 32 != 0 {
                return None;
            }
            value = value << 32 | u64::from(self.cell()?);
        }
        Some(value)
    }
}

/// Reads a property that is exactly one terminated string.
fn single_string(value: &[u8]) -> Option<&str> {
    let text = core::ffi::CStr::from_bytes_with_nul(value).ok()?;
    text.to_str().ok()
}

/// Bytes of a value that a message shows.
const SHOWN_BYTES: usize = 32;

/// Writes a property's value for people: as text if it is text, else as cells.
#[must_use]
pub fn show(value: &[u8]) -> String {
    let text = value.strip_suffix(&[0]).filter(|text| !text.is_empty());
    if let Some(text) = text.filter(|text| text.iter().all(|byte| matches!(byte, b' '..=b'~' | 0)))
    {
        return alloc::format!(
            "\"{}\"",
            String::from_utf8_lossy(text).replace('\0', "\", \"")
        );
    }
    let mut shown = String::from("<");
    for (index, cell) in value.chunks(4).take(SHOWN_BYTES / 4).enumerate() {
        let number = cell
            .iter()
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        shown.push_str(&alloc::format!(
            "{}{number:#x}",
            if index == 0 { "" } else { " " }
        ));
    }
    shown.push_str(if value.len() > SHOWN_BYTES {
        " ...>"
    } else {
        ">"
    });
    shown
}
