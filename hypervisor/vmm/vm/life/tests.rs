//! What may end or hold a VM when, and what a pause does to its clock.

use super::{Cause, Life, Phase, Resume};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::vec::Vec;

fn in_phase(phase: Phase) -> Life {
    let life = Life::default();
    if phase == Phase::Off {
        return life;
    }
    assert!(life.start());
    if phase == Phase::Starting {
        return life;
    }
    assert!(life.started());
    match phase {
        Phase::Paused => assert!(life.pause(0)),
        Phase::Stopping => assert!(life.stop(Cause::Guest)),
        Phase::Resetting => assert!(life.reset(Cause::Guest)),
        _ => {}
    }
    assert_eq!(life.phase(), phase);
    life
}

#[test]
fn each_step_is_possible_from_its_phases_only() {
    type Step = (&'static str, fn(&Life) -> bool, &'static [Phase], Phase);
    let steps: [Step; 5] = [
        ("start", Life::start, &[Phase::Off], Phase::Starting),
        ("started", Life::started, &[Phase::Starting], Phase::Running),
        (
            "stop",
            |life| life.stop(Cause::Operator),
            &[Phase::Starting, Phase::Running, Phase::Paused],
            Phase::Stopping,
        ),
        (
            "reset",
            |life| life.reset(Cause::Operator),
            &[Phase::Running, Phase::Paused],
            Phase::Resetting,
        ),
        (
            "pause",
            |life| life.pause(0),
            &[Phase::Running],
            Phase::Paused,
        ),
    ];
    for (name, step, from, to) in steps {
        for phase in Phase::ALL {
            let life = in_phase(phase);
            let allowed = from.contains(&phase);
            assert_eq!(step(&life), allowed, "{name} from {phase:?}");
            assert_eq!(life.phase(), if allowed { to } else { phase });
        }
    }
}

#[test]
fn a_vm_that_was_left_starts_again_or_is_off() {
    for (phase, next) in [
        (Phase::Stopping, Phase::Off),
        (Phase::Resetting, Phase::Starting),
    ] {
        let life = in_phase(phase);
        life.left();
        assert_eq!((life.phase(), life.cause()), (next, Cause::Guest));
    }
}

#[test]
fn lists_use_four_words() {
    for (phase, cause, word) in [
        (Phase::Off, Cause::Operator, "off"),
        (Phase::Off, Cause::AllVcpusOff, "off"),
        (Phase::Off, Cause::Failed, "failed"),
        (Phase::Starting, Cause::Failed, "running"),
        (Phase::Running, Cause::Failed, "running"),
        (Phase::Paused, Cause::Guest, "paused"),
        (Phase::Stopping, Cause::Guest, "running"),
    ] {
        assert_eq!(phase.state(cause), word, "{phase:?} {cause:?}");
    }
}

#[test]
fn a_failure_is_remembered_until_the_vm_ends_otherwise() {
    let life = in_phase(Phase::Starting);
    life.failed();
    assert_eq!((life.phase(), life.cause()), (Phase::Off, Cause::Failed));
    assert!(life.start() && life.started() && life.stop(Cause::AllVcpusOff));
    life.left();
    assert_eq!(life.cause(), Cause::AllVcpusOff);
}

#[test]
fn a_pause_ends_when_the_last_vcpu_has_come_to_rest() {
    let life = in_phase(Phase::Running);
    assert!(life.attach() && life.attach());
    assert!(life.pause(100));
    assert_eq!(
        life.resume(101, |_| panic!("nobody asked")),
        Resume::NotAsked
    );
    assert!(life.ask_resume());
    life.halt(110);
    assert_eq!(life.resume(115, |_| panic!("one vCPU runs")), Resume::Wait);
    life.halt(130);
    let mut set_back = 0;
    let still_ticks = 70;
    assert_eq!(
        life.resume(200, |ticks| set_back = ticks),
        Resume::Done { still_ticks }
    );
    assert_eq!((life.phase(), set_back), (Phase::Running, still_ticks));
}

#[test]
fn a_vcpu_that_slept_through_a_resume_counts_as_at_rest() {
    let life = in_phase(Phase::Running);
    assert!(life.attach() && life.pause(10) && life.ask_resume());
    life.halt(11);
    assert!(matches!(life.resume(20, |_| {}), Resume::Done { .. }));
    // It has not looked, and the operator pauses again.
    assert!(life.pause(30) && life.ask_resume());
    let still_ticks = 10;
    assert_eq!(life.resume(40, |_| {}), Resume::Done { still_ticks });
    life.unhalt();
    assert!(life.detach());
}

#[test]
fn a_stop_beats_a_resume() {
    let life = in_phase(Phase::Paused);
    assert!(life.ask_resume());
    assert_eq!(
        life.resume(5, |_| assert!(life.stop(Cause::Operator))),
        Resume::NotAsked
    );
    assert_eq!(life.phase(), Phase::Stopping);
    assert!(!life.ask_resume() && !life.pause(9));
}

#[test]
fn a_pause_takes_a_request_to_resume_back() {
    let life = in_phase(Phase::Paused);
    assert!(!life.pause(1), "is paused already");
    assert!(life.ask_resume() && life.pause(1));
    assert_eq!(life.resume(2, |_| panic!("taken back")), Resume::NotAsked);
    assert_eq!(life.phase(), Phase::Paused);
}

#[test]
fn a_vcpu_attaches_to_a_vm_that_runs_only() {
    for phase in Phase::ALL {
        let life = in_phase(phase);
        let wanted = matches!(phase, Phase::Running | Phase::Paused);
        assert_eq!(life.attach(), wanted, "{phase:?}");
        assert!(life.detach());
    }
}

#[test]
fn of_many_who_end_a_vm_one_does_and_its_cause_is_told() {
    for _ in 0..200 {
        let life = in_phase(Phase::Running);
        let causes = [
            Cause::Guest,
            Cause::Operator,
            Cause::AllVcpusOff,
            Cause::Failed,
        ];
        let winners: Vec<Cause> = thread::scope(|scope| {
            let threads = causes.map(|cause| {
                let life = &life;
                scope.spawn(move || life.stop(cause).then_some(cause))
            });
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners, [life.cause()]);
    }
}

#[test]
fn a_vcpu_that_attaches_while_the_vm_is_stopped_is_not_overlooked() {
    for _ in 0..500 {
        let life = in_phase(Phase::Running);
        let torn_down = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                // A vCPU's CPU: attaches, sees the request, leaves.
                if life.attach() {
                    while life.phase() == Phase::Running {
                        core::hint::spin_loop();
                    }
                }
                if life.detach() && life.phase() == Phase::Stopping {
                    torn_down.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                assert!(life.stop(Cause::Operator));
                if life.attached() == 0 {
                    torn_down.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        assert_ne!(
            torn_down.load(Ordering::SeqCst),
            0,
            "nobody asks for the rest"
        );
    }
}
