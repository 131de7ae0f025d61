//! SRAT: which node every possible vCPU and all RAM belongs to (ACPI 6.5, 5.2.16).
//!
//! Linux reads it once at boot; a vCPU it does not name would land on node 0 whatever is said later.

use alloc::vec::Vec;

use acpi_tables::srat::MemoryAffinity;
use acpi_tables::{Aml, AmlSink};

use super::super::Machine;
use super::vcpus;

pub(super) const REVISION: u8 = 3;

/// The GICC affinity structure (ACPI 6.5, 5.2.16.4): type, length, node 0, UID, flags (enabled), clock domain 0.
const GICC_AFFINITY: [u8; 18] = *b"\x03\x12\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0";
const UID: core::ops::Range<usize> = 6..10;

/// vCPUs in a piece.
const VCPUS_A_PIECE: u16 = 16;

/// The only node there is.
const NODE: u32 = 0;

/// Writes a piece of the SRAT's body: every possible vCPU, then RAM.
pub(super) fn piece(machine: &Machine<'_>, number: u16) -> Option<Vec<u8>> {
    let mut piece = Vec::with_capacity(usize::from(VCPUS_A_PIECE) * GICC_AFFINITY.len());
    let Some(part) = number.checked_sub(1) else {
        piece.dword(1); // reserved, must be 1
        piece.qword(0);
        return Some(piece);
    };
    if let Some(vcpus) = vcpus(machine, part, VCPUS_A_PIECE) {
        for (vcpu, _) in vcpus {
            let mut entry = GICC_AFFINITY;
            if let Some(uid) = entry.get_mut(UID) {
                uid.copy_from_slice(&u32::from(vcpu.get()).to_le_bytes());
            }
            piece.extend_from_slice(&entry);
        }
        return Some(piece);
    }
    // Behind the last vCPU.
    if part != machine.max_vcpus.div_ceil(VCPUS_A_PIECE) {
        return None;
    }
    for bank in machine.memory {
        MemoryAffinity::new(NODE, bank.base.get(), bank.size)
            .enabled()
            .to_aml_bytes(&mut piece);
    }
    Some(piece)
}
