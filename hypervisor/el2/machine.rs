//! What the machine is, once the boot CPU has found out, and where it can say something before.
#![expect(unsafe_code, reason = "uses the address of a board's UART")]

use alloc::string::String;
use control_plane::host::HostDescription;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Once;

use crate::gic::{Gic, Ppis, PrivateLines};
use crate::mmu::Use;
use crate::sysreg::{dsb_sy, read_register};
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
        ($($index:literal $name:literal),*) => { $(ids[$index] = read_register!($name);)* };
    }
    read!(
        8 "S3_0_C0_C1_0", 9 "S3_0_C0_C1_1", 10 "S3_0_C0_C1_2", 11 "S3_0_C0_C1_3", 12 "S3_0_C0_C1_4", 13 "S3_0_C0_C1_5",
        14 "S3_0_C0_C1_6", 15 "S3_0_C0_C1_7", 16 "S3_0_C0_C2_0", 17 "S3_0_C0_C2_1", 18 "S3_0_C0_C2_2",
        19 "S3_0_C0_C2_3", 20 "S3_0_C0_C2_4", 21 "S3_0_C0_C2_5", 22 "S3_0_C0_C2_6", 23 "S3_0_C0_C2_7",
        24 "S3_0_C0_C3_0", 25 "S3_0_C0_C3_1", 26 "S3_0_C0_C3_2", 28 "S3_0_C0_C3_4", 29 "S3_0_C0_C3_5", 30 "S3_0_C0_C3_6",
        32 "S3_0_C0_C4_0", 33 "S3_0_C0_C4_1", 34 "S3_0_C0_C4_2", 36 "S3_0_C0_C4_4", 37 "S3_0_C0_C4_5",
        40 "S3_0_C0_C5_0", 41 "S3_0_C0_C5_1", 44 "S3_0_C0_C5_4", 45 "S3_0_C0_C5_5", 48 "S3_0_C0_C6_0",
        49 "S3_0_C0_C6_1", 50 "S3_0_C0_C6_2", 51 "S3_0_C0_C6_3", 56 "S3_0_C0_C7_0", 57 "S3_0_C0_C7_1",
        58 "S3_0_C0_C7_2", 59 "S3_0_C0_C7_3", 60 "S3_0_C0_C7_4"
    );
    ids
}

/// Returns the UART for last words: the console or, before there is one, that of the board this seems to be.
pub(crate) fn last_console() -> Option<Uart> {
    uart::console().or_else(|| {
        let board =
            boards::Board::by_fingerprint(layout::image().start, read_register!("midr_el1"))?;
        let place = Place::pl011(board.early_uart?.pl011);
        let is_mapped = read_register!("CurrentEL") >> 2 != EL2
            || !mmu::is_on()
            || mmu::map_identity(place.pages(), Use::Device).is_ok();
        // SAFETY: the board's own UART, mapped just now or reached with the MMU off.
        is_mapped.then(|| unsafe { Uart::start(place) })
    })
}
