//! Names for the things a machine has several of, so that one is never taken for another.

use core::fmt;

use crate::affinity;
use crate::bits::{BitSet, Numbered};

/// Most VMs of one manifest.
pub const MAX_VMS: usize = 64;
/// Most physical CPUs that can be used.
pub const MAX_PCPUS: usize = 512;
/// Most vCPUs of one VM: MPIDR Aff0 counts to 16 and Aff1 to 32, Linux is built for 512, and the hot-plug block has as many frames.
pub const MAX_VCPUS: u16 = 512;
/// Most vCPUs that one physical CPU holds.
pub const MAX_VCPUS_A_CPU: u16 = 512;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u16);

        impl $name {
            /// Makes the id of the element with this index.
            pub const fn new(index: u16) -> Self {
                Self(index)
            }

            /// Returns the index this id stands for.
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// Returns the index as the number it was made of.
            pub const fn get(self) -> u16 {
                self.0
            }
        }

        impl Numbered for $name {
            #[inline]
            fn number(self) -> usize {
                self.index()
            }

            #[inline]
            fn from_number(number: usize) -> Option<Self> {
                u16::try_from(number).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A virtual CPU's index within its VM; also its ACPI processor UID.
    VcpuId,
    "vcpu"
);
id!(
    /// A physical CPU's index in the host's device tree.
    PcpuId,
    "cpu"
);
id!(
    /// A VM's index in the manifest.
    VmId,
    "vm"
);

/// [`affinity::CLUSTER`] as wide as MPIDR_EL1.
const CLUSTER: u64 = affinity::CLUSTER as u64;

impl VcpuId {
    /// Returns the affinity fields of MPIDR_EL1 that this virtual CPU shows.
    pub const fn affinity(self) -> u64 {
        let index = self.0 as u64;
        ((index / CLUSTER) << 8) | (index % CLUSTER)
    }

    /// Finds the virtual CPU that an affinity value names, if the value is one that [`VcpuId::affinity`] can give.
    pub const fn from_affinity(affinity: u64) -> Option<Self> {
        let (aff0, aff1) = (affinity & 0xff, affinity >> 8 & 0xff);
        if affinity >> 16 != 0 || aff0 >= CLUSTER {
            return None;
        }
        Some(Self((aff1 * CLUSTER + aff0) as u16))
    }
}

/// Least and most CPU time that a VM can be limited to, in thousandths of a CPU.
pub const MIN_MILLICORES: u32 = 50;
/// See [`MIN_MILLICORES`].
pub const MAX_MILLICORES: u32 = 1000 * MAX_VCPUS as u32;

/// Most weight of a VM among those that share a CPU, the least being 1, and that of a VM which has none of its own: as of cgroup v2.
pub const MAX_WEIGHT: u16 = 10_000;
/// See [`MAX_WEIGHT`].
pub const DEFAULT_WEIGHT: u16 = 100;

/// A set of physical CPUs.
pub type PcpuSet = BitSet<PcpuId, { MAX_PCPUS / 64 }>;
/// A set of vCPUs of one VM.
pub type VcpuSet = BitSet<VcpuId, { MAX_VCPUS as usize / 64 }>;

#[cfg(test)]
mod tests {
    use super::VcpuId;

    #[test]
    fn affinity_round_trips_for_every_possible_vcpu() {
        for index in 0..512 {
            let id = VcpuId::new(index);
            assert_eq!(VcpuId::from_affinity(id.affinity()), Some(id));
        }
    }

    #[test]
    fn affinities_nobody_has_are_refused() {
        for value in [0x10, 0x1_0000, 1 << 32, u64::MAX, 0xff] {
            assert_eq!(VcpuId::from_affinity(value), None, "{value:#x}");
        }
    }
}
