//! The VMs of the manifest on this machine: what `vmm::ops` decides is done here, and the operator's commands and events.

use alloc::vec::Vec;
use control_plane::config::CpuSlots;
use control_plane::console::{HostPower, What};
use control_plane::firmware::Seeds;
use control_plane::resize::Report;
use core::ops::Range;
use spin::Once;
use stage2::{AddressSpace, PA_BITS, VmidWidth};
use types::address::HostPhys;
use types::ids::{PcpuId, VmId};
use vmm::memory::GuestMemory;
use vmm::ops::{self, Description, HostLimits, Operator, Outbox, earlier};
use vmm::vm::{Kicks, Outside, Vm};

use crate::guest_memory::{GuestRam, TablePages};
use crate::{cache, clock, console, deferred, heap, memory, percpu, power, seeds, smp, timer, tlb};

mod input;
mod output;

pub(crate) use input::{interrupt, listen};

/// A VM with what only its starts, stops and resizes need.
pub(crate) type Instance = ops::Instance<El2>;

/// Every VM of the manifest.
pub(crate) type Vms = ops::Vms<El2>;

/// Alignments of guest memory, best first: 1 GiB and 2 MiB blocks.
const ALIGNMENTS: [u64; 2] = [1 << 30, 1 << 21];

/// Alignment of a memory slot: 2 MiB blocks.
const BLOCK_ALIGNMENT: [u64; 1] = [1 << 21];

static VMS: Once<Vms> = Once::new();
/// What waits for the operator.
static OUTBOX: Outbox = Outbox::new();
static OPERATOR: Operator = Operator::new(&OUTBOX);

/// Makes the VMs, which have been admitted to `slots`; none runs yet.
pub(crate) fn create(limits: &HostLimits<'_>, descriptions: Vec<Description>, slots: CpuSlots) {
    let places = (percpu::placements(), percpu::wakes());
    VMS.call_once(|| Vms::new(El2, limits, places, descriptions, slots));
}

/// Finds out how guests' addresses are translated here.
///
/// # Errors
/// Whatever keeps stage 2 from working on these CPUs.
pub(crate) fn address_space(pa_code: u64) -> Result<AddressSpace, stage2::Error> {
    AddressSpace::new(PA_BITS[pa_code as usize], pa_code as u8)
}

/// Returns how many VMIDs there are.
pub(crate) const fn vmid_width(vmid_16: bool) -> VmidWidth {
    match vmid_16 {
        true => VmidWidth::Bits16,
        false => VmidWidth::Bits8,
    }
}

/// Returns the VMs, which are made before anything is asked of a CPU.
pub(crate) fn vms() -> &'static Vms {
    VMS.get().expect("made while booting")
}

/// This machine and its operator.
#[derive(Debug)]
pub(crate) struct El2;

impl Outside for El2 {
    #[inline]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    fn memory(&self, vm: &Vm) -> impl GuestMemory + use<> {
        GuestRam::of(vm)
    }

    fn random(&self) -> [u8; 32] {
        seeds::bytes()
    }

    fn vm(&self, id: VmId) -> Option<&'static Vm> {
        vms().vm(id)
    }
}

impl ops::Host for El2 {
    type Ram = GuestRam;
    type Pages = TablePages;

    fn now_ticks(&self) -> u64 {
        timer::now()
    }

    fn ticks(&self, ns: u64) -> u64 {
        clock::duration_ticks(ns)
    }

    fn time_ns(&self, ticks: u64) -> u64 {
        clock::ticks_to_time_ns(ticks)
    }

    fn kick(&self, kicks: Kicks) {
        percpu::kick(kicks);
    }

    fn ask(&self, cpu: PcpuId) {
        deferred::ask(cpu);
    }

    fn bring_up(&self, cpu: PcpuId) {
        smp::bring_up(cpu);
    }

    fn is_off(&self, cpu: PcpuId) -> bool {
        smp::is_off(cpu)
    }

    fn take_ram(&self, vm: &Vm) -> Option<(GuestRam, Vec<Range<u64>>)> {
        let piece = memory::take_guest_memory(vm.memory.size, &ALIGNMENTS)?;
        Some((GuestRam::give(vm, piece.range), piece.dirty))
    }

    fn release_ram(&self, vm: &Vm, ram: GuestRam) {
        memory::give_back(ram.take_back(vm));
    }

    fn take_block(&self, bytes: u64) -> Option<Range<u64>> {
        Some(memory::take_guest_memory(bytes, &BLOCK_ALIGNMENT)?.range)
    }

    fn release_block(&self, block: Range<u64>) {
        memory::give_back(block);
    }

    fn scrub(&self, range: Range<u64>) {
        memory::scrub(range);
    }

    fn take_device_memory(&self, bytes: u64) -> Option<&'static mut [u8]> {
        memory::take_bytes(bytes)
    }

    fn release_device_memory(&self, bytes: &'static mut [u8]) {
        memory::give_bytes_back(bytes);
    }

    fn physical(&self, address: usize) -> HostPhys {
        // All of RAM is mapped at its own address.
        HostPhys::new(address as u64)
    }

    fn take_pages(&self, pages: usize) -> Option<TablePages> {
        TablePages::take(pages)
    }

    fn release_pages(&self, pages: TablePages) {
        pages.give_back();
    }

    fn forget_all_guests(&self) {
        tlb::forget_all_guests();
    }

    fn invalidate_instructions(&self) {
        cache::invalidate_instructions();
    }

    fn seeds(&self) -> Seeds {
        Seeds {
            rng: seeds::bytes(),
            kaslr: seeds::word(),
        }
    }

    fn is_heard(&self) -> bool {
        console::is_heard()
    }

    fn event(&self, time_ns: u64, vm: &Vm, what: What) {
        OPERATOR.push_at(self, time_ns, vm, what);
    }

    fn resized(&self, instance: &Instance, report: Report) {
        OPERATOR.resized(self, instance, report);
    }

    fn look_again(&self) {
        OPERATOR.look_again(self);
    }

    fn show(&self, vm: &'static Vm) {
        output::drain(vm);
    }

    fn can_end(&self, _: HostPower) -> bool {
        power::can_end()
    }

    fn end(&self, power: HostPower) {
        power::ask(power);
    }

    fn epoch_s(&self) -> Option<u64> {
        clock::epoch_s()
    }

    fn set_epoch_s(&self, seconds: u64) {
        clock::set_epoch_s(seconds);
    }

    fn ns(&self, ticks: u64) -> u64 {
        clock::ticks_to_ns(ticks)
    }

    fn attend(&self, cpu: PcpuId, next_ns: Option<u64>) {
        let is_boot_cpu = cpu.index() == 0;
        let mut next = next_ns;
        if is_boot_cpu {
            heap::refill();
            next = earlier(next, OPERATOR.tell(vms()));
            next = earlier(next, input::poll());
            next = earlier(next, power::attend());
        }
        deferred::set_deadline(next.map(clock::ns_to_ticks));
        if is_boot_cpu && OPERATOR.is_dirty() {
            deferred::ask_boot_cpu_soon();
        }
    }
}
