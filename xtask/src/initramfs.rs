//! The demo guest's initramfs: busybox, a first process, and what turns hot-added CPUs on.
//!
//! Nothing polls: the kernel's uevent starts `/sbin/cpu-online`, or, in the second kind, a real udev applies the rule
//! that is shipped in `docs/udev`. What the first process understands is said in `assets/init`.

use crate::{cpio::Archive, paths, say};
use anyhow::Context;
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64, PT_DYNAMIC, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const INIT: &str = include_str!("../assets/init");
const CPU_ONLINE: &str = include_str!("../assets/cpu-online");
const SHELL_SETTINGS: &str = include_str!("../assets/shrc");
const UDEV_RULE: &str = include_str!("../../docs/udev/80-bullpen-cpu-online.rules");

const DIRECTORIES: [&str; 8] = ["bin", "sbin", "dev", "etc", "proc", "sys", "tmp", "run"];
/// What the scripts and a person in the demo's shell call by name.
const APPLETS: [&str; 78] = [
    "ash",
    "awk",
    "blockdev",
    "cat",
    "chmod",
    "cp",
    "cttyhack",
    "cut",
    "date",
    "dd",
    "devmem",
    "df",
    "dmesg",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "getty",
    "grep",
    "halt",
    "head",
    "hexdump",
    "hostname",
    "httpd",
    "hwclock",
    "id",
    "ifconfig",
    "insmod",
    "kill",
    "killall",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mdev",
    "mkdir",
    "mke2fs",
    "mknod",
    "more",
    "mount",
    "mv",
    "nproc",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "reboot",
    "renice",
    "rm",
    "rmdir",
    "rmmod",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stty",
    "sync",
    "tail",
    "taskset",
    "test",
    "time",
    "top",
    "touch",
    "tr",
    "true",
    "uevent",
    "umount",
    "uname",
    "uptime",
    "wc",
    "wget",
    "yes",
];
/// Major and minor numbers in the kernel's `Documentation/admin-guide/devices.txt`.
const CONSOLE: (u32, u32) = (5, 1);
const NULL: (u32, u32) = (1, 3);

/// Where the first process looks for a kernel's modules.
const MODULES: &str = "lib/modules";

/// Where a Debian system keeps libraries; the first is where they are put.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/systemd",
    "usr/lib/aarch64-linux-gnu/fwts",
    "lib",
    "usr/lib",
];
const KVM_HOST_INIT: &str = include_str!("../assets/kvm-host-init");
const VMM: &str = "bin/qemu-system-aarch64";
/// By which a guest tells what machine it is on.
const TOOLS: [&str; 4] = [
    "bin/lscpu",
    "sbin/dmidecode",
    "bin/systemd-detect-virt",
    "usr/libexec/virt-what-cpuid-helper",
];
const VIRT_WHAT: &str = "sbin/virt-what";
/// What the script `virt-what` calls beside the applets of the base.
const VIRT_WHAT_APPLETS: [&str; 2] = ["dirname", "getopt"];
const FWTS: &str = "bin/fwts";
/// Where it has the patterns that it looks for in a kernel's log.
const FWTS_DATA: &str = "usr/share/fwts";
const UDEVADM: &str = "bin/udevadm";
const UDEVD: &str = "lib/systemd/systemd-udevd";

/// The demo's initramfs, written into the target directory.
pub(crate) fn demo(busybox: &Path) -> anyhow::Result<PathBuf> {
    write("initramfs.cpio", base(busybox)?)
}

/// The initramfs with modules of kernels, each in a directory that is named like its release.
pub(crate) fn with_modules(busybox: &Path, releases: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let mut archive = base(busybox)?;
    archive.directory("lib");
    archive.directory(MODULES);
    for release in releases {
        let name = release.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("{MODULES}/{name}");
        archive.directory(&place);
        for file in sorted(release)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("{place}/{name}"), 0o644, &fs::read(&file)?);
        }
    }
    write("initramfs-virtio.cpio", archive)
}

/// The files of a directory by name.
fn sorted(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// The initramfs with a real udev that the shipped rule is tested with.
pub(crate) fn with_udev(busybox: &Path, udev: &Path) -> anyhow::Result<PathBuf> {
    let mut archive = base(busybox)?;
    for directory in [
        "etc/udev",
        "etc/udev/rules.d",
        "lib",
        "lib/systemd",
        "lib/aarch64-linux-gnu",
    ] {
        archive.directory(directory);
    }
    archive.file(
        "etc/udev/rules.d/80-bullpen-cpu-online.rules",
        0o644,
        UDEV_RULE.as_bytes(),
    );
    for (path, content) in programs_with_libraries(udev, &[UDEVADM])? {
        archive.file(&path, 0o755, &content);
    }
    archive.link(UDEVD, "/bin/udevadm");
    write("initramfs-udev.cpio", archive)
}

/// The initramfs with the programs by which a guest tells what machine it is on.
pub(crate) fn with_tools(busybox: &Path, tools: &Path) -> anyhow::Result<PathBuf> {
    let mut archive = base(busybox)?;
    for directory in ["usr", "usr/libexec"] {
        archive.directory(directory);
    }
    add_programs(&mut archive, tools, &TOOLS)?;
    let script = locate(tools, VIRT_WHAT).context("virt-what's package holds no virt-what")?;
    archive.file(VIRT_WHAT, 0o755, &fs::read(script)?);
    for applet in VIRT_WHAT_APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    write("initramfs-tools.cpio", archive)
}

/// The initramfs with FWTS.
pub(crate) fn with_fwts(busybox: &Path, fwts: &Path) -> anyhow::Result<PathBuf> {
    let mut archive = base(busybox)?;
    add_programs(&mut archive, fwts, &[FWTS])?;
    for directory in ["usr", "usr/share", FWTS_DATA] {
        archive.directory(directory);
    }
    for file in sorted(&fwts.join(FWTS_DATA))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{FWTS_DATA}/{name}"), 0o644, &fs::read(&file)?);
    }
    write("initramfs-fwts.cpio", archive)
}

/// Adds programs of a Debian root and their libraries.
fn add_programs(archive: &mut Archive, root: &Path, programs: &[&str]) -> anyhow::Result<()> {
    archive.directory("lib");
    archive.directory(LIBRARY_DIRECTORIES[0]);
    for (path, content) in programs_with_libraries(root, programs)? {
        archive.file(&path, 0o755, &content);
    }
    Ok(())
}

/// Writes the initramfs of a KVM host that starts one guest, QEMU being its VMM; `words` are the guest's command line.
pub(crate) fn kvm_host(
    busybox: &Path,
    vmm: &Path,
    image: &Path,
    words: &str,
) -> anyhow::Result<PathBuf> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    archive.directory("lib");
    archive.directory("lib/aarch64-linux-gnu");
    archive.device("dev/console", CONSOLE.0, CONSOLE.1);
    archive.device("dev/null", NULL.0, NULL.1);
    archive.file("init", 0o755, KVM_HOST_INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    archive.file("bench.img", 0o644, &fs::read(image)?);
    archive.file("bench.words", 0o644, format!("{words}\n").as_bytes());
    for (path, content) in programs_with_libraries(vmm, &[VMM])? {
        archive.file(&path, 0o755, &content);
    }
    write("initramfs-kvm.cpio", archive)
}

fn write(name: &str, archive: Archive) -> anyhow::Result<PathBuf> {
    let directory = paths::target().join("guest-images");
    fs::create_dir_all(&directory)?;
    let path = directory.join(name);
    let bytes = archive.finish();
    if fs::read(&path).ok().as_ref() != Some(&bytes) {
        say::line(&format!(
            "writing {} ({} KiB)",
            path.display(),
            bytes.len() / 1024
        ));
        fs::write(&path, &bytes)?;
    }
    Ok(path)
}

fn base(busybox: &Path) -> anyhow::Result<Archive> {
    let busybox =
        fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(directory);
    }
    archive.device("dev/console", CONSOLE.0, CONSOLE.1);
    archive.device("dev/null", NULL.0, NULL.1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("sbin/cpu-online", 0o755, CPU_ONLINE.as_bytes());
    archive.file("etc/shrc", 0o644, SHELL_SETTINGS.as_bytes());
    archive.file("bin/busybox", 0o755, &busybox);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(archive)
}

/// Programs of a Debian root with their loader and all libraries that they need, by their paths in the initramfs.
fn programs_with_libraries(
    root: &Path,
    programs: &[&str],
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut wanted: Vec<String> = programs.iter().map(|path| (*path).to_owned()).collect();
    while let Some(path) = wanted.pop() {
        if found.contains_key(&path) {
            continue;
        }
        let file =
            locate(root, &path).with_context(|| format!("{} holds no {path}", root.display()))?;
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        wanted.extend(
            needs(&content)
                .with_context(|| format!("cannot read {} as an ELF file", file.display()))?,
        );
        found.insert(path, content);
    }
    Ok(found)
}

/// Finds a file of a Debian root whose `/lib` may or may not be merged into `/usr/lib`.
fn locate(root: &Path, path: &str) -> Option<PathBuf> {
    let direct = root.join(path);
    let name = direct.file_name()?.to_owned();
    let places = LIBRARY_DIRECTORIES
        .iter()
        .map(|directory| root.join(directory).join(&name));
    [direct.clone(), root.join("usr").join(path)]
        .into_iter()
        .chain(places)
        .find(|file| file.is_file())
}

/// The loader and the libraries that an ELF file names, as paths in the initramfs.
fn needs(elf: &[u8]) -> Option<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(elf).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, elf).ok()?;
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_matches(['\0', '/'])
            .to_owned()
    };
    let mut needed = Vec::new();
    for segment in header.program_headers(endian, elf).ok()? {
        if segment.p_type(endian) == PT_INTERP {
            needed.push(text(segment.data(endian, elf).ok()?));
        }
        if segment.p_type(endian) == PT_DYNAMIC {
            let (entries, strings) = sections.dynamic(endian, elf).ok()??;
            let strings = sections.strings(endian, elf, strings).ok()?;
            for entry in entries
                .iter()
                .filter(|entry| entry.d_tag(endian) == DT_NEEDED)
            {
                let name = strings.get(u32::try_from(entry.d_val(endian)).ok()?).ok()?;
                needed.push(format!("{}/{}", LIBRARY_DIRECTORIES[0], text(name)));
            }
        }
    }
    Some(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_sorted_and_unique() {
        assert!(APPLETS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_scripts_call_only_applets_that_are_linked() {
        for applet in [
            "mount", "hostname", "uevent", "uname", "nproc", "setsid", "cttyhack", "poweroff",
            "sleep", "insmod",
        ] {
            assert!(
                INIT.contains(applet) && APPLETS.contains(&applet),
                "{applet}"
            );
        }
    }

    #[test]
    fn the_needs_of_this_very_program_include_a_loader() {
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        let needed = needs(&program).unwrap();
        assert!(
            needed.iter().any(|path| path.contains("ld-linux")),
            "{needed:?}"
        );
        assert!(
            needed.iter().any(|path| path.contains("libc.so")),
            "{needed:?}"
        );
    }

    #[test]
    fn the_shipped_rule_acts_on_added_cpus_that_are_off() {
        assert!(UDEV_RULE.contains(r#"SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", ATTR{online}=="0", ATTR{online}="1""#));
    }
}
