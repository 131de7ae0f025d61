//! The end of the road: what EL2 says when it finds itself wrong, and what it then stops.
//!
//! Only bugs of our own come here; guest input never does. The CPU that panics stops and its vCPUs with it; the others go on.

use core::fmt::Write;
use core::panic::PanicInfo;

use crate::sysreg::{self, wfi};
use crate::{machine, mmu, percpu};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let Some(mut uart) = machine::last_console() {
        let _ = write!(uart, "\nBULLPEN PANIC on {}: {info}\n", percpu::describe());
    }
    stop()
}

/// Names of the vectors taken from EL2 itself, by slot.
const KINDS: [&str; 8] = [
    "synchronous exception with SP_EL0",
    "IRQ with SP_EL0",
    "FIQ with SP_EL0",
    "SError with SP_EL0",
    "synchronous exception",
    "IRQ",
    "FIQ",
    "SError",
];

/// The slot of a synchronous exception with SP_EL2.
const SYNCHRONOUS: u64 = 4;

/// Reports an exception taken at EL2; called by the vectors with the slot and where x0-x18 and x30 were saved.
pub(crate) extern "C" fn el2_exception(slot: u64, saved: &[u64; 34]) -> ! {
    if let Some(mut uart) = machine::last_console() {
        if let Some(path) = machine::probed() {
            let far = sysreg::far_el2::read();
            let _ = writeln!(
                uart,
                "bullpen: device tree: {path}: `reg`: nothing answers there (near {far:#x})"
            );
            stop();
        }
        let kind = KINDS.get(slot as usize).copied().unwrap_or("exception");
        let _ = writeln!(
            uart,
            "\nBULLPEN PANIC on {}: {kind} at EL2",
            percpu::describe()
        );
        let far = sysreg::far_el2::read();
        if slot == SYNCHRONOUS && mmu::is_below_a_stack(far) {
            let _ = writeln!(uart, "  EL2's stack on this CPU has overflowed");
        }
        let _ = writeln!(
            uart,
            "  ESR {:#x}  ELR {:#x} (image + {:#x})  FAR {:#x}  SPSR {:#x}",
            sysreg::esr_el2::read(),
            sysreg::elr_el2::read(),
            sysreg::elr_el2::read().wrapping_sub(crate::layout::image().start),
            far,
            sysreg::spsr_el2::read(),
        );
        for (index, value) in saved.iter().take(19).enumerate() {
            let _ = write!(uart, "  x{index:<2} {value:016x}");
            if index % 4 == 3 {
                let _ = writeln!(uart);
            }
        }
        let _ = writeln!(uart, "  x30 {:016x}", saved[19]);
    }
    stop()
}

fn stop() -> ! {
    loop {
        wfi();
    }
}
