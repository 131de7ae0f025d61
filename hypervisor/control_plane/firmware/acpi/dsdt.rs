//! DSDT: console, power button, every possible vCPU and memory slot, and the event device that adds and removes them
//! (ACPI 6.5, 5.2.11.1; memory devices 9.11).
//!
//! The AML is stateless: it keeps nothing that the registers know better, so it survives kexec. Its register accesses are all
//! that a resize costs in traps: for an added vCPU one read of EVENT, one write of OST, and one read of STA each time the guest
//! asks for `_STA`; for a removed one the same, one write of EJECT, and a second of OST. MORE in EVENT saves the read that
//! would find nothing. From an event to its processor it is a binary search, with no register.
//!
//! What never changes is made by `build/aml.rs` while Bullpen is built, with `acpi_tables`. Here its holes are filled, and the packages whose
//! length depends on the machine are put around it: a VM's start then costs little, and so does the image.

use alloc::vec::Vec;
use core::ops::Range;

use acpi_tables::AmlSink;

use super::super::{Error, Machine};
use types::devices::{Acpi, DeviceId, Row};
use types::hotplug as spec;
use types::layout::{DeviceSlot, Region};

/// Revision 2: integers have 64 bits.
pub(super) const REVISION: u8 = 2;

/// vCPUs in a scope, of which so many are added at a time, and about how long a scope is.
const VCPUS_A_SCOPE: u16 = 16;
const VCPUS_AT_A_TIME: u16 = 4;
const SCOPE_SIZE: usize = 16 * DEVICE_SIZE;
const DEVICE_SIZE: usize = 144;
/// Memory slots that are added at a time, in a scope of their own, and about how much AML each is.
const SLOTS_AT_A_TIME: u16 = 4;
const SLOT_SIZE: usize = 208;
/// Processors or slots that a search finds, of which so many are added at a time, and at most so much AML for each.
const FOUND_AT_A_TIME: usize = 8;
const FOUND_SIZE: usize = 19;
/// Bytes of the search in a piece.
const SEARCH_PIECE: usize = 512;

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

/// The table's body, as far as it is written.
#[derive(Clone, Debug, Default)]
pub(super) enum Body {
    #[default]
    Devices,
    /// The processors from here on; the devices of those before in the same scope are made.
    Processors(u16, Vec<u8>),
    /// The memory slots from here on.
    Slots(u16),
    /// The way to those that can have events is being made.
    Search(Kind, Search),
    /// It is made, in AML from its end to its beginning, and `begun` to be written.
    Found {
        kind: Kind,
        search: Vec<u8>,
        begun: bool,
    },
    Events,
    Done,
}

/// What comes and goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Processor,
    Memory,
}

impl Kind {
    /// Returns the path of the container.
    const fn path(self) -> &'static [u8] {
        let [path] = match self {
            Self::Processor => aml::CPUS,
            Self::Memory => aml::MEMORY,
        };
        path
    }

    /// Names a device: three hexadecimal digits after a letter.
    fn name(self, index: u16) -> [u8; 4] {
        let letter = match self {
            Self::Processor => b'C',
            Self::Memory => b'M',
        };
        [letter, digit(index >> 8), digit(index >> 4), digit(index)]
    }
}

impl Body {
    /// Makes the next piece, if there is one more; an empty one if it is not complete.
    pub(super) fn piece(&mut self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, Error> {
        let (boot, max) = (machine.boot_vcpus, machine.max_vcpus);
        let slots = machine.layout.slots.count;
        let mut piece = Vec::new();
        *self = match core::mem::take(self) {
            Self::Devices => {
                devices(machine, &mut piece)?;
                Self::Processors(0, Vec::with_capacity(SCOPE_SIZE))
            }
            Self::Processors(first, mut made) if first < max => {
                let end = max.min(first.saturating_add(VCPUS_AT_A_TIME));
                let registers = events(machine)?;
                (first..end).for_each(|index| processor(index, boot, registers, &mut made));
                if end == max || end.is_multiple_of(VCPUS_A_SCOPE) {
                    let [cpus] = aml::CPUS;
                    package(SCOPE_OP, &[cpus, &made], &mut piece);
                    made.clear();
                }
                Self::Processors(end, made)
            }
            Self::Processors(..) if boot < max => {
                Self::Search(Kind::Processor, Search::new(Kind::Processor, boot, max))
            }
            Self::Processors(..) => Self::Slots(0),
            Self::Slots(first) if first < slots => {
                let end = slots.min(first.saturating_add(SLOTS_AT_A_TIME));
                memory(machine, first..end, &mut piece)?;
                Self::Slots(end)
            }
            Self::Slots(0) => Self::Events,
            Self::Slots(_) => Self::Search(Kind::Memory, Search::new(Kind::Memory, 0, slots)),
            Self::Search(kind, search) => match search.go_on() {
                Ok(search) => Self::Search(kind, search),
                Err(search) => Self::Found {
                    kind,
                    search,
                    begun: false,
                },
            },
            Self::Found {
                kind,
                search,
                begun,
            } => found(kind, search, begun, &mut piece),
            Self::Events => {
                event_device(machine, &mut piece)?;
                Self::Done
            }
            Self::Done => return Ok(None),
        };
        Ok(Some(piece))
    }
}

/// Writes the next of a search that is made, from its end to its beginning; returns what follows.
fn found(kind: Kind, mut search: Vec<u8>, begun: bool, piece: &mut Vec<u8>) -> Body {
    if !begun {
        begin_search(kind, search.len(), piece);
    } else if search.is_empty() {
        return match kind {
            Kind::Processor => Body::Slots(0),
            Kind::Memory => Body::Events,
        };
    } else {
        *piece = search.split_off(search.len().saturating_sub(SEARCH_PIECE));
        piece.reverse();
    }
    Body::Found {
        kind,
        search,
        begun: true,
    }
}

/// Returns an address or a size as the table can have it.
fn word(value: u64, region: Region) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| Error::Layout(region))
}

/// Returns where the block's registers are.
fn events(machine: &Machine<'_>) -> Result<u32, Error> {
    let registers = machine.layout.device(DeviceId::Hotplug).registers;
    word(registers.base.get(), registers)
}

/// Writes the devices that are there once, and those that have slots.
fn devices(machine: &Machine<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
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
    package(SCOPE_OP, &[scope, &devices, fixed], to);
    Ok(())
}

/// Writes the device that has the events.
fn event_device(machine: &Machine<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
    let has_spares = machine.boot_vcpus < machine.max_vcpus;
    let device = match (has_spares, machine.layout.slots.count != 0) {
        (true, false) => aml::EVENTS_OF_PROCESSORS,
        (false, true) => aml::EVENTS_OF_MEMORY,
        (true, true) => aml::EVENTS_OF_BOTH,
        (false, false) => aml::POWER_BUTTON_DEVICE,
    };
    let intid = machine.layout.device(DeviceId::Hotplug).intid;
    fill(device, [intid, events(machine)?], to);
    Ok(())
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

/// Writes the beginning of the method that notifies a processor, which goes on with a search of so many bytes.
fn begin_search(kind: Kind, search: usize, to: &mut Vec<u8>) {
    let path = kind.path();
    let mut method = Vec::new();
    begin_package(METHOD_OP, NOTIFY_METHOD.len() + search, &mut method);
    method.extend_from_slice(NOTIFY_METHOD);
    begin_package(SCOPE_OP, path.len() + method.len() + search, to);
    to.extend_from_slice(path);
    to.extend_from_slice(&method);
}

/// Returns where the registers of a vCPU or a memory slot are in the block, those of the first at an offset.
fn frame(block: u32, first: u64, index: u16) -> u32 {
    block
        .wrapping_add(first as u32)
        .wrapping_add(u32::from(index) * spec::FRAME_BYTES as u32)
}

/// Writes the devices of some memory slots, the first with their container.
fn memory(machine: &Machine<'_>, slots: Range<u16>, to: &mut Vec<u8>) -> Result<(), Error> {
    let block = events(machine)?;
    if slots.start == 0 {
        let ([scope], [container]) = (aml::SYSTEM_BUS, aml::MEMORY_CONTAINER);
        package(SCOPE_OP, &[scope, container], to);
    }
    let mut devices = Vec::with_capacity(SLOTS_AT_A_TIME as usize * SLOT_SIZE);
    for slot in slots {
        let Region { base, size } = machine.layout.slots.window(slot);
        let (first, last) = (base.get(), base.get().wrapping_add(size).wrapping_sub(1));
        let halves = [first, first >> 32, last, last >> 32, size].map(|half| half as u32);
        let [low, high, last, last_high, length] = halves;
        let registers = frame(block, spec::SLOT_FRAMES, slot);
        let mut rest = Vec::with_capacity(SLOT_SIZE);
        let holes = [low, high, last, last_high, length, registers];
        fill(aml::MEMORY_SLOT, holes, &mut rest);
        let (name, (uid, length)) = (Kind::Memory.name(slot), integer(slot));
        let uid = uid.get(..length).unwrap_or(&uid);
        let ([id], [number]) = (aml::MEMORY_ID, aml::NUMBER);
        package(DEVICE_OP, &[&name, id, number, uid, &rest], &mut devices);
    }
    package(SCOPE_OP, &[Kind::Memory.path(), &devices], to);
    Ok(())
}

/// Writes the device of one possible vCPU. One in reserve at boot, which can be added and removed, has registers in the block.
fn processor(index: u16, boot: u16, registers: u32, to: &mut Vec<u8>) {
    let mut rest = Vec::with_capacity(DEVICE_SIZE);
    if index < boot {
        fill(aml::BOOT_PROCESSOR, [], &mut rest);
    } else {
        fill(
            aml::SPARE_PROCESSOR,
            [frame(registers, spec::FRAMES, index)],
            &mut rest,
        );
    }
    let (name, (uid, length)) = (Kind::Processor.name(index), integer(index));
    let uid = uid.get(..length).unwrap_or(&uid);
    let [processor] = aml::PROCESSOR;
    package(DEVICE_OP, &[&name, processor, uid, &rest], to);
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
    begin_package(op, parts.iter().map(|part| part.len()).sum(), to);
    for part in parts {
        to.vec(part);
    }
}

/// Writes an opcode and how long its package is, whose body has so many bytes.
fn begin_package(op: &[u8], body: usize, to: &mut impl AmlSink) {
    let (lead, more) = length(body);
    to.vec(op);
    to.byte(lead);
    to.vec(more.1.get(..more.0).unwrap_or(&[]));
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

/// A binary search for the processor or memory slot whose UID is Arg0, which is then notified of Arg1.
///
/// It is written from its end to its beginning, so that each package knows its length (ACPI 6.5, 20.2.5.2, 20.2.5.3).
#[derive(Clone, Debug)]
pub(super) struct Search {
    kind: Kind,
    /// What remains, last first.
    steps: Vec<Step>,
    out: Vec<u8>,
}

/// A step of writing a search.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The search among the processors from `first` up to `end`, which is greater.
    Among { first: u16, end: u16 },
    /// The end of what is done from the middle on, which was written from `start` on, then what is done below.
    Else {
        start: usize,
        first: u16,
        middle: u16,
    },
    /// The end of what is done below the middle.
    If { start: usize, middle: u16 },
}

impl Search {
    fn new(kind: Kind, first: u16, end: u16) -> Self {
        let count = usize::from(end.saturating_sub(first));
        Self {
            kind,
            steps: alloc::vec![Step::Among { first, end }],
            out: Vec::with_capacity(count * FOUND_SIZE),
        }
    }

    /// Goes on until some more processors are found; returns the AML, from its end to its beginning, when all are.
    fn go_on(mut self) -> Result<Self, Vec<u8>> {
        let mut found = 0;
        while found < FOUND_AT_A_TIME {
            let Some(step) = self.steps.pop() else {
                return Err(self.out);
            };
            found += usize::from(self.write(step));
        }
        Ok(self)
    }

    /// Does a step; returns whether a processor is found.
    fn write(&mut self, step: Step) -> bool {
        let Self { kind, steps, out } = self;
        let start = out.len();
        match step {
            Step::Among { first, end } if end.saturating_sub(first) <= 1 => {
                let [c, x, y, z] = kind.name(first);
                out.extend_from_slice(&[ARG1_OP, z, y, x, c, NOTIFY_OP]);
                return true;
            }
            Step::Among { first, end } => {
                let middle = first.midpoint(end);
                steps.push(Step::Else {
                    start,
                    first,
                    middle,
                });
                steps.push(Step::Among { first: middle, end });
            }
            Step::Else {
                start: from,
                first,
                middle,
            } => {
                end_package(ELSE_OP, from, out);
                let start = out.len();
                steps.push(Step::If { start, middle });
                let end = middle;
                steps.push(Step::Among { first, end });
            }
            Step::If {
                start: from,
                middle,
            } => {
                let (integer, length) = integer(middle);
                out.extend(integer.iter().take(length).rev());
                out.extend_from_slice(&[ARG0_OP, LESS_OP]);
                end_package(IF_OP, from, out);
            }
        }
        false
    }
}

/// Ends, at its beginning, a package that was written backwards from `start` on.
fn end_package(op: u8, start: usize, out: &mut Vec<u8>) {
    let (lead, (more, bytes)) = length(out.len() - start);
    out.extend(bytes.iter().take(more).rev());
    out.extend_from_slice(&[lead, op]);
}
