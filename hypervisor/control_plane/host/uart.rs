//! The machine's UARTs, in the order in which the hypervisor uses them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use types::address::HostPhys;

use super::{HostError, HostRange, Line, interrupts};
use crate::devicetree::{Node, Tree, show};
use crate::serial::{self, Model};

/// Most UARTs listed.
const MAX_UARTS: usize = 16;
/// The alias that names a UART, before its number.
const SERIAL_ALIAS: &str = "serial";

/// How a kind of UART is called in device trees, and how its registers lie where the tree does not say.
struct Kind {
    compatible: &'static str,
    model: &'static Model,
    /// `reg-shift` and `reg-io-width`.
    layout: (u8, u8),
}

/// The layout of kinds whose registers have numbers in bytes.
const WORDS: (u8, u8) = (0, 4);
/// The layouts of relatives of the 16550: as the binding 8250.yaml has it, and as the drivers of some have it.
const BYTES: (u8, u8) = (0, 1);
const SPREAD_WORDS: (u8, u8) = (2, 4);

/// Names a kind.
const fn kind_of(compatible: &'static str, model: &'static Model, layout: (u8, u8)) -> Kind {
    Kind {
        compatible,
        model,
        layout,
    }
}

/// What each kind is called in device trees.
const KINDS: &[Kind] = &[
    kind_of("arm,pl011", &serial::PL011, WORDS),
    kind_of("arm,sbsa-uart", &serial::PL011, WORDS),
    kind_of("ns16550a", &serial::NS16550, BYTES),
    kind_of("ns16550", &serial::NS16550, BYTES),
    kind_of("snps,dw-apb-uart", &serial::NS16550, BYTES),
    kind_of("nvidia,tegra20-uart", &serial::NS16550, SPREAD_WORDS),
    kind_of("mediatek,mt6577-uart", &serial::NS16550, SPREAD_WORDS),
    kind_of("ti,am654-uart", &serial::NS16550, SPREAD_WORDS),
    kind_of("brcm,bcm2835-aux-uart", &serial::BCM2835_AUX, WORDS),
    kind_of("cdns,uart-r1p12", &serial::CADENCE, WORDS),
    kind_of("cdns,uart-r1p8", &serial::CADENCE, WORDS),
    kind_of("xlnx,xuartps", &serial::CADENCE, WORDS),
    kind_of("fsl,imx6q-uart", &serial::IMX, WORDS),
    kind_of("amlogic,meson-ao-uart", &serial::MESON, WORDS),
    kind_of("amlogic,meson-gx-uart", &serial::MESON, WORDS),
];
/// Largest `reg-shift`: a register to 256 bytes.
const MAX_SHIFT: u32 = 8;

/// A UART that the tree describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Which registers it has.
    pub model: &'static Model,
    /// Where they are.
    pub registers: HostRange,
    /// Their distance is two to the power of this, in bytes, where they are numbered one after the other.
    pub shift: u8,
    /// Bytes of one access: 1, 2 or 4.
    pub width: u8,
    /// Its interrupt, if it has one at the GIC.
    pub interrupt: Option<Line>,
    /// The node's full path.
    pub path: String,
}

/// Says why there is no console, for a tree none of whose UARTs has a driver here: what `stdout-path` names, else which are known.
pub(super) fn why_none(tree: &Tree<'_>) -> String {
    let stdout = stdout_path(tree, &serial_aliases(tree)).and_then(|path| tree.find(&path));
    let known = "those of the PL011, SBSA, 16550, mini UART, Cadence, i.MX and Meson kinds can";
    match stdout {
        None => format!(
            "/chosen: `stdout-path` names no UART, and there is no other that can be used ({known})"
        ),
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
        match read(&node, kind) {
            Ok(uart) => {
                if interrupts::is_out_of_range(&node) {
                    let problem = interrupts::OUT_OF_RANGE;
                    let error = HostError::property(&node, "interrupts", problem);
                    warnings.push(format!("{error}: used without its interrupt"));
                }
                uarts.push(uart);
            }
            Err(problem) => warnings.push(format!("{path}: UART not used: {problem}")),
        }
    }
    uarts
}

/// Returns which kind of UART a node is, if it is one that is known.
fn kind(node: &Node<'_, '_>) -> Option<&'static Kind> {
    node.models().find_map(|model| {
        KINDS
            .iter()
            .find(|kind| kind.compatible.as_bytes() == model)
    })
}

/// Reads where a UART's registers are (Linux Documentation/devicetree/bindings/serial/8250.yaml for how they lie).
fn read(node: &Node<'_, '_>, kind: &Kind) -> Result<Uart, String> {
    let mut registers: HostRange = match node.reg().next() {
        Some(Ok(range)) if range.size != 0 => range.into(),
        Some(Err(problem)) => return Err(format!("`reg` {problem}")),
        _ => return Err("it has no registers".to_string()),
    };
    let offset = u64::from(node.u32("reg-offset").unwrap_or(0));
    if offset >= registers.size {
        return Err("`reg-offset` lies behind its registers".to_string());
    }
    registers.base = HostPhys::new(registers.base.get().saturating_add(offset));
    registers.size = registers.size.saturating_sub(offset);
    let (usual_shift, usual_width) = kind.layout;
    let numbered = node.u32("reg-shift").filter(|_| kind.layout != WORDS);
    let shift = numbered.unwrap_or(u32::from(usual_shift));
    let width = node.u32("reg-io-width").unwrap_or(u32::from(usual_width));
    if shift > MAX_SHIFT || !matches!(width, 1 | 2 | 4) {
        return Err(format!(
            "`reg-shift` = {shift} and `reg-io-width` = {width} cannot be"
        ));
    }
    if !registers.base.get().is_multiple_of(u64::from(width)) {
        return Err(format!("`reg` is not aligned to {width} bytes"));
    }
    Ok(Uart {
        model: kind.model,
        registers,
        shift: shift as u8,
        width: width as u8,
        interrupt: interrupts::line(node),
        path: node.path(),
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
