//! The DSDT as the crate `acpi_tables` writes all of it: what `acpi::dsdt` must put together.

#[path = "../../build/aml.rs"]
mod parts;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, Else, If, LessThan, Method, Name, Notify,
    ONE, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::{Aml, AmlSink};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Firmware, GIB, blob, build, machine, slots};
use crate::firmware::Machine;
use types::devices::DeviceId;
use types::hotplug as spec;
use types::layout::{GuestLayout, Region};

/// Length of a table's header.
const HEADER_SIZE: usize = 36;

#[test]
fn the_dsdt_is_what_another_writer_makes() {
    let memory = [Region::new(0x4000_0000, GIB)];
    for (boot_vcpus, max_vcpus, count) in [
        (1, 1, 0),
        (1, 2, 0),
        (2, 2, 1),
        (2, 8, 0),
        (2, 8, 12),
        (3, 19, 2),
        (1, 64, 0),
        (1, 260, 0),
        (256, 512, 0),
        (1, 512, 512),
        (512, 512, 260),
    ] {
        let layout = GuestLayout {
            slots: slots(count),
            ..GuestLayout::default()
        };
        let machine = Machine {
            boot_vcpus,
            max_vcpus,
            initrd: None,
            slots: [0, 1, 19][usize::from(max_vcpus) % 3],
            ..machine(&layout, &memory, Firmware::Acpi)
        };
        let image = build(&machine).unwrap();
        let body = blob(&image, "DSDT").bytes.get(HEADER_SIZE..).unwrap();
        assert!(
            body == dsdt(&machine),
            "{boot_vcpus} of {max_vcpus} vCPUs, {count} slots"
        );
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
            letter: 'C',
            first: machine.boot_vcpus,
            end: machine.max_vcpus,
        };
        let notify = Method::new(Path::new("NTFY"), 2, true, alloc::vec![&search]);
        Scope::new(Path::new("_SB_.CPUS"), alloc::vec![&notify]).to_aml_bytes(&mut aml);
    }
    let has_slots = machine.layout.slots.count != 0;
    if has_slots {
        memory(machine, block, &mut aml);
    }
    aml.extend(parts::event_device(
        hotplug.intid,
        block + spec::EVENT as u32,
        has_spares,
        has_slots,
    ));
    aml
}

/// Makes the memory slots, and the way to each.
fn memory(machine: &Machine<'_>, block: u32, aml: &mut Vec<u8>) {
    let slots = machine.layout.slots;
    let container = Ready(parts::memory_container());
    Scope::new(Path::new("_SB_"), alloc::vec![&container]).to_aml_bytes(aml);
    let devices: Vec<MemorySlot> = (0..slots.count)
        .map(|slot| MemorySlot {
            slot,
            window: slots.window(slot),
            registers: block + 0x4000 + 16 * u32::from(slot),
        })
        .collect();
    for some in devices.chunks(4) {
        let devices = some.iter().map(|slot| slot as &dyn Aml).collect();
        Scope::new(Path::new("_SB_.MEMS"), devices).to_aml_bytes(aml);
    }
    let search = Search {
        letter: 'M',
        first: 0,
        end: slots.count,
    };
    let notify = Method::new(Path::new("NTFY"), 2, true, alloc::vec![&search]);
    Scope::new(Path::new("_SB_.MEMS"), alloc::vec![&notify]).to_aml_bytes(aml);
}

/// The device of one memory slot: its window, then what a processor that comes and goes has too.
struct MemorySlot {
    slot: u16,
    window: Region,
    registers: u32,
}

impl Aml for MemorySlot {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let [window, length] = [self.window.base.get(), self.window.size];
        let halves = halves(window, window + length - 1);
        let rest = parts::memory_slot(halves, length as u32, self.registers);
        Device::new(
            Path::new(&path_of('M', self.slot)),
            alloc::vec![
                &Ready(parts::memory_id()),
                &Name::new(Path::new("_UID"), &self.slot),
                &Ready(rest),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Returns two addresses, the lower halves first.
fn halves(first: u64, last: u64) -> [u32; 4] {
    [first, first >> 32, last, last >> 32].map(|half| half as u32)
}

#[test]
fn a_memory_slot_is_what_another_writer_makes() {
    let (first, last) = (0x23_8000_0000_u64, 0x23_87ff_ffff);
    let window =
        AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, first, last, None);
    // The crate knows producers only (ACPI 6.5, 6.4.3.5.1, general flags).
    let mut window = parts::bytes(&window);
    window[4] |= 1;
    let window = Ready(window);
    let resources = ResourceTemplate::new(alloc::vec![&window]);
    let mut expected = parts::bytes(&Name::new(Path::new("_CRS"), &resources));
    expected.extend(parts::spare_processor(0x090c_4010));
    let slot = parts::memory_slot(halves(first, last), 0x0800_0000, 0x090c_4010);
    assert_eq!(slot, expected);
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

/// The path of a vCPU's or a memory slot's device.
fn path_of(letter: char, index: u16) -> String {
    format!("{letter}{index:03X}")
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
            Path::new(&path_of('C', self.index)),
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
    letter: char,
    first: u16,
    /// One past the last; always greater than `first`.
    end: u16,
}

impl Aml for Search {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self { letter, first, end } = *self;
        let middle = first + (end - first) / 2;
        if middle == first {
            return Notify::new(&Path::new(&path_of(letter, first)), &Arg(1)).to_aml_bytes(sink);
        }
        let below = Self {
            letter,
            first,
            end: middle,
        };
        If::new(&LessThan::new(&Arg(0), &middle), alloc::vec![&below]).to_aml_bytes(sink);
        let above = Self {
            letter,
            first: middle,
            end,
        };
        Else::new(alloc::vec![&above]).to_aml_bytes(sink);
    }
}
