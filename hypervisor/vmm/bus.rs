//! What answers at a guest address: the interrupt controller, or a device of the table.

use crate::devices::Devices;
use crate::vm::Vm;
use types::address::GuestPhys;
use types::devices::DeviceId;
use types::ids::VcpuId;
use types::layout::{GicVersion, GuestLayout, Region};
use types::stats::ExitReason;

/// What is behind a guest address, and the offset within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The GIC distributor.
    Distributor(u32),
    /// A vCPU's redistributor.
    Redistributor(VcpuId, u32),
    /// What of a GICv2's CPU interface EL2 answers: all but its first page.
    CpuInterface(u32),
    /// A device; the offset is from its first window.
    Device(DeviceId, u64),
}

impl Target {
    /// Returns under which reason an exit for it is counted.
    #[inline(always)]
    #[must_use]
    pub const fn exit_reason(self) -> ExitReason {
        match self {
            Self::Distributor(_) | Self::CpuInterface(_) => ExitReason::Distributor,
            Self::Redistributor(..) => ExitReason::Redistributor,
            Self::Device(device, _) => device.row().reason,
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
    match Devices::find(layout, address) {
        Some((device, offset)) => Some(Target::Device(device, offset)),
        None => cpu_interface(layout, address),
    }
}

/// Finds a GICv2's CPU interface.
#[cold]
fn cpu_interface(layout: &GuestLayout, address: u64) -> Option<Target> {
    let offset = within(address, &layout.cpu_interface)?;
    (layout.gic == GicVersion::V2).then_some(Target::CpuInterface(offset as u32))
}
