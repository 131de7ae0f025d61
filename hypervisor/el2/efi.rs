//! The start as an EFI application, until firmware is gone (UEFI 2.10): the only place where firmware is called.
//!
//! Runs on the firmware's stack, under its translation, with its interrupts; nothing of EL2 has started. What is wrong is said on
//! the firmware's console, and whatever started this program goes on. Runtime services are never called.
#![expect(unsafe_code, reason = "calls firmware")]

use control_plane::devicetree;
use control_plane::host::efi::{Handover, find_tree};
use core::ffi::c_void;
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use r_efi::efi::protocols::{device_path, file, load_file2, loaded_image, simple_file_system};
use r_efi::efi::{self, Status};

use crate::{machine, memory};

/// A device path of one vendor's node (UEFI 2.10, 10.3).
#[repr(C)]
struct VendorPath {
    vendor: device_path::Protocol,
    guid: efi::Guid,
    end: device_path::Protocol,
}

/// What names the initrd that a boot loader passes: LINUX_EFI_INITRD_MEDIA_GUID (Linux Documentation/arch/x86/boot.rst), which is
/// no architecture's own.
static INITRD: VendorPath = VendorPath {
    vendor: device_path::Protocol {
        r#type: device_path::TYPE_MEDIA,
        sub_type: device_path::Media::SUBTYPE_VENDOR,
        length: [20, 0],
    },
    guid: efi::Guid::from_fields(
        0x5568_e427,
        0x68fc,
        0x4f3d,
        0xac,
        0x74,
        &[0xca, 0x55, 0x52, 0x31, 0xcc, 0x68],
    ),
    end: device_path::Protocol {
        r#type: device_path::TYPE_END,
        sub_type: device_path::End::SUBTYPE_ENTIRE,
        length: [4, 0],
    },
};
/// The bundle's name at the root of a disk.
static BUNDLE: [u16; 12] = {
    let (mut name, mut at) = ([0; 12], 0);
    while at < 11 {
        name[at] = b"bundle.cpio"[at] as u16;
        at += 1;
    }
    name
};
/// Most characters of a command line, as many as Linux takes.
const OPTIONS_MAX: usize = 2048;
/// Room for the memory map; a descriptor takes six words.
const MAP_WORDS: usize = 8192;
/// How often the exit is tried: the map may change between reading it and leaving.
const TRIES: u32 = 8;
/// Characters of a text on the firmware's console.
const LINE: usize = 160;

/// The memory map, written by firmware at the exit and by nothing after. As [`OPTIONS`] it is not cleared by any other start, and
/// whoever reads it has [`KEPT`] first.
#[unsafe(link_section = ".not_cleared")]
static MAP: [AtomicU64; MAP_WORDS] = [const { AtomicU64::new(0) }; MAP_WORDS];
/// The loader's options.
#[unsafe(link_section = ".not_cleared")]
static OPTIONS: [AtomicU16; OPTIONS_MAX] = [const { AtomicU16::new(0) }; OPTIONS_MAX];
/// What else is kept of firmware: bytes of the map and of a descriptor, where the initrd and the disk's bundle begin and end. Zeros:
/// there was none.
static KEPT: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// Returns what firmware handed over, if this was started as an EFI application.
pub(crate) fn handover() -> Option<Handover<'static>> {
    let [map_bytes, descriptor_size, start, end, file_start, file_end] =
        KEPT.each_ref().map(|word| word.load(Ordering::Relaxed));
    let map = (&raw const MAP).addr() as u64;
    (map_bytes != 0).then(|| Handover {
        // SAFETY: it lies in the image; firmware, which alone wrote it, is gone.
        map: unsafe { memory::bytes(map..map + map_bytes) },
        descriptor_size: descriptor_size as usize,
        initrd: (start != end).then_some(start..end),
        file: (file_start != file_end).then_some(file_start..file_end),
        // SAFETY: an `AtomicU16` is a `u16` in memory, and nothing has written them since firmware went.
        options: unsafe { core::slice::from_raw_parts((&raw const OPTIONS).cast(), OPTIONS_MAX) },
    })
}

/// The application's way in, behind `image_header`: returns the device tree's address once firmware is gone, or the error that
/// firmware gets.
pub(crate) extern "C" fn enter(image: efi::Handle, table: &efi::SystemTable, level: u64) -> u64 {
    // SAFETY: boot services are there until the exit (UEFI 2.10, 4.3.1).
    let boot = unsafe { &*table.boot_services };
    let firmware = Firmware { image, table, boot };
    firmware.leave(level).unwrap_or_else(|why| {
        for part in ["bullpen: ", why, "\r\n"] {
            firmware.say(part);
        }
        Status::LOAD_ERROR.as_usize() as u64
    })
}

struct Firmware<'a> {
    image: efi::Handle,
    table: &'a efi::SystemTable,
    boot: &'a efi::BootServices,
}

impl Firmware<'_> {
    /// Takes from firmware what is needed of it, and leaves it; returns the device tree's address.
    fn leave(&self, level: u64) -> Result<u64, &'static str> {
        if level != machine::EL2 {
            return Err(
                "not started at EL2, which a hypervisor needs (QEMU: -M virtualization=on)",
            );
        }
        let tree = find_tree(self.tables())?;
        // SAFETY: firmware names the address as a device tree's, whose header is more than 8 bytes.
        let start = unsafe { memory::bytes(tree..tree + 8) };
        devicetree::declared_size(start).ok_or("what firmware calls a device tree is none")?;
        let image = self.loaded_image();
        let options = image.map_or(&[][..], options);
        if options.len() > OPTIONS_MAX {
            return Err("the command line has more than 2048 characters");
        }
        for (kept, unit) in OPTIONS.iter().zip(options) {
            kept.store(*unit, Ordering::Relaxed);
        }
        let initrd = self.initrd()?;
        let file = match image {
            Some(image) if initrd.is_empty() => self.file(image.device_handle)?,
            _ => 0..0,
        };
        let (map_bytes, descriptor_size) = self.exit()?;
        let words = [
            map_bytes as u64,
            descriptor_size as u64,
            initrd.start,
            initrd.end,
            file.start,
            file.end,
        ];
        for (kept, word) in KEPT.iter().zip(words) {
            kept.store(word, Ordering::Relaxed);
        }
        Ok(tree)
    }

    /// Writes on the firmware's console.
    fn say(&self, text: &str) {
        let mut line = [0_u16; LINE];
        // The last unit stays 0.
        for (unit, byte) in line.iter_mut().take(LINE - 1).zip(text.bytes()) {
            *unit = byte.into();
        }
        // SAFETY: the console is there, or null, until the exit (UEFI 2.10, 4.3.1).
        if let Some(console) = unsafe { self.table.con_out.as_ref() } {
            // SAFETY: its own method, with a text that ends (UEFI 2.10, 12.4.3).
            unsafe { (console.output_string)(self.table.con_out, line.as_mut_ptr()) };
        }
    }

    fn tables(&self) -> &[efi::ConfigurationTable] {
        let first = self.table.configuration_table;
        if first.is_null() {
            return &[];
        }
        // SAFETY: there are as many as the system table says (UEFI 2.10, 4.3.1).
        unsafe { core::slice::from_raw_parts(first, self.table.number_of_table_entries) }
    }

    /// Returns a protocol of a handle's, or null.
    fn protocol(&self, handle: efi::Handle, mut guid: efi::Guid) -> *mut c_void {
        let mut found = null_mut();
        // SAFETY: a boot service, with places of ours for what it writes (UEFI 2.10, 7.3.7).
        let status = unsafe { (self.boot.handle_protocol)(handle, &mut guid, &mut found) };
        match status {
            Status::SUCCESS => found,
            _ => null_mut(),
        }
    }

    /// Returns what firmware says of this program as loaded.
    fn loaded_image(&self) -> Option<&loaded_image::Protocol> {
        let image = self.protocol(self.image, loaded_image::PROTOCOL_GUID);
        // SAFETY: it is what the protocol's name stands for (UEFI 2.10, 9.1.1).
        unsafe { image.cast::<loaded_image::Protocol>().as_ref() }
    }

    /// Has the boot loader put its initrd into memory that is the loaded program's; an empty range if it has none.
    fn initrd(&self) -> Result<Range<u64>, &'static str> {
        let mut rest = (&raw const INITRD).cast_mut().cast();
        let mut guid = load_file2::PROTOCOL_GUID;
        let mut handle = null_mut();
        // SAFETY: a boot service, with a path that ends, which it only reads, and places of ours (UEFI 2.10, 7.3.9).
        let status = unsafe { (self.boot.locate_device_path)(&mut guid, &mut rest, &mut handle) };
        if status != Status::SUCCESS {
            return Ok(0..0);
        }
        let loader: *mut load_file2::Protocol = self.protocol(handle, guid).cast();
        // SAFETY: it is what the protocol's name stands for (UEFI 2.10, 13.2.1).
        let Some(load) = (unsafe { loader.as_ref() }).map(|loader| loader.load_file) else {
            return Ok(0..0);
        };
        let (mut bytes, policy) = (0, efi::Boolean::FALSE);
        // SAFETY: its own method; without a buffer it only says how many bytes there are.
        unsafe { load(loader, rest, policy, &mut bytes, null_mut()) };
        if bytes == 0 {
            return Ok(0..0);
        }
        let start = self.pages(bytes).ok_or("no memory for the bundle")?;
        // SAFETY: its own method, with a buffer of as many bytes as it asked for.
        let status = unsafe { load(loader, rest, policy, &mut bytes, start as *mut c_void) };
        match status {
            Status::SUCCESS => Ok(start..start + bytes as u64),
            _ => Err("the boot loader's initrd can't be read"),
        }
    }

    /// Reads the bundle at the root of the disk that this program comes from; an empty range if there is none.
    fn file(&self, disk: efi::Handle) -> Result<Range<u64>, &'static str> {
        let volume = self.protocol(disk, simple_file_system::PROTOCOL_GUID);
        let volume: *mut simple_file_system::Protocol = volume.cast();
        let (mut root, mut file) = (null_mut(), null_mut());
        // SAFETY: it is what the protocol's name stands for (UEFI 2.10, 13.4.1).
        if let Some(it) = unsafe { volume.as_ref() } {
            // SAFETY: its own method, with a place of ours.
            unsafe { (it.open_volume)(volume, &mut root) };
        }
        // SAFETY: the volume's directory, or null (UEFI 2.10, 13.5.1).
        if let Some(it) = unsafe { root.as_ref() } {
            let name = BUNDLE.as_ptr().cast_mut();
            // SAFETY: its own method, with a name that ends, which it only reads, and a place of ours.
            unsafe { (it.open)(root, &mut file, name, file::MODE_READ, 0) };
        }
        // SAFETY: the open file, or null.
        let Some(it) = (unsafe { file.as_ref() }) else {
            return Ok(0..0);
        };
        let mut bytes = 0;
        // SAFETY: its own method; the highest position is the end (UEFI 2.10, 13.5.9).
        unsafe { (it.set_position)(file, u64::MAX) };
        // SAFETY: its own method, with a place of ours.
        unsafe { (it.get_position)(file, &mut bytes) };
        // SAFETY: its own method.
        unsafe { (it.set_position)(file, 0) };
        let mut bytes = bytes as usize;
        let start = self.pages(bytes).ok_or("no memory for the bundle")?;
        // SAFETY: its own method, with a buffer of as many bytes as it is told.
        let status = unsafe { (it.read)(file, &mut bytes, start as *mut c_void) };
        match status {
            Status::SUCCESS => Ok(start..start + bytes as u64),
            _ => Err("bundle.cpio can't be read"),
        }
    }

    /// Takes memory that is this program's after the exit too.
    fn pages(&self, bytes: usize) -> Option<u64> {
        let mut start = 0;
        let (kind, number) = (efi::ALLOCATE_ANY_PAGES, bytes.div_ceil(4096));
        // SAFETY: a boot service, with a place of ours (UEFI 2.10, 7.2.1).
        let status =
            unsafe { (self.boot.allocate_pages)(kind, efi::LOADER_DATA, number, &mut start) };
        (status == Status::SUCCESS).then_some(start)
    }

    /// Ends boot services; returns the size of the memory map and of its descriptors.
    fn exit(&self) -> Result<(usize, usize), &'static str> {
        let map = (&raw const MAP).cast_mut().cast();
        for _ in 0..TRIES {
            let (mut bytes, mut key, mut size, mut version) = (size_of_val(&MAP), 0, 0, 0);
            // SAFETY: a boot service, with as much room as it is told, which nothing else uses (UEFI 2.10, 7.2.3).
            let status = unsafe {
                (self.boot.get_memory_map)(&mut bytes, map, &mut key, &mut size, &mut version)
            };
            if status != Status::SUCCESS {
                return Err("firmware's memory map can't be read, or is larger than 64 KiB");
            }
            // SAFETY: a boot service; if it succeeds, none is called after it (UEFI 2.10, 7.4.6).
            let status = unsafe { (self.boot.exit_boot_services)(self.image, key) };
            if status == Status::SUCCESS {
                return Ok((bytes, size));
            }
        }
        Err("firmware does not let go (ExitBootServices)")
    }
}

/// Returns what the loader was told to tell this program.
fn options(image: &loaded_image::Protocol) -> &[u16] {
    let options = image.load_options.cast::<u16>();
    if options.is_null() || !options.is_aligned() {
        return &[];
    }
    // SAFETY: as many bytes as the loaded image says; nothing writes them while it runs.
    unsafe { core::slice::from_raw_parts(options, image.load_options_size as usize / 2) }
}
