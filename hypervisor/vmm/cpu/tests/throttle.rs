//! A CPU whose policy throttles: a vCPU alone in a WFI that does not trap is stopped at its time, obeys, and goes on.

use core::sync::atomic::Ordering;

use super::fake::{Act, Fake, System};
use crate::cpu::Pcpu;
use crate::sched::capped::{Cap, Capped, PERIOD};
use crate::vm::{Phase, Vm};

/// Makes a CPU on which a vCPU is alone, sleeps without end, and may do so for 200 ticks a period.
fn lone() -> (&'static System, &'static Vm, Pcpu<Fake, Capped>) {
    let system = System::new();
    let vm = system.vm(1, 1, 0);
    let policy = Capped::new(100_000, Some(Cap::new(200)));
    let cpu = system.cpu_with(0, policy);
    system.does((0, 0), &[Act::Sleep; 40]);
    assert!(system.turn_on(vm, 0));
    (system, vm, cpu)
}

/// Returns how many of its sleeps the guest has begun.
fn sleeps(system: &System) -> usize {
    40 - system.acts.borrow()[&(0, 0)].len()
}

#[test]
fn a_lone_vcpu_in_an_untrapped_wfi_is_stopped_at_its_time_and_goes_on() {
    let (system, vm, mut cpu) = lone();
    let ran = || vm.vcpus[0].usage.ran_ticks();
    let loaded = || vm.vcpus[0].at.loaded.load(Ordering::SeqCst);
    for period in 1..4 {
        while system.now.get() < period * PERIOD {
            cpu.step();
        }
        assert_eq!(ran(), period * 200, "in {period} periods");
        assert!(!loaded(), "it stands still until its replenishment");
        let slept = sleeps(system);
        cpu.step();
        assert!(loaded() && sleeps(system) > slept, "it goes on");
    }
    assert_eq!(vm.vcpus[0].usage.stolen_ticks(), 2 * 800 - 1);
}

#[test]
fn a_throttled_vcpu_is_stopped_with_its_vm_and_does_not_run_before() {
    // Asked before it is throttled, and while it is.
    for late in [false, true] {
        let (system, vm, mut cpu) = lone();
        while system.now.get() < 201 {
            cpu.step();
        }
        let slept = sleeps(system);
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
        assert_eq!(sleeps(system), slept, "it was not entered");
        assert!(system.now.get() < PERIOD, "it was not waited for");
    }
}
