//! What surrounds a VM's devices: the VM itself, and what EL2 gives to it.

use super::{Kicks, Vm};
use crate::devices::{Devices, Surroundings, Vcpus};
use crate::memory::GuestMemory;
use types::devices::DeviceId;
use types::hotplug::Kind;
use types::ids::{VcpuId, VmId};

/// What EL2 gives to a VM's devices; none of it takes a lock.
pub trait Outside {
    /// Returns the time in nanoseconds since EL2 started.
    fn now_ns(&self) -> u64;

    /// Returns a VM's memory, while one of its vCPUs is in a trap, its manager works for it, or the lock of a live device of it is held:
    /// then nothing takes it away.
    fn memory(&self, vm: &Vm) -> impl GuestMemory + use<Self>;

    /// Draws from the generator of EL2; its lock is held for that alone.
    fn random(&self) -> [u8; 32];

    /// Returns a VM.
    fn vm(&self, id: VmId) -> Option<&'static Vm>;
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
    fn sta(&self, kind: Kind, member: VcpuId) -> u32 {
        match kind {
            Kind::Vcpu => self.vcpu(member).map_or(0, |vcpu| vcpu.power.sta()),
            Kind::Slot => {
                let slot = self.hot.slot(member);
                let is_there = slot.is_some_and(|slot| slot.host().is_some());
                if is_there { psci::STA_ENABLED } else { 0 }
            }
        }
    }
}

impl<'a, O: Outside> Surroundings for Around<'a, O> {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.outside.now_ns()
    }

    fn random(&self) -> [u8; 32] {
        self.outside.random()
    }

    fn memory(&self) -> impl GuestMemory + use<'a, O> {
        self.outside.memory(self.vm)
    }

    type Peer<'p>
        = Around<'p, O>
    where
        Self: 'p;

    fn peer(&mut self, vm: VmId) -> Option<(&Devices, Around<'_, O>)> {
        let vm = self.outside.vm(vm)?;
        let around = Around::new(vm, DeviceId::Virtio, self.outside, self.kicks);
        Some((&vm.devices, around))
    }

    #[inline]
    fn set_line(&mut self, window: u16, high: bool) {
        self.moved = true;
        let first = self.vm.layout.device(self.device).intid;
        let intid = first.wrapping_add(u32::from(window));
        self.vm.set_line(intid, high, self.kicks);
    }
}
