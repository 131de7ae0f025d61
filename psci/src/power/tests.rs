//! The whole transition table, written a second time by hand, and what holds of every path through it.

extern crate std;

use super::{Event, Refusal, Role, STATES, State, transition};
use crate::smccc::ReturnCode;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const EVENTS: [Event; 10] = [
    Event::CpuOn,
    Event::Publish,
    Event::Started,
    Event::CpuOff,
    Event::Offer,
    Event::Withdraw,
    Event::RequestEject,
    Event::EjectRefused,
    Event::Eject,
    Event::Reset,
];

/// A row a state, a column an event, for a vCPU that can be added and taken back. A state's name: what follows; other words: why not.
const TABLE: &str = "
state          CpuOn         Publish        Started CpuOff   Offer      Withdraw  RequestEject   EjectRefused Eject   Reset
Absent         none          none           none    none     none       none      none           none         none    none
Reserve        denied        nostart        nostart noton    EnabledOff notyours  notyours       noeject      notyours Reserve
EnabledOff     Starting      nostart        nostart noton    yours      Withdrawn Withdrawn      noeject      Reserve Reserve
Starting       ison          OnPending      nostart noton    yours      ison      EjectStarting  noeject      stillon Reserve
OnPending      ison          nostart        On      noton    yours      ison      EjectOnPending noeject      stillon Reserve
On             ison          nostart        nostart Off      yours      ison      EjectOn        noeject      stillon Reserve
Off            Starting      nostart        nostart noton    yours      ison      EjectOff       noeject      Reserve Reserve
Withdrawn      denied        nostart        nostart noton    EnabledOff Withdrawn Withdrawn      Withdrawn    Reserve Reserve
EjectStarting  ison          EjectOnPending nostart noton    yours      ison      EjectStarting  Starting     stillon Reserve
EjectOnPending ison          nostart        EjectOn noton    yours      ison      EjectOnPending OnPending    stillon Reserve
EjectOn        ison          nostart        nostart EjectOff yours      ison      EjectOn        On           stillon Reserve
EjectOff       EjectStarting nostart        nostart noton    yours      ison      EjectOff       Off          Reserve Reserve
";

fn state_named(name: &str) -> Option<State> {
    STATES
        .into_iter()
        .find(|state| std::format!("{state:?}") == name)
}

fn refusal_named(name: &str) -> Refusal {
    match name {
        "none" => Refusal::Absent,
        "denied" => Refusal::HeldBack,
        "ison" => Refusal::AlreadyOn,
        "noton" => Refusal::NotOn,
        "stillon" => Refusal::StillOn,
        "yours" => Refusal::AlreadyEnabled,
        "notyours" => Refusal::NotEnabled,
        "noeject" => Refusal::NoEjectRequested,
        "nostart" => Refusal::NoStart,
        _ => panic!("{name}"),
    }
}

/// Returns every state that a vCPU can get into from `from` by these events.
fn reachable(role: Role, from: State, events: &[Event]) -> BTreeSet<u8> {
    let mut seen = BTreeSet::from([from as u8]);
    let mut work = Vec::from([from]);
    while let Some(state) = work.pop() {
        for &event in events {
            if let Ok(next) = transition(role, state, event)
                && seen.insert(next as u8)
            {
                work.push(next);
            }
        }
    }
    seen
}

#[test]
fn every_entry_of_the_table() {
    let rows: Vec<Vec<&str>> = TABLE
        .trim()
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), STATES.len());
    for (row, state) in rows.iter().zip(STATES) {
        assert_eq!(state_named(row[0]), Some(state));
        assert_eq!(row.len(), 1 + EVENTS.len());
        for (&entry, event) in row[1..].iter().zip(EVENTS) {
            let expected = state_named(entry).ok_or_else(|| refusal_named(entry));
            assert_eq!(
                transition(Role::Hotplug, state, event),
                expected,
                "{state:?} {event:?}"
            );
        }
    }
}

#[test]
fn the_boot_set_differs_only_in_not_being_taken_back() {
    for state in STATES.into_iter().filter(|&state| state != State::Absent) {
        for event in EVENTS {
            let expected = match event {
                Event::Withdraw | Event::RequestEject | Event::Eject => Err(Refusal::BootSet),
                Event::Reset => Ok(State::EnabledOff),
                _ => transition(Role::Hotplug, state, event),
            };
            assert_eq!(
                transition(Role::Boot, state, event),
                expected,
                "{state:?} {event:?}"
            );
        }
    }
    let states = reachable(Role::Boot, State::EnabledOff, &EVENTS);
    let expected = [
        State::EnabledOff,
        State::Starting,
        State::OnPending,
        State::On,
        State::Off,
    ];
    assert_eq!(states, expected.map(|state| state as u8).into());
}

#[test]
fn cpu_on_is_answered_as_guests_expect() {
    use ReturnCode::{AlreadyOn, Denied, InvalidParameters, Success};
    let codes = [
        (State::Absent, InvalidParameters),
        (State::Reserve, Denied),
        (State::EnabledOff, Success),
        (State::Starting, AlreadyOn),
        (State::OnPending, AlreadyOn),
        (State::On, AlreadyOn),
        (State::Off, Success),
        (State::Withdrawn, Denied),
        (State::EjectStarting, AlreadyOn),
        (State::EjectOnPending, AlreadyOn),
        (State::EjectOn, AlreadyOn),
        (State::EjectOff, Success),
    ];
    for (state, expected) in codes {
        let code = match transition(Role::Hotplug, state, Event::CpuOn) {
            Ok(_) => Success,
            Err(refusal) => refusal.code(),
        };
        assert_eq!(code, expected, "{state:?}");
    }
}

#[test]
fn affinity_info_and_sta_by_state() {
    let rows = [
        (State::Absent, -2, 0x0d),
        (State::Reserve, 1, 0x0d),
        (State::EnabledOff, 1, 0x0f),
        (State::Starting, 2, 0x0f),
        (State::OnPending, 2, 0x0f),
        (State::On, 0, 0x0f),
        (State::Off, 1, 0x0f),
        (State::Withdrawn, 1, 0x0f),
        (State::EjectStarting, 2, 0x0f),
        (State::EjectOnPending, 2, 0x0f),
        (State::EjectOn, 0, 0x0f),
        (State::EjectOff, 1, 0x0f),
    ];
    for (state, affinity_info, sta) in rows {
        assert_eq!(
            (state.affinity_info(), state.sta()),
            (affinity_info, sta),
            "{state:?}"
        );
    }
}

/// What an operator reads, by the docs (docs/console.md): the states of a claim and of an eject are one word each.
#[test]
fn an_operator_reads_six_words() {
    let words: Vec<&str> = STATES.iter().map(|state| state.word()).collect();
    assert_eq!(
        words,
        [
            "absent",
            "reserve",
            "enabled-off",
            "on-pending",
            "on-pending",
            "on",
            "off",
            "withdrawn",
            "eject-pending",
            "eject-pending",
            "eject-pending",
            "eject-pending",
        ]
    );
    // DEN0022F, 5.6.2: what is no fault of the caller's.
    assert_eq!(Refusal::NoStart.code(), ReturnCode::InternalFailure);
}

#[test]
fn states_survive_being_stored() {
    for state in STATES {
        assert_eq!(State::from_bits(state as u8), state);
    }
    for bits in STATES.len() as u8..=u8::MAX {
        assert_eq!(State::from_bits(bits), State::Absent);
    }
}

#[test]
fn a_disabled_vcpu_cannot_be_turned_on() {
    for state in STATES
        .into_iter()
        .filter(|state| state.sta() == super::STA_DISABLED)
    {
        assert!(
            transition(Role::Hotplug, state, Event::CpuOn).is_err(),
            "{state:?}"
        );
    }
}

#[test]
fn every_state_is_reached_and_finds_back_to_the_reserve() {
    let all = reachable(Role::Hotplug, State::Reserve, &EVENTS);
    let expected = STATES.into_iter().filter(|&state| state != State::Absent);
    assert_eq!(all, expected.map(|state| state as u8).collect());
    let orderly: Vec<_> = EVENTS
        .into_iter()
        .filter(|&event| event != Event::Reset)
        .collect();
    for bits in all {
        let back = reachable(Role::Hotplug, State::from_bits(bits), &orderly);
        assert!(
            back.contains(&(State::Reserve as u8)),
            "{:?} without a reset",
            State::from_bits(bits)
        );
    }
}

fn is_eject_pending(state: State) -> bool {
    matches!(
        state,
        State::Withdrawn
            | State::EjectStarting
            | State::EjectOnPending
            | State::EjectOn
            | State::EjectOff
    )
}

/// An eject request changes nothing that the guest can see until it ejects.
#[test]
fn an_eject_request_is_invisible_to_psci() {
    for state in STATES {
        let Ok(asked) = transition(Role::Hotplug, state, Event::RequestEject) else {
            continue;
        };
        assert!(is_eject_pending(asked));
        assert_eq!(asked.affinity_info(), state.affinity_info(), "{state:?}");
        assert_eq!(asked.is_on(), state.is_on(), "{state:?}");
        assert_eq!(asked.sta(), state.sta(), "{state:?}");
        if !is_eject_pending(state) && state != State::EnabledOff {
            assert_eq!(
                transition(Role::Hotplug, asked, Event::EjectRefused),
                Ok(state)
            );
        }
    }
}

#[test]
fn only_what_is_off_can_be_ejected() {
    for state in STATES {
        let ejected = transition(Role::Hotplug, state, Event::Eject);
        assert_eq!(
            ejected == Ok(State::Reserve),
            state.is_enabled() && !state.is_on(),
            "{state:?}"
        );
    }
}

proptest! {
    /// On any path: whatever enters the guest was turned on since it was last off, and once, and never comes from the reserve.
    #[test]
    fn every_entry_has_its_own_cpu_on(events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..200)) {
        let mut state = State::Reserve;
        let (mut written, mut published) = (false, false);
        for event in events {
            let Ok(next) = transition(Role::Hotplug, state, event) else { continue };
            match event {
                Event::CpuOn => {
                    prop_assert!(!written && !published && state.is_enabled());
                    written = true;
                }
                Event::Publish => {
                    prop_assert!(written && !published);
                    published = true;
                }
                Event::Started => {
                    prop_assert!(written && published);
                    (written, published) = (false, false);
                }
                Event::Eject => prop_assert!(!written && !published && next == State::Reserve),
                Event::Reset => (written, published) = (false, false),
                _ => {}
            }
            state = next;
        }
    }
}
