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
/// Most parents looked at for one interrupt: controllers may be chained.
const MAX_PARENTS: usize = 16;

/// The INTIDs of the generic timer's interrupts, all private to each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerInterrupts {
    /// Secure EL1 physical timer.
    pub secure: u32,
    /// Non-secure EL1 physical timer.
    pub physical: u32,
    /// Virtual timer.
    pub virt: u32,
    /// Non-secure EL2 physical timer: the hypervisor's own.
    pub hyp: u32,
    /// Non-secure EL2 virtual timer (FEAT_VHE), where the tree names it.
    pub hyp_virt: Option<u32>,
}

/// Reads a node's `index`th interrupt, if it goes to a GIC and is a PPI or SPI.
///
/// `interrupts-extended` names the controller of each entry and wins over `interrupts` (Devicetree Specification 2.4.1).
pub(super) fn intid(node: &Node<'_, '_>, index: usize) -> Option<u32> {
    match node.property("interrupts-extended") {
        Some(entries) => extended(node, Cells(entries), index),
        None => plain(node, &interrupt_parent(node)?, index),
    }
}

/// Reads a controller's own first interrupt, which goes to itself unless it says otherwise.
pub(super) fn own_intid(node: &Node<'_, '_>) -> Option<u32> {
    let elsewhere = ["interrupt-parent", "interrupts-extended"];
    let is_own = elsewhere.iter().all(|name| node.property(name).is_none());
    is_own.then(|| plain(node, node, 0)).flatten()
}

/// Reads entry `index` of `interrupts` in the format of `parent`.
fn plain(node: &Node<'_, '_>, parent: &Node<'_, '_>, index: usize) -> Option<u32> {
    let start = index
        .checked_mul(specifier_cells(parent)?)?
        .checked_mul(4)?;
    decode(Cells(node.property("interrupts")?.get(start..)?))
}

/// Reads entry `index` of `interrupts-extended`: a phandle and a specifier in the format of what that names.
fn extended(node: &Node<'_, '_>, mut entries: Cells<'_>, index: usize) -> Option<u32> {
    for _ in 0..index {
        let parent = node.tree().by_phandle(entries.cell()?)?;
        for _ in 0..parent.u32("#interrupt-cells")? {
            entries.cell()?;
        }
    }
    let parent = node.tree().by_phandle(entries.cell()?)?;
    specifier_cells(&parent)?;
    decode(entries)
}

/// Returns how many cells a specifier has, if they are a GIC's.
fn specifier_cells(controller: &Node<'_, '_>) -> Option<usize> {
    let cells = controller.u32("#interrupt-cells")? as usize;
    (MIN_CELLS..=MAX_CELLS).contains(&cells).then_some(cells)
}

/// Reads the specifier at the front: kind and number.
fn decode(mut specifier: Cells<'_>) -> Option<u32> {
    match (specifier.cell()?, specifier.cell()?) {
        (KIND_SPI, number) if number < SPIS => number.checked_add(FIRST_SPI),
        (KIND_PPI, number) if number < PPIS => number.checked_add(FIRST_PPI),
        _ => None,
    }
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

/// Reads the timers' interrupts: by `interrupt-names` where given, else in the binding's order.
pub(super) fn timer(tree: &Tree<'_>) -> Result<TimerInterrupts, HostError> {
    let node = tree
        .nodes()
        .find(|node| node.is_compatible(&["arm,armv8-timer"]) && node.is_enabled());
    let node = node.ok_or(HostError::Missing {
        what: "generic timer (no enabled \"arm,armv8-timer\")",
    })?;
    let place = |name: &str, by_order: usize| match node.property("interrupt-names") {
        Some(_) => node
            .strings("interrupt-names")
            .position(|found| found == name),
        None => Some(by_order),
    };
    let read = |name, by_order| place(name, by_order).and_then(|index| intid(&node, index));
    let need = |name, by_order| {
        let problem = "gives no PPI for one of the EL1 and EL2 timers";
        read(name, by_order).ok_or_else(|| HostError::property(&node, "interrupts", problem))
    };
    Ok(TimerInterrupts {
        secure: read("sec-phys", 0).unwrap_or(DEFAULT_SECURE_TIMER),
        physical: need("phys", 1)?,
        virt: need("virt", 2)?,
        hyp: need("hyp-phys", 3)?,
        hyp_virt: read("hyp-virt", 4),
    })
}

/// The secure timer's INTID by convention (Arm SBSA, DEN0029): trees for non-secure software may leave it out.
const DEFAULT_SECURE_TIMER: u32 = 29;
