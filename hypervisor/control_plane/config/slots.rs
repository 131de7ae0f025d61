//! Room for vCPUs on the host's CPUs: which VMs there is room for, and where a vCPU goes whose manifest names no CPU.

use alloc::vec;
use alloc::vec::Vec;

use super::{ConfigError, Placement, Problem, VmConfig};
use types::ids::{MAX_VCPUS_A_CPU, PcpuId, VcpuId};

/// What is left of each CPU's places while VMs are made.
#[derive(Clone, Debug)]
pub struct CpuSlots {
    /// Places that no admitted vCPU is pinned to and none has been dealt, by CPU.
    free: Vec<u16>,
    /// Admitted vCPUs that are not pinned and have no place yet.
    unplaced: u64,
    /// The CPU whose turn it is.
    next: usize,
}

impl CpuSlots {
    /// Describes this many CPUs, all empty.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self {
            free: vec![MAX_VCPUS_A_CPU; cpus],
            unplaced: 0,
            next: 0,
        }
    }

    /// Returns the CPU that a VM's vCPU is pinned to, if there is one of that number.
    #[must_use]
    pub fn pinned(&self, placement: &Placement, vcpu: VcpuId) -> Option<PcpuId> {
        let cpu = placement.pinned(vcpu)?;
        (cpu.index() < self.free.len()).then_some(cpu)
    }

    /// Keeps places for all vCPUs of a VM that it may ever have.
    ///
    /// # Errors
    /// The key of the manifest that asks for more places than are left; nothing is kept then.
    pub fn admit(&mut self, vm: &VmConfig) -> Result<(), ConfigError> {
        let mut free = self.free.clone();
        let mut unplaced = self.unplaced;
        for vcpu in (0..vm.max_vcpus).map(VcpuId::new) {
            let Some(cpu) = self.pinned(&vm.placement, vcpu) else {
                unplaced = unplaced.saturating_add(1);
                continue;
            };
            match free.get_mut(cpu.index()) {
                Some(left) if *left != 0 => *left = left.saturating_sub(1),
                _ => return Err(vm.error("cpus", cpu.get(), Problem::CpuFull)),
            }
        }
        if free.iter().map(|left| u64::from(*left)).sum::<u64>() < unplaced {
            return Err(vm.error("max-vcpus", vm.max_vcpus, Problem::CpusFull));
        }
        (self.free, self.unplaced) = (free, unplaced);
        Ok(())
    }

    /// Deals the place of an admitted vCPU that is not pinned: the CPUs in turn, those without room left out. `None` if none has room.
    pub fn deal(&mut self) -> Option<PcpuId> {
        let mut turns = (self.next..self.free.len()).chain(0..self.next);
        let cpu = turns.find(|cpu| self.free.get(*cpu).is_some_and(|left| *left != 0))?;
        let left = self.free.get_mut(cpu)?;
        *left = left.saturating_sub(1);
        self.unplaced = self.unplaced.saturating_sub(1);
        self.next = cpu.saturating_add(1);
        Some(PcpuId::new(cpu as u16))
    }
}
