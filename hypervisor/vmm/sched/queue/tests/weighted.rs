//! vCPUs with weights on a simulated CPU, under the policy that is shipped: shares, waits, and what small weights have.

use super::super::super::{Capped, RoundRobin, Terms};
use super::super::RunQueue;
use super::slot;
use alloc::vec::Vec;

/// Slices in ticks of a microsecond, as shipped: 10 ms and 1 ms.
const LONGEST: u64 = 10_000;
const FLOOR: u64 = 1_000;

/// vCPUs of these weights, and how each spends its time: how long it works and then sleeps, or that it never sleeps.
struct Cpu {
    queue: RunQueue<Capped<RoundRobin>>,
    habits: Vec<Option<(u64, u64)>>,
    left: Vec<u64>,
    now: u64,
}

impl Cpu {
    fn new(vcpus: &[(u16, Option<(u64, u64)>)]) -> Self {
        let mut queue = RunQueue::new(Capped::new(RoundRobin::new(LONGEST, FLOOR)));
        for (index, (weight, _)) in vcpus.iter().enumerate() {
            queue.make_room(slot(index));
            agree(&mut queue, index, *weight, 0);
            queue.begin(slot(index), 0);
        }
        let habits: Vec<_> = vcpus.iter().map(|(_, habit)| *habit).collect();
        Self {
            queue,
            left: habits
                .iter()
                .map(|habit| habit.map_or(0, |(works, _)| works))
                .collect(),
            habits,
            now: 0,
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end {
            let Some(running) = self.queue.choose(self.now) else {
                self.now = self.queue.next_deadline_ticks();
                continue;
            };
            let wake = self.queue.next_wake_ticks().min(end);
            assert!(wake > self.now, "the CPU would spin");
            let index = running.index();
            let Some((works, sleeps)) = self.habits[index] else {
                self.now = wake;
                continue;
            };
            let until = wake.min(self.now + self.left[index]);
            self.left[index] -= until - self.now;
            self.now = until;
            if self.left[index] == 0 {
                self.left[index] = works;
                self.queue.block(Some(until + sleeps), until);
            }
        }
    }

    /// Returns how much each vCPU has had of the CPU in some time, in thousandths.
    fn shares(&mut self, ticks: u64) -> Vec<u64> {
        let ran = |cpu: &Self| -> Vec<u64> {
            let all = (0..cpu.habits.len()).map(|index| {
                let account = cpu.queue.account(slot(index), cpu.now);
                account.expect("attached").run_ticks
            });
            all.collect()
        };
        let before = ran(self);
        self.run_until(self.now + ticks);
        let both = ran(self).into_iter().zip(before);
        both.map(|(now, then)| (now - then) * 1000 / ticks)
            .collect()
    }
}

fn agree(queue: &mut RunQueue<Capped<RoundRobin>>, index: usize, weight: u16, now: u64) {
    let terms = Terms {
        weight,
        ..Terms::default()
    };
    queue.agree(slot(index), terms, now);
}

/// Compares with a tolerance of two hundredths, and a thousandth for what is rounded.
fn expect(shares: &[u64], expected: &[u64]) {
    for (share, expected) in shares.iter().zip(expected) {
        let difference = share.abs_diff(*expected);
        assert!(difference <= expected / 50 + 1, "{shares:?} of {expected}");
    }
}

#[test]
fn each_has_the_cpu_as_its_weight_is_to_those_of_all_that_want_it() {
    let mut cpu = Cpu::new(&[(100, None), (200, None), (700, None)]);
    expect(&cpu.shares(10_000_000), &[100, 200, 700]);
    // A weight that changes counts from then on, and equal ones are as none.
    agree(&mut cpu.queue, 2, 100, cpu.now);
    agree(&mut cpu.queue, 1, 100, cpu.now);
    expect(&cpu.shares(9_000_000), &[333, 333, 333]);
    let mut cpu = Cpu::new(&[(1, None), (99, None)]);
    expect(&cpu.shares(10_000_000), &[10, 990]);
}

#[test]
fn what_one_does_not_want_the_others_have_by_their_weights() {
    let mut cpu = Cpu::new(&[(700, Some((1_000, 99_000))), (100, None), (300, None)]);
    let shares = cpu.shares(10_000_000);
    // It has all that it wants, at once: what is left of a slice interrupts.
    assert!((9..=10).contains(&shares[0]), "{shares:?}");
    expect(&shares[1..], &[247, 743]);
}

#[test]
fn many_have_no_longer_rounds_with_weights_than_without() {
    let mut vcpus: Vec<_> = (0..99).map(|_| (100, None)).collect();
    vcpus.push((10_000, None));
    let mut cpu = Cpu::new(&vcpus);
    cpu.run_until(1_000_000);
    let shares = cpu.shares(10_000_000);
    // 10,000 of 19,900, and 5 thousandths for each other one.
    expect(&shares[99..], &[502]);
    assert!(
        shares[..99].iter().all(|share| (4..=6).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn the_smallest_weight_has_a_slice_that_is_worth_a_switch() {
    let mut cpu = Cpu::new(&[(1, None), (10_000, None)]);
    cpu.run_until(1_000_000);
    let shares = cpu.shares(10_000_000);
    // 125 us beside 20 ms.
    assert_eq!(shares[0], 6, "{shares:?}");
}
