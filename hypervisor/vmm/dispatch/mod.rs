//! From a trap to what must be done about it.
//!
//! `hot` settles most traps where they arrive, with the guest's registers half saved; `slow` takes the rest. Both are the same
//! kind of function: they see the VM, change its state, and say in a value what `el2` is to do.

mod calls;
mod gic_v2;
pub(crate) mod gic_v3;
pub mod hot;
pub mod inject;
pub mod slow;
mod sysreg;

use types::layout::GicVersion;
use vgic::{IntId, ListRegisters};

use crate::vm::{Kicks, Vcpu, Vm};

/// A vCPU in a trap, with everything its handler may need.
#[derive(Debug)]
pub struct Trap<'a, L> {
    /// Its VM.
    pub vm: &'static Vm,
    /// Itself.
    pub vcpu: &'static Vcpu,
    /// The list registers of the CPU it is loaded on.
    pub lists: &'a mut L,
    /// CPUs to be kicked when all is done.
    pub kicks: Kicks,
    /// Private physical interrupts to be deactivated, a bit each.
    pub owed: u32,
}

impl<'a, L: ListRegisters> Trap<'a, L> {
    /// Makes a trap of which nothing is known yet.
    #[inline]
    pub fn new(vm: &'static Vm, vcpu: &'static Vcpu, lists: &'a mut L) -> Self {
        Self {
            vm,
            vcpu,
            lists,
            kicks: Kicks::NONE,
            owed: 0,
        }
    }

    /// Returns whether its VM has a GICv2.
    #[inline(always)]
    fn has_gicv2(&self) -> bool {
        !L::SERVE_GICV3 || self.vm.layout.gic == GicVersion::V2
    }

    /// Brings what was posted to this vCPU into its list registers.
    #[inline]
    pub fn deliver(&mut self) {
        let Self { vm, vcpu, .. } = *self;
        let mut post = vm.poster(&mut self.kicks);
        let mut gic = vcpu.gic.lock();
        let owed = gic.deliver(&vcpu.inbox, &vm.gic, self.lists, &mut post);
        self.owed |= owed.0;
    }

    /// Does what a raise could not do on its own.
    #[cold]
    pub fn settle(&mut self) {
        let Self { vm, vcpu, .. } = *self;
        let mut post = vm.poster(&mut self.kicks);
        vcpu.gic.lock().settle(&vm.gic, self.lists, &mut post);
    }

    /// Answers a maintenance interrupt.
    #[cold]
    pub fn maintain(&mut self) {
        let Self { vm, vcpu, .. } = *self;
        let mut post = vm.poster(&mut self.kicks);
        let mut gic = vcpu.gic.lock();
        self.owed |= gic.maintenance(&vm.gic, self.lists, &mut post).0;
    }

    /// Ends the interrupt that a write of ICC_DIR_EL1 names, in bits 23:0, or one of GICC_DIR; one that there cannot be is ignored.
    #[cold]
    pub fn deactivate(&mut self, value: u64) {
        let Self { vm, vcpu, .. } = *self;
        let Some(intid) = IntId::new(value as u32 & 0xff_ffff) else {
            return;
        };
        let mut post = vm.poster(&mut self.kicks);
        let mut gic = vcpu.gic.lock();
        self.owed |= gic.deactivate(&vm.gic, self.lists, intid, &mut post).0;
    }

    /// Gives away or keeps the interrupts of the vCPU, which turns itself off.
    #[cold]
    pub fn power_off(&mut self) {
        let Self { vm, vcpu, .. } = *self;
        let mut post = vm.poster(&mut self.kicks);
        let mut gic = vcpu.gic.lock();
        let owed = gic.power_off(&vcpu.inbox, &vm.gic, self.lists, &mut post);
        self.owed |= owed.0;
    }
}

#[cfg(test)]
mod tests;
