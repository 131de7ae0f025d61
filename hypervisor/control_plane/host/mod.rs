//! The host machine as its device tree describes it.
//!
//! [`describe`] turns the tree that the boot loader hands over into plain values which `el2` acts on; nothing here
//! touches the machine. What the hypervisor cannot run without (memory, CPUs, an interrupt controller with
//! virtualization, timers) is an error that names node, property and value; the rest is a warning and left out.
//! The boards room adds what a tree cannot say.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod chosen;
mod cpus;
pub mod efi;
mod gic;
mod interrupts;
mod memory;
mod psci;
#[cfg(test)]
mod tests;
mod uart;
mod watchdog;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use types::address::HostPhys;

use crate::devicetree::{AddressRange, Node, Tree, TreeError, show};
use crate::serial;

pub use chosen::Chosen;
pub use cpus::{EnableMethod, HostCpu};
pub use gic::{Gic, GicV2, GicV3};
pub use interrupts::{Line, PrivateInterrupts};
pub use psci::{Conduit, Psci};
pub use uart::Uart;
pub use watchdog::end_by_watchdog;

/// A range of the machine's physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRange {
    /// First address.
    pub base: HostPhys,
    /// Length in bytes; never 0, and `base + size` does not wrap.
    pub size: u64,
}

impl HostRange {
    /// Returns the address after the last one.
    pub const fn end(self) -> u64 {
        self.base.get().saturating_add(self.size)
    }

    /// Returns its addresses.
    pub const fn addresses(self) -> Range<u64> {
        self.base.get()..self.end()
    }

    /// Returns whether the two ranges share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.base.get() < other.end() && other.base.get() < self.end()
    }
}

impl From<AddressRange> for HostRange {
    fn from(AddressRange { base, size }: AddressRange) -> Self {
        let base = HostPhys::new(base);
        Self { base, size }
    }
}

/// Memory that is there but not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Where it is.
    pub range: HostRange,
    /// Whether even a cacheable mapping of it is forbidden (Devicetree Specification 3.5.4, `no-map`).
    pub no_map: bool,
}

/// What the device tree says about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDescription {
    /// The root node's `model`, or its first `compatible`, or "unknown".
    pub model: String,
    /// The root node's `compatible`, most specific first; picks the board.
    pub compatible: Vec<String>,
    /// RAM banks, ascending, not overlapping, neighbours joined; never empty.
    pub memory: Vec<HostRange>,
    /// The parts of RAM that may be mapped, the largest first: all but what is `no-map`.
    pub mappable: Vec<HostRange>,
    /// Memory not to be used, in the tree's order; may overlap each other and lie outside RAM.
    pub reserved: Vec<Reservation>,
    /// CPUs that may be used, in the tree's order, which is the order of [`types::ids::PcpuId`]; never empty.
    pub cpus: Vec<HostCpu>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The timers' and the interrupt controller's private interrupts.
    pub private: PrivateInterrupts,
    /// UARTs the tree names: `stdout-path`, then the `serialN` aliases by number, then the tree's order.
    pub uarts: Vec<Uart>,
    /// Registers of the real-time clock (Arm PL031), if the tree names one.
    pub rtc: Option<HostRange>,
    /// Registers of a Raspberry Pi's power management with its watchdog, if the tree names them and no PSCI firmware.
    pub watchdog: Option<HostRange>,
    /// PSCI firmware, if the tree names any. Without it no SMC or HVC may be issued: some machines hang.
    pub psci: Option<Psci>,
    /// What the boot loader adds for the program it starts.
    pub chosen: Chosen,
    /// What was left out of this description and why, one line each.
    pub warnings: Vec<String>,
}

impl HostDescription {
    /// Returns the UART for people: the one of `stdout-path`, else of `serial0`, else the first.
    pub fn console(&self) -> Option<&Uart> {
        self.uarts.first()
    }

    /// Returns the UART for programs: the next one after the console that is a PL011.
    pub fn control(&self) -> Option<&Uart> {
        let others = self.uarts.iter().skip(1);
        others.into_iter().find(|uart| *uart.model == serial::PL011)
    }
}

/// Why the machine cannot be used as its tree describes it. The tree, or the firmware that made it, is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The blob is no device tree.
    Tree(TreeError),
    /// No node describes something that must be there.
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// A property is missing or cannot be what it says.
    Property {
        /// Full path of the node.
        node: String,
        /// Name of the property.
        property: &'static str,
        /// The value found, for people; empty when there is none.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl HostError {
    /// Names the property of `node` that is wrong, with its value as it stands in the tree.
    fn property(node: &Node<'_, '_>, property: &'static str, problem: &'static str) -> Self {
        let value = node.property(property).map_or(String::new(), show);
        Self::Property {
            node: node.path(),
            property,
            value,
            problem,
        }
    }
}

impl From<TreeError> for HostError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Missing { what } => write!(f, "host device tree: no {what}"),
            Self::Property {
                node,
                property,
                value,
                problem,
            } => {
                let is = if value.is_empty() { "" } else { " = " };
                let then = if value.is_empty() { "" } else { ":" };
                write!(
                    f,
                    "host device tree: {node}: `{property}`{is}{value}{then} {problem}"
                )
            }
        }
    }
}

/// Finds the first registers of a device of this model that may be used, or of one that is disabled too.
fn registers_of(tree: &Tree<'_>, model: &str, also_disabled: bool) -> Option<HostRange> {
    let node = tree
        .nodes()
        .find(|node| node.is_compatible(&[model]) && (also_disabled || node.is_enabled()))?;
    Some(node.reg().next()?.ok()?.into())
}

/// Reads the machine out of the device tree at the start of `dtb`; `own` is memory that this program uses already, `efi` what
/// firmware handed over if this program was started by it.
///
/// # Errors
/// A [`HostError`] when the blob is no tree, or lacks what the hypervisor cannot run without.
pub fn describe(
    dtb: &[u8],
    own: &[Range<u64>],
    efi: Option<&efi::Handover<'_>>,
) -> Result<HostDescription, HostError> {
    let tree = Tree::parse(dtb)?;
    let mut warnings = Vec::new();
    let root = tree.root();
    let compatible: Vec<String> = root
        .strings("compatible")
        .map(ToString::to_string)
        .collect();
    let model = root
        .string("model")
        .or(compatible.first().map(String::as_str))
        .unwrap_or("unknown")
        .to_string();
    let psci = psci::find(&tree, &mut warnings);
    let uarts = uart::find_all(&tree, &mut warnings);
    if uarts.is_empty() {
        warnings.push(uart::why_none(&tree));
    }
    let told = memory::banks(&tree);
    let memory = match efi {
        Some(efi) => efi.ram(&told.unwrap_or_default(), &mut warnings)?,
        None => told?,
    };
    let reserved = memory::reservations(&tree, &mut warnings);
    let mappable = memory::mappable(&memory, &reserved);
    let mut chosen = chosen::read(&tree, &mappable, &mut warnings);
    if let Some(efi) = efi {
        efi.add_to(&mut chosen);
    }
    let initrd = chosen.initrd.map(HostRange::addresses);
    let gic = gic::find(&tree)?;
    let taken: Vec<_> = own.iter().cloned().chain(initrd).collect();
    Ok(HostDescription {
        model,
        memory,
        mappable,
        reserved,
        cpus: cpus::find_all(&tree, psci.is_some(), &taken, &mut warnings)?,
        private: interrupts::private(&tree, gic.maintenance())?,
        gic,
        uarts,
        // Firmware says that the one of its runtime services is disabled. None of those runs, and the time is only read.
        rtc: registers_of(&tree, "arm,pl031", efi.is_some()),
        watchdog: match psci {
            Some(_) => None,
            None => watchdog::find(&tree),
        },
        psci,
        chosen,
        compatible,
        warnings,
    })
}

/// Returns how many bytes of heap reading this tree takes: the lists of its nodes and properties, and what [`describe`] makes of them.
///
/// In proportion to the structure block, because a list that grows is there twice for a moment and a buddy allocator rounds up:
/// of a range of four times the size it can always make a block of that size rounded up.
pub fn heap_bytes(dtb: &[u8]) -> u64 {
    const SMALL_THINGS: usize = 192 * 1024;
    const TIMES: usize = 6;
    const PAGE: u64 = 4096;
    let structure = crate::devicetree::structure_size(dtb).unwrap_or(0);
    let bytes = structure.saturating_mul(TIMES).saturating_add(SMALL_THINGS);
    (bytes as u64).next_multiple_of(PAGE)
}

/// Finds only the console's UART, for the message that says why [`describe`] failed.
pub fn find_console(dtb: &[u8]) -> Option<Uart> {
    let tree = Tree::parse(dtb).ok()?;
    let uarts = uart::find_all(&tree, &mut Vec::new());
    uarts.into_iter().next()
}
