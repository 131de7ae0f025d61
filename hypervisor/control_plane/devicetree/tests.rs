//! Trees, whole and damaged.

use std::vec::Vec;

use proptest::prelude::*;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use super::*;

/// A tree with a bus that shifts addresses and one that maps nothing.
fn buses() -> Vec<u8> {
    let reserved = [FdtReserveEntry::new(0x1000, 0x2000).expect("a range")];
    let mut writer = FdtWriter::new_with_mem_reserv(&reserved).expect("a tree");
    let root = writer.begin_node("").expect("root");
    writer.property_u32("#address-cells", 2).expect("cells");
    writer.property_u32("#size-cells", 2).expect("cells");
    for (bus, ranges) in [
        (
            "soc",
            Some(&[0x7e00_0000, 0x0, 0xfe00_0000, 0x180_0000][..]),
        ),
        ("identity", Some(&[][..])),
        ("closed", None),
    ] {
        let node = writer.begin_node(bus).expect("bus");
        writer.property_u32("#address-cells", 1).expect("cells");
        writer.property_u32("#size-cells", 1).expect("cells");
        if let Some(ranges) = ranges {
            writer.property_array_u32("ranges", ranges).expect("ranges");
        }
        let device = writer.begin_node("device@7e201000").expect("device");
        let reg = [0x7e20_1000, 0x200, 0x7f7f_ff00, 0x200, 0x1000, 0x10];
        writer.property_array_u32("reg", &reg).expect("reg");
        writer
            .property_string("compatible", "one")
            .expect("compatible");
        writer.end_node(device).expect("end");
        writer.end_node(node).expect("end");
    }
    writer.end_node(root).expect("end");
    writer.finish().expect("a tree")
}

fn reg(tree: &Tree<'_>, path: &str) -> Vec<Result<u64, RegError>> {
    let node = tree.find(path).expect(path);
    node.reg()
        .map(|range| range.map(|range| range.base))
        .collect()
}

#[test]
fn addresses_go_through_the_buses_above() {
    let blob = buses();
    let tree = Tree::parse(&blob).expect("a tree");
    let not_mapped = Err(RegError::NotMapped);
    // The second range ends past the window; the third lies before it.
    assert_eq!(
        reg(&tree, "/soc/device"),
        [Ok(0xfe20_1000), not_mapped, not_mapped]
    );
    assert_eq!(
        reg(&tree, "/identity/device@7e201000"),
        [Ok(0x7e20_1000), Ok(0x7f7f_ff00), Ok(0x1000)]
    );
    assert_eq!(reg(&tree, "/closed/device"), [not_mapped; 3]);
}

#[test]
fn nodes_are_found_by_path_and_know_theirs() {
    let blob = buses();
    let tree = Tree::parse(&blob).expect("a tree");
    let device = tree.find("/identity/device").expect("a device");
    assert_eq!(device.path(), "/identity/device@7e201000");
    assert_eq!(
        device.parent().map(|bus| bus.path()),
        Some("/identity".into())
    );
    assert_eq!(tree.find("/").map(|root| root.path()), Some("/".into()));
    assert_eq!(tree.root().children().count(), 3);
    for absent in [
        "/identity/device@1",
        "/none",
        "identity",
        "",
        "/identity/device/x",
    ] {
        assert!(tree.find(absent).is_none(), "{absent}");
    }
    assert_eq!(
        tree.reservations(),
        [AddressRange {
            base: 0x1000,
            size: 0x2000
        }]
    );
}

#[test]
fn buses_without_cells_do_not_hang_the_reader() {
    let mut writer = FdtWriter::new().expect("a tree");
    let root = writer.begin_node("").expect("root");
    writer.property_u32("#address-cells", 0).expect("cells");
    writer.property_u32("#size-cells", 0).expect("cells");
    writer
        .property_array_u32("ranges", &[1, 2, 3])
        .expect("ranges");
    let device = writer.begin_node("device").expect("device");
    writer.property_array_u32("reg", &[1, 2, 3]).expect("reg");
    writer.end_node(device).expect("end");
    writer.end_node(root).expect("end");
    let blob = writer.finish().expect("a tree");
    let tree = Tree::parse(&blob).expect("a tree");
    assert_eq!(reg(&tree, "/device"), [Err(RegError::Malformed)]);
}

/// A tree of nodes nested this deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut writer = FdtWriter::new().expect("a tree");
    let nodes: Vec<_> = (0..=depth)
        .map(|level| {
            writer
                .begin_node(if level == 0 { "" } else { "n" })
                .expect("node")
        })
        .collect();
    for node in nodes.into_iter().rev() {
        writer.end_node(node).expect("end");
    }
    writer.finish().expect("a tree")
}

#[test]
fn deep_trees_are_refused_and_never_cut() {
    let blob = nested(MAX_DEPTH);
    let tree = Tree::parse(&blob).expect("deep enough");
    assert_eq!(tree.nodes().count(), MAX_DEPTH + 1);
    for depth in MAX_DEPTH + 1..MAX_DEPTH + 6 {
        assert_eq!(
            Tree::parse(&nested(depth)).err(),
            Some(TreeError::TooDeep),
            "{depth}"
        );
    }
}

#[test]
fn a_tree_of_the_largest_size_is_read_whole() {
    const NODES: usize = 30_000;
    const PROPERTIES: usize = 90_000;
    let mut writer = FdtWriter::new().expect("a tree");
    let root = writer.begin_node("").expect("root");
    for node in 0..NODES {
        let open = writer
            .begin_node(&std::format!("n@{node:x}"))
            .expect("node");
        for property in 0..PROPERTIES / NODES {
            let name = ["a", "b", "c"][property];
            writer.property_u32(name, node as u32).expect("property");
        }
        writer.end_node(open).expect("end");
    }
    writer.end_node(root).expect("end");
    let blob = writer.finish().expect("a tree");
    assert!(
        blob.len() > MAX_BYTES * 7 / 10 && blob.len() <= MAX_BYTES,
        "{}",
        blob.len()
    );
    let tree = Tree::parse(&blob).expect("a legal tree");
    assert_eq!(tree.nodes().count(), NODES + 1);
    let properties: usize = tree.nodes().map(|node| node.properties().count()).sum();
    assert_eq!(properties, PROPERTIES);
    let last = tree.nodes().last().expect("a node");
    assert_eq!(
        (last.path().as_str(), last.u32("c")),
        ("/n@752f", Some(0x752f))
    );
}

#[test]
fn properties_behind_children_and_second_roots_are_refused() {
    const BEGIN: u32 = 1;
    const NAME: u32 = 0x6e00_0000;
    let structure = |words: &[u32]| {
        let mut blob = buses();
        let start = u32::from_be_bytes(blob[8..12].try_into().expect("a word")) as usize;
        for (slot, word) in blob[start..].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        Tree::parse(&blob).map(|tree| tree.nodes().count())
    };
    let two = structure(&[BEGIN, 0, 3, 0, 0, BEGIN, NAME, 4, 2, 2, 9]);
    assert_eq!(two, Ok(2));
    assert_eq!(structure(&[4, BEGIN, 0, 4, 2, 4, 9]), Ok(1));
    let nodes = |nodes| Err(TreeError::Structure { nodes });
    let late = structure(&[BEGIN, 0, BEGIN, NAME, 2, 3, 0, 0, 2, 9]);
    assert_eq!(late, nodes(2));
    assert_eq!(structure(&[BEGIN, 0, 2, BEGIN, NAME, 2, 9]), nodes(1));
    assert_eq!(structure(&[BEGIN, 0, BEGIN, 0, 2, 2, 9]), nodes(1));
    assert_eq!(structure(&[BEGIN, 0, BEGIN, NAME, 2, 9]), nodes(2));
    assert_eq!(structure(&[BEGIN, 0, 9, 0]), nodes(0));
    assert_eq!(structure(&[9, 0, 0, 0]), nodes(0));
}

/// Writes a word of the header.
fn with_header(mut blob: Vec<u8>, index: usize, value: u32) -> Vec<u8> {
    blob[index * 4..][..4].copy_from_slice(&value.to_be_bytes());
    blob
}

#[test]
fn every_lie_of_a_header_is_named() {
    let blob = buses();
    let size = blob.len() as u32;
    let parse = |blob: Vec<u8>| Tree::parse(&blob).map(|tree| tree.nodes().count());
    assert_eq!(
        parse(Vec::new()),
        Err(TreeError::Truncated {
            declared: 40,
            present: 0
        })
    );
    assert_eq!(
        parse(blob[..20].to_vec()),
        Err(TreeError::Truncated {
            declared: u64::from(size),
            present: 20
        })
    );
    let short = blob[..blob.len() - 1].to_vec();
    let (declared, present) = (u64::from(size), u64::from(size) - 1);
    assert_eq!(
        parse(short),
        Err(TreeError::Truncated { declared, present })
    );
    let cases = [
        (0, 0x4154_4147, TreeError::Magic(0x4154_4147)),
        (1, u32::MAX, TreeError::TooLarge(u64::from(u32::MAX))),
        (2, u32::MAX, TreeError::Block("structure")),
        (9, u32::MAX, TreeError::Block("structure")),
        (9, 4, TreeError::Block("structure")),
        (3, u32::MAX - 3, TreeError::Block("strings")),
        (8, size, TreeError::Block("strings")),
        (4, size, TreeError::Block("memory reservation")),
        (4, u32::MAX, TreeError::Block("memory reservation")),
        (5, 16, TreeError::Version(16)),
        (6, 18, TreeError::Version(17)),
    ];
    let start = u32::from_be_bytes(blob[8..12].try_into().expect("a word")) as usize;
    let mut nops = with_header(blob.clone(), 9, 64);
    for word in nops[start..start + 64].chunks_exact_mut(4) {
        word.copy_from_slice(&4_u32.to_be_bytes());
    }
    assert_eq!(parse(nops), Err(TreeError::Block("structure")));
    for (field, value, error) in cases {
        assert_eq!(
            parse(with_header(blob.clone(), field, value)),
            Err(error),
            "field {field} = {value:#x}"
        );
    }
    let longer: Vec<u8> = blob.iter().copied().chain([0xff; 100]).collect();
    assert_eq!(parse(longer), parse(blob));
}

#[test]
fn the_size_is_told_before_the_rest_is_there() {
    let blob = buses();
    assert_eq!(declared_size(&blob[..8]), Some(blob.len()));
    assert_eq!(declared_size(&blob[..7]), None);
    assert_eq!(declared_size(&[0; 8]), None);
}

#[test]
fn values_are_shown_as_text_or_cells() {
    for (value, shown) in [
        (&b"psci\0"[..], "\"psci\""),
        (b"a\0b\0", "\"a\", \"b\""),
        (b"\0\0\0\x10\0\0\0\x01", "<0x10 0x1>"),
        (b"\0", "<0x0>"),
        (b"", "<>"),
        (b"@\0\0\0", "<0x40000000>"),
        (b"bad\ntext\0", "<0x6261640a 0x74657874 0x0>"),
    ] {
        assert_eq!(show(value), shown);
    }
    let long: Vec<u8> = [b'x'; 1000].into_iter().chain([0]).collect();
    assert!(show(&[7; 1000]).len() < 120 && show(&long).len() < 140);
}

/// Looks at everything a tree offers.
fn walk(blob: &[u8]) {
    let Ok(tree) = Tree::parse(blob) else { return };
    // A node takes two tokens and a name.
    assert!(tree.nodes().count() <= blob.len() / 12);
    for node in tree.nodes() {
        assert!(
            node.parent()
                .is_none_or(|parent| parent.children().any(|child| child.path() == node.path()))
        );
        let _ = (
            node.u32("reg"),
            node.is_enabled(),
            node.properties().count(),
        );
        assert!(
            node.reg().take(blob.len() + 2).count() <= blob.len() + 1,
            "reg() must end"
        );
        let _ = node.children().count();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_trees_never_panic(bytes in prop::collection::vec((0_usize..1000, any::<u8>()), 1..12)) {
        let mut blob = buses();
        for (at, byte) in bytes {
            let length = blob.len();
            blob[at % length] = byte;
        }
        walk(&blob);
    }

    #[test]
    fn damaged_headers_never_panic(words in prop::collection::vec((1_usize..10, any::<u32>()), 1..4)) {
        let blob = words.into_iter().fold(buses(), |blob, (index, value)| with_header(blob, index, value));
        walk(&blob);
    }

    #[test]
    fn any_structure_block_is_survived(words in prop::collection::vec(prop_oneof![0_u32..12, any::<u32>()], 4..64)) {
        let mut blob = buses();
        let start = u32::from_be_bytes(blob[8..12].try_into().expect("a word")) as usize;
        for (slot, word) in blob[start..].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        walk(&blob);
    }
}
