//! Every interleaving, and every order that the memory model allows, of CPUs that act on one cell at the same time.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p psci --release --lib model` takes seconds; without the bound on
//! preemptions it explores everything there is, in minutes.

extern crate std;

use super::PowerCell;
use crate::call::EntryPoint;
use crate::power::{Event, Refusal, Role, State};
use crate::smccc::ReturnCode;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;

impl PowerCell {
    /// As in `cell`, where it is a constant function; loom's atomics have none.
    fn new(role: Role) -> Self {
        Self {
            word: AtomicU32::new(super::pack(role, State::at_reset(role))),
            entry: AtomicU64::new(0),
            context_id: AtomicU64::new(0),
        }
    }
}

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

/// Runs a model, and asserts that its executions ended in each of `ways` ways: one that never sees a race would prove nothing.
fn explore<Way: Copy + PartialEq + core::fmt::Debug + Send + 'static>(
    ways: &[Way],
    model: impl Fn() -> Way + Sync + Send + 'static,
) {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::vec::Vec::new()));
    let sink = seen.clone();
    loom::model(move || {
        let way = model();
        let mut seen = sink.lock().unwrap();
        if !seen.contains(&way) {
            seen.push(way);
        }
    });
    let seen = seen.lock().unwrap();
    assert!(ways.iter().all(|way| seen.contains(way)), "only {seen:?}");
}

/// What AFFINITY_INFO says of a virtual CPU that is off.
const OFF: u64 = 1;

/// Asserts what AFFINITY_INFO may say of a virtual CPU that exists.
fn assert_architected(affinity_info: u64) {
    assert!(affinity_info <= 2, "AFFINITY_INFO {affinity_info:#x}");
}

#[test]
fn of_two_cpu_ons_one_wins_and_its_entry_arrives() {
    explore(&[(1, true), (1, false), (2, true), (2, false)], || {
        let cell = offered(&[]);
        let callers = [1, 2].map(|caller| {
            let cell = cell.clone();
            thread::spawn(move || cell.cpu_on(at(caller)))
        });
        // The target's CPU, woken too early perhaps.
        let target = {
            let cell = cell.clone();
            thread::spawn(move || cell.start())
        };
        let winner = match callers.map(|caller| caller.join().unwrap()) {
            [ReturnCode::Success, ReturnCode::AlreadyOn] => 1,
            [ReturnCode::AlreadyOn, ReturnCode::Success] => 2,
            codes => panic!("{codes:?}"),
        };
        let early = target.join().unwrap();
        let late = cell.start();
        assert_eq!(early.or(late), Some(at(winner)), "no start is lost");
        assert!(early.is_none() || late.is_none(), "started once");
        assert_eq!(cell.state(), State::On);
        (winner, early.is_some())
    });
}

/// Another CPU turns it on while it turns itself off: a success is a start, a refusal leaves it off.
#[test]
fn cpu_on_against_cpu_off() {
    explore(&[ReturnCode::Success, ReturnCode::AlreadyOn], || {
        let cell = offered(&TO_ON);
        let target = {
            let cell = cell.clone();
            thread::spawn(move || assert!(cell.apply(Event::CpuOff).is_ok()))
        };
        let caller = {
            let cell = cell.clone();
            thread::spawn(move || cell.cpu_on(at(1)))
        };
        let observer = {
            let cell = cell.clone();
            thread::spawn(move || assert_architected(cell.affinity_info()))
        };
        target.join().unwrap();
        observer.join().unwrap();
        let code = caller.join().unwrap();
        match code {
            ReturnCode::Success => assert_eq!(cell.start(), Some(at(1))),
            ReturnCode::AlreadyOn => assert_eq!((cell.start(), cell.state()), (None, State::Off)),
            other => panic!("{other:?}"),
        }
        code
    });
}

/// What a CPU wrote before CPU_OFF, and what the caller of CPU_ON wrote before that, is what the started CPU sees.
#[test]
fn memory_follows_the_calls() {
    explore(&[true, false], || {
        let cell = offered(&TO_ON);
        let (saved, prepared) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let old_cpu = {
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
        let new_cpu = {
            let cell = cell.clone();
            thread::spawn(move || {
                let started = cell.start()?;
                Some((
                    started,
                    saved.load(Ordering::Relaxed),
                    prepared.load(Ordering::Relaxed),
                ))
            })
        };
        old_cpu.join().unwrap();
        let _code = caller.join().unwrap();
        let seen = new_cpu.join().unwrap();
        assert!(seen.is_none_or(|seen| seen == (at(1), 7, 8)), "{seen:?}");
        seen.is_some()
    });
}

/// AFFINITY_INFO says off only once what the CPU did before is there to see.
#[test]
fn off_means_done() {
    explore(&[true, false], || {
        let cell = offered(&TO_ON);
        let saved = Arc::new(AtomicU64::new(0));
        let target = {
            let (cell, saved) = (cell.clone(), saved.clone());
            thread::spawn(move || {
                saved.store(7, Ordering::Relaxed);
                assert!(cell.apply(Event::CpuOff).is_ok());
            })
        };
        let observer = thread::spawn(move || {
            let off = cell.affinity_info() == OFF;
            assert!(!off || saved.load(Ordering::Relaxed) == 7);
            off
        });
        target.join().unwrap();
        observer.join().unwrap()
    });
}

/// The guest ejects what another of its CPUs turns on, and the operator asks for it: either it starts or it is gone, never both.
#[test]
fn no_start_after_an_eject() {
    const EJECTING: [Event; 4] = [
        Event::CpuOn,
        Event::Started,
        Event::RequestEject,
        Event::CpuOff,
    ];
    for (events, ways) in [
        (&[][..], &[true, false][..]),
        (&TO_OFF, &[true, false]),
        (&EJECTING, &[true, false]),
    ] {
        explore(ways, move || {
            let cell = offered(events);
            let [ejector, operator] = [Event::Eject, Event::RequestEject].map(|event| {
                let cell = cell.clone();
                thread::spawn(move || cell.apply(event))
            });
            let caller = {
                let cell = cell.clone();
                thread::spawn(move || cell.cpu_on(at(1)))
            };
            let ejected = ejector.join().unwrap();
            let asked = operator.join().unwrap();
            let code = caller.join().unwrap();
            match ejected {
                Ok(_) => {
                    let end = (code, cell.state(), cell.start());
                    assert_eq!(end, (ReturnCode::Denied, State::Reserve, None));
                }
                Err(Refusal::StillOn) => {
                    assert_eq!((code, cell.start()), (ReturnCode::Success, Some(at(1))));
                    assert!(asked.is_ok());
                    assert_eq!(cell.state(), State::EjectOn);
                }
                Err(other) => panic!("{other:?}"),
            }
            ejected.is_ok()
        });
    }
}

/// The deadline of an offer passes while the guest turns the virtual CPU on: one of them has its way, and both know which.
#[test]
fn withdrawal_against_cpu_on() {
    explore(&[ReturnCode::Success, ReturnCode::Denied], || {
        let cell = offered(&[]);
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || cell.apply(Event::Withdraw))
        };
        let caller = {
            let cell = cell.clone();
            thread::spawn(move || cell.cpu_on(at(1)))
        };
        let withdrawn = operator.join().unwrap();
        let code = caller.join().unwrap();
        match withdrawn {
            Ok(_) => assert_eq!(
                (code, cell.start(), cell.state()),
                (ReturnCode::Denied, None, State::Withdrawn)
            ),
            Err(Refusal::AlreadyOn) => {
                assert_eq!((code, cell.start()), (ReturnCode::Success, Some(at(1))))
            }
            Err(other) => panic!("{other:?}"),
        }
        code
    });
}

/// An offer, a CPU_ON that may come too early, and the start.
#[test]
fn an_offer_against_cpu_on() {
    explore(&[ReturnCode::Success, ReturnCode::Denied], || {
        let cell = Arc::new(PowerCell::new(Role::Hotplug));
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || assert!(cell.apply(Event::Offer).is_ok()))
        };
        let caller = {
            let cell = cell.clone();
            thread::spawn(move || cell.cpu_on(at(1)))
        };
        operator.join().unwrap();
        let code = caller.join().unwrap();
        match code {
            ReturnCode::Success => assert_eq!(cell.start(), Some(at(1))),
            ReturnCode::Denied => {
                assert_eq!((cell.start(), cell.state()), (None, State::EnabledOff))
            }
            other => panic!("{other:?}"),
        }
        code
    });
}

/// An eject is asked for and taken back while the virtual CPU is being started: the requests change nothing in the start.
#[test]
fn an_eject_request_does_not_disturb_a_start() {
    explore(&[true, false], || {
        let cell = offered(&TO_OFF);
        let operator = {
            let cell = cell.clone();
            thread::spawn(move || {
                assert!(cell.apply(Event::RequestEject).is_ok());
                assert!(cell.apply(Event::EjectRefused).is_ok());
            })
        };
        let target = {
            let cell = cell.clone();
            thread::spawn(move || cell.start())
        };
        let caller = {
            let cell = cell.clone();
            thread::spawn(move || cell.cpu_on(at(1)))
        };
        assert_eq!(caller.join().unwrap(), ReturnCode::Success);
        operator.join().unwrap();
        let early = target.join().unwrap();
        assert_eq!(early.or_else(|| cell.start()), Some(at(1)));
        assert_eq!(cell.state(), State::On);
        early.is_some()
    });
}
