//! The manifest's device tree, read into [`VmConfig`]s.
//!
//! Every property of every node is either known or an error, so a misspelt one is never a default by accident.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use types::address::GuestPhys;

use super::MANIFEST_FILE;
use super::devices;
use super::entitlement::{cap, entitlement};
use super::error::{ConfigError, Problem};
use super::options::{Options, pick};
use super::schema::{self, YES_NO};
use super::vm::{
    DEFAULT_MEMORY_BASE, DEFAULT_SPIS, GicChoice, Idle, MAX_BLOCK, MAX_SPIS, MAX_VCPUS_GICV2,
    MEMORY_LIMIT, MEMORY_UNIT, MIN_BLOCK, MIN_MEMORY, MIN_SPIS, OnReset, Placement, ReserveIdle,
    VmConfig, VmName,
};
use crate::devicetree::{Cells, Node, Tree};
use crate::firmware::Firmware;
use crate::topology::Topology;
use crate::uuid::Uuid;
use types::entitlement::Entitlement;
use types::ids::{DEFAULT_WEIGHT, MAX_VCPUS, MAX_VMS, MAX_WEIGHT, PcpuId};
use types::layout::{MAX_SLOTS, Slots};

/// The `compatible` of a manifest's root: the schema's name and version.
pub const COMPATIBLE: &str = "bullpen,manifest-1";
/// Longest command line of a guest in bytes: arm64 Linux has room for 2048 with the NUL.
pub const MAX_COMMAND_LINE: usize = 2047;
/// Number of SPIs that one register of the distributor holds a bit of (GIC IHI0069, 12.9.7): `spis` comes in these.
const SPIS_UNIT: u64 = 32;
/// What a node may hold.
const ROOT_PROPERTIES: &[&str] = &["compatible", "#address-cells", "#size-cells"];

/// A manifest, read.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Options of the hypervisor itself.
    pub options: Options,
    /// The VMs in the manifest's order, each with what is wrong with it if it cannot be used.
    pub vms: Vec<Result<VmConfig, ConfigError>>,
    /// What is wrong outside the VMs; none of it keeps a VM from starting.
    pub problems: Vec<ConfigError>,
}

impl Manifest {
    /// Reads the manifest `dtb`; `has_file` tells whether the bundle has a file of that name.
    ///
    /// # Errors
    /// A [`ConfigError`] when the blob is no manifest of this version. What is wrong with one VM is in its entry of
    /// [`Manifest::vms`].
    pub fn parse(dtb: &[u8], has_file: impl Fn(&str) -> bool) -> Result<Self, ConfigError> {
        let not_manifest = |why: String| error("/", "", String::new(), Problem::NotManifest(why));
        let tree = Tree::parse(dtb).map_err(|why| not_manifest(why.to_string()))?;
        let root = tree.root();
        if !root.is_compatible(&[COMPATIBLE]) {
            let found = root.string("compatible").unwrap_or("").to_string();
            return Err(error(
                "/",
                "compatible",
                found,
                Problem::NotOneOf(&[COMPATIBLE]),
            ));
        }
        let mut manifest = Self {
            options: Options::default(),
            vms: Vec::new(),
            problems: Vec::new(),
        };
        manifest.problems.extend(unknown_properties(&root, |name| {
            ROOT_PROPERTIES.contains(&name)
        }));
        for node in root.children() {
            match node.name() {
                "hypervisor" => manifest.read_options(&node),
                "vms" => manifest.read_vms(&node, &has_file),
                _ => manifest.problems.push(node_error(&node, Problem::Unknown)),
            }
        }
        if manifest.vms.is_empty() {
            manifest
                .problems
                .push(error("/vms", "", String::new(), Problem::Missing));
        }
        Ok(manifest)
    }

    fn read_options(&mut self, node: &Node<'_, '_>) {
        for (name, _) in node.properties() {
            let set = text(node, name).and_then(|value| {
                let value = value.unwrap_or_default();
                self.options
                    .set(name, value)
                    .map_err(|problem| property_error(node, name, problem))
            });
            self.problems.extend(set.err());
        }
        self.problems.extend(
            node.children()
                .map(|child| node_error(&child, Problem::Unknown)),
        );
    }

    fn read_vms(&mut self, parent: &Node<'_, '_>, has_file: &impl Fn(&str) -> bool) {
        self.problems.extend(unknown_properties(parent, |_| false));
        let mut names: Vec<String> = Vec::new();
        for node in parent.children() {
            if self.vms.len() == MAX_VMS {
                self.problems
                    .push(node_error(&node, Problem::TooMany(MAX_VMS, "VMs")));
                return;
            }
            let name = full_name(&node);
            let vm = match names.contains(&name) {
                true => Err(node_error(&node, Problem::Duplicate)),
                false => read_vm(&node, has_file).and_then(|vm| self.check_macs(&node, vm)),
            };
            names.push(name);
            self.vms.push(vm);
        }
    }

    /// Refuses a VM that has the address of a port of its own, or of a VM before it, in the same network.
    fn check_macs(&self, node: &Node<'_, '_>, vm: VmConfig) -> Result<VmConfig, ConfigError> {
        let before = self.vms.iter().flatten().flat_map(|vm| &vm.nets);
        match devices::same_mac(before, &vm.nets) {
            Some(mac) => Err(error(&node.path(), "mac", mac, Problem::Duplicate)),
            None => Ok(vm),
        }
    }
}

/// Returns a node's name with its unit address, which a VM's name cannot have.
pub(super) fn full_name(node: &Node<'_, '_>) -> String {
    let path = node.path();
    let start = path.bytes().rposition(|byte| byte == b'/');
    let name = start.and_then(|at| path.get(at.saturating_add(1)..));
    name.unwrap_or_default().to_string()
}

/// Reads one VM.
fn read_vm(node: &Node<'_, '_>, has_file: &impl Fn(&str) -> bool) -> Result<VmConfig, ConfigError> {
    let name = full_name(node);
    let name = VmName::new(&name).ok_or_else(|| node_error(node, Problem::NotName))?;
    if let Some(problem) = unknown_properties(node, is_key).next() {
        return Err(problem);
    }
    if let Some(problem) = unknown_sections(node).next() {
        return Err(problem);
    }
    let kernel = file(node, "kernel", has_file)?
        .ok_or_else(|| property_error(node, "kernel", Problem::Missing))?;
    let command_line = command_line(node)?;
    let gic = word(node, "gic", &GicChoice::WORDS, &GicChoice::ALL)?.unwrap_or(GicChoice::Auto);
    let most = u64::from(match gic {
        GicChoice::V2 => MAX_VCPUS_GICV2,
        GicChoice::Auto | GicChoice::V3 => MAX_VCPUS,
    });
    let boot_vcpus = number(node, "boot-vcpus", 1, most)?.unwrap_or(1);
    let max_vcpus = number(node, "max-vcpus", boot_vcpus, most)?.unwrap_or(boot_vcpus);
    let entitlement = entitlement(node, boot_vcpus, max_vcpus)?;
    let (memory_base, memory_bytes) = memory(node)?;
    let firmware = firmware(node, &command_line)?;
    let spis = number(node, "spis", u64::from(MIN_SPIS), u64::from(MAX_SPIS))?
        .unwrap_or(u64::from(DEFAULT_SPIS));
    multiple(node, "spis", spis, SPIS_UNIT)?;
    Ok(VmConfig {
        uuid: uuid(node, &name)?,
        topology: topology(node, max_vcpus as u16)?,
        name,
        kernel,
        initrd: file(node, "initrd", has_file)?,
        memory_bytes,
        memory_base,
        slots: slots(node, (memory_base, memory_bytes), firmware)?,
        // The limits above fit 16 bits.
        boot_vcpus: boot_vcpus as u16,
        max_vcpus: max_vcpus as u16,
        placement: placement(node)?,
        cpu_cap: cpu_cap(node, &entitlement)?,
        cpu_weight: number(node, "cpu-weight", 1, MAX_WEIGHT.into())?
            .map_or(DEFAULT_WEIGHT, |weight| weight as u16),
        entitlement,
        idle: idle(node)?.unwrap_or(Idle::Native),
        firmware,
        command_line,
        autostart: word(node, "autostart", &YES_NO, &[false, true])?.unwrap_or(true),
        on_reset: word(node, "on-reset", &OnReset::WORDS, &OnReset::ALL)?
            .unwrap_or(OnReset::KeepTarget),
        gic,
        spis: spis as u16,
        disks: devices::disks(node, has_file)?,
        nets: devices::nets(node)?,
        rng: word(node, "rng", &YES_NO, &[false, true])?.unwrap_or(false),
        reserve_idle: word(node, "reserve-idle", &ReserveIdle::WORDS, &ReserveIdle::ALL)?
            .unwrap_or(ReserveIdle::Wfi),
    })
}

/// Reads where the guest's memory is and how much of it there is.
fn memory(node: &Node<'_, '_>) -> Result<(GuestPhys, u64), ConfigError> {
    let lowest = DEFAULT_MEMORY_BASE.get();
    let limit = MEMORY_LIMIT.get();
    let base = number(
        node,
        "memory-base",
        lowest,
        limit.saturating_sub(MIN_MEMORY),
    )?
    .unwrap_or(lowest);
    multiple(node, "memory-base", base, MEMORY_UNIT)?;
    let bytes = number(node, "memory", MIN_MEMORY, limit.saturating_sub(base))?;
    let bytes = bytes.ok_or_else(|| property_error(node, "memory", Problem::Missing))?;
    multiple(node, "memory", bytes, MEMORY_UNIT)?;
    Ok((GuestPhys::new(base), bytes))
}

/// Reads where memory can be added: in blocks that Linux takes, above the memory of the boot, so that they never overlap it.
fn slots(
    node: &Node<'_, '_>,
    (base, bytes): (GuestPhys, u64),
    firmware: Firmware,
) -> Result<Slots, ConfigError> {
    const MAX: &str = "max-memory";
    const BLOCK: &str = "memory-block";
    let wanted = number(node, BLOCK, MIN_BLOCK, MAX_BLOCK)?;
    let most = MEMORY_LIMIT.get();
    let max = number(node, MAX, bytes, most)?.unwrap_or(bytes);
    let hot = max.saturating_sub(bytes);
    if hot == 0 {
        return Ok(Slots::NONE);
    }
    if firmware == Firmware::Fdt {
        let problem = Problem::Contradicts("firmware");
        return Err(property_error(node, MAX, problem));
    }
    let least = hot.div_ceil(u64::from(MAX_SLOTS)).next_power_of_two();
    let least = least.max(MIN_BLOCK);
    let block = wanted.unwrap_or(least);
    if !block.is_power_of_two() || !(least..=MAX_BLOCK).contains(&block) {
        let (min, max) = (least, MAX_BLOCK);
        return Err(number_error(
            node,
            BLOCK,
            block,
            Problem::OutOfRange { min, max },
        ));
    }
    if !hot.is_multiple_of(block) {
        return Err(number_error(node, MAX, max, Problem::NotBlocks(block)));
    }
    let above = base.get().saturating_add(bytes);
    let first = above.next_multiple_of(block);
    let room = most.saturating_sub(first);
    if hot > room {
        let (min, max) = (bytes, bytes.saturating_add(room));
        return Err(number_error(
            node,
            MAX,
            hot.saturating_add(bytes),
            Problem::OutOfRange { min, max },
        ));
    }
    Ok(Slots {
        base: GuestPhys::new(first),
        block,
        // At most MAX_SLOTS, by the least block.
        count: hot.checked_div(block).unwrap_or(0) as u16,
    })
}

/// Reads the guest's command line.
fn command_line(node: &Node<'_, '_>) -> Result<String, ConfigError> {
    const NAME: &str = "command-line";
    let line = text(node, NAME)?.unwrap_or_default();
    if line.len() > MAX_COMMAND_LINE {
        return Err(property_error(
            node,
            NAME,
            Problem::TooLong(MAX_COMMAND_LINE),
        ));
    }
    // The characters before the first that is wrong are one byte each.
    let wrong = line.bytes().position(|byte| !matches!(byte, b' '..=b'~'));
    if let Some(at) = wrong {
        let problem = Problem::NotPrintable(at.saturating_add(1));
        return Err(property_error(node, NAME, problem));
    }
    Ok(line.to_string())
}

/// Reads which firmware tables the guest gets. A guest told `acpi=off` would not find ACPI tables, so it gets a tree.
fn firmware(node: &Node<'_, '_>, command_line: &str) -> Result<Firmware, ConfigError> {
    let said = word(node, "firmware", &Firmware::WORDS, &Firmware::ALL)?.unwrap_or(Firmware::Acpi);
    let is_off = command_line
        .split_ascii_whitespace()
        .any(|word| word == "acpi=off");
    Ok(if is_off { Firmware::Fdt } else { said })
}

/// Reads what limits the VM's CPU time. A limit cannot be held where the guest's sleep looks like work.
fn cpu_cap(node: &Node<'_, '_>, entitlement: &Entitlement) -> Result<Option<u32>, ConfigError> {
    let cap = cap(entitlement, node)?;
    if cap.is_some() && idle(node)? == Some(Idle::Native) {
        let key = match node.property(schema::CPU_CAP) {
            Some(_) => schema::CPU_CAP,
            None => schema::ENTITLED_CAP,
        };
        let problem = Problem::Contradicts(key);
        return Err(property_error(node, schema::IDLE, problem));
    }
    Ok(cap)
}

/// Reads what the guest's WFI does.
fn idle(node: &Node<'_, '_>) -> Result<Option<Idle>, ConfigError> {
    word(node, schema::IDLE, &Idle::WORDS, &Idle::ALL)
}

/// Reads the list of physical CPUs.
fn placement(node: &Node<'_, '_>) -> Result<Placement, ConfigError> {
    const NAME: &str = "cpus";
    let Some(value) = node.property(NAME) else {
        return Ok(Placement::Auto);
    };
    let wrong = |problem| property_error(node, NAME, problem);
    if value.is_empty() || !value.len().is_multiple_of(4) {
        return Err(wrong(Problem::NotList));
    }
    let mut cells = Cells(value);
    let mut cpus = Vec::new();
    while let Some(index) = cells.cell() {
        let limit = Problem::OutOfRange {
            min: 0,
            max: u64::from(MAX_VCPUS - 1),
        };
        let index = u16::try_from(index)
            .ok()
            .filter(|index| *index < MAX_VCPUS)
            .ok_or_else(|| wrong(limit))?;
        let cpu = PcpuId::new(index);
        if cpus.contains(&cpu) {
            return Err(wrong(Problem::Duplicate));
        }
        cpus.push(cpu);
    }
    Ok(Placement::Pinned(cpus))
}

/// Reads the VM's UUID, or makes it of the name.
fn uuid(node: &Node<'_, '_>, name: &VmName) -> Result<Uuid, ConfigError> {
    const NAME: &str = "uuid";
    let Some(text) = text(node, NAME)? else {
        return Ok(Uuid::of_name(&name.to_string()));
    };
    Uuid::parse(text).ok_or_else(|| property_error(node, NAME, Problem::NotUuid))
}

/// Reads how the virtual CPUs are grouped.
fn topology(node: &Node<'_, '_>, vcpus: u16) -> Result<Option<Topology>, ConfigError> {
    const NAME: &str = "topology";
    let Some(value) = node.property(NAME) else {
        return Ok(None);
    };
    let (mut groups, mut cells) = ([0; 4], Cells(value));
    // A list that is too short has a product of 0.
    for group in &mut groups {
        *group = cells.cell().unwrap_or(0);
    }
    Some(groups)
        .filter(|groups| value.len() == size_of_val(groups))
        .and_then(|groups| Topology::new(groups, vcpus))
        .map(Some)
        .ok_or_else(|| property_error(node, NAME, Problem::NotTopology { vcpus }))
}

/// Reads the name of a file that must be in the bundle.
pub(super) fn file(
    node: &Node<'_, '_>,
    name: &str,
    has_file: &impl Fn(&str) -> bool,
) -> Result<Option<String>, ConfigError> {
    match text(node, name)? {
        Some(file) if !has_file(file) => Err(property_error(node, name, Problem::NoSuchFile)),
        file => Ok(file.map(ToString::to_string)),
    }
}

/// Reads a property that is one string.
pub(super) fn text<'a>(node: &Node<'_, 'a>, name: &str) -> Result<Option<&'a str>, ConfigError> {
    match (node.property(name), node.string(name)) {
        (Some(_), None) => Err(property_error(node, name, Problem::NotText)),
        (_, text) => Ok(text),
    }
}

/// Reads a property that is one of `words`.
pub(super) fn word<T: Copy>(
    node: &Node<'_, '_>,
    name: &str,
    words: &'static [&'static str],
    values: &[T],
) -> Result<Option<T>, ConfigError> {
    let pick =
        |text| pick(text, words, values).map_err(|problem| property_error(node, name, problem));
    text(node, name)?.map(pick).transpose()
}

/// Reads a property that is a number within limits.
pub(super) fn number(
    node: &Node<'_, '_>,
    name: &str,
    min: u64,
    max: u64,
) -> Result<Option<u64>, ConfigError> {
    if node.property(name).is_none() {
        return Ok(None);
    }
    let number = node
        .number(name)
        .ok_or_else(|| property_error(node, name, Problem::NotNumber))?;
    if !(min..=max).contains(&number) {
        return Err(number_error(
            node,
            name,
            number,
            Problem::OutOfRange { min, max },
        ));
    }
    Ok(Some(number))
}

/// Checks that a number is a multiple of `unit`.
pub(super) fn multiple(
    node: &Node<'_, '_>,
    name: &str,
    number: u64,
    unit: u64,
) -> Result<(), ConfigError> {
    match number.is_multiple_of(unit) {
        true => Ok(()),
        false => Err(number_error(
            node,
            name,
            number,
            Problem::NotMultipleOf(unit),
        )),
    }
}

/// Goes through the children of a VM's node that are no section of it, or are there twice.
fn unknown_sections<'t>(node: &'t Node<'_, '_>) -> impl Iterator<Item = ConfigError> + 't {
    node.children().enumerate().filter_map(|(index, child)| {
        let name = full_name(&child);
        let mut earlier = node.children().take(index);
        let problem = match schema::SECTIONS.iter().any(|section| section.name == name) {
            true => earlier
                .any(|other| full_name(&other) == name)
                .then_some(Problem::Duplicate)?,
            false => Problem::Unknown,
        };
        Some(node_error(&child, problem))
    })
}

/// Returns whether a VM has a key of this name.
fn is_key(name: &str) -> bool {
    schema::VM.iter().any(|key| key.name == name)
}

/// Goes through the properties of a node that are not `known`, or are there twice.
pub(super) fn unknown_properties<'t>(
    node: &'t Node<'_, '_>,
    known: impl Fn(&str) -> bool + 't,
) -> impl Iterator<Item = ConfigError> + 't {
    node.properties()
        .enumerate()
        .filter_map(move |(index, (name, _))| {
            let problem = match known(name) {
                true => node
                    .properties()
                    .take(index)
                    .any(|(earlier, _)| earlier == name)
                    .then_some(Problem::Duplicate)?,
                false => Problem::Unknown,
            };
            Some(property_error(node, name, problem))
        })
}

fn error(node: &str, property: &str, value: String, problem: Problem) -> ConfigError {
    ConfigError {
        file: MANIFEST_FILE,
        node: node.to_string(),
        property: property.to_string(),
        value,
        problem,
    }
}

pub(super) fn node_error(node: &Node<'_, '_>, problem: Problem) -> ConfigError {
    error(&node.path(), "", String::new(), problem)
}

/// Names a property with its value as it stands in the tree.
pub(super) fn property_error(node: &Node<'_, '_>, name: &str, problem: Problem) -> ConfigError {
    let value = node
        .property(name)
        .map_or(String::new(), crate::devicetree::show);
    error(&node.path(), name, value, problem)
}

/// Names a property with its value as a number.
pub(super) fn number_error(
    node: &Node<'_, '_>,
    name: &str,
    number: u64,
    problem: Problem,
) -> ConfigError {
    error(&node.path(), name, number.to_string(), problem)
}
