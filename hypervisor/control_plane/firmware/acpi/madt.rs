//! MADT: a GICv3 and every possible vCPU (ACPI 6.5, 5.2.12).
//!
//! Redistributors are given as GICR ranges, never in the GICC structures: Linux refuses to turn on a vCPU whose redistributor
//! it knows from a GICC that was not Enabled at boot.

use alloc::vec::Vec;

use acpi_tables::madt::{EnabledStatus, GicVersion, Gicc, Gicd, Gicr};
use acpi_tables::{Aml, AmlSink};

use super::super::Machine;
use super::table::Table;
use super::vcpus;

/// Revision of ACPI 6.5, the first in which a GICC can be online-capable.
const REVISION: u8 = 6;

/// Sizes of a GICC structure, and of all that is in the table once.
const GICC_SIZE: usize = 82;
const FIXED_SIZE: usize = 8 + 24 + 2 * 16;

/// Writes the MADT: boot vCPUs Enabled, the others online-capable.
pub(super) fn table(machine: &Machine<'_>) -> Vec<u8> {
    let body = FIXED_SIZE + usize::from(machine.max_vcpus) * GICC_SIZE;
    let mut table = Table::new(*b"APIC", REVISION, body);
    table.dword(0); // no local interrupt controller address: that is the x86 APIC's
    table.dword(0); // flags: no 8259
    let distributor = machine.layout.distributor.base.get();
    Gicd::new(0, distributor, GicVersion::GICv3).to_aml_bytes(&mut table);
    for (vcpu, boot) in vcpus(machine) {
        let status = if boot {
            EnabledStatus::Enabled
        } else {
            EnabledStatus::DisabledOnlineCapable
        };
        let number = u32::from(vcpu.get());
        Gicc::new(status)
            .cpu_interface_number(number)
            .acpi_processor_uid(number)
            .mpidr(vcpu.affinity())
            .to_aml_bytes(&mut table);
    }
    for region in machine.layout.redistributors(machine.max_vcpus).regions() {
        // At most MAX_VCPUS frames: 64 MiB, well within the 32 bits.
        Gicr::new(region.base.get(), region.size as u32).to_aml_bytes(&mut table);
    }
    table.finish()
}
