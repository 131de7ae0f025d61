//! RAM filled into a tree whose maker left it to the boot loader, as that does it: into the node that is there, or a new one.
//!
//! Layout: Devicetree Specification v0.4, chapter 5.

/// Words of the header: sizes of all, of the structure block, and offsets of the blocks (5.2).
const TOTAL_SIZE: usize = 1;
const STRUCTURE: usize = 2;
const STRINGS: usize = 3;
const RESERVATIONS: usize = 4;
const STRUCTURE_SIZE: usize = 9;
/// Tokens (5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
/// What is filled in: 1 GiB, where many boards have RAM.
const BASE: u64 = 0x8000_0000;
const SIZE: u64 = 0x4000_0000;

/// A tree with RAM.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) tree: Vec<u8>,
    /// Where its RAM is.
    pub(super) base: u64,
}

/// What the tree says of RAM.
#[derive(Debug, Default)]
struct Ram {
    /// `#address-cells` and `#size-cells` of the root; 2 and 1 unless said.
    cells: (usize, usize),
    /// Where a child of the root could be put in.
    before_children: Option<usize>,
    /// Where a property of the memory node could be put in.
    in_node: Option<usize>,
    /// Where the memory node's `reg` is.
    reg: Option<(usize, usize)>,
}

/// Returns the tree with RAM if it has none; `None` if it has, or is none.
pub(super) fn filled_in(tree: &[u8]) -> Option<Filled> {
    let ram = look(tree)?;
    let (address_cells, size_cells) = ram.cells;
    let bank = |base: u64| {
        let cells = |value: u64, count: usize| value.to_be_bytes()[8 - 4 * count..].to_vec();
        [cells(base, address_cells), cells(SIZE, size_cells)].concat()
    };
    let mut filled = tree.to_vec();
    let base = match (ram.reg, ram.in_node) {
        (Some((at, bytes)), _) => {
            let value = tree.get(at..at + bytes)?;
            let (base, size) = value.split_at_checked(4 * address_cells)?;
            if size.iter().any(|byte| *byte != 0) {
                return None;
            }
            let base = number(base);
            let bank = bank(base);
            filled.get_mut(at..at + bank.len())?.copy_from_slice(&bank);
            base
        }
        (None, Some(at)) => {
            insert(&mut filled, at, &property(tree, "reg", &bank(BASE))?)?;
            BASE
        }
        (None, None) => {
            let name = [&BEGIN_NODE.to_be_bytes()[..], b"memory@80000000\0"].concat();
            let kind = property(tree, "device_type", b"memory\0")?;
            let reg = property(tree, "reg", &bank(BASE))?;
            let node = [name, kind, reg, END_NODE.to_be_bytes().to_vec()].concat();
            insert(&mut filled, ram.before_children?, &node)?;
            BASE
        }
    };
    Some(Filled { tree: filled, base })
}

fn word(tree: &[u8], at: usize) -> Option<u32> {
    let bytes = tree.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn header(tree: &[u8], index: usize) -> Option<usize> {
    word(tree, 4 * index).map(|value| value as usize)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Returns the text at a place, up to its zero.
fn text(tree: &[u8], at: usize) -> Option<&str> {
    let bytes = tree.get(at..)?.split(|byte| *byte == 0).next()?;
    core::str::from_utf8(bytes).ok()
}

/// Walks the structure block once.
fn look(tree: &[u8]) -> Option<Ram> {
    let mut at = header(tree, STRUCTURE)?;
    let strings = header(tree, STRINGS)?;
    let mut ram = Ram {
        cells: (2, 1),
        ..Ram::default()
    };
    let (mut depth, mut in_memory) = (0_usize, false);
    loop {
        let start = at;
        let token = word(tree, at)?;
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(tree, at)?;
                at += (name.len() + 1).next_multiple_of(4);
                depth += 1;
                if depth == 2 {
                    ram.before_children.get_or_insert(start);
                    in_memory = name == "memory" || name.starts_with("memory@");
                    if in_memory {
                        ram.in_node.get_or_insert(at);
                    }
                }
            }
            END_NODE => depth = depth.checked_sub(1)?,
            PROPERTY => {
                let bytes = word(tree, at)? as usize;
                let name = text(tree, strings.checked_add(word(tree, at + 4)? as usize)?)?;
                at += 8;
                let value = tree.get(at..at.checked_add(bytes)?)?;
                match (depth, name) {
                    (1, "#address-cells") => ram.cells.0 = number(value) as usize,
                    (1, "#size-cells") => ram.cells.1 = number(value) as usize,
                    (2, "reg") if in_memory => {
                        ram.reg.get_or_insert((at, bytes));
                    }
                    _ => {}
                }
                at += bytes.next_multiple_of(4);
            }
            NOP => {}
            _ => break,
        }
    }
    let is_fine = |cells: usize| (1..=2).contains(&cells);
    (is_fine(ram.cells.0) && is_fine(ram.cells.1)).then_some(ram)
}

/// Returns the tokens of a property whose name the tree knows, as every tree with CPUs knows those that are asked for.
fn property(tree: &[u8], name: &str, value: &[u8]) -> Option<Vec<u8>> {
    let strings = tree.get(header(tree, STRINGS)?..)?;
    let wanted = [name.as_bytes(), &[0]].concat();
    let place = strings
        .windows(wanted.len())
        .position(|part| part == wanted)?;
    let words = [PROPERTY, value.len() as u32, place as u32];
    let mut tokens: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    tokens.extend(value);
    tokens.resize(tokens.len().next_multiple_of(4), 0);
    Some(tokens)
}

/// Puts tokens into the structure block and moves what is behind.
fn insert(tree: &mut Vec<u8>, at: usize, tokens: &[u8]) -> Option<()> {
    for index in [TOTAL_SIZE, STRUCTURE_SIZE, STRINGS, RESERVATIONS] {
        let value = header(tree, index)?;
        let moves = matches!(index, TOTAL_SIZE | STRUCTURE_SIZE) || value >= at;
        let value = value + if moves { tokens.len() } else { 0 };
        tree.get_mut(4 * index..4 * index + 4)?
            .copy_from_slice(&(value as u32).to_be_bytes());
    }
    tree.splice(at..at, tokens.iter().copied());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{BASE, SIZE, filled_in};
    use control_plane::devicetree::Tree;
    use vm_fdt::FdtWriter;

    /// A tree of a board with these properties of its memory node, if it has one.
    fn tree(memory: Option<&[(&str, &[u32])]>) -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        let root = fdt.begin_node("").unwrap();
        fdt.property_u32("#address-cells", 2).unwrap();
        fdt.property_u32("#size-cells", 2).unwrap();
        let cpus = fdt.begin_node("cpus").unwrap();
        fdt.property_string("device_type", "cpu").unwrap();
        fdt.property_u32("reg", 0).unwrap();
        fdt.end_node(cpus).unwrap();
        if let Some(properties) = memory {
            let node = fdt.begin_node("memory").unwrap();
            fdt.property_string("device_type", "memory").unwrap();
            for (name, value) in properties {
                fdt.property_array_u32(name, value).unwrap();
            }
            fdt.end_node(node).unwrap();
        }
        fdt.end_node(root).unwrap();
        fdt.finish().unwrap()
    }

    /// Returns where the tree's RAM is, and how much.
    fn ram(blob: &[u8]) -> (u64, u64) {
        let tree = Tree::parse(blob).unwrap();
        let node = tree.nodes().find(|node| node.name() == "memory");
        let range = node.expect("RAM").reg().next().unwrap().unwrap();
        (range.base, range.size)
    }

    #[test]
    fn ram_is_filled_in_where_the_boot_loader_does() {
        for memory in [None, Some(&[][..])] {
            let filled = filled_in(&tree(memory)).unwrap();
            assert_eq!(filled.base, BASE);
            assert_eq!(ram(&filled.tree), (BASE, SIZE), "{memory:?}");
        }
        let empty = filled_in(&tree(Some(&[("reg", &[1, 0x4000_0000, 0, 0])]))).unwrap();
        assert_eq!(
            ram(&empty.tree),
            (0x1_4000_0000, SIZE),
            "where its node says"
        );
    }

    #[test]
    fn a_tree_with_ram_and_what_is_none_are_left_alone() {
        let whole = tree(Some(&[("reg", &[0, 0, 0, 0x1000])]));
        assert!(filled_in(&whole).is_none());
        for bytes in 0..whole.len() {
            let _ = filled_in(&whole[..bytes]);
        }
        assert!(filled_in(b"no tree").is_none());
    }
}
