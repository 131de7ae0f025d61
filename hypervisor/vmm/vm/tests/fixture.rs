//! A VM with vCPUs, for tests of whatever a vCPU can do: four run from boot, the others are held in reserve.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use vgic::SavedListRegisters;

use crate::devices::tests::NoMemory;
use crate::dispatch::Trap;
use crate::features::{CpuFeatures, FeaturePolicy, ID_REGISTERS};
use crate::memory::GuestMemory;
use crate::sched::{Slot, WakeSet};
use crate::vm::context::Frame;
use crate::vm::{Kicks, Outside, Placement, Vcpu, VcpuContext, Vm, VmParts};
use types::counter::CounterRate;
use types::ids::{MAX_PCPUS, PcpuId, VcpuId, VmId};
use types::layout::{GicVersion, GuestLayout, Region};

/// Where RAM begins, and its size.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 256 << 20;
/// How many vCPUs run from boot.
pub(crate) const BOOT_VCPUS: u16 = 4;
/// The physical CPUs that the vCPUs take turns on.
pub(crate) const PCPUS: u16 = 4;
const LIST_REGISTERS: usize = 4;

/// Makes a VM of `count` possible vCPUs on CPUs that have a little of everything. It is never freed, as in EL2.
pub(crate) fn vm(count: u16) -> &'static Vm {
    vm_on(&[0x1111_1111_1111_1111; ID_REGISTERS], count)
}

/// Makes a VM of `count` possible vCPUs on CPUs with these ID registers.
pub(crate) fn vm_on(ids: &[u64; ID_REGISTERS], count: u16) -> &'static Vm {
    vm_with(GicVersion::V3, ids, count)
}

/// Makes such a VM with either interrupt controller.
pub(crate) fn vm_with(gic: GicVersion, ids: &[u64; ID_REGISTERS], count: u16) -> &'static Vm {
    let vm = Box::leak(Box::new(Vm::new(VmParts {
        id: VmId::new(0),
        name: "test".to_string(),
        layout: GuestLayout {
            gic,
            ..GuestLayout::default()
        },
        memory: Region::new(RAM, RAM_BYTES),
        policy: FeaturePolicy::new(&CpuFeatures::of(*ids), 2),
        boot_vcpus: BOOT_VCPUS.min(count),
        possible: count,
        wakes: Box::leak(Box::new([const { WakeSet::new() }; MAX_PCPUS])),
        list_registers: LIST_REGISTERS,
        counter: CounterRate::new(62_500_000),
        wall_clock_s: 1_000_000,
        disks: Vec::new(),
        nets: Vec::new(),
        has_rng: false,
    })));
    for (index, vcpu) in (0..).zip(&*vm.vcpus) {
        let slot = Slot::new(usize::from(index / PCPUS)).unwrap();
        let placement = Placement::new(PcpuId::new(index % PCPUS), slot);
        assert!(vcpu.at.change_pending(Placement::NOWHERE, placement) && vcpu.at.leave().is_some());
    }
    assert!(vm.life.start() && vm.life.started());
    vm
}

/// An outside at a time in nanoseconds, without memory, randomness and other VMs.
pub(crate) struct At(pub(crate) u64);

impl Outside for At {
    fn now_ns(&self) -> u64 {
        self.0
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

/// One vCPU in a trap.
pub(crate) struct Bench {
    pub(crate) vm: &'static Vm,
    pub(crate) vcpu: &'static Vcpu,
    pub(crate) lists: SavedListRegisters,
    pub(crate) context: VcpuContext,
    /// The CPUs that the last step kicked.
    pub(crate) kicks: Kicks,
}

impl Bench {
    /// Runs vCPU `index` of a VM.
    pub(crate) fn on(vm: &'static Vm, index: u16) -> Self {
        let vcpu = vm.vcpu(VcpuId::new(index)).unwrap();
        let entry = psci::EntryPoint {
            address: RAM,
            context_id: 0,
        };
        if vcpu.power.cpu_on(entry) == psci::ReturnCode::Success {
            assert_eq!(vcpu.power.start(), Some(entry));
        }
        vm.gic.join(index, &mut |_, _| {});
        let mut context = VcpuContext::new(LIST_REGISTERS);
        context.power_on(entry);
        Self {
            vm,
            vcpu,
            lists: SavedListRegisters::new(LIST_REGISTERS),
            context,
            kicks: Kicks::NONE,
        }
    }

    /// Runs vCPU 0 of a new VM of 8.
    pub(crate) fn new() -> Self {
        Self::on(vm(8), 0)
    }

    /// Runs a handler as el2 does.
    pub(crate) fn trap<R>(
        &mut self,
        handler: impl FnOnce(&mut Trap<'_, SavedListRegisters>, &mut VcpuContext) -> R,
    ) -> R {
        let mut trap = Trap::new(self.vm, self.vcpu, &mut self.lists);
        let result = handler(&mut trap, &mut self.context);
        self.kicks = trap.kicks;
        result
    }

    /// Fills x0 and up; everything else gets a pattern, so that a register that changes shows.
    pub(crate) fn registers(&mut self, low: &[u64]) -> Frame {
        let frame = &mut self.context.frame;
        for (n, register) in (0_u64..).zip(&mut frame.x) {
            *register = 0x5a5a_0000 + n;
        }
        frame.x[..low.len()].copy_from_slice(low);
        frame.clone()
    }

    /// The CPUs that the last step kicked, by index.
    pub(crate) fn kicked(&mut self) -> alloc::vec::Vec<u16> {
        core::iter::from_fn(|| self.kicks.pop())
            .map(PcpuId::get)
            .collect()
    }
}
