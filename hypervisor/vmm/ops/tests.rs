//! Lives of a VM on a fake host: what is taken is given back, what was another guest's is scrubbed, steps are short, events are told.

mod guest;
mod lives;
mod machine;
mod memory;
mod operator;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use control_plane::config::{
    CpuSlots, DiskConfig, GicChoice, Idle, OnReset, Placement, ReserveIdle, VmConfig, VmName,
};
use control_plane::console::{HostPower, Reply, VmPage, What};
use control_plane::firmware::{Firmware, Seeds};
use control_plane::topology::CpuFacts;
use control_plane::uuid::Uuid;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::sync::atomic::Ordering;
use stage2::{AddressSpace, Attributes, TableMemory, VmidWidth};
use types::access::AccessWidth;
use types::address::{GuestPhys, HostPhys};
use types::counter::CounterRate;
use types::devices::DeviceId;
use types::entitlement::Entitlement;
use types::ids::{PcpuId, VcpuId, VmId};
use types::layout::{GicVersion, Slots};

use super::{Description, GuestRam, Host, HostLimits, Instance, Vms};
use crate::cpu::{Manager, Placements};
use crate::devices::tests::NoMemory;
use crate::devices::{Access, Answer, Device, Work};
use crate::dispatch::{Trap, gic_v3};
use crate::features::{CpuFeatures, ID_REGISTERS};
use crate::memory::{GuestFault, GuestMemory};
use crate::sched::WakeSet;
use crate::vm::request;
use crate::vm::{Around, Cause, Kicks, Outside, Phase, Vcpu, Vm};
use control_plane::resize::Report;
use types::ids::MAX_PCPUS;
use types::stats::ExitReason;
use vgic::SavedListRegisters;

const RAM: u64 = 0x4000_0000;
/// The content of a disk.
const IMAGE: &[u8] = &[0x77; 3 * 4096];
const MEMORY: u64 = 8 << 20;
/// The clock's match register and its mask (ARM DDI 0224, 3.2); GICD_ISPENDR1 (GIC IHI0069, 12.9.20).
const MR: u64 = 0x4;
const IMSC: u64 = 0x10;
const ISPENDR1: u32 = 0x204;

/// Where the host has the guest's RAM.
const HOST_RAM: u64 = 0x1_0000_0000;

/// Where the host has blocks for memory slots.
const HOT_RAM: u64 = 0x10_0000_0000;

/// The size of one.
const HOT_BLOCK: u64 = 128 << 20;

/// A guest's RAM, and the longest piece that was worked on at a time.
#[derive(Debug)]
struct FakeRam {
    bytes: Vec<u8>,
    longest: Cell<u64>,
    cleaned: Cell<u64>,
}

impl FakeRam {
    fn at(&self, address: GuestPhys, bytes: u64) -> Result<Range<usize>, GuestFault> {
        self.longest.set(self.longest.get().max(bytes));
        let start = address.get().wrapping_sub(RAM);
        match start.checked_add(bytes) {
            Some(end) if end <= MEMORY => Ok(start as usize..end as usize),
            _ => Err(GuestFault { address }),
        }
    }
}

impl GuestRam for FakeRam {
    fn host_start(&self) -> u64 {
        HOST_RAM
    }
    fn load(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault> {
        let range = self.at(address, bytes.len() as u64)?;
        self.bytes[range].copy_from_slice(bytes);
        Ok(())
    }
    fn clean(&self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault> {
        self.at(address, bytes)?;
        self.cleaned.set(self.cleaned.get() + bytes);
        Ok(())
    }
    fn zero(&mut self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault> {
        let range = self.at(address, bytes)?;
        self.bytes[range].fill(0);
        Ok(())
    }
}

/// Where EL2's data is in the host's memory.
const RECORDS: u64 = 0x7_f000_0000;

/// Pages of tables, one after the other.
#[derive(Debug)]
struct FakePages {
    left: usize,
    next: u64,
    entries: BTreeMap<(u64, usize), u64>,
}

impl TableMemory for FakePages {
    fn allocate(&mut self, pages: usize) -> Option<HostPhys> {
        self.left = self.left.checked_sub(pages)?;
        let at = self.next.next_multiple_of(16 * 4096);
        self.next = at + pages as u64 * 4096;
        Some(HostPhys::new(at))
    }
    fn free(&mut self, _: HostPhys, pages: usize) {
        self.left += pages;
    }
    fn read(&self, table: HostPhys, index: usize) -> u64 {
        let entry = self.entries.get(&(table.get(), index));
        entry.copied().unwrap_or(0)
    }
    fn write(&mut self, table: HostPhys, index: usize, descriptor: u64) {
        self.entries.insert((table.get(), index), descriptor);
    }
    fn publish(&mut self) {}
}

/// A host with RAM for one guest.
#[derive(Default)]
struct Fake {
    ram: RefCell<Option<FakeRam>>,
    /// What another guest has left in it.
    dirty: RefCell<Vec<Range<u64>>>,
    scrubbed: Cell<u64>,
    longest_scrub: Cell<u64>,
    /// Memory that is left for devices, in bytes.
    device_memory: Cell<u64>,
    /// Blocks that are left for memory slots, and where those began that were given back.
    blocks: Cell<u64>,
    /// The most of them that are together, 0 for all; how often some were asked for.
    together: Cell<u64>,
    takes: Cell<u32>,
    released: RefCell<Vec<u64>>,
    /// How often the TLBs forgot all guests.
    forgotten: Cell<u32>,
    /// Pages that are taken.
    pages: Cell<usize>,
    /// CPUs that were asked to look at their deferred work, brought up, or kicked.
    asked: RefCell<Vec<u16>>,
    up: RefCell<Vec<u16>>,
    kicked: RefCell<Vec<u16>>,
    told: RefCell<Vec<String>>,
    ends: RefCell<Vec<String>>,
    now: Cell<u64>,
    /// CPUs that are off.
    off: RefCell<Vec<u16>>,
    /// No operator listens.
    unheard: Cell<bool>,
    /// CPUs that did something for the operator, and when they are to look again at the latest.
    attended: RefCell<Vec<(u16, Option<u64>)>>,
    /// How often the boot CPU was made to look at deadlines and events.
    looked: Cell<u32>,
    /// The machine has no firmware to turn it off, or how it was ended.
    endless: Cell<bool>,
    ended: Cell<Option<HostPower>>,
    epoch_s: Cell<Option<u64>>,
    /// The vCPUs that CPUs are to look at.
    wakes: Cell<&'static [WakeSet]>,
    placements: Cell<Option<&'static Placements>>,
    /// What the operator was answered; the console has no room for more.
    replied: RefCell<Vec<String>>,
    is_full: Cell<bool>,
}

impl Outside for Fake {
    fn now_ns(&self) -> u64 {
        self.now.get() * 16
    }
    fn memory(&self, _: &Vm) -> impl GuestMemory + use<> {
        NoMemory
    }
    fn random(&self) -> [u8; 32] {
        [0; 32]
    }
    fn vm(&self, _: VmId) -> Option<&'static Vm> {
        None
    }
}

impl Host for Fake {
    type Ram = FakeRam;
    type Pages = FakePages;

    fn now_ticks(&self) -> u64 {
        self.now.get()
    }
    fn ticks(&self, ns: u64) -> u64 {
        ns / 16
    }
    fn kick(&self, mut kicks: Kicks) {
        while let Some(cpu) = kicks.pop() {
            self.kicked.borrow_mut().push(cpu.get());
        }
    }
    fn ask(&self, cpu: PcpuId) {
        self.asked.borrow_mut().push(cpu.get());
    }
    fn bring_up(&self, cpu: PcpuId) {
        self.up.borrow_mut().push(cpu.get());
    }
    fn is_off(&self, cpu: PcpuId) -> bool {
        self.off.borrow().contains(&cpu.get())
    }
    fn take_ram(&self, vm: &Vm) -> Option<(FakeRam, Vec<Range<u64>>)> {
        assert_eq!((vm.memory.base.get(), vm.memory.size), (RAM, MEMORY));
        let ram = self.ram.borrow_mut().take()?;
        Some((ram, self.dirty.take()))
    }
    fn release_ram(&self, _: &Vm, ram: FakeRam) {
        self.dirty.borrow_mut().push(HOST_RAM..HOST_RAM + MEMORY);
        *self.ram.borrow_mut() = Some(ram);
    }
    fn take_block(&self, bytes: u64) -> Option<Range<u64>> {
        self.takes.set(self.takes.get() + 1);
        let blocks = bytes.div_ceil(HOT_BLOCK);
        let together = Some(self.together.get()).filter(|most| *most != 0);
        if together.is_some_and(|most| blocks > most) {
            return None;
        }
        let left = self.blocks.get().checked_sub(blocks)?;
        self.blocks.set(left);
        // In descending order, so that neighbours for the guest are none for the host.
        let start = HOT_RAM + left * HOT_BLOCK;
        Some(start..start + bytes)
    }
    fn release_block(&self, block: Range<u64>) {
        self.released.borrow_mut().push(block.start);
        self.blocks.set(self.blocks.get() + 1);
    }
    fn scrub(&self, range: Range<u64>) {
        let bytes = range.end - range.start;
        self.scrubbed.set(self.scrubbed.get() + bytes);
        self.longest_scrub.set(self.longest_scrub.get().max(bytes));
    }
    fn take_device_memory(&self, bytes: u64) -> Option<&'static mut [u8]> {
        if bytes > self.device_memory.get() {
            return None;
        }
        self.device_memory.set(self.device_memory.get() - bytes);
        Some(Box::leak(vec![0xee; bytes as usize].into_boxed_slice()))
    }
    fn release_device_memory(&self, memory: &'static mut [u8]) {
        self.device_memory
            .set(self.device_memory.get() + memory.len() as u64);
    }
    fn physical(&self, _: usize) -> HostPhys {
        HostPhys::new(RECORDS)
    }
    fn take_pages(&self, pages: usize) -> Option<FakePages> {
        self.pages.set(pages);
        Some(FakePages {
            left: pages,
            next: 0x8000_0000,
            entries: BTreeMap::new(),
        })
    }
    fn release_pages(&self, pages: FakePages) {
        assert_eq!(pages.left, self.pages.get(), "every table was freed");
        self.pages.set(0);
    }
    fn forget_all_guests(&self) {
        self.forgotten.set(self.forgotten.get() + 1);
    }
    fn invalidate_instructions(&self) {}
    fn seeds(&self) -> Seeds {
        Seeds {
            rng: [7; 32],
            kaslr: 7,
        }
    }
    fn is_heard(&self) -> bool {
        !self.unheard.get()
    }
    fn event(&self, _: u64, vm: &Vm, what: What) {
        self.told.borrow_mut().push(format!("{} {what:?}", vm.name));
    }
    fn time_ns(&self, ticks: u64) -> u64 {
        ticks * 16
    }
    fn ns(&self, ticks: u64) -> u64 {
        ticks * 16
    }
    fn attend(&self, cpu: PcpuId, next_ns: Option<u64>) {
        self.attended.borrow_mut().push((cpu.get(), next_ns));
    }
    fn resized(&self, instance: &Instance<Self>, report: Report) {
        let ended = format!("{} {:?}", instance.vm.name, report.outcome);
        self.ends.borrow_mut().push(ended);
    }
    fn show(&self, vm: &'static Vm) {
        self.told.borrow_mut().push(format!("{} shows", vm.name));
    }
    fn can_end(&self, _: HostPower) -> bool {
        !self.endless.get()
    }
    fn end(&self, power: HostPower) {
        self.ended.set(Some(power));
    }
    fn epoch_s(&self) -> Option<u64> {
        self.epoch_s.get()
    }
    fn set_epoch_s(&self, seconds: u64) {
        self.epoch_s.set(Some(seconds));
    }
    fn look_again(&self) {
        self.looked.set(self.looked.get() + 1);
    }
}

/// An arm64 Image (Linux, Documentation/arch/arm64/booting.rst) of so many bytes, the last of which is 0x5a.
fn kernel(bytes: usize) -> &'static [u8] {
    let mut file = vec![0x11_u8; bytes];
    file[8..16].copy_from_slice(&0_u64.to_le_bytes());
    file[16..24].copy_from_slice(&(bytes as u64 + 0x1_0000).to_le_bytes());
    file[24..32].copy_from_slice(&0_u64.to_le_bytes());
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file[bytes - 1] = 0x5a;
    Box::leak(file.into_boxed_slice())
}

/// A VM of two vCPUs and two in reserve on two CPUs, with a kernel of these bytes, on a host with memory for it or without.
fn vms(
    kernel: &'static [u8],
    has_ram: bool,
    change: impl FnOnce(&mut VmConfig),
) -> &'static Vms<Fake> {
    vms_with(kernel, &[], has_ram, change)
}

/// As [`vms`], with an initial RAM disk.
fn vms_with(
    kernel: &'static [u8],
    initrd: &'static [u8],
    has_ram: bool,
    change: impl FnOnce(&mut VmConfig),
) -> &'static Vms<Fake> {
    vms_on((GicVersion::V3, None), kernel, initrd, has_ram, change)
}

/// As [`vms_with`], on a machine with this interrupt controller and GICV.
fn vms_on(
    (gic, gicv): (GicVersion, Option<HostPhys>),
    kernel: &'static [u8],
    initrd: &'static [u8],
    has_ram: bool,
    change: impl FnOnce(&mut VmConfig),
) -> &'static Vms<Fake> {
    let mut config = VmConfig {
        name: VmName::new("guest").unwrap(),
        kernel: "kernel".to_string(),
        initrd: None,
        command_line: String::new(),
        memory_bytes: MEMORY,
        memory_base: GuestPhys::new(RAM),
        slots: Slots::NONE,
        boot_vcpus: 2,
        max_vcpus: 4,
        placement: Placement::Auto,
        firmware: Firmware::Acpi,
        autostart: true,
        on_reset: OnReset::KeepTarget,
        gic: GicChoice::Auto,
        spis: 64,
        reserve_idle: ReserveIdle::Wfi,
        cpu_cap: None,
        cpu_weight: 100,
        entitlement: Entitlement::default(),
        idle: Idle::Native,
        uuid: Uuid::of_name("guest"),
        topology: None,
        disks: Vec::new(),
        nets: Vec::new(),
        rng: false,
    };
    change(&mut config);
    let host = Fake::default();
    let ram = FakeRam {
        bytes: vec![0xee; MEMORY as usize],
        longest: Cell::new(0),
        cleaned: Cell::new(0),
    };
    *host.ram.borrow_mut() = has_ram.then_some(ram);
    let mut slots = CpuSlots::new(2);
    slots.admit(&config).unwrap();
    let limits = HostLimits {
        space: AddressSpace::new(40, 2).unwrap(),
        width: VmidWidth::Bits8,
        pa_code: 2,
        cpu: &CpuFacts::default(),
        features: &CpuFeatures::of([0x1111_1111_1111_1111; ID_REGISTERS]),
        gic,
        gicv,
        list_registers: 4,
        counter: CounterRate::new(62_500_000),
        wall_clock_s: 0,
        has_pmu_interrupt: true,
    };
    let description = Description {
        config,
        kernel,
        initrd,
        images: vec![IMAGE],
    };
    let wakes: &'static [WakeSet] = Box::leak(Box::new([const { WakeSet::new() }; MAX_PCPUS]));
    host.wakes.set(wakes);
    let placements: &_ = Box::leak(Box::new(Placements::new(MAX_PCPUS)));
    host.placements.set(Some(placements));
    let placed = (placements, wakes);
    Box::leak(Box::new(Vms::new(
        host,
        &limits,
        placed,
        vec![description],
        slots,
    )))
}

/// Does steps of deferred work of the VM's manager until there is none at once; returns how many there were.
fn work(vms: &Vms<Fake>) -> usize {
    let mut turn = 0;
    (0..100_000)
        .find(|_| !vms.go_on(PcpuId::new(0), &mut turn))
        .expect("work comes to its end")
}

/// Runs a vCPU that is turned on, as its CPU does.
fn run(vms: &Vms<Fake>, vcpu: usize) {
    let vm = vms.all()[0].vm;
    assert!(vm.own(&vm.vcpus[vcpu]));
    assert!(vm.vcpus[vcpu].power.start().is_some());
    assert!(vm.life.attach());
}

/// A VM with a small kernel that has been started and whose first vCPU runs.
fn running() -> (&'static Vms<Fake>, &'static Vm) {
    let vms = vms(kernel(4096), true, |_| {});
    let instance = &vms.all()[0];
    assert!(vms.start(instance));
    work(vms);
    run(vms, 0);
    (vms, instance.vm)
}

/// Lets go of a vCPU whose VM ends, as its CPU does.
fn leave(vms: &Vms<Fake>) {
    let vm = vms.all()[0].vm;
    let _last = vm.life.detach();
    if vm.disown(&vm.vcpus[0]) {
        vms.all_left(vm);
    }
}

/// Returns where a guest address leads.
fn translate(instance: &Instance<Fake>, address: u64) -> Option<(HostPhys, stage2::Attributes)> {
    let state = instance.state.lock();
    let (tables, pages) = state.tables.as_ref().expect("it has tables");
    let found = tables.translate(pages, GuestPhys::new(address))?;
    Some((found.host, found.attributes))
}

#[test]
fn a_gicv2_s_guest_reaches_the_first_page_of_gicv_alone() {
    let gicv = HostPhys::new(0xff84_6000);
    let machines = [
        (GicVersion::V2, GicChoice::Auto, true),
        (GicVersion::V3, GicChoice::V2, true),
        (GicVersion::V3, GicChoice::Auto, false),
    ];
    for (native, choice, is_mapped) in machines {
        let change = |config: &mut VmConfig| config.gic = choice;
        let vms = vms_on((native, Some(gicv)), kernel(4096), &[], true, change);
        let instance = &vms.all()[0];
        assert!(vms.start(instance));
        work(vms);
        let vm = instance.vm;
        assert_eq!(vm.phase(), Phase::Running);
        let page = translate(instance, 0x0801_0000);
        assert_eq!(
            page,
            is_mapped.then_some((gicv, stage2::Attributes::DEVICE))
        );
        assert_eq!(translate(instance, 0x0801_1000), None, "GICV_DIR traps");
        assert_eq!(
            translate(instance, RAM).map(|to| to.1),
            Some(stage2::Attributes::RAM)
        );
        let registers = vm.policy.id[crate::features::id_index(4, 0)] >> 24 & 0xf;
        assert_eq!(registers, u64::from(!is_mapped), "ID_AA64PFR0_EL1.GIC");
    }
}

fn note(instance: &Instance<Fake>) -> Option<String> {
    instance.record.lock().note.clone()
}

#[test]
fn a_start_ends_with_the_first_vcpu_on_at_the_kernels_entry() {
    let image = kernel(300_000);
    let vms = vms(image, true, |_| {});
    let (instance, host) = (&vms.all()[0], &vms.host);
    assert!(vms.start(instance) && !vms.start(instance), "once");
    assert_eq!(*host.asked.borrow(), [0], "its manager has work");
    let steps = work(vms);
    let vm = instance.vm;
    assert_eq!(vm.phase(), Phase::Running);
    assert_eq!(vm.vcpus[0].power.state(), psci::State::OnPending);
    assert_eq!(vm.vcpus[1].power.state(), psci::State::EnabledOff);
    assert_eq!(host.told.borrow().len(), 1, "{:?}", host.told.borrow());
    assert_ne!(vm.vttbr.load(Ordering::Relaxed), 0);
    let entry = vm.vcpus[0].power.start().expect("turned on");
    let mut state = instance.state.lock();
    let ram = state.ram.as_mut().expect("it has RAM");
    let at = (entry.address - RAM) as usize;
    assert_eq!(ram.bytes[at + image.len() - 1], 0x5a, "all of it is there");
    assert!(steps > 300_000 / 16_384, "{steps} steps");
    let longest = ram.longest.get();
    assert!(longest <= 16_384, "{longest} bytes in one step");
}

#[test]
fn a_start_without_memory_fails_with_its_reason_and_may_be_tried_again() {
    let vms = vms(kernel(4096), false, |_| {});
    let (instance, host) = (&vms.all()[0], &vms.host);
    for _ in 0..2 {
        assert!(vms.start(instance));
        work(vms);
        assert_eq!(instance.vm.phase(), Phase::Off);
        assert_eq!(instance.vm.life.cause(), Cause::Failed);
        let note = note(instance).expect("a reason");
        assert_eq!(note, "memory: no 8 MiB of contiguous RAM are free");
        let told = host.told.take();
        assert!(told[0].contains("no 8 MiB"), "{told:?}");
    }
}

#[test]
fn a_kernel_that_does_not_fit_leaves_nothing_taken() {
    let vms = vms(kernel(9 << 20), true, |_| {});
    let (instance, host) = (&vms.all()[0], &vms.host);
    assert!(vms.start(instance));
    work(vms);
    assert_eq!(instance.vm.phase(), Phase::Off);
    let note = note(instance).expect("a reason");
    assert!(note.starts_with("kernel \"kernel\""), "{note}");
    assert!(host.ram.borrow().is_some(), "RAM was given back");
    assert_eq!(host.pages.get(), 0, "tables were given back");
}

#[test]
fn a_guest_may_read_the_records_of_stolen_time_and_no_more() {
    let (vms, vm) = running();
    let state = vms.all()[0].state.lock();
    let (tables, pages) = state.tables.as_ref().unwrap();
    let records = vm.layout.stolen_time.base;
    let found = tables.translate(pages, records).unwrap();
    assert_eq!(found.host, HostPhys::new(RECORDS));
    assert_eq!(found.attributes, Attributes::READ_ONLY);
    let behind = records.checked_add(4096).unwrap();
    assert!(
        tables.translate(pages, behind).is_none(),
        "one page is enough"
    );
}

#[test]
fn a_stop_waits_for_the_last_vcpu_and_gives_everything_back() {
    let (vms, vm) = running();
    let (instance, host) = (&vms.all()[0], &vms.host);
    host.told.take();
    assert!(vms.stop(vm, Cause::Operator));
    assert!(!vms.stop(vm, Cause::Operator), "it is on its way already");
    assert_ne!(vm.vcpus[0].requested() & request::STOP, 0);
    host.asked.take();
    assert_eq!(work(vms), 0);
    assert_eq!(vm.phase(), Phase::Stopping, "a CPU has its registers");
    leave(vms);
    assert_eq!(
        *host.asked.borrow(),
        [0],
        "the last one out tells the manager"
    );
    work(vms);
    assert_eq!(vm.phase(), Phase::Off);
    assert!(host.ram.borrow().is_some() && host.pages.get() == 0);
    assert!(host.told.borrow()[0].contains("operator"));
    // What the guest wrote is scrubbed before the next one has it, in pieces.
    assert!(vms.start(instance));
    work(vms);
    assert_eq!(host.scrubbed.get(), MEMORY);
    assert!(host.longest_scrub.get() <= 16_384);
}

#[test]
fn a_reset_begins_again_in_the_same_memory_and_cleans_what_the_guest_left_in_caches() {
    let (vms, vm) = running();
    let (instance, host) = (&vms.all()[0], &vms.host);
    host.told.take();
    assert!(vms.reset(vm, Cause::Guest));
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Running);
    assert_eq!(vm.vcpus[0].power.state(), psci::State::OnPending);
    assert!(host.ram.borrow().is_none(), "it kept its RAM");
    assert_eq!(host.scrubbed.get(), 0, "no other guest had it");
    let state = instance.state.lock();
    let cleaned = state.ram.as_ref().map(|ram| ram.cleaned.get());
    assert!(cleaned > Some(0), "dirty lines of its last life");
    let told = host.told.take();
    assert!(
        told[0].contains("VmReset") && told[1].contains("VmStart"),
        "{told:?}"
    );
}

/// However many vCPUs a VM may have, no step puts more than a few of them back, or has more of their CPUs told.
#[test]
fn a_large_vm_starts_and_ends_in_short_steps() {
    let vms = vms(kernel(4096), true, |config| {
        (config.boot_vcpus, config.max_vcpus) = (500, 512);
    });
    let (instance, manager) = (&vms.all()[0], PcpuId::new(0));
    let vm = instance.vm;
    assert!(vms.start(instance));
    let (mut turn, mut woken) = (0, 0);
    while vms.go_on(manager, &mut turn) {
        let mut now = 0;
        let sets = vms.host.wakes.get();
        sets.iter().for_each(|set| set.drain(|_| now += 1));
        assert!(now <= 16, "{now} vCPUs at once");
        woken += now;
    }
    assert_eq!((vm.phase(), woken), (Phase::Running, 500));
    for cause in [Cause::Guest, Cause::Operator] {
        // One that has run has counted exits.
        let has_run = |vcpu: &&Vcpu| vcpu.exits.snapshot().total() != 0;
        for vcpu in &*vm.vcpus {
            vcpu.exits.count(ExitReason::Wfi);
        }
        match cause {
            Cause::Guest => assert!(vms.reset(vm, cause)),
            _ => assert!(vms.stop(vm, cause)),
        }
        let mut left = 512;
        while vms.go_on(manager, &mut turn) {
            let now = vm.vcpus.iter().filter(has_run).count();
            assert!(left - now <= 4, "{} vCPUs at once", left - now);
            left = now;
        }
        assert_eq!(left, 0);
    }
    assert_eq!((vm.phase(), vms.host.pages.get()), (Phase::Off, 0));
}

#[test]
fn a_sweep_by_set_and_way_ends_piece_by_piece_and_waits_for_no_other_vcpu() {
    let vms = vms(kernel(4096), true, |_| {});
    let instance = &vms.all()[0];
    assert!(vms.start(instance));
    work(vms);
    let vm = instance.vm;
    let held = instance.state.lock();
    assert!(!vms.clean_by_set_way(vm, 2), "another vCPU is at it");
    drop(held);
    let pieces = MEMORY / 65_536;
    for piece in 1..=pieces {
        assert_eq!(vms.clean_by_set_way(vm, 2), piece == pieces, "{piece}");
    }
    assert!(vms.clean_by_set_way(vm, 4), "of the same sequence");
}

#[test]
fn a_vm_whose_vcpus_are_all_off_is_off_and_says_why() {
    let (vms, vm) = running();
    let instance = &vms.all()[0];
    assert!(vm.vcpus[0].power.apply(psci::Event::CpuOff).is_ok());
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Off);
    assert_eq!(vm.life.cause(), Cause::AllVcpusOff);
    assert_eq!(note(instance).as_deref(), Some("every vCPU is off"));
}

#[test]
fn a_pause_holds_the_virtual_counter_and_a_resume_waits_for_vcpus_to_rest() {
    let (vms, vm) = running();
    let (instance, host) = (&vms.all()[0], &vms.host);
    let before = vm.counter_offset.load(Ordering::Relaxed);
    assert!(vms.pause(instance));
    assert_ne!(vm.vcpus[0].requested() & request::PAUSE, 0);
    assert!(vms.resume(instance));
    let mut turn = 0;
    assert!(vms.go_on(PcpuId::new(0), &mut turn), "vCPU 0 runs still");
    assert_eq!(vm.phase(), Phase::Paused);
    vm.life.halt(host.now.get());
    host.now.set(host.now.get() + 500);
    work(vms);
    assert_eq!(vm.phase(), Phase::Running);
    let after = vm.counter_offset.load(Ordering::Relaxed);
    assert_eq!(after - before, 500, "the guest's time stood still");
}

#[test]
fn a_resize_offers_a_vcpu_before_the_guest_is_told_and_ends_when_it_is_on() {
    let (vms, vm) = running();
    let (instance, host) = (&vms.all()[0], &vms.host);
    vms.work(vm, Work::Resize(Answer::Listens));
    host.up.take();
    let limits = super::DEFAULT_LIMITS;
    let begun = instance
        .resizer
        .lock()
        .begin(vm, 3, limits, host.now_ns())
        .expect("a resize");
    vms.carry_out(instance, begun);
    assert!(instance.resizing.load(Ordering::Relaxed));
    assert_eq!(
        vm.vcpus[2].power.state(),
        psci::State::EnabledOff,
        "permitted"
    );
    let cpu = vm.vcpus[2].at.placement().pcpu().get();
    assert_eq!(*host.up.borrow(), [cpu], "its CPU comes up first");
    for vcpu in [1, 2] {
        let code = vm.vcpus[vcpu].power.cpu_on(psci::EntryPoint::default());
        assert_eq!(code, psci::ReturnCode::Success);
        assert!(vm.vcpus[vcpu].power.start().is_some());
        vms.vcpu_changed(vm, &vm.vcpus[vcpu], true, 0);
    }
    assert_eq!(host.ends.borrow().len(), 1, "{:?}", host.ends.borrow());
    assert!(!instance.resizing.load(Ordering::Relaxed));
    let of_vcpu = |vcpu| format!("guest {:?}", What::VcpuOnline(VcpuId::new(vcpu)));
    let told = host.told.borrow();
    assert!(
        told.contains(&of_vcpu(1)) && told.contains(&of_vcpu(2)),
        "{told:?}"
    );
}

#[test]
fn cpus_of_a_reserve_are_asked_whether_they_are_needed_only_if_they_may_be_off() {
    for (idle, asked) in [(ReserveIdle::Wfi, 1), (ReserveIdle::PsciOff, 3)] {
        let vms = vms(kernel(4096), true, |config| config.reserve_idle = idle);
        assert!(vms.start(&vms.all()[0]));
        work(vms);
        let asked_cpus = vms.host.asked.borrow();
        assert_eq!(asked_cpus.len(), asked, "{idle:?}: {asked_cpus:?}");
    }
}

#[test]
fn an_alarm_is_kept_by_the_manager_and_rings_at_its_second() {
    let vms = vms(kernel(4096), true, |_| {});
    let (vm, manager) = (vms.all()[0].vm, vms.all()[0].manager);
    let now_ns = vms.host.now_ns();
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(vm, DeviceId::Rtc, &vms.host, &mut kicks);
    let seconds = u64::from(vm.devices.rtc.seconds(&around));
    let mut work = None;
    for (offset, value) in [(IMSC, 1), (MR, seconds + 2)] {
        let width = AccessWidth::Word;
        let access = Access { offset, width };
        work = vm.devices.write(DeviceId::Rtc, access, value, &mut around);
    }
    assert_eq!(work, Some(Work::Attend));
    vms.work(vm, Work::Attend);
    assert_eq!(*vms.host.asked.borrow(), [manager.get()]);
    let other = PcpuId::new(manager.get() + 1);
    assert_eq!(vms.attend_devices(other), None);
    let rings = || {
        let mut lists = SavedListRegisters::new(4);
        let mut trap = Trap::new(vm, &vm.vcpus[0], &mut lists);
        let pending = gic_v3::read_distributor(&mut trap, ISPENDR1, AccessWidth::Word);
        pending & 1 << (DeviceId::Rtc.row().intid - 32) != 0
    };
    let ring_ns = vms.attend_devices(manager).expect("it is kept");
    assert_eq!(ring_ns, now_ns + 2_000_000_000);
    assert!(!rings());
    vms.host.now.set(vms.host.ticks(ring_ns));
    assert_eq!(vms.attend_devices(manager), None);
    assert!(rings());
}

/// A VM with a disk of three pages of which the guest may write so many, on a host with so much memory for devices.
fn with_disk(quota_pages: u64, device_memory: u64) -> &'static Vms<Fake> {
    let vms = vms(kernel(100_000), true, |config| {
        config.disks.push(DiskConfig {
            name: "root".to_string(),
            image: "image".to_string(),
            cow_quota: quota_pages * 4096,
        });
    });
    vms.host.device_memory.set(device_memory);
    vms
}

#[test]
fn what_a_disk_needs_is_taken_at_a_start_and_given_back_at_the_end() {
    const MORE: u64 = 4096;
    // A page of numbers and two that can be written.
    let vms = with_disk(2, 3 * 4096 + MORE);
    let (instance, host) = (&vms.all()[0], &vms.host);
    let vm = instance.vm;
    for _ in 0..2 {
        assert!(vms.start(instance));
        work(vms);
        assert_eq!(
            (vm.phase(), host.device_memory.get()),
            (Phase::Running, MORE)
        );
        assert!(vms.reset(vm, Cause::Operator));
        work(vms);
        assert_eq!(
            (vm.phase(), host.device_memory.get()),
            (Phase::Running, MORE),
            "kept"
        );
        assert!(vms.stop(vm, Cause::Operator));
        work(vms);
        assert_eq!(vm.phase(), Phase::Off);
        assert_eq!(host.device_memory.get(), 3 * 4096 + MORE);
    }
}

#[test]
fn a_disk_without_memory_fails_the_start_by_its_name() {
    let vms = with_disk(2, 3 * 4096 - 1);
    let instance = &vms.all()[0];
    assert!(vms.start(instance));
    work(vms);
    assert_eq!(instance.vm.phase(), Phase::Off);
    let note = note(instance);
    assert_eq!(
        note.as_deref(),
        Some("memory: no 12 KiB of contiguous RAM are free for disk root")
    );
    assert!(vms.host.ram.borrow().is_some(), "nothing is kept");
}

#[test]
fn a_device_that_its_driver_broke_is_told_of_once() {
    let vms = with_disk(2, 3 * 4096);
    let vm = vms.all()[0].vm;
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(vm, DeviceId::Virtio, &vms.host, &mut kicks);
    // Negotiation, a queue in memory that there is not, and a notification (VIRTIO 1.2, 4.2.2).
    let mut last = None;
    for (offset, value) in [
        (0x070, 3),
        (0x024, 1),
        (0x020, 1),
        (0x070, 11),
        (0x038, 8),
        (0x044, 1),
        (0x070, 15),
        (0x050, 0),
    ] {
        let access = Access {
            offset,
            width: AccessWidth::Word,
        };
        last = vm.devices.virtio.write(access, value, &mut around);
    }
    assert_eq!(last, Some(Work::Attend));
    vms.host.told.take();
    vms.work(vm, Work::Attend);
    vms.attend(PcpuId::new(0));
    vms.attend(PcpuId::new(0));
    let told = vms.host.told.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("DeviceBroken(\"root\", \"memory\")"),
        "{told:?}"
    );
}

/// The page of the first VM, and the word and time of each thing that it says has happened.
fn page(vms: &'static Vms<Fake>) -> (VmPage, [Option<(u64, String)>; 3]) {
    let Reply::VmShow(page) = vms.show(&vms.all()[0]) else {
        panic!("a page")
    };
    let word = |past: Option<(u64, &str)>| past.map(|(time_ns, why)| (time_ns, why.to_string()));
    let past = [
        word(page.last_reset),
        word(page.last_off),
        page.last_error.clone(),
    ];
    (*page, past)
}

fn way_out(page: &VmPage) -> String {
    page.way_out.unwrap().join("guest")
}

#[test]
fn a_page_says_what_has_become_of_a_vm_and_what_to_do() {
    let (vms, vm) = running();
    let instance = &vms.all()[0];
    let at = |time_ns, why: &str| Some((time_ns, why.to_string()));
    let (shown, past) = page(vms);
    assert_eq!(past, [None, None, None]);
    assert_eq!(
        (shown.row.state, shown.started_ns, shown.way_out),
        ("running", Some(0), None)
    );
    assert_eq!(
        (
            shown.row.on,
            shown.row.target,
            shown.row.possible,
            shown.boot
        ),
        (1, 2, 4, 2)
    );
    assert_eq!(
        (shown.cpus, shown.kernel, shown.firmware),
        ([0].map(PcpuId::new).to_vec(), "kernel", "acpi")
    );

    vms.host.now.set(100);
    assert!(vms.reset(vm, Cause::Guest));
    assert_eq!(page(vms).0.started_ns, None);
    leave(vms);
    vms.host.now.set(200);
    work(vms);
    let (shown, past) = page(vms);
    assert_eq!(past, [at(1600, "guest"), None, None]);
    assert_eq!((shown.resets, shown.started_ns), (1, Some(3200)));

    run(vms, 0);
    vms.host.now.set(300);
    vms.note_faults(vm, VcpuId::new(0), 0x80);
    let (shown, past) = page(vms);
    assert_eq!(past[2], at(4800, "vCPU 0 faults at 0x80 without end"));
    assert!(way_out(&shown).contains("`vm reset guest`"));

    vms.host.now.set(400);
    vms.fail(vm, "it is lost");
    leave(vms);
    work(vms);
    let (shown, past) = page(vms);
    assert_eq!(
        past,
        [
            at(1600, "guest"),
            at(6400, "failed"),
            at(6400, "it is lost")
        ]
    );
    assert_eq!((shown.row.state, shown.started_ns), ("failed", None));
    assert!(way_out(&shown).ends_with("then `vm start guest`"));

    assert!(vms.start(instance));
    work(vms);
    run(vms, 0);
    let (shown, past) = page(vms);
    assert_eq!((shown.row.note, shown.way_out), (None, None), "it runs");
    assert_eq!(past[2], at(6400, "it is lost"), "and that is not forgotten");
    assert!(vms.pause(instance));
    assert!(way_out(&page(vms).0).contains("`vm resume guest`"));
    assert!(vms.stop(vm, Cause::Operator));
    leave(vms);
    work(vms);
    let (shown, past) = page(vms);
    assert_eq!(past[1], at(6400, "operator"));
    assert!(way_out(&shown).contains("`vm start guest`"));
}

#[test]
fn a_sample_has_every_vm_and_the_vcpus_that_are_on() {
    let (vms, vm) = running();
    let Reply::Top(sample) = vms.sample() else {
        panic!("a sample")
    };
    let (row, (of, vcpu)) = (&sample.vms[0], &sample.vcpus[0]);
    assert_eq!((sample.vms.len(), row.vm, row.on), (1, vm.id, 1));
    assert_eq!((sample.vcpus.len(), *of), (1, vm.id));
    assert_eq!((vcpu.vcpu.get(), vcpu.state), (0, "on"));
    assert_eq!(sample.left_out, 0);
}
