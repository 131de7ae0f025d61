//! The manifest as people write it: TOML, with the keys of `docs/manifest.md`.
//!
//! The keys and their forms are those of `control_plane::config::schema`; what values are allowed is `config`'s to say, which checks
//! the packed manifest (see `bundle`). So there is one set of rules, and one place where they can be wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use control_plane::config::schema::{self, Form, Key, Section};
use serde::de::{DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor, value};
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
#[derive(Clone, Debug, Default)]
pub(crate) struct HypervisorToml {
    /// What is given.
    pub(crate) values: Values,
}

/// A table `[[vm]]`. A key that is not there leaves the default.
#[derive(Clone, Debug)]
pub(crate) struct VmToml {
    /// The VM's name.
    pub(crate) name: String,
    /// What else is given.
    pub(crate) values: Values,
    /// The tables of each of [`schema::SECTIONS`], in order.
    pub(crate) sections: BTreeMap<&'static str, Vec<Item>>,
}

/// A table `[[vm.SECTION]]`.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its name; empty in a section whose tables have none.
    pub(crate) name: String,
    /// What else is given.
    pub(crate) values: Values,
}

/// The values of a table's keys.
pub(crate) type Values = BTreeMap<&'static str, Value>;

/// A value, of the kind that its key's form has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of [`Form::Text`] and [`Form::Word`].
    Text(String),
    /// Of [`Form::File`], from the manifest's folder.
    File(PathBuf),
    /// Of [`Form::YesNo`].
    YesNo(bool),
    /// Of [`Form::Count`] and [`Form::Millicores`].
    Count(u32),
    /// Of [`Form::Size`] and [`Form::Address`].
    Wide(u64),
    /// Of [`Form::List`], [`Form::CountBounds`] and [`Form::MillicoreBounds`].
    List(Vec<u32>),
    /// Of [`Form::Texts`].
    Texts(Vec<String>),
}

impl VmToml {
    /// A VM with this name, kernel and memory, and defaults for all else.
    pub(crate) fn new(name: &str, kernel: &Path, memory: Bytes) -> Self {
        Self {
            name: name.to_string(),
            values: Values::new(),
            sections: BTreeMap::new(),
        }
        .with("kernel", Value::File(kernel.to_path_buf()))
        .with("memory", Value::Wide(memory.0))
    }

    /// Gives a key of [`schema::VM`] a value.
    pub(crate) fn with(mut self, key: &'static str, value: Value) -> Self {
        self.values.insert(key, value);
        self
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Returns the size of its memory in bytes, and of what its disks take beside it.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let size = |value: Option<&Value>| match value {
            Some(Value::Wide(bytes)) => *bytes,
            _ => 0,
        };
        let disks = self.sections.get(schema::DISK).into_iter().flatten();
        let quotas = disks.map(|disk| size(disk.values.get("cow-quota")));
        quotas.fold(size(self.get("memory")), u64::saturating_add)
    }
}

/// Reads a value of a form.
struct Reader(Form);

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Ok(match self.0 {
            Form::Text | Form::Word(_) => Value::Text(text(from)?),
            Form::File => Value::File(text(from)?),
            Form::YesNo => Value::YesNo(form(
                from,
                "true or false",
                "true or false, without quotes",
            )?),
            Form::Count => {
                let write = "a whole number such as 2, without quotes";
                Value::Count(form(from, "a count", write)?)
            }
            Form::Millicores => Value::Count(Millicores::deserialize(from)?.0),
            Form::CountBounds => {
                let Bounds { min, max } = form(from, "a least and a most", COUNT_BOUNDS)?;
                Value::List(vec![min, max])
            }
            Form::MillicoreBounds => {
                let Bounds { min, max } = Bounds::<Millicores>::deserialize(from)?;
                Value::List(vec![min.0, max.0])
            }
            Form::Size => Value::Wide(Bytes::deserialize(from)?.0),
            Form::Address => {
                let write = "a number such as 0x40000000, without quotes";
                Value::Wide(form(from, "an address", write)?)
            }
            Form::List => Value::List(form(from, "a list of CPU numbers", CPU_LIST)?),
            Form::Texts => {
                let write = "a list of texts such as [\"lan\"]";
                Value::Texts(form(from, "a list of texts", write)?)
            }
        })
    }
}

/// A least and a most.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds<T> {
    min: T,
    max: T,
}

/// What to write for a least and a most of a count.
const COUNT_BOUNDS: &str = "both, such as { min = 1, max = 4 }";

/// What a table may hold: a name, the keys of a schema, and tables of its own.
struct Names {
    has_name: bool,
    keys: &'static [Key],
    sections: &'static [Section],
}

/// A name of a table, found in [`Names`].
enum Found {
    Name,
    Key(&'static Key),
    /// A table of its own for the keys that have this and a dot before their names.
    Table(String),
    Section(&'static Section),
}

impl<'de> DeserializeSeed<'de> for &Names {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Found, D::Error> {
        let found = String::deserialize(from)?;
        if self.has_name && found == NAME {
            return Ok(Found::Name);
        }
        let key = self.keys.iter().find(|key| key.name == found);
        let section = self.sections.iter().find(|section| section.name == found);
        let is_table = self.keys.iter().any(|key| in_table(&found, key).is_some());
        let table = || is_table.then(|| Found::Table(found.clone()));
        let known = key.map(Found::Key).or(section.map(Found::Section));
        known
            .or_else(table)
            .ok_or_else(|| unknown(&found, self.keys.iter().map(|key| key.name)))
    }
}

fn unknown<'k, E: Error>(found: &str, names: impl Iterator<Item = &'k str>) -> E {
    let names = names.collect::<Vec<_>>().join("`, `");
    E::custom(format!(
        "unknown field `{found}`, expected one of `{names}`"
    ))
}

/// Returns what a key is called in a VM's table of this name, if it stands there.
fn in_table(table: &str, key: &Key) -> Option<&'static str> {
    key.name.strip_prefix(table)?.strip_prefix('.')
}

/// Reads a table of a VM that is there once, `[vm.TABLE]`.
struct OneTable<'k> {
    name: &'k str,
    keys: &'static [Key],
}

impl<'de> DeserializeSeed<'de> for OneTable<'_> {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Values, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneTable<'_> {
    type Value = Values;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name;
        write!(f, "a table: write [vm.{name}] and its keys below")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Values, A::Error> {
        let mut values = Values::new();
        while let Some(found) = from.next_key::<String>()? {
            let mut keys = self.keys.iter();
            let key = keys.find(|key| in_table(self.name, key) == Some(&found));
            let names = self.keys.iter().filter_map(|key| in_table(self.name, key));
            let key = key.ok_or_else(|| unknown(&found, names))?;
            values.insert(key.name, from.next_value_seed(Reader(key.form))?);
        }
        Ok(values)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Values, A::Error> {
        let name = self.name;
        Err(A::Error::custom(format!(
            "[[vm.{name}]] is a list, but a VM has one: write [vm.{name}]"
        )))
    }
}

/// A table, read.
#[derive(Default)]
struct Table {
    name: Option<String>,
    values: Values,
    sections: BTreeMap<&'static str, Vec<Item>>,
}

/// Reads a table by its schema.
fn read_table<'de, A: MapAccess<'de>>(mut from: A, names: &Names) -> Result<Table, A::Error> {
    let mut table = Table::default();
    while let Some(found) = from.next_key_seed(names)? {
        match found {
            Found::Key(key) => {
                let value = from.next_value_seed(Reader(key.form))?;
                table.values.insert(key.name, value);
            }
            Found::Section(section) => {
                let items = from.next_value_seed(Items(section))?;
                table.sections.insert(section.name, items);
            }
            Found::Table(name) => {
                let (name, keys) = (name.as_str(), names.keys);
                let values = from.next_value_seed(OneTable { name, keys })?;
                table.values.extend(values);
            }
            Found::Name => {
                table.name = Some(from.next_value_seed(Reader(Form::Text)).map(plain)?);
            }
        }
    }
    for key in names.keys.iter().filter(|key| key.is_required) {
        if !table.values.contains_key(key.name) {
            return Err(A::Error::missing_field(key.name));
        }
    }
    Ok(table)
}

/// Reads the tables of a section.
struct Items(&'static Section);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Item>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.name;
        write!(f, "tables: write [[vm.{name}]] and its keys below")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(OneItem(self.0))? {
            items.push(item);
        }
        Ok(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Vec<Item>, A::Error> {
        let name = self.0.name;
        Err(A::Error::custom(format!(
            "[vm.{name}] is one table of a list: write [[vm.{name}]]"
        )))
    }
}

/// Reads a table of a section.
struct OneItem(&'static Section);

impl<'de> DeserializeSeed<'de> for OneItem {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Item, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneItem {
    type Value = Item;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Items(self.0).expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Item, A::Error> {
        let has_name = self.0.has_name;
        let names = Names {
            has_name,
            keys: self.0.keys,
            sections: &[],
        };
        let Table { name, values, .. } = read_table(table, &names)?;
        match name {
            None if has_name => Err(A::Error::missing_field(NAME)),
            name => Ok(Item {
                name: name.unwrap_or_default(),
                values,
            }),
        }
    }
}

/// The key of a VM's name, which is no property of it.
const NAME: &str = "name";

fn plain(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        _ => String::new(),
    }
}

impl<'de> Deserialize<'de> for VmToml {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Vm;
        impl<'de> Visitor<'de> for Vm {
            type Value = VmToml;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tables: write [[vm]] and its keys below")
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<VmToml, A::Error> {
                let names = Names {
                    has_name: true,
                    keys: schema::VM,
                    sections: schema::SECTIONS,
                };
                let table = read_table(table, &names)?;
                let name = table.name.ok_or_else(|| A::Error::missing_field(NAME))?;
                Ok(VmToml {
                    name,
                    values: table.values,
                    sections: table.sections,
                })
            }
        }
        from.deserialize_map(Vm)
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

/// An amount of CPU time, as Kubernetes writes it.
struct Millicores(u32);

impl<'de> Deserialize<'de> for Millicores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u32),
            Text(String),
        }
        const WRITE: &str = "a number of thousandths of a CPU such as 2500, or \"2500m\"";
        match form(deserializer, "an amount of CPU time", WRITE)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => {
                let number = text.strip_suffix('m').and_then(|text| text.parse().ok());
                let wrong = || {
                    D::Error::custom(format!("{text:?} is no amount of CPU time: write {WRITE}"))
                };
                number.map(Self).ok_or_else(wrong)
            }
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

/// Reads a text, or the name of a file.
fn text<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
    form(from, "a text", "it in quotes, such as \"linux\"")
}

/// What to write for `cpus`.
pub(crate) const CPU_LIST: &str = "a list such as [0, 1, 2, 3]";

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
            let names = Names {
                has_name: false,
                keys: schema::HYPERVISOR,
                sections: &[],
            };
            let Table { values, .. } = read_table(table, &names)?;
            Ok(HypervisorToml { values })
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
    fn tables_of_devices_belong_to_the_vm_above() {
        let vm = "[[vm]]\nname = \"a\"\nkernel = \"k\"\nmemory = \"64M\"\n";
        let disk = "[[vm.disk]]\nname = \"NAME\"\nimage = \"i\"\n";
        let named = |name| disk.replace("NAME", name);
        let text = [
            vm,
            &named("x"),
            &named("y"),
            &vm.replace("\"a\"", "\"b\""),
            &named("z"),
        ];
        let manifest = parse(&text.concat()).expect("a manifest");
        let names = |vm: &VmToml| {
            let items = vm.sections.get("disk").into_iter().flatten();
            items.map(|item| item.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&manifest.vms[0]), ["x", "y"]);
        assert_eq!(names(&manifest.vms[1]), ["z"]);
        for (text, missing) in [
            ("[[vm.disk]]\nname = \"x\"\n", "image"),
            ("[[vm.disk]]\nimage = \"x\"\n", "name"),
        ] {
            let error = parse(&format!("{vm}{text}")).expect_err(missing);
            assert!(
                error.contains(missing) && error.contains("line 5"),
                "{error}"
            );
        }
        let error = parse(&format!("{vm}{disk}imgae = \"x\"\n")).expect_err("a key");
        assert!(
            error.contains("imgae") && error.contains("line 8"),
            "{error}"
        );
    }

    #[test]
    fn each_message_about_a_form_says_what_to_write() {
        let vm = "[[vm]]\nname = \"a\"\nkernel = \"k\"\nmemory = \"64M\"\n";
        for (text, expected) in [
            (vm.replace("[[vm]]", "[vm]"), "write [[vm]]"),
            (
                format!("{vm}[vm.disk]\nname = \"a\"\n"),
                "write [[vm.disk]]",
            ),
            (format!("{vm}disk = \"root.img\"\n"), "write [[vm.disk]]"),
            (format!("{vm}disk = [1]\n"), "write [[vm.disk]]"),
            (
                format!("{vm}[[vm.disk]]\nname = \"a\"\nimage = 3\n"),
                "3 is not a text: write it in quotes",
            ),
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
            (
                format!("{vm}[[vm.entitlement]]\nvcpus = 1\n"),
                "write [vm.entitlement]",
            ),
            (format!("{vm}entitlement = 3\n"), "write [vm.entitlement]"),
            (
                format!("{vm}[vm.entitlement]\nvpcus = 1\n"),
                "unknown field `vpcus`, expected one of `vcpus`, `cpu-cap`",
            ),
            (
                format!("{vm}[vm.entitlement]\nvcpus = 4\n"),
                "4 is not a least and a most: write both, such as { min = 1, max = 4 }",
            ),
            (
                format!("{vm}[vm.entitlement]\ncpu-cap = {{ min = \"x\", max = 50 }}\n"),
                "\"x\" is no amount of CPU time: write",
            ),
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
