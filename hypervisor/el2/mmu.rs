//! EL2's own translation: identity-mapped, write xor execute, with a window of guarded stacks (Arm ARM D8).
//!
//! Tables only ever gain entries (invalid to valid), so no break-before-make is needed after the MMU is on.
#![expect(unsafe_code, reason = "writes translation tables and turns the MMU on")]

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, MAIR_EL2, SCTLR_EL2, TCR_EL2};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use stage2::{PA_BITS, PA_RANGE_48};
use tock_registers::LocalRegisterCopy;
use vmm::sync::FairMutex;

use crate::sysreg::{self, dsb_ishst, dsb_sy, isb};
use crate::{layout, memory};

/// Bytes of a translation granule.
pub(crate) const PAGE: u64 = 4096;
/// Tables set aside in .bss: root, image, device tree, console, and the first RAM bank. Further ones come from RAM.
const TABLE_COUNT: usize = 28;
/// How many of those RAM may not use, so that devices can be mapped even where no RAM is left for tables.
const DEVICE_TABLES: usize = 8;
/// Level-0 table entries cover 512 GiB each; 48-bit addresses.
const VA_BITS: u64 = 48;
/// Start of the window in which every CPU's stacks have unmapped neighbours; above any RAM this runs on.
pub(crate) const STACK_WINDOW: u64 = 0xff00_0000_0000;
/// Distance between the stacks of two CPUs in the window; what is between stays unmapped.
pub(crate) const STACK_STRIDE: u64 = 64 * 1024;
/// Where a CPU's stack begins in its part of the window.
pub(crate) const STACK_BOTTOM: u64 = 16 * 1024;
/// Where the stack for last words ends in it.
pub(crate) const LAST_STACK_TOP: u64 = 0xd000;

/// Descriptor bits (Arm ARM D8.3).
mod descriptor {
    pub(super) const VALID: u64 = 1;
    pub(super) const TABLE_OR_PAGE: u64 = 1 << 1;
    pub(super) const AP_RES1: u64 = 1 << 6;
    pub(super) const READ_ONLY: u64 = 1 << 7;
    pub(super) const INNER_SHAREABLE: u64 = 3 << 8;
    pub(super) const ACCESSED: u64 = 1 << 10;
    pub(super) const EXECUTE_NEVER: u64 = 1 << 54;
    pub(super) const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    pub(super) const ATTRIBUTE_DEVICE: u64 = 1 << 2;
}

/// MAIR_EL2: index 0 normal write-back, index 1 Device-nGnRE.
const MEMORY_ATTRIBUTES: u64 = MAIR_EL2::Attr0_Normal_Outer::WriteBack_NonTransient_ReadWriteAlloc
    .value
    | MAIR_EL2::Attr0_Normal_Inner::WriteBack_NonTransient_ReadWriteAlloc.value
    | MAIR_EL2::Attr1_Device::nonGathering_nonReordering_EarlyWriteAck.value;
/// SCTLR_EL2 without FEAT_VHE and later: bits that are one (Arm ARM D19.2, SCTLR_EL2).
const SCTLR_EL2_RES1: u64 = 0x30c5_0830;
/// SCTLR_EL2 while EL2 runs. Alignment checking stays off; the code is built for strict alignment.
const SCTLR_EL2_ON: u64 = SCTLR_EL2_RES1
    | SCTLR_EL2::WXN::Enable.value
    | SCTLR_EL2::I::Cacheable.value
    | SCTLR_EL2::SA::Enable.value
    | SCTLR_EL2::C::Cacheable.value
    | SCTLR_EL2::M::Enable.value;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Code.
    Text,
    /// Constants.
    ReadOnly,
    /// Variables, heap, guests' RAM.
    Data,
    /// Device registers.
    Device,
}

impl Use {
    const fn bits(self) -> u64 {
        use descriptor::{ATTRIBUTE_DEVICE, EXECUTE_NEVER, INNER_SHAREABLE, READ_ONLY};
        let kind = match self {
            Self::Text => READ_ONLY | INNER_SHAREABLE,
            Self::ReadOnly => READ_ONLY | INNER_SHAREABLE | EXECUTE_NEVER,
            Self::Data => INNER_SHAREABLE | EXECUTE_NEVER,
            Self::Device => ATTRIBUTE_DEVICE | EXECUTE_NEVER,
        };
        kind | descriptor::VALID | descriptor::ACCESSED | descriptor::AP_RES1
    }
}

/// Why a mapping could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapError {
    /// The tables in .bss are used up and there is no RAM for more.
    OutOfTables,
    /// It passes the end of the CPU's physical addresses, or lies where the stacks are.
    OutOfReach,
}

/// A translation table. Atomic entries, because the table walker reads them while they are written.
#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

/// The tables in .bss; the first is the root.
static FIRST_TABLES: [Table; TABLE_COUNT] =
    [const { Table([const { AtomicU64::new(0) }; 512]) }; TABLE_COUNT];

/// Guards EL2's tables; counts how many of the first ones are taken.
static TABLES: FairMutex<Taken> = FairMutex::new(Taken(1));

struct Taken(usize);

impl Taken {
    /// Takes an empty table for a mapping of this kind.
    fn take(&mut self, how: Use) -> Result<&'static Table, MapError> {
        let limit = match how {
            Use::Data => TABLE_COUNT - DEVICE_TABLES,
            _ => TABLE_COUNT,
        };
        if self.0 < limit {
            self.0 += 1;
            return Ok(&FIRST_TABLES[self.0 - 1]);
        }
        let page = memory::take_pages(PAGE, PAGE).ok_or(MapError::OutOfTables)?;
        memory::zero(page..page + PAGE);
        Ok(table_at(page))
    }
}

/// Returns the table at an address that [`Taken::take`] has given out.
fn table_at(address: u64) -> &'static Table {
    // SAFETY: tables are never given back, lie at their own addresses, and zeros or entries of this module are all they hold.
    unsafe { &*(address as *const Table) }
}

impl Taken {
    /// Returns the table behind an entry, making one if the entry is empty; `None` behind a block.
    fn next(&mut self, entry: &AtomicU64, how: Use) -> Result<Option<&'static Table>, MapError> {
        let value = entry.load(Ordering::Relaxed);
        match (
            value & descriptor::VALID != 0,
            value & descriptor::TABLE_OR_PAGE != 0,
        ) {
            (true, true) => Ok(Some(table_at(value & descriptor::ADDRESS))),
            (true, false) => Ok(None),
            (false, _) => {
                let table = self.take(how)?;
                let address = (&raw const *table).addr() as u64;
                // The walker finds the table only after its zeros.
                let value = address | descriptor::VALID | descriptor::TABLE_OR_PAGE;
                entry.store(value, Ordering::Release);
                Ok(Some(table))
            }
        }
    }

    /// Fills what is still unmapped of `va..end` in a table of this level with the largest blocks that fit.
    fn fill(
        &mut self,
        level: u32,
        table: &Table,
        va: Range<u64>,
        pa: u64,
        how: Use,
    ) -> Result<(), MapError> {
        let shift = 39 - 9 * level;
        let size = 1_u64 << shift;
        let mut at = va.start;
        while at < va.end {
            let entry = &table.0[(at >> shift) as usize & 511];
            let end = va.end.min((at & !(size - 1)) + size);
            let target = pa + (at - va.start);
            let fits = level > 0 && end - at == size && target & (size - 1) == 0;
            let empty = entry.load(Ordering::Relaxed) & descriptor::VALID == 0;
            if fits && empty {
                let kind = if level == 3 {
                    descriptor::TABLE_OR_PAGE
                } else {
                    0
                };
                entry.store(target | how.bits() | kind, Ordering::Release);
            } else if level < 3
                && let Some(next) = self.next(entry, how)?
            {
                self.fill(level + 1, next, at..end, target, how)?;
            }
            at = end;
        }
        Ok(())
    }
}

/// Returns the CPU's place in [`PA_BITS`]; the 52 bits of FEAT_LPA are not used.
pub(crate) fn pa_range() -> u64 {
    let features = LocalRegisterCopy::new(sysreg::id_aa64mmfr0_el1::read());
    features.read(ID_AA64MMFR0_EL1::PARange).min(PA_RANGE_48)
}

/// Returns where the physical addresses end that this CPU reaches.
pub(crate) fn reach() -> u64 {
    1 << PA_BITS[pa_range() as usize]
}

/// Returns whether an address lies below a CPU's stack, where nothing is mapped.
pub(crate) fn is_below_a_stack(address: u64) -> bool {
    address
        .checked_sub(STACK_WINDOW)
        .is_some_and(|offset| offset % STACK_STRIDE < STACK_BOTTOM)
}

/// Returns whether this CPU translates addresses.
pub(crate) fn is_on() -> bool {
    LocalRegisterCopy::new(sysreg::sctlr_el2::read()).is_set(SCTLR_EL2::M)
}

/// Rounds a range outward to pages; the last page of all is never in it.
pub(crate) const fn pages(range: Range<u64>) -> Range<u64> {
    range.start & !(PAGE - 1)..range.end.saturating_add(PAGE - 1) & !(PAGE - 1)
}

/// Maps virtual addresses to physical ones where nothing is mapped yet; both are rounded outward to pages.
///
/// # Errors
/// When there is no memory for a table.
pub(crate) fn map(va: Range<u64>, pa: u64, how: Use) -> Result<(), MapError> {
    let root = &FIRST_TABLES[0];
    let result = TABLES
        .lock()
        .fill(0, root, pages(va), pa & !(PAGE - 1), how);
    dsb_ishst();
    isb();
    result
}

/// Maps a physical range at its own address.
///
/// # Errors
/// When there is no memory for a table, or the range is out of reach.
pub(crate) fn map_identity(range: Range<u64>, how: Use) -> Result<(), MapError> {
    let limit = STACK_WINDOW.min(reach());
    if range.is_empty() || range.end > limit {
        return Err(MapError::OutOfReach);
    }
    map(range.clone(), range.start, how)
}

/// Maps the image with its permissions and turns the MMU on for the boot CPU.
pub(crate) fn start() {
    // A lock's exclusive accesses need the caches on; no other CPU runs yet.
    // SAFETY: the boot CPU is alone, so this is the only reference.
    let taken = unsafe { &mut *TABLES.as_mut_ptr() };
    let root = &FIRST_TABLES[0];
    let parts = [
        (layout::text(), Use::Text),
        (layout::rodata(), Use::ReadOnly),
        (layout::data(), Use::Data),
    ];
    for (range, how) in parts {
        // The pool is empty and the image a few hundred KiB: this can't run out.
        assert!(
            taken.fill(0, root, range.clone(), range.start, how).is_ok(),
            "image mapping"
        );
    }
    invalidate_image_cache();
    enable((&raw const *root).addr() as u64);
}

/// Drops cache lines of the image that an earlier stage may have left, now that it was written with the MMU off.
fn invalidate_image_cache() {
    let line = 4_u64 << (sysreg::ctr_el0::read() >> 16 & 0xf);
    let mut at = layout::data().start;
    while at < layout::written().end {
        // SAFETY: the memory was written with caches off, so no line holds anything newer than memory does.
        unsafe { core::arch::asm!("dc ivac, {}", in(reg) at, options(nostack, preserves_flags)) };
        at += line;
    }
    dsb_sy();
}

/// Turns the MMU and the caches on for this CPU with the shared tables.
fn enable(root: u64) {
    // SAFETY: the MMU is off, so nothing is translated by it yet.
    unsafe { sysreg::mair_el2::write(MEMORY_ATTRIBUTES) };
    // SAFETY: as above.
    unsafe { sysreg::tcr_el2::write(tcr(pa_range())) };
    // SAFETY: as above.
    unsafe { sysreg::ttbr0_el2::write(root) };
    dsb_sy();
    // SAFETY: no translation has been used yet; stale entries of an earlier stage are dropped.
    unsafe {
        core::arch::asm!(
            "tlbi alle2",
            "tlbi alle1",
            "dsb sy",
            "isb",
            options(nostack, preserves_flags)
        )
    };
    // SAFETY: `start` has mapped at its own address, with the rights it needs, all that this CPU uses: image, stack, tables.
    unsafe { sysreg::sctlr_el2::write(SCTLR_EL2_ON) };
    isb();
}

/// TCR_EL2 without FEAT_VHE: bits that are one (Arm ARM D19.2, TCR_EL2).
const TCR_EL2_RES1: u64 = 1 << 31 | 1 << 23;

/// Composes TCR_EL2: 48-bit addresses, 4 KiB granule, write-back inner-shareable walks.
fn tcr(pa_range: u64) -> u64 {
    let fields = TCR_EL2::T0SZ.val(64 - VA_BITS)
        + TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::SH0::Inner
        + TCR_EL2::TG0::KiB_4
        + TCR_EL2::PS.val(pa_range);
    fields.value | TCR_EL2_RES1
}

/// The register values with which a secondary CPU turns its MMU on before it runs any Rust.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Registers {
    pub(crate) mair: u64,
    pub(crate) tcr: u64,
    pub(crate) ttbr: u64,
    pub(crate) sctlr: u64,
}

/// Returns this CPU's MMU registers for a secondary to copy.
pub(crate) fn registers() -> Registers {
    Registers {
        mair: sysreg::mair_el2::read(),
        tcr: sysreg::tcr_el2::read(),
        ttbr: sysreg::ttbr0_el2::read(),
        sctlr: SCTLR_EL2_ON,
    }
}

/// Writes the vector base of this CPU; `address` comes from `vectors`.
pub(crate) fn set_vectors(address: u64) {
    // SAFETY: one of the tables of `vectors`, which are code of the image.
    unsafe { sysreg::vbar_el2::write(address) };
    isb();
}
