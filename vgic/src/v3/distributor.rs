//! The distributor's registers (IHI0069 section 12.9). What the tables do not name is RAZ/WI.
//!
//! Affinity routing is always on and there is one security state, so GICD_ITARGETSR, GICD_SGIR,
//! GICD_IGRPMODR and GICD_NSACR are RAZ/WI, as are the fields of private interrupts.

use super::spec;
use crate::core::bank;
use crate::core::route::Route;
use crate::core::spi::SpiWord;
use crate::{IntId, LrState, Notice, Spis};
use types::access::AccessWidth;
use types::affinity::Affinity;
use types::gicv3;

/// Reads `width` at byte `offset` of the distributor's frame.
///
/// `reader` is the vCPU that reads; `held` tells what its list registers say of an SPI
/// ([`crate::VcpuInterrupts::held`]). What other vCPUs hold counts as active; they are asked by
/// `post` to look, so that a reader that polls sees it end.
#[inline]
pub fn read(
    spis: &Spis,
    offset: u32,
    width: AccessWidth,
    reader: u16,
    held: &impl Fn(IntId) -> LrState,
    post: &mut impl FnMut(u16, Notice),
) -> u64 {
    match (offset, width) {
        (gicv3::GICD_CTLR, AccessWidth::Word) => {
            u64::from(spis.groups() | gicv3::CTLR_ARE | gicv3::CTLR_DS)
        }
        (gicv3::GICD_TYPER, AccessWidth::Word) => u64::from(typer(spis)),
        (gicv3::GICD_IIDR, AccessWidth::Word) => u64::from(spec::IIDR),
        (gicv3::PIDR2, AccessWidth::Word) => u64::from(spec::PIDR2_GICV3),
        (gicv3::GICD_IROUTER..gicv3::GICD_IROUTER_END, _) => read_router(spis, offset, width),
        _ => bank::decode(offset, width)
            .map_or(0, |access| spis.read_bank(access, reader, held, post)),
    }
}

/// Writes `width` at byte `offset` of the distributor's frame.
#[inline(always)]
pub fn write(
    spis: &Spis,
    offset: u32,
    width: AccessWidth,
    value: u64,
    post: &mut impl FnMut(u16, Notice),
) {
    match (offset, width) {
        (gicv3::GICD_CTLR, AccessWidth::Word) => {
            let enables = gicv3::CTLR_ENABLE_GRP0 | gicv3::CTLR_ENABLE_GRP1;
            spis.set_groups(value as u32 & enables, post);
        }
        (gicv3::GICD_IROUTER..gicv3::GICD_IROUTER_END, _) => {
            write_router(spis, offset, width, value, post);
        }
        _ => {
            if let Some(access) = bank::decode(offset, width) {
                spis.write_bank(access, value as u32, post);
            }
        }
    }
}

fn typer(spis: &Spis) -> u32 {
    u32::from(spis.spi_count() / 32) | gicv3::TYPER_ID_BITS | gicv3::TYPER_A3V
}

fn router_of(offset: u32) -> Option<IntId> {
    IntId::new((offset.wrapping_sub(gicv3::GICD_IROUTER)) >> 3).filter(|id| !id.is_private())
}

fn read_router(spis: &Spis, offset: u32, width: AccessWidth) -> u64 {
    let value = router_of(offset).map_or(0, |spi| irouter(spis.word(spi)));
    match (width, offset & 7) {
        (AccessWidth::Double, 0) => value,
        (AccessWidth::Word, 0) => value & 0xffff_ffff,
        (AccessWidth::Word, 4) => value >> 32,
        _ => 0,
    }
}

fn write_router(
    spis: &Spis,
    offset: u32,
    width: AccessWidth,
    value: u64,
    post: &mut impl FnMut(u16, Notice),
) {
    let (mask, shift) = match (width, offset & 7) {
        (AccessWidth::Double, 0) => (u64::MAX, 0),
        (AccessWidth::Word, 0) => (0xffff_ffff, 0),
        (AccessWidth::Word, 4) => (0xffff_ffff << 32, 32),
        _ => return,
    };
    let bits = (value << shift) & mask;
    if let Some(spi) = router_of(offset) {
        spis.update(spi, post, |word| {
            word.with_route(route_of((irouter(word) & !mask) | bits))
        });
    }
}

/// Returns the GICD_IROUTER of an SPI.
fn irouter(word: SpiWord) -> u64 {
    match word.route() {
        Route::To(number) => Affinity::of_number(number).mpidr(),
        Route::Any(number) => Affinity::of_number(number).mpidr() | gicv3::IROUTER_IRM,
        // Not a route that `route_of` makes.
        Route::Among(_) => gicv3::IROUTER_IRM,
    }
}

/// Returns the route that a GICD_IROUTER asks for.
fn route_of(irouter: u64) -> Route {
    let number = Affinity::from_mpidr(irouter).number();
    if irouter & gicv3::IROUTER_IRM != 0 {
        Route::Any(number)
    } else {
        Route::To(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_affinities_map_there_and_back() {
        for value in [
            0,
            5,
            0x10f,
            0x8000_0000,
            0x8000_0203,
            0xff_00ff_ffff,
            0xff_80ff_ffff,
            0x12_0034_5678,
        ] {
            let word = SpiWord::default().with_route(route_of(value));
            assert_eq!(irouter(word), value, "{value:#x}");
        }
        assert_eq!(route_of(0x10f), Route::To(31));
        assert_eq!(
            irouter(SpiWord::default().with_route(route_of(u64::MAX))),
            0xff_80ff_ffff
        );
    }
}
