//! Every interleaving, and every order that the memory model allows, of those who act on one cell at the same time.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p psci --release --lib model`

extern crate std;

use super::PowerCell;
use crate::call::EntryPoint;
use crate::power::{Event, Refusal, Role, State};
use crate::smccc::ReturnCode;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

const fn at(caller: u64) -> EntryPoint {
    EntryPoint {
        address: 0x4000_0000 + caller,
        context_id: !caller,
    }
}

/// Makes a cell whose virtual CPU has been offered and gone through these events.
fn offered(events: &[Event]) -> Arc<PowerCell> {
    let cell = PowerCell::new(Role::Hotplug);
    assert!(cell.apply(Event::Offer).is_ok());
    for &event in events {
        match event {
            Event::CpuOn => assert_eq!(cell.cpu_on(at(0)), ReturnCode::Success),
            Event::Started => assert_eq!(cell.start(), Some(at(0))),
            _ => assert!(cell.apply(event).is_ok()),
        }
    }
    Arc::new(cell)
}

const TO_ON: [Event; 2] = [Event::CpuOn, Event::Started];
const TO_OFF: [Event; 3] = [Event::CpuOn, Event::Started, Event::CpuOff];

/// Asserts what AFFINITY_INFO may say of a virtual CPU that exists.
fn assert_architected(affinity_info: u64) {
    assert!(affinity_info <= 2, "AFFINITY_INFO {affinity_info:#x}");
}

#[test]
fn of_two_cpu_ons_one_wins_and_its_entry_arrives() {
    loom::model(|| {
        let cell = offered(&[]);
        let callers: std::vec::Vec<_> = [1, 2]
            .map(|caller| {
                let cell = cell.clone();
                thread::spawn(move || cell.cpu_on(at(caller)))
            })
            .into();
        // The target's CPU, woken too early perhaps.
        let early = cell.start();
        assert_architected(cell.affinity_info());
        let codes: std::vec::Vec<_> = callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect();
        let winner = match codes[..] {
            [ReturnCode::Success, ReturnCode::AlreadyOn] => 1,
            [ReturnCode::AlreadyOn, ReturnCode::Success] => 2,
            _ => panic!("{codes:?}"),
        };
        let late = cell.start();
        assert_eq!(early.or(late), Some(at(winner)), "no start is lost");
        assert!(early.is_none() || late.is_none(), "started once");
        assert_eq!(cell.state(), State::On);
    });
}

/// Another CPU turns it on while it turns itself off: a success is a start, a refusal leaves it off.
#[test]
fn cpu_on_against_cpu_off() {
    loom::model(|| {
        let cell = offered(&TO_ON);
        let target = {
            let cell = cell.clone();
            thread::spawn(move || assert!(cell.apply(Event::CpuOff).is_ok()))
        };
        let observer = {
            let cell = cell.clone();
            thread::spawn(move || assert_architected(cell.affinity_info()))
        };
        let code = cell.cpu_on(at(1));
        target.join().unwrap();
        observer.join().unwrap();
        match code {
            ReturnCode::Success => assert_eq!(cell.start(), Some(at(1))),
            ReturnCode::AlreadyOn => assert_eq!((cell.start(), cell.state()), (None, State::Off)),
            other => panic!("{other:?}"),
        }
    });
}

/// What a CPU wrote before CPU_OFF, and what the caller of CPU_ON wrote before that, is what the started CPU sees.
#[test]
fn memory_follows_the_calls() {
    loom::model(|| {
        let cell = offered(&TO_ON);
        let (saved, prepared) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let target = {
            let (cell, saved) = (cell.clone(), saved.clone());
            thread::spawn(move || {
                saved.store(7, Ordering::Relaxed);
                assert!(cell.apply(Event::CpuOff).is_ok());
            })
        };
        let caller = {
            let (cell, prepared) = (cell.clone(), prepared.clone());
            thread::spawn(move || {
                prepared.store(8, Ordering::Relaxed);
                cell.cpu_on(at(1))
            })
        };
        if cell.affinity_info() == 1 {
            assert_eq!(saved.load(Ordering::Relaxed), 7, "off means done");
        }
        if let Some(entry) = cell.start() {
            assert_eq!(entry, at(1));
            assert_eq!(
                (
                    saved.load(Ordering::Relaxed),
                    prepared.load(Ordering::Relaxed)
                ),
                (7, 8)
            );
        }
        target.join().unwrap();
        let _code = caller.join().unwrap();
    });
}

/// The guest ejects what another of its CPUs turns on: either it starts or it is gone, never both.
#[test]
fn no_start_after_an_eject() {
    for events in [
        &[][..],
        &TO_OFF,
        &[
            Event::CpuOn,
            Event::Started,
            Event::RequestEject,
            Event::CpuOff,
        ],
    ] {
        loom::model(move || {
            let cell = offered(events);
            let ejector = {
                let cell = cell.clone();
                thread::spawn(move || cell.apply(Event::Eject))
            };
            let operator = {
                let cell = cell.clone();
                thread::spawn(move || cell.apply(Event::RequestEject))
            };
            let code = cell.cpu_on(at(1));
            let ejected = ejector.join().unwrap();
            let asked = operator.join().unwrap();
            match ejected {
                Ok(_) => {
                    assert_eq!(
                        (code, cell.state(), cell.start()),
                        (ReturnCode::Denied, State::Reserve, None)
                    );
                }
                // The request came first, and what was never turned on is out of reach from then on.
                Err(Refusal::StillOn) => {
                    assert_eq!(code, ReturnCode::Success);
                    assert!(asked.is_ok());
                    assert_eq!(cell.start(), Some(at(1)));
                    assert_eq!(cell.state(), State::EjectOn);
                }
                Err(other) => panic!("{other:?}"),
            }
        });
    }
}

/// The deadline of an offer passes while the guest turns the virtual CPU on: one of them has its way, and both know which.
#[test]
fn withdrawal_against_cpu_on() {
    loom::model(|| {
        let cell = offered(&[]);
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || cell.apply(Event::Withdraw))
        };
        let code = cell.cpu_on(at(1));
        match operator.join().unwrap() {
            Ok(_) => assert_eq!(
                (code, cell.start(), cell.state()),
                (ReturnCode::Denied, None, State::Withdrawn)
            ),
            Err(Refusal::AlreadyOn) => {
                assert_eq!((code, cell.start()), (ReturnCode::Success, Some(at(1))))
            }
            Err(other) => panic!("{other:?}"),
        }
    });
}

/// An offer, a CPU_ON that may come too early, and the start.
#[test]
fn an_offer_against_cpu_on() {
    loom::model(|| {
        let cell = Arc::new(PowerCell::new(Role::Hotplug));
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || assert!(cell.apply(Event::Offer).is_ok()))
        };
        let code = cell.cpu_on(at(1));
        operator.join().unwrap();
        match code {
            ReturnCode::Success => assert_eq!(cell.start(), Some(at(1))),
            ReturnCode::Denied => {
                assert_eq!((cell.start(), cell.state()), (None, State::EnabledOff))
            }
            other => panic!("{other:?}"),
        }
    });
}

/// An eject is asked for and taken back while the virtual CPU is being started: the requests change nothing in the start.
#[test]
fn an_eject_request_does_not_disturb_a_start() {
    loom::model(|| {
        let cell = offered(&TO_OFF);
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || {
                assert!(cell.apply(Event::RequestEject).is_ok());
                assert_architected(cell.affinity_info());
                assert!(cell.apply(Event::EjectRefused).is_ok());
            })
        };
        let target = {
            let cell = cell.clone();
            thread::spawn(move || cell.start())
        };
        assert_eq!(cell.cpu_on(at(1)), ReturnCode::Success);
        operator.join().unwrap();
        let early = target.join().unwrap();
        assert_eq!(early.or_else(|| cell.start()), Some(at(1)));
        assert_eq!(cell.state(), State::On);
    });
}
