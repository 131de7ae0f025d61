//! The DSDT as the crate `acpi_tables` writes it: what the bytes in `acpi::dsdt` must come to.

use acpi_tables::Aml;
use acpi_tables::AmlSink;
use acpi_tables::aml::{
    And, Arg, Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Interrupt, LessThan, Local, Memory32Fixed, Method, MethodCall, Name,
    Notify, OpRegion, OpRegionSpace, Or, Path, ResourceTemplate, Return, Scope, ShiftLeft,
    ShiftRight, Store, While, ZERO,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Firmware, GIB, blob, build, machine};
use crate::firmware::Machine;
use crate::hotplug as spec;
use crate::layout::{GuestLayout, Region};

/// Length of a table's header.
const HEADER_SIZE: usize = 36;

#[test]
fn the_dsdt_is_what_another_writer_makes() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    for (boot_vcpus, max_vcpus) in [
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 8),
        (3, 19),
        (1, 64),
        (1, 260),
        (256, 512),
        (1, 512),
        (512, 512),
    ] {
        let machine = Machine {
            boot_vcpus,
            max_vcpus,
            initrd: None,
            ..machine(&layout, &memory, Firmware::Acpi)
        };
        let image = build(&machine).unwrap();
        let body = blob(&image, "DSDT").bytes.get(HEADER_SIZE..).unwrap();
        assert!(body == dsdt(&machine), "{boot_vcpus} of {max_vcpus} vCPUs");
    }
}

/// Makes the body of the DSDT.
fn dsdt(machine: &Machine<'_>) -> Vec<u8> {
    let mut aml = Vec::new();
    let uart = machine.layout.uart;
    let (base, size) = (uart.registers.base.get() as u32, uart.registers.size as u32);
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
    .to_aml_bytes(&mut aml);
    let frames = machine.layout.hotplug.registers.base.get() + spec::FRAMES;
    let processors: Vec<Processor> = (0..machine.max_vcpus)
        .map(|index| Processor {
            index,
            spare: index >= machine.boot_vcpus,
            registers: (frames + u64::from(index) * spec::FRAME_BYTES) as u32,
        })
        .collect();
    for some in processors.chunks(VCPUS_PER_SCOPE) {
        let devices = some.iter().map(|processor| processor as &dyn Aml).collect();
        Scope::new(Path::new("_SB_.CPUS"), devices).to_aml_bytes(&mut aml);
    }
    event_device(machine, &mut aml);
    aml
}

/// The path of a vCPU's device.
fn processor_path(index: u16) -> String {
    format!("C{index:03X}")
}

/// `_STA` of a device that is present, enabled, shown and working (ACPI 6.5, 6.3.7).
const PRESENT_AND_ENABLED: u8 = 0x0f;

/// vCPUs per reopened scope.
const VCPUS_PER_SCOPE: usize = 16;

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

/// The device of one possible vCPU.
struct Processor {
    index: u16,
    /// Whether it is in reserve at boot, and can be added and removed.
    spare: bool,
    /// Address of its registers.
    registers: u32,
}

impl Aml for Processor {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let path = Path::new(&processor_path(self.index));
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
            let call = Notifier { uid: &uid };
            Else::new(alloc::vec![&call]).to_aml_bytes(sink);
        }
    }
}

/// A call of ^^CPUS.NTFY with a UID and the Notify code: the crate knows no path that begins with a caret.
struct Notifier<'a> {
    uid: &'a dyn Aml,
}

impl Aml for Notifier<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(b"^^");
        MethodCall::new(Path::new("CPUS.NTFY"), alloc::vec![self.uid, &CODE]).to_aml_bytes(sink);
    }
}

/// A binary search for the processor whose UID is Arg0, which is then notified of Arg1.
struct Search {
    first: u16,
    /// One past the last; always greater than `first`.
    end: u16,
}

impl Aml for Search {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self { first, end } = *self;
        let middle = first + (end - first) / 2;
        if middle == first {
            return Notify::new(&Path::new(&processor_path(first)), &Arg(1)).to_aml_bytes(sink);
        }
        let below = Self { first, end: middle };
        If::new(&LessThan::new(&Arg(0), &middle), alloc::vec![&below]).to_aml_bytes(sink);
        let above = Self { first: middle, end };
        Else::new(alloc::vec![&above]).to_aml_bytes(sink);
    }
}

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
