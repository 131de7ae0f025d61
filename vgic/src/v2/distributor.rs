//! The distributor's registers (IHI0048 section 4.3). What the tables do not name is RAZ/WI.
//!
//! There are no Security Extensions. The first 32 interrupts are banked: each vCPU sees its own. A vCPU's interface
//! has the number of the vCPU, so a vCPU is a bit of GICD_ITARGETSR and GICD_SGIR.

use types::access::AccessWidth;
use types::gicv2;

use crate::core::bank::{self, Access, Bank};
use crate::core::route::Route;
use crate::{
    After, Effect, IntId, ListRegister, ListRegisters, Notice, SPI_BASE, Spis, VcpuInterrupts,
};

/// GICD_IIDR: product `B`, no JEP106 code: this interrupt controller is no maker's silicon.
const IIDR: u32 = 0x42 << 24;
/// ICPIDR2: GICv2 (ArchRev 2, JEDEC, DES_1 3).
const PIDR2_GICV2: u32 = 0x2b;
const SGIS: u32 = 0xffff;
/// Most vCPUs: the bits of a byte.
const MAX_CPUS: u16 = 8;

/// Registers that this version has a byte an interrupt of, besides the banks.
enum Bytes {
    Targets,
    ClearSgis,
    SetSgis,
}

/// Which register an access means.
enum Register {
    /// A bank that every version has.
    Bank(Access),
    /// Bytes: which, the INTID of the first, and how many.
    Bytes(Bytes, u32, u32),
    /// The word at this offset.
    Word(u32),
    /// None.
    Hole,
}

/// Reads the distributor as the vCPU `own` sees it, whose list registers are `lrs`.
///
/// SPIs that other vCPUs hold count as active; they are asked by `post` to look, so that a reader that polls sees it end.
pub fn read(
    spis: &Spis,
    own: &VcpuInterrupts,
    lrs: &impl ListRegisters,
    (offset, width): (u32, AccessWidth),
    post: &mut impl FnMut(u16, Notice),
) -> u32 {
    match decode(offset, width) {
        Register::Bank(access) if access.first < SPI_BASE => own.read_bank(lrs, access),
        Register::Bank(access) => {
            let held = |id| own.held(lrs, id);
            spis.read_bank(access, own.index(), &held, post) as u32
        }
        Register::Bytes(Bytes::Targets, first, count) => {
            gather(first, count, |id| targets(spis, own, id))
        }
        Register::Bytes(_, first, count) => gather(first, count, |id| senders(own, lrs, id)),
        Register::Word(offset) => word(spis, offset),
        Register::Hole => 0,
    }
}

/// Writes the distributor as the vCPU `own`; what is posted to itself it delivers afterwards.
pub fn write(
    spis: &Spis,
    own: &mut VcpuInterrupts,
    lrs: &mut impl ListRegisters,
    (offset, width): (u32, AccessWidth),
    value: u32,
    post: &mut impl FnMut(u16, Notice),
) -> Effect {
    match decode(offset, width) {
        Register::Bank(access) if access.first < SPI_BASE => {
            return own.write_bank(lrs, access, private_value(access.bank, value));
        }
        Register::Bank(access) => write_shared(spis, access, value, post),
        Register::Bytes(Bytes::Targets, first, count) => {
            for (id, set) in scatter(first, count, value) {
                let route = Route::Among(u32::from(set) & all(spis));
                spis.update(id, post, |word| word.with_route(route));
            }
        }
        Register::Bytes(kind, first, count) => {
            let there_are = all(spis) as u8;
            for (id, senders) in scatter(first, count, value) {
                let senders = senders & there_are;
                match kind {
                    Bytes::ClearSgis => own.change_sources(lrs, id, 0, senders),
                    _ => own.change_sources(lrs, id, senders, 0),
                }
            }
            return Effect {
                after: After::Settle,
                ..Effect::NONE
            };
        }
        Register::Word(gicv2::GICD_CTLR) => {
            let enables = gicv2::GICD_CTLR_ENABLE | gicv2::GICD_CTLR_ENABLE_GRP1;
            spis.set_groups(value & enables, post);
        }
        Register::Word(gicv2::GICD_SGIR) => send(spis, own.index(), value, post),
        Register::Word(_) | Register::Hole => {}
    }
    Effect::NONE
}

/// Writes a bank of SPIs; of its own, so that there is one of it for all list registers.
#[inline(never)]
fn write_shared(spis: &Spis, access: Access, value: u32, post: &mut impl FnMut(u16, Notice)) {
    spis.write_bank(access, value, post);
}

fn decode(offset: u32, width: AccessWidth) -> Register {
    let kind = match offset {
        gicv2::GICD_ITARGETSR..gicv2::GICD_ITARGETSR_END => Bytes::Targets,
        gicv2::GICD_CPENDSGIR..gicv2::GICD_SPENDSGIR => Bytes::ClearSgis,
        gicv2::GICD_SPENDSGIR..gicv2::GICD_SPENDSGIR_END => Bytes::SetSgis,
        _ => {
            return match bank::decode(offset, width) {
                Some(access) => Register::Bank(access),
                None if width == AccessWidth::Word => Register::Word(offset),
                None => Register::Hole,
            };
        }
    };
    let count = match width {
        AccessWidth::Byte => 1,
        AccessWidth::Word if offset & 3 == 0 => 4,
        _ => return Register::Hole,
    };
    let mask = match kind {
        Bytes::Targets => 0x3ff,
        Bytes::ClearSgis | Bytes::SetSgis => 0xf,
    };
    Register::Bytes(kind, offset & mask, count)
}

fn word(spis: &Spis, offset: u32) -> u32 {
    match offset {
        gicv2::GICD_CTLR => spis.groups(),
        gicv2::GICD_TYPER => {
            let last = spis.vcpu_count().clamp(1, MAX_CPUS).wrapping_sub(1);
            u32::from(spis.spi_count() / 32) | u32::from(last) << gicv2::TYPER_CPUS_SHIFT
        }
        gicv2::GICD_IIDR => IIDR,
        gicv2::ICPIDR2 => PIDR2_GICV2,
        _ => 0,
    }
}

/// SGIs are made pending by GICD_SGIR and GICD_SPENDSGIR alone (section 4.3.7).
const fn private_value(bank: Bank, value: u32) -> u32 {
    match bank {
        Bank::SetPending | Bank::ClearPending => value & !SGIS,
        _ => value,
    }
}

/// Returns the vCPUs that there can be, a bit each; the bits of others are RAZ/WI.
fn all(spis: &Spis) -> u32 {
    let count = spis.vcpu_count().min(MAX_CPUS);
    1_u32.wrapping_shl(count.into()).wrapping_sub(1)
}

/// Sends the SGI that a value of GICD_SGIR asks for (section 4.3.15).
fn send(spis: &Spis, own: u16, value: u32, post: &mut impl FnMut(u16, Notice)) {
    let all = all(spis);
    let me = 1_u32.wrapping_shl(own.into());
    let mut targets = match value >> gicv2::SGIR_FILTER_SHIFT & 3 {
        0 => value >> gicv2::SGIR_TARGETS_SHIFT & all,
        1 => all & !me,
        2 => me & all,
        _ => 0,
    };
    let notice = Notice::Sgi {
        intid: IntId::private(value & 15),
        source: own as u8,
    };
    while targets != 0 {
        post(targets.trailing_zeros() as u16, notice);
        targets &= targets.wrapping_sub(1);
    }
}

/// Returns the vCPUs that an interrupt goes to, a bit each; a private one goes to the vCPU that asks.
fn targets(spis: &Spis, own: &VcpuInterrupts, id: IntId) -> u8 {
    if id.is_private() {
        return 1_u8.wrapping_shl(own.index().into());
    }
    match spis.word(id).route() {
        Route::Among(set) => set as u8,
        // Not a route that this face makes.
        Route::To(_) | Route::Any(_) => 0,
    }
}

/// Returns the vCPUs whose SGI is pending here, a bit each.
fn senders(own: &VcpuInterrupts, lrs: &impl ListRegisters, id: IntId) -> u8 {
    let listed = own.listed(lrs, id).filter(|lr| lr.is_pending());
    own.sources_of(id) | listed.map_or(0, |lr: ListRegister| 1_u8.wrapping_shl(lr.source().into()))
}

fn gather(first: u32, count: u32, byte: impl Fn(IntId) -> u8) -> u32 {
    (0..count)
        .filter_map(|n| Some((n, IntId::new(first.wrapping_add(n))?)))
        .fold(0, |value, (n, id)| {
            value | u32::from(byte(id)).wrapping_shl(n.wrapping_mul(8))
        })
}

fn scatter(first: u32, count: u32, value: u32) -> impl Iterator<Item = (IntId, u8)> {
    (0..count).filter_map(move |n| {
        let id = IntId::new(first.wrapping_add(n))?;
        Some((id, value.wrapping_shr(n.wrapping_mul(8)) as u8))
    })
}
