//! A GICv2-like face (IHI0048): one frame for everything with the first 32 INTIDs banked by the CPU
//! that asks, routes as sets of eight CPUs, SGIs that wait by sender, and list registers of 32 bits.

use crate::core::bank::{self, Access, Bank};
use crate::core::route::Route;
use crate::lr::Fields;
use crate::{
    CpuInterface, Effect, IntId, ListRegister, ListRegisters, Notice, SPI_BASE, Spis,
    VcpuInterrupts,
};
use types::access::AccessWidth;

const GICD_CTLR: u32 = 0x000;
const GICD_TYPER: u32 = 0x004;
const GICD_ITARGETSR: u32 = 0x800;
const GICD_ITARGETSR_END: u32 = 0xc00;
const GICD_SGIR: u32 = 0xf00;
const GICD_CPENDSGIR: u32 = 0xf10;
const GICD_SPENDSGIR: u32 = 0xf20;
const GICD_SPENDSGIR_END: u32 = 0xf30;
const SGIS: u32 = 0xffff;
/// How many CPUs the machine of the tests has.
pub(super) const VCPUS: u32 = 3;

/// Returns the value of `GICH_LR<n>` (section 5.3.8).
pub(super) fn encode(lr: ListRegister) -> u32 {
    let fields = lr.fields();
    (u32::from(fields.hardware) << 31)
        | (u32::from(fields.group1) << 30)
        | (u32::from(fields.active) << 29)
        | (u32::from(fields.pending) << 28)
        | (u32::from(fields.priority >> 3) << 23)
        | (u32::from(fields.link & 0x3ff) << 10)
        | (fields.intid & 0x3ff)
}

/// Returns the list register that `GICH_LR<n>` holds.
pub(super) fn decode(value: u32) -> ListRegister {
    ListRegister::of(Fields {
        hardware: value & 1 << 31 != 0,
        group1: value & 1 << 30 != 0,
        active: value & 1 << 29 != 0,
        pending: value & 1 << 28 != 0,
        priority: ((value >> 23 & 0x1f) << 3) as u8,
        link: (value >> 10 & 0x3ff) as u16,
        intid: value & 0x3ff,
    })
}

/// Returns what GICH_VMCR lets through (section 5.3.3).
pub(super) fn cpu_interface(vmcr: u32) -> CpuInterface {
    CpuInterface {
        group0: vmcr & 1 != 0,
        group1: vmcr & 2 != 0,
        priority_mask: ((vmcr >> 27) << 3) as u8,
    }
}

/// Reads the distributor as the vCPU `own` sees it.
pub(super) fn read(
    spis: &Spis,
    own: &VcpuInterrupts,
    lrs: &impl ListRegisters,
    offset: u32,
    width: AccessWidth,
    post: &mut impl FnMut(u16, Notice),
) -> u32 {
    match (offset, width) {
        (GICD_CTLR, AccessWidth::Word) => return spis.groups(),
        (GICD_TYPER, AccessWidth::Word) => {
            return u32::from(spis.spi_count() / 32) | (VCPUS - 1) << 5;
        }
        _ => {}
    }
    if let Some((first, count)) = bytes_of(GICD_ITARGETSR..GICD_ITARGETSR_END, offset, width) {
        return gather(first, count, |id| targets(spis, own, id));
    }
    if let Some((first, count)) = bytes_of(GICD_CPENDSGIR..GICD_SPENDSGIR_END, offset, width) {
        let listed = |id: IntId| (0..lrs.count()).map(|n| lrs.read(n)).find(|lr| is(lr, id));
        return gather(first & 15, count, |id| {
            own.sources_of(id) | listed(id).map_or(0, source_bit)
        });
    }
    match bank::decode(offset, width) {
        Some(access) if access.first < SPI_BASE => own.read_bank(lrs, access),
        Some(access) => {
            let held = |id| own.held(lrs, id);
            spis.read_bank(access, own.index(), &held, post) as u32
        }
        None => 0,
    }
}

fn is(lr: &ListRegister, id: IntId) -> bool {
    lr.is_pending() && lr.intid() == id.get()
}

fn source_bit(lr: ListRegister) -> u8 {
    1 << (lr.link() & ListRegister::LINK_SOURCE)
}

/// Writes the distributor as the vCPU `own`; what is posted to itself it delivers afterwards.
pub(super) fn write(
    spis: &Spis,
    own: &mut VcpuInterrupts,
    lrs: &mut impl ListRegisters,
    (offset, width): (u32, AccessWidth),
    value: u32,
    post: &mut impl FnMut(u16, Notice),
) -> Effect {
    match (offset, width) {
        (GICD_CTLR, AccessWidth::Word) => spis.set_groups(value & 3, post),
        (GICD_SGIR, AccessWidth::Word) => send(own.index(), value, post),
        _ => {
            if let Some((first, count)) =
                bytes_of(GICD_ITARGETSR..GICD_ITARGETSR_END, offset, width)
            {
                for (id, set) in scatter(first, count, value) {
                    let route = Route::Among(set.into());
                    spis.update(id, post, |word| word.with_route(route));
                }
            } else if let Some((first, count)) =
                bytes_of(GICD_CPENDSGIR..GICD_SPENDSGIR_END, offset, width)
            {
                for (id, sources) in scatter(first & 15, count, value) {
                    let (set, clear) = match offset < GICD_SPENDSGIR {
                        true => (0, sources),
                        false => (sources, 0),
                    };
                    own.change_sources(lrs, id, set, clear);
                }
            } else if let Some(access) = bank::decode(offset, width) {
                return write_bank(spis, own, lrs, access, value, post);
            }
        }
    }
    Effect::NONE
}

fn write_bank(
    spis: &Spis,
    own: &mut VcpuInterrupts,
    lrs: &mut impl ListRegisters,
    access: Access,
    value: u32,
    post: &mut impl FnMut(u16, Notice),
) -> Effect {
    if access.first >= SPI_BASE {
        spis.write_bank(access, value, post);
        return Effect::NONE;
    }
    // SGIs are made pending by GICD_SGIR and GICD_SPENDSGIR alone.
    let value = match access.bank {
        Bank::SetPending | Bank::ClearPending => value & !SGIS,
        _ => value,
    };
    own.write_bank(lrs, access, value)
}

/// Sends the SGI that a value of GICD_SGIR asks for (section 4.3.15).
fn send(own: u16, value: u32, post: &mut impl FnMut(u16, Notice)) {
    let all = (1_u32 << VCPUS) - 1;
    let targets = match value >> 24 & 3 {
        0 => value >> 16 & 0xff & all,
        1 => all & !(1 << own),
        2 => 1 << own,
        _ => 0,
    };
    let notice = Notice::Sgi {
        intid: IntId::private(value & 15),
        source: own as u8,
    };
    for vcpu in (0..8).filter(|n| targets & 1 << n != 0) {
        post(vcpu, notice);
    }
}

fn targets(spis: &Spis, own: &VcpuInterrupts, id: IntId) -> u8 {
    if id.is_private() {
        return 1 << own.index();
    }
    match spis.word(id).route() {
        Route::Among(set) => set as u8,
        Route::To(_) | Route::Any(_) => 0,
    }
}

/// Returns the first INTID and the number of the byte fields that an access covers.
fn bytes_of(
    registers: core::ops::Range<u32>,
    offset: u32,
    width: AccessWidth,
) -> Option<(u32, u32)> {
    let count = match width {
        AccessWidth::Byte => 1,
        AccessWidth::Word if offset & 3 == 0 => 4,
        _ => return None,
    };
    registers
        .contains(&offset)
        .then(|| (offset - registers.start, count))
}

fn gather(first: u32, count: u32, byte: impl Fn(IntId) -> u8) -> u32 {
    (0..count)
        .filter_map(|n| Some((n, IntId::new(first + n)?)))
        .fold(0, |value, (n, id)| value | u32::from(byte(id)) << (8 * n))
}

fn scatter(first: u32, count: u32, value: u32) -> impl Iterator<Item = (IntId, u8)> {
    (0..count).filter_map(move |n| Some((IntId::new(first + n)?, (value >> (8 * n)) as u8)))
}
