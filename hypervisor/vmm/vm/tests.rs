//! What vCPUs of a VM do to each other: waking, asking, finding.

use super::vcpu::request;
use super::{Kicks, Phase};
use fixture::{RAM, RAM_BYTES, vm};
use types::address::GuestPhys;
use types::ids::{PcpuId, VcpuId};
use vgic::Notice;

pub(crate) mod fixture;

#[test]
fn only_the_first_of_several_notices_kicks() {
    let vm = vm(8);
    let mut kicks = Kicks::NONE;
    vm.post(5, Notice::Resync, &mut kicks);
    assert_eq!(kicks.pop(), Some(PcpuId::new(1)));
    vm.post(5, Notice::Resync, &mut kicks);
    assert!(kicks == Kicks::NONE, "it knows already");
    vm.post(8, Notice::Resync, &mut kicks);
    vm.post(u16::MAX, Notice::Resync, &mut kicks);
    assert!(kicks == Kicks::NONE, "nobody is there");
}

#[test]
fn a_request_is_left_with_every_vcpu_and_wakes_those_that_a_cpu_has() {
    let vm = vm(8);
    let mut kicks = Kicks::NONE;
    for index in [0, 1, 4] {
        assert!(vm.own(&vm.vcpus[index]));
    }
    assert!(!vm.disown(&vm.vcpus[1]));
    vm.request_all(request::PAUSE, &mut kicks);
    vm.request_all(request::STOP, &mut kicks);
    for vcpu in &*vm.vcpus {
        assert_eq!(vcpu.requested(), request::PAUSE | request::STOP);
    }
    assert_eq!(kicks.pop(), Some(PcpuId::new(0)), "where 0 and 4 are");
    assert!(
        kicks == Kicks::NONE,
        "1 was given back, the others never ran"
    );
}

#[test]
fn vcpus_are_found_by_the_affinity_they_show() {
    let vm = vm(40);
    for vcpu in &*vm.vcpus {
        let affinity = vcpu.mpidr() & 0xff_00ff_ffff;
        assert_eq!(
            vm.vcpu_by_affinity(affinity).map(|found| found.id),
            Some(vcpu.id)
        );
    }
    for affinity in [0x10, 0x208, 0x20f, 0x1_0000, 1 << 32, 0x8000_0000, u64::MAX] {
        assert!(vm.vcpu_by_affinity(affinity).is_none(), "{affinity:#x}");
    }
    assert!(vm.vcpu(VcpuId::new(40)).is_none());
}

#[test]
fn ram_ends_where_it_ends() {
    let vm = vm(1);
    for (address, inside) in [
        (0, false),
        (RAM - 1, false),
        (RAM, true),
        (RAM + RAM_BYTES - 1, true),
        (RAM + RAM_BYTES, false),
        (u64::MAX, false),
    ] {
        assert_eq!(vm.is_ram(GuestPhys::new(address)), inside, "{address:#x}");
    }
}

#[test]
fn a_line_nobody_has_moves_nothing() {
    let vm = vm(2);
    let mut kicks = Kicks::NONE;
    for intid in [0, 31, 96, 1019, 1020, 1023, 8192, u32::MAX] {
        vm.set_line(intid, true, &mut kicks);
    }
    assert!(kicks == Kicks::NONE && vm.vcpus.iter().all(|vcpu| vcpu.inbox.is_empty()));
    assert_eq!(vm.phase(), Phase::Running);
}
