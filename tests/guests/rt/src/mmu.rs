//! Stage 1 at EL1: an identity map with caches on, and windows through which a test looks at any address.
//!
//! 4 KiB granule, 48-bit addresses, blocks of 1 GiB (DDI0487 D8.3). A block that holds RAM is Normal Write-Back, all
//! others are Device; a window maps one chosen GiB with chosen attributes at a fixed virtual address.
#![expect(unsafe_code, reason = "translation tables")]

use crate::{insn, mrs};
use core::cell::UnsafeCell;

/// Size of a block of a level-1 table.
pub const GIB: u64 = 1 << 30;
/// First virtual address of the windows.
const WINDOW_BASE: u64 = 512 * GIB;

/// Descriptor bits: a valid block.
const BLOCK: u64 = 0b01;
/// Descriptor bits: a valid table.
const TABLE: u64 = 0b11;
/// Access flag.
const AF: u64 = 1 << 10;
/// Inner shareable.
const SH_INNER: u64 = 3 << 8;
/// Not executable, at EL1 and at EL0.
const XN: u64 = 3 << 53;
/// MAIR: Attr0 Device-nGnRnE, Attr1 Normal Write-Back, Attr2 Normal Non-cacheable.
const MAIR: u64 = 0x00_44_ff_00;
/// TCR_EL1 without IPS: T0SZ 16, Write-Back inner-shareable walks, 4 KiB granule, EPD1.
const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;
/// SCTLR_EL1: the RES1 bits, M, C, I, and SA.
const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 3 | 1 << 12;

/// How a window is mapped.
#[derive(Clone, Copy)]
pub enum Memory {
    /// Device-nGnRnE, never executed.
    Device,
    /// Normal Write-Back, executable.
    Normal,
    /// Normal Non-cacheable, executable.
    Uncached,
}

impl Memory {
    const fn bits(self) -> u64 {
        let index: u64 = match self {
            Self::Device => 0,
            Self::Normal => 1,
            Self::Uncached => 2,
        };
        let device = if index == 0 { XN } else { 0 };
        index << 2 | AF | SH_INNER | BLOCK | device
    }
}

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: written by the boot CPU only; other readers are table walks.
unsafe impl Sync for Table {}

static LEVEL0: Table = Table(UnsafeCell::new([0; 512]));
static IDENTITY: Table = Table(UnsafeCell::new([0; 512]));
static WINDOWS: Table = Table(UnsafeCell::new([0; 512]));

/// What the entry code of every CPU loads: MAIR, TCR, TTBR0, SCTLR.
#[repr(C, align(64))]
pub(crate) struct Config(UnsafeCell<[u64; 4]>);

// SAFETY: written once, before any other CPU runs.
unsafe impl Sync for Config {}

pub(crate) static CONFIG: Config = Config(UnsafeCell::new([0; 4]));

fn set(table: &Table, index: u64, value: u64) {
    let entry = table
        .0
        .get()
        .cast::<u64>()
        .wrapping_add((index & 511) as usize);
    // SAFETY: the masked index lies within the table; only the boot CPU writes it.
    unsafe { entry.write_volatile(value) };
}

/// Builds the identity map and turns the MMU on; the GiB of the image and of the device tree are taken as RAM.
pub(crate) fn init(image: u64, dtb: u64) {
    unsafe extern "C" {
        fn rt_mmu_on();
    }
    set(&LEVEL0, 0, IDENTITY.0.get() as u64 | TABLE);
    set(&LEVEL0, 1, WINDOWS.0.get() as u64 | TABLE);
    for gib in 0..512 {
        set(&IDENTITY, gib, (gib * GIB) | Memory::Device.bits());
    }
    for address in [image, dtb] {
        if address != 0 {
            set(
                &IDENTITY,
                address / GIB,
                (address / GIB * GIB) | Memory::Normal.bits(),
            );
        }
    }
    let range = (mrs!("id_aa64mmfr0_el1") & 0xf).min(5);
    let config = [MAIR, TCR | range << 32, LEVEL0.0.get() as u64, SCTLR];
    // SAFETY: no other CPU runs yet.
    unsafe { CONFIG.0.get().write_volatile(config) };
    insn!("dsb sy");
    // SAFETY: the map is the identity, so execution goes on at the same address.
    unsafe { rt_mmu_on() };
    clean(CONFIG.0.get() as u64, size_of::<Config>() as u64);
}

/// Cleans and invalidates a range to the point of coherency, for readers with their caches off.
pub fn clean(start: u64, size: u64) {
    let mut line = start & !15;
    while line < start + size {
        // SAFETY: a clean changes nothing that Rust sees.
        unsafe { core::arch::asm!("dc civac, {0}", in(reg) line, options(nostack)) };
        line += 16;
    }
    insn!("dsb sy");
}

/// Makes the GiB around an address Normal memory in the identity map.
pub(crate) fn add_ram(address: u64) {
    let gib = address / GIB;
    if gib >= 512 {
        return;
    }
    // SAFETY: the masked index lies within the table.
    let present = unsafe {
        IDENTITY
            .0
            .get()
            .cast::<u64>()
            .wrapping_add((gib & 511) as usize)
            .read_volatile()
    };
    if present != (gib * GIB) | Memory::Normal.bits() {
        replace(&IDENTITY, gib, (gib * GIB) | Memory::Normal.bits());
    }
}

/// Descriptor bits: EL0 may read and write, and EL1 may not execute.
const EL0: u64 = 1 << 6 | 1 << 53;

/// Maps the GiB that holds `target` for EL0 too, at the address of GiB number `gib` of the identity map, below 4 GiB, where the
/// machine has nothing; returns the virtual address of `target`.
pub fn user_window(gib: u64, target: u64, memory: Memory) -> u64 {
    let bits = memory.bits() & !XN | EL0;
    replace(&IDENTITY, gib, (target / GIB * GIB) | bits);
    gib * GIB + target % GIB
}

/// Maps the GiB that holds `target` into window number `slot`; returns the virtual address of `target`.
pub fn window(slot: u64, target: u64, memory: Memory) -> u64 {
    replace(&WINDOWS, slot, (target / GIB * GIB) | memory.bits());
    WINDOW_BASE + (slot & 511) * GIB + target % GIB
}

/// Makes the tables say that a further table, for a GiB of its own, lies at `table`; returns an address in that GiB.
pub fn window_through(table: u64) -> u64 {
    replace(&LEVEL0, 2, table | TABLE);
    WINDOW_BASE + 512 * GIB
}

/// Replaces an entry by break-before-make (DDI0487 D8.17.1).
fn replace(table: &Table, index: u64, value: u64) {
    set(table, index, 0);
    insn!("dsb ishst");
    insn!("tlbi vmalle1is");
    insn!("dsb ish");
    set(table, index, value);
    insn!("dsb ishst");
    insn!("isb");
}
