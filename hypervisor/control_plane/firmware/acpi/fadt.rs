//! FADT: hardware-reduced ACPI, and PSCI by HVC (ACPI 6.5, 5.2.9).

use alloc::vec::Vec;

use acpi_tables::fadt::{FADTBuilder, Flags};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};

/// The newest that there is, 6.6, whose FADT differs from that of 6.5 by this number alone.
const MINOR_VERSION: u8 = 6;

/// ARM_BOOT_ARCH: PSCI is implemented, and its conduit is HVC (ACPI 6.5, table 5.11).
const PSCI_COMPLIANT: u16 = 1 << 0;
const PSCI_USE_HVC: u16 = 1 << 1;

/// Writes the FADT: buttons are control-method devices, power-off and reset are PSCI's.
pub(super) fn table(dsdt: u64, hypervisor_id: [u8; 8]) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.fadt_minor_version = MINOR_VERSION;
    fadt.arm_boot_arch = (PSCI_COMPLIANT | PSCI_USE_HVC).into();
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(hypervisor_id).into();
    bytes(&fadt.finalize())
}
