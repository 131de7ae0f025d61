//! The VMs of the manifest: made at start-up, started, stopped, reset and resized by the operator or by themselves.
//!
//! Work that takes time (copying images, building tables) is done in steps by the CPU to which the VM's first vCPU belonged at first,
//! between the turns of the guests there. Decisions are `vmm`'s: `vm::resize`, `loader`, `firmware`.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use spin::Once;
use spin::mutex::SpinMutex;
use stage2::{AddressSpace, Tables, VmidAllocator, VmidWidth};
use vmm::config::{MAX_VMS, ReserveIdle, VmConfig};
use vmm::console::Token;
use vmm::ids::{PcpuId, VmId};
use vmm::vm::Vm;
use vmm::vm::resize::Resizer;

use crate::guest_memory::{GuestRam, TablePages};
use crate::{clock, console, deferred, heap, mmu, smp};

mod commands;
mod create;
mod events;
mod hotplug;
mod lifecycle;
mod start;

pub(crate) use commands::execute;
pub(crate) use create::{Description, create};
pub(crate) use events::vcpu_changed;
pub(crate) use hotplug::{call, carry_out, hotplug_write, listening, strict, vendor_call};
pub(crate) use lifecycle::{
    all_left, is_stuck, pause, resume, start, system_fail, system_off, system_reset,
};
pub(crate) use start::clean_memory;

/// A VM with what only its starts and stops need.
pub(crate) struct Slate {
    pub(crate) vm: &'static Vm,
    pub(crate) config: VmConfig,
    /// The CPU that does its starts and stops.
    pub(crate) manager: PcpuId,
    kernel: &'static [u8],
    initrd: &'static [u8],
    pub(crate) state: SpinMutex<State>,
    /// The vCPU count that the operator wants.
    pub(crate) target: AtomicU16,
    /// Vm::resize is waiting for something, for the hot paths.
    pub(crate) resizing: AtomicBool,
    pub(crate) resizer: SpinMutex<Resizer>,
    /// Who waits for resizes to end, in the order in which they were begun.
    pub(crate) asked: SpinMutex<VecDeque<Token>>,
    /// Why it is off, if not because somebody wanted it.
    pub(crate) note: SpinMutex<Option<String>>,
}

/// What a VM has while it is not off.
#[derive(Default)]
pub(crate) struct State {
    ram: Option<GuestRam>,
    tables: Option<(Tables, TablePages)>,
    job: Option<start::Job>,
    /// Parts of `ram` that may still hold what another guest wrote.
    dirty: Vec<Range<u64>>,
    /// A guest has run in `ram` since its lines were last cleaned.
    lived: bool,
    /// How much has been cleaned for a sequence of set/way operations, and when and with which operand another one begins.
    swept: u64,
    sweep_again: u64,
    sweep_first: u64,
}

static SLATES: Once<Vec<Slate>> = Once::new();
static VMIDS: Once<SpinMutex<VmidAllocator<MAX_VMS>>> = Once::new();
static HOST: Once<HostLimits> = Once::new();

/// What the machine's CPUs can do for guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    pub(crate) space: AddressSpace,
    pub(crate) width: VmidWidth,
    pub(crate) pa_code: u64,
}

/// Finds out how many VMIDs there are, and address bits: guests get as many as the host has, so that they may read its PARange.
pub(crate) fn measure_host(vmid_16: bool) -> Result<(), stage2::Error> {
    let pa_code = mmu::pa_range();
    let space = AddressSpace::new(mmu::PA_BITS[pa_code as usize], pa_code as u8)?;
    let width = if vmid_16 {
        VmidWidth::Bits16
    } else {
        VmidWidth::Bits8
    };
    HOST.call_once(|| HostLimits {
        space,
        width,
        pa_code,
    });
    VMIDS.call_once(|| SpinMutex::new(VmidAllocator::new(width)));
    Ok(())
}

/// Returns every VM.
pub(crate) fn all() -> &'static [Slate] {
    SLATES.get().map_or(&[], Vec::as_slice)
}

/// Returns a VM by its id.
pub(crate) fn vm(id: VmId) -> Option<&'static Vm> {
    all().get(id.index()).map(|slate| slate.vm)
}

pub(crate) fn slate(vm: &Vm) -> &'static Slate {
    &all()[vm.id.index()]
}

/// Has vCPUs that come and go be noted or not, now that others listen.
pub(crate) fn watch() {
    for slate in all() {
        // Under the lock, as a resize does it, so that neither takes the other's wish back.
        let resizer = slate.resizer.lock();
        let watched = resizer.is_active() || console::is_heard();
        slate.vm.watched.store(watched, Ordering::Release);
    }
}

/// Returns whether the CPU of a VM's vCPUs in reserve may be turned off.
pub(crate) fn may_power_down(vm: &Vm) -> bool {
    slate(vm).config.reserve_idle == ReserveIdle::PsciOff
}

/// Makes the CPUs of a VM's vCPUs in reserve find out whether they are needed at all.
pub(crate) fn park(slate: &'static Slate) {
    if !may_power_down(slate.vm) {
        return;
    }
    for vcpu in &*slate.vm.vcpus {
        let cpu = vcpu.at.home().pcpu();
        if vcpu.power.state() == psci::State::Reserve && !smp::is_off(cpu) {
            deferred::ask(cpu);
        }
    }
}

/// Does one step of starting or stopping one of the VMs that a CPU manages, in turn; returns whether there may be more at once.
pub(crate) fn go_on(cpu: PcpuId, turn: &mut usize) -> bool {
    let slates = all();
    for _ in slates {
        *turn = (*turn + 1) % slates.len();
        let slate = &slates[*turn];
        if slate.manager == cpu && lifecycle::go_on(slate) {
            return true;
        }
    }
    false
}

/// Does what the boot CPU has to do for the operator.
pub(crate) fn attend(cpu: PcpuId) {
    if cpu.index() == 0 {
        heap::refill();
        let mut next = events::tell();
        if console::poll() {
            next = Some(next.unwrap_or(u64::MAX).min(console::retry_ns()));
        }
        deferred::set_deadline(next.map(clock::ns_to_ticks));
        if events::DIRTY.load(Ordering::Acquire) {
            deferred::ask_boot_cpu_soon();
        }
    }
}
