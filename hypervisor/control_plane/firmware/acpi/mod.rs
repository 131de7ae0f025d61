//! The ACPI tables of a guest (ACPI 6.5), in which every possible vCPU is described from the start.
//!
//! vCPUs that run from reset are Enabled in the MADT; the others are online-capable, and the DSDT's `_STA` says from moment to
//! moment whether they may be used. Tables are written one after the other, and those that grow with the vCPUs in pieces, so that no step
//! takes long and the heap never holds more than a piece.

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

use self::table::Pieces;
use super::writer::Writer;
use super::{Error, Machine};
use types::ids::VcpuId;

/// The maker of the tables: OEM ID, OEM table ID and revision of every header (ACPI 6.5, table 5.4).
const OEM_ID: [u8; 6] = *b"BULLPN";
const OEM_TABLE_ID: [u8; 8] = *b"BULLPEN ";
const OEM_REVISION: u32 = 1;

/// The largest table of `acpi_tables` that is written at once: the FADT.
const LARGEST_FIXED: usize = 276;

/// Where a table begins: ACPI asks for nothing, a multiple of 16 is easy on the eye in a dump.
const TABLE_ALIGNMENT: u64 = 16;

/// The body of a table that comes in pieces, and which is next.
#[derive(Clone, Debug)]
enum Body {
    Dsdt(dsdt::Body),
    Madt(u16),
    Srat(u16),
    Pptt(pptt::Body),
}

impl Body {
    /// Makes the next piece, if there is one more.
    fn piece(&mut self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, Error> {
        let numbered: fn(&Machine<'_>, u16) -> Option<Vec<u8>>;
        let number = match self {
            Self::Dsdt(body) => return body.piece(machine),
            Self::Pptt(body) => return Ok(body.piece(machine)),
            Self::Madt(number) => {
                numbered = madt::piece;
                number
            }
            Self::Srat(number) => {
                numbered = srat::piece;
                number
            }
        };
        let piece = numbered(machine, *number);
        *number = number.saturating_add(1);
        Ok(piece)
    }
}

/// The tables written so far, each after those whose address it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// Where the DSDT is, which the FADT names.
    dsdt: Option<u64>,
    /// Where those are that the XSDT names, in its order.
    entries: Vec<u64>,
    /// The table of which some pieces are written.
    draft: Option<(Pieces, Body)>,
}

impl Tables {
    /// Writes the next table, or a piece of it; the address of the RSDP, which is the last.
    pub(super) fn step(
        &mut self,
        machine: &Machine<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<Option<u64>, Error> {
        if let Some((mut pieces, mut body)) = self.draft.take() {
            match body.piece(machine)? {
                Some(piece) => {
                    pieces.add(piece, writer)?;
                    self.draft = Some((pieces, body));
                }
                None => self.note(&body, pieces.finish(writer)?),
            }
            return Ok(None);
        }
        let (table, name) = match (self.dsdt, self.entries.len()) {
            (None, _) => {
                let body = Body::Dsdt(dsdt::Body::default());
                return self.begin("DSDT", dsdt::REVISION, body, writer);
            }
            (Some(dsdt), 0) => (fadt::table(dsdt, machine.hypervisor_id), "FACP"),
            (_, 1) => return self.begin("APIC", madt::REVISION, Body::Madt(0), writer),
            (_, 2) => (gtdt::table(), "GTDT"),
            (_, 3) => (spcr::table(machine.layout), "SPCR"),
            (_, 4) => return self.begin("SRAT", srat::REVISION, Body::Srat(0), writer),
            (_, 5) => {
                let body = Body::Pptt(pptt::Body::default());
                return self.begin("PPTT", pptt::REVISION, body, writer);
            }
            _ => return self.roots(writer).map(Some),
        };
        self.entries.push(writer.add(table, TABLE_ALIGNMENT, name)?);
        Ok(None)
    }

    /// Begins a table that comes in pieces.
    fn begin(
        &mut self,
        name: &'static str,
        revision: u8,
        body: Body,
        writer: &mut Writer<'_>,
    ) -> Result<Option<u64>, Error> {
        self.draft = Some((Pieces::begin(name, revision, writer)?, body));
        Ok(None)
    }

    /// Notes where a table is that came in pieces.
    fn note(&mut self, body: &Body, at: u64) {
        match body {
            Body::Dsdt(_) => self.dsdt = Some(at),
            Body::Madt(_) | Body::Srat(_) | Body::Pptt(_) => self.entries.push(at),
        }
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
    let mut bytes = Vec::with_capacity(LARGEST_FIXED);
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Returns the possible vCPUs of a part of so many, and whether each runs from reset; `None` behind the last part.
fn vcpus(
    machine: &Machine<'_>,
    part: u16,
    size: u16,
) -> Option<impl ExactSizeIterator<Item = (VcpuId, bool)>> {
    let first = part.saturating_mul(size);
    let end = machine.max_vcpus.min(first.saturating_add(size));
    let boot = machine.boot_vcpus;
    let one = move |index| (VcpuId::new(index), index < boot);
    (first < end).then(|| (first..end).map(one))
}
