//! The VMs of the manifest become values: each with its layout, its vCPUs, and for each vCPU a place on a CPU.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_plane::config::{CpuSlots, Idle, VmConfig};
use control_plane::topology::CpuFacts;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use stage2::{AddressSpace, VmidAllocator, VmidWidth};
use types::address::HostPhys;
use types::counter::CounterRate;
use types::hotplug::Kind;
use types::ids::{MAX_VCPUS_A_CPU, PcpuId, VmId};
use types::layout::GicVersion;

use super::report::Record;
use super::rounds::Rounds;
use super::{Host, Instance, Memory, State, Vms};
use crate::cpu::Placements;
use crate::devices::{DiskParts, NetParts, Network, Port};
use crate::features::{CpuFeatures, FeaturePolicy, hcr};
use crate::sync::FairMutex;
use crate::vm::context::Owner;
use crate::vm::resize::Resizer;
use crate::vm::{Placement, Vm, VmParts, Wakes};

const _: () = assert!(MAX_VCPUS_A_CPU as usize == crate::sched::MAX_SLOTS);

/// A VM as the manifest describes it, with its images.
#[derive(Debug)]
pub struct Description {
    /// What the manifest says.
    pub config: VmConfig,
    /// Its kernel.
    pub kernel: &'static [u8],
    /// Its initial RAM disk; empty for none.
    pub initrd: &'static [u8],
    /// The images of its disks, in the manifest's order.
    pub images: Vec<&'static [u8]>,
}

/// What the machine's CPUs can do for guests.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits<'a> {
    /// How a stage-2 table translates.
    pub space: AddressSpace,
    /// How many VMIDs there are.
    pub width: VmidWidth,
    /// ID_AA64MMFR0_EL1.PARange: guests get as many address bits as all of the CPUs have, so that they may read it.
    pub pa_code: u64,
    /// What guests are told of the CPUs.
    pub cpu: &'a CpuFacts,
    /// Whether the overflow interrupt of the CPUs' performance monitors can be given to guests.
    pub has_pmu_interrupt: bool,
    /// What the feature registers of all CPUs say.
    pub features: &'a CpuFeatures,
    /// The version of the machine's interrupt controller.
    pub gic: GicVersion,
    /// The first page of the CPU interface that a GICv2's guest uses, if the machine has one.
    pub gicv: Option<HostPhys>,
    /// How many list registers each CPU has.
    pub list_registers: usize,
    /// The system counter's rate.
    pub counter: CounterRate,
    /// What guests' clocks show at first, in seconds since 1970.
    pub wall_clock_s: u32,
}

impl<H: Host> Vms<H> {
    /// Makes the VMs, which have been admitted to `slots`; none runs yet.
    #[must_use]
    pub fn new(
        host: H,
        limits: &HostLimits<'_>,
        (placements, wakes): (&'static Placements, &'static Wakes),
        descriptions: Vec<Description>,
        slots: CpuSlots,
    ) -> Self {
        let networks = networks(&descriptions);
        let mut instances: Vec<_> = descriptions
            .into_iter()
            .enumerate()
            .map(|(index, description)| {
                let id = VmId::new(index as u16);
                Instance::new(id, description, &networks, limits, wakes)
            })
            .collect();
        place(&instances, placements, slots);
        for instance in &mut instances {
            let first = instance.vm.vcpus.first();
            instance.manager = first.map_or(PcpuId::new(0), |vcpu| vcpu.at.placement().pcpu());
        }
        Self {
            host,
            instances,
            rounds: Rounds::new(wakes.len()),
            vmids: FairMutex::new(VmidAllocator::new(limits.width)),
            gicv: limits.gicv,
            space: limits.space,
            width: limits.width,
            cpu: limits.cpu.clone(),
            has_pmu_interrupt: limits.has_pmu_interrupt,
        }
    }
}

/// A network with its name.
type Named = (String, &'static Network);

/// Makes the networks that the ports of all VMs name.
fn networks(descriptions: &[Description]) -> Vec<Named> {
    let mut ports: Vec<(String, Vec<Port>)> = Vec::new();
    for (index, Description { config, .. }) in descriptions.iter().enumerate() {
        for (number, net) in config.nets.iter().enumerate() {
            let port = Port {
                vm: VmId::new(index as u16),
                // A VM's disks come first.
                slot: (config.disks.len() + number) as u16,
                mac: net.mac,
                may_spoof: net.may_spoof,
            };
            match ports.iter_mut().find(|(name, _)| *name == net.network) {
                Some((_, ports)) => ports.push(port),
                None => ports.push((net.network.clone(), Vec::from([port]))),
            }
        }
    }
    let leak = |(name, ports)| (name, &*Box::leak(Box::new(Network::new(ports))));
    ports.into_iter().map(leak).collect()
}

/// Makes what the ports of a VM are made from.
fn nets(id: VmId, config: &VmConfig, networks: &[Named]) -> Vec<NetParts> {
    let nets = config.nets.iter().enumerate();
    let parts = nets.filter_map(|(number, net)| {
        let (_, network) = networks.iter().find(|(name, _)| *name == net.network)?;
        let slot = (config.disks.len() + number) as u16;
        Some(NetParts {
            network,
            port: network.port_of(id, slot)?,
            mtu: net.mtu,
            rate: net.rate,
        })
    });
    parts.collect()
}

/// Gives every vCPU its place: boot vCPUs of all VMs first, so that they get the emptiest CPUs; then those in reserve.
fn place<H: Host>(instances: &[Instance<H>], placements: &'static Placements, mut slots: CpuSlots) {
    for held in [false, true] {
        for Instance { vm, config, .. } in instances {
            let (boot, reserve) = vm.vcpus.split_at(usize::from(config.boot_vcpus));
            for vcpu in if held { reserve } else { boot } {
                let pinned = slots.pinned(&config.placement, vcpu.id);
                let pcpu = pinned.or_else(|| slots.deal());
                let placement = pcpu.and_then(|pcpu| placements.take(Owner { vm, vcpu }, pcpu));
                let placement = placement.expect("an admitted vCPU has a place");
                vcpu.at.change_pending(Placement::NOWHERE, placement);
                vcpu.at.leave();
            }
        }
    }
}

/// Returns what the CPUs of a VM show and trap.
fn policy(config: &VmConfig, limits: &HostLimits<'_>) -> FeaturePolicy {
    let mut policy = FeaturePolicy::new(limits.features, limits.pa_code);
    if config.idle == Idle::Trap {
        policy.hcr |= hcr::TWI;
    }
    policy
}

impl<H: Host> Instance<H> {
    /// Makes one VM.
    fn new(
        id: VmId,
        description: Description,
        networks: &[Named],
        limits: &HostLimits<'_>,
        wakes: &'static Wakes,
    ) -> Self {
        let config = description.config;
        let disks = config.disks.iter().zip(description.images);
        let disks = disks.map(|(disk, image)| DiskParts {
            name: disk.name.clone(),
            image,
            quota: disk.cow_quota,
        });
        let layout = config.layout(limits.gic);
        let policy = policy(&config, limits);
        let vm: &'static Vm = Box::leak(Box::new(Vm::new(VmParts {
            id,
            name: config.name.to_string(),
            memory: config.memory(),
            layout,
            policy: match layout.gic {
                GicVersion::V2 => policy.without_gic_registers(),
                GicVersion::V3 => policy,
            },
            boot_vcpus: config.boot_vcpus,
            possible: config.max_vcpus,
            wakes,
            list_registers: limits.list_registers,
            counter: limits.counter,
            wall_clock_s: limits.wall_clock_s,
            disks: disks.collect(),
            nets: nets(id, &config, networks),
            has_rng: config.rng,
        })));
        vm.cap.set(config.cpu_cap, 0);
        vm.weight.store(config.cpu_weight, Ordering::Relaxed);
        Self {
            vm,
            target: AtomicU16::new(config.boot_vcpus),
            config,
            manager: PcpuId::new(0),
            kernel: description.kernel,
            initrd: description.initrd,
            state: FairMutex::new(State::default()),
            resizing: AtomicBool::new(false),
            unwoken: AtomicU16::new(u16::MAX),
            resizer: FairMutex::new(Resizer::new(vm, Kind::Vcpu)),
            memory: Memory::new(vm),
            asked: FairMutex::default(),
            meter: FairMutex::default(),
            record: FairMutex::new(Record::default()),
        }
    }
}
