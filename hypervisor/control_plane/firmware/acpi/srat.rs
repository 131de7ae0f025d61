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

/// The GICC affinity structure (ACPI 6.5, 5.2.16.4).
const GICC_AFFINITY: u8 = 3;
const GICC_AFFINITY_SIZE: u8 = 18;
const ENABLED: u32 = 1 << 0;

const MEMORY_AFFINITY_SIZE: usize = 40;
const RESERVED_SIZE: usize = 12;

/// The only node there is.
const NODE: u32 = 0;

/// Writes the SRAT.
pub(super) fn table(machine: &Machine<'_>) -> Vec<u8> {
    let vcpu_size = usize::from(machine.max_vcpus) * usize::from(GICC_AFFINITY_SIZE);
    let body = RESERVED_SIZE + vcpu_size + machine.memory.len() * MEMORY_AFFINITY_SIZE;
    let mut table = Table::new(*b"SRAT", REVISION, body);
    table.dword(1); // reserved, must be 1
    table.qword(0);
    for (vcpu, _) in vcpus(machine) {
        table.byte(GICC_AFFINITY);
        table.byte(GICC_AFFINITY_SIZE);
        table.dword(NODE);
        table.dword(u32::from(vcpu.get()));
        table.dword(ENABLED);
        table.dword(0); // clock domain
    }
    for bank in machine.memory {
        MemoryAffinity::new(NODE, bank.base.get(), bank.size)
            .enabled()
            .to_aml_bytes(&mut table);
    }
    table.finish()
}
