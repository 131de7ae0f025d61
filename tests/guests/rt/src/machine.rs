//! What the guest runs on, as its device tree tells it; defaults are those of QEMU's virt machine.
//!
//! A tree that only holds `/chosen` (an ACPI guest's) leaves the defaults, and the CPUs are found by asking PSCI.
#![expect(unsafe_code, reason = "the device tree is bytes at an address")]

use crate::{mmu, psci, uart};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use fdt::nodes::Node;
use fdt::parsing::{NoPanic, unaligned::UnalignedParser};

type Tree = (UnalignedParser<'static>, NoPanic);

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// By `hvc`.
    Hvc,
    /// By `smc`.
    Smc,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

/// Most redistributor regions kept.
const REGIONS: usize = 8;
/// CPUs of one Aff0 range in the numbering that QEMU, KVM and Bullpen use.
const CPUS_PER_CLUSTER: u64 = 16;

/// The machine.
pub struct Machine {
    conduit: Conduit,
    distributor: u64,
    cpu_interface: u64,
    redistributors: [Region; REGIONS],
    cpus: [u64; crate::cpu::MAX_CPUS],
    cpu_count: usize,
    ram: Option<Region>,
    image: Region,
    bootargs: &'static str,
    described: bool,
}

struct Holder(UnsafeCell<Machine>);

// SAFETY: written by the boot CPU before any other runs, read-only afterwards.
unsafe impl Sync for Holder {}

static MACHINE: Holder = Holder(UnsafeCell::new(Machine {
    conduit: Conduit::Hvc,
    distributor: 0x0800_0000,
    cpu_interface: 0x0801_0000,
    redistributors: [Region { base: 0, size: 0 }; REGIONS],
    cpus: [0; crate::cpu::MAX_CPUS],
    cpu_count: 1,
    ram: None,
    image: Region { base: 0, size: 0 },
    bootargs: "",
    described: false,
}));
static READY: AtomicBool = AtomicBool::new(false);

/// Returns the machine; panics before it has been discovered.
#[must_use]
pub fn machine() -> &'static Machine {
    assert!(
        READY.load(Ordering::Acquire),
        "the machine is not known yet"
    );
    // SAFETY: nothing writes it once READY is set.
    unsafe { &*MACHINE.0.get() }
}

/// Returns the PSCI conduit, usable before the machine is known.
pub(crate) fn conduit() -> Conduit {
    if READY.load(Ordering::Acquire) {
        machine().conduit
    } else {
        Conduit::Hvc
    }
}

impl Machine {
    /// Returns the GIC distributor's address.
    #[must_use]
    pub fn distributor(&self) -> u64 {
        self.distributor
    }

    /// Returns the address of a GICv2's CPU interface.
    #[must_use]
    pub fn cpu_interface(&self) -> u64 {
        self.cpu_interface
    }

    /// Returns the redistributor regions.
    pub fn redistributors(&self) -> impl Iterator<Item = Region> + '_ {
        self.redistributors
            .iter()
            .copied()
            .filter(|region| region.size != 0)
    }

    /// Returns the affinities of all CPUs that may be started, the boot CPU's first.
    #[must_use]
    pub fn cpus(&self) -> &[u64] {
        self.cpus.get(..self.cpu_count).unwrap_or(&[])
    }

    /// Returns the first bank of RAM, when the tree names one.
    #[must_use]
    pub fn ram(&self) -> Option<Region> {
        self.ram
    }

    /// Returns where this image and its data lie.
    #[must_use]
    pub fn image(&self) -> Region {
        self.image
    }

    /// Returns the conduit.
    #[must_use]
    pub fn conduit(&self) -> Conduit {
        self.conduit
    }

    /// Tells whether a device tree described the hardware.
    #[must_use]
    pub fn described(&self) -> bool {
        self.described
    }

    /// Returns the kernel command line.
    #[must_use]
    pub fn bootargs(&self) -> &'static str {
        self.bootargs
    }

    /// Tells whether the command line holds this word.
    #[must_use]
    pub fn word(&self, word: &str) -> bool {
        self.bootargs
            .split_ascii_whitespace()
            .any(|found| found == word)
    }

    /// Returns what follows `name=` on the command line.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'static str> {
        self.bootargs.split_ascii_whitespace().find_map(|word| {
            word.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
        })
    }

    /// Returns the number that follows `name=` on the command line.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name).and_then(|text| text.parse().ok())
    }
}

/// Reads the device tree.
pub(crate) fn discover(dtb: u64, image: u64, image_end: u64) {
    // SAFETY: no other CPU runs, and READY is not set.
    let machine = unsafe { &mut *MACHINE.0.get() };
    machine.image = Region {
        base: image,
        size: image_end - image,
    };
    machine.cpus[0] = crate::cpu::affinity();
    machine.redistributors[0] = Region {
        base: 0x080a_0000,
        size: 0x00f6_0000,
    };
    if dtb != 0 && dtb.is_multiple_of(8) {
        // SAFETY: the boot protocol passes the address of a device tree, whose header gives its length.
        let tree = unsafe { fdt::Fdt::from_ptr_unaligned_fallible(dtb as *const u8) };
        if let Ok(tree) = tree {
            read_tree(machine, &tree);
        }
    }
    uart::init();
    READY.store(true, Ordering::Release);
    if !machine.described {
        probe_cpus(machine);
    }
}

fn read_tree(machine: &mut Machine, tree: &fdt::Fdt<'static, Tree>) {
    let mut stdout = None;
    let Ok(nodes) = tree.all_nodes() else { return };
    for entry in nodes {
        let Ok((_, node)) = entry else { return };
        let name = node.name().map_or("", |name| name.name);
        match name {
            "chosen" => {
                machine.bootargs = string(&node, "bootargs").unwrap_or("");
                stdout = string(&node, "stdout-path");
            }
            "psci" => {
                machine.described = true;
                if string(&node, "method") == Some("smc") {
                    machine.conduit = Conduit::Smc;
                }
            }
            "memory" => read_memory(machine, &node),
            "cpu" => read_cpu(machine, &node),
            _ if is_gic(&node) => read_gic(machine, &node),
            _ if is_gicv2(&node) => {
                machine.distributor = cells(&node, 0).unwrap_or(machine.distributor);
                machine.cpu_interface = cells(&node, 2).unwrap_or(machine.cpu_interface);
            }
            // Xen gives its guests this one and names no `stdout-path`.
            _ if string(&node, "compatible") == Some("arm,sbsa-uart") => {
                if let Some(base) = cells(&node, 0) {
                    uart::set_base(base);
                    uart::set_preset();
                }
            }
            _ => {}
        }
    }
    if let Some(path) = stdout
        && let Ok(Some(node)) = tree.find_node(path.split(':').next().unwrap_or(path))
        && let Some(base) = cells(&node, 0)
    {
        uart::set_base(base);
    }
}

fn raw(node: &Node<'static, Tree>, name: &str) -> Option<&'static [u8]> {
    node.raw_property(name)
        .ok()
        .flatten()
        .map(|property| property.value)
}

fn string(node: &Node<'static, Tree>, name: &str) -> Option<&'static str> {
    let bytes = raw(node, name)?;
    core::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
}

/// Returns the 64-bit number of two cells of `reg`, counted in pairs.
fn cells(node: &Node<'static, Tree>, pair: usize) -> Option<u64> {
    let bytes = raw(node, "reg")?.get(pair * 8..pair * 8 + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn read_memory(machine: &mut Machine, node: &Node<'static, Tree>) {
    let mut pair = 0;
    while let (Some(base), Some(size)) = (cells(node, pair), cells(node, pair + 1)) {
        machine.ram.get_or_insert(Region { base, size });
        let mut address = base;
        while address < base.saturating_add(size) {
            mmu::add_ram(address);
            address = (address / mmu::GIB + 1) * mmu::GIB;
        }
        pair += 2;
    }
}

fn read_cpu(machine: &mut Machine, node: &Node<'static, Tree>) {
    let affinity = match raw(node, "reg") {
        Some(&[a, b, c, d]) => u64::from(u32::from_be_bytes([a, b, c, d])),
        Some(_) => cells(node, 0).unwrap_or(0),
        None => return,
    };
    if affinity == machine.cpus[0] {
        return;
    }
    if let Some(slot) = machine.cpus.get_mut(machine.cpu_count) {
        *slot = affinity;
        machine.cpu_count += 1;
    }
}

fn is_gic(node: &Node<'static, Tree>) -> bool {
    string(node, "compatible") == Some("arm,gic-v3")
}

fn is_gicv2(node: &Node<'static, Tree>) -> bool {
    let model = string(node, "compatible");
    matches!(model, Some("arm,gic-400" | "arm,cortex-a15-gic"))
}

fn read_gic(machine: &mut Machine, node: &Node<'static, Tree>) {
    machine.distributor = cells(node, 0).unwrap_or(machine.distributor);
    let count = match raw(node, "#redistributor-regions") {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]) as usize,
        _ => 1,
    };
    for (index, slot) in machine.redistributors.iter_mut().enumerate().take(count) {
        if let (Some(base), Some(size)) = (cells(node, 2 + 2 * index), cells(node, 3 + 2 * index)) {
            *slot = Region { base, size };
        }
    }
}

/// Finds the CPUs by AFFINITY_INFO, which answers INVALID_PARAMETERS for one that does not exist; `cpus=n` says when to
/// stop, where some that exist are held back.
fn probe_cpus(machine: &mut Machine) {
    let most = machine
        .number("cpus")
        .unwrap_or(u64::MAX)
        .clamp(1, crate::cpu::MAX_CPUS as u64);
    for index in 1..most {
        let affinity = ((index / CPUS_PER_CLUSTER) << 8) | (index % CPUS_PER_CLUSTER);
        if psci::affinity_info(affinity) < 0 {
            return;
        }
        machine.cpus[machine.cpu_count] = affinity;
        machine.cpu_count += 1;
    }
}
