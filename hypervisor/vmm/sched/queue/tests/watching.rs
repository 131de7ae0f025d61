//! vCPUs that wait for words or spin: when they run again, and that it gains them nothing.

use super::{SLICE, ready, slot};
use crate::sched::{NEVER, Policy, RoundRobin, RunQueue, Slot};
use alloc::vec::Vec;

/// The first of three waits for a word from 10 on, until 500.
fn one_watches(hears: bool) -> RunQueue<RoundRobin> {
    let mut queue = ready(&[0, 1, 2]);
    assert_eq!(queue.pick_next::<false>(0), Some(slot(0)));
    queue.watch(hears, 500, 10);
    queue
}

#[test]
fn one_that_waits_for_a_word_does_not_run_before_it_changes() {
    let mut queue = one_watches(true);
    assert!(queue.is_watched() && queue.is_crowded());
    assert_eq!((queue.wanting(), queue.watching()), (3, 1));
    let turns: Vec<_> = (0..4)
        .map(|turn| queue.pick_next::<false>(10 + turn * SLICE).map(Slot::index))
        .collect();
    assert_eq!(turns, [1, 2, 1, 2].map(Some));
    queue.changed(slot(0), 360);
    assert!(!queue.is_watched());
    assert!(queue.wants_switch(360), "it is urgent");
    assert_eq!(queue.choose(360), Some(slot(0)));
    let account = queue.account_at(slot(0), 360).expect("attached");
    assert_eq!((account.run_ticks, account.steal_ticks), (10, 350));
}

#[test]
fn its_deadline_ends_a_wait_for_a_word() {
    let mut queue = one_watches(false);
    for index in [1, 2] {
        assert_eq!(queue.choose(20 * index), Some(slot(index as usize)));
        queue.block(None, 20 * index + 1);
    }
    assert_eq!(queue.choose(499), None);
    assert_eq!(queue.next_wake_ticks(), 500);
    assert_eq!(queue.choose(500), Some(slot(0)));
    assert!(!queue.is_watched());
}

#[test]
fn an_interrupt_ends_the_wait_of_one_that_hears_it() {
    for hears in [false, true] {
        let mut queue = one_watches(hears);
        assert_eq!(queue.wake(slot(0), 20), hears);
        assert_eq!(queue.is_watched(), !hears);
        // A request of the operator's ends it in any case.
        queue.end_watch(slot(0), 30);
        assert!(!queue.is_watched());
        assert!(queue.wanting() == 3 && queue.next_wake_ticks() == 0);
    }
}

#[test]
fn the_timer_of_one_that_hears_it_ends_its_wait() {
    for (hears, deadline, ends) in [(true, 80, 80), (true, 900, 500), (false, 80, 500)] {
        let mut queue = one_watches(hears);
        queue.set_deadline(slot(0), Some(deadline));
        queue.set_deadline(slot(0), None);
        queue.choose(ends - 1);
        assert!(queue.is_watched());
        queue.choose(ends);
        assert!(!queue.is_watched());
    }
}

#[test]
fn one_that_leaves_its_cpu_waits_for_nothing() {
    let mut queue = one_watches(true);
    assert!(queue.detach(slot(0), 20).is_some());
    assert!(!queue.is_watched());
    queue.changed(slot(0), 30);
    assert_eq!(queue.wanting(), 2);
    assert_eq!(queue.next_wake_ticks(), 0);
    assert_eq!(queue.choose(30), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), 30 + SLICE);
}

#[test]
fn one_that_spins_waits_for_its_next_turn() {
    let mut queue = ready(&[0, 1, 2]);
    for (index, now) in [(0, 0), (1, 10), (2, 20), (0, 30)] {
        assert_eq!(queue.choose(now), Some(slot(index)));
        queue.give_up(now + 10);
    }
}

#[test]
fn one_that_wakes_with_nothing_left_overtakes_those_that_spin() {
    let mut queue = ready(&[0, 1, 2, 3]);
    assert_eq!(queue.choose(0), Some(slot(0)));
    queue.give_up(10);
    assert_eq!(queue.choose(10), Some(slot(1)));
    queue.give_up(20);
    assert_eq!(queue.choose(20), Some(slot(2)));
    queue.give_up(30);
    assert_eq!(queue.choose(30), Some(slot(3)));
    queue.block(None, 30 + SLICE);
    let now = 30 + SLICE;
    assert_eq!(queue.choose(now), Some(slot(0)));
    assert!(queue.wake(slot(3), now));
    queue.give_up(now + 10);
    assert_eq!(queue.choose(now + 10), Some(slot(3)), "1 and 2 only spin");
    assert_eq!(queue.entries[3].share.debt_ticks, SLICE);
    queue.block(None, now + 10 + SLICE);
    assert_eq!(queue.choose(now + 10 + SLICE), Some(slot(1)));
    // It has borrowed all that it may: now it waits for its turn.
    assert!(queue.wake(slot(3), now + 10 + SLICE));
    queue.give_up(now + 20 + SLICE);
    assert_eq!(queue.choose(now + 20 + SLICE), Some(slot(2)));
}

#[test]
fn what_was_borrowed_is_paid_with_the_next_turns() {
    let mut queue = RunQueue::new(RoundRobin::new(8 * SLICE, SLICE));
    for index in [0, 1, 2] {
        queue.attach(slot(index), 0);
        queue.entries[index].share.left_ticks = 0;
        assert!(queue.wake(slot(index), 0));
    }
    let mut now = 0;
    // However often the word of 0 changes, it borrows one longest slice in all.
    let mut borrowed = 0;
    queue.waiting.policy.turn = slot(2);
    assert_eq!(queue.choose(now), Some(slot(0)));
    for _ in 0..20 {
        queue.watch(true, now + 100_000, now);
        queue.entries[0].share.left_ticks = 0;
        queue.changed(slot(0), now);
        if queue.choose(now) != Some(slot(0)) {
            break;
        }
        let end = queue.waiting.policy.due_ticks(slot(0));
        borrowed += end - now;
        now = end;
    }
    assert_eq!(borrowed, 8 * SLICE);
    let mut turns = [0; 3];
    for _ in 0..60 {
        let Some(running) = queue.choose(now) else {
            break;
        };
        let end = queue.next_wake_ticks();
        turns[running.index()] += end - now;
        now = end;
    }
    let account = |index| {
        queue
            .account_at(slot(index), now)
            .expect("attached")
            .run_ticks
    };
    let most = account(1).max(account(2)) + 16 * SLICE;
    assert!(account(0) <= most, "{} of {now}, {turns:?}", account(0));
    assert_eq!(queue.entries[0].share.debt_ticks, 0, "paid");
}

#[test]
fn slices_are_shorter_the_more_want_to_run() {
    for (count, slice) in [(1, NEVER), (2, 1000), (4, 500), (10, 200), (100, 100)] {
        let mut queue = RunQueue::new(RoundRobin::new(1000, 100));
        for index in 0..count {
            queue.attach(slot(index), 0);
            queue.entries[index].share.left_ticks = 0;
            assert!(queue.wake(slot(index), 0));
        }
        assert_eq!(queue.choose(0), Some(slot(0)));
        assert_eq!(queue.next_wake_ticks(), slice, "{count}");
    }
}

#[test]
fn slices_are_the_shortest_while_some_only_spin() {
    let mut queue = RunQueue::new(RoundRobin::new(1000, 100));
    for index in 0..3 {
        queue.attach(slot(index), 0);
        queue.entries[index].share.left_ticks = 0;
        assert!(queue.wake(slot(index), 0));
    }
    assert_eq!(queue.choose(0), Some(slot(0)));
    assert_eq!(queue.next_wake_ticks(), 666);
    queue.give_up(10);
    assert_eq!(queue.choose(10), Some(slot(1)));
    assert_eq!(queue.next_wake_ticks(), 110);
}
