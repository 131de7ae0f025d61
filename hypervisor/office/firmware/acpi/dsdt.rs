//! DSDT: console, power button, every possible vCPU, and the event device that adds and removes them (ACPI 6.5, 5.2.11.1).
//!
//! The AML is stateless: it keeps nothing that the registers know better, so it survives kexec. Its register accesses are all
//! that a resize costs in traps: for an added vCPU one read of EVENT, one write of OST, and one read of STA each time the guest
//! asks for `_STA`; for a removed one the same, one write of EJECT, and a second of OST. MORE in EVENT saves the read that
//! would find nothing. From an event to its processor it is a binary search, with no register.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use acpi_tables::aml::{
    And, Arg, Device, EISAName, Else, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Interrupt, LessThan, Local, Memory32Fixed, Method, Name, Notify, OpRegion,
    OpRegionSpace, Or, Path, ResourceTemplate, Return, Scope, ShiftLeft, ShiftRight, Store, While,
    ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::super::{Error, Machine};
use super::table::Table;
use crate::hotplug as spec;
use crate::ids::VcpuId;

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// `_STA` of a device that is present, enabled, shown and working (ACPI 6.5, 6.3.7).
const PRESENT_AND_ENABLED: u8 = 0x0f;

/// At most this much AML for all that is in the table once, for a boot vCPU, and for a vCPU in reserve.
const FIXED_SIZE: usize = 448;
const BOOT_VCPU_SIZE: usize = 48;
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
    let mut table = Table::new(
        *b"DSDT",
        REVISION,
        most(machine.boot_vcpus, machine.max_vcpus),
    );
    let uart = machine.layout.uart;
    let uart_base = u32::try_from(uart.registers.base.get());
    let uart_size = u32::try_from(uart.registers.size);
    let (Ok(base), Ok(size)) = (uart_base, uart_size) else {
        return Err(Error::Layout(uart.registers));
    };
    Scope::new(
        Path::new("_SB_"),
        alloc::vec![
            &Device::new(
                Path::new("COM0"),
                alloc::vec![
                    &Name::new(Path::new("_HID"), &"ARMH0011"),
                    &Name::new(Path::new("_UID"), &ZERO),
                    &Name::new(
                        Path::new("_CRS"),
                        &ResourceTemplate::new(alloc::vec![
                            &Memory32Fixed::new(true, base, size),
                            &Interrupt::new(true, false, false, false, uart.intid),
                        ]),
                    ),
                ],
            ),
            &Device::new(
                Path::new("PWRB"),
                alloc::vec![
                    &Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C")),
                    &Name::new(Path::new("_UID"), &ZERO),
                ],
            ),
            &Device::new(
                Path::new("CPUS"),
                alloc::vec![
                    &Name::new(Path::new("_HID"), &"ACPI0010"),
                    &Name::new(Path::new("_UID"), &ZERO),
                ],
            ),
        ],
    )
    .to_aml_bytes(&mut table);
    processors(machine, &mut table);
    event_device(machine, &mut table);
    Ok(table.finish())
}

/// Returns how long the body can be at most, so that the table never moves while it grows.
const fn most(boot_vcpus: u16, max_vcpus: u16) -> usize {
    let boot = boot_vcpus as usize;
    let spare = (max_vcpus as usize).saturating_sub(boot);
    FIXED_SIZE + boot * BOOT_VCPU_SIZE + spare * SPARE_VCPU_SIZE
}

/// Writes the processor devices, some at a time.
fn processors(machine: &Machine<'_>, sink: &mut dyn AmlSink) {
    let frames = machine.layout.hotplug.registers.base.get() + spec::FRAMES;
    let mut first = 0;
    while first < machine.max_vcpus {
        let next = machine.max_vcpus.min(first.saturating_add(VCPUS_PER_SCOPE));
        let processors: Vec<Processor> = (first..next)
            .map(|index| Processor {
                vcpu: VcpuId::new(index),
                spare: index >= machine.boot_vcpus,
                registers: frames + u64::from(index) * spec::FRAME_BYTES,
            })
            .collect();
        let children = processors
            .iter()
            .map(|processor| processor as &dyn Aml)
            .collect();
        Scope::new(Path::new("_SB_.CPUS"), children).to_aml_bytes(sink);
        first = next;
    }
}

/// The device of one possible vCPU.
struct Processor {
    vcpu: VcpuId,
    /// Whether it is in reserve at boot, and can be added and removed.
    spare: bool,
    /// Address of its registers.
    registers: u64,
}

/// Names the device of a vCPU: three hexadecimal digits after a C.
fn processor_name(index: u16) -> String {
    format!("C{index:03X}")
}

impl Aml for Processor {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let path = Path::new(&processor_name(self.vcpu.get()));
        let hid = Name::new(Path::new("_HID"), &"ACPI0007");
        let uid = Name::new(Path::new("_UID"), &self.vcpu.get());
        if !self.spare {
            let sta = Name::new(Path::new("_STA"), &PRESENT_AND_ENABLED);
            return Device::new(path, alloc::vec![&hid, &uid, &sta]).to_aml_bytes(sink);
        }
        Device::new(
            path,
            alloc::vec![
                &hid,
                &uid,
                &registers("REGS", &self.registers, &spec::FRAME_BYTES),
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
            let method = FromParent {
                levels: 2,
                path: Path::new("CPUS.NTFY"),
            };
            Else::new(alloc::vec![&Call {
                method,
                arguments: [&uid, &CODE]
            }])
            .to_aml_bytes(sink);
        }
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
        let count = self.end.saturating_sub(self.first);
        if count <= 1 {
            let processor = Path::new(&processor_name(self.first));
            return Notify::new(&processor, &Arg(1)).to_aml_bytes(sink);
        }
        let middle = self.first.saturating_add(count / 2);
        let (below, above) = (
            Self {
                first: self.first,
                end: middle,
            },
            Self {
                first: middle,
                end: self.end,
            },
        );
        If::new(&LessThan::new(&Arg(0), &middle), alloc::vec![&below]).to_aml_bytes(sink);
        Else::new(alloc::vec![&above]).to_aml_bytes(sink);
    }
}

/// A call of a method that is named from further up.
struct Call<'a> {
    method: FromParent,
    arguments: [&'a dyn Aml; 2],
}

impl Aml for Call<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        self.method.to_aml_bytes(sink);
        for argument in self.arguments {
            argument.to_aml_bytes(sink);
        }
    }
}

/// A path that begins some levels up from here (ACPI 6.5, 20.2.2, PrefixPath), which `acpi_tables` has no word for.
struct FromParent {
    levels: usize,
    path: Path,
}

impl Aml for FromParent {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        for _ in 0..self.levels {
            sink.byte(b'^');
        }
        self.path.to_aml_bytes(sink);
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
            let room = HEADER_SIZE + most(boot, max);
            assert!(
                length <= room,
                "{boot} of {max} vCPUs: {length} bytes in {room}"
            );
            assert!(
                length > room / 2,
                "{boot} of {max} vCPUs: {length} bytes in {room}"
            );
        }
    }
}
