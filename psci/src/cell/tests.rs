//! The cell by one thread and by many; every interleaving is in `model`.

extern crate std;

use super::{BOOT, PowerCell, pack};
use crate::call::EntryPoint;
use crate::power::{Event, Refusal, Role, STATES, State};
use crate::smccc::ReturnCode;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::vec::Vec;

fn in_state(role: Role, state: State) -> PowerCell {
    PowerCell {
        word: AtomicU32::new(pack(role, state)),
        entry: AtomicU64::new(0),
        context_id: AtomicU64::new(0),
    }
}

const fn at(address: u64, context_id: u64) -> EntryPoint {
    EntryPoint {
        address,
        context_id,
    }
}

#[test]
fn a_cell_begins_as_its_role_does() {
    let boot = PowerCell::new(Role::Boot);
    assert_eq!((boot.role(), boot.state()), (Role::Boot, State::EnabledOff));
    let hotplug = PowerCell::new(Role::Hotplug);
    assert_eq!(
        (hotplug.role(), hotplug.state()),
        (Role::Hotplug, State::Reserve)
    );
    assert_eq!(
        hotplug.cpu_on(at(4, 0)),
        ReturnCode::Denied,
        "from the first instruction on"
    );
}

#[test]
fn the_table_word_says_what_the_states_say() {
    for role in [Role::Boot, Role::Hotplug] {
        for state in STATES {
            let cell = in_state(role, state);
            assert_eq!(
                cell.affinity_info(),
                i64::from(state.affinity_info()) as u64,
                "{state:?}"
            );
            assert_eq!(
                (cell.state(), cell.role(), cell.sta()),
                (state, role, state.sta())
            );
        }
    }
    for junk in [12, 15, BOOT | 13] {
        let cell = in_state(Role::Hotplug, State::Absent);
        cell.word.store(junk, Ordering::Relaxed);
        assert_eq!(cell.affinity_info(), ReturnCode::InvalidParameters.as_x0());
    }
}

#[test]
fn a_life_from_the_reserve_and_back() {
    let cell = PowerCell::new(Role::Hotplug);
    assert!(cell.apply(Event::Offer).is_ok());
    for turn in 0..3 {
        let entry = at(0x4000_0000 + turn, !turn);
        assert_eq!(cell.cpu_on(entry), ReturnCode::Success);
        assert_eq!(cell.affinity_info(), 2);
        assert_eq!(cell.cpu_on(at(9, 9)), ReturnCode::AlreadyOn);
        assert_eq!(cell.start(), Some(entry));
        assert_eq!(cell.start(), None, "started once");
        assert_eq!(cell.affinity_info(), 0);
        assert!(cell.apply(Event::CpuOff).is_ok());
        assert_eq!(cell.affinity_info(), 1);
    }
    assert!(cell.apply(Event::RequestEject).is_ok());
    assert_eq!(
        cell.cpu_on(at(1, 2)),
        ReturnCode::Success,
        "the guest rolls back"
    );
    assert_eq!(cell.start(), Some(at(1, 2)));
    assert_eq!(cell.apply(Event::Eject), Err(Refusal::StillOn));
    assert!(cell.apply(Event::CpuOff).is_ok());
    assert!(cell.apply(Event::Eject).is_ok());
    assert_eq!(cell.sta(), 0x0d);
    assert_eq!(
        cell.apply(Event::Eject),
        Err(Refusal::NotEnabled),
        "twice is once"
    );
    assert_eq!(cell.cpu_on(at(1, 2)), ReturnCode::Denied);
}

#[test]
fn a_reset_keeps_the_role() {
    for role in [Role::Boot, Role::Hotplug] {
        for state in STATES.into_iter().filter(|&state| state != State::Absent) {
            let cell = in_state(role, state);
            assert!(cell.apply(Event::Reset).is_ok());
            assert_eq!((cell.role(), cell.state()), (role, State::at_reset(role)));
            assert_eq!(cell.start(), None, "no start from before the reset");
        }
    }
}

#[test]
fn absent_ones_cannot_be_turned_on() {
    let cell = in_state(Role::Hotplug, State::Absent);
    assert_eq!(cell.cpu_on(at(4, 0)), ReturnCode::InvalidParameters);
    assert_eq!(cell.start(), None);
}

#[test]
fn one_of_many_callers_wins_and_its_entry_arrives() {
    const CALLERS: usize = 4;
    const ROUNDS: u64 = 2_000;
    let cell = PowerCell::new(Role::Boot);
    let round = AtomicU64::new(0);
    let mut starts = [0_u64; CALLERS];
    let wins = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS as u64)
            .map(|caller| {
                let (cell, round) = (&cell, &round);
                scope.spawn(move || {
                    let mut wins = 0;
                    while round.load(Ordering::Acquire) < ROUNDS {
                        match cell.cpu_on(at(caller << 32, !caller)) {
                            ReturnCode::Success => wins += 1,
                            ReturnCode::AlreadyOn => thread::yield_now(),
                            other => panic!("{other:?}"),
                        }
                    }
                    wins
                })
            })
            .collect();
        for done in 1..=ROUNDS {
            let EntryPoint {
                address,
                context_id,
            } = loop {
                match cell.start() {
                    Some(entry) => break entry,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(address >> 32, !context_id, "both words are of one caller");
            starts[(address >> 32) as usize] += 1;
            round.store(done, Ordering::Release);
            if done < ROUNDS {
                assert!(cell.apply(Event::CpuOff).is_ok());
            }
        }
        callers
            .into_iter()
            .map(|caller| caller.join().expect("caller"))
            .collect::<Vec<u64>>()
    });
    assert_eq!(wins, starts, "who was told of success was started");
}
