//! SRAT: which node every possible vCPU and all RAM belongs to (ACPI 6.5, 5.2.16).
//!
//! Linux reads it once at boot; a vCPU it does not name would land on node 0 whatever is said later.

use alloc::vec::Vec;

use acpi_tables::srat::MemoryAffinity;
use acpi_tables::{Aml, AmlSink};

use super::super::Machine;
use super::table::Table;
use super::vcpus;

const REVISION: u8 = 3;

/// The GICC affinity structure (ACPI 6.5, 5.2.16.4): type, length, node 0, UID, flags (enabled), clock domain 0.
const GICC_AFFINITY: [u8; 18] = *b"\x03\x12\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0";
const UID: core::ops::Range<usize> = 6..10;

const MEMORY_AFFINITY_SIZE: usize = 40;
const RESERVED_SIZE: usize = 12;

/// The only node there is.
const NODE: u32 = 0;

/// Writes the SRAT.
pub(super) fn table(machine: &Machine<'_>) -> Vec<u8> {
    let vcpu_size = usize::from(machine.max_vcpus) * GICC_AFFINITY.len();
    let body = RESERVED_SIZE + vcpu_size + machine.memory.len() * MEMORY_AFFINITY_SIZE;
    let mut table = Table::new(*b"SRAT", REVISION, body);
    table.dword(1); // reserved, must be 1
    table.qword(0);
    for (vcpu, _) in vcpus(machine) {
        let mut entry = GICC_AFFINITY;
        if let Some(uid) = entry.get_mut(UID) {
            uid.copy_from_slice(&u32::from(vcpu.get()).to_le_bytes());
        }
        table.vec(&entry);
    }
    for bank in machine.memory {
        MemoryAffinity::new(NODE, bank.base.get(), bank.size)
            .enabled()
            .to_aml_bytes(&mut table);
    }
    table.finish()
}
