//! RAM banks and what is reserved in them (Devicetree Specification 3.4, 3.5 and 5.3).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::{HostError, HostRange, Reservation};
use crate::devicetree::{AddressRange, Node, Tree};

/// Names a non-empty range that does not wrap; `None` otherwise.
fn host_range(range: AddressRange) -> Option<HostRange> {
    range.base.checked_add(range.size)?;
    (range.size != 0).then(|| range.into())
}

/// Returns whether a node describes RAM: by `device_type`, or by name where that deprecated property was left out.
fn is_memory(node: &Node<'_, '_>) -> bool {
    match node.string("device_type") {
        Some(kind) => kind == "memory",
        None => node.name() == "memory",
    }
}

/// Collects the RAM banks, ascending, neighbours joined. Empty banks are placeholders and skipped.
pub(super) fn banks(tree: &Tree<'_>) -> Result<Vec<HostRange>, HostError> {
    let mut banks: Vec<(HostRange, Node<'_, '_>)> = Vec::new();
    for node in tree
        .root()
        .children()
        .filter(|node| is_memory(node) && node.is_enabled())
    {
        if node.property("reg").is_none() {
            return Err(HostError::property(&node, "reg", "is missing"));
        }
        for range in node.reg() {
            let range = range
                .map_err(|_| HostError::property(&node, "reg", "is not a list of RAM banks"))?;
            if range.size == 0 {
                continue;
            }
            let range =
                host_range(range).ok_or_else(|| HostError::property(&node, "reg", "wraps"))?;
            banks.push((range, node));
        }
    }
    banks.sort_unstable_by_key(|(range, _)| *range);
    let mut joined: Vec<HostRange> = Vec::with_capacity(banks.len());
    for (bank, node) in banks {
        match joined.last_mut() {
            Some(last) if last.overlaps(bank) => {
                let problem = "overlaps another RAM bank";
                return Err(HostError::property(&node, "reg", problem));
            }
            Some(last) if last.end() == bank.base.get() => {
                last.size = last.size.saturating_add(bank.size)
            }
            _ => joined.push(bank),
        }
    }
    if joined.is_empty() {
        return Err(HostError::Missing {
            what: "RAM (no /memory node with a size)",
        });
    }
    Ok(joined)
}

/// Returns the parts of RAM that may be mapped, the largest first, so that the first one has room for the tables of the others.
///
/// They are whole pages: a page that is RAM only in part is left out, and so is one that touches what is `no-map`, to which even a
/// speculative access is forbidden (Devicetree Specification 3.5.4).
pub(super) fn mappable(banks: &[HostRange], reserved: &[Reservation]) -> Vec<HostRange> {
    let up = |address: u64| address.saturating_add(PAGE - 1) & !(PAGE - 1);
    let down = |address: u64| address & !(PAGE - 1);
    let mut parts: Vec<Range<u64>> = banks
        .iter()
        .map(|bank| up(bank.base.get())..down(bank.end()))
        .collect();
    for hole in reserved.iter().filter(|reservation| reservation.no_map) {
        let hole = down(hole.range.base.get())..up(hole.range.end());
        let around = |part: Range<u64>| {
            [
                part.start..part.end.min(hole.start),
                part.start.max(hole.end)..part.end,
            ]
        };
        parts = parts.into_iter().flat_map(around).collect();
        parts.retain(|part| part.start < part.end);
    }
    let mut parts: Vec<HostRange> = parts.into_iter().filter_map(from_addresses).collect();
    parts.sort_by_key(|part| core::cmp::Reverse(part.size));
    parts
}

/// Names a range by its addresses, if it has any.
pub(super) fn from_addresses(addresses: Range<u64>) -> Option<HostRange> {
    let size = addresses.end.checked_sub(addresses.start)?;
    host_range(AddressRange {
        base: addresses.start,
        size,
    })
}

/// Bytes of the smallest mapping.
const PAGE: u64 = 4096;

/// Collects the memory reservation block and the static ranges of `/reserved-memory`.
///
/// Children without `reg` ask the operating system for memory at any place: they are none of ours.
pub(super) fn reservations(tree: &Tree<'_>, warnings: &mut Vec<String>) -> Vec<Reservation> {
    let mut found = Vec::new();
    for range in tree.reservations() {
        match host_range(*range) {
            Some(range) => found.push(Reservation {
                range,
                no_map: false,
            }),
            None => warnings.push(format!(
                "memory reservation {:#x}+{:#x} ignored",
                range.base, range.size
            )),
        }
    }
    let children = tree
        .find("/reserved-memory")
        .into_iter()
        .flat_map(|node| node.children());
    for node in children.filter(Node::is_enabled) {
        let no_map = node.property("no-map").is_some();
        for range in node.reg() {
            match range.ok().and_then(host_range) {
                Some(range) => found.push(Reservation { range, no_map }),
                None => warnings.push(format!("{}: `reg` ignored: not a range", node.path())),
            }
        }
    }
    found
}
