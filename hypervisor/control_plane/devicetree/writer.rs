//! Device trees, written front to back (Devicetree Specification v0.4, chapter 5).

use alloc::vec::Vec;

use super::{COMPATIBLE_VERSION, HEADER_BYTES, MAGIC, VERSION};

/// Tokens of the structure block (Devicetree Specification 5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;
/// Size of the memory reservation block's terminator: all there is of the block (Devicetree Specification 5.3.1).
const NO_RESERVATIONS: usize = 16;
/// Where the structure block begins.
const STRUCTURE_AT: usize = HEADER_BYTES + NO_RESERVATIONS;

/// A tree being written; its first node has to be the root, whose name is empty. Names are the caller's to choose well: they hold no NUL and fit their bindings.
#[derive(Clone, Debug)]
pub struct TreeWriter {
    /// The structure block, behind room for what comes before it.
    structure: Vec<u8>,
    strings: Vec<u8>,
    /// Where each name begins among the strings, and its length: most others are told apart by that alone.
    names: Vec<(u32, u32)>,
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self {
            structure: alloc::vec![0; STRUCTURE_AT],
            strings: Vec::new(),
            names: Vec::new(),
        }
    }
}

impl TreeWriter {
    /// Adds a node with what `fill` puts in it.
    pub fn node(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.begin(name);
        fill(self);
        self.end();
    }

    /// Begins a node, for a tree that is not written at once; [`TreeWriter::end`] ends the one that was begun last.
    pub fn begin(&mut self, name: &str) {
        self.word(BEGIN_NODE);
        self.bytes(name.as_bytes(), 1);
    }

    /// Ends the node that was begun last and is not ended.
    pub fn end(&mut self) {
        self.word(END_NODE);
    }

    /// Adds a property of bytes to the node that was begun last.
    pub fn property(&mut self, name: &str, value: &[u8]) {
        let name = self.name(name);
        self.word(PROP);
        self.word(value.len() as u32);
        self.word(name);
        self.bytes(value, 0);
    }

    /// Adds a property that is a list of strings.
    pub fn texts(&mut self, name: &str, texts: &[&str]) {
        let mut value = Vec::new();
        for text in texts {
            value.extend_from_slice(text.as_bytes());
            value.push(0);
        }
        self.property(name, &value);
    }

    /// Adds a property of 32-bit numbers.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &value);
    }

    /// Adds a property of 64-bit numbers.
    pub fn numbers(&mut self, name: &str, numbers: &[u64]) {
        let value: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self.property(name, &value);
    }

    /// Ends the tree and returns it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.word(END);
        let strings_at = self.structure.len();
        let size = strings_at.saturating_add(self.strings.len());
        let (header, version) = (HEADER_BYTES, VERSION as usize);
        let blocks = [size, STRUCTURE_AT, strings_at, header, version];
        let structure = strings_at.saturating_sub(STRUCTURE_AT);
        let lengths = [0, self.strings.len(), structure];
        let words = [MAGIC]
            .into_iter()
            .chain(blocks.map(|word| word as u32))
            .chain([COMPATIBLE_VERSION as u32])
            .chain(lengths.map(|word| word as u32));
        let mut tree = self.structure;
        let (places, _) = tree.as_chunks_mut();
        for (place, word) in places.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        tree.append(&mut self.strings);
        tree
    }

    /// Returns how many bytes describe the nodes so far.
    #[cfg(test)]
    pub(crate) const fn written(&self) -> usize {
        self.structure.len()
    }

    fn word(&mut self, word: u32) {
        self.structure.extend_from_slice(&word.to_be_bytes());
    }

    /// Adds bytes with `zeros` behind them, and what it takes to reach the next word.
    fn bytes(&mut self, bytes: &[u8], zeros: usize) {
        self.structure.extend_from_slice(bytes);
        let end = self.structure.len().saturating_add(zeros);
        let end = end.next_multiple_of(size_of::<u32>());
        self.structure.resize(end, 0);
    }

    /// Returns where a property's name stands among the strings.
    fn name(&mut self, name: &str) -> u32 {
        let length = name.len() as u32;
        let known = self.names.iter().find(|(at, long)| {
            let text = self.strings.get(*at as usize..);
            *long == length && text.is_some_and(|text| text.starts_with(name.as_bytes()))
        });
        if let Some((at, _)) = known {
            return *at;
        }
        let at = self.strings.len() as u32;
        self.names.push((at, length));
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::TreeWriter;

    #[test]
    fn trees_are_what_another_writer_makes_of_the_same() {
        let mut ours = TreeWriter::default();
        ours.node("", |tree| {
            tree.cells("#address-cells", &[2]);
            tree.texts("compatible", &["a,b", "linux,dummy"]);
            tree.node("memory@40000000", |tree| {
                tree.numbers("reg", &[0x4000_0000, 0x1_0000_0001]);
                tree.property("empty", &[]);
                tree.property("odd", &[1, 2, 3, 4, 5]);
            });
            tree.node("abc", |tree| tree.cells("reg", &[1, 2, 3]));
        });
        let mut theirs = vm_fdt::FdtWriter::new().unwrap();
        let root = theirs.begin_node("").unwrap();
        theirs.property_u32("#address-cells", 2).unwrap();
        let list = ["a,b", "linux,dummy"].map(Into::into).to_vec();
        theirs.property_string_list("compatible", list).unwrap();
        let memory = theirs.begin_node("memory@40000000").unwrap();
        let reg = [0x4000_0000, 0x1_0000_0001];
        theirs.property_array_u64("reg", &reg).unwrap();
        theirs.property_null("empty").unwrap();
        theirs.property("odd", &[1, 2, 3, 4, 5]).unwrap();
        theirs.end_node(memory).unwrap();
        let other = theirs.begin_node("abc").unwrap();
        theirs.property_array_u32("reg", &[1, 2, 3]).unwrap();
        theirs.end_node(other).unwrap();
        theirs.end_node(root).unwrap();
        assert_eq!(ours.finish(), theirs.finish().unwrap());
    }
}
