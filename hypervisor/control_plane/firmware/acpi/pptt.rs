//! PPTT: packages, clusters, cores and threads of every possible vCPU, and their caches (ACPI 6.5, 5.2.30).
//!
//! Every node's place follows from the topology, so a node can name one that is in a later piece.
//!
//! Every cache is a core's own but the last level's, which is its package's. Only the machine's own firmware knows which CPUs share one,
//! and a vCPU may run on any of its CPUs: Linux gets one scheduling domain a package, as without the table.

use alloc::vec::Vec;

use super::super::Machine;
use super::table::HEADER_SIZE;
use crate::topology::{Cache, CacheKind, Topology};

/// Revision of ACPI 6.4 and later: caches have names.
pub(super) const REVISION: u8 = 3;

/// Processor hierarchy nodes (ACPI 6.5, 5.2.30.1): type, length without resources, flags.
const NODE: u8 = 0;
const NODE_SIZE: u32 = 20;
const RESOURCE_SIZE: u32 = 4;
const PHYSICAL_PACKAGE: u32 = 1 << 0;
const ID_VALID: u32 = 1 << 1;
const IS_THREAD: u32 = 1 << 2;
const IS_LEAF: u32 = 1 << 3;
const IDENTICAL: u32 = 1 << 4;

/// Caches (ACPI 6.5, 5.2.30.2): type and length, flags of what is known, attributes.
const CACHE: u8 = 1;
const CACHE_SIZE: u32 = 28;
const SIZE_VALID: u32 = 1 << 0;
const SETS_VALID: u32 = 1 << 1;
const WAYS_VALID: u32 = 1 << 2;
const KIND_VALID: u32 = 1 << 4;
const LINE_VALID: u32 = 1 << 6;
const NAME_VALID: u32 = 1 << 7;
const KIND_SHIFT: u8 = 2;

/// How long a piece grows before it is written.
const PIECE: usize = 256;

/// The table's body, and which node is next.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    next: Place,
}

/// A node; cores bring their threads along.
#[derive(Clone, Copy, Debug)]
enum Place {
    Package(u16),
    Cluster(u16),
    Core(u16),
}

impl Default for Place {
    fn default() -> Self {
        Self::Package(0)
    }
}

/// Where nodes are and which caches they have.
struct Plan<'a> {
    topology: Topology,
    /// Caches of each core; the first `own_first` are at its first level.
    own: &'a [Cache],
    first_level: usize,
    /// The cache of each package.
    shared: Option<&'a Cache>,
}

impl<'a> Plan<'a> {
    fn new(machine: &'a Machine<'_>) -> Self {
        let caches = machine.cpu.caches.as_slice();
        let (own, shared) = match caches.split_last() {
            Some((last, own)) if last.level > 1 && last.kind == CacheKind::Unified => {
                (own, Some(last))
            }
            _ => (caches, None),
        };
        let first = own.first().map(|cache| cache.level);
        let at_first = |cache: &&Cache| Some(cache.level) == first;
        Self {
            topology: machine.topology,
            own,
            first_level: own.iter().take_while(at_first).count(),
            shared,
        }
    }

    /// Clusters are told of if a package has several.
    fn clusters(&self) -> u16 {
        match self.topology.clusters {
            0 | 1 => 0,
            clusters => self.topology.packages.saturating_mul(clusters),
        }
    }

    fn cores(&self) -> u16 {
        self.topology
            .packages
            .saturating_mul(self.topology.package_cores())
    }

    fn package_size(&self) -> u32 {
        NODE_SIZE + self.shared.map_or(0, |_| RESOURCE_SIZE + CACHE_SIZE)
    }

    fn core_size(&self) -> u32 {
        let threads = match self.topology.threads {
            0 | 1 => 0,
            threads => u32::from(threads),
        };
        NODE_SIZE
            + self.first_level as u32 * RESOURCE_SIZE
            + self.own.len() as u32 * CACHE_SIZE
            + threads * NODE_SIZE
    }

    fn package_at(&self, package: u16) -> u32 {
        HEADER_SIZE as u32 + u32::from(package) * self.package_size()
    }

    fn cluster_at(&self, cluster: u16) -> u32 {
        self.package_at(self.topology.packages) + u32::from(cluster) * NODE_SIZE
    }

    fn core_at(&self, core: u16) -> u32 {
        self.cluster_at(self.clusters()) + u32::from(core) * self.core_size()
    }

    /// Returns the node above a core.
    fn parent_of(&self, core: u16) -> u32 {
        if self.clusters() == 0 {
            self.package_at(core / self.topology.package_cores().max(1))
        } else {
            self.cluster_at(core / self.topology.cores.max(1))
        }
    }
}

impl Body {
    /// Makes the next piece, if there is one more.
    pub(super) fn piece(&mut self, machine: &Machine<'_>) -> Option<Vec<u8>> {
        let plan = Plan::new(machine);
        let mut piece = Vec::with_capacity(PIECE + plan.core_size() as usize);
        while piece.len() < PIECE {
            self.next = match self.next {
                Place::Package(package) if package < plan.topology.packages => {
                    self.package(&plan, package, &mut piece);
                    Place::Package(package + 1)
                }
                Place::Package(_) => Place::Cluster(0),
                Place::Cluster(cluster) if cluster < plan.clusters() => {
                    let parent = plan.package_at(cluster / plan.topology.clusters);
                    node(parent, IDENTICAL, 0, [].into_iter(), &mut piece);
                    Place::Cluster(cluster + 1)
                }
                Place::Cluster(_) => Place::Core(0),
                Place::Core(core) if core < plan.cores() => {
                    Self::core(&plan, core, &mut piece);
                    Place::Core(core + 1)
                }
                Place::Core(_) => break,
            };
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// Writes a package and its cache.
    fn package(&self, plan: &Plan<'_>, package: u16, to: &mut Vec<u8>) {
        let cache = plan.package_at(package) + NODE_SIZE + RESOURCE_SIZE;
        let resources = plan.shared.map(|_| cache).into_iter();
        node(0, PHYSICAL_PACKAGE | IDENTICAL, 0, resources, to);
        if let Some(shared) = plan.shared {
            write_cache(shared, 0, cache, to);
        }
    }

    /// Writes a core, its caches and its threads.
    fn core(plan: &Plan<'_>, core: u16, to: &mut Vec<u8>) {
        let own = plan.core_at(core);
        let first = own + NODE_SIZE + plan.first_level as u32 * RESOURCE_SIZE;
        let cache_at = |index: usize| first + index as u32 * CACHE_SIZE;
        let threads = plan.topology.threads;
        let (flags, id) = if threads > 1 {
            (IDENTICAL, 0)
        } else {
            (ID_VALID | IS_LEAF, core)
        };
        let parent = plan.parent_of(core);
        node(parent, flags, id, (0..plan.first_level).map(cache_at), to);
        for (index, cache) in plan.own.iter().enumerate() {
            // The next level's cache, of data if there are two.
            let next = plan.own.iter().position(|other| {
                other.level == cache.level + 1 && other.kind != CacheKind::Instruction
            });
            let next = next.map_or(0, cache_at);
            write_cache(cache, next, cache_at(index), to);
        }
        for thread in 0..threads {
            if threads > 1 {
                let id = core * threads + thread;
                let flags = ID_VALID | IS_THREAD | IS_LEAF;
                node(own, flags, id, [].into_iter(), to);
            }
        }
    }
}

/// Writes a hierarchy node.
fn node(
    parent: u32,
    flags: u32,
    id: u16,
    resources: impl ExactSizeIterator<Item = u32>,
    to: &mut Vec<u8>,
) {
    let count = resources.len() as u32;
    let length = NODE_SIZE + count * RESOURCE_SIZE;
    to.extend_from_slice(&[NODE, length as u8, 0, 0]);
    for word in [flags, parent, id.into(), count] {
        to.extend_from_slice(&word.to_le_bytes());
    }
    for resource in resources {
        to.extend_from_slice(&resource.to_le_bytes());
    }
}

/// Writes a cache: the place of the next level's, or 0, and its name, which is its own place.
fn write_cache(cache: &Cache, next: u32, name: u32, to: &mut Vec<u8>) {
    let kind = match cache.kind {
        CacheKind::Data => 0,
        CacheKind::Instruction => 1,
        CacheKind::Unified => 2,
    };
    let (ways, ways_valid) = u8::try_from(cache.ways).map_or((0, 0), |ways| (ways, WAYS_VALID));
    let line = u32::from(cache.line);
    let size = line.saturating_mul(cache.sets).saturating_mul(cache.ways);
    let flags = SIZE_VALID | SETS_VALID | ways_valid | KIND_VALID | LINE_VALID | NAME_VALID;
    to.extend_from_slice(&[CACHE, CACHE_SIZE as u8, 0, 0]);
    for word in [flags, next, size, cache.sets] {
        to.extend_from_slice(&word.to_le_bytes());
    }
    to.extend_from_slice(&[ways, kind << KIND_SHIFT]);
    to.extend_from_slice(&cache.line.to_le_bytes());
    to.extend_from_slice(&name.to_le_bytes());
}
