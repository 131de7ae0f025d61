//! The guests' parts, from Debian's packages: four kernels, busybox and, for one test, udev with its libraries.

use super::archive::{self, Archive};
use crate::{paths, say};
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A Debian kernel: where it comes from and what it is called here.
pub(crate) struct Kernel {
    /// The name of its file in the cache.
    name: &'static str,
    pub(super) suite: &'static str,
    /// A regular expression for its package; the newest match is taken.
    package: &'static str,
    /// A pattern for the kernel in the package.
    file: &'static str,
    /// What the name of the package with its modules begins with, before its release.
    pub(super) modules: &'static str,
}

/// The kernel of the demo: ACPI hot-add works, all spares are `present` from boot.
pub(crate) const LINUX_6_12: Kernel = Kernel {
    name: "linux-6.12",
    suite: "bookworm-backports",
    package: "^linux-image-6\\.12\\.[^-]*-cloud-arm64$",
    file: "./boot/vmlinuz-*",
    modules: "linux-image-",
};

/// The kernels that guests are tested with: 6.1 has no hot-add, 7.2 makes spares `present` at hot-add, the one with PREEMPT_RT
/// preempts nearly everywhere.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "linux-6.1",
        suite: "bookworm",
        package: "^linux-image-6\\.1\\.[^-]*-[0-9]+-cloud-arm64$",
        file: "./boot/vmlinuz-*",
        modules: "linux-image-",
    },
    LINUX_6_12,
    Kernel {
        name: "linux-7.2",
        suite: "sid",
        package: "^linux-binary-7\\.[^-]*-cloud-arm64$",
        file: "./usr/lib/modules/*/vmlinuz",
        modules: "linux-modules-",
    },
    Kernel {
        name: "linux-6.12-rt",
        suite: "bookworm-backports",
        package: "^linux-image-6\\.12\\.[^-]*-rt-arm64$",
        file: "./boot/vmlinuz-*",
        modules: "linux-image-",
    },
];

/// The kernel package for all boards, and where it has their device trees.
const TREES_PACKAGE: &str = "^linux-image-6\\.12\\.[^-]*-arm64$";
const TREES: &str = "./usr/lib/linux-image-*";

/// Where the kernels lie in the cache.
const KERNEL_DIRECTORY: &str = "kernels";
/// The suite with the newest Xen, and its package.
const XEN_SUITE: &str = "sid";
const XEN_PACKAGE: &str = "^xen-hypervisor-4\\.[0-9]*-arm64$";
/// The VMM that the bench starts on KVM.
const VMM_PACKAGE: &str = "qemu-system-arm";
/// What holds `lscpu`, `dmidecode`, `systemd-detect-virt` and `virt-what`.
const TOOL_PACKAGES: [&str; 4] = ["util-linux", "dmidecode", "systemd", "virt-what"];
/// The suite with the newest FWTS.
const FWTS_SUITE: &str = "sid";
/// The suite that the initramfs is made of.
const USERLAND_SUITE: &str = "bookworm";

/// The directory of the kernels.
pub(crate) fn kernel_directory() -> PathBuf {
    paths::cache().join(KERNEL_DIRECTORY)
}

/// The path of a kernel, fetched if it is not in the cache.
pub(crate) fn kernel(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    cached(
        &format!("{KERNEL_DIRECTORY}/{}", kernel.name),
        |destination| {
            let archive = Archive::open(kernel.suite)?;
            let package = archive
                .names(kernel.package)?
                .pop()
                .with_context(|| format!("{} has no package {}", kernel.suite, kernel.package))?;
            say::step(&format!("fetching {package}"), || {
                fetch_file(&archive, &package, kernel.file, destination)
            })
        },
    )
}

/// The path of a static busybox for arm64.
pub(crate) fn busybox() -> anyhow::Result<PathBuf> {
    cached("busybox", |destination| {
        let archive = Archive::open(USERLAND_SUITE)?;
        say::step("fetching busybox-static", || {
            fetch_file(&archive, "busybox-static", "./bin/busybox", destination)
        })
    })
}

/// The path of a directory that holds the device trees of every board that Debian's kernel knows.
pub(crate) fn trees() -> anyhow::Result<PathBuf> {
    cached("trees", |destination| {
        let archive = Archive::open(LINUX_6_12.suite)?;
        let package = archive.names(TREES_PACKAGE)?.pop();
        let package = package.context("Debian has no kernel for all boards")?;
        say::step(&format!("fetching the device trees of {package}"), || {
            for deb in archive.download(&[package])? {
                archive::unpack(&deb, TREES, destination)?;
            }
            Ok(())
        })
    })
}

/// The path of a board's device tree, by its name below the kernel's folder.
pub(crate) fn tree(name: &str) -> anyhow::Result<PathBuf> {
    let kernels = std::fs::read_dir(trees()?.join("usr/lib"))?;
    let mut files = kernels.flatten().map(|kernel| kernel.path().join(name));
    let file = files.find(|file| file.exists());
    file.with_context(|| format!("Debian's kernel has no {name}"))
}

/// The path of a directory that holds udev and the libraries of its whole closure, laid out as on a Debian system.
pub(crate) fn udev() -> anyhow::Result<PathBuf> {
    cached("udev", |destination| {
        let archive = Archive::open(USERLAND_SUITE)?;
        say::step("fetching udev and its libraries", || {
            let packages: Vec<String> = archive
                .closure("udev")?
                .into_iter()
                .filter(|name| name == "udev" || name.starts_with("lib"))
                .collect();
            for package in archive.download(&packages)? {
                archive::unpack(&package, "./*", destination)?;
            }
            Ok(())
        })
    })
}

/// The path of a directory that holds the programs by which a guest tells what machine it is on, with the libraries of their
/// closures.
pub(crate) fn tools() -> anyhow::Result<PathBuf> {
    programs("tools", USERLAND_SUITE, &TOOL_PACKAGES)
}

/// The path of a directory that holds Debian's newest FWTS, which judges what firmware tells a guest, with the libraries of its
/// closure.
pub(crate) fn fwts() -> anyhow::Result<PathBuf> {
    programs("fwts", FWTS_SUITE, &["fwts"])
}

/// The path of a directory in the cache into which packages, and the libraries that they need, are unpacked.
fn programs(name: &str, suite: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    cached(name, |destination| {
        let archive = Archive::open(suite)?;
        say::step(
            &format!("fetching {} and their libraries", packages.join(", ")),
            || {
                let mut wanted = BTreeSet::new();
                for package in packages {
                    let closure = archive.closure(package)?.into_iter();
                    wanted.extend(closure.filter(|name| {
                        packages.contains(&name.as_str())
                            || name.starts_with("lib")
                            || name.starts_with("zlib")
                    }));
                }
                let wanted: Vec<String> = wanted.into_iter().collect();
                for package in archive.download(&wanted)? {
                    archive::unpack(&package, "./*", destination)?;
                }
                Ok(())
            },
        )
    })
}

/// The path of Debian's newest Xen for arm64, which the bench compares with.
pub(crate) fn xen() -> anyhow::Result<PathBuf> {
    cached("xen", |destination| {
        let archive = Archive::open(XEN_SUITE)?;
        let package = archive
            .names(XEN_PACKAGE)?
            .pop()
            .with_context(|| format!("{XEN_SUITE} has no package {XEN_PACKAGE}"))?;
        say::step(&format!("fetching {package}"), || {
            fetch_file(&archive, &package, "./boot/xen-*-arm64", destination)
        })
    })
}

/// The path of a directory that holds QEMU for an arm64 host with the libraries of its whole closure: KVM's VMM.
pub(crate) fn vmm() -> anyhow::Result<PathBuf> {
    cached("vmm", |destination| {
        let archive = Archive::open(USERLAND_SUITE)?;
        say::step("fetching QEMU for arm64 and its libraries", || {
            let packages: Vec<String> = archive
                .closure(VMM_PACKAGE)?
                .into_iter()
                .filter(|name| {
                    name == VMM_PACKAGE || name.starts_with("lib") || name.starts_with("zlib")
                })
                .collect();
            for package in archive.download(&packages)? {
                archive::unpack(&package, "./*", destination)?;
            }
            Ok(())
        })
    })
}

/// Fetches one file of one package.
pub(super) fn fetch_file(
    archive: &Archive,
    package: &str,
    pattern: &str,
    destination: &Path,
) -> anyhow::Result<()> {
    let scratch = destination.with_extension("unpacked");
    drop(fs::remove_dir_all(&scratch));
    for deb in archive.download(&[package.to_owned()])? {
        archive::unpack(&deb, pattern, &scratch)?;
    }
    let file = only_file(&scratch)?.with_context(|| format!("{package} holds no {pattern}"))?;
    fs::rename(file, destination)?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

fn only_file(directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(file) = only_file(&path)? {
                return Ok(Some(file));
            }
        } else {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Makes something in the cache unless it is there. Only one process does so at a time, and what is there is whole.
pub(super) fn cached(
    name: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let path = paths::cache().join(name);
    if path.exists() {
        return Ok(path);
    }
    let directory = path.parent().context("a cache entry without a directory")?;
    fs::create_dir_all(directory).with_context(|| {
        format!(
            "cannot write to {}: set BULLPEN_CACHE to another directory",
            directory.display()
        )
    })?;
    let lock = File::create(paths::cache().join("lock"))?;
    lock.lock().context("cannot lock the cache")?;
    if !path.exists() {
        let partial = path.with_file_name(format!(
            "{}.partial",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        drop(fs::remove_dir_all(&partial));
        make(&partial)?;
        fs::rename(&partial, &path)?;
    }
    Ok(path)
}
