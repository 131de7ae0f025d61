//! A CPU with more vCPUs than it can run: who is looked at, who waits for a word and until when, when WFE traps.

use core::sync::atomic::Ordering;
use vgic::Notice;

use super::fake::{Act, Fake, System, guest};
use super::{rounds, with};
use crate::cpu::Pcpu;
use crate::sched::{RoundRobin, Slot};
use crate::vm::{Kicks, Phase, Vm, request};
use types::ids::PcpuId;
use types::stats::ExitReason;

/// Waits until [x0] is not zero, by WFE: its WFE is at [`WFE`].
const WAIT: u64 = 0x4008_0000;
const WFE: u64 = WAIT + 20;
const WAIT_CODE: [u32; 8] = [
    0xb940_0001, // ldr     w1, [x0]
    0x3500_00c1, // cbnz    w1, out
    0x885f_7c02, // ldxr    w2, [x0]
    0x4a01_0042, // eor     w2, w2, w1
    0x3500_0042, // cbnz    w2, 1f
    0xd503_205f, // wfe
    0x17ff_fffa, // 1: b    the first
    0xd65f_03c0, // out: ret
];
/// Does nothing, with a hint: yield; b .-4.
const SPIN: u64 = 0x4009_0000;
const WORD: u64 = 0x4100_0000;

const MASKED: Act = Act::Code(WAIT, WORD, true);
const UNMASKED: Act = Act::Code(WAIT, WORD, false);

/// Makes a CPU and a VM on it of so many vCPUs that are on.
fn crowd(count: u16) -> (&'static System, &'static Vm, Pcpu<Fake, RoundRobin>) {
    let system = System::new();
    let (vm, cpu) = (system.vm(count, count, 0), system.cpu(0));
    for (index, word) in WAIT_CODE.iter().enumerate() {
        system.store(WAIT + 4 * index as u64, *word);
    }
    system.store(SPIN, 0xd503_203f);
    system.store(SPIN + 4, 0x17ff_ffff);
    for vcpu in 0..count {
        assert!(system.turn_on(vm, vcpu));
    }
    (system, vm, cpu)
}

/// Returns how often a vCPU was entered to run code, since this was asked last.
fn entries(system: &System, vcpu: u16) -> usize {
    let word = alloc::format!("vcpu{vcpu} at");
    with(&system.heard(), &word).len()
}

/// Lets a CPU run for so many ticks.
fn run(system: &System, cpu: &mut Pcpu<Fake, RoundRobin>, ticks: u64) {
    let end = system.now.get() + ticks;
    while system.now.get() < end {
        cpu.step();
    }
}

/// A millisecond, in the fake's ticks.
const MS: u64 = 62_500;

/// Lets a CPU do rounds until something is so.
fn until(cpu: &mut Pcpu<Fake, RoundRobin>, is_so: impl Fn(&Pcpu<Fake, RoundRobin>) -> bool) {
    for _ in 0..1000 {
        if is_so(cpu) {
            return;
        }
        cpu.step();
    }
    panic!("not in 1,000 rounds");
}

/// Lets a CPU run until vCPU 0 has run code and waits for a word.
fn until_it_waits(system: &System, cpu: &mut Pcpu<Fake, RoundRobin>) {
    until(cpu, |cpu| cpu.queue.is_watched());
    assert_eq!(entries(system, 0), 1);
}

#[test]
fn one_that_waits_for_a_word_does_not_run_until_it_changes() {
    let (system, _, mut cpu) = crowd(2);
    system.does((0, 0), &[MASKED; 20]);
    until_it_waits(system, &mut cpu);
    run(system, &mut cpu, 19 * MS);
    assert_eq!(entries(system, 0), 0, "it waits");
    system.store(WORD, 1);
    run(system, &mut cpu, MS);
    assert!(entries(system, 0) > 0, "its word has changed");
}

#[test]
fn a_deadline_bounds_what_a_wrong_guess_costs() {
    for (act, patience) in [(MASKED, 20), (UNMASKED, 4)] {
        let (system, _, mut cpu) = crowd(2);
        system.does((0, 0), &[act; 20]);
        until_it_waits(system, &mut cpu);
        run(system, &mut cpu, patience * MS - MS);
        assert_eq!(entries(system, 0), 0);
        run(system, &mut cpu, 2 * MS);
        assert!(entries(system, 0) > 0, "{patience} ms are over");
    }
}

#[test]
fn an_interrupt_ends_the_wait_of_one_that_would_take_it() {
    for (act, ends) in [(MASKED, false), (UNMASKED, true)] {
        let (system, vm, mut cpu) = crowd(2);
        system.does((0, 0), &[act; 20]);
        until_it_waits(system, &mut cpu);
        let mut kicks = Kicks::NONE;
        let mut post = vm.poster(&mut kicks);
        post(0, Notice::Interrupt(vgic::IntId::new(3).expect("an SGI")));
        drop(post);
        rounds(&mut cpu, 2);
        assert_eq!(entries(system, 0) > 0, ends, "{act:?}");
    }
}

/// It may be looked at before its first instruction, on a CPU that is slow or was kept from it: nothing else would wake it.
#[test]
fn one_with_an_interrupt_to_take_does_not_wait_for_a_word() {
    for (act, waits) in [(MASKED, true), (UNMASKED, false)] {
        let (system, _, mut cpu) = crowd(2);
        let sends = [guest::open, guest::send_self].map(Act::Settled);
        system.does((0, 0), &sends);
        system.does((0, 0), &[act; 2]);
        until(&mut cpu, |_| entries(system, 0) > 0);
        cpu.step();
        assert_eq!(cpu.queue.is_watched(), waits, "{act:?}");
    }
}

#[test]
fn one_that_only_spins_leaves_the_rest_of_its_slice_to_others() {
    let (system, _, mut cpu) = crowd(2);
    system.does((0, 0), &[Act::Code(SPIN, 0, false); 200]);
    run(system, &mut cpu, 100 * MS);
    let spun = entries(system, 0) as u64;
    assert!((5..=20).contains(&spun), "{spun} turns of 100 us in 100 ms");
}

#[test]
fn a_lone_vcpu_is_never_looked_at_and_its_wfe_does_not_trap() {
    let (system, _, mut cpu) = crowd(1);
    system.does((0, 0), &[MASKED, Act::Event(WFE, WORD), Act::Spin(50 * MS)]);
    run(system, &mut cpu, 60 * MS);
    let passed = with(&system.heard(), "passes its WFE");
    assert_eq!((passed.len(), system.looks.get()), (1, 0));
}

/// A look follows some dozens of instructions: one that gets on must not pay for that ever again.
#[test]
fn one_that_gets_on_is_looked_at_less_and_less_unless_another_waits_for_a_word() {
    let (system, _, mut cpu) = crowd(2);
    run(system, &mut cpu, 20 * MS);
    system.looks.set(0);
    run(system, &mut cpu, 100 * MS);
    let looks = system.looks.get();
    assert!((40..=80).contains(&looks), "{looks} looks in ten turns");
    // What it does may be what the other one waits for.
    system.does((0, 0), &[MASKED; 20]);
    until(&mut cpu, |cpu| cpu.queue.is_watched());
    system.looks.set(0);
    run(system, &mut cpu, 15 * MS);
    let looks = system.looks.get();
    assert!((40..=60).contains(&looks), "{looks} looks in 15 ms");
}

/// As on an emulator that shares its host: a look after each 100 us would leave nothing to the vCPUs.
#[test]
fn looks_take_an_eighth_of_the_time_at_most_however_long_one_takes() {
    for took in [MS / 10, MS, 3 * MS] {
        let (system, _, mut cpu) = crowd(2);
        system.look_ticks.set(took);
        // Each look is known to take twice what one took before, at most.
        run(system, &mut cpu, 200 * MS);
        system.looks.set(0);
        run(system, &mut cpu, 800 * MS);
        let spent = u64::from(system.looks.get()) * took;
        assert!(
            spent > 0 && spent <= 800 * MS / 8,
            "{spent} of {}",
            800 * MS
        );
    }
}

/// The host of an emulator may stop a CPU in the middle of a look.
#[test]
fn one_look_that_took_long_puts_off_the_next_no_more_than_twice_as_far() {
    let (system, _, mut cpu) = crowd(2);
    system.look_ticks.set(500 * MS);
    until(&mut cpu, |_| system.looks.get() == 1);
    system.look_ticks.set(0);
    system.looks.set(0);
    run(system, &mut cpu, 100 * MS);
    let looks = system.looks.get();
    assert!((40..=80).contains(&looks), "{looks} looks in ten turns");
}

#[test]
fn wfe_traps_exactly_while_others_wait() {
    let (system, vm, mut cpu) = crowd(2);
    system.does((0, 0), &[Act::Event(WFE, WORD), Act::Event(WFE, WORD)]);
    until(&mut cpu, |cpu| cpu.queue.is_watched());
    let counts = vm.vcpus[0].exits.snapshot();
    let wfe = counts.occurred().filter(|count| count.0 == ExitReason::Wfe);
    assert_eq!(wfe.map(|count| count.1).sum::<u64>(), 1, "it traps");
    assert!(with(&system.heard(), "passes its WFE").is_empty());
    system.does((0, 1), &[Act::Off]);
    rounds(&mut cpu, 12);
    let passed = with(&system.heard(), "passes its WFE");
    assert_eq!(passed.len(), 1, "no other waits");
}

#[test]
fn a_cpu_on_which_all_wait_for_words_runs_one_whose_word_another_cpu_changes() {
    let (system, _, mut cpu) = crowd(2);
    let other = Act::Code(WAIT, WORD + 64, true);
    system.does((0, 0), &[MASKED; 20]);
    system.does((0, 1), &[other; 20]);
    let stores = [(WORD + 128, 1), (WORD + 64, 5)];
    system.during_watch.borrow_mut().extend(stores);
    for _ in 0..1000 {
        if system.during_watch.borrow().is_empty() {
            break;
        }
        system.heard();
        cpu.step();
    }
    let before = system.now.get();
    rounds(&mut cpu, 2);
    let heard = with(&system.heard(), " at ");
    assert!(
        heard.first().is_some_and(|line| line.contains("vcpu1")),
        "{heard:?}"
    );
    assert!(system.now.get() - before < MS);
}

#[test]
fn a_cpu_on_which_all_wait_runs_one_after_the_other_after_a_while() {
    let (system, _, mut cpu) = crowd(3);
    for vcpu in 0..3 {
        system.does((0, vcpu), &[MASKED; 200]);
    }
    run(system, &mut cpu, 20 * MS);
    let heard = system.heard();
    for vcpu in 0..3 {
        let turns = with(&heard, &alloc::format!("vcpu{vcpu} at")).len();
        assert!((20..=50).contains(&turns), "vCPU {vcpu}: {turns} turns");
    }
}

#[test]
fn a_stop_a_pause_and_a_move_end_a_wait() {
    let waiting = || {
        let (system, vm, mut cpu) = crowd(2);
        system.does((0, 0), &[MASKED; 20]);
        until_it_waits(system, &mut cpu);
        (system, vm, cpu)
    };
    let (system, vm, mut cpu) = waiting();
    assert!(system.end(vm, false));
    rounds(&mut cpu, 6);
    assert!(vm.is_left() && vm.phase() == Phase::Stopping);
    let (system, vm, mut cpu) = waiting();
    assert!(system.end(vm, true));
    rounds(&mut cpu, 6);
    assert!(vm.is_left() && vm.phase() == Phase::Resetting);
    let (system, vm, mut cpu) = waiting();
    assert!(vm.life.pause(system.now.get()));
    system.request_all(vm, request::PAUSE);
    rounds(&mut cpu, 6);
    assert_eq!(vm.phase(), Phase::Paused);
    assert!(
        vm.vcpus
            .iter()
            .all(|vcpu| !vcpu.at.loaded.load(Ordering::SeqCst))
    );
    let (system, vm, mut cpu) = waiting();
    assert!(system.migrate(vm, 0, 1));
    rounds(&mut cpu, 6);
    assert_eq!(vm.vcpus[0].at.placement().pcpu(), PcpuId::new(1));
}

#[test]
fn one_that_others_wait_for_to_be_off_runs_before_those_that_wait_for_their_turn() {
    let (system, vm, mut cpu) = crowd(6);
    // All have had their first slice.
    run(system, &mut cpu, 80 * MS);
    until(&mut cpu, |cpu| cpu.queue.current().is_some());
    let running = cpu.queue.current().expect("one runs").index();
    let last = (running + 5) % 6;
    let mut kicks = Kicks::NONE;
    vm.vcpus[last].hurry(&mut kicks);
    rounds(&mut cpu, 2);
    assert_eq!(cpu.queue.current().map(Slot::index), Some(last));
    assert_eq!(vm.vcpus[last].requested(), 0);
}
