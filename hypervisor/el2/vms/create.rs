//! The VMs of the manifest become values: each with its layout, its vCPUs, and for each vCPU a place on a CPU.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16};
use spin::mutex::SpinMutex;
use vmm::config::VmConfig;
use vmm::features::FeaturePolicy;
use vmm::ids::{PcpuId, VcpuId, VmId};
use vmm::layout::{GuestLayout, Region};
use vmm::sched::Slot;
use vmm::vm::resize::Resizer;
use vmm::vm::{Home, Vm, VmParts};

use super::{HOST, SLATES, Slate, State};
use crate::percpu::{self, Loaded};
use crate::{run, seeds};

/// A VM as the manifest describes it, with its images.
pub(crate) struct Description {
    pub(crate) config: VmConfig,
    pub(crate) kernel: &'static [u8],
    pub(crate) initrd: &'static [u8],
}

/// Makes the VMs; none runs yet.
#[inline(never)]
pub(crate) fn create(
    descriptions: Vec<Description>,
    cpus: usize,
    list_registers: usize,
    ids: &[u64; 64],
) {
    let host = HOST.get().expect("measured before");
    let homes = give_homes(&descriptions, cpus);
    let slates = descriptions
        .into_iter()
        .zip(homes)
        .enumerate()
        .map(|(index, (description, homes))| {
            let id = VmId::new(index as u16);
            let policy = FeaturePolicy::new(ids, host.pa_code);
            slate(id, description, homes, policy, list_registers)
        })
        .collect();
    let slates = SLATES.call_once(|| slates);
    // In the order in which they were given.
    for is_held in [false, true] {
        for slate in slates {
            let boot_set = usize::from(slate.config.boot_vcpus);
            let (boot, reserve) = slate.vm.vcpus.split_at(boot_set);
            for vcpu in if is_held { reserve } else { boot } {
                run::add_place(Loaded { vm: slate.vm, vcpu });
            }
        }
    }
}

/// Gives every vCPU its place: boot vCPUs of all VMs first, so that they get the emptiest CPUs; then those in reserve.
fn give_homes(descriptions: &[Description], cpus: usize) -> Vec<Vec<Home>> {
    let mut placer = Placer {
        next_slot: alloc::vec![0; cpus],
        turn: 0,
    };
    let mut homes: Vec<Vec<Home>> = descriptions.iter().map(|_| Vec::new()).collect();
    for held in [false, true] {
        for (description, homes) in descriptions.iter().zip(&mut homes) {
            let config = &description.config;
            let range = if held {
                config.boot_vcpus..config.max_vcpus
            } else {
                0..config.boot_vcpus
            };
            for index in range {
                homes.push(placer.place(config, VcpuId::new(index)));
            }
        }
    }
    homes
}

/// Makes one VM.
#[inline(never)]
fn slate(
    id: VmId,
    description: Description,
    homes: Vec<Home>,
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
        homes: homes.into_boxed_slice(),
        list_registers,
        wall_clock_s: seeds::wall_clock_s(),
    })));
    Slate {
        vm,
        target: AtomicU16::new(config.boot_vcpus),
        config,
        kernel: description.kernel,
        initrd: description.initrd,
        state: SpinMutex::new(State::default()),
        resizing: AtomicBool::new(false),
        resizer: SpinMutex::new(Resizer::new(vm)),
        asked: SpinMutex::default(),
        note: SpinMutex::new(None),
    }
}

/// Gives vCPUs their places.
struct Placer {
    next_slot: Vec<u16>,
    turn: usize,
}

impl Placer {
    fn place(&mut self, config: &VmConfig, vcpu: VcpuId) -> Home {
        let pcpu = match config.placement.pinned(vcpu) {
            Some(pcpu) if pcpu.index() < self.next_slot.len() => pcpu.index(),
            _ => {
                let turn = self.turn;
                self.turn = (turn + 1) % self.next_slot.len();
                turn
            }
        };
        let index = usize::from(self.next_slot[pcpu]);
        self.next_slot[pcpu] += 1;
        let pcpu = PcpuId::new(pcpu as u16);
        let slot = Slot::new(index).expect("at most 512 vCPUs on a CPU");
        Home {
            pcpu,
            slot,
            wakes: percpu::wakes(pcpu),
        }
    }
}
