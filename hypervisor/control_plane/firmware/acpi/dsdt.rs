//! DSDT: console, power button, every possible vCPU, and the event device that adds and removes them (ACPI 6.5, 5.2.11.1).
//!
//! The AML is stateless: it keeps nothing that the registers know better, so it survives kexec. Its register accesses are all
//! that a resize costs in traps: for an added vCPU one read of EVENT, one write of OST, and one read of STA each time the guest
//! asks for `_STA`; for a removed one the same, one write of EJECT, and a second of OST. MORE in EVENT saves the read that
//! would find nothing. From an event to its processor it is a binary search, with no register.
//!
//! What never changes stands here as the bytes that `acpi_tables` writes for it: `tests::aml` makes the same table with that
//! crate. Only packages that depend on the machine are put together here; a VM's start then costs little, and so does the image.

use alloc::vec::Vec;

use acpi_tables::AmlSink;

use super::super::{Error, Machine};
use super::table::Table;
use crate::hotplug as spec;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// At most this much AML for all that is in the table once, and for a vCPU.
const FIXED_SIZE: usize = 448;
const SPARE_VCPU_SIZE: usize = 144;

/// vCPUs per reopened scope: bounds what is copied while AML packages are nested.
const VCPUS_PER_SCOPE: u16 = 16;

/// Opcodes (ACPI 6.5, table 20.1).
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const SCOPE_OP: &[u8] = &[0x10];
const METHOD_OP: &[u8] = &[0x14];
const DEVICE_OP: &[u8] = &[0x5b, 0x82];
const ARG0_OP: u8 = 0x68;
const ARG1_OP: u8 = 0x69;
const NOTIFY_OP: u8 = 0x86;
const LESS_OP: u8 = 0x95;
const IF_OP: u8 = 0xa0;
const ELSE_OP: u8 = 0xa1;
const WHILE_OP: &[u8] = &[0xa2];

/// `Scope (_SB)` with COM0 (ARMH0011) up to its address, between its size and its interrupt, and from there on with PWRB
/// (PNP0C0C) and CPUS (ACPI0010); `_UID` is 0.
const DEVICES: [&[u8]; 3] = [
    b"\x10\x45\x07_SB_\x5b\x82\x3aCOM0\x08_HID\x0dARMH0011\0\x08_UID\0\x08_CRS\x11\x1a\x0a\x17\x86\x09\0\x01",
    b"\x89\x06\0\x01\x01",
    b"\x79\0\x5b\x82\x15PWRB\x08_HID\x0c\x41\xd0\x0c\x0c\x08_UID\0\x5b\x82\x1aCPUS\x08_HID\x0dACPI0010\0\x08_UID\0",
];

/// The path `_SB.CPUS`.
const CPUS: &[u8] = b"\x2e_SB_CPUS";

/// A processor between its name and its UID, and after the UID of one that runs from reset: `Name (_STA, 0x0F)`.
const PROCESSOR: &[u8] = b"\x08_HID\x0dACPI0007\0\x08_UID";
const ALWAYS_THERE: &[u8] = b"\x08_STA\x0a\x0f";

/// A processor in reserve between its UID and its registers' address, and after that:
///
/// `OperationRegion (REGS, SystemMemory, …, 0x10) Field (REGS, DWordAcc, NoLock, Preserve) { STAT, 32, EJCT, 32, OSTR, 32 }`
/// `Method (_STA) { Return (STAT) } Method (_EJ0, 1) { EJCT = One }`
/// `Method (_OST, 3) { OSTR = ((Arg0 & 0xFFFF) << 0x10) | (Arg1 & 0xFFFF) }`
const SPARE: [&[u8]; 2] = [
    b"\x5b\x80REGS\0\x0c",
    b"\x0a\x10\x5b\x81\x15REGS\x03STAT EJCT OSTR \x14\x0b_STA\0\xa4STAT\x14\x0c_EJ0\x01\x70\x01EJCT\x14\x1b_OST\x03\
      \x7d\x79\x7b\x68\x0b\xff\xff\0\x0a\x10\0\x7b\x69\x0b\xff\xff\0OSTR",
];

/// GED0 (ACPI0013) up to its interrupt, which is an edge, from there to its register's address, and from there to its method:
/// `Field (REGS, DWordAcc, NoLock, Preserve) { EVNT, 32 }`.
const EVENT_DEVICE: [&[u8]; 3] = [
    b"GED0\x08_HID\x0dACPI0013\0\x08_UID\0\x08_CRS\x11\x0e\x0a\x0b\x89\x06\0\x03\x01",
    b"\x79\0\x5b\x80REGS\0\x0c",
    b"\x0a\x04\x5b\x81\x0bREGS\x03EVNT ",
];
/// `Method (_EVT, 1, Serialized)`: `Local0 = MORE`, and in `While (Local0 & MORE)`: `Local0 = EVNT`; in `If (Local0 & VALID)` what
/// delivers the event.
const EVT: &[u8] = b"_EVT\x09\x70\x0c\0\0\0\x40\x60";
const WHILE_MORE: &[u8] = b"\x7b\x60\x0c\0\0\0\x40\0\x70EVNT\x60";
const IF_VALID: &[u8] = b"\x7b\x60\x0c\0\0\0\x80\0";
/// `Local1 = (Local0 >> 0x10) & 0xFF; If (Local1 == 0x80) { Notify (PWRB, 0x80) }`, and where there are processors
/// `Else { ^^CPUS.NTFY (Local0 & 0xFFFF, Local1) }`.
const DELIVER: [&[u8]; 2] = [
    b"\x7b\x7a\x60\x0a\x10\0\x0a\xff\x61\xa0\x0c\x93\x61\x0a\x80\x86PWRB\x0a\x80",
    b"\xa1\x13^^\x2eCPUSNTFY\x7b\x60\x0b\xff\xff\0\x61",
];
/// `NTFY`, with two arguments, serialized.
const NOTIFY_METHOD: &[u8] = b"NTFY\x0a";

/// Writes the DSDT.
pub(super) fn table(machine: &Machine<'_>) -> Result<Vec<u8>, Error> {
    let mut table = Table::new(*b"DSDT", REVISION, most(machine.max_vcpus));
    let (uart, hotplug) = (machine.layout.uart, machine.layout.hotplug);
    let registers = uart.registers;
    let word = |value: u64, region| u32::try_from(value).map_err(|_| Error::Layout(region));
    let base = word(registers.base.get(), registers)?.to_le_bytes();
    let size = word(registers.size, registers)?.to_le_bytes();
    let [to_address, to_interrupt, rest] = DEVICES;
    for part in [
        to_address,
        &base,
        &size,
        to_interrupt,
        &uart.intid.to_le_bytes(),
        rest,
    ] {
        table.vec(part);
    }
    let events = word(hotplug.registers.base.get(), hotplug.registers)?;
    processors(machine, events, &mut table);
    event_device(machine, events, &mut table);
    Ok(table.finish())
}

/// Returns how long the body can be at most, so that the table never moves while it grows.
const fn most(max_vcpus: u16) -> usize {
    FIXED_SIZE + max_vcpus as usize * SPARE_VCPU_SIZE
}

/// Writes the processor devices, some at a time, and the way to those that can have events.
fn processors(machine: &Machine<'_>, registers: u32, table: &mut Table) {
    let (boot, max) = (machine.boot_vcpus, machine.max_vcpus);
    let mut first = 0;
    let mut devices = Vec::new();
    while first < max {
        let next = max.min(first.saturating_add(VCPUS_PER_SCOPE));
        devices.clear();
        for index in first..next {
            processor(index, (index >= boot).then_some(registers), &mut devices);
        }
        package(SCOPE_OP, &[CPUS, &devices], table);
        first = next;
    }
    if boot < max {
        let (mut search, mut method) = (Vec::new(), Vec::new());
        let (first, end) = (boot, max);
        Search { first, end }.write(&mut search);
        search.reverse();
        package(METHOD_OP, &[NOTIFY_METHOD, &search], &mut method);
        package(SCOPE_OP, &[CPUS, &method], table);
    }
}

/// Writes the device of one possible vCPU; one in reserve at boot, which can be added and removed, has registers in the block.
fn processor(index: u16, block: Option<u32>, to: &mut Vec<u8>) {
    let (name, (uid, length)) = (processor_name(index), integer(index));
    let uid = uid.get(..length).unwrap_or(&uid);
    let Some(block) = block else {
        return package(DEVICE_OP, &[&name, PROCESSOR, uid, ALWAYS_THERE], to);
    };
    let frame = block
        .wrapping_add(spec::FRAMES as u32)
        .wrapping_add(u32::from(index) * spec::FRAME_BYTES as u32)
        .to_le_bytes();
    let [to_address, rest] = SPARE;
    package(
        DEVICE_OP,
        &[&name, PROCESSOR, uid, to_address, &frame, rest],
        to,
    );
}

/// Names the device of a vCPU: three hexadecimal digits after a C.
fn processor_name(index: u16) -> [u8; 4] {
    let digit = |shift: u16| match (index >> shift & 0xf) as u8 {
        low @ 0..=9 => b'0' + low,
        high => b'A' - 10 + high,
    };
    [b'C', digit(8), digit(4), digit(0)]
}

/// Returns an integer as AML and how many bytes it has: 0 and 1 are opcodes of their own (ACPI 6.5, 20.2.3).
const fn integer(value: u16) -> ([u8; 3], usize) {
    let [low, high] = value.to_le_bytes();
    match value {
        0 | 1 => ([low, 0, 0], 1),
        2..=0xff => ([BYTE_PREFIX, low, 0], 2),
        _ => ([WORD_PREFIX, low, high], 3),
    }
}

/// Writes the event device, whose interrupt says that there are events.
fn event_device(machine: &Machine<'_>, registers: u32, table: &mut Table) {
    let [power_button, processors] = DELIVER;
    let processors = if machine.boot_vcpus < machine.max_vcpus {
        processors
    } else {
        &[]
    };
    let intid = machine.layout.hotplug.intid.to_le_bytes();
    let [to_interrupt, to_address, rest] = EVENT_DEVICE;
    let registers = registers.to_le_bytes();
    let device = [to_interrupt, &intid, to_address, &registers, rest];
    let packages: [(&[u8], &[&[u8]]); 5] = [
        (&[IF_OP], &[IF_VALID, power_button, processors]),
        (WHILE_OP, &[WHILE_MORE]),
        (METHOD_OP, &[EVT]),
        (DEVICE_OP, &device),
        (SCOPE_OP, &[b"_SB_"]),
    ];
    // From the innermost outwards.
    let mut inner = Vec::new();
    for (op, parts) in packages {
        let head = parts.concat();
        let mut outer = Vec::new();
        package(op, &[&head, &inner], &mut outer);
        inner = outer;
    }
    table.vec(&inner);
}

/// Writes an opcode and its package (ACPI 6.5, 20.2.4, PkgLength).
fn package(op: &[u8], parts: &[&[u8]], to: &mut impl AmlSink) {
    let body = parts.iter().map(|part| part.len()).sum();
    let (lead, more) = length(body);
    to.vec(op);
    to.byte(lead);
    to.vec(more.1.get(..more.0).unwrap_or(&[]));
    for part in parts {
        to.vec(part);
    }
}

/// Returns the length of a package with so long a body, itself included: its first byte, and how many follow.
fn length(body: usize) -> (u8, (usize, [u8; 2])) {
    let more = usize::from(body >= 0x3f) + usize::from(body >= 0xffe);
    let length = body + 1 + more;
    let lead = match more {
        0 => length as u8,
        _ => (more as u8) << 6 | length as u8 & 0xf,
    };
    (lead, (more, [(length >> 4) as u8, (length >> 12) as u8]))
}

/// A binary search for the processor whose UID is Arg0, which is then notified of Arg1.
struct Search {
    first: u16,
    /// One past the last; always greater than `first`.
    end: u16,
}

impl Search {
    /// Writes it from its end to its beginning, so that each package knows its length (ACPI 6.5, 20.2.5.2, 20.2.5.3).
    fn write(&self, out: &mut Vec<u8>) {
        let Self { first, end } = *self;
        let middle = first.saturating_add(end.saturating_sub(first) / 2);
        if middle == first {
            let [c, x, y, z] = processor_name(first);
            return out.extend_from_slice(&[ARG1_OP, z, y, x, c, NOTIFY_OP]);
        }
        let start = out.len();
        Self { first: middle, end }.write(out);
        end_package(ELSE_OP, start, out);
        let start = out.len();
        Self { first, end: middle }.write(out);
        let (integer, length) = integer(middle);
        out.extend(integer.iter().take(length).rev());
        out.extend_from_slice(&[ARG0_OP, LESS_OP]);
        end_package(IF_OP, start, out);
    }
}

/// Ends, at its beginning, a package that was written backwards from `start` on.
fn end_package(op: u8, start: usize, out: &mut Vec<u8>) {
    let (lead, (more, bytes)) = length(out.len() - start);
    out.extend(bytes.iter().take(more).rev());
    out.extend_from_slice(&[lead, op]);
}

#[cfg(test)]
mod tests {
    use super::super::table::HEADER_SIZE;
    use super::most;
    use crate::firmware::Firmware;
    use crate::firmware::tests::{blob, described};

    #[test]
    fn the_table_never_outgrows_its_room() {
        for (boot, max) in [
            (1, 1),
            (1, 2),
            (2, 8),
            (1, 64),
            (1, 512),
            (256, 512),
            (512, 512),
        ] {
            let length = blob(&described(boot, max, Firmware::Acpi), "DSDT")
                .bytes
                .len();
            let room = HEADER_SIZE + most(max);
            assert!(
                length <= room,
                "{boot} of {max} vCPUs: {length} bytes in {room}"
            );
            assert!(
                length > room / 2 || boot > max / 2,
                "{boot} of {max} vCPUs: {length} bytes in {room}"
            );
        }
    }
}
