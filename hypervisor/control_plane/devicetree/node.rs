//! A node with its names, properties and relatives.

use alloc::string::{String, ToString};

use super::value::{Cells, single_string};
use super::{Entry, Property, Tree};

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'t, 'a> {
    pub(super) tree: &'t Tree<'a>,
    pub(super) index: usize,
}

impl<'t, 'a> Node<'t, 'a> {
    fn entry(&self) -> Option<Entry> {
        self.tree.nodes.get(self.index).copied()
    }

    /// Returns the bytes of the node's name with unit address.
    fn name_bytes(&self) -> &'a [u8] {
        let name = self.entry().map(|entry| entry.name);
        name.map_or(&[][..], |name| name.bytes(self.tree.structure))
    }

    /// Returns the node's name with unit address.
    fn full_name(&self) -> &'a str {
        core::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// Returns the tree this is a node of.
    pub fn tree(&self) -> &'t Tree<'a> {
        self.tree
    }

    /// Returns the node's name without unit address; the root's is empty.
    pub fn name(&self) -> &'a str {
        let name = self.full_name();
        name.split_once('@').map_or(name, |(name, _)| name)
    }

    /// Returns whether the node has this name and, where one is given, this unit address.
    pub(super) fn is_called(&self, name: &str, unit: Option<&str>) -> bool {
        // As bytes: a search comes by all other nodes.
        let Some(rest) = self.name_bytes().strip_prefix(name.as_bytes()) else {
            return false;
        };
        let own = rest.strip_prefix(b"@");
        (rest.is_empty() || own.is_some()) && (unit.is_none() || own == unit.map(str::as_bytes))
    }

    /// Returns the node's full path, for messages.
    pub fn path(&self) -> String {
        let Some(parent) = self.parent() else {
            return "/".to_string();
        };
        let mut path = parent.path();
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(self.full_name());
        path
    }

    /// Returns the node that this one is a child of, or `None` for the root.
    pub fn parent(&self) -> Option<Node<'t, 'a>> {
        let index = self.entry()?.parent as usize;
        (self.index != 0).then_some(Node {
            tree: self.tree,
            index,
        })
    }

    /// Goes through the node's children in the tree's order.
    pub fn children(&self) -> impl Iterator<Item = Node<'t, 'a>> + use<'t, 'a> {
        let (tree, parent) = (self.tree, self.index);
        self.entries_below().filter_map(move |(index, entry)| {
            (entry.parent as usize == parent).then_some(Node { tree, index })
        })
    }

    /// Goes through all nodes below this one in the tree's order.
    pub fn below(&self) -> impl Iterator<Item = Node<'t, 'a>> + use<'t, 'a> {
        let tree = self.tree;
        self.entries_below()
            .map(move |(index, _)| Node { tree, index })
    }

    /// Goes through what is kept of all nodes below this one.
    fn entries_below(&self) -> impl Iterator<Item = (usize, &'t Entry)> + use<'t, 'a> {
        let (nodes, parent) = (&self.tree.nodes, self.index);
        let behind = nodes.iter().enumerate().skip(parent.saturating_add(1));
        // Parents come before children, so the first node with an earlier parent ends this node's subtree.
        behind.take_while(move |(_, entry)| entry.parent as usize >= parent)
    }

    /// Returns where the node's properties are.
    fn places(&self) -> &'t [Property] {
        let end = |index: usize| {
            self.tree
                .nodes
                .get(index)
                .map(|entry| entry.properties as usize)
        };
        let start = self.index.checked_sub(1).and_then(end).unwrap_or(0);
        let range = start..end(self.index).unwrap_or(0);
        self.tree.properties.get(range).unwrap_or_default()
    }

    /// Goes through the node's properties as names and values.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'t, 'a> {
        let tree = self.tree;
        self.places().iter().filter_map(|property| {
            let name = core::str::from_utf8(property.name.bytes(tree.strings)).ok()?;
            Some((name, property.value.bytes(tree.structure)))
        })
    }

    /// Returns a property's bytes.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |found: &&Property| {
            found.name.bytes as usize == name.len()
                && found.name.bytes(self.tree.strings) == name.as_bytes()
        };
        let found = self.places().iter().find(is_it)?;
        Some(found.value.bytes(self.tree.structure))
    }

    /// Returns a property that is one 32-bit cell.
    pub fn u32(&self, name: &str) -> Option<u32> {
        Some(u32::from_be_bytes(self.property(name)?.try_into().ok()?))
    }

    /// Returns a property that is a number of one or two cells.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        matches!(value.len(), 4 | 8)
            .then(|| Cells(value).number(value.len() / 4))
            .flatten()
    }

    /// Returns a property that is one string.
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

    /// Goes through the models that `compatible` lists, most specific first.
    pub fn models(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let value = self.property("compatible").unwrap_or_default();
        value.split(|byte| *byte == 0)
    }

    /// Returns whether `compatible` lists one of these models.
    pub fn is_compatible(&self, models: &[&str]) -> bool {
        self.models()
            .any(|model| models.iter().any(|known| known.as_bytes() == model))
    }

    /// Returns whether the node may be used: no `status`, or one that says so (Devicetree Specification 2.3.4).
    pub fn is_enabled(&self) -> bool {
        self.property("status")
            .is_none_or(|value| matches!(value, b"okay\0" | b"ok\0"))
    }

    /// Returns how many cells an address and a size take in this node's children (Devicetree Specification 2.3.5).
    pub fn child_cells(&self) -> (usize, usize) {
        let cells = |name, default| self.u32(name).map_or(default, |cells| cells as usize);
        (cells("#address-cells", 2), cells("#size-cells", 1))
    }
}
