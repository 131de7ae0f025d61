//! The queue by hand, and against random lives of its virtual CPUs: none starves, no time is lost or counted twice.

mod throttled;
mod watching;
mod weighted;

use super::super::NEVER;
use super::super::round_robin::{RoundRobin, TOLLS};
use super::{Account, MAX_SLOTS, Policy, Run, RunQueue, Slot};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const SLICE: u64 = 100;

impl<P: Policy> RunQueue<P> {
    /// Returns what the virtual CPU in a slot has had up to now.
    pub(super) fn account(&self, slot: Slot, now_ticks: u64) -> Option<Account> {
        let entry = self.entries.get(slot.index())?;
        (entry.run != Run::Vacant).then(|| entry.account_at(now_ticks))
    }

    /// As [`RunQueue::account`], also of one that is off.
    fn account_at(&self, slot: Slot, now_ticks: u64) -> Option<Account> {
        let entry = self.entries.get(slot.index())?;
        Some(entry.account_at(now_ticks))
    }
}

fn slot(index: usize) -> Slot {
    Slot::new(index).expect("a slot")
}

/// Makes a queue in which these slots are attached and runnable at time 0, and have nothing left of the slice they began with.
fn ready(slots: &[usize]) -> RunQueue<RoundRobin> {
    let mut queue = RunQueue::new(RoundRobin::new(SLICE, SLICE));
    for &index in slots {
        queue.attach(slot(index), 0);
        queue.entries[index].share.left_ticks = 0;
        assert!(queue.wake(slot(index), 0));
    }
    queue
}

#[test]
fn turns_go_round_in_the_order_of_slots() {
    let mut queue = ready(&[0, 2, 70]);
    let turns: Vec<_> = (0..7)
        .map(|turn| queue.pick_next::<false>(turn * SLICE).map(Slot::index))
        .collect();
    assert_eq!(turns, [0, 2, 70, 0, 2, 70, 0].map(Some));
}

#[test]
fn an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for() {
    let mut queue = RunQueue::new(RoundRobin::new(SLICE, SLICE));
    assert_eq!(queue.pick_next::<false>(5), None);
    assert_eq!(queue.next_wake_ticks(), NEVER);
    assert!(!queue.wants_switch(5));
    assert!(!queue.alone());
    queue.block(Some(7), 5);
    queue.expire::<false>(u64::MAX);
    assert!(!queue.wake(slot(9), 5), "nobody has the slot");
    assert_eq!(queue.detach(slot(9), 5), None);
}

#[test]
fn one_that_runs_alone_keeps_its_cpu_until_another_wakes() {
    let mut queue = ready(&[1, 4]);
    assert_eq!(queue.pick_next::<false>(0), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), SLICE);
    queue.block(None, 10);
    assert_eq!(queue.pick_next::<false>(10), Some(slot(4)));
    assert_eq!(
        queue.next_wake_ticks(),
        NEVER,
        "nobody to share the CPU with"
    );
    assert!(!queue.wants_switch(10 * SLICE));
    assert!(queue.wake(slot(1), 10 * SLICE));
    assert!(
        queue.wants_switch(10 * SLICE),
        "it has had its slice long ago"
    );
    assert_eq!(queue.pick_next::<false>(10 * SLICE), Some(slot(1)));
}

/// Makes a queue where 0 has its turn from 30 on, and 1 sleeps until 80 with 70 left.
fn one_sleeps_beside_a_busy_one() -> RunQueue<RoundRobin> {
    let mut queue = ready(&[1, 0]);
    queue.waiting.policy.turn = slot(0);
    assert_eq!(queue.pick_next::<false>(0), Some(slot(1)));
    queue.block(Some(80), 30);
    assert_eq!(queue.pick_next::<false>(30), Some(slot(0)));
    queue
}

#[test]
fn who_wakes_with_some_of_its_slice_interrupts_and_the_turn_goes_on_after() {
    let mut queue = one_sleeps_beside_a_busy_one();
    assert_eq!(queue.next_wake_ticks(), 80, "although somebody runs");
    queue.expire::<false>(80);
    assert!(queue.wants_switch(80));
    assert_eq!(queue.pick_next::<false>(80), Some(slot(1)));
    assert!(!queue.wants_switch(90), "who was interrupted waits");
    queue.block(None, 90);
    assert_eq!(queue.pick_next::<false>(90), Some(slot(0)));
    assert_eq!(queue.next_wake_ticks(), NEVER);
    assert!(queue.wake(slot(1), 100));
    assert_eq!(queue.next_wake_ticks(), 0, "at once");
    assert!(queue.wants_switch(100));
    assert_eq!(queue.pick_next::<false>(100), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), 160, "60 of 70 were left");
    assert!(!queue.wants_switch(159) && queue.wants_switch(160));
    assert_eq!(
        queue.pick_next::<false>(160),
        Some(slot(0)),
        "the turn goes on"
    );
    assert_eq!(queue.next_wake_ticks(), 200, "60 of 100 are over");
    assert!(!queue.wants_switch(199), "nothing is left to the other");
    assert_eq!(queue.pick_next::<false>(200), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), 300, "a turn is a slice");
}

#[test]
fn who_used_its_slice_up_waits_for_its_turn() {
    let mut queue = one_sleeps_beside_a_busy_one();
    queue.expire::<false>(80);
    assert_eq!(queue.pick_next::<false>(80), Some(slot(1)));
    queue.block(None, 80 + 70);
    assert_eq!(queue.pick_next::<false>(150), Some(slot(0)));
    assert!(queue.wake(slot(1), 151));
    assert!(!queue.wants_switch(151));
    assert_eq!(queue.next_wake_ticks(), 150 + 50);
    assert!(queue.wants_switch(200));
}

#[test]
fn one_that_is_urgent_does_not_interrupt_another() {
    let mut queue = ready(&[0, 1, 2]);
    for (index, now) in [(0, 0), (1, 10)] {
        assert_eq!(queue.pick_next::<false>(now), Some(slot(index)));
        queue.block(None, now + 10);
    }
    assert_eq!(queue.pick_next::<false>(20), Some(slot(2)));
    assert!(queue.wake(slot(1), 30));
    assert_eq!(queue.pick_next::<false>(30), Some(slot(1)));
    assert!(queue.wake(slot(0), 40));
    assert!(!queue.wants_switch(40));
    queue.block(None, 50);
    assert_eq!(
        queue.pick_next::<false>(50),
        Some(slot(0)),
        "the turn goes on last"
    );
    queue.block(None, 60);
    assert_eq!(queue.pick_next::<false>(60), Some(slot(2)));
}

#[test]
fn who_wakes_on_an_idle_cpu_has_its_turn() {
    for by_deadline in [false, true] {
        let mut queue = ready(&[0, 1]);
        for now in [0, 20] {
            assert!(queue.pick_next::<false>(now).is_some());
            queue.block((now == 0).then_some(50), now + 20);
        }
        if by_deadline {
            queue.expire::<false>(50);
            assert_eq!(queue.pick_next::<false>(50), Some(slot(0)));
        } else {
            assert!(queue.wake_at_once(slot(0), 50));
        }
        assert!(queue.wake(slot(1), 60));
        assert!(queue.wants_switch(60), "a turn can be interrupted");
        assert_eq!(queue.pick_next::<false>(60), Some(slot(1)));
        queue.block(None, 65);
        assert_eq!(queue.pick_next::<false>(65), Some(slot(0)));
        assert!(queue.wake(slot(1), 66));
        assert_eq!(queue.pick_next::<false>(66), Some(slot(1)));
        queue.block(None, 70);
        assert_eq!(queue.pick_next::<false>(70), Some(slot(0)));
        queue.attach(slot(2), 80);
        queue.entries[2].share.left_ticks = 0;
        assert!(queue.wake(slot(2), 80));
        let whole = 50 + SLICE + (70 - 60) - (66 - 65);
        assert_eq!(queue.next_wake_ticks(), whole);
    }
}

#[test]
fn off_and_on_again_gives_no_slice() {
    let mut queue = RunQueue::new(RoundRobin::new(SLICE, SLICE));
    queue.make_room(slot(1));
    queue.begin(slot(0), 0);
    queue.begin(slot(1), 10);
    assert!(queue.wants_switch(10), "a place begins with a slice");
    assert_eq!(queue.pick_next::<false>(10), Some(slot(1)));
    assert!(queue.detach(slot(1), 10 + 80).is_some());
    assert_eq!(queue.pick_next::<false>(90), Some(slot(0)));
    queue.begin(slot(1), 91);
    assert_eq!(queue.pick_next::<false>(91), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), 91 + 20);
    assert_eq!(queue.pick_next::<false>(111), Some(slot(0)));
    assert!(queue.detach(slot(1), 112).is_some());
    queue.begin(slot(1), 113);
    assert!(!queue.wants_switch(113), "it has nothing left");
    assert_eq!(queue.pick_next::<false>(111 + 89), Some(slot(1)));
}

#[test]
fn one_that_is_detached_in_the_middle_of_its_turn_is_not_urgent() {
    let mut queue = one_sleeps_beside_a_busy_one();
    queue.expire::<false>(80);
    assert_eq!(queue.pick_next::<false>(80), Some(slot(1)));
    assert!(queue.detach(slot(0), 85).is_some());
    queue.block(None, 90);
    assert!(!queue.wants_switch(90));
    assert_eq!(queue.pick_next::<false>(90), None);
}

/// A vCPU that does nothing but sleep and wake pays for it: the busy one loses the time of so many switches at most, however short they are.
#[test]
fn a_turn_is_interrupted_as_often_as_there_are_tolls() {
    const LONG: u64 = 1000 * TOLLS;
    let mut queue = RunQueue::new(RoundRobin::new(LONG, LONG));
    queue.make_room(slot(1));
    queue.begin(slot(0), 0);
    queue.begin(slot(1), 0);
    let (mut now, mut interrupted) = (0, 0);
    while queue.wants_switch(now) {
        assert_eq!(queue.pick_next::<false>(now), Some(slot(1)));
        interrupted += 1;
        now += 1;
        queue.block(None, now);
        assert_eq!(queue.pick_next::<false>(now), Some(slot(0)));
        assert!(queue.wake(slot(1), now));
    }
    assert!(interrupted <= TOLLS, "{interrupted} times");
    assert_eq!(
        queue.next_wake_ticks(),
        LONG + now,
        "its turn was not shortened"
    );
}

#[test]
fn a_vcpu_that_is_woken_at_once_runs_unless_another_does() {
    let mut queue = RunQueue::new(RoundRobin::new(SLICE, SLICE));
    assert!(!queue.wake_at_once(slot(1), 0), "nobody has the slot");
    for index in [1, 4] {
        queue.attach(slot(index), 0);
    }
    queue.set_deadline(slot(4), Some(900));
    assert!(queue.wake_at_once(slot(4), 10));
    assert_eq!(
        (queue.current(), queue.is_crowded()),
        (Some(slot(4)), false)
    );
    assert_eq!(queue.next_wake_ticks(), NEVER, "its deadline is forgotten");
    assert!(!queue.wake_at_once(slot(4), 20), "it runs");
    queue.entries[1].share.left_ticks = 0;
    assert!(queue.wake_at_once(slot(1), 30));
    assert_eq!((queue.current(), queue.is_crowded()), (Some(slot(4)), true));
    assert_eq!(queue.next_wake_ticks(), 10 + SLICE);
    assert_eq!(queue.pick_next::<false>(10 + SLICE), Some(slot(1)));
    let account = queue.account_at(slot(1), 10 + SLICE).expect("attached");
    assert_eq!((account.run_ticks, account.steal_ticks), (0, SLICE - 20));
}

#[test]
fn a_deadline_wakes_the_blocked_one_and_no_earlier() {
    let mut queue = ready(&[0, 1, 2]);
    for (turn, deadline) in [(0, Some(500)), (1, None), (2, Some(300))] {
        assert_eq!(queue.pick_next::<false>(0), Some(slot(turn)));
        queue.block(deadline, 0);
    }
    assert_eq!(queue.pick_next::<false>(0), None);
    assert_eq!(queue.next_wake_ticks(), 300);
    queue.expire::<false>(299);
    assert!(!queue.wants_switch(299));
    queue.expire::<false>(300);
    assert!(queue.wants_switch(300));
    assert_eq!(queue.pick_next::<false>(300), Some(slot(2)));
    assert_eq!(queue.next_wake_ticks(), 500);
    queue.expire::<false>(u64::MAX);
    assert_eq!(queue.pick_next::<false>(900), Some(slot(0)));
}

#[test]
fn a_wake_takes_the_deadline_away() {
    let mut queue = ready(&[0, 1]);
    for deadline in [Some(200), Some(400)] {
        assert!(queue.pick_next::<false>(0).is_some());
        queue.block(deadline, 0);
    }
    assert!(queue.wake(slot(0), 10));
    assert_eq!(queue.pick_next::<false>(10), Some(slot(0)));
    assert_eq!(queue.next_wake_ticks(), 400);
    queue.set_deadline(slot(1), Some(50));
    assert_eq!(queue.next_wake_ticks(), 50);
    queue.set_deadline(slot(1), None);
    assert_eq!(queue.next_wake_ticks(), NEVER);
    queue.set_deadline(slot(0), Some(50));
    assert_eq!(
        queue.next_wake_ticks(),
        NEVER,
        "it runs: its timer is the CPU's"
    );
}

#[test]
fn alone_counts_those_that_sleep() {
    let mut queue = ready(&[3]);
    assert!(queue.alone());
    queue.attach(slot(3), 1);
    assert!(queue.alone(), "attached twice is attached once");
    queue.attach(slot(5), 1);
    assert!(!queue.alone());
    assert!(queue.detach(slot(5), 1).is_some());
    assert!(queue.alone() && queue.is_attached(slot(3)) && !queue.is_attached(slot(5)));
}

#[test]
fn one_that_is_detached_leaves_nothing_behind() {
    for running in [false, true] {
        let mut queue = ready(&[0, 1]);
        if running {
            assert_eq!(queue.pick_next::<false>(0), Some(slot(0)));
        }
        assert!(queue.detach(slot(0), 10).is_some());
        assert_eq!(queue.current(), None);
        assert_eq!(queue.pick_next::<false>(10), Some(slot(1)));
        assert_eq!(
            queue.pick_next::<false>(20),
            Some(slot(1)),
            "the other one is gone"
        );
        queue.attach(slot(0), 30);
        let [account, begun] = queue.book(slot(0), 40).expect("a slot");
        assert_eq!(account, begun, "it had nothing since");
        assert_eq!(account.run_ticks + account.steal_ticks, 10);
    }
}

#[test]
fn what_one_had_is_kept_while_it_is_off_and_another_begins_with_its_own() {
    let mut queue = ready(&[0]);
    assert_eq!(queue.pick_next::<false>(0), Some(slot(0)));
    let had = queue.detach(slot(0), 30);
    assert!(had.is_some_and(|account| account.run_ticks == 30));
    assert_eq!(queue.account_at(slot(0), 90), had);
    queue.begin(slot(0), 100);
    let ran = |queue: &mut RunQueue<_>, now| {
        let both = queue.book(slot(0), now).expect("a slot");
        both.map(|account| account.run_ticks)
    };
    assert_eq!(ran(&mut queue, 105), [35, 30]);
    queue.detach(slot(0), 110);
    let had = |run_ticks| Account {
        run_ticks,
        steal_ticks: 0,
    };
    queue.reserve(slot(0), had(7), had(3));
    assert_eq!(ran(&mut queue, 120), [7, 3], "another's");
}

#[test]
fn time_is_booked_as_run_and_stolen() {
    let mut queue = ready(&[0, 1]);
    assert_eq!(queue.pick_next::<false>(0), Some(slot(0)));
    assert_eq!(queue.pick_next::<false>(100), Some(slot(1)));
    queue.block(None, 130);
    assert_eq!(queue.pick_next::<false>(130), Some(slot(0)));
    let expected = [(0, 100 + 20, 30), (1, 30, 100)];
    for (index, run_ticks, steal_ticks) in expected {
        let account = Account {
            run_ticks,
            steal_ticks,
        };
        assert_eq!(
            queue.account_at(slot(index), 150),
            Some(account),
            "slot {index}"
        );
    }
}

#[test]
fn as_many_as_there_are_slots_all_run() {
    let all: Vec<_> = (0..MAX_SLOTS).collect();
    let mut queue = ready(&all);
    let turns: Vec<_> = (0..MAX_SLOTS as u64)
        .filter_map(|turn| queue.pick_next::<false>(turn * SLICE).map(Slot::index))
        .collect();
    assert_eq!(turns, all);
}

/// How a virtual CPU leaves the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// It blocks.
    Sleeps,
    /// It waits for a word, which changes in time, and hears interrupts or not.
    Watches(bool),
    /// It spins.
    Spins,
}

/// What a virtual CPU does when it runs: how long, and then for how long it sleeps (none: it never leaves).
#[derive(Clone, Copy, Debug)]
struct Habit {
    burst: u64,
    sleep: Option<u64>,
    leaves: Leaves,
}

/// Any habits, many of them short, so that one that sleeps keeps some of its slice and takes it from others.
fn habit() -> impl Strategy<Value = Habit> {
    let time = |most| prop_oneof![1..SLICE / 4, 1..most];
    let leaves = prop_oneof![
        Just(Leaves::Sleeps),
        any::<bool>().prop_map(Leaves::Watches),
        Just(Leaves::Spins),
    ];
    (time(3 * SLICE), prop::option::of(time(4 * SLICE)), leaves).prop_map(
        |(burst, sleep, leaves)| Habit {
            burst,
            sleep,
            leaves,
        },
    )
}

/// A machine of one CPU; the timer fires exactly when the queue asks for it.
struct Machine {
    queue: RunQueue<RoundRobin>,
    habits: Vec<Habit>,
    /// What is left of their bursts.
    left: Vec<u64>,
    waiting_since: Vec<Option<u64>>,
    /// When their words change.
    changes: Vec<Option<u64>>,
    now: u64,
    longest_wait: u64,
}

impl Machine {
    fn new(habits: Vec<Habit>) -> Self {
        let count = habits.len();
        let mut queue = RunQueue::new(RoundRobin::new(SLICE, SLICE));
        for index in 0..count {
            queue.attach(slot(index), 0);
            assert!(queue.wake(slot(index), 0));
        }
        Self {
            queue,
            left: habits.iter().map(|habit| habit.burst).collect(),
            habits,
            waiting_since: vec![None; count],
            changes: vec![None; count],
            now: 0,
            longest_wait: 0,
        }
    }

    /// Goes on to the next event; returns whether there is one.
    fn step(&mut self) -> bool {
        let now = self.now;
        for index in 0..self.changes.len() {
            if self.changes[index].is_some_and(|at| at <= now) {
                self.changes[index] = None;
                self.queue.changed(slot(index), now);
            }
        }
        self.queue.expire::<false>(now);
        if self.queue.wants_switch(now) {
            self.queue.pick_next::<false>(now);
        }
        for index in 0..self.habits.len() {
            let since = &mut self.waiting_since[index];
            let waits = self.queue.waiting.runnable.contains(slot(index));
            let began = since.or(waits.then_some(now));
            self.longest_wait = self.longest_wait.max(began.map_or(0, |began| now - began));
            *since = if waits { began } else { None };
        }
        let change = self.changes.iter().flatten().min().copied();
        let wake = Some(self.queue.next_wake_ticks()).filter(|ticks| *ticks != NEVER);
        let wake = wake.into_iter().chain(change).min();
        assert!(wake.is_none_or(|wake| wake > now), "the CPU would spin");
        let Some(running) = self.queue.current().map(Slot::index) else {
            self.now = wake.unwrap_or(now);
            return wake.is_some();
        };
        let Habit {
            burst,
            sleep,
            leaves,
        } = self.habits[running];
        let blocks_at = sleep.map_or(u64::MAX, |_| now + self.left[running]);
        self.now = blocks_at
            .min(wake.unwrap_or(u64::MAX))
            .min(now + 10 * SLICE);
        self.left[running] = self.left[running].saturating_sub(self.now - now);
        if let Some(sleep) = sleep
            && self.now == blocks_at
        {
            self.left[running] = burst;
            let now = self.now;
            match leaves {
                Leaves::Sleeps => self.queue.block(Some(now + sleep), now),
                Leaves::Watches(hears) => {
                    self.changes[running] = Some(now + sleep);
                    self.queue.watch(hears, now + 2 * SLICE, now);
                }
                Leaves::Spins => self.queue.give_up(now),
            }
        }
        true
    }

    fn accounts(&self) -> Vec<Account> {
        (0..self.habits.len())
            .filter(|index| self.queue.is_attached(slot(*index)))
            .filter_map(|index| self.queue.account_at(slot(index), self.now))
            .collect()
    }
}

proptest! {
    #[test]
    fn nobody_starves_and_no_time_is_lost(habits in prop::collection::vec(habit(), 1..9)) {
        let mut machine = Machine::new(habits);
        for _ in 0..500 {
            if !machine.step() {
                break;
            }
        }
        let (now, accounts) = (machine.now, machine.accounts());
        let count = accounts.len() as u64;
        prop_assert!(machine.longest_wait <= 3 * (count - 1) * SLICE, "{} of {count}", machine.longest_wait);
        let ran = accounts.iter().map(|account| account.run_ticks).sum::<u64>();
        prop_assert!(ran <= now);
        prop_assert!(accounts.iter().all(|account| account.run_ticks + account.steal_ticks <= now));
        for (account, habit) in accounts.iter().zip(&machine.habits) {
            if habit.sleep.is_none() {
                prop_assert_eq!(account.run_ticks + account.steal_ticks, now, "one that never sleeps runs or waits");
                prop_assert_eq!(ran, now, "and the CPU never rests");
                let most = (3 * count - 1) * SLICE;
                prop_assert!(account.run_ticks * count + most >= now, "it has its share: {} of {now}", account.run_ticks);
            }
        }
    }
}
