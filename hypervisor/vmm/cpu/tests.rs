//! CPUs step by step on a fake machine: what is loaded, when a guest runs, when a VM is left.

mod crowd;
mod fake;
mod interrupts;
mod races;
mod throttle;
mod traps;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use fake::{Act, Fake, System, guest};
use proptest::prelude::*;
use vgic::Notice;

use super::Pcpu;
use crate::sched::{Policy, RoundRobin};
use crate::vm::Resume;
use crate::vm::request;
use crate::vm::{Phase, Vm};
use types::ids::PcpuId;

/// Lets a CPU do some rounds.
fn rounds<P: Policy>(cpu: &mut Pcpu<Fake, P>, count: usize) {
    for _ in 0..count {
        cpu.step();
    }
}

/// Returns those lines that hold a word.
fn with(lines: &[String], word: &str) -> Vec<String> {
    let has = |line: &&String| line.contains(word);
    lines.iter().filter(has).cloned().collect()
}

#[test]
fn a_vcpu_begins_when_it_is_turned_on_and_is_told_off_when_it_goes() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
    rounds(&mut cpu, 3);
    assert!(system.heard().is_empty(), "none is on");
    assert!(system.turn_on(vm, 1));
    system.does((0, 1), &[Act::Spin(10), Act::Off]);
    rounds(&mut cpu, 8);
    let heard = system.heard();
    let told = ["cpu0: vm0 vcpu1 begins", "cpu0: vm0 left"];
    assert_eq!([&heard[0], &heard[1]], told, "{heard:?}");
    assert_eq!(with(&heard, "vcpu1 o").len(), 2, "on and off: {heard:?}");
    assert_eq!(vm.vcpus[1].power.affinity_info(), psci::AFFINITY_OFF);
    assert_eq!(vm.life.attached(), 0);
}

#[test]
fn a_vcpu_that_comes_back_to_an_idle_cpu_finds_its_registers_there() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.does((0, 0), &[Act::Off, Act::Spin(1), Act::Off]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 4);
    assert!(with(&system.heard(), "known").is_empty());
    system.during_sleep.set(Some((vm, 0)));
    rounds(&mut cpu, 2);
    let heard = system.heard();
    assert_eq!(with(&heard, "known reset").len(), 1, "{heard:?}");
    assert_eq!(with(&heard, "vcpu0 begins").len(), 1, "{heard:?}");
}

#[test]
fn registers_timers_and_fp_values_go_with_a_vcpu_to_another_cpu() {
    let system = System::new();
    let (vm, mut zero, mut one) = (system.vm(2, 2, 0), system.cpu(0), system.cpu(1));
    for vcpu in [0, 1] {
        system.turn_on(vm, vcpu);
    }
    let deadline = system.now.get() + 50_000_000;
    system.does((0, 1), &[Act::Fp, Act::Timer(deadline), Act::Spin(10)]);
    system.does((0, 0), &[Act::Fp, Act::Spin(10), Act::Fp]);
    rounds(&mut zero, 40);
    assert!(system.migrate(vm, 1, 1), "no other move is under way");
    assert!(!system.migrate(vm, 1, 1), "one at a time");
    assert_eq!(vm.vcpus[1].at.placement().pcpu(), PcpuId::new(0));
    // One that waits for its CPU goes in its turn.
    rounds(&mut zero, 40);
    assert_eq!(vm.vcpus[1].at.placement().pcpu(), PcpuId::new(1));
    system.heard();
    // The fake's `check` compares what is loaded there with what was saved here, its FP values too.
    system.does((0, 1), &[Act::Fp, Act::Wait]);
    rounds(&mut one, 4);
    rounds(&mut zero, 4);
    let heard = system.heard();
    assert!(with(&heard, "begins").is_empty(), "it goes on: {heard:?}");
    // In WFI it is woken by the timer that it set on the other CPU: the CPU sleeps until that.
    for _ in 0..4 {
        one.step();
    }
    assert!(system.now.get() >= deadline, "slept until its timer fires");
    assert_eq!(vm.life.attached(), 2);
}

#[test]
fn a_vm_is_left_once_however_many_cpus_its_vcpus_are_on() {
    let system = System::new();
    let (vm, mut zero, mut one) = (system.vm(4, 3, 0), system.cpu(0), system.cpu(1));
    for vcpu in [0, 1] {
        system.turn_on(vm, vcpu);
    }
    rounds(&mut zero, 6);
    assert!(system.migrate(vm, 1, 1));
    rounds(&mut zero, 4);
    rounds(&mut one, 4);
    assert!(system.end(vm, false));
    system.heard();
    rounds(&mut one, 6);
    assert!(!vm.is_left(), "vCPU 0 is on still");
    assert!(with(&system.heard(), "left").is_empty());
    rounds(&mut zero, 6);
    assert!(vm.is_left());
    assert_eq!(with(&system.heard(), "left").len(), 1);
    assert_eq!(vm.phase(), Phase::Stopping);
}

#[test]
fn a_vcpu_that_is_turned_on_while_its_vm_ends_does_not_run() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
    system.turn_on(vm, 0);
    rounds(&mut cpu, 3);
    system.turn_on(vm, 1);
    assert!(system.end(vm, true));
    system.heard();
    rounds(&mut cpu, 8);
    let heard = system.heard();
    assert!(with(&heard, "begins").is_empty(), "{heard:?}");
    assert!(vm.is_left());
}

#[test]
fn a_paused_vcpu_does_not_run_until_the_pause_is_over() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.turn_on(vm, 0);
    rounds(&mut cpu, 3);
    assert!(vm.life.pause(system.now.get()));
    system.request_all(vm, request::PAUSE);
    let ran = |acts: usize| {
        let all = system.acts.borrow();
        all.get(&(0, 0)).map_or(0, |left| acts - left.len())
    };
    system.does((0, 0), &[Act::Spin(1); 4]);
    rounds(&mut cpu, 6);
    assert_eq!(ran(4), 0, "paused");
    assert!(vm.life.ask_resume());
    let resumed = vm.life.resume(system.now.get(), |_| {});
    assert!(matches!(resumed, Resume::Done { .. }));
    system.request_all(vm, request::PAUSE);
    rounds(&mut cpu, 8);
    assert_eq!(ran(4), 4);
}

#[test]
fn an_interrupt_reaches_a_vcpu_that_is_not_loaded() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
    for vcpu in [0, 1] {
        system.turn_on(vm, vcpu);
        system.does((0, vcpu), &[Act::Spin(1), Act::Wait]);
    }
    rounds(&mut cpu, 8);
    let target = &vm.vcpus[1];
    let mut kicks = crate::vm::Kicks::NONE;
    let intid = vgic::IntId::new(3).expect("an SGI");
    let mut post = vm.poster(&mut kicks);
    post(1, Notice::Interrupt(intid));
    drop(post);
    assert!(!target.inbox.is_empty());
    system.does((0, 1), &[Act::Spin(1)]);
    rounds(&mut cpu, 4);
    assert!(
        target.inbox.is_empty(),
        "it was delivered when it was loaded"
    );
}

#[test]
fn a_system_error_ends_the_vm_that_had_the_cpu() {
    let system = System::new();
    let (first, second) = (system.vm(1, 1, 0), system.vm(1, 1, 0));
    let mut cpu = system.cpu(0);
    system.turn_on(first, 0);
    system.turn_on(second, 0);
    system.does((1, 0), &[Act::SError]);
    rounds(&mut cpu, 12);
    let heard = system.heard();
    assert_eq!(with(&heard, "failed"), ["cpu0: vm1 failed: SError"]);
    assert!(second.is_left() && !first.is_left());
}

#[test]
fn deferred_work_leaves_a_vcpu_that_wants_the_cpu_its_half() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.turn_on(vm, 0);
    rounds(&mut cpu, 3);
    system.heard();
    let begun = system.now.get();
    system.steps.set((0, 20));
    system.step_ticks.set(1000);
    system.ask_deferred(0);
    while system.steps.get().1 != 0 {
        cpu.step();
    }
    let took = system.now.get() - begun;
    assert!(took >= 2 * 19 * 1000, "20 steps of 1,000 took {took}");
}

#[test]
fn what_a_vcpu_runs_and_that_it_is_on_is_published_when_asked() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(1, 1, 0), system.cpu(0));
    system.does((0, 0), &[Act::Spin(50)]);
    system.turn_on(vm, 0);
    rounds(&mut cpu, 1);
    assert!(with(&system.heard(), "vcpu0 on").is_empty(), "told later");
    assert_eq!(vm.vcpus[0].usage.ran_ticks(), 0);
    system.round.set(Some(7));
    system.ask_deferred(0);
    rounds(&mut cpu, 1);
    let heard = system.heard();
    let place = |word: &str| heard.iter().position(|line| line.contains(word));
    let (on, published) = (place("vcpu0 on"), place("published"));
    assert!(on.is_some() && on < published, "{heard:?}");
    assert!(vm.vcpus[0].usage.ran_ticks() >= 50);
}

#[test]
fn a_guest_reads_what_other_vcpus_took_until_its_vm_begins_anew() {
    let system = System::new();
    let vms = [system.vm(1, 1, 0), system.vm(1, 1, 0)];
    let mut cpu = system.cpu(0);
    for vm in vms {
        system.turn_on(vm, 0);
        vm.vcpus[0].usage.tell_guest();
    }
    rounds(&mut cpu, 200);
    for (vm, other) in [(vms[0], vms[1]), (vms[1], vms[0])] {
        system.round.set(Some(1));
        system.ask_deferred(0);
        rounds(&mut cpu, 1);
        let (stolen, ran) = (
            vm.vcpus[0].usage.all_stolen_ticks(),
            other.vcpus[0].usage.ran_ticks(),
        );
        let told = vm.stolen_time.read_ns(0) / 16;
        let slice = 5_000_000 / 16;
        assert!(told >= 3 * slice, "{told}");
        assert!(told <= stolen, "{told} of {stolen}");
        assert!(
            told + 3 * slice >= ran.min(stolen),
            "{told}, {stolen}, {ran}"
        );
    }
    // Its time goes on over CPU_OFF and CPU_ON.
    let before = vms[0].stolen_time.read_ns(0);
    system.does((0, 0), &[Act::Off]);
    rounds(&mut cpu, 4);
    assert!(system.turn_on(vms[0], 0), "it was off");
    rounds(&mut cpu, 10);
    assert!(vms[0].stolen_time.read_ns(0) >= before);
}

#[test]
fn a_cpu_of_vcpus_in_reserve_is_turned_off_if_it_may_be() {
    let system = System::new();
    let (vm, mut cpu) = (system.vm(2, 0, 1), system.cpu(1));
    system.ask_deferred(1);
    rounds(&mut cpu, 2);
    assert!(with(&system.heard(), "off").is_empty(), "it may not be");
    system.may_power_down.set(true);
    system.ask_deferred(1);
    rounds(&mut cpu, 2);
    assert_eq!(system.heard(), ["cpu1: off"]);
    assert!(vm.is_left());
}

/// A loop that waits for [x0] to change: ldr w1, [x0]; yield; cbz w1, .-8.
const LOOP: u64 = 0x4008_0000;
const LOOP_CODE: [u32; 3] = [0xb940_0001, 0xd503_203f, 0x34ff_ffc1];
const WORD: u64 = 0x4100_0000;

/// What a test does next, by chance.
#[derive(Clone, Copy, Debug)]
enum Step {
    Round(u16),
    On(u16, u16),
    OnInSleep(u16, u16),
    Act(u16, u16, Act),
    Migrate(u16, u16, u16),
    Pause(u16),
    Resume(u16),
    End(u16, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (vm, vcpu, cpu) = (0..2_u16, 0..3_u16, 0..2_u16);
    let act = prop_oneof![
        Just(Act::Spin(5)),
        Just(Act::Spin(2_000_000)),
        Just(Act::Wait),
        Just(Act::Off),
        Just(Act::Fp),
        // A word that never changes, and one that has.
        any::<bool>().prop_map(|masked| Act::Code(LOOP, WORD, masked)),
        Just(Act::Event(LOOP, WORD)),
    ];
    let interrupts = prop_oneof![
        Just(Act::Settled(guest::open)),
        Just(Act::Settled(guest::fire)),
        Just(Act::Settled(guest::send_self)),
        Just(Act::Settled(guest::send_next)),
        Just(Act::Settled(guest::acknowledge)),
        Just(Act::Settled(guest::end)),
    ];
    let act = prop_oneof![act, interrupts];
    prop_oneof![
        10 => cpu.clone().prop_map(Step::Round),
        4 => (vm.clone(), vcpu.clone()).prop_map(|(vm, vcpu)| Step::On(vm, vcpu)),
        2 => (vm.clone(), vcpu.clone()).prop_map(|(vm, vcpu)| Step::OnInSleep(vm, vcpu)),
        6 => (vm.clone(), vcpu.clone(), act).prop_map(|(vm, vcpu, act)| Step::Act(vm, vcpu, act)),
        3 => (vm.clone(), vcpu, cpu).prop_map(|(vm, vcpu, cpu)| Step::Migrate(vm, vcpu, cpu)),
        1 => vm.clone().prop_map(Step::Pause),
        1 => vm.clone().prop_map(Step::Resume),
        1 => (vm, any::<bool>()).prop_map(|(vm, reset)| Step::End(vm, reset)),
    ]
}

/// Does what a VM's manager does once it is left: the next life begins in the same memory.
fn begin_again(system: &System, vm: &'static Vm) {
    assert!(vm.is_left());
    for vcpu in &*vm.vcpus {
        let context = vcpu.context.try_lock();
        let mut context = context.expect("no CPU holds registers of a VM that is left");
        let _physical = vcpu.gic.lock().reset(&mut context.gic.list);
        vcpu.inbox.clear();
        vcpu.requests.store(0, Ordering::SeqCst);
        assert!(vcpu.power.apply(psci::Event::Reset).is_ok());
    }
    system
        .acts
        .borrow_mut()
        .retain(|name, _| name.0 != vm.id.index() as u16);
    if vm.phase() == Phase::Stopping {
        vm.life.left();
        assert!(vm.life.start() && vm.life.started());
    } else {
        vm.life.left();
        assert!(vm.life.started());
    }
}

proptest! {
    /// The fake checks at each entry that the vCPU is placed there, that all its registers are its own, and that those physical
    /// interrupts are active which are its own.
    #[test]
    fn random_lives_keep_each_vcpu_whole(steps in prop::collection::vec(step(), 1..300)) {
        let system = System::new();
        for (index, word) in LOOP_CODE.iter().enumerate() {
            system.store(LOOP + 4 * index as u64, *word);
        }
        let vms = [system.vm(3, 3, 0), system.vm(3, 3, 1)];
        let mut cpus = [system.cpu(0), system.cpu(1)];
        let round = |cpus: &mut [Pcpu<Fake, RoundRobin>; 2], index: u16| {
            cpus[usize::from(index)].step();
            for vm in vms {
                if vm.is_leaving() && vm.is_left() {
                    begin_again(system, vm);
                }
            }
        };
        for step in steps {
            match step {
                Step::Round(cpu) => round(&mut cpus, cpu),
                Step::On(vm, vcpu) => _ = system.turn_on(vms[usize::from(vm)], vcpu),
                Step::OnInSleep(vm, vcpu) => system.during_sleep.set(Some((vms[usize::from(vm)], vcpu))),
                Step::Act(vm, vcpu, act) => system.does((vm, vcpu), &[act]),
                Step::Migrate(vm, vcpu, cpu) => {
                    let vm = vms[usize::from(vm)];
                    if vm.vcpus[usize::from(vcpu)].at.placement().pcpu() != PcpuId::new(cpu) {
                        system.migrate(vm, vcpu, cpu);
                    }
                }
                Step::Pause(vm) => {
                    let vm = vms[usize::from(vm)];
                    if vm.life.pause(system.now.get()) {
                        system.request_all(vm, request::PAUSE);
                    }
                }
                Step::Resume(vm) => {
                    let vm = vms[usize::from(vm)];
                    let _is_paused = vm.life.ask_resume();
                    if let Resume::Done { .. } = vm.life.resume(system.now.get(), |_| {}) {
                        system.request_all(vm, request::PAUSE);
                    }
                }
                Step::End(vm, reset) => _ = system.end(vms[usize::from(vm)], reset),
            }
        }
        // Whatever was begun comes to its end.
        system.during_sleep.set(None);
        for vm in vms {
            system.end(vm, false);
        }
        for _ in 0..400 {
            round(&mut cpus, 0);
            round(&mut cpus, 1);
        }
        for vm in vms {
            prop_assert_eq!(vm.phase(), Phase::Running, "stopped and started");
            prop_assert_eq!(vm.life.attached(), 0);
            for vcpu in &*vm.vcpus {
                prop_assert!(!vcpu.at.is_pending(), "no move is left half done");
            }
        }
    }
}
