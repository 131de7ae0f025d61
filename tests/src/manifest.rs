//! The manifest of a test's bundle: which VMs there are. Written as TOML, packed by `xtask bundle`.

use crate::artefacts;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One VM of a manifest; what is not said has the manifest's default.
#[derive(Clone, Debug)]
pub struct Vm {
    name: String,
    lines: Vec<String>,
    /// The tables of its devices, after all its keys.
    tables: Vec<String>,
    memory_mib: u64,
}

impl Vm {
    /// Describes a VM with this kernel and 64 MiB of memory.
    #[must_use]
    pub fn new(name: &str, kernel: &Path) -> Self {
        let vm = Self {
            name: name.into(),
            lines: Vec::new(),
            tables: Vec::new(),
            memory_mib: 64,
        };
        vm.text("kernel", &kernel.to_string_lossy())
    }

    /// Describes a VM that runs a bare-metal guest; its device tree describes the hardware.
    #[must_use]
    pub fn guest(name: &str, guest: &str) -> Self {
        Self::new(name, &artefacts::guest(guest)).text("firmware", "fdt")
    }

    /// Describes a Linux VM with the demo's initramfs: 2 of 8 vCPUs, 512 MiB, ACPI.
    #[must_use]
    pub fn linux(name: &str, kernel: &str) -> Self {
        Self::new(name, &artefacts::kernel(kernel))
            .text("initrd", &artefacts::initrd().to_string_lossy())
            .vcpus(2, 8)
            .memory_mib(512)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a key to a text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        self.raw(key, &format!("\"{quoted}\""))
    }

    /// Sets a key to a value that is TOML already.
    #[must_use]
    pub fn raw(mut self, key: &str, value: &str) -> Self {
        let prefix = format!("{key} = ");
        self.lines.retain(|line| !line.starts_with(&prefix));
        self.lines.push(format!("{prefix}{value}"));
        self
    }

    /// Gives it a disk with this image, of which it may write so many MiB; 0 for a disk that is only read.
    #[must_use]
    pub fn disk(mut self, name: &str, image: &Path, quota_mib: u64) -> Self {
        let quota = match quota_mib {
            0 => String::new(),
            mib => format!("cow-quota = \"{mib}M\"\n"),
        };
        let image = image.display();
        self.tables.push(format!(
            "[[vm.disk]]\nname = \"{name}\"\nimage = \"{image}\"\n{quota}"
        ));
        self
    }

    /// Describes a Linux VM as [`Vm::linux`] does, with the modules for virtio devices.
    #[must_use]
    pub fn linux_with_devices(name: &str, kernel: &str) -> Self {
        Self::linux(name, kernel).text("initrd", &artefacts::initrd_virtio().to_string_lossy())
    }

    /// Sets the command line.
    #[must_use]
    pub fn command_line(self, words: &str) -> Self {
        self.text("command-line", words)
    }

    /// Sets how many vCPUs it boots with and how many it may ever have.
    #[must_use]
    pub fn vcpus(self, boot: u32, max: u32) -> Self {
        self.raw("boot-vcpus", &boot.to_string())
            .raw("max-vcpus", &max.to_string())
    }

    /// Sets the physical CPUs that it runs on.
    #[must_use]
    pub fn cpus(self, cpus: &[u32]) -> Self {
        self.raw("cpus", &format!("{cpus:?}"))
    }

    /// Sets the size of its memory.
    #[must_use]
    pub fn memory_mib(mut self, size: u64) -> Self {
        self.memory_mib = size;
        self
    }
}

/// What a bundle is made of.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    vms: Vec<Vm>,
    head: Vec<String>,
}

impl Manifest {
    /// Makes a manifest of these VMs.
    #[must_use]
    pub fn new(vms: impl IntoIterator<Item = Vm>) -> Self {
        Self {
            vms: vms.into_iter().collect(),
            head: Vec::new(),
        }
    }

    /// Adds a line to the table `[hypervisor]`.
    #[must_use]
    pub fn hypervisor(mut self, line: &str) -> Self {
        self.head.push(line.into());
        self
    }

    /// Returns the memory of all VMs together.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        self.vms.iter().map(|vm| vm.memory_mib).sum()
    }

    /// Writes the manifest as TOML.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = String::new();
        if !self.head.is_empty() {
            text.push_str("[hypervisor]\n");
        }
        for line in &self.head {
            text.push_str(line);
            text.push('\n');
        }
        for vm in &self.vms {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "[[vm]]\nname = \"{}\"\nmemory = \"{}M\"\n{}\n{}",
                vm.name,
                vm.memory_mib,
                vm.lines.join("\n"),
                vm.tables.concat()
            );
        }
        text
    }

    /// Packs the manifest and its images into a bundle in this directory; says why it cannot.
    ///
    /// # Errors
    /// What `xtask bundle` printed.
    pub fn try_pack(&self, directory: &Path) -> Result<PathBuf, String> {
        let source = directory.join("manifest.toml");
        let bundle = directory.join("bundle.cpio");
        std::fs::write(&source, self.toml())
            .map_err(|error| format!("{}: {error}", source.display()))?;
        let output = Command::new(artefacts::xtask())
            .arg("bundle")
            .arg(&source)
            .arg("--output")
            .arg(&bundle)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("xtask bundle: {error}"))?;
        if output.status.success() {
            return Ok(bundle);
        }
        let text = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let vm = Vm::new("a", Path::new("/k \"1\""))
            .vcpus(1, 2)
            .vcpus(2, 4)
            .cpus(&[0, 1]);
        let text = Manifest::new([vm]).hypervisor("log = \"info\"").toml();
        assert_eq!(
            text,
            "[hypervisor]\nlog = \"info\"\n[[vm]]\nname = \"a\"\nmemory = \"64M\"\nkernel = \"/k \\\"1\\\"\"\nboot-vcpus = 2\nmax-vcpus = 4\ncpus = [0, 1]\n\n"
        );
    }
}
