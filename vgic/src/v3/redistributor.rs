//! A redistributor's registers (IHI0069 sections 12.10 and 12.11): RD_base, and SGI_base 64 KiB
//! above it. No LPIs (GICR_TYPER.PLPIS = 0): their registers, and all else, are RAZ/WI.

use super::spec;
use crate::core::bank::{self, Access};
use crate::{Effect, ListRegisters, VcpuInterrupts};
use types::access::AccessWidth;
use types::affinity::Affinity;
use types::gicv3;

/// [`VcpuInterrupts::face`]: the guest has cleared GICR_WAKER.ProcessorSleep.
const AWAKE: u32 = 1;

/// Which register of a redistributor an access means.
enum Register {
    /// A bank in SGI_base.
    Bank(Access),
    /// The offset in RD_base.
    Control(u32),
    /// None.
    Hole,
}

#[inline]
fn decode(offset: u32, width: AccessWidth) -> Register {
    let Some(offset) = offset.checked_sub(gicv3::SGI_BASE) else {
        return Register::Control(offset);
    };
    bank::decode(offset, width).map_or(Register::Hole, Register::Bank)
}

/// Reads a register of a vCPU whose list registers are `lrs`.
///
/// `last` returns GICR_TYPER.Last: no redistributor follows in this region.
#[must_use]
pub fn read(
    vcpu: &VcpuInterrupts,
    last: impl Fn() -> bool,
    lrs: &impl ListRegisters,
    offset: u32,
    width: AccessWidth,
) -> u64 {
    match decode(offset, width) {
        Register::Bank(access) => u64::from(vcpu.read_bank(lrs, access)),
        Register::Control(offset) => read_control(vcpu, last, offset, width),
        Register::Hole => 0,
    }
}

/// Reads a register of a vCPU that is loaded on another CPU. What its list registers have is
/// not seen in the pending and active registers.
#[must_use]
pub fn read_remote(
    vcpu: &VcpuInterrupts,
    last: impl Fn() -> bool,
    offset: u32,
    width: AccessWidth,
) -> u64 {
    match decode(offset, width) {
        Register::Bank(access) => u64::from(vcpu.read_bank_remote(access)),
        Register::Control(offset) => read_control(vcpu, last, offset, width),
        Register::Hole => 0,
    }
}

/// Writes a register of a vCPU whose list registers are `lrs`.
pub fn write(
    vcpu: &mut VcpuInterrupts,
    lrs: &mut impl ListRegisters,
    offset: u32,
    width: AccessWidth,
    value: u64,
) -> Effect {
    match decode(offset, width) {
        Register::Bank(access) => return vcpu.write_bank(lrs, access, value as u32),
        Register::Control(offset) => write_control(vcpu, offset, width, value),
        Register::Hole => {}
    }
    Effect::NONE
}

/// Writes a register of a vCPU that is loaded on another CPU, which is to get a
/// [`crate::Notice::Resync`] if the effect says [`crate::After::Settle`].
pub fn write_remote(
    vcpu: &mut VcpuInterrupts,
    offset: u32,
    width: AccessWidth,
    value: u64,
) -> Effect {
    match decode(offset, width) {
        Register::Bank(access) => return vcpu.write_bank_remote(access, value as u32),
        Register::Control(offset) => write_control(vcpu, offset, width, value),
        Register::Hole => {}
    }
    Effect::NONE
}

fn read_control(
    vcpu: &VcpuInterrupts,
    last: impl Fn() -> bool,
    offset: u32,
    width: AccessWidth,
) -> u64 {
    match (offset, width) {
        (gicv3::GICR_IIDR, AccessWidth::Word) => u64::from(spec::IIDR),
        (gicv3::GICR_TYPER, AccessWidth::Double) => typer(vcpu, last()),
        (gicv3::GICR_TYPER, AccessWidth::Word) => typer(vcpu, last()) & 0xffff_ffff,
        (gicv3::GICR_TYPER_HIGH, AccessWidth::Word) => typer(vcpu, last()) >> 32,
        (gicv3::GICR_WAKER, AccessWidth::Word) if vcpu.face & AWAKE == 0 => {
            u64::from(gicv3::WAKER_PROCESSOR_SLEEP | gicv3::WAKER_CHILDREN_ASLEEP)
        }
        (gicv3::PIDR2, AccessWidth::Word) => u64::from(spec::PIDR2_GICV3),
        _ => 0,
    }
}

fn typer(vcpu: &VcpuInterrupts, last: bool) -> u64 {
    let last = if last { gicv3::GICR_TYPER_LAST } else { 0 };
    let number = u64::from(vcpu.index()) << gicv3::GICR_TYPER_NUMBER_SHIFT;
    let affinity = u64::from(Affinity::of_index(vcpu.index()).bits());
    last | number | (affinity << gicv3::GICR_TYPER_AFFINITY_SHIFT)
}

fn write_control(vcpu: &mut VcpuInterrupts, offset: u32, width: AccessWidth, value: u64) {
    if (offset, width) == (gicv3::GICR_WAKER, AccessWidth::Word) {
        let asleep = value as u32 & gicv3::WAKER_PROCESSOR_SLEEP != 0;
        vcpu.face = if asleep { 0 } else { AWAKE };
    }
}
