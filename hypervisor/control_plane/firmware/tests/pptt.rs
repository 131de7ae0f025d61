//! The PPTT as an operating system walks it: from each vCPU up to its package.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Image, blob, build, describe, described, machine, u16_at, u32_at};
use crate::firmware::{Firmware, Machine};
use crate::topology::{Cache, CacheKind, CpuFacts, Topology};
use types::layout::{GuestLayout, Region};

const PACKAGE: u32 = 1;
const ID_VALID: u32 = 2;
const THREAD: u32 = 4;
const LEAF: u32 = 8;

/// A machine with this topology.
fn grouped(groups: [u32; 4], cpu: &CpuFacts) -> Image {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, super::GIB)];
    let base = machine(&layout, &memory, Firmware::Acpi);
    let vcpus = groups.iter().product::<u32>() as u16;
    build(&Machine {
        boot_vcpus: 1,
        max_vcpus: vcpus,
        topology: Topology::new(groups, vcpus).unwrap(),
        cpu,
        ..base
    })
    .unwrap()
}

/// A processor hierarchy node: where it is, and its fields.
#[derive(Debug)]
struct Node {
    at: u32,
    flags: u32,
    parent: u32,
    id: u32,
    resources: Vec<u32>,
}

/// The nodes, and the places of the caches.
fn read(table: &[u8]) -> (Vec<Node>, BTreeSet<u32>) {
    let (mut nodes, mut caches) = (Vec::new(), BTreeSet::new());
    let mut at = 36;
    while at < table.len() {
        let bytes = &table[at..at + usize::from(table[at + 1])];
        match bytes[0] {
            0 => nodes.push(Node {
                at: at as u32,
                flags: u32_at(bytes, 4),
                parent: u32_at(bytes, 8),
                id: u32_at(bytes, 12),
                resources: bytes[20..]
                    .chunks(4)
                    .map(|resource| u32_at(resource, 0))
                    .collect(),
            }),
            1 => assert!(caches.insert(at as u32) && bytes.len() == 28),
            kind => panic!("type {kind} at {at}"),
        }
        if bytes[0] == 0 {
            let count = nodes.last().unwrap().resources.len();
            assert_eq!(
                (u32_at(bytes, 16) as usize, bytes.len()),
                (count, 20 + 4 * count)
            );
        }
        at += bytes.len();
    }
    (nodes, caches)
}

/// The path from a vCPU up to its package.
fn path(nodes: &[Node], id: u32) -> Vec<&Node> {
    let leaves = |node: &&Node| node.flags & LEAF != 0 && node.id == id;
    let mut leaves = nodes.iter().filter(leaves);
    let mut path: Vec<&Node> = leaves.next().into_iter().collect();
    assert!(leaves.next().is_none(), "{id} is there twice");
    while let Some(last) = path.last()
        && last.parent != 0
    {
        path.push(nodes.iter().find(|node| node.at == last.parent).unwrap());
    }
    path
}

#[test]
fn every_possible_vcpu_has_its_core_cluster_and_package() {
    for groups in [
        [1, 1, 1, 1],
        [1, 1, 512, 1],
        [2, 1, 4, 1],
        [2, 3, 4, 2],
        [1, 512, 1, 1],
        [16, 1, 1, 32],
    ] {
        let image = grouped(groups, super::cortex_a57());
        let (nodes, _) = read(&blob(&image, "PPTT").bytes);
        let [packages, clusters, cores, threads] = groups;
        let of_kind = |flag: u32| nodes.iter().filter(|node| node.flags & flag != 0).count() as u32;
        assert_eq!(of_kind(PACKAGE), packages, "{groups:?}");
        let vcpus = packages * clusters * cores * threads;
        assert_eq!(of_kind(LEAF), vcpus, "{groups:?}");
        for id in 0..vcpus {
            let path = path(&nodes, id);
            let depth = 2 + u32::from(threads > 1) + u32::from(clusters > 1);
            assert_eq!(path.len() as u32, depth, "{id} of {groups:?}");
            assert_eq!(path[0].flags & ID_VALID, ID_VALID);
            assert_eq!(path[0].flags & THREAD != 0, threads > 1);
            let top = path.last().unwrap();
            assert_eq!(top.flags & PACKAGE, PACKAGE);
            // Its package is the one that its number says, and so are cluster and core.
            let same =
                |other: u32, level: usize| self::path(&nodes, other)[level].at == path[level].at;
            if id > 0 {
                let package = clusters * cores * threads;
                assert_eq!(same(id - 1, path.len() - 1), id % package != 0);
                if clusters > 1 {
                    assert_eq!(same(id - 1, path.len() - 2), id % (cores * threads) != 0);
                }
                if threads > 1 {
                    assert_eq!(same(id - 1, 1), id % threads != 0);
                }
            }
        }
    }
}

#[test]
fn caches_are_the_cores_own_but_the_last() {
    let image = grouped([2, 1, 4, 1], super::cortex_a57());
    let table = &blob(&image, "PPTT").bytes;
    let (nodes, caches) = read(table);
    assert_eq!(caches.len(), 2 + 8 * 2);
    let mut owned = BTreeSet::new();
    for node in &nodes {
        for resource in &node.resources {
            assert!(caches.contains(resource) && owned.insert(*resource));
        }
    }
    assert_eq!(owned, caches);
    let names: BTreeSet<u32> = caches
        .iter()
        .map(|at| u32_at(table, *at as usize + 24))
        .collect();
    assert!(names.len() == caches.len() && !names.contains(&0));
    let fields = |at: u32| {
        let cache = &table[at as usize..];
        (
            u32_at(cache, 4),
            u32_at(cache, 8),
            u32_at(cache, 12),
            u32_at(cache, 16),
        )
    };
    let rest = |at: u32| {
        let cache = &table[at as usize..];
        (cache[20], cache[21] >> 2 & 3, u16_at(cache, 22))
    };
    let path = path(&nodes, 5);
    let [data, instructions] = path[0].resources[..] else {
        panic!("{path:?}")
    };
    assert_eq!(
        (fields(data), rest(data)),
        ((0xd7, 0, 32 << 10, 128), (4, 0, 64))
    );
    assert_eq!(
        (fields(instructions), rest(instructions)),
        ((0xd7, 0, 48 << 10, 256), (3, 1, 64))
    );
    let [shared] = path[1].resources[..] else {
        panic!("{path:?}")
    };
    assert_eq!(
        (fields(shared), rest(shared)),
        ((0xd7, 0, 2 << 20, 2048), (16, 2, 64))
    );
}

#[test]
fn a_level_between_is_behind_the_first() {
    let cache = |level, kind, ways| Cache {
        level,
        kind,
        sets: 1024,
        ways,
        line: 64,
    };
    let mut cpu = CpuFacts::default();
    for one in [
        cache(1, CacheKind::Data, 4),
        cache(1, CacheKind::Instruction, 4),
        cache(2, CacheKind::Unified, 8),
        cache(3, CacheKind::Unified, 300),
    ] {
        cpu.caches.push(one).unwrap();
    }
    let image = grouped([1, 1, 2, 2], &cpu);
    let table = &blob(&image, "PPTT").bytes;
    let (nodes, caches) = read(table);
    assert_eq!(caches.len(), 1 + 2 * 3);
    let path = path(&nodes, 3);
    assert!(path[0].resources.is_empty(), "a thread has its core's");
    let next: BTreeSet<u32> = path[1]
        .resources
        .iter()
        .map(|first| u32_at(table, *first as usize + 8))
        .collect();
    assert_eq!((path[1].resources.len(), next.len()), (2, 1));
    assert!(next.iter().all(|second| caches.contains(second)));
    // More ways than the field can say: it is left out.
    let shared = path[2].resources[0] as usize;
    assert_eq!((u32_at(table, shared + 4), table[shared + 20]), (0xd3, 0));
    // Without caches there are none.
    let (nodes, caches) = read(&blob(&grouped([1, 1, 2, 2], &CpuFacts::default()), "PPTT").bytes);
    assert!(caches.is_empty() && nodes.iter().all(|node| node.resources.is_empty()));
}

#[test]
fn no_piece_is_long() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, super::GIB)];
    let base = machine(&layout, &memory, Firmware::Acpi);
    let big = Machine {
        max_vcpus: 512,
        topology: Topology::flat(512),
        ..base
    };
    let mut pieces = Vec::new();
    describe(&big, &mut |blob| {
        if blob.what == "PPTT" {
            pieces.push(blob.bytes.len());
        }
        Ok(())
    })
    .unwrap();
    assert!(
        pieces.len() > 30 && pieces.iter().all(|piece| *piece <= 1200),
        "{pieces:?}"
    );
    assert_eq!(
        blob(&described(2, 512, Firmware::Acpi), "PPTT").bytes.len(),
        pieces.iter().sum::<usize>()
    );
}
