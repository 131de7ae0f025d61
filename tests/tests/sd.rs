//! The folder for a Raspberry Pi's card, read back as its firmware would read it, and started as far as QEMU's machine is like the board.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::machine::{Machine, PATIENCE};
use tests::tree::Tree;
use tests::{Manifest, Vm, artefacts};

/// Where an arm64 Image has its size in memory and its magic (Linux Documentation/arch/arm64/booting.rst).
const IMAGE_SIZE: std::ops::Range<usize> = 16..24;
const MAGIC: std::ops::Range<usize> = 56..60;

/// Writes a folder for a board, and the bundle that should be in it.
fn write(test: &str, board: &str) -> (PathBuf, Vec<u8>) {
    let directory = artefacts::log_directory(test);
    let folder = directory.join("card");
    drop(std::fs::remove_dir_all(&folder));
    let manifest = Manifest::new([Vm::guest("guest", "smoke")]);
    let bundle = manifest.try_pack(&directory).expect("the bundle is packed");
    let output = Command::new(artefacts::xtask())
        .args(["sd", "--board", board, "--image"])
        .arg(artefacts::hypervisor())
        .arg(directory.join("manifest.toml"))
        .arg("-o")
        .arg(&folder)
        .output()
        .expect("xtask starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    (folder, std::fs::read(bundle).expect("the bundle is there"))
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns a setting of the firmware; the last one counts.
fn setting<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    let lines = config.lines().filter(|line| !line.starts_with('#'));
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(['=', ' ']));
    values.next_back()
}

#[test]
fn the_folder_for_a_card_holds_all_that_is_ours_and_names_the_rest() {
    for (board, firmware, overlay) in [
        ("pi4", "start4.elf", Some("disable-bt")),
        ("pi5", "bcm2712-rpi-5-b.dtb", None),
    ] {
        let (folder, bundle) = write(&format!("sd-{board}"), board);
        let config = String::from_utf8(read(&folder, "config.txt")).expect("text");
        assert_eq!(setting(&config, "arm_64bit"), Some("1"));
        assert_eq!(setting(&config, "enable_uart"), Some("1"));
        assert_eq!(setting(&config, "dtoverlay"), overlay);
        let kernel = setting(&config, "kernel").expect("a kernel");
        let initramfs = setting(&config, "initramfs").expect("an initramfs");
        let bundle_name = initramfs.strip_suffix(" followkernel").expect("its place");

        let image = read(&folder, kernel);
        let built = std::fs::read(artefacts::hypervisor()).expect("an image");
        assert!(
            image.starts_with(&built),
            "the image of every other machine"
        );
        assert_eq!(&image[MAGIC], b"ARM\x64");
        let size = u64::from_le_bytes(image[IMAGE_SIZE].try_into().expect("8 bytes"));
        assert_eq!(image.len() as u64, size, "nothing behind it is cleared");
        assert_eq!(read(&folder, bundle_name), bundle);

        let notes = String::from_utf8(read(&folder, "FIRMWARE.txt")).expect("text");
        assert!(notes.contains(firmware), "{notes}");
        let entries = std::fs::read_dir(&folder).expect("a folder").flatten();
        let names: BTreeSet<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let ours = ["config.txt", "FIRMWARE.txt", kernel, bundle_name];
        assert_eq!(names, ours.map(String::from).into(), "and nothing else");
    }
}

#[test]
fn the_folder_for_a_raspberry_pi_4_starts_on_qemus() {
    let test = "sd-raspi4b";
    let (folder, _) = write(test, "pi4");
    let source = find(&artefacts::trees(), "bcm2711-rpi-4-b.dtb").expect("Debian has its tree");
    // What the firmware does for `disable-bt`: UART0 is the console.
    let tree = Tree::of_blob(&artefacts::log_directory(test), &source).replace(
        "stdout-path = \"serial1:",
        "stdout-path = \"/soc/serial@7e201000:",
    );
    let initrd = folder.join("bundle.cpio");
    let machine = Machine::new(test)
        .board("raspi4b")
        .model("cortex-a72")
        .cpus(4)
        .memory_mib(2048);
    let machine = machine
        .tree(&tree)
        .argument("-initrd")
        .argument(&initrd.to_string_lossy());
    let mut running = machine.bare(&folder.join("bullpen.img"), "");
    let line = " on Raspberry Pi 4 Model B";
    running.console.expect(line, PATIENCE);
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return find(&path, name);
        }
        path.ends_with(name).then_some(path)
    })
}
