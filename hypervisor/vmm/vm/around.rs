//! What surrounds a VM's devices: the VM itself, and what EL2 gives to it.

use super::{Kicks, Vm};
use crate::devices::{Surroundings, Vcpus};
use crate::memory::GuestMemory;
use types::devices::DeviceId;
use types::ids::VcpuId;

/// What EL2 gives to a VM's devices; none of it takes a lock.
pub trait Outside {
    /// Returns the time in nanoseconds since EL2 started.
    fn now_ns(&self) -> u64;

    /// Returns a VM's memory, while one of its vCPUs is in a trap or its manager works for it: then nothing takes it away.
    fn memory(&self, vm: &Vm) -> impl GuestMemory;
}

/// The surroundings of one device of a VM.
#[derive(Debug)]
pub struct Around<'a, O> {
    vm: &'a Vm,
    outside: &'a O,
    device: DeviceId,
    kicks: &'a mut Kicks,
    /// Whether a line has moved.
    moved: bool,
}

impl<'a, O: Outside> Around<'a, O> {
    /// Surrounds a device of a VM; CPUs that have to look are put into `kicks`.
    #[inline(always)]
    pub const fn new(vm: &'a Vm, device: DeviceId, outside: &'a O, kicks: &'a mut Kicks) -> Self {
        Self {
            vm,
            outside,
            device,
            kicks,
            moved: false,
        }
    }

    /// Returns whether an interrupt line has moved.
    #[inline(always)]
    #[must_use]
    pub const fn has_moved(&self) -> bool {
        self.moved
    }
}

impl Vcpus for Vm {
    #[inline(always)]
    fn sta(&self, vcpu: VcpuId) -> u32 {
        self.vcpu(vcpu).map_or(0, |vcpu| vcpu.power.sta())
    }
}

impl<O: Outside> Surroundings for Around<'_, O> {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.outside.now_ns()
    }

    fn memory(&self) -> impl GuestMemory {
        self.outside.memory(self.vm)
    }

    #[inline]
    fn set_line(&mut self, window: u16, high: bool) {
        self.moved = true;
        let first = self.vm.layout.device(self.device).intid;
        let intid = first.wrapping_add(u32::from(window));
        self.vm.set_line(intid, high, self.kicks);
    }
}
