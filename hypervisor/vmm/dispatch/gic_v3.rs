//! The GICv3 that a guest sees: its distributor and redistributors in memory, and the registers that send SGIs.
//!
//! Together with [`vgic::v3`] this is all that knows this version; `gic_v2` is beside it.

use vgic::v3::sgi::{self, SgiTargets};
use vgic::v3::{distributor, redistributor};
use vgic::{After, IntId, ListRegisters, Notice};

use super::Trap;
use types::access::AccessWidth;
use types::ids::VcpuId;

/// Reads a register of the distributor.
#[inline]
pub(crate) fn read_distributor<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    offset: u32,
    width: AccessWidth,
) -> u64 {
    let Trap {
        vm,
        vcpu,
        lists,
        kicks,
        ..
    } = trap;
    let held = |intid| vcpu.gic.lock().held(*lists, intid);
    let reader = vcpu.id.get();
    distributor::read(&vm.gic, offset, width, reader, &held, &mut vm.poster(kicks))
}

/// Writes a register of the distributor.
#[inline]
pub(super) fn write_distributor<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    offset: u32,
    width: AccessWidth,
    value: u64,
) {
    let vm = trap.vm;
    let kicks = &mut trap.kicks;
    distributor::write(&vm.gic, offset, width, value, &mut vm.poster(kicks));
    if !trap.vcpu.inbox.is_empty() {
        trap.deliver();
    }
}

/// Reads a register of a vCPU's redistributor; of a vCPU that there is not, nothing.
#[inline]
pub(super) fn read_redistributor<L: ListRegisters>(
    trap: &Trap<'_, L>,
    id: VcpuId,
    offset: u32,
    width: AccessWidth,
) -> Option<u64> {
    let own = trap.vcpu;
    let last = || trap.vm.redistributors.is_last(id);
    if id == own.id {
        let gic = own.gic.lock();
        return Some(redistributor::read(&gic, last, trap.lists, offset, width));
    }
    let gic = trap.vm.vcpu(id)?.gic.lock();
    Some(redistributor::read_remote(&gic, last, offset, width))
}

/// Writes a register of a vCPU's redistributor; what follows for another vCPU its own CPU carries out.
#[inline]
pub(super) fn write_redistributor<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    id: VcpuId,
    offset: u32,
    width: AccessWidth,
    value: u64,
) {
    let own = trap.vcpu;
    if id != own.id {
        return write_remote(trap, id, offset, width, value);
    }
    let effect = redistributor::write(&mut own.gic.lock(), trap.lists, offset, width, value);
    trap.owed |= effect.owed.0;
    if effect.after == After::Settle {
        trap.settle();
    }
}

fn write_remote<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    id: VcpuId,
    offset: u32,
    width: AccessWidth,
    value: u64,
) {
    let Some(vcpu) = trap.vm.vcpu(id) else { return };
    let effect = redistributor::write_remote(&mut vcpu.gic.lock(), offset, width, value);
    if effect.after == After::Settle && vcpu.inbox.post(Notice::Resync) {
        vcpu.notify(&mut trap.kicks);
    }
}

/// Sends a group 1 SGI as ICC_SGI1R_EL1 says.
#[inline]
pub(super) fn send_sgi<L: ListRegisters>(trap: &mut Trap<'_, L>, value: u64) {
    let own = trap.vcpu.id.get();
    let intid = sgi::intid(value);
    match sgi::targets(value, trap.vm.vcpus.len() as u16) {
        SgiTargets::One(target) if target == own => raise(trap, intid),
        SgiTargets::One(target) => post_sgi(trap, target, intid),
        SgiTargets::List { base, mask } => {
            for bit in (0..16).filter(|bit| mask & 1 << bit != 0) {
                match base + bit {
                    target if target == own => raise(trap, intid),
                    target => post_sgi(trap, target, intid),
                }
            }
        }
        SgiTargets::AllButSelf => {
            for target in (0..trap.vm.vcpus.len() as u16).filter(|target| *target != own) {
                post_sgi(trap, target, intid);
            }
        }
        SgiTargets::None => {}
    }
}

#[inline]
fn post_sgi<L: ListRegisters>(trap: &mut Trap<'_, L>, target: u16, intid: IntId) {
    if let Some(vcpu) = trap.vm.vcpus.get(usize::from(target))
        && vcpu.inbox.post_private(intid)
    {
        vcpu.notify(&mut trap.kicks);
    }
}

/// Raises a private interrupt at the vCPU itself.
#[inline]
fn raise<L: ListRegisters>(trap: &mut Trap<'_, L>, intid: IntId) {
    let after = trap.vcpu.gic.lock().raise(trap.lists, intid);
    if after == After::Settle {
        trap.settle();
    }
}

/// Sends an SGI that only reaches vCPUs for which the interrupt is in group 0, as ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 say.
pub(crate) fn send_group0<L: ListRegisters>(trap: &mut Trap<'_, L>, value: u64) {
    let count = trap.vm.vcpus.len() as u16;
    let own = trap.vcpu.id.get();
    let intid = sgi::intid(value);
    let targets = sgi::targets(value, count);
    for vcpu in &*trap.vm.vcpus {
        let index = vcpu.id.get();
        let wanted = match targets {
            SgiTargets::None => false,
            SgiTargets::One(target) => target == index,
            SgiTargets::List { base, mask } => index
                .checked_sub(base)
                .is_some_and(|bit| bit < 16 && mask & 1 << bit != 0),
            SgiTargets::AllButSelf => index != own,
        };
        if wanted && vcpu.gic.lock().is_group0(intid) && vcpu.inbox.post_private(intid) {
            vcpu.notify(&mut trap.kicks);
        }
    }
    trap.deliver();
}
