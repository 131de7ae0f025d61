//! Packs a manifest and its images into a bundle: one cpio archive that any boot loader passes as initrd.
//!
//! The TOML becomes the device tree that `control_plane::config` reads; kernels in gzip, zstd or EFI zboot form are unpacked,
//! since EL2 carries no unpacker. What is packed is then opened and planned with the hypervisor's own code, so a bundle
//! that this command writes is one that the hypervisor accepts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use control_plane::config::schema::{self, Form, Key, Section};
use control_plane::config::{ConfigError, Problem, VmName};
use control_plane::{config, loader};
use types::layout::{FIRMWARE_SIZE, Region};
use vm_fdt::FdtWriter;

use crate::cpio::Archive;
use crate::manifest_toml::{Bytes, CPU_LIST, Item, ManifestToml, Value, Values, VmToml};
use crate::say;

mod unpack;

/// ID_AA64MMFR0_EL1 of a CPU with every granule: what the real one has, only the host's start of the VM finds out.
const EVERY_GRANULE: u64 = 1 << 20;

/// What is in a bundle that was written.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The memory of all its VMs in bytes.
    pub(crate) guest_memory_bytes: u64,
    /// Their names, in the manifest's order.
    pub(crate) vms: Vec<String>,
}

/// Packs the manifest in the file `manifest` into the file `output`; images are found from the manifest's folder.
///
/// # Errors
/// Says which file, `[[vm]]` and key is wrong and why; nothing is written then.
pub(crate) fn pack(manifest: &Path, output: &Path) -> anyhow::Result<Packed> {
    let name = || manifest.display().to_string();
    let text = std::fs::read_to_string(manifest).with_context(name)?;
    let parsed = ManifestToml::parse(&text, manifest)?;
    let base = manifest.parent().unwrap_or(Path::new(""));
    pack_parsed(&parsed, base, output).with_context(name)
}

/// Packs `manifest`, whose files' names start from the folder `base`, into the file `output`.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_parsed(
    manifest: &ManifestToml,
    base: &Path,
    output: &Path,
) -> anyhow::Result<Packed> {
    let bytes = pack_bytes(manifest, base)?;
    std::fs::write(output, bytes).with_context(|| format!("cannot write {}", output.display()))?;
    let sizes = manifest.vms.iter().map(VmToml::memory_bytes);
    Ok(Packed {
        guest_memory_bytes: sizes.fold(0, u64::saturating_add),
        vms: manifest.vms.iter().map(|vm| vm.name.clone()).collect(),
    })
}

/// Packs as [`pack`] does and says what is in the bundle: the command.
pub(crate) fn command(manifest: &Path, output: &Path) -> anyhow::Result<()> {
    let packed = pack(manifest, output)?;
    let kib = std::fs::metadata(output)?.len().div_ceil(1024);
    let vms = packed.vms.join(", ");
    say::line(&format!("{}: {kib} KiB, VMs: {vms}", output.display()));
    Ok(())
}

/// Packs `manifest`, whose files' names start from the folder `base`, and returns the bundle.
pub(crate) fn pack_bytes(manifest: &ManifestToml, base: &Path) -> anyhow::Result<Vec<u8>> {
    let mut images = Images::default();
    let mut named = Vec::new();
    for vm in &manifest.vms {
        let in_vm = || format!("[[vm]] \"{}\"", vm.name);
        let own = name_files(schema::VM, &vm.values, base, &mut images).with_context(in_vm)?;
        let mut files = VmFiles {
            own,
            items: Vec::new(),
        };
        for (section, item) in items(vm) {
            let in_item = || format!("{} {}", in_vm(), item_name(section, &item.name));
            let names = name_files(section.keys, &item.values, base, &mut images);
            files.items.push(names.with_context(in_item)?);
        }
        named.push(files);
    }
    let dtb = device_tree(manifest, &named)?;
    let mut archive = Archive::default();
    archive.file(config::MANIFEST_FILE, 0o444, &dtb);
    for (name, content) in &images.files {
        archive.page_aligned_file(name, 0o444, content);
    }
    let bytes = archive.finish();
    check(&bytes, manifest)?;
    Ok(bytes)
}

/// The key whose file is unpacked on its way into the bundle. An initrd is the guest's own affair.
const KERNEL: &str = "kernel";

/// The names in the archive of one table's files, by key.
type FileNames = BTreeMap<&'static str, String>;

/// The names in the archive of one VM's files.
struct VmFiles {
    own: FileNames,
    /// Those of its devices, as [`items`] goes through them.
    items: Vec<FileNames>,
}

/// Goes through the tables of a VM's devices, section by section.
fn items(vm: &VmToml) -> impl Iterator<Item = (&'static Section, &Item)> {
    schema::SECTIONS.iter().flat_map(|section| {
        let items = vm.sections.get(section.name).into_iter().flatten();
        items.map(move |item| (section, item))
    })
}

/// Names a table of a section for people.
fn item_name(section: &Section, name: &str) -> String {
    match section.has_name {
        true => format!("[[vm.{}]] \"{name}\"", section.name),
        false => format!("[[vm.{}]]", section.name),
    }
}

/// Names the node of a table of a section, the `number`th.
fn node_name(section: &Section, item: &Item, number: usize) -> String {
    match section.has_name {
        true => item.name.clone(),
        false => format!("{}{number}", section.name),
    }
}

/// Packs the files of one table.
fn name_files(
    keys: &'static [Key],
    values: &Values,
    base: &Path,
    images: &mut Images,
) -> anyhow::Result<FileNames> {
    let mut names = FileNames::new();
    for key in keys {
        if let Some(Value::File(path)) = values.get(key.name) {
            let packed = images.add(&base.join(path), key.name == KERNEL);
            names.insert(key.name, packed.with_context(|| key.name)?);
        }
    }
    Ok(names)
}

/// The images packed so far.
#[derive(Default)]
struct Images {
    /// Names by file and whether it is unpacked.
    names: BTreeMap<(PathBuf, bool), String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Images {
    /// Adds a file unless it is there already and returns its name in the archive.
    fn add(&mut self, path: &Path, unpacks: bool) -> anyhow::Result<String> {
        let place = path
            .canonicalize()
            .with_context(|| path.display().to_string())?;
        if let Some(name) = self.names.get(&(place.clone(), unpacks)) {
            return Ok(name.clone());
        }
        let mut content = std::fs::read(&place).with_context(|| path.display().to_string())?;
        if unpacks {
            content = unpack::kernel(content).with_context(|| path.display().to_string())?;
        }
        if content.is_empty() {
            bail!("{} is empty", path.display());
        }
        let name = self.free_name(&place);
        self.files.push((name.clone(), content));
        self.names.insert((place, unpacks), name.clone());
        Ok(name)
    }

    /// Makes a name of the file's own that no other has.
    fn free_name(&self, path: &Path) -> String {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        let plain: String = own
            .chars()
            .map(|c| {
                if c.is_ascii_graphic() && c != '/' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let is_taken = |name: &str| {
            name == config::MANIFEST_FILE || self.files.iter().any(|(known, _)| known == name)
        };
        let numbered = (2..).map(|number| format!("{plain}.{number}"));
        std::iter::once(plain.clone())
            .chain(numbered)
            .find(|name| !is_taken(name))
            .unwrap_or(plain)
    }
}

/// Writes the manifest as a device tree.
fn device_tree(manifest: &ManifestToml, files: &[VmFiles]) -> anyhow::Result<Vec<u8>> {
    let mut writer = FdtWriter::new()?;
    let root = writer.begin_node("")?;
    writer.property_string("compatible", config::COMPATIBLE)?;
    let options = writer.begin_node("hypervisor")?;
    let given = &manifest.hypervisor.values;
    write_values(&mut writer, schema::HYPERVISOR, given, &FileNames::new())?;
    writer.end_node(options)?;
    let vms = writer.begin_node("vms")?;
    for (vm, files) in manifest.vms.iter().zip(files) {
        write_vm(&mut writer, vm, files).with_context(|| format!("[[vm]] \"{}\"", vm.name))?;
    }
    writer.end_node(vms)?;
    writer.end_node(root)?;
    Ok(writer.finish()?)
}

fn write_vm(writer: &mut FdtWriter, vm: &VmToml, files: &VmFiles) -> anyhow::Result<()> {
    if VmName::new(&vm.name).is_none() {
        bail!("name {}", Problem::NotName);
    }
    let node = writer.begin_node(&vm.name)?;
    write_values(writer, schema::VM, &vm.values, &files.own)?;
    let mut names = files.items.iter();
    for section in schema::SECTIONS {
        let Some(tables) = vm.sections.get(section.name) else {
            continue;
        };
        let parent = writer.begin_node(section.name)?;
        // The names go on where those of the last section ended.
        for (number, (item, files)) in tables.iter().zip(names.by_ref()).enumerate() {
            let place = || item_name(section, &item.name);
            if section.has_name && VmName::new(&item.name).is_none() {
                return Err(anyhow!("name {}", Problem::NotName)).with_context(place);
            }
            let node = writer.begin_node(&node_name(section, item, number))?;
            write_values(writer, section.keys, &item.values, files).with_context(place)?;
            writer.end_node(node)?;
        }
        writer.end_node(parent)?;
    }
    writer.end_node(node)?;
    Ok(())
}

/// Writes the values that are given as properties, in the schema's order.
fn write_values(
    writer: &mut FdtWriter,
    keys: &[Key],
    values: &Values,
    files: &FileNames,
) -> anyhow::Result<()> {
    for name in keys.iter().map(|key| key.name) {
        let written = match values.get(name) {
            None => continue,
            Some(Value::Text(text)) => writer.property_string(name, text),
            Some(Value::File(_)) => {
                writer.property_string(name, files.get(name).map_or("", String::as_str))
            }
            Some(Value::YesNo(value)) => {
                writer.property_string(name, schema::YES_NO[usize::from(*value)])
            }
            Some(Value::Count(number)) => writer.property_u32(name, *number),
            Some(Value::Wide(number)) => writer.property_u64(name, *number),
            Some(Value::List(numbers)) => writer.property_array_u32(name, numbers),
            Some(Value::Texts(texts)) => writer.property_string_list(name, texts.clone()),
        };
        written.with_context(|| name.to_string())?;
    }
    Ok(())
}

/// Opens the bundle as the hypervisor would, and plans where each VM's images go.
fn check(bundle: &[u8], manifest: &ManifestToml) -> anyhow::Result<()> {
    let bundle = config::Bundle::open(bundle).map_err(|error| anyhow!("{error}"))?;
    if let Some(problem) = bundle.manifest.problems.first() {
        bail!(in_toml(problem, manifest));
    }
    // How many CPUs the host has, only the host knows: as many here as a manifest can name.
    let mut slots = config::CpuSlots::new(usize::from(types::ids::MAX_VCPUS));
    for vm in &bundle.manifest.vms {
        let vm = vm
            .as_ref()
            .map_err(|error| anyhow!(in_toml(error, manifest)))?;
        slots
            .admit(vm)
            .map_err(|error| anyhow!(in_toml(&error, manifest)))?;
        let file = |name: &str| bundle.archive.file(name).unwrap_or_default();
        let request = loader::Request {
            ram: Region {
                base: vm.memory_base,
                size: vm.memory_bytes,
            },
            kernel: file(&vm.kernel),
            initrd_bytes: vm
                .initrd
                .as_deref()
                .map_or(0, |name| file(name).len() as u64),
            firmware: Region {
                base: vm.memory_base,
                size: FIRMWARE_SIZE,
            },
            mmfr0: EVERY_GRANULE,
        };
        loader::plan(&request)
            .map_err(|error| anyhow!("[[vm]] \"{}\": kernel \"{}\" {error}", vm.name, vm.kernel))?;
    }
    Ok(())
}

/// Says what is wrong in the words of the TOML form.
fn in_toml(error: &ConfigError, manifest: &ManifestToml) -> String {
    let place = Place::of(error, manifest);
    let value = place.values.and_then(|values| written(values, error));
    let value = value.unwrap_or_else(|| error.value.clone());
    let problem = problem_in_toml(error);
    let table = place.name;
    match (error.property.as_str(), value.is_empty()) {
        ("", _) if matches!(error.problem, Problem::TooMany(..)) => format!("{table}: {problem}"),
        ("", _) => format!("{table}: name {problem}"),
        (key, true) => format!("{table}: {key} {problem}"),
        (key, false) => format!("{table}: {key} = {value}: {problem}"),
    }
}

/// A table of the TOML form.
struct Place<'m> {
    /// How people call it.
    name: String,
    /// What is in it.
    values: Option<&'m Values>,
}

impl<'m> Place<'m> {
    /// Finds the table that an error is in.
    fn of(error: &ConfigError, manifest: &'m ManifestToml) -> Self {
        let Some(path) = error.node.strip_prefix("/vms/") else {
            let name = format!("[{}]", error.node.trim_start_matches('/'));
            return Self { name, values: None };
        };
        let mut parts = path.split('/');
        let (name, section) = (parts.next().unwrap_or(path), parts.next());
        let vm = manifest.vms.iter().find(|vm| vm.name == name);
        let table = format!("[[vm]] \"{name}\"");
        let (Some(section), Some(item)) = (section, parts.next()) else {
            let values = vm.map(|vm| &vm.values);
            return Self {
                name: table,
                values,
            };
        };
        let known = schema::SECTIONS.iter().find(|known| known.name == section);
        let items = vm.and_then(|vm| vm.sections.get(section));
        let found = known.zip(items).and_then(|(section, items)| {
            let mut numbered = items.iter().enumerate();
            numbered.find(|(number, known)| node_name(section, known, *number) == item)
        });
        Self {
            name: format!("{table} [[vm.{section}]] \"{item}\""),
            values: found.map(|(_, item)| &item.values),
        }
    }
}

/// The value of a key as the manifest has it, where the device tree's form of it is hard to recognize.
fn written(values: &Values, error: &ConfigError) -> Option<String> {
    match (
        form_of(&error.property)?,
        values.get(error.property.as_str())?,
    ) {
        // A single CPU's number already says which entry is wrong.
        (Form::List, _) if error.value.parse::<u64>().is_ok() => None,
        (Form::List, Value::List(numbers)) => Some(format!("{numbers:?}")),
        (Form::CountBounds | Form::MillicoreBounds, Value::List(bounds)) => match bounds[..] {
            [min, max] => Some(format!("{{ min = {min}, max = {max} }}")),
            _ => None,
        },
        (Form::Text, Value::Text(text)) => Some(format!("{text:?}")),
        (Form::Address, Value::Wide(address)) => Some(format!("{address:#x}")),
        _ => None,
    }
}

/// Returns the form of a key of a VM or of one of its devices; keys of one name have one form.
fn form_of(name: &str) -> Option<Form> {
    let sections = schema::SECTIONS.iter().flat_map(|section| section.keys);
    schema::VM
        .iter()
        .chain(sections)
        .find(|key| key.name == name)
        .map(|key| key.form)
}

/// Says what is wrong with a value and, where a number alone would not tell, what to write.
fn problem_in_toml(error: &ConfigError) -> String {
    let number: u64 = error.value.parse().unwrap_or(0);
    match (form_of(&error.property), &error.problem) {
        (Some(Form::Size), Problem::OutOfRange { min, max }) => {
            let meant = number.saturating_mul(1 << 20);
            let hint = match (number < *min, (*min..=*max).contains(&meant)) {
                (true, true) => format!("; that is {number} bytes: write {}", Bytes(meant)),
                (true, false) => format!("; that is {number} bytes"),
                (false, _) => String::new(),
            };
            format!("is not between {} and {}{hint}", Bytes(*min), Bytes(*max))
        }
        (Some(Form::Size), Problem::NotMultipleOf(unit)) => {
            let next = number.next_multiple_of(*unit);
            format!(
                "is not a multiple of {}: write {}",
                Bytes(*unit),
                Bytes(next)
            )
        }
        (Some(Form::Address), Problem::OutOfRange { min, max }) => {
            format!("is not between {min:#x} and {max:#x}")
        }
        (Some(Form::Address), Problem::NotMultipleOf(unit)) => {
            let next = number.next_multiple_of(*unit);
            format!("is not a multiple of {unit:#x}: write {next:#x}")
        }
        (Some(Form::List), Problem::NotList) => {
            format!("names no CPU: write {CPU_LIST}, or leave the key out")
        }
        (_, problem) => problem.to_string(),
    }
}

#[cfg(test)]
mod tests;
