//! Device trees: the full one for guests that boot without ACPI, and what every guest finds under `/chosen`.
//!
//! Bindings are Linux's (Documentation/devicetree/bindings); node names and the order of things are QEMU virt's.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Machine;
use super::efi::Location;
use crate::devicetree::TreeWriter;
use types::devices::{DeviceId, Node, Row};
use types::ids::VcpuId;
use types::layout::{DeviceSlot, GicVersion, PMU_OVERFLOW, Region};

/// `linux,uefi-secure-boot`: Debian's kernels take a tree without it for a broken one.
const SECURE_BOOT_DISABLED: u32 = 2;

/// Phandle of the interrupt controller.
const PHANDLE_GIC: u32 = 1;
/// Phandle of the fixed clock.
const PHANDLE_CLOCK: u32 = 2;

/// Frequency of the clock that feeds all devices, in Hz.
const CLOCK_HZ: u32 = 24_000_000;

/// `interrupts` cells of a GIC (bindings: arm,gic-v3): kind of interrupt, number within the kind, trigger.
const GIC_SPI: u32 = 0;
const GIC_PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// First INTIDs that are a PPI and an SPI (GIC IHI0069, 2.2.1).
const FIRST_PPI: u32 = 16;
const FIRST_SPI: u32 = 32;

/// PPI numbers of the timers in the order of the binding arm,arch_timer: secure, non-secure, virtual, hypervisor.
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];

/// vCPUs that are described in one step.
const VCPUS_A_STEP: u16 = 4;

/// The tree of a machine that has no ACPI tables, some nodes a step: its boot vCPUs and its devices.
#[derive(Clone, Debug)]
pub(super) struct Full {
    tree: TreeWriter,
    next: Next,
}

/// What a step writes.
#[derive(Clone, Copy, Debug)]
enum Next {
    Root,
    Chosen,
    Memory,
    Cpus { first: u16 },
    Timer,
    Gic,
    Devices { first: usize },
}

impl Full {
    /// Begins the tree.
    pub(super) fn new() -> Self {
        Self {
            tree: TreeWriter::default(),
            next: Next::Root,
        }
    }

    /// Returns how many bytes describe the nodes so far.
    #[cfg(test)]
    pub(super) const fn written(&self) -> usize {
        self.tree.written()
    }

    /// Does the next step for the same machine; returns the tree after the last.
    pub(super) fn step(&mut self, machine: &Machine<'_>) -> Option<Vec<u8>> {
        let tree = &mut self.tree;
        self.next = match self.next {
            Next::Root => {
                root(tree, machine);
                Next::Chosen
            }
            Next::Chosen => {
                given(tree, machine);
                Next::Memory
            }
            Next::Memory => {
                memory(tree, machine);
                begin_cpus(tree);
                Next::Cpus { first: 0 }
            }
            Next::Cpus { first } if first < machine.boot_vcpus => {
                let end = machine.boot_vcpus.min(first.saturating_add(VCPUS_A_STEP));
                (first..end).for_each(|index| cpu(tree, VcpuId::new(index)));
                Next::Cpus { first: end }
            }
            Next::Cpus { .. } => {
                tree.end();
                psci(tree);
                Next::Timer
            }
            Next::Timer => {
                timer(tree);
                if machine.has_pmu_interrupt {
                    pmu(tree);
                }
                Next::Gic
            }
            Next::Gic => {
                gic(tree, machine);
                clock(tree);
                Next::Devices { first: 0 }
            }
            Next::Devices { first } => {
                let nodes = DeviceId::ALL.into_iter().filter_map(|id| {
                    let row = id.row();
                    Some((id, row, row.node?))
                });
                let mut slots = nodes.flat_map(|(id, row, node)| {
                    machine.windows(id).map(move |slot| (row, node, slot))
                });
                let Some((row, node, slot)) = slots.nth(first) else {
                    tree.end();
                    return Some(core::mem::take(tree).finish());
                };
                device(tree, row, &node, slot);
                Next::Devices {
                    first: first.saturating_add(1),
                }
            }
        };
        None
    }
}

/// Begins the root and writes what is said of the whole machine.
fn root(tree: &mut TreeWriter, machine: &Machine<'_>) {
    let console = console(machine);
    begin_root(tree);
    tree.texts("compatible", &["bullpen,virt"]);
    tree.texts("model", &["bullpen,virt"]);
    tree.texts("serial-number", &[&format!("{}", machine.uuid)]);
    tree.cells("interrupt-parent", &[PHANDLE_GIC]);
    tree.node("aliases", |tree| tree.texts("serial0", &[&console]));
}

/// Writes what a kernel is given, and what is below it.
fn given(tree: &mut TreeWriter, machine: &Machine<'_>) {
    tree.node("chosen", |tree| {
        tree.texts("stdout-path", &[&console(machine)]);
        chosen(tree, machine);
    });
    // What runs below the guest: systemd reads it.
    tree.node("hypervisor", |tree| {
        tree.texts("compatible", &["bullpen,hypervisor"]);
    });
}

fn memory(tree: &mut TreeWriter, machine: &Machine<'_>) {
    for bank in machine.memory {
        tree.node(&named("memory", *bank), |tree| {
            tree.texts("device_type", &["memory"]);
            tree.numbers("reg", &reg(*bank));
        });
    }
}

fn psci(tree: &mut TreeWriter) {
    tree.node("psci", |tree| {
        tree.texts("compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
        tree.texts("method", &["hvc"]);
    });
}

/// Describes the clock that feeds all devices.
fn clock(tree: &mut TreeWriter) {
    tree.node("apb-pclk", |tree| {
        tree.texts("compatible", &["fixed-clock"]);
        tree.cells("#clock-cells", &[0]);
        tree.cells("clock-frequency", &[CLOCK_HZ]);
        tree.texts("clock-output-names", &["clk24mhz"]);
        tree.cells("phandle", &[PHANDLE_CLOCK]);
    });
}

/// Writes the tree that leads to the EFI tables and says nothing else: with any other node, Linux would not look for ACPI.
pub(super) fn stub(machine: &Machine<'_>, efi: Location) -> Vec<u8> {
    let mut tree = TreeWriter::default();
    begin_root(&mut tree);
    tree.node("chosen", |tree| {
        chosen(tree, machine);
        tree.numbers("linux,uefi-system-table", &[efi.system_table]);
        tree.numbers("linux,uefi-mmap-start", &[efi.memory_map]);
        tree.cells("linux,uefi-mmap-size", &[efi.memory_map_size]);
        tree.cells("linux,uefi-mmap-desc-size", &[efi.descriptor_size]);
        tree.cells("linux,uefi-mmap-desc-ver", &[efi.descriptor_version]);
        tree.cells("linux,uefi-secure-boot", &[SECURE_BOOT_DISABLED]);
    });
    tree.end();
    tree.finish()
}

/// Begins the root of a tree whose addresses and sizes take two cells each.
fn begin_root(tree: &mut TreeWriter) {
    tree.begin("");
    tree.cells("#address-cells", &[2]);
    tree.cells("#size-cells", &[2]);
}

/// Writes what a kernel is given at every boot: command line, RAM disk, randomness.
fn chosen(tree: &mut TreeWriter, machine: &Machine<'_>) {
    tree.texts("bootargs", &[machine.bootargs]);
    if let Some(initrd) = machine.initrd {
        let start = initrd.base.get();
        tree.numbers("linux,initrd-start", &[start]);
        tree.numbers("linux,initrd-end", &[start.saturating_add(initrd.size)]);
    }
    tree.property("rng-seed", &machine.seeds.rng);
    tree.numbers("kaslr-seed", &[machine.seeds.kaslr]);
}

/// Begins the node of the boot vCPUs; a device tree has no words for one that may come later.
fn begin_cpus(tree: &mut TreeWriter) {
    tree.begin("cpus");
    tree.cells("#address-cells", &[1]);
    tree.cells("#size-cells", &[0]);
}

fn cpu(tree: &mut TreeWriter, vcpu: VcpuId) {
    let affinity = vcpu.affinity();
    tree.node(&format!("cpu@{affinity:x}"), |tree| {
        tree.texts("device_type", &["cpu"]);
        tree.texts("compatible", &["arm,armv8"]);
        tree.cells("reg", &[affinity as u32]);
        tree.texts("enable-method", &["psci"]);
    });
}

fn timer(tree: &mut TreeWriter) {
    tree.node("timer", |tree| {
        tree.texts("compatible", &["arm,armv8-timer", "arm,armv7-timer"]);
        let interrupts: Vec<u32> = TIMER_PPIS
            .iter()
            .flat_map(|ppi| [GIC_PPI, *ppi, LEVEL_HIGH])
            .collect();
        tree.cells("interrupts", &interrupts);
        tree.property("always-on", &[]);
    });
}

/// Describes the performance monitors. Without their interrupt a kernel could not tell how often a counter of 32 bits has come round.
fn pmu(tree: &mut TreeWriter) {
    tree.node("pmu", |tree| {
        tree.texts("compatible", &["arm,armv8-pmuv3"]);
        let ppi = PMU_OVERFLOW.saturating_sub(FIRST_PPI);
        tree.cells("interrupts", &[GIC_PPI, ppi, LEVEL_HIGH]);
    });
}

fn gic(tree: &mut TreeWriter, machine: &Machine<'_>) {
    let distributor = machine.layout.distributor;
    let redistributors = machine.layout.redistributors(machine.max_vcpus);
    tree.node(&named("intc", distributor), |tree| {
        tree.texts(
            "compatible",
            match machine.layout.gic {
                GicVersion::V2 => &["arm,gic-400", "arm,cortex-a15-gic"],
                GicVersion::V3 => &["arm,gic-v3"],
            },
        );
        tree.cells("#interrupt-cells", &[3]);
        tree.cells("#address-cells", &[0]);
        tree.property("interrupt-controller", &[]);
        let mut frames = Vec::from(reg(distributor));
        match machine.layout.gic {
            GicVersion::V2 => frames.extend(reg(machine.layout.cpu_interface)),
            GicVersion::V3 => {
                let count = redistributors.regions().count();
                tree.cells("#redistributor-regions", &[count as u32]);
                frames.extend(redistributors.regions().flat_map(reg));
            }
        }
        tree.numbers("reg", &frames);
        tree.cells("phandle", &[PHANDLE_GIC]);
    });
}

/// Returns the path of the console.
fn console(machine: &Machine<'_>) -> String {
    let uart = DeviceId::Uart;
    let kind = uart.row().node.map_or("", |node| node.name);
    let name = named(kind, machine.layout.device(uart).registers);
    format!("/{name}")
}

/// Describes a device by its row.
fn device(tree: &mut TreeWriter, row: &Row, node: &Node, slot: DeviceSlot) {
    tree.node(&named(node.name, slot.registers), |tree| {
        tree.texts("compatible", node.compatible);
        tree.numbers("reg", &reg(slot.registers));
        let spi = slot.intid.saturating_sub(FIRST_SPI);
        tree.cells("interrupts", &[GIC_SPI, spi, LEVEL_HIGH]);
        if row.is_master {
            tree.property("dma-coherent", &[]);
        }
        let clocks = node.clocks;
        if !clocks.is_empty() {
            tree.cells("clocks", &alloc::vec![PHANDLE_CLOCK; clocks.len()]);
            tree.texts("clock-names", clocks);
        }
    });
}

/// Names a node by its kind and its first address.
fn named(kind: &str, region: Region) -> String {
    format!("{kind}@{:x}", region.base.get())
}

/// Returns the cells of a `reg` property: address and size, 64 bits each.
fn reg(region: Region) -> [u64; 2] {
    [region.base.get(), region.size]
}
