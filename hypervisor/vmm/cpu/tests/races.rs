//! What others do to a vCPU in the middle of its coming, going and sleeping.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use super::fake::{Act, Fake, System, guest};
use super::{rounds, with};
use crate::cpu::Pcpu;
use crate::dispatch::slow::Exit;
use crate::exit::{Syndrome, class};
use crate::sched::RoundRobin;
use crate::sched::Slot;
use crate::vm::{Cause, Vm, request};
use types::ids::PcpuId;

/// A CPU that keeps the registers of vCPU 0 of a VM of two, which turned itself off there and is to compute when it is on again.
fn resident() -> (&'static System, &'static Vm, Pcpu<Fake, RoundRobin>) {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
    system.does((0, 0), &[Act::Settled(guest::open), Act::Off]);
    assert!(system.turn_on(vm, 0));
    rounds(&mut cpu, 3);
    assert!(cpu.resident.is_some());
    system.heard();
    (system, vm, cpu)
}

#[test]
fn a_vm_that_is_stopped_just_before_its_vcpu_begins_is_left() {
    let (system, vm, mut cpu) = resident();
    let other = system.vm(1, 1, 0);
    // The other CPU has changed the phase and not asked its vCPUs yet.
    let happens = move || {
        assert!(system.turn_on(vm, 0));
        assert!(vm.life.stop(Cause::Operator));
    };
    *system.in_sleep.borrow_mut() = Some(Box::new(happens));
    rounds(&mut cpu, 2);
    assert!(with(&system.heard(), "begins").is_empty());
    system.request_all(vm, request::STOP);
    rounds(&mut cpu, 4);
    assert!(vm.is_left());
    // The CPU is whole: another VM's vCPU runs there.
    system.turn_on(other, 0);
    rounds(&mut cpu, 4);
    assert_eq!(with(&system.heard(), "begins"), ["cpu0: vm1 vcpu0 begins"]);
}

#[test]
fn a_vcpu_that_is_woken_for_nothing_stays_where_it_is_found() {
    let (system, vm, mut cpu) = resident();
    *system.in_sleep.borrow_mut() = Some(Box::new(move || system.wake(&vm.vcpus[0])));
    rounds(&mut cpu, 2);
    assert!(with(&system.heard(), "begins").is_empty(), "it is off");
    system.during_sleep.set(Some((vm, 0)));
    rounds(&mut cpu, 2);
    let heard = system.heard();
    assert_eq!(with(&heard, "known reset").len(), 1, "{heard:?}");
    assert_eq!(with(&heard, "begins").len(), 1, "{heard:?}");
}

#[test]
fn an_interrupt_that_comes_with_the_cpu_on_is_there_at_the_first_instruction() {
    let (system, vm, mut cpu) = resident();
    let mut one = system.cpu(1);
    assert!(system.migrate(vm, 1, 1));
    rounds(&mut cpu, 1);
    let happens = move || {
        let mut kicks = crate::vm::Kicks::NONE;
        assert!(vm.vcpus[0].inbox.post_private(vgic::IntId::private(3)));
        vm.vcpus[0].notify(&mut kicks);
        assert!(system.turn_on(vm, 0));
    };
    *system.in_sleep.borrow_mut() = Some(Box::new(happens));
    let take = [
        Act::Settled(guest::acknowledge),
        Act::Settled(guest::end),
        Act::Spin(1),
    ];
    system.does((0, 0), &take);
    rounds(&mut cpu, 6);
    rounds(&mut one, 1);
    assert_eq!(cpu.machine.ended(), [3]);
}

#[test]
fn a_vcpu_that_is_wanted_elsewhere_while_its_cpu_sleeps_begins_there() {
    let (system, vm, mut cpu) = resident();
    let mut one = system.cpu(1);
    let happens = move || {
        assert!(system.migrate(vm, 0, 1));
        system.turn_on(vm, 0);
    };
    *system.in_sleep.borrow_mut() = Some(Box::new(happens));
    rounds(&mut cpu, 3);
    assert_eq!(vm.vcpus[0].at.placement().pcpu(), PcpuId::new(1));
    rounds(&mut one, 2);
    assert_eq!(with(&system.heard(), "begins"), ["cpu1: vm0 vcpu0 begins"]);
}

#[test]
fn a_bit_that_points_at_nobody_does_nothing() {
    let system = System::new();
    let (vm, mut zero, mut one) = (system.vm(2, 2, 0), system.cpu(0), system.cpu(1));
    // A slot that no vCPU has, and one that is kept for a vCPU which is not here yet.
    for slot in [7, 0] {
        assert!(one.local.wakes.set(Slot::new(slot).unwrap()));
        rounds(&mut one, 1);
        assert!(system.migrate(vm, 0, 1) || slot == 0);
    }
    assert!(system.heard().is_empty());
    assert!(!vm.vcpus[0].is_owned.load(Ordering::SeqCst));
    rounds(&mut zero, 1);
    system.turn_on(vm, 0);
    rounds(&mut one, 2);
    assert_eq!(with(&system.heard(), "begins"), ["cpu1: vm0 vcpu0 begins"]);
}

/// A CPU_SUSPEND power-down of a vCPU that begins at an address after it.
fn suspend(vcpu: u64, address: u64) -> Act {
    let call = u64::from(psci::id::CPU_SUSPEND | psci::id::SMC64);
    let exit = Exit {
        syndrome: Syndrome::new(class::HVC64 << 26 | 1 << 25),
        far: 0,
        address: 0,
    };
    Act::Trap(exit, [call, 1 << 16, address, vcpu])
}

#[test]
fn a_vcpu_that_sleeps_in_a_power_down_state_begins_where_it_said() {
    const LATER: u64 = 0x4000_0040;
    // Alone, so that its registers stay loaded; and with another vCPU that has the CPU meanwhile.
    for others in [false, true] {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
        let mut target = 0;
        if others {
            target = 1;
            system.turn_on(vm, 0);
            system.does((0, 0), &[Act::Spin(2_000_000); 4]);
        }
        let acts = [
            Act::Settled(guest::open),
            suspend(u64::from(target), LATER),
            Act::Settled(guest::acknowledge),
            Act::Settled(guest::end),
            Act::Spin(1),
        ];
        system.does((0, target), &acts);
        system.turn_on(vm, target);
        rounds(&mut cpu, 12);
        let first = system.frame((0, target));
        assert_ne!(first.pc, LATER, "it sleeps");
        let vcpu = &vm.vcpus[usize::from(target)];
        assert!(vcpu.inbox.post_private(vgic::IntId::private(5)));
        system.wake(vcpu);
        rounds(&mut cpu, 20);
        let begins = with(&system.heard(), &alloc::format!("vcpu{target} begins"));
        assert_eq!(begins.len(), 2, "at CPU_ON and after its sleep");
        let frame = system.frame((0, target));
        assert_eq!((frame.pc, frame.x[0]), (LATER, u64::from(target)));
        assert_eq!(cpu.machine.ended(), [5], "what woke it is there");
    }
}

#[test]
fn a_translation_of_another_vcpu_is_forgotten_whoever_ran_between() {
    let system = System::new();
    let (first, second) = (system.vm(2, 2, 0), system.vm(1, 1, 0));
    let mut cpu = system.cpu(0);
    for (vm, vcpu) in [(first, 0), (second, 0), (first, 1)] {
        system.turn_on(vm, vcpu);
    }
    // The fake checks at each entry whose translations there may be.
    rounds(&mut cpu, 200);
    assert_eq!(with(&system.heard(), "begins").len(), 3);
}
