//! DSDT: console, power button, every possible vCPU, and the event device that adds and removes them (ACPI 6.5, 5.2.11.1).
//!
//! The AML is stateless: it keeps nothing that the registers know better, so it survives kexec. Its register accesses are all
//! that a resize costs in traps: for an added vCPU one read of EVENT, one write of OST, and one read of STA each time the guest
//! asks for `_STA`; for a removed one the same, one write of EJECT, and a second of OST. MORE in EVENT saves the read that
//! would find nothing. From an event to its processor it is a binary search, with no register.
//!
//! What never changes is made by `build/aml.rs` while Bullpen is built, with `acpi_tables`. Here its holes are filled, and the packages whose
//! length depends on the machine are put around it: a VM's start then costs little, and so does the image.

use alloc::vec::Vec;

use acpi_tables::AmlSink;

use super::super::{Error, Machine};
use super::table::Table;
use types::devices::{Acpi, DeviceId, Row};
use types::hotplug as spec;
use types::layout::DeviceSlot;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// At most this much AML for all that is in the table once, and for a vCPU.
const FIXED_SIZE: usize = 448;
const SPARE_VCPU_SIZE: usize = 144;
/// And for a slot of a device that has several.
const SLOT_SIZE: usize = 80;

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

/// Name and flags of the method that notifies a processor: two arguments, serialized (ACPI 6.5, 20.2.5.2).
const NOTIFY_METHOD: &[u8] = b"NTFY\x0a";

/// What `build/main.rs` makes.
mod aml {
    include!(concat!(env!("OUT_DIR"), "/aml.rs"));
}

/// Writes the DSDT.
pub(super) fn table(machine: &Machine<'_>) -> Result<Vec<u8>, Error> {
    let room = most(machine.max_vcpus) + usize::from(machine.slots) * SLOT_SIZE;
    let mut table = Table::new(*b"DSDT", REVISION, room);
    let word = |value: u64, region| u32::try_from(value).map_err(|_| Error::Layout(region));
    let mut devices = Vec::new();
    for id in DeviceId::ALL {
        for (number, slot) in (0..).zip(machine.windows(id)) {
            let DeviceSlot { registers, intid } = slot;
            let base = word(registers.base.get(), registers)?;
            let size = word(registers.size, registers)?;
            device(id.row(), number, [base, size, intid], &mut devices);
        }
    }
    let ([scope], [fixed]) = (aml::SYSTEM_BUS, aml::FIXED_DEVICES);
    package(SCOPE_OP, &[scope, &devices, fixed], &mut table);
    let hotplug = machine.layout.device(DeviceId::Hotplug);
    let events = word(hotplug.registers.base.get(), hotplug.registers)?;
    processors(machine, events, &mut table);
    let device = if machine.boot_vcpus < machine.max_vcpus {
        aml::EVENT_DEVICE
    } else {
        aml::POWER_BUTTON_DEVICE
    };
    fill(device, [hotplug.intid, events], &mut table);
    Ok(table.finish())
}

/// Writes a device that has these registers and this interrupt, and this number among its kind.
fn device(row: &Row, number: u16, numbers: [u32; 3], to: &mut Vec<u8>) {
    let (name, hid) = match row.acpi {
        Some(Acpi::Device { name, hid }) => (name, hid),
        Some(Acpi::Slots { name: [a, b], hid }) => ([a, b, digit(number >> 4), digit(number)], hid),
        Some(Acpi::Events) | None => return,
    };
    let ([hid_is, end], [uid]) = (aml::HARDWARE_ID, aml::NUMBER);
    let (number, length) = integer(number);
    let mut rest = Vec::new();
    if row.is_master {
        // Linux takes no device on Arm for coherent that does not say so (ACPI 6.5, 6.2.17).
        fill(aml::COHERENT, [], &mut rest);
    }
    fill(aml::RESOURCES, numbers, &mut rest);
    let number = number.get(..length).unwrap_or(&number);
    let parts: [&[u8]; 7] = [&name, hid_is, &hid, end, uid, number, &rest];
    package(DEVICE_OP, &parts, to);
}

/// Returns how long the body can be at most, so that the table never moves while it grows.
const fn most(max_vcpus: u16) -> usize {
    FIXED_SIZE + max_vcpus as usize * SPARE_VCPU_SIZE
}

/// Writes the processor devices, some at a time, and the way to those that can have events. One in reserve at boot, which can be added
/// and removed, has registers in the block.
fn processors(machine: &Machine<'_>, registers: u32, table: &mut Table) {
    let (boot, max) = (machine.boot_vcpus, machine.max_vcpus);
    let mut first = 0;
    let [cpus] = aml::CPUS;
    let (mut rest, mut devices) = (Vec::new(), Vec::new());
    while first < max {
        let next = max.min(first.saturating_add(VCPUS_PER_SCOPE));
        devices.clear();
        for index in first..next {
            rest.clear();
            if index < boot {
                fill(aml::BOOT_PROCESSOR, [], &mut rest);
            } else {
                fill(aml::SPARE_PROCESSOR, [frame(registers, index)], &mut rest);
            }
            processor(index, &rest, &mut devices);
        }
        package(SCOPE_OP, &[cpus, &devices], table);
        first = next;
    }
    if boot < max {
        let (mut search, mut method) = (Vec::new(), Vec::new());
        let (first, end) = (boot, max);
        Search { first, end }.write(&mut search);
        search.reverse();
        package(METHOD_OP, &[NOTIFY_METHOD, &search], &mut method);
        package(SCOPE_OP, &[cpus, &method], table);
    }
}

/// Returns where the registers of a vCPU are in the block.
fn frame(block: u32, index: u16) -> u32 {
    block
        .wrapping_add(spec::FRAMES as u32)
        .wrapping_add(u32::from(index) * spec::FRAME_BYTES as u32)
}

/// Writes the device of one possible vCPU.
fn processor(index: u16, rest: &[u8], to: &mut Vec<u8>) {
    let (name, (uid, length)) = (processor_name(index), integer(index));
    let uid = uid.get(..length).unwrap_or(&uid);
    let [processor] = aml::PROCESSOR;
    package(DEVICE_OP, &[&name, processor, uid, rest], to);
}

/// Names the device of a vCPU: three hexadecimal digits after a C.
fn processor_name(index: u16) -> [u8; 4] {
    [b'C', digit(index >> 8), digit(index >> 4), digit(index)]
}

/// Returns the lowest hexadecimal digit of a number.
const fn digit(number: u16) -> u8 {
    match (number & 0xf) as u8 {
        low @ 0..=9 => b'0' + low,
        high => b'A' - 10 + high,
    }
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

/// Writes a template with these numbers in its holes.
fn fill<const PARTS: usize, const HOLES: usize>(
    template: [&[u8]; PARTS],
    holes: [u32; HOLES],
    to: &mut impl AmlSink,
) {
    const { assert!(PARTS == HOLES + 1) };
    let mut holes = holes.iter();
    for part in template {
        to.vec(part);
        if let Some(number) = holes.next() {
            to.vec(&number.to_le_bytes());
        }
    }
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
