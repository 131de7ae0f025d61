//! What a guest does with its interrupts: by traps that the hot path settles, and at its CPU interface, without a trap.

use vgic::{ListRegister, ListRegisters};

use super::Lists;
use crate::dispatch::Trap;
use crate::dispatch::hot::{self, DataAbort, Hot};
use crate::exit::{Abort, Syndrome, class, system_register};
use crate::vm::context::Frame;
use crate::vm::tests::fixture::At;

/// The virtual timer's interrupt.
pub(in crate::cpu::tests) const VIRTUAL_PPI: u32 = 27;
/// The physical interrupt behind it, which need not have the same number.
const PHYSICAL_PPI: u32 = 28;
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;
const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;

/// Stores a word in a device register.
fn store(trap: &mut Trap<'_, Lists>, address: u64, value: u64) {
    let mut frame = Frame::default();
    frame.x[0] = value;
    // ISV, a word, x0, a write; a translation fault.
    let syndrome = Syndrome::new(class::DATA_ABORT << 26 | 1 << 24 | 2 << 22 | 1 << 6 | 6);
    let abort = DataAbort {
        iss: Abort::new(syndrome),
        address,
    };
    let (hot, _) = hot::mmio(trap, &mut frame, abort, &At(0), drop);
    assert_eq!(hot, Hot::Advance, "{address:#x}");
}

/// Enables the interrupt groups, and each SGI and PPI of a vCPU in group 1.
fn open_of(trap: &mut Trap<'_, Lists>, vcpu: u64) {
    let sgi_base = REDISTRIBUTOR + vcpu * REDISTRIBUTOR_BYTES + 0x1_0000;
    for (address, value) in [
        (DISTRIBUTOR, 0x12),
        (sgi_base + 0x80, 0xffff_ffff),
        (sgi_base + 0x100, 0xffff_ffff),
    ] {
        store(trap, address, value);
    }
}

/// Opens its own interrupts.
pub(in crate::cpu::tests) fn open(trap: &mut Trap<'_, Lists>) {
    open_of(trap, u64::from(trap.vcpu.id.get()));
}

/// Opens the interrupts of vCPU 1, which may be off.
pub(in crate::cpu::tests) fn open_next(trap: &mut Trap<'_, Lists>) {
    open_of(trap, 1);
}

/// Sends SGIs as ICC_SGI1R_EL1 says.
fn send(trap: &mut Trap<'_, Lists>, intid: u64, targets: u64) {
    let mut frame = Frame::default();
    frame.x[0] = intid << 24 | targets;
    let register = u64::from(system_register(3, 0, 12, 11, 5));
    let syndrome = Syndrome::new(class::SYSTEM << 26 | register);
    let (hot, _) = hot::system(trap, &mut frame, syndrome);
    assert_eq!(hot, Hot::Advance);
}

/// Sends SGIs 0 to 7 to itself.
pub(in crate::cpu::tests) fn send_self(trap: &mut Trap<'_, Lists>) {
    for intid in 0..8 {
        send(trap, intid, 1 << trap.vcpu.id.get());
    }
}

/// Sends SGI 3 to vCPU 1.
pub(in crate::cpu::tests) fn send_next(trap: &mut Trap<'_, Lists>) {
    send(trap, 3, 1 << 1);
}

/// Its virtual timer fires, unless the physical interrupt is active still.
pub(in crate::cpu::tests) fn fire(trap: &mut Trap<'_, Lists>) {
    let bit = 1 << VIRTUAL_PPI;
    let mut held = trap.lists.0.borrow_mut();
    let was_active = held.active & bit != 0;
    held.active |= bit;
    drop(held);
    if !was_active {
        hot::raise(trap, VIRTUAL_PPI, PHYSICAL_PPI);
    }
}

/// Acknowledges a pending interrupt, if there is one.
pub(in crate::cpu::tests) fn acknowledge(trap: &mut Trap<'_, Lists>) {
    let Some((n, list)) = find(trap, |list| list.is_pending() && !list.is_active()) else {
        return;
    };
    let mut fields = list.fields();
    (fields.pending, fields.active) = (false, true);
    trap.lists.write(n, ListRegister::of(fields));
}

/// Ends an interrupt that it has acknowledged, if there is one, and the physical one behind it.
pub(in crate::cpu::tests) fn end(trap: &mut Trap<'_, Lists>) {
    let Some((n, list)) = find(trap, ListRegister::is_active) else {
        return;
    };
    let mut fields = list.fields();
    fields.active = false;
    trap.lists.write(n, ListRegister::of(fields));
    let mut held = trap.lists.0.borrow_mut();
    if fields.hardware {
        assert_eq!(u32::from(fields.link), PHYSICAL_PPI);
        held.active &= !(1 << fields.number);
    }
    held.ended.push(fields.number);
}

fn find(
    trap: &Trap<'_, Lists>,
    is_wanted: impl Fn(ListRegister) -> bool,
) -> Option<(usize, ListRegister)> {
    let mut all = (0..trap.lists.count()).map(|n| (n, trap.lists.read(n)));
    all.find(|(_, list)| is_wanted(*list))
}
