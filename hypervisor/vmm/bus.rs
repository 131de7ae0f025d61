//! Which device a guest address belongs to.

use crate::vm::Vm;
use types::address::GuestPhys;
use types::ids::VcpuId;
use types::layout::{GuestLayout, Region};
use types::stats::ExitReason;

/// The device behind a guest address, and the offset within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The GIC distributor.
    Distributor(u32),
    /// A vCPU's redistributor.
    Redistributor(VcpuId, u32),
    /// The console's PL011.
    Uart(u64),
    /// The PL031 clock.
    Rtc(u64),
    /// The hot-plug registers.
    Hotplug(u64),
    /// A virtio-mmio transport; the offset is from the first one.
    Virtio(u64),
}

impl Target {
    /// Returns under which reason an exit for it is counted.
    #[inline]
    #[must_use]
    pub const fn exit_reason(self) -> ExitReason {
        match self {
            Self::Distributor(_) => ExitReason::Distributor,
            Self::Redistributor(..) => ExitReason::Redistributor,
            Self::Uart(_) => ExitReason::Uart,
            Self::Rtc(_) => ExitReason::Rtc,
            Self::Hotplug(_) => ExitReason::Hotplug,
            Self::Virtio(_) => ExitReason::Device,
        }
    }
}

/// Returns the offset of an address within a region.
#[inline]
fn within(address: u64, region: &Region) -> Option<u64> {
    let offset = address.wrapping_sub(region.base.get());
    (offset < region.size).then_some(offset)
}

/// Finds what answers at a guest address.
#[inline]
#[must_use]
pub fn find(vm: &Vm, address: u64) -> Option<Target> {
    let layout: &GuestLayout = &vm.layout;
    if let Some(offset) = within(address, &layout.distributor) {
        return Some(Target::Distributor(offset as u32));
    }
    if let Some((vcpu, offset)) = vm.redistributors.find(GuestPhys::new(address)) {
        return Some(Target::Redistributor(vcpu, offset as u32));
    }
    if let Some(offset) = within(address, &layout.uart.registers) {
        return Some(Target::Uart(offset));
    }
    if let Some(offset) = within(address, &layout.hotplug.registers) {
        return Some(Target::Hotplug(offset));
    }
    if let Some(offset) = within(address, &layout.rtc.registers) {
        return Some(Target::Rtc(offset));
    }
    within(address, &layout.virtio.registers).map(Target::Virtio)
}
