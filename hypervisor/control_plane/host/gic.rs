//! The interrupt controller: GICv3 and later, or GICv2 with its virtualization extensions.

use alloc::string::String;
use alloc::vec::Vec;
use types::layout::GicVersion;

use super::{HostError, HostRange, interrupts};
use crate::devicetree::{Node, Tree};

/// GICv3 and GICv4 (Linux Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml).
const V3_MODELS: &[&str] = &["arm,gic-v3"];
/// GICv2 (arm,gic.yaml of the same folder).
const V2_MODELS: &[&str] = &[
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "arm,gic-v2",
    "qcom,msm-qgic2",
];
/// The maintenance interrupt by convention: PPI 9 (Arm SBSA, DEN0029). Every tree looked at agrees.
const DEFAULT_MAINTENANCE: u32 = 25;
/// Most redistributor regions accepted.
const MAX_REGIONS: u32 = 64;

/// The machine's interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv3 or later.
    V3(GicV3),
    /// GICv2 with virtualization extensions.
    V2(GicV2),
}

impl Gic {
    /// Returns its version.
    pub const fn version(&self) -> GicVersion {
        match self {
            Self::V3(_) => GicVersion::V3,
            Self::V2(_) => GicVersion::V2,
        }
    }

    /// Returns the full path of its node.
    pub fn path(&self) -> &str {
        match self {
            Self::V3(gic) => &gic.path,
            Self::V2(gic) => &gic.path,
        }
    }

    /// Returns the guest's CPU interface of a GICv2, GICV, which a GICv3 may have besides its own.
    pub const fn virtual_interface(&self) -> Option<HostRange> {
        match self {
            Self::V3(gic) => gic.virtual_interface,
            Self::V2(gic) => Some(gic.virtual_interface),
        }
    }

    /// Returns the INTID of the maintenance interrupt.
    pub(super) const fn maintenance(&self) -> u32 {
        match self {
            Self::V3(gic) => gic.maintenance,
            Self::V2(gic) => gic.maintenance,
        }
    }
}

/// Where a GICv3's registers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GicV3 {
    /// The distributor, GICD.
    pub distributor: HostRange,
    /// The regions that hold the redistributors, GICR, one or more; each ends at its size or at GICR_TYPER.Last.
    pub redistributors: Vec<HostRange>,
    /// Bytes from one redistributor to the next where the tree says so; else GICR_TYPER.VLPIS tells (IHI0069, 12.10).
    pub stride: Option<u64>,
    /// The CPU interface of GICv2's guests, GICV, if it has one.
    pub virtual_interface: Option<HostRange>,
    /// INTID of the maintenance interrupt.
    pub maintenance: u32,
    /// The node's full path.
    pub path: String,
}

/// Where a GICv2's registers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GicV2 {
    /// The distributor, GICD.
    pub distributor: HostRange,
    /// The CPU interface, GICC.
    pub cpu_interface: HostRange,
    /// The hypervisor's control interface, GICH.
    pub hypervisor_interface: HostRange,
    /// The guest's CPU interface, GICV.
    pub virtual_interface: HostRange,
    /// INTID of the maintenance interrupt.
    pub maintenance: u32,
    /// The node's full path.
    pub path: String,
}

/// Finds the first interrupt controller that can serve guests.
pub(super) fn find(tree: &Tree<'_>) -> Result<Gic, HostError> {
    for node in tree.nodes().filter(Node::is_enabled) {
        if node.is_compatible(V3_MODELS) {
            return read_v3(&node).map(Gic::V3);
        }
        if node.is_compatible(V2_MODELS) {
            return read_v2(&node).map(Gic::V2);
        }
    }
    Err(HostError::Missing {
        what: "interrupt controller (no enabled GICv2 or GICv3)",
    })
}

/// Reads entry `index` of a controller's `reg`.
fn frame(node: &Node<'_, '_>, index: usize, missing: &'static str) -> Result<HostRange, HostError> {
    match node.reg().nth(index) {
        None => Err(HostError::property(node, "reg", missing)),
        Some(Ok(range)) if range.size != 0 => Ok(range.into()),
        Some(_) => {
            let problem = "is not a list of mapped register frames";
            Err(HostError::property(node, "reg", problem))
        }
    }
}

/// Reads the maintenance interrupt, which is the controller's own `interrupts`.
///
/// Where the property is missing, or goes elsewhere, as some boards' trees have it, the interrupt is the one that all boards have.
fn maintenance(node: &Node<'_, '_>) -> Result<u32, HostError> {
    // The controller is its own interrupt parent, which trees leave unsaid: its specifier has its own format.
    let own = interrupts::own_intid(node)?;
    let found = own.or_else(|| interrupts::intid(node, 0));
    Ok(found
        .and_then(interrupts::ppi)
        .unwrap_or(DEFAULT_MAINTENANCE))
}

fn read_v3(node: &Node<'_, '_>) -> Result<GicV3, HostError> {
    let bad = |name, problem| Err(HostError::property(node, name, problem));
    let regions = node.u32("#redistributor-regions").unwrap_or(1);
    if regions == 0 || regions > MAX_REGIONS {
        return bad("#redistributor-regions", "is not a number of regions");
    }
    let stride = node
        .number("redistributor-stride")
        .filter(|stride| *stride != 0);
    if stride.is_some_and(|stride| !stride.is_multiple_of(REDISTRIBUTOR_FRAME)) {
        return bad("redistributor-stride", "is not a multiple of 64 KiB");
    }
    let redistributors =
        (1..=regions as usize).map(|index| frame(node, index, "has too few redistributor regions"));
    // GICC, GICH and GICV come last, all or none (arm,gic-v3.yaml).
    let virtual_interface = frame(node, regions.saturating_add(3) as usize, "").ok();
    Ok(GicV3 {
        distributor: frame(node, 0, "has no distributor")?,
        redistributors: redistributors.collect::<Result<_, _>>()?,
        stride,
        virtual_interface,
        maintenance: maintenance(node)?,
        path: node.path(),
    })
}

/// Size of one redistributor frame in bytes (GIC IHI0069, 12.10).
const REDISTRIBUTOR_FRAME: u64 = 0x1_0000;

fn read_v2(node: &Node<'_, '_>) -> Result<GicV2, HostError> {
    const NO_VIRTUALIZATION: &str = "has no GICH and GICV: this GICv2 cannot serve guests";
    Ok(GicV2 {
        distributor: frame(node, 0, "has no distributor")?,
        cpu_interface: frame(node, 1, "has no CPU interface")?,
        hypervisor_interface: frame(node, 2, NO_VIRTUALIZATION)?,
        virtual_interface: frame(node, 3, NO_VIRTUALIZATION)?,
        maintenance: maintenance(node)?,
        path: node.path(),
    })
}
