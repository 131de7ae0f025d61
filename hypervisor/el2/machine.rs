//! What the machine is, once the boot CPU has found out, and where it can say something before.
#![expect(unsafe_code, reason = "uses the address of a board's UART")]

use alloc::string::String;
use control_plane::host::HostDescription;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Once;

use crate::gic::{Gic, Ppis, PrivateLines};
use crate::mmu::Use;
use crate::sysreg::{self, dsb_sy};
use crate::uart::{Place, Uart};
use crate::{layout, mmu, uart};

/// The exception level EL2 is entered at.
pub(crate) const EL2: u64 = 2;

/// What the machine is.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) machine: String,
    pub(crate) cpus: u16,
    pub(crate) memory_bytes: u64,
}

/// The machine's description, once the device tree is read.
pub(crate) static HOST: Once<HostDescription> = Once::new();
/// The interrupt controller, once it is set up.
pub(crate) static GIC: Once<Gic> = Once::new();
/// What [`facts`] returns.
pub(crate) static FACTS: Once<Facts> = Once::new();

/// Returns what the machine is.
pub(crate) fn facts() -> &'static Facts {
    FACTS.get().expect("set before any guest runs")
}

/// What the boot CPU accesses although only the device tree says that it is there: the path of its node.
static PROBED: Once<&'static str> = Once::new();
static IS_PROBING: AtomicBool = AtomicBool::new(false);

/// Runs `work`, which accesses for the first time what a node of the device tree describes. An abort tells of the node.
pub(crate) fn probe<R>(path: &'static str, work: impl FnOnce() -> R) -> R {
    PROBED.call_once(|| path);
    IS_PROBING.store(true, Ordering::Relaxed);
    let result = work();
    // What was read has come by then, or has aborted.
    dsb_sy();
    IS_PROBING.store(false, Ordering::Relaxed);
    result
}

/// Returns the path of the node whose registers are being accessed for the first time.
pub(crate) fn probed() -> Option<&'static str> {
    let is_probing = IS_PROBING.load(Ordering::Relaxed);
    PROBED.get().copied().filter(|_| is_probing)
}

/// Returns the private interrupts of the CPU with these affinity fields of MPIDR_EL1.
pub(crate) fn private_lines(affinity: u64) -> Option<PrivateLines> {
    GIC.get()?.private_lines(affinity)
}

/// Returns the machine's private interrupts, as its device tree has them.
pub(crate) fn private_interrupts() -> Ppis {
    let host = HOST.get().expect("described before any CPU is prepared");
    Ppis::new(host.private)
}

/// Returns where the memory that EL2 uses ends.
pub(crate) fn memory_end() -> u64 {
    let memory = HOST.get().map_or(&[][..], |host| &host.memory);
    memory.last().map_or(0, |bank| bank.end())
}

/// Reads the CPU's feature registers, as `vmm::features` indexes them.
pub(crate) fn host_id_registers() -> [u64; 64] {
    let mut ids = [0; 64];
    macro_rules! read {
        ($($index:literal $name:ident),* $(,)?) => { $(ids[$index] = sysreg::$name::read();)* };
    }
    // By CRm and op2 of their encodings.
    read! {
        8 id_pfr0_el1, 9 id_pfr1_el1, 10 id_dfr0_el1, 11 id_afr0_el1, 12 id_mmfr0_el1, 13 id_mmfr1_el1, 14 id_mmfr2_el1, 15 id_mmfr3_el1,
        16 id_isar0_el1, 17 id_isar1_el1, 18 id_isar2_el1, 19 id_isar3_el1, 20 id_isar4_el1, 21 id_isar5_el1, 22 id_mmfr4_el1,
        23 id_isar6_el1, 24 mvfr0_el1, 25 mvfr1_el1, 26 mvfr2_el1, 28 id_pfr2_el1, 29 id_dfr1_el1, 30 id_mmfr5_el1,
        32 id_aa64pfr0_el1, 33 id_aa64pfr1_el1, 34 id_aa64pfr2_el1, 36 id_aa64zfr0_el1, 37 id_aa64smfr0_el1,
        40 id_aa64dfr0_el1, 41 id_aa64dfr1_el1, 44 id_aa64afr0_el1, 45 id_aa64afr1_el1,
        48 id_aa64isar0_el1, 49 id_aa64isar1_el1, 50 id_aa64isar2_el1, 51 id_aa64isar3_el1,
        56 id_aa64mmfr0_el1, 57 id_aa64mmfr1_el1, 58 id_aa64mmfr2_el1, 59 id_aa64mmfr3_el1, 60 id_aa64mmfr4_el1,
    }
    ids
}

/// Returns the UART for last words: the console or, before there is one, that of the board this seems to be.
pub(crate) fn last_console() -> Option<Uart> {
    uart::console().or_else(|| {
        let board = boards::Board::by_fingerprint(layout::image().start, sysreg::midr_el1::read())?;
        let place = Place::pl011(board.early_uart?.pl011);
        let is_mapped = sysreg::currentel::read() >> 2 != EL2
            || !mmu::is_on()
            || mmu::map_identity(place.pages(), Use::Device).is_ok();
        // SAFETY: the board's own UART, mapped just now or reached with the MMU off.
        is_mapped.then(|| unsafe { Uart::start(place) })
    })
}
