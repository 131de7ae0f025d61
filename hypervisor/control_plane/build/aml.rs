//! The AML that is the same on every machine but for a few numbers, in the words of the crate `acpi_tables` (ACPI 6.5, 20.2).
//!
//! The build script makes templates of it for `firmware::acpi::dsdt`; the tests make the whole table with it.

use acpi_tables::aml::{
    And, Arg, Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Interrupt, Local, Memory32Fixed, Method, MethodCall, Name, Notify,
    OpRegion, OpRegionSpace, Or, Path, ResourceTemplate, Return, Scope, ShiftLeft, ShiftRight,
    Store, While, ZERO, Zero,
};
use acpi_tables::{Aml, AmlSink};
use std::vec;
use std::vec::Vec;

use types::hotplug as spec;

/// `_STA` of a device that is present, enabled, shown and working (ACPI 6.5, 6.3.7).
const PRESENT_AND_ENABLED: u8 = 0x0f;

/// An operand that is not stored anywhere (ACPI 6.5, 20.2.2, NullName).
const NOWHERE: Zero = ZERO;

/// The local variables of `_EVT`: the event as it was read, and its Notify code.
const EVENT: Local = Local(0);
const CODE: Local = Local(1);
const CODE_MASK: u8 = 0xff;
const UID_MASK: u16 = 0xffff;

/// Either half of what is written to OST.
const OST_HALF: u16 = 0xffff;

/// The registers of a vCPU, in the order they stand in.
const FRAME_FIELDS: [[u8; 4]; 3] = [*b"STAT", *b"EJCT", *b"OSTR"];
const _: () = assert!(spec::FRAME_STA == 0 && spec::FRAME_EJECT == 4 && spec::FRAME_OST == 8);

/// The event register.
const EVENT_FIELDS: [[u8; 4]; 1] = [*b"EVNT"];
const EVENT_BYTES: u64 = 4;

const REGISTER_BITS: usize = 32;

/// Returns what the system bus has besides devices with registers: the power button, and the container of processors.
pub(crate) fn fixed_devices() -> Vec<u8> {
    let hid = |id| Name::new(Path::new("_HID"), id);
    let uid = Name::new(Path::new("_UID"), &ZERO);
    let button = EISAName::new("PNP0C0C");
    concat(&[
        &Device::new(Path::new("PWRB"), vec![&hid(&button), &uid]),
        &Device::new(Path::new("CPUS"), vec![&hid(&"ACPI0010"), &uid]),
    ])
}

/// Returns the resources of a device with registers and a level-triggered interrupt.
pub(crate) fn device_resources(base: u32, size: u32, intid: u32) -> Vec<u8> {
    bytes(&resources(vec![
        &Memory32Fixed::new(true, base, size),
        &Interrupt::new(true, false, false, false, intid),
    ]))
}

/// Returns the rest of a processor that runs from reset.
pub(crate) fn boot_processor() -> Vec<u8> {
    bytes(&Name::new(Path::new("_STA"), &PRESENT_AND_ENABLED))
}

/// Returns the rest of a processor in reserve, which has registers at this address.
pub(crate) fn spare_processor(frame: u32) -> Vec<u8> {
    come_and_go(frame)
}

/// Returns the rest of a memory slot with this window, each address in two halves, and these registers.
///
/// `_STA` of one that is absent is 0 (ACPI 6.5, 6.3.7): Linux loses the first addition of one that is present and not enabled.
pub(crate) fn memory_slot(
    [low, high, last, last_high]: [u32; 4],
    length: u32,
    frame: u32,
) -> Vec<u8> {
    let window = Window([low, high, last, last_high, length]);
    let mut rest = bytes(&resources(vec![&window]));
    rest.extend(come_and_go(frame));
    rest
}

/// Returns the container of memory slots.
pub(crate) fn memory_container() -> Vec<u8> {
    bytes(&Device::new(
        Path::new("MEMS"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A06")),
            &Name::new(Path::new("_UID"), &"MEMS"),
        ],
    ))
}

/// Returns what a memory slot begins with.
pub(crate) fn memory_id() -> Vec<u8> {
    bytes(&Name::new(Path::new("_HID"), &EISAName::new("PNP0C80")))
}

/// A QWord address space descriptor of memory (ACPI 6.5, 6.4.3.5.1): cacheable, read and written, at a fixed place.
struct Window([u32; 5]);

impl Aml for Window {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const HEAD: [u8; 6] = [0x8a, 0x2b, 0, 0, 0x0d, 0x03];
        let [low, high, last, last_high, length] = self.0;
        sink.vec(&HEAD);
        // Granularity, first and last address, translation, length.
        for half in [0, 0, low, high, last, last_high, 0, 0, length, 0] {
            sink.dword(half);
        }
    }
}

/// Returns the registers of what comes and goes, and the methods that use them.
fn come_and_go(frame: u32) -> Vec<u8> {
    let (state, eject, status) = (Path::new("STAT"), Path::new("EJCT"), Path::new("OSTR"));
    concat(&[
        &registers(&u64::from(frame), &spec::FRAME_BYTES),
        &fields(&FRAME_FIELDS),
        &Method::new(Path::new("_STA"), 0, false, vec![&Return::new(&state)]),
        &Method::new(
            Path::new("_EJ0"),
            1,
            false,
            vec![&Store::new(&eject, &spec::EJECT_CONFIRM)],
        ),
        // One access: the source event above the status.
        &Method::new(
            Path::new("_OST"),
            3,
            false,
            vec![&Or::new(
                &status,
                &ShiftLeft::new(
                    &NOWHERE,
                    &And::new(&NOWHERE, &Arg(0), &OST_HALF),
                    &spec::OST_SOURCE_SHIFT,
                ),
                &And::new(&NOWHERE, &Arg(1), &OST_HALF),
            )],
        ),
    ])
}

/// Returns the event device, whose interrupt says that there are events, and which passes them on: to the power button, and to
/// processors and memory slots if there are any that can have events.
pub(crate) fn event_device(intid: u32, event: u32, has_spares: bool, has_slots: bool) -> Vec<u8> {
    let more = And::new(&NOWHERE, &EVENT, &spec::EVENT_MORE);
    let valid = And::new(&NOWHERE, &EVENT, &spec::EVENT_VALID);
    let (register, deliver) = (
        Path::new("EVNT"),
        Deliver {
            has_spares,
            has_slots,
        },
    );
    bytes(&Scope::new(
        Path::new("_SB_"),
        vec![&Device::new(
            Path::new("GED0"),
            vec![
                &Name::new(Path::new("_HID"), &"ACPI0013"),
                &Name::new(Path::new("_UID"), &ZERO),
                &resources(vec![&Interrupt::new(true, true, false, false, intid)]),
                &registers(&u64::from(event), &EVENT_BYTES),
                &fields(&EVENT_FIELDS),
                &Method::new(
                    Path::new("_EVT"),
                    1,
                    true,
                    vec![
                        &Store::new(&EVENT, &spec::EVENT_MORE),
                        &While::new(
                            &more,
                            vec![
                                &Store::new(&EVENT, &register),
                                &If::new(&valid, vec![&deliver]),
                            ],
                        ),
                    ],
                ),
            ],
        )],
    ))
}

/// Passes on the event in `EVENT`.
struct Deliver {
    has_spares: bool,
    has_slots: bool,
}

impl Aml for Deliver {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let shifted = ShiftRight::new(&NOWHERE, &EVENT, &spec::EVENT_CODE_SHIFT);
        And::new(&CODE, &shifted, &CODE_MASK).to_aml_bytes(sink);
        let power_button = spec::Notify::PowerButton as u8;
        let button = Path::new("PWRB");
        If::new(
            &Equal::new(&CODE, &power_button),
            vec![&Notify::new(&button, &power_button)],
        )
        .to_aml_bytes(sink);
        let (cpus, slots) = (NotifyMember("CPUS.NTFY"), NotifyMember("MEMS.NTFY"));
        let is_slot = And::new(&NOWHERE, &EVENT, &spec::EVENT_SLOT);
        match (self.has_spares, self.has_slots) {
            (false, false) => {}
            (true, false) => Else::new(vec![&cpus]).to_aml_bytes(sink),
            (false, true) => Else::new(vec![&slots]).to_aml_bytes(sink),
            (true, true) => Else::new(vec![
                &If::new(&is_slot, vec![&slots]),
                &Else::new(vec![&cpus]),
            ])
            .to_aml_bytes(sink),
        }
    }
}

/// Calls a container's method, as `^^CPUS.NTFY`, with a UID and the Notify code: the crate knows no path that begins with a caret.
struct NotifyMember(&'static str);

impl Aml for NotifyMember {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let uid = And::new(&NOWHERE, &EVENT, &UID_MASK);
        sink.vec(b"^^");
        MethodCall::new(Path::new(self.0), vec![&uid, &CODE]).to_aml_bytes(sink);
    }
}

fn resources(descriptors: Vec<&dyn Aml>) -> Name {
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(descriptors))
}

/// Declares a range of registers.
fn registers<'a>(address: &'a u64, size: &'a u64) -> OpRegion<'a> {
    OpRegion::new(
        Path::new("REGS"),
        OpRegionSpace::SystemMemory,
        address,
        size,
    )
}

/// Names the registers of a range; they are accessed 32 bits at a time, and never read to be written.
fn fields(names: &[[u8; 4]]) -> Field {
    Field::new(
        Path::new("REGS"),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        names
            .iter()
            .map(|name| FieldEntry::Named(*name, REGISTER_BITS))
            .collect(),
    )
}

/// Returns one thing's AML.
pub(crate) fn bytes(aml: &dyn Aml) -> Vec<u8> {
    concat(&[aml])
}

fn concat(parts: &[&dyn Aml]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        part.to_aml_bytes(&mut bytes);
    }
    bytes
}
