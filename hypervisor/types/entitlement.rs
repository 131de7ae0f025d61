//! What a VM is entitled to: the bounds of what may be asked for it, on whichever way it is asked.
//!
//! The manifest sets them, and nothing changes them while the host is up.

use core::fmt;

/// The least and the most of something that a VM may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// What it is counted in.
    pub unit: &'static str,
}

impl Bounds {
    fn allow(bounds: Option<Self>, wanted: u32) -> Result<(), NotEntitled> {
        match bounds {
            Some(bounds) if !(bounds.min..=bounds.max).contains(&wanted) => {
                Err(NotEntitled(bounds))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {}", self.min, self.max, self.unit)
    }
}

/// More, or less, was asked for than the VM is entitled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEntitled(pub Bounds);

/// What a VM is entitled to. What has no bounds here has those of the machine and of the other keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlement {
    /// How many vCPUs it may be given.
    pub vcpus: Option<Bounds>,
    /// What its vCPUs may be allowed to use of all CPUs together, in thousandths of a CPU.
    pub cpu_cap: Option<Bounds>,
}

impl Entitlement {
    /// Checks a number of vCPUs that is asked for.
    ///
    /// # Errors
    /// It is outside the bounds.
    pub fn allow_vcpus(&self, count: u32) -> Result<(), NotEntitled> {
        Bounds::allow(self.vcpus, count)
    }

    /// Checks a cap that is asked for, in thousandths of a CPU; none is more than any.
    ///
    /// # Errors
    /// It is outside the bounds.
    pub fn allow_cap(&self, millicores: Option<u32>) -> Result<(), NotEntitled> {
        Bounds::allow(self.cpu_cap, millicores.unwrap_or(u32::MAX))
    }
}
