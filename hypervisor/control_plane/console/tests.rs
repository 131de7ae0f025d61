//! The whole console from outside: keys and lines in, what the two ports show out.

extern crate std;

use super::{
    ByteSink, Command, CommandError, Console, DeviceRow, DiskRow, ErrorKind, EscapeKey, Event,
    HostPower, HostReport, JSON_LINE_BYTES, MAX_PENDING, MemoryRow, MemoryUnit, MeterRow, NetRow,
    Port, Reply, Request, ResizeReport, Sample, Sinks, StatsRow, Topic, VcpuRow, VmAction, VmPage,
    VmRow, What, names::Names, request::RequestId, terminal::Terminal, usage::USAGE,
    writing::Writing,
};
use crate::resize::meter;
use crate::{resize::Origin, resize::Outcome, resize::Report, resize::Shortfall, resize::Why};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{format, string::String, vec, vec::Vec};
use types::entitlement::{Bounds, Entitlement, NotEntitled};
use types::ids::{PcpuId, VcpuId, VmId};
use types::stats::{ExitCounters, ExitReason};

const LINUX: VmId = VmId::new(0);
const RTOS: VmId = VmId::new(1);
const ESCAPE: u8 = 0x1d;

/// A console and everything its ports have shown since the last look.
struct Bench {
    console: Console,
    terminal: Vec<u8>,
    control: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let names = ["linux", "rtos"].map(String::from).to_vec();
        Self {
            console: Console::new(names, EscapeKey::DEFAULT),
            terminal: Vec::new(),
            control: Vec::new(),
        }
    }

    fn run<T>(&mut self, act: impl FnOnce(&mut Console, &mut Sinks<'_>) -> T) -> T {
        let sinks = &mut Sinks {
            terminal: &mut self.terminal,
            control: &mut self.control,
        };
        let result = act(&mut self.console, sinks);
        for port in [Port::Terminal, Port::Control] {
            while self.console.go_on(port, sinks) {}
        }
        result
    }

    fn feed(&mut self, port: Port, bytes: &[u8]) -> Vec<Request> {
        self.run(|console, sinks| {
            bytes
                .iter()
                .filter_map(|&byte| console.input(port, &[byte], sinks))
                .collect()
        })
    }

    fn key_in(&mut self, bytes: &[u8]) -> Vec<Request> {
        self.feed(Port::Terminal, bytes)
    }

    fn ask(&mut self, line: &str) -> Vec<Request> {
        self.feed(Port::Control, format!("{line}\n").as_bytes())
    }

    fn reply(&mut self, request: &Request, result: Result<Reply, CommandError>) {
        self.run(|console, sinks| console.reply(request.token, result, sinks));
    }

    fn event(&mut self, time_ns: u64, what: What) {
        self.event_after(0, time_ns, what);
    }

    fn event_after(&mut self, lost: u32, time_ns: u64, what: What) {
        self.run(|console, sinks| {
            console.event(
                &Event {
                    time_ns,
                    vm: LINUX,
                    what,
                },
                lost,
                sinks,
            )
        });
    }

    fn shown(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.terminal)).expect("text")
    }

    /// Takes what the control channel wrote: every line has to be JSON.
    fn told(&mut self) -> Vec<Value> {
        let text = String::from_utf8(core::mem::take(&mut self.control)).expect("text");
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

fn resize(outcome: Outcome) -> ResizeReport {
    let shortfalls = vec![Shortfall {
        vcpu: VcpuId::new(1),
        why: Why::BootVcpu,
    }];
    let report = Report {
        kind: types::hotplug::Kind::Vcpu,
        origin: Origin::Operator,
        outcome,
        requested: 1,
        reached: 2,
        shortfalls,
    };
    ResizeReport {
        vm: LINUX,
        memory: None,
        report,
    }
}

fn boot_vcpu() -> Value {
    json!([{"vcpu": 1, "reason": "boot-vcpu", "message": "boot vCPU, cannot be taken back"}])
}

#[test]
fn escape_key_goes_between_guest_and_prompt() {
    let mut bench = Bench::new();
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    assert!(
        bench
            .shown()
            .ends_with("[linux: Ctrl-] for the Bullpen console]\r\n")
    );
    bench.run(|console, sinks| console.guest_output(LINUX, b"login: ", sinks));
    assert_eq!(bench.shown(), "login: ");
    assert!(bench.key_in(b"root\r").is_empty());
    assert_eq!(bench.console.guest_input_waits(), Some(LINUX));
    assert_eq!(bench.console.pop_guest_input(RTOS), None);
    let typed: Vec<u8> = core::iter::from_fn(|| bench.console.pop_guest_input(LINUX)).collect();
    assert_eq!(typed, b"root\r");
    assert_eq!(bench.shown(), "", "a guest echoes for itself");

    assert!(bench.key_in(&[ESCAPE]).is_empty());
    assert_eq!(bench.shown(), "\x1b[0m\r\n\rbullpen> \x1b[K");
    bench.run(|console, sinks| console.guest_output(LINUX, b"while away", sinks));
    assert_eq!(bench.shown(), "");
    assert!(bench.key_in(&[ESCAPE]).is_empty());
    assert!(bench.shown().ends_with("console]\r\nwhile away"));
    assert_eq!(bench.console.guest_input_waits(), None);
}

#[test]
fn escape_without_a_guest_rings() {
    let mut bench = Bench::new();
    assert!(bench.key_in(&[ESCAPE]).is_empty());
    assert_eq!(bench.shown(), "\x07");
}

#[test]
fn only_the_attached_guest_is_shown_and_the_end_of_the_rest_is_kept() {
    let mut bench = Bench::new();
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    let _ = bench.shown();
    bench.run(|console, sinks| console.guest_output(RTOS, &[b'x'; 5000], sinks));
    bench.run(|console, sinks| console.guest_output(RTOS, b"END", sinks));
    assert_eq!(bench.shown(), "");
    assert!(bench.key_in(b"\x1dconsole rtos\r").is_empty());
    let shown = bench.shown();
    let kept = shown.rsplit("kept ...]\r\n").next().expect("a part");
    assert!(shown.contains("[... 907 bytes not"), "{}", &shown[..300]);
    assert_eq!((kept.len(), kept.ends_with("xEND")), (4096, true));
    bench.run(|console, sinks| console.guest_output(RTOS, b"live", sinks));
    assert_eq!(bench.shown(), "live");
}

#[test]
fn typed_bytes_of_one_guest_never_reach_another() {
    let mut bench = Bench::new();
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    assert!(bench.key_in(b"secret\x1dconsole rtos\r").is_empty());
    assert_eq!(bench.console.pop_guest_input(RTOS), None);
    assert_eq!(bench.console.pop_guest_input(LINUX), None);
    assert!(bench.key_in(b"x\x1d\x1dy").is_empty());
    let typed: Vec<u8> = core::iter::from_fn(|| bench.console.pop_guest_input(RTOS)).collect();
    assert_eq!(typed, b"xy", "going to the prompt and back loses nothing");
    bench.key_in(b"\x1dconsole linux\rrm");
    bench.event(1, What::VmReset("guest"));
    assert_eq!(
        bench.console.guest_input_waits(),
        None,
        "keys for a guest that is gone are not for its successor"
    );
}

#[test]
fn a_paste_waits_for_the_guest_but_never_locks_the_operator_out() {
    let mut bench = Bench::new();
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    let (mut sent, mut now_ns) = (0u32, 1_000_000_000);
    while bench.console.accepts_input(now_ns) {
        bench.key_in(&[sent as u8 | 0x80]);
        sent += 1;
    }
    assert_eq!(sent, 512);
    assert_eq!(bench.console.pop_guest_input(LINUX), Some(0x80));
    assert!(bench.console.accepts_input(now_ns), "room again");
    bench.key_in(b"x");
    now_ns += 1;
    assert!(!bench.console.accepts_input(now_ns));
    now_ns += 250_000_000;
    assert!(
        bench.console.accepts_input(now_ns),
        "a guest that does not read"
    );
    bench.key_in(b"lost\x1d");
    assert!(bench.shown().ends_with("bullpen> \x1b[K"));
    assert!(
        bench.console.accepts_input(now_ns),
        "the prompt always reads"
    );
    assert_eq!(bench.key_in(b"vm list\r").len(), 1);
}

#[test]
fn prompt_commands_are_answered_in_words() {
    let mut bench = Bench::new();
    let requests = bench.key_in(b"vm stop linux\r");
    let [request] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!(
        request.command,
        Command::Vm {
            vm: LINUX,
            action: VmAction::Stop
        }
    );
    let _ = bench.shown();
    bench.reply(request, Ok(Reply::Done));
    assert_eq!(bench.shown(), "\r\x1b[Kok\r\n\rbullpen> \x1b[K");
    bench.reply(request, Ok(Reply::Done));
    assert_eq!(bench.shown(), "", "answered once");
    assert!(bench.told().is_empty(), "the control channel did not ask");
}

/// Types a command that ends VMs and has it refused.
fn asked(bench: &mut Bench) {
    let requests = bench.key_in(b"host reboot\r");
    let unforced = Command::HostPower {
        power: HostPower::Reboot,
        force: false,
    };
    assert_eq!(requests[0].command, unforced);
    let error = CommandError::new(ErrorKind::NeedsForce, "VMs run: linux; and so on");
    let _ = bench.shown();
    bench.reply(&requests[0], Err(error));
    assert_eq!(
        bench.shown(),
        "\r\x1b[KVMs run: linux; and so on\r\nreboot all the same? yes or no\r\n\rbullpen> \x1b[K"
    );
}

#[test]
fn the_prompt_asks_before_vms_are_ended_with_the_host() {
    let mut bench = Bench::new();
    let forced = Command::HostPower {
        power: HostPower::Reboot,
        force: true,
    };
    for yes in ["yes\r", " y \r"] {
        asked(&mut bench);
        let requests = bench.key_in(yes.as_bytes());
        assert_eq!(requests[0].command, forced);
        bench.reply(&requests[0], Ok(Reply::Done));
        assert!(bench.shown().ends_with("ok\r\n\rbullpen> \x1b[K"));
    }
    // Whatever else is typed takes the question back; so a later yes is none.
    for other in ["no\r", "\r", "host time\r"] {
        asked(&mut bench);
        let requests = bench.key_in(other.as_bytes());
        let commands: Vec<_> = requests.iter().map(|request| request.command).collect();
        let expected = [Command::HostTime { set: None }];
        let count = usize::from(other.starts_with("host"));
        assert_eq!(commands, expected[..count], "{other}");
        for request in requests {
            let (unix_s, known) = (61, false);
            bench.reply(&request, Ok(Reply::HostTime { unix_s, known }));
        }
        let _ = bench.shown();
        assert!(bench.key_in(b"yes\r").is_empty());
        let shown = bench.shown();
        assert!(shown.contains("there is no command \"yes\""), "{shown}");
    }
    // A program is told, not asked.
    let line = r#"{"id": 1, "command": "host poweroff"}"#;
    let request = bench.ask(line).remove(0);
    let error = CommandError::new(ErrorKind::NeedsForce, "VMs run");
    bench.reply(&request, Err(error));
    assert_eq!(bench.told()[0]["error"]["kind"], "needs-force");
    assert!(bench.key_in(b"yes\r").is_empty());
}

#[test]
fn a_late_answer_makes_way_for_what_is_being_typed() {
    let mut bench = Bench::new();
    let request = bench.key_in(b"vcpu set linux 1\r").remove(0);
    bench.key_in(b"vm li");
    let _ = bench.shown();
    bench.reply(&request, Ok(Reply::Resize(resize(Outcome::Partly))));
    assert_eq!(
        bench.shown(),
        "\r\x1b[Klinux: 2 of 1 vCPUs, partly\r\n  vcpu1: boot vCPU, cannot be taken back\r\n\rbullpen> vm li\x1b[K"
    );
    let request = bench.key_in(b"st\r").remove(0);
    bench.key_in(b"\x1d");
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    let _ = bench.shown();
    bench.reply(&request, Err(CommandError::new(ErrorKind::Busy, "later")));
    assert_eq!(
        bench.shown(),
        "\r\n[bullpen] error: later (busy)\r\n",
        "asked at the prompt, answered in the guest"
    );
}

#[test]
fn mistakes_at_the_prompt_are_answered_at_once() {
    let mut bench = Bench::new();
    for (line, expected) in [
        (
            "vm stop nobody",
            "error: there is no VM named \"nobody\"; `vm list` shows the names (no-such-vm)\r\n",
        ),
        (
            "vm",
            "error: usage: vm list | vm show|start|stop|reset|pause|resume|powerbutton NAME | vm cap NAME MILLICORES | vm weight NAME N (usage)\r\n",
        ),
        (
            "x y",
            "error: there is no command \"x\"; `help` lists them (unknown-command)\r\n",
        ),
    ] {
        assert!(bench.key_in(format!("{line}\r").as_bytes()).is_empty());
        assert!(bench.shown().contains(expected), "{line}");
    }
    assert!(bench.key_in(&[b'x'; 1000]).is_empty());
    assert!(bench.key_in(b"\r").is_empty());
    assert!(bench.shown().contains("(too-long)"));
    assert!(bench.key_in(b"help\r").is_empty());
    let help = bench.shown();
    assert!(
        help.contains("vcpu set NAME N [--timeout S]  give the guest N vCPUs\r\n"),
        "{help}"
    );
}

#[test]
fn control_channel_replies_carry_the_id() {
    let mut bench = Bench::new();
    let request = bench
        .ask(r#"{"id": 7, "command": "vcpu set linux 8 --timeout 5"}"#)
        .remove(0);
    assert_eq!(
        request.command,
        Command::VcpuSet {
            vm: LINUX,
            count: 8,
            timeout_s: Some(5)
        }
    );
    assert!(
        bench.told().is_empty(),
        "the reply comes when the resize has ended"
    );
    let other = bench.ask(r#"{"id": "b", "command": "vm list"}"#).remove(0);
    bench.reply(&other, Ok(Reply::VmList(vec![])));
    bench.reply(&request, Ok(Reply::Resize(resize(Outcome::Partly))));
    assert_eq!(
        bench.told(),
        [
            json!({"id": "b", "ok": true, "result": {"vms": []}}),
            json!({"id": 7, "ok": true, "result": {
                "vm": "linux", "requested": 1, "reached": 2, "outcome": "partly",
                "reasons": boot_vcpu(),
            }}),
        ]
    );
    assert_eq!(bench.shown(), "");
}

#[test]
fn control_channel_errors_by_table() {
    let long = format!(
        r#"{{"id": 1, "command": "{}"}}"#,
        "x".repeat(JSON_LINE_BYTES)
    );
    let cases = [
        ("vm list", json!(null), "bad-json"),
        (r#"{"id": 1, "command": "vm list""#, json!(null), "bad-json"),
        (r#"{"id": 1}"#, json!(1), "bad-json"),
        (&long, json!(null), "too-long"),
        (r#"{"id": 1, "command": "  "}"#, json!(1), "unknown-command"),
        (
            r#"{"id": 1, "command": "reboot"}"#,
            json!(1),
            "unknown-command",
        ),
        (r#"{"id": 1, "command": "vm stop"}"#, json!(1), "usage"),
        (
            r#"{"id": 1, "command": "vcpu set linux 0"}"#,
            json!(1),
            "bad-number",
        ),
        (
            r#"{"id": 1, "command": "vm stop \"\u001b[31m\u007f\n"}"#,
            json!(1),
            "no-such-vm",
        ),
        (
            r#"{"id": 1, "command": "json off"}"#,
            json!(1),
            "unsupported",
        ),
    ];
    let mut bench = Bench::new();
    for (line, id, kind) in cases {
        assert!(bench.ask(line).is_empty(), "{line}");
        assert!(
            bench
                .control
                .iter()
                .all(|&byte| byte == b'\n' || (b' '..0x7f).contains(&byte)),
            "{line}"
        );
        let told = bench.told();
        let [reply] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((&reply["id"], &reply["ok"]), (&id, &json!(false)), "{line}");
        assert_eq!(reply["error"]["kind"], kind, "{line}");
        assert!(
            reply["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{line}"
        );
    }
}

#[test]
fn too_many_outstanding_requests_are_busy() {
    let mut bench = Bench::new();
    let line = r#"{"id": 1, "command": "vm list"}"#;
    let requests: Vec<Request> = (0..MAX_PENDING).flat_map(|_| bench.ask(line)).collect();
    assert_eq!(requests.len(), MAX_PENDING);
    assert!(bench.ask(line).is_empty());
    assert_eq!(bench.told()[0]["error"]["kind"], "busy");
    assert!(bench.key_in(b"vm list\r").is_empty());
    assert!(bench.shown().contains("(busy)"));
    bench.reply(&requests[3], Ok(Reply::Done));
    assert_eq!(bench.ask(line).len(), 1);
    bench.reply(&requests[3], Ok(Reply::Done));
    assert_eq!(
        bench.told().len(),
        1,
        "an old token does not answer the new request in its slot"
    );
}

#[test]
fn every_event_is_one_line_of_json() {
    let vcpu = VcpuId::new(3);
    let cases = [
        (
            What::VmStart,
            json!({"event": "vm-start", "vm": "linux", "time_ns": 9}),
        ),
        (
            What::VmOff("guest", None),
            json!({"event": "vm-off", "vm": "linux", "reason": "guest", "time_ns": 9}),
        ),
        (
            What::VmOff("failed", Some("no 512 MiB of \"RAM\" are free".into())),
            json!({"event": "vm-off", "vm": "linux", "reason": "failed", "note": "no 512 MiB of \"RAM\" are free",
                "time_ns": 9}),
        ),
        (
            What::VmReset("operator"),
            json!({"event": "vm-reset", "vm": "linux", "reason": "operator", "time_ns": 9}),
        ),
        (
            What::VmPaused,
            json!({"event": "vm-paused", "vm": "linux", "time_ns": 9}),
        ),
        (
            What::VmResumed,
            json!({"event": "vm-resumed", "vm": "linux", "time_ns": 9}),
        ),
        (
            What::VcpuOnline(vcpu),
            json!({"event": "vcpu-online", "vm": "linux", "vcpu": 3, "time_ns": 9}),
        ),
        (
            What::VcpuOffline(vcpu),
            json!({"event": "vcpu-offline", "vm": "linux", "vcpu": 3, "time_ns": 9}),
        ),
        (
            What::MemoryEjected(3),
            json!({"event": "memory-ejected", "vm": "linux", "slot": 3, "time_ns": 9}),
        ),
        (
            What::DiskFull("root".into()),
            json!({"event": "disk-full", "vm": "linux", "device": "root", "time_ns": 9}),
        ),
        (
            What::DeviceBroken("root".into(), "memory"),
            json!({"event": "device-broken", "vm": "linux", "device": "root", "reason": "memory", "time_ns": 9}),
        ),
        (
            What::ResizeDone(resize(Outcome::TimedOut)),
            json!({"event": "resize-done", "vm": "linux", "requested": 1, "reached": 2, "outcome": "timed-out",
                "reasons": boot_vcpu(), "time_ns": 9}),
        ),
    ];
    for (what, expected) in cases {
        let mut bench = Bench::new();
        bench.event(9, what);
        assert_eq!(bench.told(), [expected]);
    }
}

/// A port whose bytes wait until the test takes them.
#[derive(Default)]
struct Wire(Vec<u8>);

impl ByteSink for Wire {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn waiting(&self) -> usize {
        self.0.len()
    }
}

/// Has a long answer written on a port that takes its bytes now and then; returns all that came.
fn write_long(port: Port, request: &str) -> String {
    let mut bench = Bench::new();
    let request = bench.feed(port, request.as_bytes()).remove(0);
    let (mut terminal, mut control) = (Wire::default(), Wire::default());
    let mut all = Vec::new();
    let row = |number| VcpuRow {
        vcpu: VcpuId::new(number),
        state: "on",
        cpu: PcpuId::new(0),
        exits: u64::MAX,
        ran_ns: u64::MAX,
        counts_sleep: true,
        stolen_ns: 0,
    };
    let vcpus = (0..512).map(row).collect();
    let reply = Reply::VcpuList { vm: LINUX, vcpus };
    let console = &mut bench.console;
    let sinks = &mut Sinks {
        terminal: &mut terminal,
        control: &mut control,
    };
    console.reply(request.token, Ok(reply), sinks);
    assert!(console.is_writing(port) && !console.has_room(port, sinks));
    while console.is_writing(port) {
        let sinks = &mut Sinks {
            terminal: &mut terminal,
            control: &mut control,
        };
        while console.go_on(port, sinks) {}
        // An event waits if it would come between.
        assert!(!console.is_writing(Port::Control) || !console.accepts_events(sinks));
        let wire = match port {
            Port::Terminal => &mut terminal,
            Port::Control => &mut control,
        };
        assert!(wire.0.len() < 1024, "{} bytes at once", wire.0.len());
        all.append(&mut wire.0);
    }
    String::from_utf8(all).expect("text")
}

#[test]
fn a_long_answer_is_written_as_its_port_has_room() {
    let line = write_long(Port::Control, "{\"command\": \"vcpu list linux\"}\n");
    let json: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(json["result"]["vcpus"].as_array().map(Vec::len), Some(512));
    let text = write_long(Port::Terminal, "vcpu list linux\r");
    assert_eq!(text.matches("\r\n").count(), 514, "a header, rows, a note");
    assert!(text.ends_with("\r\n\rbullpen> \x1b[K"), "then the prompt");
    assert_eq!(text.matches("bullpen> ").count(), 1);
}

#[test]
fn a_flood_of_events_leaves_room_for_a_command_and_its_answer() {
    let mut bench = Bench::new();
    let (mut terminal, mut control) = (Wire::default(), Wire::default());
    let sinks = &mut Sinks {
        terminal: &mut terminal,
        control: &mut control,
    };
    let event = Event {
        time_ns: u64::MAX,
        vm: LINUX,
        what: What::VmReset("guest"),
    };
    while bench.console.accepts_events(sinks) {
        bench.console.event(&event, u32::MAX, sinks);
    }
    assert!(bench.console.has_room(Port::Control, sinks));
    let request = bench
        .console
        .input(Port::Control, b"{\"command\": \"log\"}\n", sinks);
    let token = request.expect("a request").token;
    assert!(bench.console.accepts_reply(token, sinks));
}

#[test]
fn what_is_answered_too_early_follows_what_is_being_written() {
    let mut bench = Bench::new();
    let requests = bench.feed(
        Port::Control,
        b"{\"id\": 1, \"command\": \"log\"}\n{\"id\": 2, \"command\": \"host\"}\n",
    );
    bench.run(|console, sinks| {
        let lines = String::from("one\n\ntwo\n");
        console.reply(requests[0].token, Ok(Reply::Log(lines)), sinks);
        console.reply(requests[1].token, Ok(Reply::Done), sinks);
    });
    let told = bench.told();
    assert_eq!(told[0]["result"]["lines"], json!(["one", "", "two"]));
    assert_eq!(told[1]["id"], 2);
}

#[test]
fn an_event_says_how_many_before_it_were_not_told() {
    let mut bench = Bench::new();
    bench.event(2, What::VmStart);
    assert_eq!(bench.told()[0].get("dropped"), None);
    bench.event_after(7, 3, What::VmPaused);
    assert_eq!(bench.told()[0]["dropped"], 7);
}

#[test]
fn events_are_notices_at_the_prompt_and_silent_in_a_guest() {
    let mut bench = Bench::new();
    bench.key_in(b"vm");
    let _ = bench.shown();
    bench.event(1, What::VcpuOnline(VcpuId::new(3)));
    assert_eq!(
        bench.shown(),
        "\r\x1b[Klinux: vcpu3 online\r\n\rbullpen> vm\x1b[K"
    );
    bench.event(1, What::ResizeDone(resize(Outcome::Done)));
    assert_eq!(bench.shown(), "", "who asked gets a reply");
    let mut offered_again = resize(Outcome::Done);
    offered_again.report.origin = Origin::Reset;
    bench.event(1, What::ResizeDone(offered_again));
    assert!(
        bench.shown().contains("linux: 2 of 1 vCPUs, done"),
        "nobody asked, so the notice is all there is"
    );
    bench.run(|console, sinks| console.start(Some(LINUX), sinks));
    let _ = bench.shown();
    bench.event(2, What::VcpuOnline(VcpuId::new(3)));
    assert_eq!(bench.shown(), "");
    bench.event(3, What::VmOff("guest", None));
    assert_eq!(
        bench.shown(),
        "\r\n[bullpen] linux: off (guest)\r\n",
        "it is why the terminal is silent"
    );
    bench.event(
        4,
        What::VmOff("failed", Some("no RAM\x1b[J is free".into())),
    );
    assert_eq!(
        bench.shown(),
        "\r\n[bullpen] linux: off (failed): no RAM.[J is free\r\n",
        "the reason stands where the guest was"
    );
}

#[test]
fn one_uart_carries_json_too() {
    let mut bench = Bench::new();
    let request = bench
        .key_in(b"{\"id\": 7, \"command\": \"host\"}\r")
        .remove(0);
    let _ = bench.shown();
    bench.reply(&request, Err(CommandError::new(ErrorKind::Refused, "no")));
    let shown = bench.shown();
    let line = shown
        .lines()
        .find(|line| line.contains('{'))
        .expect("a JSON line");
    let line = line.trim_start_matches("\r\x1b[K");
    assert_eq!(serde_json::from_str::<Value>(line).expect(line)["id"], 7);

    assert!(bench.key_in(b"json on\r").is_empty());
    let shown = bench.shown();
    assert!(
        shown.ends_with("{\"id\": null, \"ok\": true, \"result\": {}}\n"),
        "{shown}"
    );
    let request = bench
        .key_in(b"{\"id\": 8, \"command\": \"vm list\"}\n")
        .remove(0);
    assert_eq!(bench.shown(), "", "no echo");
    bench.event(1, What::VmStart);
    bench.run(|console, sinks| console.guest_output(LINUX, b"noise", sinks));
    bench.reply(&request, Ok(Reply::Done));
    assert!(
        bench
            .key_in(b"{\"id\": 9, \"command\": \"console linux\"}\n")
            .is_empty()
    );
    let lines: Vec<Value> = bench
        .shown()
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 3, "nothing but JSON lines");
    assert_eq!(lines[2]["error"]["kind"], "wrong-state");
    assert!(
        bench
            .key_in(b"{\"id\": 10, \"command\": \"json off\"}\n")
            .is_empty()
    );
    assert_eq!(
        bench.shown(),
        "{\"id\": 10, \"ok\": true, \"result\": {}}\n\rbullpen> \x1b[K"
    );
    bench.key_in(b"json on\r{\"id\": 11, \"comm\x1d");
    assert!(
        bench.shown().ends_with("\rbullpen> \x1b[K"),
        "the escape key leaves the mode"
    );
    assert_eq!(bench.key_in(b"log\r").len(), 1);
}

#[test]
fn a_program_can_turn_the_terminal() {
    let mut bench = Bench::new();
    assert!(
        bench
            .ask(r#"{"id": 1, "command": "console rtos"}"#)
            .is_empty()
    );
    assert_eq!(
        bench.told(),
        [json!({"id": 1, "ok": true, "result": {"vm": "rtos"}})]
    );
    bench.run(|console, sinks| console.guest_output(RTOS, b"hello", sinks));
    assert!(bench.shown().ends_with("console]\r\nhello"));
}

fn every_reply() -> Vec<Reply> {
    let counters = ExitCounters::new();
    counters.count(ExitReason::Wfi);
    let row = VmRow {
        vm: LINUX,
        state: "running",
        on: 2,
        target: 8,
        possible: 8,
        memory_bytes: 512 << 20,
        note: Some("a \"quoted\" note\n\x1b[31m\u{7f}\u{9b}ä".into()),
    };
    let off = VmRow {
        vm: RTOS,
        state: "off",
        note: None,
        ..row.clone()
    };
    let vcpu = VcpuRow {
        vcpu: VcpuId::new(0),
        state: "on",
        cpu: PcpuId::new(3),
        exits: u64::MAX,
        ran_ns: 12_345_678_901,
        counts_sleep: true,
        stolen_ns: 5_000_000,
    };
    let spare = VcpuRow {
        vcpu: VcpuId::new(7),
        state: "reserve",
        cpu: PcpuId::new(1),
        exits: 0,
        ran_ns: 0,
        counts_sleep: false,
        stolen_ns: 0,
    };
    let host = HostReport {
        version: "0.1.0",
        machine: "linux,dummy-virt".into(),
        cpus_online: 4,
        cpus: 4,
        memory_bytes: 1 << 30,
        free_pages: 1000,
        page_bytes: 4096,
        uptime_ns: 61_002_000_000,
    };
    vec![
        Reply::Done,
        Reply::Help(Topic::ALL),
        Reply::Attached(LINUX),
        Reply::VmList(vec![row, off]),
        Reply::VcpuList {
            vm: LINUX,
            vcpus: vec![vcpu, spare],
        },
        Reply::Resize(resize(Outcome::Refused)),
        Reply::Stats(vec![StatsRow {
            vm: LINUX,
            exits: counters.snapshot(),
        }]),
        Reply::DeviceList {
            vm: LINUX,
            devices: vec![DeviceRow {
                slot: 0,
                name: "root".into(),
                kind: "disk",
                state: "live",
                notifications: 7,
                chains: 9,
                interrupts: 5,
                suppressed: 2,
                broken: 1,
            }],
        },
        Reply::DiskList(vec![
            DiskRow {
                vm: LINUX,
                name: "root".into(),
                bytes: 1 << 20,
                replaced: Some((8192, 65536)),
                read_bytes: 4096,
                written_bytes: 512,
                errors: 3,
            },
            DiskRow {
                vm: LINUX,
                name: "data".into(),
                bytes: 512,
                replaced: None,
                read_bytes: 0,
                written_bytes: 0,
                errors: 0,
            },
        ]),
        Reply::NetList(vec![NetRow {
            vm: LINUX,
            name: "net0".into(),
            network: "lan".into(),
            mac: "02:00:00:00:00:01".into(),
            sent: 1,
            sent_bytes: 60,
            received: 2,
            received_bytes: 120,
            dropped: 3,
            refused: 4,
        }]),
        Reply::Log("one\ntwo \x1b\n".into()),
        Reply::Host(host),
        Reply::HostTime {
            unix_s: 1_795_968_726,
            known: true,
        },
        Reply::VmShow(page().into()),
        Reply::Top(sample(7_000_000_000, &[1_500_000_000])),
        Reply::Usage {
            time_ns: 7_000_000_000,
            vms: vec![meters(true)],
        },
    ]
}

/// The meters of a VM with two classes of resizes.
fn meters(counts_sleep: bool) -> MeterRow {
    let mut meter = meter::Meter::default();
    meter.held_ns = 61_002_000_000;
    meter.entitled_ns = 122_004_000_000;
    meter.resized(Outcome::Done, 300_000);
    meter.resized(Outcome::Done, 5_000_000);
    meter.resized(Outcome::TimedOut, 10_000_000_000);
    MeterRow {
        vm: LINUX,
        meter,
        ran_ns: 30_500_000_000,
        counts_sleep,
        stolen_ns: 2_000_000_000,
        throttled_ns: 1_500_000_000,
    }
}

fn entitled(min: u32, max: u32, unit: &'static str) -> Bounds {
    Bounds { min, max, unit }
}

#[test]
fn what_a_vm_is_not_entitled_to_is_told_with_its_bounds() {
    let mut bench = Bench::new();
    let requests = bench.ask(r#"{"id": 1, "command": "vcpu set linux 9"}"#);
    let no = CommandError::from(NotEntitled(entitled(1, 8, "vCPUs")));
    bench.reply(&requests[0], Err(no.clone()));
    let message = "the VM is entitled to 1 to 8 vCPUs";
    assert_eq!(
        bench.told()[0]["error"],
        json!({"kind": "not-entitled", "message": message, "min": 1, "max": 8})
    );
    let requests = bench.key_in(b"vcpu set linux 9\r");
    bench.reply(&requests[0], Err(no));
    let shown = bench.shown();
    assert!(
        shown.contains("error: the VM is entitled to 1 to 8 vCPUs (not-entitled)"),
        "{shown}"
    );
}

/// A page of a VM that has seen everything.
fn page() -> VmPage {
    VmPage {
        row: VmRow {
            vm: LINUX,
            state: "running",
            on: 2,
            target: 8,
            possible: 8,
            memory_bytes: 512 << 20,
            note: None,
        },
        boot: 1,
        max_memory_bytes: 2 << 30,
        cpus: [1, 3].map(PcpuId::new).to_vec(),
        cap: Some(2500),
        weight: 700,
        entitlement: Entitlement {
            vcpus: Some(entitled(1, 8, "vCPUs")),
            cpu_cap: Some(entitled(250, 4000, "millicores")),
        },
        kernel: "Image",
        initrd: None,
        command_line: "console=ttyAMA0",
        firmware: "acpi",
        exits: 4711,
        time_ns: 100_000_000_000,
        started_ns: Some(90_000_000_000),
        resets: 3,
        last_reset: Some((89_500_000_000, "guest")),
        last_off: Some((50_000_000_000, "failed")),
        last_error: Some((50_000_000_000, "no memory\x1b".into())),
        way_out: Some(["`vm reset ", "`"]),
    }
}

/// A sample of one VM whose vCPUs have run for so long.
fn sample(time_ns: u64, ran_ns: &[u64]) -> Sample {
    let vcpus = ran_ns.iter().zip(0..).map(|(ran_ns, index)| VcpuRow {
        vcpu: VcpuId::new(index),
        state: "on",
        cpu: PcpuId::new(index % 2),
        exits: ran_ns / 1_000_000,
        ran_ns: *ran_ns,
        counts_sleep: false,
        stolen_ns: ran_ns / 2,
    });
    let row = VmRow {
        on: ran_ns.len() as u16,
        ..page().row
    };
    Sample {
        time_ns,
        vms: vec![row],
        vcpus: vcpus.map(|vcpu| (LINUX, vcpu)).collect(),
        left_out: 0,
    }
}

#[test]
fn every_reply_as_json() {
    let expected = [
        json!({}),
        json!(null),
        json!({"vm": "linux"}),
        json!({"vms": [
            {"vm": "linux", "state": "running", "on": 2, "target": 8, "possible": 8, "memory_bytes": 536_870_912,
             "note": "a \"quoted\" note\n\x1b[31m\u{7f}\u{9b}ä"},
            {"vm": "rtos", "state": "off", "on": 2, "target": 8, "possible": 8, "memory_bytes": 536_870_912},
        ]}),
        json!({"vm": "linux", "vcpus": [
            {"vcpu": 0, "state": "on", "cpu": 3, "exits": u64::MAX, "ran_ns": 12_345_678_901_u64, "counts_sleep": true, "stolen_ns": 5_000_000},
            {"vcpu": 7, "state": "reserve", "cpu": 1, "exits": 0, "ran_ns": 0, "counts_sleep": false, "stolen_ns": 0},
        ]}),
        json!({"vm": "linux", "requested": 1, "reached": 2, "outcome": "refused",
            "reasons": boot_vcpu()}),
        json!({"vms": [{"vm": "linux", "total": 1, "exits": {"wfi": 1}}]}),
        json!({"vm": "linux", "devices": [
            {"slot": 0, "name": "root", "kind": "disk", "state": "live", "notifications": 7, "chains": 9, "interrupts": 5,
             "suppressed": 2, "broken": 1},
        ]}),
        json!({"disks": [
            {"vm": "linux", "disk": "root", "bytes": 1_048_576, "cow_bytes": 8192, "cow_quota": 65536, "read_bytes": 4096,
             "written_bytes": 512, "errors": 3},
            {"vm": "linux", "disk": "data", "bytes": 512, "read_bytes": 0, "written_bytes": 0, "errors": 0},
        ]}),
        json!({"ports": [
            {"vm": "linux", "name": "net0", "network": "lan", "mac": "02:00:00:00:00:01", "sent": 1, "sent_bytes": 60,
             "received": 2, "received_bytes": 120, "dropped": 3, "refused": 4},
        ]}),
        json!({"lines": ["one", "two \x1b"]}),
        json!({"version": "0.1.0", "machine": "linux,dummy-virt", "cpus_online": 4, "cpus": 4,
            "memory_bytes": 1_073_741_824, "free_pages": 1000, "page_bytes": 4096, "uptime_ns": 61_002_000_000_u64}),
        json!({"time": "2026-11-29T16:12:06Z", "unix_s": 1_795_968_726, "known": true}),
        json!({"vm": "linux", "state": "running", "on": 2, "target": 8, "possible": 8, "memory_bytes": 536_870_912,
            "boot": 1, "max_memory_bytes": 2147483648_u64, "cap": 2500, "weight": 700, "entitlement": {"vcpus": {"min": 1, "max": 8}, "cpu_cap": {"min": 250, "max": 4000}}, "cpus": [1, 3], "kernel": "Image", "command_line": "console=ttyAMA0", "firmware": "acpi", "exits": 4711,
            "time_ns": 100_000_000_000_u64, "started_ns": 90_000_000_000_u64, "resets": 3,
            "last_reset": {"time_ns": 89_500_000_000_u64, "why": "guest"},
            "last_off": {"time_ns": 50_000_000_000_u64, "why": "failed"},
            "last_error": {"time_ns": 50_000_000_000_u64, "why": "no memory\x1b"},
            "way_out": "`vm reset linux`"}),
        json!({"time_ns": 7_000_000_000_u64, "left_out": 0, "vcpus": [
            {"vm": "linux", "vcpu": 0, "state": "on", "cpu": 0, "exits": 1500, "ran_ns": 1_500_000_000_u64, "counts_sleep": false,
             "stolen_ns": 750_000_000_u64}]}),
        json!({"time_ns": 7_000_000_000_u64, "vms": [meters_in_json()]}),
    ];
    let mut bench = Bench::new();
    for (reply, expected) in every_reply().into_iter().zip(expected) {
        let request = bench.ask(r#"{"id": 5, "command": "host"}"#).remove(0);
        let help = reply == Reply::Help(Topic::ALL);
        bench.reply(&request, Ok(reply));
        let told = bench.told();
        assert_eq!(
            (told.len(), &told[0]["id"], &told[0]["ok"]),
            (1, &json!(5), &json!(true))
        );
        if help {
            assert_eq!(
                told[0]["result"]["commands"][1],
                json!({"form": "vm list", "text": "list the VMs", "example": "vm list"})
            );
        } else {
            assert_eq!(told[0]["result"], expected);
        }
    }
}

#[test]
fn lists_as_text_are_aligned_and_harmless_to_a_terminal() {
    let mut bench = Bench::new();
    let mut texts = every_reply().into_iter().map(|reply| {
        let request = bench.key_in(b"host\r").remove(0);
        let _ = bench.shown();
        bench.reply(&request, Ok(reply));
        let shown = bench.shown();
        let text = shown
            .trim_start_matches("\r\x1b[K")
            .trim_end_matches("\rbullpen> \x1b[K");
        assert!(
            !text.contains('\x1b') && (text.is_empty() || text.ends_with("\r\n")),
            "{text:?}"
        );
        String::from(text)
    });
    assert_eq!(
        texts.nth(3).expect("the list of VMs"),
        "NAME   STATE    VCPUS  TARGET  MAX   MEMORY  NOTE\r\n\
         linux  running      2       8    8  512 MiB  a \"quoted\" note..[31m..ä\r\n\
         rtos   off          2       8    8  512 MiB\r\n"
    );
    assert_eq!(
        texts.next().expect("the list of vCPUs"),
        "VCPU  STATE    CPU                 EXITS        RAN   STOLEN\r\n\
         \x20  0  on         3  18446744073709551615  12.345 s*  0.005 s\r\n\
         \x20  7  reserve    1                     0   0.000 s   0.000 s\r\n\
         * alone on its CPU: RAN counts its sleep too\r\n"
    );
    assert_eq!(
        texts.nth(1).expect("statistics"),
        "linux: 1 exits\r\n  wfi  1\r\n"
    );
    assert_eq!(
        texts.next().expect("the list of devices"),
        "SLOT  NAME  KIND  STATE  NOTIFIED  CHAINS  IRQS  SUPPRESSED  BROKEN\r\n\
         \x20  0  root  disk  live          7       9     5           2       1\r\n"
    );
    assert_eq!(
        texts.next().expect("the list of disks"),
        "VM     DISK      SIZE        COW   QUOTA   READ  WRITTEN  ERRORS\r\n\
         linux  root  1024 KiB      8 KiB  64 KiB  4 KiB    0 KiB       3\r\n\
         linux  data     0 KiB  read-only          0 KiB    0 KiB       0\r\n"
    );
    assert_eq!(texts.nth(3).expect("the time"), "2026-11-29T16:12:06Z\r\n");
    assert_eq!(
        texts.next().expect("the page of a VM"),
        "linux: running for 10.000 s\r\n\
         vCPUs       2 on, 8 wanted, 8 possible, 1 from boot\r\n\
         on CPUs     1 3\r\nCPU time    2500 millicores at most\r\n\
         weight      700\r\nentitled    1 to 8 vCPUs\r\nentitled    250 to 4000 millicores\r\n\
         memory      512 MiB, 2048 MiB at most\r\n\
         kernel      Image\r\n\
         options     console=ttyAMA0\r\n\
         firmware    acpi\r\n\
         exits       4711\r\n\
         resets      3\r\n\
         last reset  10.500 s ago: guest\r\n\
         last off    50.000 s ago: failed\r\n\
         last error  50.000 s ago: no memory.\r\n\
         way out     `vm reset linux`\r\n"
    );
    assert_eq!(
        texts.nth(1).expect("meters"),
        "VM         HELD   ENTITLED        RAN   STOLEN  THROTTLED  DONE  PARTLY  REFUSED  TIMED-OUT\r\n\
         linux  61.002 s  122.004 s  30.500 s*  2.000 s    1.500 s     2       0        0          1\r\n\
         * alone on its CPU: RAN counts its sleep too\r\n"
    );
}

fn meters_in_json() -> Value {
    json!({"vm": "linux", "held_ns": 61_002_000_000_u64, "entitled_ns": 122_004_000_000_u64, "ran_ns": 30_500_000_000_u64,
        "stolen_ns": 2_000_000_000, "throttled_ns": 1_500_000_000, "counts_sleep": true, "resizes": {
            "done": [1, 0, 0, 1], "partly": [], "refused": [], "timed-out": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]}})
}

#[test]
fn meters_are_told_to_programs_that_watch_them_and_not_at_the_prompt() {
    let mut bench = Bench::new();
    bench.event(9, What::Usage(meters(true).into()));
    let mut expected = meters_in_json();
    expected["event"] = json!("usage");
    expected["time_ns"] = json!(9);
    assert_eq!(bench.told(), [expected]);
    assert_eq!(bench.shown(), "");
}

/// Returns whether the operator's manual has `word` in a table or a list of words.
fn is_documented(word: &str) -> bool {
    include_str!("../../../docs/console.md").contains(&format!("`{word}`"))
}

#[test]
fn memory_is_told_in_bytes_and_slots() {
    let mut report = resize(Outcome::Partly);
    report.memory = Some(MemoryUnit {
        boot_bytes: 512 << 20,
        block_bytes: 128 << 20,
    });
    report.report.requested = 4;
    report.report.reached = 2;
    report.report.shortfalls[0].why = Why::EjectRefused(0x82);
    let slot = |slot, state, answer| MemoryRow {
        slot,
        address: 0x6000_0000 + (u64::from(slot) << 27),
        bytes: 128 << 20,
        state,
        answer,
    };
    let list = Reply::MemoryList {
        vm: LINUX,
        slots: vec![
            slot(0, "acknowledged", Some((3, 0x82))),
            slot(1, "absent", None),
        ],
    };
    let names = Names::new(["linux"].map(Into::into).to_vec());
    let text = |reply: &Reply| {
        let mut out = Vec::new();
        let mut left = Writing::text(Ok(reply.clone()), &names, &mut out);
        while left
            .as_mut()
            .is_some_and(|left| left.go_on(&names, &mut out))
        {}
        String::from_utf8(out).expect("text")
    };
    assert_eq!(
        text(&Reply::Resize(report.clone())),
        "linux: 768 of 1024 MiB, partly\r\n  slot 1: guest keeps it: busy (_OST status 0x82)\r\n"
    );
    assert_eq!(
        text(&list),
        "SLOT     ADDRESS     SIZE  STATE          ANSWER\r\n   \
            0  0x60000000  128 MiB  acknowledged  0x30082\r\n   \
            1  0x68000000  128 MiB  absent\r\n"
    );
    let json = |reply: Reply| {
        let mut out = Vec::new();
        let id = RequestId::default();
        let mut left = Writing::json(&id, Ok(reply), &names, &mut out);
        while left
            .as_mut()
            .is_some_and(|left| left.go_on(&names, &mut out))
        {}
        serde_json::from_slice::<Value>(&out).expect("JSON")["result"].clone()
    };
    assert_eq!(
        json(Reply::Resize(report)),
        json!({"vm": "linux", "requested_bytes": 1_073_741_824, "reached_bytes": 805_306_368, "outcome": "partly", "reasons": [
            {"slot": 1, "reason": "eject-refused", "message": "guest keeps it: busy (_OST status 0x82)"},
        ]})
    );
    assert_eq!(
        json(list),
        json!({"vm": "linux", "slots": [
            {"slot": 0, "address": 0x6000_0000, "bytes": 134_217_728, "state": "acknowledged", "ost_event": 3, "ost_status": 130},
            {"slot": 1, "address": 0x6800_0000, "bytes": 134_217_728, "state": "absent"},
        ]})
    );
}

#[test]
fn the_manual_has_every_word_that_programs_compare() {
    for kind in ErrorKind::ALL {
        assert!(is_documented(kind.name()), "error kind {}", kind.name());
    }
    let vcpu = VcpuId::new(0);
    let ended = What::ResizeDone(resize(Outcome::Done));
    let events = [
        What::VmStart,
        What::VmOff("", None),
        What::VmReset(""),
        What::VmPaused,
        What::VmResumed,
        What::MemoryEjected(0),
        What::DiskFull(String::new()),
        What::DeviceBroken(String::new(), ""),
        What::Usage(meters(false).into()),
        ended,
    ];
    for what in events
        .into_iter()
        .chain([What::VcpuOnline(vcpu), What::VcpuOffline(vcpu)])
    {
        assert!(is_documented(what.name()), "event {}", what.name());
    }
    for outcome in [
        Outcome::Done,
        Outcome::Partly,
        Outcome::Refused,
        Outcome::TimedOut,
    ] {
        assert!(is_documented(outcome.name()), "outcome {}", outcome.name());
    }
    for why in [
        Why::BootVcpu,
        Why::NotListening,
        Why::NotTurnedOn,
        Why::NotAcknowledged,
        Why::OnlyAcknowledged,
        Why::AddRefused(1),
        Why::GivenBack,
        Why::EjectRefused(0x82),
        Why::EjectUnanswered,
        Why::EjectUnfinished,
        Why::EjectNotCarriedOut,
        Why::LeftOff,
        Why::VmOff,
    ] {
        assert!(is_documented(why.word()), "reason {}", why.word());
    }
    for state in (1..=11).map(psci::State::from_bits) {
        assert!(is_documented(state.word()), "state {}", state.word());
    }
    for usage in USAGE {
        let pair = usage.form.starts_with("vm resume") || usage.form == "json off";
        assert!(pair || is_documented(usage.form), "command {}", usage.form);
    }
}

#[test]
fn a_flood_of_anything_leaves_the_console_working() {
    let mut bench = Bench::new();
    bench.run(|console, _| {
        let (mut terminal, mut control) = (None::<Vec<u8>>, None::<Vec<u8>>);
        let sinks = &mut Sinks {
            terminal: &mut terminal,
            control: &mut control,
        };
        for seed in 0..200_000u32 {
            let byte = (seed.wrapping_mul(2_654_435_761) >> 24) as u8;
            for port in [Port::Terminal, Port::Control] {
                if let Some(request) = console.input(port, &[byte], sinks) {
                    console.reply(request.token, Ok(Reply::Done), sinks);
                }
            }
        }
    });
    bench.key_in(b"\x03\r");
    assert_eq!(bench.key_in(b"\rlog\r").len(), 1);
    assert_eq!(
        bench.ask("").len() + bench.ask(r#"{"command": "log"}"#).len(),
        1
    );
}

/// Counts instead of keeping.
struct Meter(usize);

impl ByteSink for Meter {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[test]
fn garbage_on_the_control_channel_is_not_amplified() {
    let mut bench = Bench::new();
    let (mut terminal, mut control) = (None::<Vec<u8>>, Meter(0));
    let sinks = &mut Sinks {
        terminal: &mut terminal,
        control: &mut control,
    };
    for _ in 0..1_000_000 {
        assert_eq!(bench.console.input(Port::Control, &[0xff], sinks), None);
    }
    assert_eq!(bench.console.input(Port::Control, b"\n", sinks), None);
    assert!(
        control.0 < 200,
        "one error for one line, not {} bytes",
        control.0
    );
}

#[derive(Clone, Debug)]
enum Step {
    Input(bool, Vec<u8>),
    Line(usize),
    Output(u16, Vec<u8>),
    Reply(usize),
    Event(u16),
}

const LINES: [&str; 9] = [
    "vm list\r",
    "vcpu set linux 8\r",
    "console rtos\r",
    "json on\r",
    "{\"command\": \"json off\"}\r",
    "{\"id\": 1, \"command\": \"host\"}\r",
    "help\r",
    "\x1d",
    "\x1b[A\r",
];

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (any::<bool>(), bytes()).prop_map(|(control, bytes)| Step::Input(control, bytes)),
        (0..LINES.len()).prop_map(Step::Line),
        (0u16..4, bytes()).prop_map(|(vm, bytes)| Step::Output(vm, bytes)),
        any::<prop::sample::Index>().prop_map(|index| Step::Reply(index.index(9))),
        (0u16..4).prop_map(Step::Event),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any mixture of keys, lines, guest output, replies and events: no panic, and the control channel shows JSON lines only.
    #[test]
    fn the_control_channel_is_always_json(steps in proptest::collection::vec(step(), 0..60)) {
        let mut bench = Bench::new();
        let mut outstanding = Vec::new();
        let replies = every_reply();
        for step in steps {
            match step {
                Step::Input(true, bytes) => outstanding.extend(bench.feed(Port::Control, &bytes)),
                Step::Input(false, bytes) => outstanding.extend(bench.key_in(&bytes)),
                Step::Line(index) => outstanding.extend(bench.key_in(LINES[index].as_bytes())),
                Step::Output(vm, bytes) => bench.run(|console, sinks| console.guest_output(VmId::new(vm), &bytes, sinks)),
                Step::Reply(index) => if let Some(request) = outstanding.pop() {
                    bench.reply(&request, Ok(replies[index].clone()));
                },
                Step::Event(vm) => bench.run(|console, sinks| {
                    console.event(&Event { time_ns: 1, vm: VmId::new(vm), what: What::VmOff("guest", None) }, 0, sinks);
                }),
            }
            let _ = bench.told();
            prop_assert!(outstanding.len() <= MAX_PENDING);
            bench.terminal.clear();
        }
    }
}

#[test]
fn the_terminal_tells_single_vcpus_events_at_the_prompt_and_as_json() {
    let mut bench = Bench::new();
    assert!(bench.console.tells_events(), "at the prompt");
    bench.key_in(b"json on\r");
    assert!(bench.console.tells_events(), "as JSON");
    bench.key_in(&[ESCAPE]);
    bench.key_in(b"console linux\r");
    assert!(!bench.console.tells_events(), "inside a guest");
    bench.key_in(&[ESCAPE]);
    assert!(bench.console.tells_events(), "at the prompt again");
}

#[test]
fn help_gives_an_example_of_what_it_is_asked_about() {
    let mut bench = Bench::new();
    assert!(bench.key_in(b"help vcpu set\r").is_empty());
    assert_eq!(
        bench.shown(),
        "help vcpu set\r\nvcpu set NAME N [--timeout S]\r\n    give the guest N vCPUs\r\n\
         \x20   for example: vcpu set linux 8 --timeout 30\r\n\rbullpen> \x1b[K"
    );
    bench.key_in(b"help vm\r");
    assert_eq!(bench.shown().matches("for example: vm ").count(), 10);
    bench.key_in(b"help\r");
    let all = bench.shown();
    assert!(
        !all.contains("for example") && all.contains("`help COMMAND`"),
        "{all}"
    );
    bench.key_in(b"help halp me\r");
    assert!(bench.shown().contains("there is no command \"halp me\""));
    assert!(
        bench
            .ask(r#"{"id": 1, "command": "help vm show"}"#)
            .is_empty()
    );
    assert_eq!(
        bench.told()[0]["result"]["commands"],
        json!([{"form": "vm show NAME", "text": "tell all about a VM", "example": "vm show linux"}])
    );
}

#[test]
fn the_tab_key_completes_commands_and_names() {
    let mut bench = Bench::new();
    let requests = bench.key_in(b"vm sho\tl\t\r");
    assert_eq!(requests[0].command, Command::VmShow { vm: LINUX });
    let _ = bench.shown();
    bench.key_in(b"vm start \t");
    assert_eq!(
        bench.shown(),
        "vm start \r\nlinux  rtos\r\n\rbullpen> vm start \x1b[K"
    );
}

/// A bench whose live view has had its first sample, at 10 s, and the request for the second.
fn watching(first: Sample) -> (Bench, Request) {
    let mut bench = Bench::new();
    let request = bench.key_in(b"top\r").remove(0);
    assert_eq!(request.command, Command::Top);
    assert_eq!(bench.console.due_ns(), None, "a sample is on its way");
    let _ = bench.shown();
    bench.reply(&request, Ok(Reply::Top(first)));
    assert_eq!(bench.shown(), "", "nothing to hold it against");
    let due_ns = bench.console.due_ns().expect("it goes on");
    assert_eq!(due_ns, 10_100_000_000, "soon");
    assert!(bench.run(|console, _| console.tick(due_ns - 1)).is_none());
    let request = bench.run(|console, _| console.tick(due_ns));
    (bench, request.expect("a request"))
}

#[test]
fn the_live_view_is_redrawn_in_place_each_second_until_q() {
    let (mut bench, mut request) = watching(sample(10_000_000_000, &[0, 0]));
    let mut terminal = Terminal::new();
    for round in 1..5_u64 {
        let time_ns = (10 + round) * 1_000_000_000;
        let ran_ns = [round * 250_000_000, round * 900_000_000];
        bench.reply(&request, Ok(Reply::Top(sample(time_ns, &ran_ns))));
        let shown = bench.shown();
        terminal.show(shown.as_bytes());
        assert_eq!(
            terminal.rows(),
            [
                &format!("top: 1 VMs, up 1{round}.000 s; each second anew, q ends it"),
                "VM    STATE       ON TARGET    SHARE     WAIT   EXITS/S",
                "linux running      2      8    115.0%     57.5%      1150",
                "",
                "VM    VCPU              CPU    SHARE     WAIT   EXITS/S",
                "linux 1                   1     90.0%     45.0%       900",
                "linux 0                   0     25.0%     12.5%       250",
                "",
                "",
            ]
        );
        assert_eq!(
            (terminal.row_number(), terminal.column()),
            (8, 0),
            "nothing has left the screen"
        );
        let due_ns = time_ns + 1_000_000_000;
        assert_eq!(bench.console.due_ns(), Some(due_ns));
        request = bench
            .run(|console, _| console.tick(due_ns))
            .expect("a request");
        assert!(
            bench.run(|console, _| console.tick(u64::MAX)).is_none(),
            "one at a time"
        );
    }
    assert!(
        bench.key_in(b"x\x1b[A\r").is_empty(),
        "other keys do nothing"
    );
    assert_eq!(bench.shown(), "");
    assert!(bench.key_in(b"q").is_empty());
    assert_eq!(bench.shown(), "\x1b[0m\r\n\rbullpen> \x1b[K");
    assert_eq!(bench.console.due_ns(), None);
    bench.reply(&request, Ok(Reply::Top(sample(1, &[1]))));
    assert_eq!(bench.shown(), "", "the last sample comes to nothing");
    assert_eq!(bench.key_in(b"vm list\r").len(), 1);
}

#[test]
fn a_vcpu_that_comes_or_begins_anew_is_no_jump_in_the_live_view() {
    let (mut bench, request) = watching(sample(10_000_000_000, &[7_000_000_000]));
    bench.reply(
        &request,
        Ok(Reply::Top(sample(
            11_000_000_000,
            &[500_000_000, 800_000_000],
        ))),
    );
    let shown = bench.shown();
    assert!(
        shown.contains("linux 0                   0     50.0%     25.0%       500"),
        "{shown}"
    );
    assert!(
        shown.contains("linux 1                   1      0.0%      0.0%         0"),
        "{shown}"
    );
}

#[test]
fn the_live_view_has_room_for_no_more_than_a_screen() {
    let everything = |time_ns| {
        let mut everything = sample(time_ns, &[7; 500]);
        everything.vms = vec![everything.vms.remove(0); 64];
        for (index, row) in (0..).zip(&mut everything.vms) {
            row.vm = VmId::new(index);
        }
        everything.left_out = 3;
        everything
    };
    let (mut bench, request) = watching(everything(10_000_000_000));
    bench.reply(&request, Ok(Reply::Top(everything(11_000_000_000))));
    let shown = bench.shown();
    let mut terminal = Terminal::new();
    terminal.show(shown.as_bytes());
    let rows = terminal.rows();
    assert_eq!(
        terminal.row_number() + 1,
        rows.len(),
        "nothing has left the screen"
    );
    assert!(rows.contains(&"and 56 more VMs".into()), "{rows:?}");
    assert!(
        rows.contains(&format!("and {} more vCPUs", 500 + 3 - 7)),
        "{rows:?}"
    );
    assert!(shown.len() < 24 * 80, "{} bytes", shown.len());
}

#[test]
fn what_happens_meanwhile_is_told_under_the_live_view() {
    let mut bench = Bench::new();
    let resize_request = bench.key_in(b"vcpu set linux 1\r").remove(0);
    let request = bench.key_in(b"top\r").remove(0);
    bench.reply(&request, Ok(Reply::Top(sample(2, &[]))));
    let request = bench
        .run(|console, _| console.tick(u64::MAX))
        .expect("a request");
    let _ = bench.shown();
    assert!(!bench.console.tells_events());
    bench.event(1, What::VcpuOnline(VcpuId::new(1)));
    bench.event(2, What::VmReset("guest"));
    bench.reply(&resize_request, Ok(Reply::Resize(resize(Outcome::Partly))));
    assert_eq!(bench.shown(), "", "with the next sample");
    bench.reply(&request, Ok(Reply::Top(sample(3, &[]))));
    assert!(
        bench
            .shown()
            .contains("\r\nlinux: 2 of 1 vCPUs, partly\x1b[K\r\n\x1b[J")
    );
    assert_eq!(bench.key_in(b"\x03host\r").len(), 1, "Ctrl-C ends it too");
    assert_eq!(bench.key_in(b"top\r").len(), 1);
    assert_eq!(bench.key_in(b"\x1dhost\r").len(), 1, "and the escape key");
}

#[test]
fn the_live_view_waits_for_room_among_the_requests() {
    let mut bench = Bench::new();
    let waiting: Vec<_> = (0..MAX_PENDING)
        .flat_map(|_| bench.key_in(b"host\r"))
        .collect();
    assert!(bench.key_in(b"top\r").is_empty());
    let due_ns = bench.console.due_ns().expect("later");
    bench.reply(&waiting[0], Ok(Reply::Done));
    assert!(bench.run(|console, _| console.tick(due_ns)).is_some());
}
