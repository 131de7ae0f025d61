//! Where a virtual CPU that is turned on goes.

use crate::ids::PcpuId;

/// A physical CPU on which a virtual CPU may be placed, and how busy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The physical CPU.
    pub cpu: PcpuId,
    /// How many virtual CPUs that are on have their place there, of all VMs.
    pub live: u32,
    /// How many of these belong to the VM of the one to be placed.
    pub same_vm: u32,
}

/// Picks the least loaded of the allowed physical CPUs; `None` if none is allowed.
///
/// Among equally loaded ones it picks that with the fewest of the same VM, since those run at the same time, then the lowest number.
#[must_use]
pub fn place(allowed: impl IntoIterator<Item = Candidate>) -> Option<PcpuId> {
    allowed
        .into_iter()
        .min_by_key(|candidate| (candidate.live, candidate.same_vm, candidate.cpu))
        .map(|candidate| candidate.cpu)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, place};
    use crate::ids::PcpuId;

    fn placed(cpus: &[(u16, u32, u32)]) -> Option<u16> {
        let candidates = cpus.iter().map(|&(cpu, live, same_vm)| Candidate {
            cpu: PcpuId::new(cpu),
            live,
            same_vm,
        });
        place(candidates).map(PcpuId::get)
    }

    #[test]
    fn the_least_loaded_allowed_cpu_is_picked() {
        assert_eq!(placed(&[]), None);
        assert_eq!(placed(&[(3, 9, 9)]), Some(3), "it has no choice");
        assert_eq!(placed(&[(0, 1, 0), (1, 0, 0), (2, 0, 0)]), Some(1));
        assert_eq!(placed(&[(0, 1, 1), (1, 1, 0)]), Some(1), "other VMs first");
        assert_eq!(placed(&[(2, 1, 1), (1, 1, 1), (3, 1, 1)]), Some(1));
    }
}
