//! Bullpen as an EFI application: read as firmware's loader reads it, and started by EDK2, by U-Boot, and by what they start.
#![forbid(unsafe_code)]

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};
use std::fs;
use tests::guest::expect_green;
use tests::linux::{expect_no_complaints, resize_to};
use tests::machine::{Machine, PATIENCE, Running};
use tests::{Manifest, Vm, artefacts, linux};

/// Bytes of a page of EFI's, by which a loader maps sections.
const PAGE: u32 = 4096;
/// What the machines here are told besides, and what Bullpen answers.
const WORD: (&str, &str) = ("bullpen.nonsense=1", "`bullpen.nonsense` = 1");

#[test]
fn a_pe_loader_finds_in_the_image_what_an_image_loader_does() {
    let image = fs::read(artefacts::hypervisor()).expect("an image");
    let file = PeFile64::parse(&*image).expect("a PE32+ file");
    let headers = file.nt_headers();
    assert_eq!(
        headers.file_header().machine.get(LE),
        pe::IMAGE_FILE_MACHINE_ARM64
    );
    let optional = headers.optional_header();
    assert_eq!(optional.subsystem(), pe::IMAGE_SUBSYSTEM_EFI_APPLICATION);
    assert!(
        optional.major_image_version() >= 1,
        "or GRUB passes no initrd by LoadFile2"
    );
    assert_eq!(optional.section_alignment(), PAGE);
    assert_eq!(optional.size_of_headers(), PAGE);
    let size_of_image = optional.size_of_image();
    assert_eq!(size_of_image % PAGE, 0);
    // It relocates itself: a loader must neither refuse another base than the preferred one, nor relocate it too.
    assert_eq!(
        headers.file_header().characteristics.get(LE).0 & pe::IMAGE_FILE_RELOCS_STRIPPED.0,
        0
    );
    let directories = file.data_directories();
    assert_eq!(directories.len(), 6);
    assert!(
        directories
            .iter()
            .all(|directory| directory.size.get(LE) == 0)
    );

    let mut loaded = vec![0; size_of_image as usize];
    let mut mapped = PAGE;
    let sections = 2 * size_of::<pe::ImageSectionHeader>();
    let end = file.dos_header().nt_headers_offset() as usize
        + size_of::<pe::ImageNtHeaders64>()
        + directories.len() * size_of::<pe::ImageDataDirectory>()
        + sections;
    assert!(
        image[end..mapped as usize].iter().all(|byte| *byte == 0),
        "U-Boot does not load it"
    );
    loaded[..mapped as usize].copy_from_slice(&image[..mapped as usize]);
    for section in file.section_table().iter() {
        let (at, bytes) = (
            section.virtual_address.get(LE),
            section.virtual_size.get(LE),
        );
        let (from, in_file) = (
            section.pointer_to_raw_data.get(LE),
            section.size_of_raw_data.get(LE),
        );
        assert_eq!(at, mapped, "no hole, and no page with two permissions");
        assert!(in_file <= bytes && in_file % optional.file_alignment() == 0);
        assert_eq!(from % optional.file_alignment(), 0);
        let data = &image[from as usize..(from + in_file) as usize];
        loaded[at as usize..][..data.len()].copy_from_slice(data);
        mapped = (at + bytes).next_multiple_of(PAGE);

        let flags = section.characteristics.get(LE).0;
        let is = |flag: pe::SectionFlags| flags & flag.0 != 0;
        let entry = optional.address_of_entry_point();
        let has_entry = (at..at + bytes).contains(&entry);
        assert_eq!(is(pe::IMAGE_SCN_MEM_EXECUTE), has_entry);
        assert_ne!(is(pe::IMAGE_SCN_MEM_EXECUTE), is(pe::IMAGE_SCN_MEM_WRITE));
    }
    assert_eq!(mapped, size_of_image);
    let (file_part, zeros) = loaded.split_at(image.len());
    assert!(
        file_part == image,
        "each byte lies where an Image loader puts it"
    );
    assert!(zeros.iter().all(|byte| *byte == 0));
    let image_size = u64::from_le_bytes(image[16..24].try_into().expect("8 bytes"));
    assert!(u64::from(size_of_image) <= image_size);
}

/// One bare-metal VM on two CPUs.
fn manifest() -> Manifest {
    Manifest::new([Vm::guest("guest", "smoke").vcpus(2, 2)])
}

fn machine(test: &str) -> Machine {
    // Firmware keeps pieces here and there, and a VM's memory is one piece.
    Machine::new(test).cpus(2).memory_mib(1024)
}

/// Expects the VM to run on what firmware handed over, and the command line to have come.
fn check(mut running: Running) {
    expect_green(&mut running, "guest", PATIENCE);
    let log = running.console.everything();
    assert!(log.contains(WORD.1), "{log}");
}

#[test]
fn edk2_starts_it_on_cpus_with_vhe_and_without() {
    for (firmware, model) in [
        // EL2 is left in VHE mode, in which its registers have another form.
        ("edk2.fd", "max,pauth=off"),
        ("edk2-2022.fd", "cortex-a57"),
    ] {
        let machine = machine(&format!("efi-{firmware}"))
            .efi(firmware)
            .model(model);
        check(
            machine
                .argument("-append")
                .argument(WORD.0)
                .boot(&manifest()),
        );
    }
}

#[test]
fn why_it_does_not_start_is_said_on_firmwares_console() {
    for (name, option, why) in [
        (
            "acpi",
            "virtualization=on,acpi=on",
            "bullpen: firmware has ACPI and no device tree",
        ),
        (
            "el1",
            "virtualization=off",
            "bullpen: not started at EL2, which a hypervisor needs",
        ),
    ] {
        let machine = machine(&format!("efi-no-{name}")).efi("edk2-2022.fd");
        let mut running = machine.option(option).bare(&artefacts::hypervisor(), "");
        running.console.expect(why, PATIENCE);
        // It has gone back to firmware, which goes on.
        running.console.expect("Boot", PATIENCE);
    }
}

#[test]
fn linux_gets_a_vcpu_on_a_machine_with_edk2() {
    if !artefacts::full() {
        return;
    }
    for (firmware, model) in [("edk2.fd", "max,pauth=off"), ("edk2-2022.fd", "cortex-a57")] {
        let machine = machine(&format!("efi-linux-{firmware}")).efi(firmware);
        add_a_vcpu(machine.model(model).boot(&growing()));
    }
}

/// Has Linux, which boots on one vCPU, take a second and give it back.
fn add_a_vcpu(mut running: Running) {
    assert_eq!(linux::wait_for_shell(&mut running.console), 1);
    for vcpus in [2, 1] {
        resize_to(&mut running, "linux", vcpus);
    }
    expect_no_complaints(&mut running.console);
}

/// Linux on one vCPU of two.
fn growing() -> Manifest {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 2);
    Manifest::new([vm.memory_mib(256)])
}

/// What starts Bullpen from a disk, where it is `bullpen.efi` beside `bundle.cpio`.
struct Loader {
    name: &'static str,
    firmware: &'static str,
    /// What firmware starts, of [`artefacts::firmware`]; U-Boot starts Bullpen itself.
    program: Option<&'static str>,
    /// A file of its settings, by its path on the disk.
    settings: (&'static str, &'static str),
    /// What is typed at its prompt.
    typed: &'static [&'static str],
}

const LOADERS: [Loader; 6] = [
    Loader {
        name: "grub",
        firmware: "edk2.fd",
        program: Some("grub.efi"),
        settings: (
            "EFI/debian/grub.cfg",
            "linux /bullpen.efi bullpen.nonsense=1\ninitrd /bundle.cpio\nboot\n",
        ),
        typed: &[],
    },
    Loader {
        name: "u-boot-booti",
        firmware: "u-boot.bin",
        program: None,
        settings: ("empty", ""),
        typed: &[
            "virtio scan",
            "load virtio 0 $kernel_addr_r bullpen.efi",
            "load virtio 0 $ramdisk_addr_r bundle.cpio",
            "setenv bootargs bullpen.nonsense=1",
            "booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdtcontroladdr",
        ],
    },
    Loader {
        name: "u-boot-efi",
        firmware: "u-boot.bin",
        program: None,
        settings: ("empty", ""),
        typed: &[
            "virtio scan",
            "efidebug boot add -b 1 bullpen virtio 0 bullpen.efi -i virtio 0 bundle.cpio -s bullpen.nonsense=1",
            "efidebug boot order 1",
            "bootefi bootmgr $fdtcontroladdr",
        ],
    },
    Loader {
        name: "systemd-boot",
        firmware: "edk2-2022.fd",
        program: Some("systemd-boot.efi"),
        settings: (
            "loader/entries/bullpen.conf",
            "title Bullpen\nlinux /bullpen.efi\ninitrd /bundle.cpio\noptions bullpen.nonsense=1\n",
        ),
        typed: &[],
    },
    Loader {
        name: "grub-chainloader",
        firmware: "edk2-2022.fd",
        program: Some("grub.efi"),
        // No initrd: the bundle is the disk's.
        settings: (
            "EFI/debian/grub.cfg",
            "chainloader /bullpen.efi bullpen.nonsense=1\nboot\n",
        ),
        typed: &[],
    },
    Loader {
        name: "shell",
        firmware: "edk2.fd",
        program: Some("shell.efi"),
        settings: (
            "startup.nsh",
            "fs0:\r\ninitrd bundle.cpio\r\nbullpen.efi bullpen.nonsense=1\r\n",
        ),
        typed: &[],
    },
];
/// As many of them, one of a kind, are tried each time.
const USUAL: usize = 3;

impl Loader {
    /// Starts a machine on which this starts Bullpen.
    fn start(&self, test: &str, model: &str, manifest: &Manifest) -> Running {
        let disk = artefacts::log_directory(test).join("disk");
        let write = |name: &str, bytes: &[u8]| {
            let file = disk.join(name);
            let folder = file.parent().expect("a folder");
            fs::create_dir_all(folder).expect("the disk can be written");
            fs::write(file, bytes).expect("the disk can be written");
        };
        write(self.settings.0, self.settings.1.as_bytes());
        if let Some(program) = self.program {
            let program = fs::read(artefacts::firmware(program)).expect("a program");
            write("EFI/BOOT/BOOTAA64.EFI", &program);
        }
        let machine = machine(test).efi(self.firmware).model(model).disk(&disk);
        let mut running = machine.launch(manifest, |_| {});
        if !self.typed.is_empty() {
            running.console.expect("Hit any key", PATIENCE);
            running.console.send(" ");
        }
        for line in self.typed {
            running.console.expect("=> ", PATIENCE);
            running.console.line(line);
        }
        running
    }
}

#[test]
fn a_disk_of_two_files_is_enough() {
    let test = "efi-removable";
    let disk = artefacts::log_directory(test).join("disk");
    let program = disk.join("EFI/BOOT/BOOTAA64.EFI");
    fs::create_dir_all(program.parent().expect("a folder")).expect("the disk can be written");
    fs::copy(artefacts::hypervisor(), program).expect("the disk can be written");
    let machine = machine(test).efi("edk2-2022.fd").disk(&disk);
    expect_green(&mut machine.boot(&manifest()), "guest", PATIENCE);
}

#[test]
fn boot_loaders_start_it_from_a_disk() {
    let (models, full) = (["cortex-a57", "max,pauth=off"], artefacts::full());
    let number = if full { LOADERS.len() } else { USUAL };
    for (loader, model) in LOADERS.iter().take(number).zip(models.into_iter().cycle()) {
        let test = format!("efi-{}", loader.name);
        check(loader.start(&test, model, &manifest()));
        if full {
            let test = format!("{test}-linux");
            add_a_vcpu(loader.start(&test, model, &growing()));
        }
    }
}
