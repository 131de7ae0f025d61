//! Device trees: the full one for guests that boot without ACPI, and what every guest finds under `/chosen`.
//!
//! Bindings are Linux's (Documentation/devicetree/bindings); node names and the order of things are QEMU virt's.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use vm_fdt::{FdtWriter, FdtWriterNode};

use super::efi::Location;
use super::{Error, Machine};
use crate::ids::VcpuId;
use crate::layout::{DeviceSlot, Region};

/// `linux,uefi-secure-boot`: Debian's kernels take a tree without it for a broken one.
const SECURE_BOOT_DISABLED: u32 = 2;

/// Phandle of the interrupt controller.
const PHANDLE_GIC: u32 = 1;
/// Phandle of the fixed clock.
const PHANDLE_CLOCK: u32 = 2;

/// Frequency of the clock that feeds the PL011 and the PL031, in Hz.
const CLOCK_HZ: u32 = 24_000_000;

/// `interrupts` cells of a GIC (bindings: arm,gic-v3): kind of interrupt, number within the kind, trigger.
const GIC_SPI: u32 = 0;
const GIC_PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// First INTID that is an SPI (GIC IHI0069, 2.2.1).
const FIRST_SPI: u32 = 32;

/// PPI numbers of the timers in the order of the binding arm,arch_timer: secure, non-secure, virtual, hypervisor.
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];

/// Writes the tree of a machine that has no ACPI tables: its boot vCPUs and its devices.
pub(super) fn full(machine: &Machine<'_>) -> Result<Vec<u8>, Error> {
    write_full(machine).map_err(|_| Error::Internal("the device tree"))
}

/// Writes the tree that leads to the EFI tables and says nothing else: with any other node, Linux would not look for ACPI.
pub(super) fn stub(machine: &Machine<'_>, efi: Location) -> Result<Vec<u8>, Error> {
    write_stub(machine, efi).map_err(|_| Error::Internal("the device tree"))
}

/// The writer, and a handle to the root node while it is open.
struct Tree {
    fdt: FdtWriter,
    root: FdtWriterNode,
}

impl Tree {
    /// Begins a tree whose addresses and sizes take two cells each.
    fn new() -> vm_fdt::FdtWriterResult<Self> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        Ok(Self { fdt, root })
    }

    /// Adds a node with what `fill` puts in it.
    fn node(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Self) -> vm_fdt::FdtWriterResult<()>,
    ) -> vm_fdt::FdtWriterResult<()> {
        let node = self.fdt.begin_node(name)?;
        fill(self)?;
        self.fdt.end_node(node)
    }

    fn finish(mut self) -> vm_fdt::FdtWriterResult<Vec<u8>> {
        self.fdt.end_node(self.root)?;
        self.fdt.finish()
    }
}

fn write_full(machine: &Machine<'_>) -> vm_fdt::FdtWriterResult<Vec<u8>> {
    let layout = machine.layout;
    let uart = named("pl011", layout.uart.registers);
    let mut tree = Tree::new()?;
    tree.fdt
        .property_string_list("compatible", strings(&["bullpen,virt", "linux,dummy-virt"]))?;
    tree.fdt.property_string("model", "bullpen,virt")?;
    tree.fdt.property_u32("interrupt-parent", PHANDLE_GIC)?;
    let console = format!("/{uart}");
    tree.node("aliases", |tree| {
        tree.fdt.property_string("serial0", &console)
    })?;
    tree.node("chosen", |tree| {
        tree.fdt.property_string("stdout-path", &console)?;
        chosen(&mut tree.fdt, machine)
    })?;
    for bank in machine.memory {
        tree.node(&named("memory", *bank), |tree| {
            tree.fdt.property_string("device_type", "memory")?;
            tree.fdt.property_array_u64("reg", &reg(*bank))
        })?;
    }
    cpus(&mut tree, machine)?;
    tree.node("psci", |tree| {
        tree.fdt
            .property_string_list("compatible", strings(&["arm,psci-1.0", "arm,psci-0.2"]))?;
        tree.fdt.property_string("method", "hvc")
    })?;
    timer(&mut tree)?;
    gic(&mut tree, machine)?;
    tree.node("apb-pclk", |tree| {
        tree.fdt.property_string("compatible", "fixed-clock")?;
        tree.fdt.property_u32("#clock-cells", 0)?;
        tree.fdt.property_u32("clock-frequency", CLOCK_HZ)?;
        tree.fdt.property_string("clock-output-names", "clk24mhz")?;
        tree.fdt.property_phandle(PHANDLE_CLOCK)
    })?;
    primecell(&mut tree, "pl011", layout.uart, &["uartclk", "apb_pclk"])?;
    primecell(&mut tree, "pl031", layout.rtc, &["apb_pclk"])?;
    tree.finish()
}

fn write_stub(machine: &Machine<'_>, efi: Location) -> vm_fdt::FdtWriterResult<Vec<u8>> {
    let mut tree = Tree::new()?;
    tree.node("chosen", |tree| {
        let fdt = &mut tree.fdt;
        chosen(fdt, machine)?;
        fdt.property_u64("linux,uefi-system-table", efi.system_table)?;
        fdt.property_u64("linux,uefi-mmap-start", efi.memory_map)?;
        fdt.property_u32("linux,uefi-mmap-size", efi.memory_map_size)?;
        fdt.property_u32("linux,uefi-mmap-desc-size", efi.descriptor_size)?;
        fdt.property_u32("linux,uefi-mmap-desc-ver", efi.descriptor_version)?;
        fdt.property_u32("linux,uefi-secure-boot", SECURE_BOOT_DISABLED)
    })?;
    tree.finish()
}

/// Writes what a kernel is given at every boot: command line, RAM disk, randomness.
fn chosen(fdt: &mut FdtWriter, machine: &Machine<'_>) -> vm_fdt::FdtWriterResult<()> {
    fdt.property_string("bootargs", machine.bootargs)?;
    if let Some(initrd) = machine.initrd {
        let start = initrd.base.get();
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", start.saturating_add(initrd.size))?;
    }
    fdt.property("rng-seed", &machine.seeds.rng)?;
    fdt.property_u64("kaslr-seed", machine.seeds.kaslr)
}

/// Describes the boot vCPUs; a device tree has no words for one that may come later.
fn cpus(tree: &mut Tree, machine: &Machine<'_>) -> vm_fdt::FdtWriterResult<()> {
    tree.node("cpus", |tree| {
        tree.fdt.property_u32("#address-cells", 1)?;
        tree.fdt.property_u32("#size-cells", 0)?;
        for vcpu in (0..machine.boot_vcpus).map(VcpuId::new) {
            let affinity = vcpu.affinity();
            tree.node(&format!("cpu@{affinity:x}"), |tree| {
                tree.fdt.property_string("device_type", "cpu")?;
                tree.fdt.property_string("compatible", "arm,armv8")?;
                tree.fdt.property_u32("reg", affinity as u32)?;
                tree.fdt.property_string("enable-method", "psci")
            })?;
        }
        Ok(())
    })
}

fn timer(tree: &mut Tree) -> vm_fdt::FdtWriterResult<()> {
    tree.node("timer", |tree| {
        let compatible = strings(&["arm,armv8-timer", "arm,armv7-timer"]);
        tree.fdt.property_string_list("compatible", compatible)?;
        let interrupts: Vec<u32> = TIMER_PPIS
            .iter()
            .flat_map(|ppi| [GIC_PPI, *ppi, LEVEL_HIGH])
            .collect();
        tree.fdt.property_array_u32("interrupts", &interrupts)?;
        tree.fdt.property_null("always-on")
    })
}

fn gic(tree: &mut Tree, machine: &Machine<'_>) -> vm_fdt::FdtWriterResult<()> {
    let distributor = machine.layout.distributor;
    let redistributors = machine.layout.redistributors(machine.max_vcpus);
    tree.node(&named("intc", distributor), |tree| {
        let fdt = &mut tree.fdt;
        fdt.property_string("compatible", "arm,gic-v3")?;
        fdt.property_u32("#interrupt-cells", 3)?;
        fdt.property_u32("#address-cells", 0)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_u32(
            "#redistributor-regions",
            redistributors.regions().count() as u32,
        )?;
        let regions = core::iter::once(distributor).chain(redistributors.regions());
        fdt.property_array_u64("reg", &regions.flat_map(reg).collect::<Vec<u64>>())?;
        fdt.property_phandle(PHANDLE_GIC)
    })
}

/// Describes an Arm PrimeCell, all of whose clocks are the one we have.
fn primecell(
    tree: &mut Tree,
    kind: &str,
    slot: DeviceSlot,
    clocks: &[&str],
) -> vm_fdt::FdtWriterResult<()> {
    tree.node(&named(kind, slot.registers), |tree| {
        let fdt = &mut tree.fdt;
        fdt.property_string_list(
            "compatible",
            strings(&[&format!("arm,{kind}"), "arm,primecell"]),
        )?;
        fdt.property_array_u64("reg", &reg(slot.registers))?;
        let spi = slot.intid.saturating_sub(FIRST_SPI);
        fdt.property_array_u32("interrupts", &[GIC_SPI, spi, LEVEL_HIGH])?;
        fdt.property_array_u32("clocks", &alloc::vec![PHANDLE_CLOCK; clocks.len()])?;
        fdt.property_string_list("clock-names", strings(clocks))
    })
}

/// Names a node by its kind and its first address.
fn named(kind: &str, region: Region) -> String {
    format!("{kind}@{:x}", region.base.get())
}

/// Returns the cells of a `reg` property: address and size, 64 bits each.
fn reg(region: Region) -> [u64; 2] {
    [region.base.get(), region.size]
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| String::from(*text)).collect()
}
