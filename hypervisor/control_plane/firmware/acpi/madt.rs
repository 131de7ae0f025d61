//! MADT: the interrupt controller and every possible vCPU (ACPI 6.5, 5.2.12).
//!
//! A GICv2's GICC structures all name the same CPU interface, as each CPU sees its own there; what a hypervisor in the guest would
//! use, GICH and GICV, is not offered. Redistributors are given as GICR ranges, never in the GICC structures: Linux refuses to turn on a vCPU whose redistributor
//! it knows from a GICC that was not Enabled at boot.

use alloc::vec::Vec;

use acpi_tables::madt::{EnabledStatus, GicVersion, Gicc, Gicd, Gicr, Trigger};
use acpi_tables::{Aml, AmlSink};
use types::layout::{self, PMU_OVERFLOW};

use super::super::Machine;
use super::vcpus;

/// Revision of ACPI 6.6, which goes with the FADT. From 6 (ACPI 6.5) on a GICC can be online-capable.
pub(super) const REVISION: u8 = 7;

/// Size of a GICC structure, and how many there are in a piece.
const GICC_SIZE: usize = 82;
const VCPUS_A_PIECE: u16 = 8;

/// Writes a piece of the MADT's body: boot vCPUs Enabled, the others online-capable, then the redistributors.
pub(super) fn piece(machine: &Machine<'_>, number: u16) -> Option<Vec<u8>> {
    let mut piece = Vec::with_capacity(usize::from(VCPUS_A_PIECE) * GICC_SIZE);
    let Some(part) = number.checked_sub(1) else {
        piece.dword(0); // no local interrupt controller address: that is the x86 APIC's
        piece.dword(0); // flags: no 8259
        let distributor = machine.layout.distributor.base.get();
        let version = match machine.layout.gic {
            layout::GicVersion::V2 => GicVersion::GICv2,
            layout::GicVersion::V3 => GicVersion::GICv3,
        };
        Gicd::new(0, distributor, version).to_aml_bytes(&mut piece);
        return Some(piece);
    };
    let cpu_interface = match machine.layout.gic {
        layout::GicVersion::V2 => machine.layout.cpu_interface.base.get(),
        layout::GicVersion::V3 => 0,
    };
    // 0 says that there is none.
    let overflow = if machine.has_pmu_interrupt {
        PMU_OVERFLOW
    } else {
        0
    };
    if let Some(vcpus) = vcpus(machine, part, VCPUS_A_PIECE) {
        for (vcpu, boot) in vcpus {
            let status = if boot {
                EnabledStatus::Enabled
            } else {
                EnabledStatus::DisabledOnlineCapable
            };
            let number = u32::from(vcpu.get());
            Gicc::new(status)
                .cpu_interface_number(number)
                .acpi_processor_uid(number)
                .base_address(cpu_interface)
                .performance_interrupt(overflow, Trigger::Level)
                .mpidr(vcpu.affinity())
                .to_aml_bytes(&mut piece);
        }
        return Some(piece);
    }
    // Behind the last vCPU.
    if part != machine.max_vcpus.div_ceil(VCPUS_A_PIECE) {
        return None;
    }
    for region in machine.layout.redistributors(machine.max_vcpus).regions() {
        // At most MAX_VCPUS frames: 64 MiB, well within the 32 bits.
        Gicr::new(region.base.get(), region.size as u32).to_aml_bytes(&mut piece);
    }
    Some(piece)
}
