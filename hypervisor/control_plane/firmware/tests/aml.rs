//! The DSDT as the crate `acpi_tables` writes all of it: what `acpi::dsdt` must put together.

#[path = "../../build/aml.rs"]
mod parts;

use acpi_tables::aml::{
    Arg, Device, Else, If, LessThan, Method, Name, Notify, ONE, Path, Scope, ZERO,
};
use acpi_tables::{Aml, AmlSink};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Firmware, GIB, blob, build, machine};
use crate::firmware::Machine;
use types::devices::DeviceId;
use types::hotplug as spec;
use types::layout::{GuestLayout, Region};

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
            slots: [0, 1, 19][usize::from(max_vcpus) % 3],
            ..machine(&layout, &memory, Firmware::Acpi)
        };
        let image = build(&machine).unwrap();
        let body = blob(&image, "DSDT").bytes.get(HEADER_SIZE..).unwrap();
        assert!(body == dsdt(&machine), "{boot_vcpus} of {max_vcpus} vCPUs");
    }
}

/// Makes the body of the DSDT.
fn dsdt(machine: &Machine<'_>) -> Vec<u8> {
    let uart = machine.layout.device(DeviceId::Uart);
    let hotplug = machine.layout.device(DeviceId::Hotplug);
    let (base, size) = (uart.registers.base.get() as u32, uart.registers.size as u32);
    let hid = Name::new(Path::new("_HID"), &"ARMH0011");
    let uid = Name::new(Path::new("_UID"), &ZERO);
    let resources = Ready(parts::device_resources(base, size, uart.intid));
    let console = Device::new(Path::new("COM0"), alloc::vec![&hid, &uid, &resources]);
    let fixed = Ready(parts::fixed_devices());
    let mut aml = Vec::new();
    let slots: Vec<Slot> = (0..machine.slots).map(Slot).collect();
    let mut devices: Vec<&dyn Aml> = alloc::vec![&console];
    devices.extend(slots.iter().map(|slot| slot as &dyn Aml));
    devices.push(&fixed);
    Scope::new(Path::new("_SB_"), devices).to_aml_bytes(&mut aml);
    let block = hotplug.registers.base.get() as u32;
    let processors: Vec<Processor> = (0..machine.max_vcpus)
        .map(|index| Processor {
            index,
            spare: index >= machine.boot_vcpus,
            registers: block + spec::FRAMES as u32 + u32::from(index) * spec::FRAME_BYTES as u32,
        })
        .collect();
    for some in processors.chunks(VCPUS_PER_SCOPE) {
        let devices = some.iter().map(|processor| processor as &dyn Aml).collect();
        Scope::new(Path::new("_SB_.CPUS"), devices).to_aml_bytes(&mut aml);
    }
    let has_spares = machine.boot_vcpus < machine.max_vcpus;
    if has_spares {
        let search = Search {
            first: machine.boot_vcpus,
            end: machine.max_vcpus,
        };
        let notify = Method::new(Path::new("NTFY"), 2, true, alloc::vec![&search]);
        Scope::new(Path::new("_SB_.CPUS"), alloc::vec![&notify]).to_aml_bytes(&mut aml);
    }
    aml.extend(parts::event_device(
        hotplug.intid,
        block + spec::EVENT as u32,
        has_spares,
    ));
    aml
}

/// A virtio transport, as QEMU's `virt` has them and describes them (`_HID` LNRO0005).
struct Slot(u16);

impl Aml for Slot {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let number = u32::from(self.0);
        let resources = parts::device_resources(0x0a00_0000 + 0x200 * number, 0x200, 48 + number);
        Device::new(
            Path::new(&format!("VR{:02X}", self.0)),
            alloc::vec![
                &Name::new(Path::new("_HID"), &"LNRO0005"),
                &Name::new(Path::new("_UID"), &self.0),
                &Name::new(Path::new("_CCA"), &ONE),
                &Ready(resources),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The path of a vCPU's device.
fn processor_path(index: u16) -> String {
    format!("C{index:03X}")
}

/// vCPUs per reopened scope.
const VCPUS_PER_SCOPE: usize = 16;

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
        let rest = if self.spare {
            parts::spare_processor(self.registers)
        } else {
            parts::boot_processor()
        };
        Device::new(
            Path::new(&processor_path(self.index)),
            alloc::vec![
                &Name::new(Path::new("_HID"), &"ACPI0007"),
                &Name::new(Path::new("_UID"), &self.index),
                &Ready(rest),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// AML that is there already.
struct Ready(Vec<u8>);

impl Aml for Ready {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
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
