//! A Raspberry Pi 4 with TF-A's BL31 as its `armstub`: what the board's own firmware does before, done by QEMU's loader.

use crate::artefacts;
use crate::tree::Tree;
use std::path::Path;

/// Where the firmware puts things: the tree, the kernel, the initrd.
const TREE: u64 = 0x2e0_0000;
const KERNEL: u32 = 0x20_0000;
const INITRD: u64 = 0x800_0000;
/// Where every CPU starts, to go on at 0, where QEMU's loader lets no CPU start.
const START: u64 = 0x400_0000;
const GO_TO_ZERO: [u32; 2] = [0xd280_0009, 0xd61f_0120];
/// The words that the firmware fills in: the magic number becomes zero; the tree's address, the kernel's.
const WORDS: [(usize, u32); 3] = [(0xf0, 0), (0xf8, TREE as u32), (0xfc, KERNEL)];
const MAGIC: [u8; 4] = 0x5afe_570b_u32.to_le_bytes();

/// Returns QEMU's arguments for `raspi4b` with BL31, a tree filled in as the board's firmware does, Bullpen and a bundle.
pub(crate) fn arguments(directory: &Path, bundle: &Path) -> Vec<String> {
    let mut stub = std::fs::read(artefacts::firmware("pi4-bl31.bin")).expect("BL31 was fetched");
    assert_eq!(stub[0xf0..0xf4], MAGIC, "no armstub");
    for (at, word) in WORDS {
        stub[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("the log directory can be written");
        path
    };
    let start: Vec<u8> = GO_TO_ZERO.iter().flat_map(|it| it.to_le_bytes()).collect();
    let files = [
        (write("bl31.bin", &stub), 0),
        (write("start.bin", &start), START),
        (tree(directory, bundle).into(), TREE),
        (artefacts::hypervisor(), KERNEL.into()),
        (bundle.to_owned(), INITRD),
    ];
    let files = files.iter().map(|(file, address)| {
        let file = file.display();
        format!("loader,file={file},addr={address:#x},force-raw=on")
    });
    let cpus = (0..4).map(|cpu| format!("loader,addr={START:#x},cpu-num={cpu}"));
    files
        .chain(cpus)
        .flat_map(|device| ["-device".to_owned(), device])
        .collect()
}

/// Writes the board's tree with its memory and the initrd's place; returns its path.
fn tree(directory: &Path, bundle: &Path) -> String {
    let blob = artefacts::tree("broadcom/bcm2711-rpi-4-b.dtb");
    let bytes = bundle.metadata().expect("the bundle was written").len();
    let chosen = "stdout-path = ";
    let initrd = format!(
        "linux,initrd-start = <{INITRD:#x}>; linux,initrd-end = <{:#x}>; {chosen}",
        INITRD + bytes
    );
    Tree::of_blob(directory, &blob)
        .replace(chosen, &initrd)
        .replace(
            "device_type = \"memory\";\n\t\treg = <0x00 0x00 0x00>;",
            "device_type = \"memory\"; reg = <0 0 0x3b400000>;",
        )
        .write("armstub")
}
