//! Interrupt specifiers of the GIC, and the timers' interrupts
//! (Linux Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml and arm,gic-v3.yaml, timer/arm,arch_timer.yaml).

use super::HostError;
use crate::devicetree::{Cells, Node, Tree};

/// First INTID of private and of shared peripheral interrupts (GIC IHI0069, 2.2).
const FIRST_PPI: u32 = 16;
const FIRST_SPI: u32 = 32;
/// How many of each there are.
const PPIS: u32 = 16;
const SPIS: u32 = 988;
/// First cell of a specifier: which kind of interrupt the second cell counts.
const KIND_SPI: u32 = 0;
const KIND_PPI: u32 = 1;
/// A specifier's cells: kind, number, flags; GICv3 may add a fourth.
const MIN_CELLS: usize = 3;
const MAX_CELLS: usize = 4;
/// Third cell of a specifier: what triggers it. One of these two bits is an edge; the others are levels (Linux
/// include/dt-bindings/interrupt-controller/irq.h).
const EDGES: u32 = 0b11;
/// Most parents looked at for one interrupt: controllers may be chained.
const MAX_PARENTS: usize = 16;

/// The private interrupts that the hypervisor takes on every CPU: all different, all PPIs (GIC IHI0069, 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateInterrupts {
    /// INTID of the hypervisor's own timer.
    pub hyp: u32,
    /// INTID of the guests' virtual timer.
    pub virt: u32,
    /// INTID of the guests' physical timer.
    pub physical: u32,
    /// INTID of the maintenance interrupt.
    pub maintenance: u32,
    /// INTID of the performance monitors' overflow interrupt, if the tree names one that is private to each CPU.
    pub pmu: Option<u32>,
}

impl PrivateInterrupts {
    /// Returns those that every machine has as a list.
    pub const fn all(self) -> [u32; 4] {
        [self.hyp, self.virt, self.physical, self.maintenance]
    }
}

/// A device's interrupt at the GIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its INTID.
    pub intid: u32,
    /// Whether an edge triggers it, and not a level.
    pub is_edge: bool,
}

impl Line {
    /// Returns the word of GICD_ICFGR that it is in, whose value is `word`, with its field as the tree has it: of its two bits the upper
    /// one says that it is edge-triggered, the lower one stays (GIC IHI0069, 12.9.9; IHI0048, 4.3.13).
    pub const fn configured(self, word: u32) -> u32 {
        let edge = 0b10_u32.wrapping_shl((self.intid % 16) << 1);
        if self.is_edge {
            word | edge
        } else {
            word & !edge
        }
    }
}

/// Puts the interrupts together that the timer's and the interrupt controller's nodes name.
pub(super) fn private(tree: &Tree<'_>, maintenance: u32) -> Result<PrivateInterrupts, HostError> {
    let (node, timer) = timer_node(tree).and_then(|node| Ok((node, timer(&node)?)))?;
    if node.u32("clock-frequency") == Some(0) {
        let problem = "the counter would stand still";
        return Err(HostError::property(&node, "clock-frequency", problem));
    }
    let mut found = PrivateInterrupts {
        hyp: timer.hyp,
        virt: timer.virt,
        physical: timer.physical,
        maintenance,
        pmu: None,
    };
    let all = found.all();
    let is_twice = |(index, intid): (usize, &u32)| {
        all.iter()
            .skip(index.saturating_add(1))
            .any(|other| other == intid)
    };
    if all.iter().enumerate().any(is_twice) {
        let problem =
            "gives one PPI to two of the EL1 and EL2 timers and the maintenance interrupt";
        return Err(HostError::property(&node, "interrupts", problem));
    }
    // The node of a machine whose CPUs are all alike (Linux Documentation/devicetree/bindings/arm/pmu.yaml).
    let pmu = tree.find("/pmu").filter(Node::is_enabled);
    found.pmu = pmu
        .and_then(|node| ppi(intid(&node, 0)?))
        .filter(|intid| !all.contains(intid));
    Ok(found)
}

/// What a specifier says that is none of a GIC's interrupts.
pub(super) const OUT_OF_RANGE: &str = "names no PPI or SPI that a GIC has";

/// Reads a node's `index`th interrupt, if it goes to a GIC and is a PPI or SPI.
pub(super) fn intid(node: &Node<'_, '_>, index: usize) -> Option<u32> {
    decode(specifier(node, index)?).map(|line| line.intid)
}

/// Reads a node's first interrupt with what triggers it, if it goes to a GIC and is a PPI or SPI.
pub(super) fn line(node: &Node<'_, '_>) -> Option<Line> {
    decode(specifier(node, 0)?)
}

/// Returns whether a node's first interrupt goes to a GIC that has none of that kind and number.
pub(super) fn is_out_of_range(node: &Node<'_, '_>) -> bool {
    specifier(node, 0).is_some_and(|specifier| decode(specifier).is_none())
}

/// Finds a node's `index`th interrupt, if it goes to a GIC.
///
/// `interrupts-extended` names the controller of each entry and wins over `interrupts` (Devicetree Specification 2.4.1).
fn specifier<'a>(node: &Node<'_, 'a>, index: usize) -> Option<Cells<'a>> {
    match node.property("interrupts-extended") {
        Some(entries) => extended(node, Cells(entries), index),
        None => plain(node, &interrupt_parent(node)?, index),
    }
}

/// Reads a controller's own first interrupt, which goes to itself unless it says otherwise; an error if there is none of that number.
pub(super) fn own_intid(node: &Node<'_, '_>) -> Result<Option<u32>, HostError> {
    let elsewhere = ["interrupt-parent", "interrupts-extended"];
    let is_own = elsewhere.iter().all(|name| node.property(name).is_none());
    match is_own.then(|| plain(node, node, 0)).flatten().map(decode) {
        Some(None) => Err(HostError::property(node, "interrupts", OUT_OF_RANGE)),
        found => Ok(found.flatten().map(|line| line.intid)),
    }
}

/// Finds entry `index` of `interrupts` in the format of `parent`.
fn plain<'a>(node: &Node<'_, 'a>, parent: &Node<'_, 'a>, index: usize) -> Option<Cells<'a>> {
    let start = index
        .checked_mul(specifier_cells(parent)?)?
        .checked_mul(4)?;
    let entry = node.property("interrupts")?.get(start..)?;
    (!entry.is_empty()).then_some(Cells(entry))
}

/// Finds entry `index` of `interrupts-extended`: a phandle and a specifier in the format of what that names.
fn extended<'a>(node: &Node<'_, 'a>, mut entries: Cells<'a>, index: usize) -> Option<Cells<'a>> {
    for _ in 0..index {
        let parent = node.tree().by_phandle(entries.cell()?)?;
        for _ in 0..parent.u32("#interrupt-cells")? {
            entries.cell()?;
        }
    }
    let parent = node.tree().by_phandle(entries.cell()?)?;
    specifier_cells(&parent)?;
    Some(entries)
}

/// Returns how many cells a specifier has, if they are a GIC's.
fn specifier_cells(controller: &Node<'_, '_>) -> Option<usize> {
    let cells = controller.u32("#interrupt-cells")? as usize;
    (MIN_CELLS..=MAX_CELLS).contains(&cells).then_some(cells)
}

/// Reads the specifier at the front: kind, number, and flags, without which it is a level.
fn decode(mut specifier: Cells<'_>) -> Option<Line> {
    let intid = match (specifier.cell()?, specifier.cell()?) {
        (KIND_SPI, number) if number < SPIS => number.checked_add(FIRST_SPI)?,
        (KIND_PPI, number) if number < PPIS => number.checked_add(FIRST_PPI)?,
        _ => return None,
    };
    let is_edge = specifier.cell().unwrap_or(0) & EDGES != 0;
    Some(Line { intid, is_edge })
}

/// Finds the controller that a node's interrupts go to: the nearest `interrupt-parent`, its own or an ancestor's.
fn interrupt_parent<'t, 'a>(node: &Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    let mut at = Some(*node);
    for _ in 0..MAX_PARENTS {
        let here = at?;
        if let Some(phandle) = here.u32("interrupt-parent") {
            return here.tree().by_phandle(phandle);
        }
        at = here.parent();
        if at.is_some_and(|above| above.property("interrupt-controller").is_some()) {
            return at;
        }
    }
    None
}

/// Finds the generic timer's node.
fn timer_node<'t, 'a>(tree: &'t Tree<'a>) -> Result<Node<'t, 'a>, HostError> {
    tree.nodes()
        .find(|node| node.is_compatible(&["arm,armv8-timer"]) && node.is_enabled())
        .ok_or(HostError::Missing {
            what: "generic timer (no enabled \"arm,armv8-timer\")",
        })
}

/// Returns an INTID if it is a PPI's.
pub(super) fn ppi(intid: u32) -> Option<u32> {
    (FIRST_PPI..FIRST_SPI).contains(&intid).then_some(intid)
}

/// The timers' interrupts that the hypervisor uses.
struct TimerInterrupts {
    physical: u32,
    virt: u32,
    hyp: u32,
}

/// Reads the timers' interrupts: by `interrupt-names` where given, else in the binding's order.
fn timer(node: &Node<'_, '_>) -> Result<TimerInterrupts, HostError> {
    let place = |name: &str, by_order: usize| match node.property("interrupt-names") {
        Some(_) => node
            .strings("interrupt-names")
            .position(|found| found == name),
        None => Some(by_order),
    };
    let need = |name, by_order| {
        let problem = "gives no PPI for one of the EL1 and EL2 timers";
        place(name, by_order)
            .and_then(|index| ppi(intid(node, index)?))
            .ok_or_else(|| HostError::property(node, "interrupts", problem))
    };
    Ok(TimerInterrupts {
        physical: need("phys", 1)?,
        virt: need("virt", 2)?,
        hyp: need("hyp-phys", 3)?,
    })
}
