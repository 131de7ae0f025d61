//! A CPU whose policy throttles: a vCPU alone in a WFI that does not trap is stopped at its time, obeys, and goes on.

use core::sync::atomic::Ordering;

use super::fake::{Act, Fake, System};
use super::rounds;
use crate::cpu::Pcpu;
use crate::sched::{Capped, RoundRobin};
use crate::vm::{Kicks, Phase, Vm, request};
use alloc::boxed::Box;

/// A fifth of a CPU, in ticks a period.
const PERIOD: u64 = 6_250_000;
const QUOTA: u64 = PERIOD / 5;

/// Makes a CPU on which a vCPU is alone, computes without end, and may do so for a fifth of each period.
fn lone() -> (&'static System, &'static Vm, Pcpu<Fake, Capped<RoundRobin>>) {
    let system = System::new();
    let vm = system.vm(1, 1, 0);
    vm.cap.set(Some(200), 0);
    let cpu = system.capped_cpu(0);
    assert!(system.turn_on(vm, 0));
    (system, vm, cpu)
}

/// Returns how long the guest has computed, as its CPU sees it.
fn ran(system: &System, vm: &Vm, cpu: &mut Pcpu<Fake, Capped<RoundRobin>>) -> u64 {
    system.round.set(Some(1));
    system.ask_deferred(0);
    cpu.step();
    vm.vcpus[0].usage.ran_ticks()
}

#[test]
fn a_lone_vcpu_is_stopped_at_its_time_and_goes_on() {
    let (system, vm, mut cpu) = lone();
    let loaded = || vm.vcpus[0].at.loaded.load(Ordering::SeqCst);
    for period in 0..3 {
        while system.now.get() < period * PERIOD + QUOTA + 2 {
            cpu.step();
        }
        assert!(!loaded(), "it stands still until its replenishment");
        let ran = ran(system, vm, &mut cpu);
        assert!(
            ran.abs_diff((period + 1) * QUOTA) <= 100,
            "{ran} in {period} periods"
        );
        while system.now.get() < (period + 1) * PERIOD {
            cpu.step();
        }
        cpu.step();
        assert!(loaded(), "it goes on");
    }
    let stolen = vm.vcpus[0].usage.stolen_ticks();
    assert!(stolen.abs_diff(3 * (PERIOD - QUOTA)) <= 100, "{stolen}");
}

#[test]
fn a_cap_that_is_set_while_a_vcpu_runs_holds_from_then_on() {
    let (system, vm, mut cpu) = lone();
    vm.cap.set(None, 0);
    while system.now.get() < 3 * PERIOD {
        cpu.step();
    }
    let before = ran(system, vm, &mut cpu);
    assert!(before >= 3 * PERIOD - 1000, "{before}");
    for (millicores, part) in [(Some(200), QUOTA), (Some(100), QUOTA / 2), (None, PERIOD)] {
        vm.cap.set(millicores, system.now.get());
        system.request_all(vm, request::AGREE);
        let (from, begun) = (ran(system, vm, &mut cpu), system.now.get());
        while system.now.get() < begun + 4 * PERIOD {
            cpu.step();
        }
        let ran = ran(system, vm, &mut cpu) - from;
        // A period that was begun gives its whole time once.
        let most = 5 * part.min(PERIOD);
        assert!(
            (4 * part - part / 5..=most).contains(&ran),
            "{ran} of {part} each"
        );
    }
}

#[test]
fn the_sleep_of_a_capped_vcpu_costs_it_nothing() {
    let (system, vm, mut cpu) = lone();
    // It is woken four times a period, and sleeps although no other vCPU wants the CPU.
    for round in 1..20_u64 {
        system.does((0, 0), &[Act::Spin(1000), Act::Wait]);
        let wakes = move || {
            system.now.set(round * PERIOD / 4);
            system.wake(&vm.vcpus[0]);
        };
        *system.in_sleep.borrow_mut() = Some(Box::new(wakes));
        rounds(&mut cpu, 3);
        assert_eq!(system.now.get(), round * PERIOD / 4, "it slept");
    }
    let ran = ran(system, vm, &mut cpu);
    assert!(ran < QUOTA / 2, "{ran} ticks in five periods");
    assert!(
        vm.vcpus[0].usage.stolen_ticks() < 100,
        "it was never held back"
    );
}

#[test]
fn a_throttled_vcpu_is_stopped_with_its_vm_and_does_not_run_before() {
    // Asked before it is throttled, and while it is.
    for late in [false, true] {
        let (system, vm, mut cpu) = lone();
        while system.now.get() <= QUOTA {
            cpu.step();
        }
        system.does((0, 0), &[Act::Spin(1)]);
        if late {
            // Something else wakes the CPU.
            system.wake(&vm.vcpus[0]);
            cpu.step();
        }
        assert!(system.end(vm, false));
        for _ in 0..4 {
            cpu.step();
        }
        assert_eq!((vm.phase(), vm.is_left()), (Phase::Stopping, true));
        let acts = system.acts.borrow();
        assert_eq!(acts[&(0, 0)].len(), 1, "it was not entered");
        assert!(system.now.get() < PERIOD, "it was not waited for");
    }
}

/// Its guest may ask AFFINITY_INFO about it as often as it likes.
#[test]
fn a_throttled_vcpu_that_another_waits_for_does_not_run_before_its_replenishment() {
    let (system, vm, mut cpu) = lone();
    while system.now.get() <= QUOTA {
        cpu.step();
    }
    cpu.step();
    system.does((0, 0), &[Act::Spin(1)]);
    for _ in 0..3 {
        let mut kicks = Kicks::NONE;
        vm.vcpus[0].hurry(&mut kicks);
        cpu.step();
        let acts = system.acts.borrow();
        if system.now.get() < PERIOD {
            assert_eq!(acts[&(0, 0)].len(), 1, "it was entered");
        }
    }
    assert_eq!(vm.vcpus[0].requested(), 0);
}
