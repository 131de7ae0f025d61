//! What starts Bullpen on a machine with firmware: EDK2, U-Boot, the EFI shell, GRUB, systemd-boot and a Raspberry Pi's TF-A, from
//! Debian's packages.

use super::archive::Archive;
use super::guest::{cached, fetch_file};
use crate::{paths, say};
use std::path::PathBuf;

/// A file of a package.
struct File {
    /// Its name in the cache.
    name: &'static str,
    suite: &'static str,
    package: &'static str,
    path: &'static str,
}

/// The newest of each, and an EDK2 that is older: it hands over with HCR_EL2.TGE alone on a CPU with VHE, newer ones with E2H.
const FILES: [File; 7] = [
    File {
        name: "edk2-2022.fd",
        suite: "bookworm",
        package: "qemu-efi-aarch64",
        path: "./usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    },
    File {
        name: "edk2.fd",
        suite: "sid",
        package: "qemu-efi-aarch64",
        path: "./usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    },
    File {
        name: "u-boot.bin",
        suite: "sid",
        package: "u-boot-qemu",
        path: "./usr/lib/u-boot/qemu_arm64/u-boot.bin",
    },
    File {
        name: "shell.efi",
        suite: "sid",
        package: "efi-shell-aa64",
        path: "./usr/share/efi-shell-aa64/shellaa64.efi",
    },
    File {
        name: "grub.efi",
        suite: "sid",
        package: "grub-efi-arm64-unsigned",
        path: "./usr/lib/grub/arm64-efi/monolithic/grubaa64.efi",
    },
    File {
        name: "systemd-boot.efi",
        suite: "sid",
        package: "systemd-boot-efi",
        path: "./usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
    },
    File {
        name: "pi4-bl31.bin",
        suite: "sid",
        package: "arm-trusted-firmware",
        path: "./usr/lib/arm-trusted-firmware/rpi4/bl31.bin",
    },
];

/// Where they lie in the cache.
const DIRECTORY: &str = "firmware";

/// The path of a directory that holds them all.
pub(super) fn fetch() -> anyhow::Result<PathBuf> {
    for file in &FILES {
        cached(&format!("{DIRECTORY}/{}", file.name), |destination| {
            let archive = Archive::open(file.suite)?;
            say::step(&format!("fetching {}", file.package), || {
                fetch_file(&archive, file.package, file.path, destination)
            })
        })?;
    }
    Ok(paths::cache().join(DIRECTORY))
}
