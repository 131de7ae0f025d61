//! DSDT: console, power button, every possible vCPU, and the event device that adds and removes them (ACPI 6.5, 5.2.11.1).
//!
//! The AML is stateless: it keeps nothing that the registers know better, so it survives kexec. Its register accesses are all
//! that a resize costs in traps: for an added vCPU one read of EVENT, one write of OST, and one read of STA each time the guest
//! asks for `_STA`; for a removed one the same, one write of EJECT, and a second of OST. MORE in EVENT saves the read that
//! would find nothing. From an event to its processor it is a binary search, with no register.

use alloc::vec::Vec;

use acpi_tables::aml::{
    And, Arg, Device, EISAName, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, OpRegion,
    OpRegionSpace, Or, Path, ResourceTemplate, Return, Scope, ShiftLeft, ShiftRight, Store, While,
    ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::super::{Error, Machine};
use super::table::Table;
use crate::hotplug as spec;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// `_STA` of a device that is present, enabled, shown and working (ACPI 6.5, 6.3.7).
const PRESENT_AND_ENABLED: u8 = 0x0f;

/// At most this much AML for all that is in the table once, and for a vCPU.
const FIXED_SIZE: usize = 448;
const SPARE_VCPU_SIZE: usize = 144;

/// vCPUs per reopened scope: bounds what is copied while AML packages are nested.
const VCPUS_PER_SCOPE: u16 = 16;

/// A method argument that is not stored anywhere (ACPI 6.5, 20.2.2, NullName).
const NOWHERE: acpi_tables::aml::Zero = ZERO;

/// The local variables of `_EVT`: the event as it was read, and its Notify code.
const EVENT: Local = Local(0);
const CODE: Local = Local(1);
const CODE_MASK: u8 = 0xff;
const UID_MASK: u16 = 0xffff;

/// Either half of what is written to OST.
const OST_HALF: u16 = 0xffff;

/// What `_EJ0` writes to EJECT.
const EJECT_CONFIRM: u64 = spec::EJECT_CONFIRM;

/// The registers of a vCPU, in the order they stand in.
const FRAME_FIELDS: [[u8; 4]; 3] = [*b"STAT", *b"EJCT", *b"OSTR"];
const _: () = assert!(spec::FRAME_STA == 0 && spec::FRAME_EJECT == 4 && spec::FRAME_OST == 8);

/// The event register.
const EVENT_FIELDS: [[u8; 4]; 1] = [*b"EVNT"];
const EVENT_BYTES: u64 = 4;

const REGISTER_BITS: usize = 32;

/// Writes the DSDT.
pub(super) fn table(machine: &Machine<'_>) -> Result<Vec<u8>, Error> {
    let mut table = Table::new(*b"DSDT", REVISION, most(machine.max_vcpus));
    let uart = machine.layout.uart;
    let uart_base = u32::try_from(uart.registers.base.get());
    let uart_size = u32::try_from(uart.registers.size);
    let (Ok(base), Ok(size)) = (uart_base, uart_size) else {
        return Err(Error::Layout(uart.registers));
    };
    let uid = Name::new(Path::new("_UID"), &ZERO);
    let button = EISAName::new("PNP0C0C");
    let button = Name::new(Path::new("_HID"), &button);
    let container = Name::new(Path::new("_HID"), &"ACPI0010");
    Scope::new(
        Path::new("_SB_"),
        alloc::vec![
            &Device::new(
                Path::new("COM0"),
                alloc::vec![
                    &Name::new(Path::new("_HID"), &"ARMH0011"),
                    &uid,
                    &Name::new(
                        Path::new("_CRS"),
                        &ResourceTemplate::new(alloc::vec![
                            &Memory32Fixed::new(true, base, size),
                            &Interrupt::new(true, false, false, false, uart.intid),
                        ]),
                    ),
                ],
            ),
            &Device::new(Path::new("PWRB"), alloc::vec![&button, &uid]),
            &Device::new(Path::new("CPUS"), alloc::vec![&container, &uid]),
        ],
    )
    .to_aml_bytes(&mut table);
    processors(machine, &mut table)?;
    event_device(machine, &mut table);
    Ok(table.finish())
}

/// Returns how long the body can be at most, so that the table never moves while it grows.
const fn most(max_vcpus: u16) -> usize {
    FIXED_SIZE + max_vcpus as usize * SPARE_VCPU_SIZE
}

/// Writes the processor devices, some at a time; those that differ only in their numbers are stamped from one.
fn processors(machine: &Machine<'_>, table: &mut Table) -> Result<(), Error> {
    let hotplug = machine.layout.hotplug.registers;
    let frames = u32::try_from(hotplug.base.get() + spec::FRAMES);
    let frames = frames.map_err(|_| Error::Layout(hotplug))?;
    let mut stamp = Stamp::default();
    let mut first = 0;
    while first < machine.max_vcpus {
        let next = machine.max_vcpus.min(first.saturating_add(VCPUS_PER_SCOPE));
        let mut devices = Vec::with_capacity(usize::from(VCPUS_PER_SCOPE) * SPARE_VCPU_SIZE);
        for index in first..next {
            let processor = Processor {
                index,
                spare: index >= machine.boot_vcpus,
                registers: frames.wrapping_add(u32::from(index) * spec::FRAME_BYTES as u32),
            };
            if stamp.form != Some((processor.spare, processor.uid_form())) {
                stamp = Stamp::of(&processor);
            }
            stamp.press(&processor, &mut devices);
        }
        table.vec(&Scope::raw(Path::new("_SB_.CPUS"), devices));
        first = next;
    }
    Ok(())
}

/// The device of one possible vCPU.
struct Processor {
    index: u16,
    /// Whether it is in reserve at boot, and can be added and removed.
    spare: bool,
    /// Address of its registers.
    registers: u32,
}

/// The AML of a processor, and where in it the name, the UID and the registers' address are.
#[derive(Default)]
struct Stamp {
    form: Option<(bool, usize)>,
    bytes: Vec<u8>,
    places: [usize; 3],
}

impl Stamp {
    fn of(processor: &Processor) -> Self {
        let mut bytes = Vec::new();
        processor.to_aml_bytes(&mut bytes);
        let find = |what: &[u8; 4]| bytes.windows(4).position(|at| at == what);
        let place = |what, behind| find(what).map_or(bytes.len(), |at| at + behind);
        // The opcodes of 0 and 1 are these numbers; others have a prefix, and addresses a kind of space before that.
        let uid = 4 + processor.uid_form().min(1);
        let name = processor_name(processor.index);
        let places = [place(&name, 0), place(b"_UID", uid), place(b"REGS", 6)];
        let form = Some((processor.spare, processor.uid_form()));
        Self {
            form,
            bytes,
            places,
        }
    }

    /// Adds the AML of another processor of this form.
    fn press(&self, processor: &Processor, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&self.bytes);
        let (name, uid) = (
            processor_name(processor.index),
            processor.index.to_le_bytes(),
        );
        let uid = uid.get(..processor.uid_form().max(1)).unwrap_or(&[]);
        let numbers: [&[u8]; 3] = [&name, uid, &processor.registers.to_le_bytes()];
        for (at, number) in self.places.iter().zip(numbers) {
            let rest = to.get_mut(start + at..).unwrap_or(&mut []);
            if let Some(place) = rest.get_mut(..number.len()) {
                place.copy_from_slice(number);
            }
        }
    }
}

/// Names the device of a vCPU: three hexadecimal digits after a C.
fn processor_name(index: u16) -> [u8; 4] {
    let digit = |shift: u16| match (index >> shift & 0xf) as u8 {
        low @ 0..=9 => b'0' + low,
        high => b'A' - 10 + high,
    };
    [b'C', digit(8), digit(4), digit(0)]
}

impl Processor {
    /// Says how AML writes the UID: 0 as an opcode of its own, 1 as a byte, 2 as a word (ACPI 6.5, 20.2.3).
    fn uid_form(&self) -> usize {
        usize::from(self.index > 1) + usize::from(self.index > 0xff)
    }
}

impl Aml for Processor {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let name = processor_name(self.index);
        let path = Path::new(core::str::from_utf8(&name).unwrap_or_default());
        let hid = Name::new(Path::new("_HID"), &"ACPI0007");
        let uid = Name::new(Path::new("_UID"), &self.index);
        if !self.spare {
            let sta = Name::new(Path::new("_STA"), &PRESENT_AND_ENABLED);
            return Device::new(path, alloc::vec![&hid, &uid, &sta]).to_aml_bytes(sink);
        }
        Device::new(
            path,
            alloc::vec![
                &hid,
                &uid,
                &registers("REGS", &u64::from(self.registers), &spec::FRAME_BYTES),
                &fields("REGS", &FRAME_FIELDS),
                &Method::new(
                    Path::new("_STA"),
                    0,
                    false,
                    alloc::vec![&Return::new(&Path::new("STAT"))],
                ),
                &Method::new(
                    Path::new("_EJ0"),
                    1,
                    false,
                    alloc::vec![&Store::new(&Path::new("EJCT"), &EJECT_CONFIRM)],
                ),
                &Method::new(Path::new("_OST"), 3, false, alloc::vec![&StoreOst],),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What `_OST` does, in one access: write the source event (Arg0) above the status (Arg1).
struct StoreOst;

impl Aml for StoreOst {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let source = And::new(&NOWHERE, &Arg(0), &OST_HALF);
        Or::new(
            &Path::new("OSTR"),
            &ShiftLeft::new(&NOWHERE, &source, &spec::OST_SOURCE_SHIFT),
            &And::new(&NOWHERE, &Arg(1), &OST_HALF),
        )
        .to_aml_bytes(sink);
    }
}

/// Writes the event device, whose interrupt says that there are events, and the way from an event to its processor.
fn event_device(machine: &Machine<'_>, sink: &mut dyn AmlSink) {
    let hotplug = machine.layout.hotplug;
    let base = hotplug.registers.base.get();
    if machine.boot_vcpus < machine.max_vcpus {
        let search = Search {
            first: machine.boot_vcpus,
            end: machine.max_vcpus,
        };
        let notify = Method::new(Path::new("NTFY"), 2, true, alloc::vec![&search]);
        Scope::new(Path::new("_SB_.CPUS"), alloc::vec![&notify]).to_aml_bytes(sink);
    }
    let deliver = Deliver {
        processors: machine.boot_vcpus < machine.max_vcpus,
    };
    Scope::new(
        Path::new("_SB_"),
        alloc::vec![&Device::new(
            Path::new("GED0"),
            alloc::vec![
                &Name::new(Path::new("_HID"), &"ACPI0013"),
                &Name::new(Path::new("_UID"), &ZERO),
                &Name::new(
                    Path::new("_CRS"),
                    &ResourceTemplate::new(alloc::vec![&Interrupt::new(
                        true,
                        true,
                        false,
                        false,
                        hotplug.intid
                    )]),
                ),
                &registers("REGS", &(base + spec::EVENT), &EVENT_BYTES),
                &fields("REGS", &EVENT_FIELDS),
                &Method::new(
                    Path::new("_EVT"),
                    1,
                    true,
                    alloc::vec![
                        &Store::new(&EVENT, &spec::EVENT_MORE),
                        &While::new(
                            &And::new(&NOWHERE, &EVENT, &spec::EVENT_MORE),
                            alloc::vec![
                                &Store::new(&EVENT, &Path::new("EVNT")),
                                &If::new(
                                    &And::new(&NOWHERE, &EVENT, &spec::EVENT_VALID),
                                    alloc::vec![&deliver],
                                ),
                            ],
                        ),
                    ],
                ),
            ],
        )],
    )
    .to_aml_bytes(sink);
}

/// Passes on the event in `EVENT`: to the power button or to a processor.
struct Deliver {
    /// Whether any processor can have events.
    processors: bool,
}

impl Aml for Deliver {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let shifted = ShiftRight::new(&NOWHERE, &EVENT, &spec::EVENT_CODE_SHIFT);
        And::new(&CODE, &shifted, &CODE_MASK).to_aml_bytes(sink);
        let power_button = spec::Notify::PowerButton as u8;
        If::new(
            &Equal::new(&CODE, &power_button),
            alloc::vec![&Notify::new(&Path::new("PWRB"), &power_button)],
        )
        .to_aml_bytes(sink);
        if self.processors {
            let uid = And::new(&NOWHERE, &EVENT, &UID_MASK);
            let mut call = NOTIFY_PATH.to_vec();
            uid.to_aml_bytes(&mut call);
            CODE.to_aml_bytes(&mut call);
            call.reverse();
            package(ELSE_OP, 0, &mut call);
            call.reverse();
            sink.vec(&call);
        }
    }
}

/// The path of the method that notifies a processor, from the event device's method: ^^CPUS.NTFY (ACPI 6.5, 20.2.2).
const NOTIFY_PATH: &[u8] = b"^^\x2eCPUSNTFY";

/// A binary search for the processor whose UID is Arg0, which is then notified of Arg1.
struct Search {
    first: u16,
    /// One past the last; always greater than `first`.
    end: u16,
}

impl Aml for Search {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let mut backwards = Vec::new();
        self.write(&mut backwards);
        backwards.reverse();
        sink.vec(&backwards);
    }
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
        package(ELSE_OP, start, out);
        let start = out.len();
        Self { first, end: middle }.write(out);
        let integer = out.len();
        middle.to_aml_bytes(out);
        out.get_mut(integer..).unwrap_or(&mut []).reverse();
        out.extend_from_slice(&[ARG0_OP, LESS_OP]);
        package(IF_OP, start, out);
    }
}

/// Ends, at its beginning, a package that was written backwards from `start` on (ACPI 6.5, 20.2.4, PkgLength).
fn package(op: u8, start: usize, out: &mut Vec<u8>) {
    let body = out.len() - start;
    let bytes = 1 + usize::from(body >= 0x3f) + usize::from(body >= 0xffe);
    let length = body + bytes;
    for byte in (1..bytes).rev() {
        out.push((length >> (8 * byte - 4)) as u8);
    }
    out.push(match bytes {
        1 => length as u8,
        _ => (bytes as u8 - 1) << 6 | length as u8 & 0xf,
    });
    out.push(op);
}

/// Opcodes (ACPI 6.5, table 20.1).
const ARG0_OP: u8 = 0x68;
const ARG1_OP: u8 = 0x69;
const NOTIFY_OP: u8 = 0x86;
const LESS_OP: u8 = 0x95;
const IF_OP: u8 = 0xa0;
const ELSE_OP: u8 = 0xa1;

/// Declares a range of registers.
fn registers<'a>(name: &str, address: &'a u64, size: &'a u64) -> OpRegion<'a> {
    OpRegion::new(Path::new(name), OpRegionSpace::SystemMemory, address, size)
}

/// Names the registers of a range; they are accessed 32 bits at a time, and never read to be written.
fn fields(region: &str, names: &[[u8; 4]]) -> Field {
    Field::new(
        Path::new(region),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        names
            .iter()
            .map(|name| FieldEntry::Named(*name, REGISTER_BITS))
            .collect(),
    )
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
