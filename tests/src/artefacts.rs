//! What `cargo xtask` built and fetched, found by the variables that `cargo xtask env` prints.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The linked kernels that guests are tested with.
pub const KERNELS: [&str; 4] = ["linux-6.1", "linux-6.12", "linux-7.2", "linux-6.12-rt"];

/// What a program that is no test has said in place of the environment.
static PROVIDED: OnceLock<Vec<(&'static str, OsString)>> = OnceLock::new();

/// Says where things are, for a program that built them itself; the first word counts.
pub fn provide(variables: Vec<(&'static str, OsString)>) {
    let _ = PROVIDED.set(variables);
}

fn provided(name: &str) -> Option<OsString> {
    let known = PROVIDED.get()?.iter().find(|(known, _)| *known == name)?;
    Some(known.1.clone())
}

fn variable(name: &str) -> PathBuf {
    let value = provided(name).or_else(|| std::env::var_os(name)).unwrap_or_else(|| {
        panic!("{name} is not set: run `cargo xtask test`, or `env $(cargo xtask env) cargo test --package tests`")
    });
    PathBuf::from(value)
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} does not exist: run `cargo xtask setup --all` and `cargo xtask build`",
        path.display()
    );
    path
}

/// Returns the hypervisor's image.
///
/// # Panics
/// As all functions here: with the remedy, when it is not there.
#[must_use]
pub fn hypervisor() -> PathBuf {
    existing(variable("BULLPEN_HYPERVISOR"))
}

/// Returns the image of a bare-metal guest.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    existing(variable("BULLPEN_GUESTS").join(name).with_extension("img"))
}

/// Returns a Linux kernel, one of [`KERNELS`].
#[must_use]
pub fn kernel(name: &str) -> PathBuf {
    existing(variable("BULLPEN_KERNELS").join(name))
}

/// Returns the demo's initramfs.
#[must_use]
pub fn initrd() -> PathBuf {
    existing(variable("BULLPEN_INITRD"))
}

/// Returns the demo's initramfs with the modules for virtio devices.
#[must_use]
pub fn initrd_virtio() -> PathBuf {
    existing(variable("BULLPEN_INITRD_VIRTIO"))
}

/// Returns the initramfs with a real udev.
#[must_use]
pub fn initrd_udev() -> PathBuf {
    existing(variable("BULLPEN_INITRD_UDEV"))
}

/// Returns the initramfs with the programs by which a guest tells what machine it is on.
#[must_use]
pub fn initrd_tools() -> PathBuf {
    existing(variable("BULLPEN_INITRD_TOOLS"))
}

/// Returns the initramfs with FWTS.
#[must_use]
pub fn initrd_fwts() -> PathBuf {
    existing(variable("BULLPEN_INITRD_FWTS"))
}

/// Returns the device tree of a board by its name below the kernel's folder, such as `broadcom/bcm2711-rpi-4-b.dtb`.
///
/// # Panics
/// If `cargo xtask setup` has not found it.
#[must_use]
pub fn tree(name: &str) -> PathBuf {
    let kernels = std::fs::read_dir(trees().join("usr/lib")).expect("the trees are there");
    let mut files = kernels.flatten().map(|kernel| kernel.path().join(name));
    let file = files.find(|file| file.exists());
    file.unwrap_or_else(|| panic!("no {name}"))
}

/// Returns the directory of the device trees of every board that Debian's kernel knows.
#[must_use]
pub fn trees() -> PathBuf {
    existing(variable("BULLPEN_TREES"))
}

/// Returns firmware or a boot loader by its name in the cache: `edk2-2022.fd`, `edk2.fd`, `u-boot.bin`, `shell.efi`,
/// `grub.efi`, `systemd-boot.efi` or `pi4-bl31.bin`.
#[must_use]
pub fn firmware(name: &str) -> PathBuf {
    existing(variable("BULLPEN_FIRMWARE").join(name))
}

/// Returns the `xtask` program.
#[must_use]
pub fn xtask() -> PathBuf {
    existing(variable("BULLPEN_XTASK"))
}

/// Tells whether the long runs are wanted too: `cargo xtask test --full`.
#[must_use]
pub fn full() -> bool {
    std::env::var_os("BULLPEN_FULL").is_some_and(|value| value == "1")
}

/// Returns a directory of its own for a test's files, below the target directory; logs stay there.
#[must_use]
pub fn log_directory(test: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::source::root().join("target"), PathBuf::from);
    let directory = target.join("test-logs").join(test.replace("::", "-"));
    std::fs::create_dir_all(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    directory
}
