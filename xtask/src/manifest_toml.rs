//! The manifest as people write it: TOML, with the keys of `docs/manifest.md`.
//!
//! This file knows the keys and their types; what values are allowed is `control_plane::config`'s to say, which checks the packed
//! manifest (see `bundle`). So there is one set of rules, and one place where they can be wrong.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer};

/// A manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestToml {
    /// Options of the hypervisor itself.
    #[serde(default, deserialize_with = "one_table")]
    pub(crate) hypervisor: HypervisorToml,
    /// The VMs, in the order in which they are started.
    #[serde(default, rename = "vm", deserialize_with = "list_of_tables")]
    pub(crate) vms: Vec<VmToml>,
}

/// The table `[hypervisor]`. A key that is not there leaves the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HypervisorToml {
    /// `release` or `boot`: when memory is cleared that no guest has held yet.
    #[serde(default, deserialize_with = "text")]
    pub(crate) scrub: Option<String>,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default, deserialize_with = "text")]
    pub(crate) log: Option<String>,
    /// Whether VMs are started that say so themselves.
    #[serde(default, deserialize_with = "yes_or_no")]
    pub(crate) autostart: Option<bool>,
}

/// A table `[[vm]]`. A key that is not there leaves the default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct VmToml {
    /// The VM's name.
    #[serde(deserialize_with = "required_text")]
    pub(crate) name: String,
    /// The kernel's file, from the manifest's folder.
    #[serde(deserialize_with = "required_text")]
    pub(crate) kernel: PathBuf,
    /// The initrd's file, from the manifest's folder.
    #[serde(default, deserialize_with = "text")]
    pub(crate) initrd: Option<PathBuf>,
    /// The guest's command line.
    #[serde(default, deserialize_with = "text")]
    pub(crate) command_line: Option<String>,
    /// The size of its memory.
    pub(crate) memory: Bytes,
    /// Where its memory starts.
    #[serde(default, deserialize_with = "address")]
    pub(crate) memory_base: Option<u64>,
    /// How many virtual CPUs it boots with.
    #[serde(default, deserialize_with = "number")]
    pub(crate) boot_vcpus: Option<u32>,
    /// How many it may ever have.
    #[serde(default, deserialize_with = "number")]
    pub(crate) max_vcpus: Option<u32>,
    /// The physical CPUs they run on.
    #[serde(default, deserialize_with = "cpu_list")]
    pub(crate) cpus: Option<Vec<u32>>,
    /// `acpi` or `fdt`.
    #[serde(default, deserialize_with = "text")]
    pub(crate) firmware: Option<String>,
    /// Whether it is started when the hypervisor starts.
    #[serde(default, deserialize_with = "yes_or_no")]
    pub(crate) autostart: Option<bool>,
    /// `keep-target` or `boot-set`.
    #[serde(default, deserialize_with = "text")]
    pub(crate) on_reset: Option<String>,
    /// How many shared interrupts it has.
    #[serde(default, deserialize_with = "number")]
    pub(crate) spis: Option<u32>,
    /// `wfi` or `psci-off`.
    #[serde(default, deserialize_with = "text")]
    pub(crate) reserve_idle: Option<String>,
    /// What the guest is known by.
    #[serde(default, deserialize_with = "text")]
    pub(crate) uuid: Option<String>,
    /// Packages, clusters in each, cores in each, threads in each.
    #[serde(default, deserialize_with = "topology")]
    pub(crate) topology: Option<Vec<u32>>,
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
            uuid: None,
            topology: None,
        }
    }
}

/// A size in bytes, written as a number or as `"512M"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// The letters after a number, and how many bits each shifts it.
const UNITS: &[(&str, u32)] = &[("K", 10), ("M", 20), ("G", 30), ("T", 40)];

impl std::str::FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let problem = || format!("\"{text}\" is not a size: write {SIZE}");
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
        let letter = match unit.trim_start() {
            "" => None,
            unit => Some(unit.strip_suffix("iB").unwrap_or(unit)),
        };
        let shift = letter.map_or(Some(0), |letter| {
            let of_unit = |(known, shift): &(&str, u32)| (*known == letter).then_some(*shift);
            UNITS.iter().find_map(of_unit)
        });
        let number: u64 = digits.parse().with_context(problem)?;
        number
            .checked_mul(1 << shift.with_context(problem)?)
            .map(Self)
            .with_context(problem)
    }
}

impl std::fmt::Display for Bytes {
    /// Writes the size in the largest unit that leaves no rest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fits = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match UNITS.iter().rev().find(|(_, shift)| fits(*shift)) {
            Some((letter, shift)) => write!(f, "\"{}{letter}\"", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match form(deserializer, "a size", SIZE)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => text
                .parse()
                .map_err(|error: anyhow::Error| D::Error::custom(error)),
        }
    }
}

/// What to write for a size.
const SIZE: &str = "a number of bytes, or one with K, M, G or T after it, such as \"512M\"";

/// Reads a value of one form; of any other it says what the value is not and what to write, as the parser knows only
/// the names of Rust's types.
fn form<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
    what: &str,
    write: &str,
) -> Result<T, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    let shown = match &value {
        toml::Value::String(text) => format!("{text:?}"),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(is_true) => is_true.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::Array(_) => "this list".to_string(),
        toml::Value::Table(_) => "a table".to_string(),
    };
    value
        .try_into()
        .map_err(|_| D::Error::custom(format!("{shown} is not {what}: write {write}")))
}

/// Reads a text, or the name of a file, that must be there.
fn required_text<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
    form(from, "a text", "it in quotes, such as \"linux\"")
}

/// Reads a text, or the name of a file.
fn text<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    required_text(from).map(Some)
}

/// Reads `true` or `false`.
fn yes_or_no<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    form(from, "true or false", "true or false, without quotes").map(Some)
}

/// Reads a count.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    form(from, "a count", "a whole number such as 2, without quotes").map(Some)
}

/// Reads an address.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    form(
        from,
        "an address",
        "a number such as 0x40000000, without quotes",
    )
    .map(Some)
}

/// What to write for `cpus`.
pub(crate) const CPU_LIST: &str = "a list such as [0, 1, 2, 3]";

/// Reads the list of CPUs.
fn cpu_list<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u32>>, D::Error> {
    form(from, "a list of CPU numbers", CPU_LIST).map(Some)
}

/// Reads how vCPUs are grouped.
fn topology<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u32>>, D::Error> {
    const FORM: &str = "[packages, clusters in each, cores in each, threads in each]";
    form(from, "a list of 4 numbers", FORM).map(Some)
}

/// Reads tables that may be there many times. The parser reads them, as only it knows the lines inside.
fn list_of_tables<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<VmToml>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<VmToml>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("tables: write [[vm]] and its keys below")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(value::SeqAccessDeserializer::new(list))
        }

        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(A::Error::custom(
                "[vm] is one table of a list: write [[vm]]",
            ))
        }
    }
    from.deserialize_any(List)
}

/// Reads the table that is there once.
fn one_table<'de, D: Deserializer<'de>>(from: D) -> Result<HypervisorToml, D::Error> {
    struct One;
    impl<'de> Visitor<'de> for One {
        type Value = HypervisorToml;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a table: write [hypervisor] and its keys below")
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
            HypervisorToml::deserialize(value::MapAccessDeserializer::new(table))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(A::Error::custom(
                "[[hypervisor]] is a list, but there is one hypervisor: write [hypervisor]",
            ))
        }
    }
    from.deserialize_any(One)
}

impl ManifestToml {
    /// Reads a manifest's text; `file` is for messages.
    pub(crate) fn parse(text: &str, file: &Path) -> anyhow::Result<Self> {
        let manifest: Self = toml::from_str(text)
            .map_err(|error| anyhow!("{}: {}", file.display(), error.to_string().trim_end()))?;
        if manifest.vms.is_empty() {
            bail!(
                "{}: there is no [[vm]]: write one for each VM",
                file.display()
            );
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
        for text in [
            "",
            "M",
            "1.5G",
            "-1",
            "+1M",
            "1X",
            "99999999T",
            "iB",
            "1iB",
            "512MM",
            "512MiBiB",
            "512KM",
            "512 M M",
            "512MB",
        ] {
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

    #[test]
    fn each_message_about_a_form_says_what_to_write() {
        let vm = "[[vm]]\nname = \"a\"\nkernel = \"k\"\nmemory = \"64M\"\n";
        for (text, expected) in [
            (vm.replace("[[vm]]", "[vm]"), "write [[vm]]"),
            ("vm = 3\n".to_string(), "write [[vm]]"),
            (format!("[[hypervisor]]\n{vm}"), "write [hypervisor]"),
            (format!("hypervisor = 1\n{vm}"), "write [hypervisor]"),
            (
                format!("{vm}cpus = \"0-3\"\n"),
                "\"0-3\" is not a list of CPU numbers: write a list such as [0, 1, 2, 3]",
            ),
            (format!("{vm}cpus = [-1]\n"), "write a list such as"),
            (
                format!("{vm}boot-vcpus = \"2\"\n"),
                "write a whole number such as 2",
            ),
            (
                format!("{vm}memory-base = \"1G\"\n"),
                "write a number such as 0x40000000",
            ),
            (format!("{vm}autostart = \"yes\"\n"), "write true or false"),
            (
                format!("{vm}firmware = 1\n"),
                "1 is not a text: write it in quotes",
            ),
            (vm.replace("\"k\"", "[1]"), "write it in quotes"),
            (vm.replace("\"64M\"", "true"), "true is not a size: write"),
            (vm.replace("64M", "64MM"), "such as \"512M\""),
            (String::new(), "write one for each VM"),
        ] {
            let error = parse(&text).expect_err(expected);
            assert!(
                error.contains(expected),
                "{error}\nshould contain {expected}"
            );
            assert!(
                !error.contains("invalid type") || error.contains("write"),
                "{error}"
            );
        }
    }
}
