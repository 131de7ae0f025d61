//! GTDT: the generic timer's interrupts (ACPI 6.5, 5.2.25).

use alloc::vec::Vec;

use acpi_tables::AmlSink;

use types::layout::{PHYSICAL_TIMER, VIRTUAL_TIMER};

use super::table::Table;

const REVISION: u8 = 3;
const BODY_SIZE: usize = 68;

/// Memory-mapped counter frames: none.
const NO_FRAME: u64 = u64::MAX;

/// INTIDs of the timers that a guest does not have, as every Arm server numbers them (Arm BSA, table 6).
const SECURE_EL1: u32 = 29;
const NON_SECURE_EL2: u32 = 26;

/// Level-triggered, active high, and running whatever state the vCPU is in (ACPI 6.5, table 5.121).
const ALWAYS_ON: u32 = 1 << 2;

/// Writes the GTDT.
pub(super) fn table() -> Vec<u8> {
    let mut table = Table::new(*b"GTDT", REVISION, BODY_SIZE);
    table.qword(NO_FRAME); // CntControlBase
    table.dword(0);
    for interrupt in [SECURE_EL1, PHYSICAL_TIMER, VIRTUAL_TIMER, NON_SECURE_EL2] {
        table.dword(interrupt);
        table.dword(ALWAYS_ON);
    }
    table.qword(NO_FRAME); // CntReadBase
    table.dword(0); // platform timer count
    table.dword(0); // platform timer offset
    table.dword(0); // virtual EL2 timer: the guest has no EL2
    table.dword(0);
    table.finish()
}
