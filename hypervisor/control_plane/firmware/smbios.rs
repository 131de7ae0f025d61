//! SMBIOS: the maker of this machine, what it is called, and what is in it (DSP0134 3.5, "SMBIOS" below).
//!
//! The entry point and the structures behind it are one blob. Nothing in it is another hypervisor's: the BIOS information says that
//! this is a virtual machine, and all names are ours.

use alloc::format;
use alloc::vec::Vec;

use super::writer::Writer;
use super::{Error, Machine};

/// Version of the specification that the structures are of.
const VERSION: [u8; 2] = [3, 5];

/// The entry point (SMBIOS 5.2.2), and where the structures begin behind it.
const ENTRY_POINT_SIZE: u8 = 24;
const STRUCTURES: u64 = 32;
const ENTRY_POINT_REVISION: u8 = 1;
/// Offset of the checksum.
const CHECKSUM: usize = 5;
/// A structure's type, length and handle.
const HEADER_SIZE: usize = 4;
const ALIGNMENT: u64 = 16;

/// Types of structures (SMBIOS 6.1), each the handle of its first too.
const FIRMWARE: u8 = 0;
const SYSTEM: u8 = 1;
const CHASSIS: u8 = 3;
const PROCESSOR: u8 = 4;
const MEMORY_ARRAY: u8 = 16;
const MEMORY_DEVICE: u8 = 17;
const MEMORY_RANGE: u8 = 19;
const BOOT: u8 = 32;
const END: u8 = 127;

/// Its maker, and what it is.
const MANUFACTURER: &str = "Bullpen";
const PRODUCT: &str = "Bullpen virtual machine";
const PROCESSOR_PRODUCT: &str = "Bullpen virtual CPU";
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// When what firmware tells was last changed: months, days, year.
const RELEASE_DATE: &str = "11/29/2026";

/// Firmware characteristics (SMBIOS 7.1.1): not told; in the extension bytes, ACPI and UEFI are there, and it is a virtual machine.
const NO_CHARACTERISTICS: u8 = 1 << 3;
const HAS_ACPI: u8 = 1 << 0;
const IS_UEFI: u8 = 1 << 3;
const IS_VIRTUAL: u8 = 1 << 4;
/// A release that is not told.
const NO_RELEASE: u8 = 0xff;

/// Words for "other", "safe" and "none" in several enumerations (SMBIOS 7.2.2, 7.4, 7.5, 7.17, 7.18).
const OTHER: u8 = 1;
const SAFE: u8 = 3;
const NONE: u8 = 3;
const POWER_SWITCH: u8 = 6;

/// Firmware information (SMBIOS 7.1): vendor and version; no segment of real mode; the date; no ROM of its own, the smallest size
/// there is; characteristics; releases of the system's and of an embedded controller's firmware; the ROM's extended size.
const FIRMWARE_FIELDS: [u8; 22] = [
    1,
    2,
    0,
    0,
    3,
    0,
    NO_CHARACTERISTICS,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    HAS_ACPI,
    IS_UEFI | IS_VIRTUAL,
    NO_RELEASE,
    NO_RELEASE,
    NO_RELEASE,
    NO_RELEASE,
    0,
    0,
];

/// The chassis (SMBIOS 7.4): manufacturer, kind, version, serial number; no asset tag; boot-up, power supply and thermal state;
/// security; nothing of an OEM's; height, power cords, contained elements and the length of one; no SKU number.
const CHASSIS_FIELDS: [u8; 18] = [
    1, OTHER, 3, 4, 0, SAFE, SAFE, SAFE, NONE, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// A processor (SMBIOS 7.5): of an own family, populated and enabled or idle.
const CENTRAL_PROCESSOR: u8 = 3;
const SEE_FAMILY_2: u8 = 0xfe;
const FAMILY_ARMV8: u16 = 0x101;
const POPULATED: u8 = 1 << 6;
const ENABLED: u8 = 1;
const IDLE: u8 = 4;
/// Processor characteristics (SMBIOS 7.5.9).
const IS_64_BIT: u16 = 1 << 2;
const IS_MULTI_CORE: u16 = 1 << 3;
const HAS_THREADS: u16 = 1 << 4;
const CAN_PROTECT_EXECUTION: u16 = 1 << 5;

/// Memory (SMBIOS 7.17, 7.18, 7.20): sizes and units are KiB in the array and the range, MiB in the device.
const SYSTEM_BOARD: u8 = 3;
const SYSTEM_MEMORY: u8 = 3;
const EXTENDED_SIZE: u16 = 0x7fff;
const TYPE_RAM: u8 = 7;
const DETAIL_OTHER: u8 = 1 << 1;
const VOLATILE_MODE: u8 = 1 << 3;

/// The memory device between its two sizes (SMBIOS 7.18): form factor, no set, locator, no bank; type; no speed; manufacturer; no
/// serial number, asset tag, part number or rank.
const DEVICE_FIELDS: [u8; 14] = [
    OTHER,
    0,
    1,
    0,
    TYPE_RAM,
    DETAIL_OTHER,
    0,
    0,
    0,
    2,
    0,
    0,
    0,
    0,
];
/// Behind the second: configured speed, voltages; technology; mode; firmware's version, manufacturers and products of the module and
/// its controller; how much is not volatile.
const DEVICE_MORE_FIELDS: [u8; 28] = [
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    OTHER,
    VOLATILE_MODE,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
];

/// Structures under construction.
struct Structures(Vec<u8>);

/// Handles are numbers of our own: the type, and which of its kind.
const fn handle(kind: u8, index: u8) -> u16 {
    (kind as u16) << 8 | index as u16
}

impl Structures {
    /// Writes the structure of a type that is number `index` of its kind: what follows its header, in parts, and its strings, which
    /// fields name by number from 1 on. Behind the last string is a NUL more, and two where there is none (SMBIOS 6.1.3).
    #[inline(never)]
    fn add(&mut self, kind: u8, index: u8, parts: &[&[u8]], strings: &[&str]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let [low, high] = handle(kind, index).to_le_bytes();
        let header = [kind, (length + HEADER_SIZE) as u8, low, high];
        self.0.extend_from_slice(&header);
        for part in parts {
            self.0.extend_from_slice(part);
        }
        for text in strings {
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(0);
        }
        if strings.is_empty() {
            self.0.push(0);
        }
        self.0.push(0);
    }
}

/// Writes all of it, and returns where the entry point is.
pub(super) fn write(machine: &Machine<'_>, writer: &mut Writer<'_>) -> Result<u64, Error> {
    let mut bytes = Vec::with_capacity(1024);
    bytes.resize(STRUCTURES as usize, 0);
    let mut table = Structures(bytes);
    let uuid = format!("{}", machine.uuid);
    let names = [MANUFACTURER, PRODUCT, BUILD, uuid.as_str()];
    table.add(
        FIRMWARE,
        0,
        &[&FIRMWARE_FIELDS],
        &[MANUFACTURER, BUILD, RELEASE_DATE],
    );
    let own = machine.uuid.to_le_bytes();
    table.add(
        SYSTEM,
        0,
        &[&[1, 2, 3, 4], &own, &[POWER_SWITCH, 0, 2]],
        &names,
    );
    table.add(CHASSIS, 0, &[&CHASSIS_FIELDS], &names);
    for package in 0..machine.topology.packages {
        processor(&mut table, machine, package);
    }
    memory(&mut table, machine);
    // Reserved, and no error at the last boot (SMBIOS 7.33).
    table.add(BOOT, 0, &[&[0; 7]], &[]);
    table.add(END, 0, &[], &[]);

    let Structures(mut bytes) = table;
    let at = writer.reserve(bytes.len() as u64, ALIGNMENT)?;
    let size = bytes.len().saturating_sub(STRUCTURES as usize) as u32;
    let entry = entry_point(at.saturating_add(STRUCTURES), size);
    if let Some(head) = bytes.first_chunk_mut() {
        *head = entry;
    }
    writer.put(at, bytes, "SMBIOS")?;
    Ok(at)
}

/// Writes the entry point of `size` bytes of structures at `address`.
fn entry_point(address: u64, size: u32) -> [u8; ENTRY_POINT_SIZE as usize] {
    let mut bytes = [0; ENTRY_POINT_SIZE as usize];
    let [major, minor] = VERSION;
    let head = [
        b'_',
        b'S',
        b'M',
        b'3',
        b'_',
        0,
        ENTRY_POINT_SIZE,
        major,
        minor,
        0,
        ENTRY_POINT_REVISION,
        0,
    ];
    let parts = head.into_iter().chain(size.to_le_bytes());
    for (byte, value) in bytes.iter_mut().zip(parts.chain(address.to_le_bytes())) {
        *byte = value;
    }
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(CHECKSUM) {
        *checksum = 0_u8.wrapping_sub(sum);
    }
    bytes
}

/// One package (SMBIOS 7.5).
fn processor(table: &mut Structures, machine: &Machine<'_>, package: u16) {
    let topology = machine.topology;
    let (cores, threads) = (topology.package_cores(), topology.threads);
    let vcpus = cores.saturating_mul(threads);
    let first = package.saturating_mul(vcpus);
    let enabled = machine.boot_vcpus.saturating_sub(first).min(vcpus);
    let state = POPULATED | if enabled == 0 { IDLE } else { ENABLED };
    let more = if cores > 1 { IS_MULTI_CORE } else { 0 };
    let threaded = if threads > 1 { HAS_THREADS } else { 0 };
    let kind = IS_64_BIT | CAN_PROTECT_EXECUTION | more | threaded;
    let counts = [cores, enabled.div_ceil(threads.max(1)), vcpus];
    let mut words = [[0; 2]; 5];
    for (word, value) in words
        .iter_mut()
        .zip([kind, FAMILY_ARMV8].iter().chain(&counts))
    {
        *word = value.to_le_bytes();
    }
    // Without SMCCC_ARCH_SOC_ID the processor ID is MIDR_EL1 (SMBIOS 7.5.3.3).
    let id = (machine.cpu.midr & u64::from(u32::MAX)).to_le_bytes();
    let bytes = counts.map(|count| count.min(0xff) as u8);
    table.add(
        PROCESSOR,
        package as u8,
        &[
            &[1, CENTRAL_PROCESSOR, SEE_FAMILY_2, 2],
            &id,
            // Its product; no voltage, clock or speeds are told.
            &[3, 0, 0, 0, 0, 0, 0, 0],
            // How it is upgraded; no cache structures; no serial number, asset tag or part number.
            &[state, OTHER, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0],
            &bytes,
            words.as_flattened(),
        ],
        &[&format!("CPU {package}"), MANUFACTURER, PROCESSOR_PRODUCT],
    );
}

/// The memory array, its one device, and where it is (SMBIOS 7.17, 7.18, 7.20).
fn memory(table: &mut Structures, machine: &Machine<'_>) {
    let sizes = machine.memory.iter().map(|bank| bank.size);
    let size = sizes.fold(0, u64::saturating_add);
    let kib = ((size >> 10) as u32).to_le_bytes();
    table.add(
        MEMORY_ARRAY,
        0,
        // No error correction, no error information, one device; the capacity needs no larger field.
        &[
            &[SYSTEM_BOARD, SYSTEM_MEMORY, NONE],
            &kib,
            &[0xfe, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ],
        &[],
    );
    let mib = (size >> 20) as u32;
    let (small, large) = match u16::try_from(mib) {
        Ok(small) if small < EXTENDED_SIZE => (small, 0),
        _ => (EXTENDED_SIZE, mib),
    };
    let array = handle(MEMORY_ARRAY, 0).to_le_bytes();
    table.add(
        MEMORY_DEVICE,
        0,
        &[
            &array,
            // No error information; widths that are not known.
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff],
            &small.to_le_bytes(),
            &DEVICE_FIELDS,
            &large.to_le_bytes(),
            &DEVICE_MORE_FIELDS,
            &size.to_le_bytes(),
            // Size of a cache, logical size; extended speeds.
            &[0; 24],
        ],
        &["RAM 0", MANUFACTURER],
    );
    for (index, bank) in machine.memory.iter().enumerate() {
        let base = bank.base.get();
        let last = base.saturating_add(bank.size.saturating_sub(1));
        let [first, last] = [base, last].map(|address| ((address >> 10) as u32).to_le_bytes());
        // One device in a row. A guest's address space is far below what needs the larger fields, 4 TiB.
        let rest: [u8; 17] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        table.add(
            MEMORY_RANGE,
            index as u8,
            &[&first, &last, &array, &rest],
            &[],
        );
    }
}
