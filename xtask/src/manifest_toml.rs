//! The manifest as people write it: TOML, with the keys of `docs/manifest.md`.
//!
//! This file knows the keys and their types; what values are allowed is `control_plane::config`'s to say, which checks the packed
//! manifest (see `bundle`). So there is one set of rules, and one place where they can be wrong.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Deserializer};

/// A manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestToml {
    /// Options of the hypervisor itself.
    #[serde(default)]
    pub(crate) hypervisor: HypervisorToml,
    /// The VMs, in the order in which they are started.
    #[serde(default, rename = "vm")]
    pub(crate) vms: Vec<VmToml>,
}

/// The table `[hypervisor]`. A key that is not there leaves the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HypervisorToml {
    /// `release` or `boot`: when memory is cleared that no guest has held yet.
    pub(crate) scrub: Option<String>,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) log: Option<String>,
    /// Whether VMs are started that say so themselves.
    pub(crate) autostart: Option<bool>,
}

/// A table `[[vm]]`. A key that is not there leaves the default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct VmToml {
    /// The VM's name.
    pub(crate) name: String,
    /// The kernel's file, from the manifest's folder.
    pub(crate) kernel: PathBuf,
    /// The initrd's file, from the manifest's folder.
    pub(crate) initrd: Option<PathBuf>,
    /// The guest's command line.
    pub(crate) command_line: Option<String>,
    /// The size of its memory.
    pub(crate) memory: Bytes,
    /// Where its memory starts.
    pub(crate) memory_base: Option<u64>,
    /// How many virtual CPUs it boots with.
    pub(crate) boot_vcpus: Option<u32>,
    /// How many it may ever have.
    pub(crate) max_vcpus: Option<u32>,
    /// The physical CPUs they run on.
    pub(crate) cpus: Option<Vec<u32>>,
    /// `acpi` or `fdt`.
    pub(crate) firmware: Option<String>,
    /// Whether it is started when the hypervisor starts.
    pub(crate) autostart: Option<bool>,
    /// `keep-target` or `boot-set`.
    pub(crate) on_reset: Option<String>,
    /// How many shared interrupts it has.
    pub(crate) spis: Option<u32>,
    /// `wfi` or `psci-off`.
    pub(crate) reserve_idle: Option<String>,
}

impl VmToml {
    /// A VM with this name, kernel and memory, and defaults for all else.
    pub(crate) fn new(name: &str, kernel: &Path, memory: Bytes) -> Self {
        Self {
            name: name.to_string(),
            kernel: kernel.to_path_buf(),
            initrd: None,
            command_line: None,
            memory,
            memory_base: None,
            boot_vcpus: None,
            max_vcpus: None,
            cpus: None,
            firmware: None,
            autostart: None,
            on_reset: None,
            spis: None,
            reserve_idle: None,
        }
    }
}

/// A size in bytes, written as a number or as `"512M"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// The letters after a number, and how many bits each shifts it.
const UNITS: &[(char, u32)] = &[('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl std::str::FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let problem = || {
            format!(
                "\"{text}\" is not a size: a number of bytes, or one with K, M, G or T after it"
            )
        };
        let digits = text.trim_end_matches("iB");
        let unit = UNITS.iter().find(|(letter, _)| digits.ends_with(*letter));
        let (digits, shift) = unit.map_or((text, 0), |(letter, shift)| {
            (digits.trim_end_matches(*letter), *shift)
        });
        let number: u64 = digits.trim_end().parse().with_context(problem)?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .with_context(problem)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a size: a number of bytes, or a text like \"512M\""
        )]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => text
                .parse()
                .map_err(|error: anyhow::Error| serde::de::Error::custom(format!("{error:#}"))),
        }
    }
}

impl ManifestToml {
    /// Reads a manifest's text; `file` is for messages.
    pub(crate) fn parse(text: &str, file: &Path) -> anyhow::Result<Self> {
        let manifest: Self = toml::from_str(text)
            .map_err(|error| anyhow!("{}: {}", file.display(), error.to_string().trim_end()))?;
        if manifest.vms.is_empty() {
            bail!("{}: there is no [[vm]]", file.display());
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ManifestToml, String> {
        ManifestToml::parse(text, Path::new("m.toml")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases = [
            ("4096", 4096),
            ("512M", 512 << 20),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("64 K", 64 << 10),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<Bytes>().expect(text), Bytes(bytes));
        }
        for text in ["", "M", "1.5G", "-1", "1X", "99999999T", "iB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_key_or_type_is_named_with_its_line() {
        let vm = "[[vm]]\nname = \"a\"\nkernel = \"k\"\nmemory = \"64M\"\n";
        for (extra, expected) in [
            ("memroy = 1", "memroy"),
            ("boot-vcpus = \"two\"", "boot-vcpus"),
            ("cpus = 3", "cpus"),
            ("autostart = \"yes\"", "autostart"),
        ] {
            let error = parse(&format!("{vm}{extra}\n")).expect_err(extra);
            assert!(
                error.starts_with("m.toml: ")
                    && error.contains("line 5")
                    && error.contains(expected),
                "{error}"
            );
        }
        let error = parse(&vm.replace("64M", "many")).expect_err("a size");
        assert!(
            error.contains("line 4") && error.contains("\"many\" is not a size"),
            "{error}"
        );
        assert!(
            parse("[hypervisor]\n")
                .expect_err("no VM")
                .contains("no [[vm]]")
        );
        assert!(
            parse("[[vm]]\nname = \"a\"\n")
                .expect_err("no kernel")
                .contains("kernel")
        );
    }
}
