//! The host's device tree in a test's hands: QEMU's own, as text, to be changed and handed to the machine in its place.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A device tree as source text.
#[derive(Clone, Debug)]
pub struct Tree {
    directory: PathBuf,
    text: String,
}

impl Tree {
    /// Takes the tree that QEMU makes for a `virt` machine with EL2, a GICv3, two UARTs and this many CPUs; files go into
    /// `directory`.
    ///
    /// # Panics
    /// If QEMU or dtc is not there.
    #[must_use]
    pub fn of_virt(directory: &Path, cpus: u32) -> Self {
        Self::of_virt_with(directory, 3, cpus)
    }

    /// As [`Tree::of_virt`], with this version of the interrupt controller.
    ///
    /// # Panics
    /// If QEMU or dtc is not there.
    #[must_use]
    pub fn of_virt_with(directory: &Path, gic: u32, cpus: u32) -> Self {
        let tree = directory.join("qemu.dtb");
        let machine = format!(
            "virt,gic-version={gic},virtualization=on,dumpdtb={}",
            tree.display()
        );
        tool(
            Command::new("qemu-system-aarch64")
                .args(["-M", &machine, "-cpu", "max", "-smp", &cpus.to_string()])
                .args(["-m", "512M", "-nodefaults", "-display", "none"])
                .args(["-serial", "null", "-serial", "null"]),
        );
        Self::of_blob(directory, &tree)
    }

    /// Takes a tree that is a blob; files go into `directory`.
    ///
    /// # Panics
    /// If dtc is not there, or does not take it.
    #[must_use]
    pub fn of_blob(directory: &Path, blob: &Path) -> Self {
        let source = directory.join("source.dts");
        tool(
            Command::new("dtc")
                .args(["-I", "dtb", "-O", "dts", "-o"])
                .args([source.as_path(), blob]),
        );
        let text = std::fs::read_to_string(&source).expect("dtc has written it");
        Self::of(directory, &text)
    }

    /// Takes the text of a tree; files go into `directory`.
    #[must_use]
    pub fn of(directory: &Path, text: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Replaces the first place where `from` stands.
    ///
    /// # Panics
    /// If it does not stand there.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "no {from}: {}", self.text);
        self.text = self.text.replacen(from, to, 1);
        self
    }

    /// Writes the tree as a blob; returns its path.
    ///
    /// # Panics
    /// If dtc does not take it.
    #[must_use]
    pub fn write(&self, name: &str) -> String {
        let file = |suffix: &str| self.directory.join(format!("{name}.{suffix}"));
        let (source, blob) = (file("dts"), file("dtb"));
        std::fs::write(&source, &self.text).expect("the log directory can be written");
        tool(
            Command::new("dtc")
                .args(["-I", "dts", "-O", "dtb", "-o"])
                .args([&blob, &source]),
        );
        blob.to_string_lossy().into_owned()
    }
}

/// Runs a tool of the tests; `cargo xtask setup --all` installs it.
fn tool(command: &mut Command) {
    let status = command.stderr(Stdio::null()).status();
    let well = status.as_ref().is_ok_and(ExitStatus::success);
    assert!(well, "{command:?}: {status:?}");
}
