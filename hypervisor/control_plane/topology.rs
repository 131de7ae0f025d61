//! What a guest is told of its CPUs: how its vCPUs are grouped, and which caches the machine's CPUs have.

use core::cmp::Ordering::{Equal, Less};

use heapless::Vec;

/// The most packages that a guest can be told of.
pub const MAX_PACKAGES: u16 = 16;

/// Where a CPU is in its machine: a number each for its package, its cluster and its core. Two of one core are its threads.
pub type Place = [u32; 3];

/// How vCPUs are grouped, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Packages of the machine: 1 to [`MAX_PACKAGES`].
    pub packages: u16,
    /// Clusters of a package.
    pub clusters: u16,
    /// Cores of a cluster.
    pub cores: u16,
    /// Threads of a core: one vCPU each.
    pub threads: u16,
}

impl Topology {
    /// Groups `vcpus` as the cores of one package.
    #[must_use]
    pub const fn flat(vcpus: u16) -> Self {
        Self {
            packages: 1,
            clusters: 1,
            cores: vcpus,
            threads: 1,
        }
    }

    /// Groups `vcpus` as a manifest says: packages, clusters in each, cores in each of those, threads in each of those.
    #[must_use]
    pub fn new(groups: [u32; 4], vcpus: u16) -> Option<Self> {
        let product = groups
            .iter()
            .fold(1_u64, |product, n| product.saturating_mul((*n).into()));
        let [packages, clusters, cores, threads] = groups.map(|n| u16::try_from(n).ok());
        let topology = Self {
            packages: packages?,
            clusters: clusters?,
            cores: cores?,
            threads: threads?,
        };
        let fits = product == u64::from(vcpus) && topology.packages <= MAX_PACKAGES;
        fits.then_some(topology)
    }

    /// Groups CPUs as they are in these packages, clusters and cores (numbers that grow), unless groups of a kind have not one size.
    #[must_use]
    pub fn of(places: &[Place]) -> Option<Self> {
        let first = places.first()?;
        let mut groups = [0; 3];
        let mut left = places.len();
        for (kind, count) in groups.iter_mut().enumerate() {
            let number = |place: &Place| place.get(kind).copied();
            let is_first = |place: &&Place| number(place) == number(first);
            let size = places.iter().take_while(is_first).count().max(1);
            let mut before = None;
            for (index, place) in places.iter().enumerate() {
                let here = number(place);
                let begins = index.is_multiple_of(size);
                if before.cmp(&here) != if begins { Less } else { Equal } {
                    return None;
                }
                before = here;
            }
            *count = (left / size) as u32;
            left = size;
        }
        let [packages, clusters, cores] = groups;
        let threads = left as u32;
        Self::new([packages, clusters, cores, threads], places.len() as u16)
    }

    /// Returns how many cores a package has.
    #[must_use]
    pub const fn package_cores(self) -> u16 {
        self.clusters.saturating_mul(self.cores)
    }
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// One cache of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the nearest to the CPU.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Number of sets.
    pub sets: u32,
    /// Lines of a set.
    pub ways: u32,
    /// Bytes of a line.
    pub line: u16,
}

/// The caches of a CPU, nearest first: CLIDR_EL1 has room for 7 levels of at most two each.
pub type Caches = Vec<Cache, 14>;

/// What a CPU says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFacts {
    /// MIDR_EL1.
    pub midr: u64,
    /// Its caches.
    pub caches: Caches,
}

/// Levels that CLIDR_EL1 has fields for, and the width of a field (Arm ARM DDI0487, CLIDR_EL1).
const LEVELS: u8 = 7;
const CTYPE_BITS: u8 = 3;
/// CSSELR_EL1.InD: an instruction cache is meant; the level counts from 0 above it.
const IN_D: u64 = 1;

/// Reads the caches of a CPU from CLIDR_EL1; `ccsidr` returns CCSIDR_EL1 for a value of CSSELR_EL1, in the form of FEAT_CCIDX or
/// the older one.
pub fn caches(clidr: u64, ccidx: bool, mut ccsidr: impl FnMut(u64) -> u64) -> Caches {
    let mut caches = Caches::new();
    for level in 0..LEVELS {
        let kinds: &[CacheKind] = match clidr >> (level * CTYPE_BITS) & 7 {
            1 => &[CacheKind::Instruction],
            2 => &[CacheKind::Data],
            3 => &[CacheKind::Data, CacheKind::Instruction],
            4 => &[CacheKind::Unified],
            // No caches from here on, or what no manual names.
            _ => break,
        };
        for kind in kinds {
            let in_d = if *kind == CacheKind::Instruction {
                IN_D
            } else {
                0
            };
            let size = ccsidr(u64::from(level) << 1 | in_d);
            let (ways, sets) = if ccidx {
                (size >> 3 & 0x1f_ffff, size >> 32 & 0xff_ffff)
            } else {
                (size >> 3 & 0x3ff, size >> 13 & 0x7fff)
            };
            // There is room for two of each level.
            let _ = caches.push(Cache {
                level: level.saturating_add(1),
                kind: *kind,
                sets: (sets as u32).saturating_add(1),
                ways: (ways as u32).saturating_add(1),
                line: 16 << (size & 7),
            });
        }
    }
    caches
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Cache, CacheKind, Place, Topology, caches};

    /// The values that the manuals of Cortex-A57 (DDI0488, 4.3.22) and QEMU's `max` give.
    #[test]
    fn caches_are_read_as_cortex_a57_has_them() {
        let expected = [
            (1, CacheKind::Data, 256, 2, 64),
            (1, CacheKind::Instruction, 256, 3, 64),
            (2, CacheKind::Unified, 2048, 16, 64),
        ]
        .map(|(level, kind, sets, ways, line)| Cache {
            level,
            kind,
            sets,
            ways,
            line,
        });
        let old = |select| match select {
            0 => 0x701f_e00a,
            1 => 0x201f_e012,
            2 => 0x70ff_e07a,
            _ => panic!("{select}"),
        };
        assert_eq!(caches(0x0a20_0023, false, old), expected);
        let new = |select| match select {
            0 => 255 << 32 | 1 << 3 | 2,
            1 => 255 << 32 | 2 << 3 | 2,
            2 => 2047 << 32 | 15 << 3 | 2,
            _ => panic!("{select}"),
        };
        assert_eq!(caches(0x0a20_0023, true, new), expected);
        assert_eq!(caches(0, false, |_| panic!("there is none")), []);
        assert_eq!(caches(u64::MAX, false, |_| panic!("of no known kind")), []);
        assert_eq!(caches(0o333_3333, true, |_| u64::MAX).len(), 14);
    }

    /// The places of CPUs grouped so many, clusters of each package, cores and threads, numbered as the nodes of a tree are.
    fn places([packages, clusters, cores, threads]: [u32; 4]) -> Vec<Place> {
        let (mut places, mut node) = (Vec::new(), 0);
        let mut next = || {
            node += 1;
            node
        };
        for _ in 0..packages {
            let package = next();
            for _ in 0..clusters {
                let cluster = next();
                for _ in 0..cores {
                    let core = next();
                    (0..threads).for_each(|_| places.push([package, cluster, core]));
                }
            }
        }
        places
    }

    #[test]
    fn cpus_are_grouped_as_they_lie() {
        for groups in [
            [1, 1, 1, 1],
            [1, 1, 6, 1],
            [2, 1, 2, 2],
            [1, 2, 4, 1],
            [2, 3, 4, 2],
            [16, 1, 1, 32],
        ] {
            let vcpus = groups.iter().product::<u32>() as u16;
            let expected = Topology::new(groups, vcpus);
            assert!(expected.is_some());
            assert_eq!(Topology::of(&places(groups)), expected, "{groups:?}");
        }
        let host = places([2, 2, 2, 2]);
        let some =
            |cpus: &[usize]| Topology::of(&cpus.iter().map(|cpu| host[*cpu]).collect::<Vec<_>>());
        // A cluster; a thread of each core; one CPU of each package.
        assert_eq!(some(&[4, 5, 6, 7]), Topology::new([1, 1, 2, 2], 4));
        assert_eq!(
            some(&[0, 2, 4, 6, 8, 10, 12, 14]),
            Topology::new([2, 2, 2, 1], 8)
        );
        assert_eq!(some(&[3, 12]), Topology::new([2, 1, 1, 1], 2));
        // Groups of different sizes, the last one too; one that comes again; none.
        for wrong in [
            &[0, 1, 2][..],
            &[0, 2, 3],
            &[0, 1, 2, 3, 4, 5],
            &[0, 2, 1, 3],
            &[0, 2, 4, 6, 8, 10],
            &[8, 9, 0, 1],
            &[],
        ] {
            assert_eq!(some(wrong), None, "{wrong:?}");
        }
        let seventeen = places([17, 1, 1, 1]);
        assert_eq!(Topology::of(&seventeen), None);
    }

    #[test]
    fn a_topology_has_as_many_threads_as_there_are_vcpus() {
        let groups = [2, 3, 4, 2];
        let topology = Topology::new(groups, 48).unwrap();
        assert_eq!(topology.package_cores(), 12);
        assert_eq!(Topology::new([1, 1, 5, 1], 5), Some(Topology::flat(5)));
        for (wrong, vcpus) in [
            (groups, 47),
            ([0, 1, 1, 1], 1),
            ([17, 1, 1, 1], 17),
            ([1, 1, 0x1_0000, 0x1_0000], 512),
            ([1, 1, 0x1_0001, 1], 1),
        ] {
            assert_eq!(Topology::new(wrong, vcpus), None, "{wrong:?}");
        }
        assert!(Topology::new([16, 1, 1, 1], 16).is_some());
    }
}
