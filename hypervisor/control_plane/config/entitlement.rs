//! What a VM is entitled to, as its manifest says it.

use super::error::{ConfigError, Problem};
use super::manifest::{number, number_error, property_error};
use super::schema::{CPU_CAP, ENTITLED_CAP, ENTITLED_VCPUS};
use crate::devicetree::{Cells, Node};
use types::entitlement::{Bounds, Entitlement};
use types::ids::{MAX_MILLICORES, MIN_MILLICORES};

/// Reads the entitlement of a VM with so many vCPUs from boot, of so many possible ones.
pub(super) fn entitlement(
    node: &Node<'_, '_>,
    boot: u64,
    possible: u64,
) -> Result<Entitlement, ConfigError> {
    let cap = (MIN_MILLICORES, MAX_MILLICORES);
    // Counts of vCPUs fit 16 bits.
    let entitlement = Entitlement {
        vcpus: bounds(node, ENTITLED_VCPUS, (1, possible as u32), "vCPUs")?,
        cpu_cap: bounds(node, ENTITLED_CAP, cap, "millicores")?,
    };
    let allowed = entitlement.allow_vcpus(boot as u32);
    allowed.map_err(|why| number_error(node, "boot-vcpus", boot, Problem::NotEntitled(why)))?;
    Ok(entitlement)
}

/// Reads the cap of a VM with this entitlement: without a cap of its own it has the most that it is entitled to.
pub(super) fn cap(
    entitlement: &Entitlement,
    node: &Node<'_, '_>,
) -> Result<Option<u32>, ConfigError> {
    let (min, max) = (u64::from(MIN_MILLICORES), u64::from(MAX_MILLICORES));
    let Some(cap) = number(node, CPU_CAP, min, max)? else {
        return Ok(entitlement.cpu_cap.map(|bounds| bounds.max));
    };
    // Within the limits it fits.
    let millicores = Some(cap as u32);
    let allowed = entitlement.allow_cap(millicores);
    allowed.map_err(|why| number_error(node, CPU_CAP, cap, Problem::NotEntitled(why)))?;
    Ok(millicores)
}

/// Reads a least and a most, both within limits.
fn bounds(
    node: &Node<'_, '_>,
    key: &str,
    (least, most): (u32, u32),
    unit: &'static str,
) -> Result<Option<Bounds>, ConfigError> {
    let Some(value) = node.property(key) else {
        return Ok(None);
    };
    let mut cells = Cells(value);
    let read = (cells.cell(), cells.cell(), value.len());
    let problem = match read {
        (Some(min), Some(max), 8) if min <= max => match min >= least && max <= most {
            true => return Ok(Some(Bounds { min, max, unit })),
            false => Problem::OutOfRange {
                min: least.into(),
                max: most.into(),
            },
        },
        _ => Problem::NotBounds,
    };
    Err(property_error(node, key, problem))
}
