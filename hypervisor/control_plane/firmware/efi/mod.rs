//! What of EFI an arm64 kernel needs to find ACPI tables without firmware: a system table, a memory map, and a clock
//! (UEFI 2.10; Linux, Documentation/arch/arm/uefi.rst).
//!
//! Of the runtime services only GetTime and SetTime exist; they call the hypervisor ([`crate::clock`]).

mod assembler;
mod memory_map;
mod runtime;

use alloc::vec::Vec;

use super::writer::Writer;
use super::{Error, Machine};
use types::layout::GRANULE;

/// Where tables begin whose fields have 64 bits.
const ALIGNMENT: u64 = 16;

/// Revision of the UEFI specification, 2.10 (UEFI 2.10, 4.3.1).
const REVISION: u32 = (2 << 16) | 100;

/// "IBI SYST" (UEFI 2.10, 4.3.1, EFI_SYSTEM_TABLE_SIGNATURE).
const SYSTEM_TABLE_SIGNATURE: u64 = u64::from_le_bytes(*b"IBI SYST");
const SYSTEM_TABLE_SIZE: u64 = 120;

/// The configuration tables' names (UEFI 2.10, 4.6.1), in the byte order of a GUID in memory.
const ACPI_20_GUID: [u8; 16] = guid(0x8868_e871, 0xe4f1, 0x11d3, 0xbc22_0080_c73c_8881);
const RT_PROPERTIES_GUID: [u8; 16] = guid(0xeb66_918a, 0x7eef, 0x402a, 0x842e_931d_21c3_8ae9);
const SMBIOS3_GUID: [u8; 16] = guid(0xf2fd_1544, 0x9794, 0x4a2c, 0x992e_e5bb_cf20_e394);
const CONFIGURATION_TABLES: u64 = 3;
const CONFIGURATION_ENTRY_SIZE: u64 = 24;

/// EFI_RT_PROPERTIES_TABLE: version 1, 8 bytes, GetTime and SetTime supported (UEFI 2.10, 4.6.2).
const RT_PROPERTIES_VERSION: u16 = 1;
const RT_PROPERTIES_SIZE: u16 = 8;
const RT_SUPPORTED_GET_TIME: u32 = 1 << 0;
const RT_SUPPORTED_SET_TIME: u32 = 1 << 1;

/// The maker of the firmware.
const VENDOR: &str = "Bullpen";
/// Room for that: Linux maps 100 UTF-16 characters of it, whatever their number.
const VENDOR_SIZE: u64 = 200;

/// Offsets of the tables from the first.
const CONFIGURATION_OFFSET: u64 = SYSTEM_TABLE_SIZE.next_multiple_of(ALIGNMENT);
const PROPERTIES_OFFSET: u64 =
    CONFIGURATION_OFFSET + CONFIGURATION_TABLES * CONFIGURATION_ENTRY_SIZE;
const VENDOR_OFFSET: u64 = PROPERTIES_OFFSET + RT_PROPERTIES_SIZE as u64;
const TABLES_SIZE: u64 = VENDOR_OFFSET + VENDOR_SIZE;

/// Where a kernel finds EFI, as its device tree says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Address of the system table.
    pub(super) system_table: u64,
    /// Address of the memory map.
    pub(super) memory_map: u64,
    /// Size of the memory map in bytes.
    pub(super) memory_map_size: u32,
    /// Size of one of its descriptors in bytes.
    pub(super) descriptor_size: u32,
    /// Version of its descriptors.
    pub(super) descriptor_version: u32,
}

/// Where the tables are that the system table names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    /// ACPI's RSDP.
    pub(super) rsdp: u64,
    /// The entry point of SMBIOS.
    pub(super) smbios: u64,
}

/// Sets room aside for the tables, so that the device tree can name them before the memory map can be drawn.
pub(super) fn reserve(machine: &Machine<'_>, writer: &mut Writer<'_>) -> Result<Location, Error> {
    let memory_map_size = memory_map::size(machine.memory.len());
    Ok(Location {
        system_table: writer.reserve(TABLES_SIZE, ALIGNMENT)?,
        memory_map: writer.reserve(u64::from(memory_map_size), ALIGNMENT)?,
        memory_map_size,
        descriptor_size: memory_map::DESCRIPTOR_SIZE,
        descriptor_version: memory_map::DESCRIPTOR_VERSION,
    })
}

/// Writes the runtime services, after the last of what the memory map must call tables has been placed; returns where they are.
pub(super) fn write_runtime(writer: &mut Writer<'_>) -> Result<u64, Error> {
    let runtime = writer.reserve(GRANULE, GRANULE)?;
    writer.put(runtime, runtime::image(runtime), "EFI runtime services")?;
    Ok(runtime)
}

/// Writes everything else.
pub(super) fn write(
    machine: &Machine<'_>,
    location: Location,
    runtime: u64,
    named: Tables,
    writer: &mut Writer<'_>,
) -> Result<(), Error> {
    let system_table = tables(location.system_table, runtime, named);
    writer.put(location.system_table, system_table, "EFI system table")?;
    let map = memory_map::draw(machine, runtime);
    writer.put(location.memory_map, map, "EFI memory map")
}

/// Writes the system table and what it points to, which follow it at `base`.
fn tables(base: u64, runtime: u64, named: Tables) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TABLES_SIZE as usize);
    header(&mut bytes, SYSTEM_TABLE_SIGNATURE, SYSTEM_TABLE_SIZE);
    put64(&mut bytes, base + VENDOR_OFFSET);
    put64(&mut bytes, 1); // firmware revision, and padding
    for _console_handle_or_protocol in 0..6 {
        put64(&mut bytes, 0);
    }
    put64(&mut bytes, runtime);
    put64(&mut bytes, 0); // boot services are over
    put64(&mut bytes, CONFIGURATION_TABLES);
    put64(&mut bytes, base + CONFIGURATION_OFFSET);
    seal(&mut bytes);

    bytes.resize(CONFIGURATION_OFFSET as usize, 0);
    bytes.extend_from_slice(&ACPI_20_GUID);
    put64(&mut bytes, named.rsdp);
    bytes.extend_from_slice(&RT_PROPERTIES_GUID);
    put64(&mut bytes, base + PROPERTIES_OFFSET);
    bytes.extend_from_slice(&SMBIOS3_GUID);
    put64(&mut bytes, named.smbios);

    bytes.extend_from_slice(&RT_PROPERTIES_VERSION.to_le_bytes());
    bytes.extend_from_slice(&RT_PROPERTIES_SIZE.to_le_bytes());
    bytes.extend_from_slice(&(RT_SUPPORTED_GET_TIME | RT_SUPPORTED_SET_TIME).to_le_bytes());

    bytes.extend(VENDOR.encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(TABLES_SIZE as usize, 0);
    bytes
}

fn put64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// Offset of the CRC in a table header (UEFI 2.10, 4.2.1, EFI_TABLE_HEADER).
const CRC: core::ops::Range<usize> = 16..20;

/// Begins a table; [`seal`] it when it is complete.
fn header(bytes: &mut Vec<u8>, signature: u64, size: u64) {
    put64(bytes, signature);
    bytes.extend_from_slice(&REVISION.to_le_bytes());
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    put64(bytes, 0); // CRC, and a reserved word
}

/// Fills in the CRC of a table whose bytes are complete.
fn seal(table: &mut [u8]) {
    let crc = crc32(table).to_le_bytes();
    if let Some(field) = table.get_mut(CRC) {
        field.copy_from_slice(&crc);
    }
}

/// Computes the CRC-32 of table headers (UEFI 2.10, 4.2: the polynomial of IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0xedb8_8320;
    const NIBBLES: [u32; 16] = {
        let (mut table, mut nibble) = ([0; 16], 0);
        while nibble < 16 {
            let (mut crc, mut bit) = (nibble as u32, 0);
            while bit < 4 {
                crc = (crc >> 1) ^ (REVERSED_POLYNOMIAL & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[nibble] = crc;
            nibble += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let crc = crc ^ u32::from(*byte);
        let half = |crc: u32| crc >> 4 ^ NIBBLES[(crc & 0xf) as usize];
        half(half(crc))
    })
}

/// Lays out a GUID in memory: three little-endian fields, then bytes in the order they are read (UEFI 2.10, appendix A).
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (
        a.to_le_bytes(),
        b.to_le_bytes(),
        c.to_le_bytes(),
        d.to_be_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        ACPI_20_GUID, CRC, RT_PROPERTIES_GUID, SMBIOS3_GUID, TABLES_SIZE, Tables, crc32, tables,
    };
    use alloc::vec::Vec;

    const NAMED: Tables = Tables {
        rsdp: 0x4001_2340,
        smbios: 0x4001_5670,
    };

    #[test]
    fn crc32_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn guids_as_a_kernel_compares_them() {
        assert_eq!(
            ACPI_20_GUID[..8],
            [0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11]
        );
        assert_eq!(ACPI_20_GUID[8..], *b"\xbc\x22\x00\x80\xc7\x3c\x88\x81");
        assert_eq!(
            RT_PROPERTIES_GUID[..8],
            [0x8a, 0x91, 0x66, 0xeb, 0xef, 0x7e, 0x2a, 0x40]
        );
        assert_eq!(
            RT_PROPERTIES_GUID[8..],
            *b"\x84\x2e\x93\x1d\x21\xc3\x8a\xe9"
        );
        assert_eq!(
            SMBIOS3_GUID,
            *b"\x44\x15\xfd\xf2\x94\x97\x2c\x4a\x99\x2e\xe5\xbb\xcf\x20\xe3\x94"
        );
    }

    /// Reads a 64-bit field.
    fn at(bytes: &[u8], offset: u64) -> u64 {
        let offset = offset as usize;
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn the_system_table_leads_everywhere() {
        let base = 0x4002_0000;
        let bytes = tables(base, 0x4003_0000, NAMED);
        assert_eq!(bytes.len() as u64, TABLES_SIZE);
        assert_eq!(&bytes[..8], b"IBI SYST");
        let vendor = (at(&bytes, 24) - base) as usize;
        let name: Vec<u16> = bytes[vendor..vendor + 16]
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        assert_eq!(name, "Bullpen\0".encode_utf16().collect::<Vec<u16>>());
        assert!(vendor + 200 <= bytes.len());
        assert_eq!(at(&bytes, 88), 0x4003_0000);
        assert_eq!(at(&bytes, 96), 0);
        assert_eq!(at(&bytes, 104), 3);
        let entries = at(&bytes, 112) - base;
        assert_eq!(at(&bytes, entries + 16), 0x4001_2340);
        assert_eq!(at(&bytes, entries + 64), 0x4001_5670);
        let properties = at(&bytes, entries + 40) - base;
        assert_eq!(at(&bytes, properties), (3 << 32) | (8 << 16) | 1);
    }

    #[test]
    fn the_system_table_crc_covers_its_header() {
        let mut header = tables(0x4002_0000, 0x4003_0000, NAMED);
        header.truncate(120);
        let crc = u32::from_le_bytes(header[CRC].try_into().unwrap());
        header[CRC].fill(0);
        assert_eq!(crc32(&header), crc);
    }
}
