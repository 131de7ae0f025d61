//! `reg` properties as physical addresses: translated through every bus above (Devicetree Specification 2.3.6, 2.3.8).

use core::fmt;

use super::node::Node;
use super::value::Cells;

/// A range as the tree tells it: not yet known to be memory or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

impl<'t, 'a> Node<'t, 'a> {
    /// Goes through `reg` as CPU physical ranges: each address is translated through the `ranges` of every bus above.
    pub fn reg(&self) -> impl Iterator<Item = Result<AddressRange, RegError>> + use<'t, 'a> {
        let node = *self;
        let (address, size) = self.parent().map_or((2, 1), |parent| parent.child_cells());
        let mut cells = Cells(self.property("reg").unwrap_or_default());
        core::iter::from_fn(move || {
            if cells.0.is_empty() {
                return None;
            }
            if address.saturating_add(size) == 0 {
                cells.0 = &[];
                return Some(Err(RegError::Malformed));
            }
            let entry = (cells.number(address), cells.number(size));
            let (Some(base), Some(size)) = entry else {
                cells.0 = &[];
                return Some(Err(RegError::Malformed));
            };
            Some(node.translate(AddressRange { base, size }))
        })
    }

    /// Follows one range of this node's `reg` up to the root.
    fn translate(&self, mut range: AddressRange) -> Result<AddressRange, RegError> {
        range
            .base
            .checked_add(range.size.saturating_sub(1))
            .ok_or(RegError::Wraps)?;
        let mut bus = self.parent();
        while let Some(node) = bus {
            let Some(above) = node.parent() else { break };
            range = translate_once(&node, &above, range)?;
            bus = Some(above);
        }
        Ok(range)
    }
}

/// Why a `reg` entry gives no physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegError {
    /// The property's length is not a multiple of an entry, or a number needs more than 64 bits.
    Malformed,
    /// The range passes the end of the address space.
    Wraps,
    /// A bus above has no `ranges`, or none that covers the address.
    NotMapped,
}

impl fmt::Display for RegError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not a list of address and size",
            Self::Wraps => "passes the end of the address space",
            Self::NotMapped => "is not mapped by the `ranges` of the buses above",
        })
    }
}

/// Translates a range by the `ranges` of `bus`, whose own parent is `above` (Devicetree Specification 2.3.8).
fn translate_once(
    bus: &Node<'_, '_>,
    above: &Node<'_, '_>,
    range: AddressRange,
) -> Result<AddressRange, RegError> {
    let mut cells = Cells(bus.property("ranges").ok_or(RegError::NotMapped)?);
    let (child_cells, size_cells) = bus.child_cells();
    let (parent_cells, _) = above.child_cells();
    if cells.0.is_empty() {
        return Ok(range);
    }
    if size_cells == 0 {
        return Err(RegError::Malformed);
    }
    while !cells.0.is_empty() {
        let window = (
            cells.number(child_cells),
            cells.number(parent_cells),
            cells.number(size_cells),
        );
        let (Some(child), Some(parent), Some(size)) = window else {
            return Err(RegError::Malformed);
        };
        let Some(offset) = range.base.checked_sub(child) else {
            continue;
        };
        if offset.checked_add(range.size).is_none_or(|end| end > size) {
            continue;
        }
        let base = parent.checked_add(offset).ok_or(RegError::Wraps)?;
        base.checked_add(range.size.saturating_sub(1))
            .ok_or(RegError::Wraps)?;
        return Ok(AddressRange {
            base,
            size: range.size,
        });
    }
    Err(RegError::NotMapped)
}
