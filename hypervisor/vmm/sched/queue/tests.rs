//! The queue by hand, and against random lives of its virtual CPUs: nobody starves, no time is lost or counted twice.

use super::{Account, MAX_SLOTS, Run, RunQueue, Slot};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const SLICE: u64 = 100;

impl RunQueue {
    /// Returns what the virtual CPU in a slot has had up to now.
    fn account(&self, slot: Slot, now_ticks: u64) -> Option<Account> {
        let entry = self.entries.get(slot.index())?;
        (entry.run != Run::Vacant).then(|| entry.account_at(now_ticks))
    }
}

fn slot(index: usize) -> Slot {
    Slot::new(index).expect("a slot")
}

/// Makes a queue in which these slots are attached and runnable at time 0.
fn ready(slots: &[usize]) -> RunQueue {
    let mut queue = RunQueue::new(SLICE);
    for &index in slots {
        queue.attach(slot(index), 0);
        assert!(queue.wake(slot(index), 0));
    }
    queue
}

#[test]
fn turns_go_round_in_the_order_of_slots() {
    let mut queue = ready(&[0, 2, 70]);
    let turns: Vec<_> = (0..7)
        .map(|turn| queue.pick_next(turn * SLICE).map(Slot::index))
        .collect();
    assert_eq!(turns, [0, 2, 70, 0, 2, 70, 0].map(Some));
}

#[test]
fn an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for() {
    let mut queue = RunQueue::new(SLICE);
    assert_eq!(queue.pick_next(5), None);
    assert_eq!(queue.next_wake_ticks(), None);
    assert!(!queue.wants_switch(5));
    assert!(!queue.alone());
    queue.block(Some(7), 5);
    queue.expire(u64::MAX);
    assert!(!queue.wake(slot(9), 5), "nobody has the slot");
    assert_eq!(queue.detach(slot(9), 5), None);
}

#[test]
fn one_that_runs_alone_keeps_its_cpu_until_another_wakes() {
    let mut queue = ready(&[1, 4]);
    assert_eq!(queue.pick_next(0), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), Some(SLICE));
    queue.block(None, 10);
    assert_eq!(queue.pick_next(10), Some(slot(4)));
    assert_eq!(
        queue.next_wake_ticks(),
        None,
        "nobody to share the CPU with"
    );
    assert!(!queue.wants_switch(10 * SLICE));
    assert!(queue.wake(slot(1), 10 * SLICE));
    assert!(
        queue.wants_switch(10 * SLICE),
        "it has had its slice long ago"
    );
    assert_eq!(queue.pick_next(10 * SLICE), Some(slot(1)));
}

#[test]
fn a_wake_within_the_slice_waits_for_its_end() {
    let mut queue = ready(&[0, 1]);
    assert_eq!(queue.pick_next(0), Some(slot(0)));
    queue.block(None, 1);
    assert_eq!(queue.pick_next(1), Some(slot(1)));
    assert!(queue.wake(slot(0), 2));
    assert!(!queue.wants_switch(SLICE));
    assert_eq!(queue.next_wake_ticks(), Some(1 + SLICE));
    assert!(queue.wants_switch(1 + SLICE));
}

#[test]
fn whoever_is_roused_runs_at_once_unless_somebody_else_does() {
    let mut queue = RunQueue::new(SLICE);
    assert!(!queue.rouse(slot(1), 0), "nobody has the slot");
    for index in [1, 4] {
        queue.attach(slot(index), 0);
    }
    queue.set_deadline(slot(4), Some(900));
    assert!(queue.rouse(slot(4), 10));
    assert_eq!(
        (queue.current(), queue.is_crowded()),
        (Some(slot(4)), false)
    );
    assert_eq!(queue.next_wake_ticks(), None, "its deadline is forgotten");
    assert!(!queue.rouse(slot(4), 20), "it runs");
    assert!(queue.rouse(slot(1), 30));
    assert_eq!((queue.current(), queue.is_crowded()), (Some(slot(4)), true));
    assert_eq!(queue.next_wake_ticks(), Some(10 + SLICE));
    assert_eq!(queue.pick_next(10 + SLICE), Some(slot(1)));
    let account = queue.account(slot(1), 10 + SLICE).expect("attached");
    assert_eq!((account.run_ticks, account.steal_ticks), (0, SLICE - 20));
}

#[test]
fn a_deadline_wakes_the_blocked_one_and_no_earlier() {
    let mut queue = ready(&[0, 1, 2]);
    for (turn, deadline) in [(0, Some(500)), (1, None), (2, Some(300))] {
        assert_eq!(queue.pick_next(0), Some(slot(turn)));
        queue.block(deadline, 0);
    }
    assert_eq!(queue.pick_next(0), None);
    assert_eq!(queue.next_wake_ticks(), Some(300));
    queue.expire(299);
    assert!(!queue.wants_switch(299));
    queue.expire(300);
    assert!(queue.wants_switch(300));
    assert_eq!(queue.pick_next(300), Some(slot(2)));
    assert_eq!(queue.next_wake_ticks(), Some(500));
    queue.expire(u64::MAX);
    assert_eq!(queue.pick_next(900), Some(slot(0)));
}

#[test]
fn a_wake_takes_the_deadline_away() {
    let mut queue = ready(&[0, 1]);
    for deadline in [Some(200), Some(400)] {
        assert!(queue.pick_next(0).is_some());
        queue.block(deadline, 0);
    }
    assert!(queue.wake(slot(0), 10));
    assert_eq!(queue.pick_next(10), Some(slot(0)));
    assert_eq!(queue.next_wake_ticks(), Some(400));
    queue.set_deadline(slot(1), Some(50));
    assert_eq!(queue.next_wake_ticks(), Some(50));
    queue.set_deadline(slot(1), None);
    assert_eq!(queue.next_wake_ticks(), None);
    queue.set_deadline(slot(0), Some(50));
    assert_eq!(
        queue.next_wake_ticks(),
        None,
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
            assert_eq!(queue.pick_next(0), Some(slot(0)));
        }
        assert!(queue.detach(slot(0), 10).is_some());
        assert_eq!(queue.current(), None);
        assert_eq!(queue.pick_next(10), Some(slot(1)));
        assert_eq!(queue.pick_next(20), Some(slot(1)), "the other one is gone");
        queue.attach(slot(0), 30);
        assert_eq!(queue.account(slot(0), 40), Some(Account::default()));
    }
}

#[test]
fn time_is_booked_as_run_and_stolen() {
    let mut queue = ready(&[0, 1]);
    assert_eq!(queue.pick_next(0), Some(slot(0)));
    assert_eq!(queue.pick_next(100), Some(slot(1)));
    queue.block(None, 130);
    assert_eq!(queue.pick_next(130), Some(slot(0)));
    let expected = [(0, 100 + 20, 30), (1, 30, 100)];
    for (index, run_ticks, steal_ticks) in expected {
        let account = Account {
            run_ticks,
            steal_ticks,
        };
        assert_eq!(
            queue.account(slot(index), 150),
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
        .filter_map(|turn| queue.pick_next(turn).map(Slot::index))
        .collect();
    assert_eq!(turns, all);
}

/// What a virtual CPU does when it runs: how long, and then for how long it sleeps (none: it never blocks).
#[derive(Clone, Copy, Debug)]
struct Habit {
    burst: u64,
    sleep: Option<u64>,
}

fn habit() -> impl Strategy<Value = Habit> {
    (1..3 * SLICE, prop::option::of(0..4 * SLICE)).prop_map(|(burst, sleep)| Habit { burst, sleep })
}

proptest! {
    /// Runs a machine of one CPU for a while; the timer fires exactly when the queue asks for it.
    #[test]
    fn nobody_waits_longer_than_all_others_slices(habits in prop::collection::vec(habit(), 1..9)) {
        let count = habits.len();
        let mut queue = ready(&(0..count).collect::<Vec<_>>());
        let mut waiting_since = vec![Some(0_u64); count];
        let mut left: Vec<_> = habits.iter().map(|habit| habit.burst).collect();
        let mut now = 0;
        for _ in 0..300 {
            queue.expire(now);
            for (index, since) in waiting_since.iter_mut().enumerate() {
                let runnable = queue.runnable.contains(slot(index));
                *since = if runnable { since.or(Some(now)) } else { None };
            }
            if queue.current().is_none() || queue.wants_switch(now) {
                let was = queue.current();
                if let Some(next) = queue.pick_next(now) {
                    let since = waiting_since[next.index()].take().or((was == Some(next)).then_some(now));
                    let bound = (count as u64 - 1) * SLICE;
                    prop_assert!(now - since.expect("it was runnable") <= bound, "slot {} at {now}", next.index());
                }
            }
            let wake = queue.next_wake_ticks();
            let Some(running) = queue.current().map(Slot::index) else {
                let Some(wake) = wake else { break };
                prop_assert!(wake > now, "an idle CPU would spin");
                now = wake;
                continue;
            };
            let blocks_at = habits[running].sleep.map_or(u64::MAX, |_| now + left[running]);
            let until = blocks_at.min(wake.unwrap_or(u64::MAX)).min(now + 10 * SLICE);
            left[running] = left[running].saturating_sub(until - now);
            now = until;
            if let Some(sleep) = habits[running].sleep && now == blocks_at {
                left[running] = habits[running].burst;
                queue.block(Some(now + sleep), now);
            }
        }
        let accounts: Vec<_> = (0..count).filter_map(|index| queue.account(slot(index), now)).collect();
        prop_assert!(accounts.iter().map(|account| account.run_ticks).sum::<u64>() <= now);
        prop_assert!(accounts.iter().all(|account| account.run_ticks + account.steal_ticks <= now));
    }
}
