//! The GICv2 that a guest sees: its distributor, which sends SGIs too, and what of its CPU interface is not the hardware's GICV.
//!
//! Together with [`vgic::v2`] this is all that knows this version.

use types::gicv2;
use vgic::v2::distributor;
use vgic::{After, ListRegisters};

use super::Trap;
use super::hot::{Hot, read, written};
use crate::exit::Abort;
use crate::vm::context::Frame;

/// Answers an access to the distributor.
#[inline(never)]
pub(super) fn distributor<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    iss: Abort,
    offset: u32,
) -> Hot {
    let access = (offset, iss.width());
    let Trap {
        vm,
        vcpu,
        lists,
        kicks,
        ..
    } = trap;
    let mut post = vm.poster(kicks);
    let mut gic = vcpu.gic.lock();
    if !iss.is_write() {
        let value = distributor::read(&vm.gic, &gic, *lists, access, &mut post);
        return read(frame, iss, u64::from(value));
    }
    let value = written(frame, iss) as u32;
    let effect = distributor::write(&vm.gic, &mut gic, *lists, access, value, &mut post);
    drop((gic, post));
    trap.owed |= effect.owed.0;
    if effect.after == After::Settle {
        trap.settle();
    }
    if !trap.vcpu.inbox.is_empty() {
        trap.deliver();
    }
    Hot::Advance
}

/// Answers an access to the CPU interface behind its first page: a write of GICC_DIR ends an interrupt, the rest is RAZ/WI.
///
/// The first page is the hardware's and does not trap; what comes from there all the same finds nothing.
#[cold]
#[inline(never)]
pub(super) fn cpu_interface<L: ListRegisters>(
    trap: &mut Trap<'_, L>,
    frame: &mut Frame,
    iss: Abort,
    offset: u32,
) -> Hot {
    if !iss.is_write() {
        return read(frame, iss, 0);
    }
    if offset == gicv2::GICC_DIR {
        trap.deactivate(written(frame, iss) & u64::from(gicv2::IAR_INTID));
    }
    Hot::Advance
}
