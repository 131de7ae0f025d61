//! The VMs of the manifest become values: each with its layout, its vCPUs, and for each vCPU a place on a CPU.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16};
use spin::mutex::SpinMutex;
use vmm::config::{CpuSlots, MAX_VCPUS_A_CPU, VmConfig};
use vmm::features::FeaturePolicy;
use vmm::ids::{PcpuId, VmId};
use vmm::layout::{GuestLayout, Region};
use vmm::vm::context::Owner;
use vmm::vm::resize::Resizer;
use vmm::vm::{Home, Vm, VmParts};

use super::{HOST, SLATES, Slate, State};
use crate::cpu::PLACEMENTS;
use crate::percpu;
use crate::seeds;

const _: () = assert!(MAX_VCPUS_A_CPU as usize == vmm::sched::MAX_SLOTS);

/// A VM as the manifest describes it, with its images.
pub(crate) struct Description {
    pub(crate) config: VmConfig,
    pub(crate) kernel: &'static [u8],
    pub(crate) initrd: &'static [u8],
}

/// Makes the VMs, which have been admitted to `slots`; none runs yet.
#[inline(never)]
pub(crate) fn create(
    descriptions: Vec<Description>,
    slots: CpuSlots,
    list_registers: usize,
    ids: &[u64; 64],
) {
    let host = HOST.get().expect("measured before");
    let mut slates: Vec<Slate> = descriptions
        .into_iter()
        .enumerate()
        .map(|(index, description)| {
            let id = VmId::new(index as u16);
            let policy = FeaturePolicy::new(ids, host.pa_code);
            slate(id, description, policy, list_registers)
        })
        .collect();
    give_homes(&slates, slots);
    for slate in &mut slates {
        slate.manager = slate.vm.vcpus[0].at.home().pcpu();
    }
    SLATES.call_once(|| slates);
}

/// Gives every vCPU its place: boot vCPUs of all VMs first, so that they get the emptiest CPUs; then those in reserve.
fn give_homes(slates: &[Slate], mut slots: CpuSlots) {
    for held in [false, true] {
        for Slate { vm, config, .. } in slates {
            let (boot, reserve) = vm.vcpus.split_at(usize::from(config.boot_vcpus));
            for vcpu in if held { reserve } else { boot } {
                let pinned = slots.pinned(&config.placement, vcpu.id);
                let pcpu = pinned.or_else(|| slots.deal());
                let home = pcpu.and_then(|pcpu| PLACEMENTS.take(Owner { vm, vcpu }, pcpu));
                let home = home.expect("an admitted vCPU has a place");
                vcpu.at.change_wish(Home::NOWHERE, home);
                vcpu.at.leave();
            }
        }
    }
}

/// Makes one VM.
#[inline(never)]
fn slate(
    id: VmId,
    description: Description,
    policy: FeaturePolicy,
    list_registers: usize,
) -> Slate {
    let config = description.config;
    let layout = GuestLayout {
        ram_base: config.memory_base,
        spi_count: config.spis,
        ..GuestLayout::default()
    };
    let vm: &'static Vm = Box::leak(Box::new(Vm::new(VmParts {
        id,
        name: config.name.to_string(),
        memory: Region {
            base: config.memory_base,
            size: config.memory_bytes,
        },
        layout,
        policy,
        boot_vcpus: config.boot_vcpus,
        possible: config.max_vcpus,
        wakes: &percpu::WAKES,
        list_registers,
        wall_clock_s: seeds::wall_clock_s(),
    })));
    Slate {
        vm,
        target: AtomicU16::new(config.boot_vcpus),
        config,
        manager: PcpuId::new(0),
        kernel: description.kernel,
        initrd: description.initrd,
        state: SpinMutex::new(State::default()),
        resizing: AtomicBool::new(false),
        resizer: SpinMutex::new(Resizer::new(vm)),
        asked: SpinMutex::default(),
        note: SpinMutex::new(None),
    }
}
