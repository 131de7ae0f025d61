//! The machine's CPUs and how each is started (Linux Documentation/devicetree/bindings/arm/cpus.yaml).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use core::ops::Range;
use types::address::HostPhys;

use super::HostError;
use crate::devicetree::{Cells, Node, Tree};
use crate::topology::Place;

/// The affinity fields of MPIDR_EL1: Aff3 in bits 39:32, Aff2 to Aff0 in bits 23:0 (Arm ARM DDI0487, D24.2.118).
const AFFINITY_MASK: u64 = 0xff_00ff_ffff;
/// Physical addresses have at most 48 bits without FEAT_LPA (Arm ARM DDI0487, D8.1.7).
const ADDRESS_LIMIT: u64 = 1 << 48;
/// Most CPUs accepted; [`types::ids::PcpuId`] and the bars hold to 512.
const MAX_CPUS: usize = 512;

/// The nodes of `cpu-map`, by what a [`Place`] says; behind them come threads.
const NODES: [&str; 3] = ["socket", "cluster", "core"];

/// How a CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// By PSCI CPU_ON with the conduit of [`super::Psci`].
    Psci,
    /// By writing the entry address to this doubleword and sending an event (Linux booting.rst).
    SpinTable {
        /// The CPU's release address.
        release: HostPhys,
    },
    /// The tree names no way that can be used: the CPU serves only if it is the one that boots.
    None,
}

/// A CPU that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCpu {
    /// The affinity fields of its MPIDR_EL1, in place.
    pub mpidr: u64,
    /// How it is started.
    pub enable: EnableMethod,
    /// Where it is.
    pub place: Place,
}

/// Lists the CPUs that are not disabled, in the tree's order; nothing may be written to what is `taken`.
pub(super) fn find_all(
    tree: &Tree<'_>,
    has_psci: bool,
    taken: &[Range<u64>],
    warnings: &mut Vec<String>,
) -> Result<Vec<HostCpu>, HostError> {
    let parent = tree.find("/cpus").ok_or(HostError::Missing {
        what: "CPUs (no /cpus node)",
    })?;
    let (address_cells, _) = parent.child_cells();
    let places = places(tree);
    let mut cpus: Vec<HostCpu> = Vec::new();
    for node in parent
        .children()
        .filter(|node| is_cpu(node) && node.is_enabled())
    {
        if cpus.len() == MAX_CPUS {
            warnings.push(format!(
                "{}: ignored, like all CPUs after the first {MAX_CPUS}",
                node.path()
            ));
            break;
        }
        let bad = |problem| HostError::property(&node, "reg", problem);
        let reg = node.property("reg").ok_or_else(|| bad("is missing"))?;
        let mpidr = (1..=2).contains(&address_cells).then_some(Cells(reg));
        let mpidr = mpidr.and_then(|mut cells| cells.number(address_cells));
        let mpidr = mpidr.ok_or_else(|| bad("is not a CPU's affinity"))?;
        if mpidr & !AFFINITY_MASK != 0 {
            return Err(bad("has bits outside MPIDR's affinity fields"));
        }
        if cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
            return Err(bad("names the same CPU as another node"));
        }
        let phandle = node.u32("phandle");
        let told = places.iter().find(|(cpu, _)| Some(*cpu) == phandle);
        // One that is placed nowhere is a core of a cluster with all others of that kind.
        let place = told.map_or([0, 0, cpus.len() as u32], |(_, place)| *place);
        cpus.push(HostCpu {
            mpidr,
            enable: enable_method(&node, has_psci, taken).unwrap_or_else(|problem| {
                warnings.push(format!("{}: {problem}", node.path()));
                EnableMethod::None
            }),
            place,
        });
    }
    if cpus.is_empty() {
        return Err(HostError::Missing {
            what: "CPUs (no enabled node below /cpus)",
        });
    }
    Ok(cpus)
}

/// Reads where the CPUs are that `cpu-map` names by their phandles (Linux Documentation/devicetree/bindings/cpu/cpu-topology.txt):
/// packages, which need not be told, have clusters, which may have clusters; the innermost of them have cores, and those threads.
fn places(tree: &Tree<'_>) -> Vec<(u32, Place)> {
    let mut places = Vec::new();
    let mut here = Place::default();
    let Some(map) = tree.find("/cpus/cpu-map") else {
        return places;
    };
    for (number, node) in (1..).zip(map.below()) {
        let name = node.name();
        let kind = NODES.iter().position(|kind| name.starts_with(kind));
        if let Some(place) = kind.and_then(|kind| here.get_mut(kind)) {
            *place = number;
        }
        if let Some(cpu) = node.u32("cpu") {
            places.push((cpu, here));
        }
    }
    places
}

/// Returns whether a child of `/cpus` is a CPU, and not `cpu-map`, a cache or an idle state.
fn is_cpu(node: &Node<'_, '_>) -> bool {
    match node.string("device_type") {
        Some(kind) => kind == "cpu",
        None => node.name() == "cpu",
    }
}

/// Reads how a CPU is started, or what is wrong with that.
fn enable_method(
    node: &Node<'_, '_>,
    has_psci: bool,
    taken: &[Range<u64>],
) -> Result<EnableMethod, String> {
    match node.string("enable-method") {
        Some("psci") | None if has_psci => Ok(EnableMethod::Psci),
        Some("spin-table") => release_address(node, taken)
            .map(|release| EnableMethod::SpinTable { release })
            .map_err(|problem| format!("`cpu-release-addr` {problem}")),
        None => Ok(EnableMethod::None),
        Some(method) => Err(format!(
            "`enable-method` = \"{method}\" cannot be used here"
        )),
    }
}

/// Reads where a CPU waits for its entry address: a doubleword in memory that no VM gets.
fn release_address(node: &Node<'_, '_>, taken: &[Range<u64>]) -> Result<HostPhys, String> {
    let number = node.number("cpu-release-addr");
    let address = number.filter(|at| (1..ADDRESS_LIMIT).contains(at) && at.is_multiple_of(8));
    let address = address.ok_or("is missing or not an address")?;
    let is_in = |range: &Range<u64>| address < range.end && range.start < address.saturating_add(8);
    if taken.iter().any(is_in) {
        return Err(format!(
            "= {address:#x} lies in the hypervisor, its device tree or the initrd"
        ));
    }
    Ok(HostPhys::new(address))
}
