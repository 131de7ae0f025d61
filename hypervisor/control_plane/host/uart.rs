//! The machine's UARTs, in the order in which the hypervisor uses them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{HostRange, interrupts};
use crate::devicetree::{Node, Tree, show};

/// Most UARTs listed.
const MAX_UARTS: usize = 16;
/// The alias that names a UART, before its number.
const SERIAL_ALIAS: &str = "serial";

/// Which programming model a UART has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PL011 (DDI0183).
    Pl011,
    /// A subset of the PL011 without clock and baud registers (Arm SBSA, DEN0029, appendix B).
    Sbsa,
    /// Cadence UART of Xilinx devices.
    Cadence,
    /// The auxiliary "mini" UART of BCM283x and BCM2711.
    Bcm2835Aux,
}

impl UartKind {
    /// Returns whether a program that only sends, receives and masks interrupts can take it for a PL011.
    pub const fn is_pl011(self) -> bool {
        matches!(self, Self::Pl011 | Self::Sbsa)
    }
}

/// What each model is called in device trees.
const MODELS: &[(&str, UartKind)] = &[
    ("arm,pl011", UartKind::Pl011),
    ("arm,sbsa-uart", UartKind::Sbsa),
    ("cdns,uart-r1p12", UartKind::Cadence),
    ("cdns,uart-r1p8", UartKind::Cadence),
    ("xlnx,xuartps", UartKind::Cadence),
    ("brcm,bcm2835-aux-uart", UartKind::Bcm2835Aux),
];

/// A UART that the tree describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Which registers it has.
    pub kind: UartKind,
    /// Where they are.
    pub registers: HostRange,
    /// INTID of its interrupt, if it has one at the GIC.
    pub intid: Option<u32>,
    /// The node's full path.
    pub path: String,
}

/// Says why there is no console, for a tree none of whose UARTs has a driver here: what `stdout-path` names, else which are known.
pub(super) fn why_none(tree: &Tree<'_>) -> String {
    let stdout = stdout_path(tree, &serial_aliases(tree)).and_then(|path| tree.find(&path));
    let known = "those of the Arm PL011 and SBSA kinds are";
    match stdout {
        None => format!("/chosen: `stdout-path` names no UART, and no other can be used ({known})"),
        Some(node) => format!(
            "{}: `compatible` = {}: this UART cannot be used ({known})",
            node.path(),
            node.property("compatible").map_or(String::new(), show)
        ),
    }
}

/// Lists the UARTs that can be used.
///
/// Order: `stdout-path`, then the `serialN` aliases by number, then the tree's order.
pub(super) fn find_all(tree: &Tree<'_>, warnings: &mut Vec<String>) -> Vec<Uart> {
    let aliases = serial_aliases(tree);
    let stdout = stdout_path(tree, &aliases);
    let named = stdout
        .iter()
        .map(String::as_str)
        .chain(aliases.iter().map(|(_, path)| *path));
    let nodes: Vec<Node<'_, '_>> = named.filter_map(|path| tree.find(path)).collect();
    let mut uarts: Vec<Uart> = Vec::new();
    for node in nodes.into_iter().chain(tree.nodes()) {
        let Some(kind) = kind(&node).filter(|_| node.is_enabled()) else {
            continue;
        };
        let path = node.path();
        if uarts.iter().any(|uart| uart.path == path) {
            continue;
        }
        if uarts.len() == MAX_UARTS {
            warnings.push(format!(
                "{path}: ignored, like all UARTs after the first {MAX_UARTS}"
            ));
            break;
        }
        match node.reg().next() {
            Some(Ok(range)) if range.size != 0 => uarts.push(Uart {
                kind,
                registers: range.into(),
                intid: interrupts::intid(&node, 0),
                path,
            }),
            Some(Err(problem)) => warnings.push(format!("{path}: UART not used: `reg` {problem}")),
            _ => warnings.push(format!("{path}: UART not used: it has no registers")),
        }
    }
    uarts
}

/// Returns a node's UART model, if it is a UART that is known.
fn kind(node: &Node<'_, '_>) -> Option<UartKind> {
    node.models().find_map(|model| {
        let known = MODELS.iter().find(|(name, _)| name.as_bytes() == model);
        known.map(|(_, kind)| *kind)
    })
}

/// Lists the `serialN` aliases, ascending by number.
fn serial_aliases<'a>(tree: &Tree<'a>) -> Vec<(u32, &'a str)> {
    let properties = tree
        .find("/aliases")
        .into_iter()
        .flat_map(|node| node.properties());
    let mut aliases: Vec<(u32, &str)> = properties
        .filter_map(|(name, value)| {
            let number = name.strip_prefix(SERIAL_ALIAS)?.parse().ok()?;
            let path = core::str::from_utf8(value.strip_suffix(&[0])?).ok()?;
            Some((number, path))
        })
        .collect();
    aliases.sort_unstable();
    aliases
}

/// Resolves `stdout-path`, which is a path or an alias, with the line's settings after a colon.
fn stdout_path(tree: &Tree<'_>, aliases: &[(u32, &str)]) -> Option<String> {
    let chosen = tree.find("/chosen")?;
    let value = chosen
        .string("stdout-path")
        .or_else(|| chosen.string("linux,stdout-path"))?;
    let name = value.split(':').next()?;
    if name.starts_with('/') {
        return Some(name.to_string());
    }
    let number: Option<u32> = name
        .strip_prefix(SERIAL_ALIAS)
        .and_then(|number| number.parse().ok());
    let serial = aliases
        .iter()
        .find(|(found, _)| Some(*found) == number)
        .map(|(_, path)| (*path).to_string());
    serial.or_else(|| tree.find("/aliases")?.string(name).map(ToString::to_string))
}
