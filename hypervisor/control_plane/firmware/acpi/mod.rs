//! The ACPI tables of a guest (ACPI 6.5), in which every possible vCPU is described from the start.
//!
//! vCPUs that run from reset are Enabled in the MADT; the others are online-capable, and the DSDT's `_STA` says from moment to
//! moment whether they may be used. Tables are built one at a time, so that the heap never holds more than the largest of them.

mod dsdt;
mod fadt;
mod gtdt;
mod madt;
mod pptt;
mod spcr;
mod srat;
mod table;

use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::writer::Writer;
use super::{Error, Machine};
use types::ids::VcpuId;

/// The maker of the tables: OEM ID, OEM table ID and revision of every header (ACPI 6.5, table 5.4).
const OEM_ID: [u8; 6] = *b"BULLPN";
const OEM_TABLE_ID: [u8; 8] = *b"BULLPEN ";
const OEM_REVISION: u32 = 1;

/// Where a table begins: ACPI asks for nothing, a multiple of 16 is easy on the eye in a dump.
const TABLE_ALIGNMENT: u64 = 16;

/// The tables written so far, each after those whose address it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// Where the DSDT is, which the FADT names.
    dsdt: Option<u64>,
    /// Where those are that the XSDT names, in its order.
    entries: Vec<u64>,
    /// The PPTT, while it is being written.
    pptt: Option<pptt::Draft>,
}

impl Tables {
    /// Writes the next table; the address of the RSDP, which is the last.
    pub(super) fn step(
        &mut self,
        machine: &Machine<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<Option<u64>, Error> {
        let Some(dsdt) = self.dsdt else {
            self.dsdt = Some(writer.add(dsdt::table(machine)?, TABLE_ALIGNMENT, "DSDT")?);
            return Ok(None);
        };
        let (table, name) = match self.entries.len() {
            0 => (fadt::table(dsdt, machine.hypervisor_id), "FACP"),
            1 => (madt::table(machine), "APIC"),
            2 => (gtdt::table(), "GTDT"),
            3 => (spcr::table(machine.layout), "SPCR"),
            4 => (srat::table(machine), "SRAT"),
            5 => {
                self.pptt(machine, writer)?;
                return Ok(None);
            }
            _ => return self.roots(writer).map(Some),
        };
        self.entries.push(writer.add(table, TABLE_ALIGNMENT, name)?);
        Ok(None)
    }

    /// Writes a piece of the PPTT.
    fn pptt(&mut self, machine: &Machine<'_>, writer: &mut Writer<'_>) -> Result<(), Error> {
        let mut draft = match self.pptt.take() {
            Some(draft) => draft,
            None => pptt::Draft::new(machine, writer)?,
        };
        match draft.step(machine, writer)? {
            Some(table) => self.entries.push(table),
            None => self.pptt = Some(draft),
        }
        Ok(())
    }

    /// Writes the XSDT and the RSDP.
    fn roots(&self, writer: &mut Writer<'_>) -> Result<u64, Error> {
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        self.entries.iter().for_each(|entry| xsdt.add_entry(*entry));
        let xsdt = writer.add(bytes(&xsdt), TABLE_ALIGNMENT, "XSDT")?;
        writer.add(bytes(&Rsdp::new(OEM_ID, xsdt)), TABLE_ALIGNMENT, "RSDP")
    }
}

/// Returns a table of `acpi_tables` as bytes.
fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Returns every possible vCPU, and whether it runs from reset.
fn vcpus(machine: &Machine<'_>) -> impl Iterator<Item = (VcpuId, bool)> {
    let boot = machine.boot_vcpus;
    (0..machine.max_vcpus).map(move |index| (VcpuId::new(index), index < boot))
}
