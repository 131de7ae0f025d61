//! A second policy on a fake CPU: a cap that all vCPUs of a VM share stops one that is alone in an untrapped WFI, and lets it go on.

use super::super::super::{Cap, Capped, NEVER, Policy, RoundRobin, Slot, Terms};
use super::super::{Account, RunQueue};
use super::{SLICE, slot};
use alloc::boxed::Box;
use alloc::vec::Vec;
use proptest::prelude::*;

const PERIOD: u64 = 1000;
/// How much of its VM's quota a vCPU takes at a time.
const PIECE: u64 = 70;

/// Makes a cap of so many ticks a period, which are as many thousandths of a CPU.
fn cap(quota: u32) -> &'static Cap {
    let cap = Box::leak(Box::new(Cap::new(PERIOD, PIECE)));
    cap.set(Some(quota), 0);
    cap
}

fn terms(cap: Option<&'static Cap>) -> Terms {
    Terms {
        cap,
        ..Terms::default()
    }
}

/// A CPU with EL2's timer and no other interrupt. Its guests wait in WFI, or spin: nothing but the timer takes the CPU from either, and a
/// WFI that does not trap tells EL2 nothing.
struct Cpu {
    queue: RunQueue<Capped<RoundRobin>>,
    now: u64,
    timer: u64,
    traps_wfi: bool,
    /// Each stretch of time in which a vCPU had the CPU.
    ran: Vec<(usize, u64, u64)>,
}

impl Cpu {
    /// Makes a CPU on which these vCPUs, by the cap of each, want to run.
    fn with(caps: &[Option<&'static Cap>]) -> Self {
        let mut queue = RunQueue::new(Capped::new(RoundRobin::new(SLICE, SLICE)));
        for (index, cap) in caps.iter().enumerate() {
            queue.make_room(slot(index));
            queue.agree(slot(index), terms(*cap), 0);
            queue.begin(slot(index), 0);
        }
        Self {
            queue,
            now: 0,
            timer: NEVER,
            traps_wfi: false,
            ran: Vec::new(),
        }
    }

    /// What EL2 does between two entries, and the guest or the idle CPU until the timer fires. Returns whether it ever does.
    fn turn(&mut self) -> bool {
        let began = self.now;
        let running = self.queue.choose(began);
        let wake = match running {
            Some(_) => self.queue.next_wake_ticks(),
            None => self.queue.next_deadline_ticks(),
        };
        self.timer = wake;
        self.traps_wfi = !self.queue.alone();
        assert!(self.timer > began, "the CPU would spin at {began}");
        if self.timer == NEVER {
            return false;
        }
        self.now = self.timer;
        if let Some(running) = running {
            self.ran.push((running.index(), began, self.now));
        }
        true
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end && self.turn() {}
    }

    fn account(&self, index: usize) -> Account {
        let account = self.queue.account(slot(index), self.now);
        account.expect("attached")
    }

    /// Returns how long a vCPU ran in a period.
    fn ran_in(&self, index: usize, period: u64) -> u64 {
        let (start, end) = (period * PERIOD, (period + 1) * PERIOD);
        let part = |&(_, from, to): &(usize, u64, u64)| to.min(end).saturating_sub(from.max(start));
        let of_it = self.ran.iter().filter(|(ran, ..)| *ran == index);
        of_it.map(part).sum()
    }
}

#[test]
fn a_lone_vcpu_in_an_untrapped_wfi_is_stopped_at_its_time_and_goes_on() {
    let cap = cap(200);
    let mut cpu = Cpu::with(&[Some(cap)]);
    let mut stops = Vec::new();
    while cpu.now < 3 * PERIOD {
        assert!(cpu.turn(), "EL2's timer is armed");
        assert!(!cpu.traps_wfi, "it sleeps on the CPU itself");
        if cpu.queue.choose(cpu.now).is_none() {
            assert!(cpu.queue.is_throttled(slot(0)));
            stops.push((cpu.now, cpu.queue.next_deadline_ticks()));
        }
    }
    let expected = [0, 1, 2].map(|period| (period * PERIOD + 200, (period + 1) * PERIOD));
    assert_eq!(stops, expected, "when it stops, and until when");
    let account = cpu.account(0);
    assert_eq!((account.run_ticks, account.steal_ticks), (600, 2400));
    assert_eq!(cap.throttled_ticks(), 2400);
    // One that is held back now is counted up to now when that is asked for.
    cpu.run_until(3 * PERIOD + 200);
    assert_eq!(cpu.queue.choose(cpu.now), None);
    for (asked, throttled) in [(100, 2500), (100, 2500), (300, 2700)] {
        let booked = cpu.queue.book(slot(0), cpu.now + asked);
        let steal_ticks = booked.map(|[account, _]| account.steal_ticks);
        assert_eq!(cap.throttled_ticks(), throttled);
        assert_eq!(steal_ticks, Some(throttled), "as a part of what is stolen");
    }
}

#[test]
fn without_a_cap_a_lone_vcpu_is_not_disturbed() {
    let mut cpu = Cpu::with(&[None]);
    assert!(!cpu.turn(), "no timer is armed");
    assert_eq!(cpu.queue.current(), Some(slot(0)));
}

#[test]
fn what_one_may_not_use_is_the_others() {
    let mut cpu = Cpu::with(&[Some(cap(200)), None]);
    cpu.run_until(10 * PERIOD);
    for period in 0..10 {
        let (capped, free) = (cpu.ran_in(0, period), cpu.ran_in(1, period));
        assert_eq!((capped, free), (200, 800), "in period {period}");
    }
}

#[test]
fn a_cap_is_one_for_all_vcpus_of_a_vm_on_any_cpu() {
    let cap = cap(300);
    let mut cpus = [(); 2].map(|()| Cpu::with(&[Some(cap)]));
    while cpus.iter().any(|cpu| cpu.now < 10 * PERIOD) {
        let next = usize::from(cpus[0].now > cpus[1].now);
        assert!(cpus[next].turn());
    }
    let both: u64 = cpus.iter().map(|cpu| cpu.account(0).run_ticks).sum();
    let most = 10 * 300 + 2 * PIECE;
    assert!((10 * 300..=most).contains(&both), "{both} in ten periods");
}

#[test]
fn nothing_but_the_replenishment_ends_a_throttle() {
    let mut cpu = Cpu::with(&[Some(cap(200))]);
    cpu.run_until(200);
    assert_eq!(cpu.queue.choose(200), None);
    assert!(!cpu.queue.wake(slot(0), 250) && !cpu.queue.wake_at_once(slot(0), 260));
    cpu.queue.set_deadline(slot(0), Some(300));
    assert_eq!(cpu.queue.next_deadline_ticks(), PERIOD);
    assert_eq!(
        cpu.queue.choose(300),
        None,
        "its guest's timer does not count"
    );
    assert_eq!(cpu.queue.wanting(), 0);
    // Off and on again.
    assert!(cpu.queue.detach(slot(0), 400).is_some());
    assert_eq!(cpu.queue.next_deadline_ticks(), NEVER);
    assert!(!cpu.queue.begin(slot(0), 410), "it does not run at once");
    assert_eq!(cpu.queue.choose(410), None);
    assert!(cpu.queue.is_throttled(slot(0)));
    assert_eq!(cpu.queue.choose(PERIOD), Some(slot(0)));
}

#[test]
fn one_that_sleeps_keeps_what_it_did_not_use() {
    let mut cpu = Cpu::with(&[Some(cap(50))]);
    assert_eq!(cpu.queue.choose(0), Some(slot(0)));
    cpu.queue.block(Some(900), 20);
    assert_eq!(cpu.queue.choose(899), None);
    assert_eq!(cpu.queue.choose(900), Some(slot(0)), "its guest's timer");
    assert_eq!(cpu.queue.next_wake_ticks(), 930, "30 of 50 are left");
    assert_eq!(cpu.queue.choose(937), None, "EL2 came late");
    assert_eq!(cpu.queue.choose(PERIOD), Some(slot(0)));
    let owed = PERIOD + 50 - 7;
    assert_eq!(cpu.queue.next_wake_ticks(), owed, "and takes it back");
}

#[test]
fn one_that_waits_while_its_cap_is_used_up_elsewhere_does_not_run() {
    let cap = cap(200);
    let mut cpu = Cpu::with(&[None, Some(cap)]);
    assert_eq!(cpu.queue.choose(0), Some(slot(1)));
    cpu.queue.block(None, 10);
    assert_eq!(cpu.queue.choose(10), Some(slot(0)));
    assert!(cpu.queue.wake(slot(1), 20), "it has time");
    while cap.take(20) != 0 {}
    assert_eq!(cpu.queue.choose(20), Some(slot(0)), "the other one goes on");
    assert!(cpu.queue.is_throttled(slot(1)));
    assert_eq!(cpu.queue.choose(PERIOD), Some(slot(1)));
}

#[test]
fn a_new_contract_counts_from_the_moment_it_is_told() {
    let mut cpu = Cpu::with(&[None]);
    assert_eq!(cpu.queue.choose(0), Some(slot(0)));
    let cap = cap(200);
    cpu.queue.agree(slot(0), terms(Some(cap)), 300);
    assert_eq!(cpu.queue.current(), Some(slot(0)), "it runs on");
    assert_eq!(cpu.queue.next_wake_ticks(), 300 + PIECE);
    assert_eq!(cpu.queue.choose(520), None, "200, and 20 too many");
    assert!(cpu.queue.is_throttled(slot(0)));
    // Told again: nothing changes.
    cpu.queue.agree(slot(0), terms(Some(cap)), 530);
    assert!(cpu.queue.is_throttled(slot(0)));
    cpu.queue.agree(slot(0), Terms::default(), 540);
    assert_eq!(cpu.queue.choose(540), Some(slot(0)));
    assert!(!cpu.queue.is_limited());
    assert_eq!(cpu.queue.next_wake_ticks(), NEVER);
}

#[test]
fn one_that_is_asked_for_something_gets_the_cpu_once_and_no_time() {
    for asked_before in [false, true] {
        let mut cpu = Cpu::with(&[Some(cap(200))]);
        assert_eq!(cpu.queue.choose(0), Some(slot(0)));
        for limit in [70, 140] {
            assert_eq!(cpu.queue.choose(limit), Some(slot(0)));
        }
        if !asked_before {
            assert_eq!(cpu.queue.choose(200), None);
        }
        cpu.queue.exempt(slot(0), 200);
        assert_eq!(cpu.queue.choose(200), Some(slot(0)), "so that it looks");
        assert_eq!(cpu.queue.next_wake_ticks(), 200, "it may not stay");
        assert_eq!(cpu.queue.choose(200), None);
        assert_eq!(cpu.queue.next_deadline_ticks(), PERIOD);
    }
}

proptest! {
    #[test]
    fn caps_hold_and_the_cpu_does_not_rest_beside_one_without(quotas in prop::collection::vec(1..PERIOD as u32, 1..6)) {
        let mut caps: Vec<_> = quotas.iter().map(|quota| Some(cap(*quota))).collect();
        caps.push(None);
        let mut cpu = Cpu::with(&caps);
        cpu.run_until(20 * PERIOD);
        for (index, quota) in quotas.iter().map(|quota| u64::from(*quota)).enumerate() {
            for period in 0..20 {
                prop_assert!(cpu.ran_in(index, period) <= quota + PIECE, "a piece may reach into the next period");
            }
            prop_assert!(cpu.account(index).run_ticks <= 20 * quota + PIECE);
        }
        let ran: u64 = (0..caps.len()).map(|index| cpu.account(index).run_ticks).sum();
        prop_assert_eq!(ran, cpu.now);
    }
}

/// What may happen to a vCPU or its CPU.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize),
    Detach(usize),
    WakeAtOnce(usize),
    Wake(usize),
    Block(u64),
    Watch(bool, u64),
    Changed(usize),
    GiveUp,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || 0..4_usize;
    let ticks = || 0..3 * SLICE;
    prop_oneof![
        1 => slot().prop_map(Step::Begin),
        1 => slot().prop_map(Step::Detach),
        1 => slot().prop_map(Step::WakeAtOnce),
        1 => slot().prop_map(Step::Wake),
        1 => ticks().prop_map(Step::Block),
        1 => (any::<bool>(), ticks()).prop_map(|(hears, after)| Step::Watch(hears, after)),
        1 => slot().prop_map(Step::Changed),
        1 => Just(Step::GiveUp),
        4 => ticks().prop_map(Step::Pass),
    ]
}

/// Does a step, then chooses; returns which vCPU runs and when EL2 has to look again.
fn take<P: Policy>(queue: &mut RunQueue<P>, step: Step, now: &mut u64) -> (Option<Slot>, u64) {
    match step {
        Step::Begin(index) => {
            queue.make_room(slot(index));
            if !queue.is_attached(slot(index)) {
                queue.begin(slot(index), *now);
            }
        }
        Step::Detach(index) => _ = queue.detach(slot(index), *now),
        Step::WakeAtOnce(index) => _ = queue.wake_at_once(slot(index), *now),
        Step::Wake(index) => _ = queue.wake(slot(index), *now),
        Step::Block(after) => queue.block(Some(*now + after), *now),
        Step::Watch(hears, after) => queue.watch(hears, *now + after, *now),
        Step::Changed(index) => queue.changed(slot(index), *now),
        Step::GiveUp => queue.give_up(*now),
        Step::Pass(ticks) => *now += ticks,
    }
    (queue.choose(*now), queue.next_wake_ticks())
}

proptest! {
    /// A host on which one VM has a cap treats the others as if none had.
    #[test]
    fn those_without_a_cap_take_turns_as_without_caps(steps in prop::collection::vec(step(), 1..200)) {
        let turns = || RoundRobin::new(SLICE, SLICE / 8);
        let mut plain = (RunQueue::new(turns()), 0);
        let mut capped = (RunQueue::new(Capped::new(turns())), 0);
        for step in steps {
            let expected = take(&mut plain.0, step, &mut plain.1);
            let got = take(&mut capped.0, step, &mut capped.1);
            prop_assert_eq!(got, expected, "after {:?}", step);
        }
    }
}
