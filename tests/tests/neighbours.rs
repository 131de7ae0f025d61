//! What a VM notices of another one's end: nothing. Stops, resets and panics, also in the middle of a resize.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::time::Instant;
use tests::guest::{expect_green, run_to_end};
use tests::machine::{Machine, PATIENCE, Running};
use tests::neighbour::{Beats, ask};
use tests::{Manifest, Vm, artefacts, linux};

/// Returns an initrd of this many MiB of nothing.
fn empty_initrd(name: &str, mib: usize) -> String {
    let path = artefacts::log_directory(name).join("initrd");
    std::fs::write(&path, vec![0; mib << 20]).expect("the log directory can be written");
    path.to_string_lossy().into_owned()
}

/// Boots a guest with much to copy and a neighbour that never sleeps on one CPU, and resets the first.
///
/// Returns the nanoseconds from the end of its old life to the beginning of the new one, and how its neighbour fared.
fn reset_beside(name: &str, words: &str) -> (u64, Beats) {
    let big = Vm::guest("big", "neighbour")
        .memory_mib(512)
        .text("initrd", &empty_initrd(name, 32))
        .cpus(&[0]);
    let small = Vm::guest("small", "neighbour")
        .command_line(words)
        .cpus(&[0]);
    let machine = Machine::new(name).cpus(2).deterministic();
    let mut running = machine.boot(&Manifest::new([big, small]));
    for vm in ["small", "big"] {
        running.command(&format!("console {vm}"));
        running.console.expect("READY", PATIENCE);
    }
    ask(&mut running, "small");
    running.control().forget_events();
    running.command("vm reset big");
    let mut when =
        |event: &str| running.control().event(event, "big", PATIENCE)["time_ns"].as_u64();
    let (from, to) = (when("vm-reset"), when("vm-start"));
    let beats = ask(&mut running, "small");
    assert_eq!(
        beats.damaged, 0,
        "words of the neighbour's memory have changed"
    );
    (to.expect("a time") - from.expect("a time"), beats)
}

#[test]
fn a_reset_is_quick_beside_a_busy_guest() {
    let (ns, beats) = reset_beside("reset-busy", "spin");
    println!(
        "reset: {ns} ns, beats {}, late {} us",
        beats.beats, beats.late_us
    );
    assert!(ns < 100_000_000, "{ns} ns from reset to start");
    assert!(
        beats.late_us < 15_000,
        "a beat was late by {} us",
        beats.late_us
    );
}

#[test]
fn a_reset_is_quick_beside_a_sleeping_guest() {
    let (ns, beats) = reset_beside("reset-asleep", "");
    println!(
        "reset: {ns} ns, beats {}, late {} us",
        beats.beats, beats.late_us
    );
    assert!(ns < 60_000_000, "{ns} ns from reset to start");
    assert!(
        beats.late_us < 5_000,
        "a beat was late by {} us",
        beats.late_us
    );
}

#[test]
fn a_guest_that_cleans_its_caches_by_set_and_way_keeps_nobody_waiting() {
    let sweeper = Vm::guest("sweeper", "sysreg")
        .command_line("only=set_and_way")
        .memory_mib(512)
        .cpus(&[0]);
    let beats = Vm::guest("beats", "neighbour").cpus(&[0]);
    let machine = Machine::new("set-way").cpus(2).deterministic();
    let mut running = machine.boot(&Manifest::new([sweeper, beats]));
    expect_green(&mut running, "sweeper", PATIENCE);
    let beats = ask(&mut running, "beats");
    // A slice of the other vCPU, and one step of what is done on its behalf.
    assert!(beats.late_us < 15_000 && beats.damaged == 0, "{beats:?}");
}

/// A vCPU moves while its VM is paused, off or being reset, and stays where it was put.
#[test]
fn a_vcpu_that_stands_still_moves() {
    let beats = Vm::guest("beats", "neighbour").cpus(&[0]);
    let machine = Machine::new("move-still").cpus(2).model("cortex-a57");
    let mut running = machine.boot(&Manifest::new([beats]));
    let where_it_is =
        |running: &mut Running| running.command("vcpu list beats")["vcpus"][0].clone();
    let before = ask(&mut running, "beats");
    for round in 0..6 {
        running.command("vm pause beats");
        running.command(&format!("vcpu pin beats 0 {}", (round + 1) % 2));
        running.command("vm resume beats");
        running.control().event("vm-resumed", "beats", PATIENCE);
    }
    running.command("vcpu pin beats 0 1");
    let after = ask(&mut running, "beats");
    assert!(
        after.beats > before.beats && after.damaged == 0,
        "{after:?}"
    );
    assert_eq!(where_it_is(&mut running)["cpu"], 1);
    running.stop("beats");
    running.command("vcpu pin beats 0 0");
    assert_eq!(where_it_is(&mut running)["cpu"], 0);
    running.command("vm start beats");
    running.control().event("vm-start", "beats", PATIENCE);
    // More starts than there are 8-bit VMIDs.
    for round in 0..300 {
        running.command("vm reset beats");
        running.command(&format!("vcpu pin beats 0 {}", (round + 1) % 2));
        running.control().event("vm-start", "beats", PATIENCE);
    }
    // It says that it started before its vCPU is entered; one that answers has been.
    assert!(ask(&mut running, "beats").damaged == 0);
    let row = where_it_is(&mut running);
    assert_eq!(
        (&row["state"], &row["cpu"]),
        (&"on".into(), &0.into()),
        "{row}"
    );
}

/// Resets a guest again and again by the operator's command; calls a function after each new start.
fn reset_often(
    running: &mut Running,
    vm: &str,
    times: u32,
    mut settled: impl FnMut(&mut Running, u32),
) {
    for number in 0..times {
        running.control().forget_events();
        running.command(&format!("vm reset {vm}"));
        running.control().event("vm-start", vm, PATIENCE);
        settled(running, number);
    }
}

#[test]
fn resets_leave_memory_and_the_neighbour_as_they_were() {
    // Each start takes another VMID.
    let resets = if artefacts::full() { 300 } else { 100 };
    let vms = ["resets", "beats"].map(|vm| Vm::guest(vm, "neighbour").cpus(&[0]));
    let machine = Machine::new("reset-100").cpus(2).deterministic();
    let mut running = machine.boot(&Manifest::new(vms));
    for vm in ["beats", "resets"] {
        running.command(&format!("console {vm}"));
        running.console.expect("READY", PATIENCE);
    }
    let before = running.command("host")["free_pages"].clone();
    reset_often(&mut running, "resets", resets, |_, _| {});
    running.console.expect("READY", PATIENCE);
    assert_eq!(running.command("host")["free_pages"], before, "free pages");
    let beats = ask(&mut running, "beats");
    assert_eq!(
        beats.damaged, 0,
        "words of the neighbour's memory have changed"
    );
    assert!(
        beats.late_us < 15_000,
        "a beat was late by {} us",
        beats.late_us
    );
}

/// What a VM's starts cost is that VM's: beside one that resets itself without end another has its half, as beside one that spins.
#[test]
fn a_guest_that_resets_itself_without_end_has_its_share_and_no_more() {
    let vm = |name: &str, words: &str| {
        let vm = Vm::guest(name, "neighbour").command_line(words);
        vm.cpus(&[0])
    };
    let vms = [vm("victim", "spin share"), vm("thief", "thief")];
    let machine = Machine::new("share-thief").cpus(1).deterministic();
    let mut running = machine.boot(&Manifest::new(vms));
    running.command("console victim");
    running.console.expect("SHARE permille=", PATIENCE);
    let line = running.console.next_line(PATIENCE).expect("two numbers");
    let (permille, pause) = line.split_once(" pause_us=").expect("two numbers");
    let number = |text: &str| text.trim().parse().unwrap_or_else(|_| panic!("{line}"));
    let (permille, pause_us): (u64, u64) = (number(permille), number(pause));
    println!("beside a guest that resets itself: {permille} of 1000, longest pause {pause_us} us");
    assert!(permille >= 490, "it had {permille} of 1000");
    assert!(pause_us <= 20_000, "it stood still for {pause_us} us");
    // The other still had its own share.
    for _ in 0..10 {
        running.control().event("vm-reset", "thief", PATIENCE);
    }
}

#[test]
fn no_page_of_the_host_is_within_a_guests_reach() {
    const HOST_MIB: u64 = 320;
    let curious = Vm::guest("curious", "isolation")
        .command_line(&format!("host-mib={HOST_MIB}"))
        // Its own RAM has addresses where the host has none.
        .raw("memory-base", "0x8000_0000")
        .cpus(&[0]);
    let beats = Vm::guest("beats", "neighbour").cpus(&[1]);
    let machine = Machine::new("isolation")
        .cpus(2)
        .deterministic()
        .exact_memory_mib(HOST_MIB);
    let mut running = machine.boot(&Manifest::new([curious, beats]));
    run_to_end(&mut running, "curious", PATIENCE);
    let beats = ask(&mut running, "beats");
    // Under `-icount` QEMU gives each CPU that does not rest 100 ms at a time, so that a beat of the other waits for that.
    assert!(beats.damaged == 0 && beats.late_us < 100_000, "{beats:?}");
    assert_eq!(running.command("vm list")["vms"][1]["state"], "running");
}

/// Waits until a guest has looked at its memory; returns how many words it has found there.
fn strange(running: &mut Running) -> u64 {
    running.console.expect("STRANGE ", PATIENCE);
    let line = running.console.next_line(PATIENCE).expect("a number");
    running.console.expect("READY", PATIENCE);
    line.parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn no_vm_finds_in_its_memory_what_another_has_left_there() {
    let vm = |name| {
        Vm::guest(name, "neighbour")
            .command_line("stain")
            .memory_mib(256)
    };
    // Memory for one of them only.
    let vms = [vm("first"), vm("second").raw("autostart", "false")];
    let machine = Machine::new("memory-reuse").cpus(2).exact_memory_mib(512);
    let mut running = machine.boot(&Manifest::new(vms));
    running.command("console first");
    let lines = 250 << 20 >> 6;
    let mut found = Vec::from([strange(&mut running)]);
    // Its own words it may find again: a reset wipes nothing but what images cover.
    running.command("vm reset first");
    assert!(
        strange(&mut running) > lines,
        "the guest does not see what is there"
    );
    for (off, on) in [("first", "second"), ("second", "first")] {
        running.command(&format!("vm stop {off}"));
        running.control().event("vm-off", off, PATIENCE);
        running.command(&format!("console {on}"));
        running.command(&format!("vm start {on}"));
        found.push(strange(&mut running));
    }
    assert_eq!(
        found, [0; 3],
        "strange words at the start of first, second, and first again"
    );
}

/// A Linux guest's record of its own time, ten lines a second: seconds since its boot, and the wall clock's.
const KEEP_TIME: &str = "{ while :; do read up idle < /proc/uptime; echo $up $(date +%s); sleep 0.1; done > /tmp/beats & }";
/// Says how many lines there are, from when to when, the longest gap, and how far the two clocks drifted apart, in ms.
const TIME_KEPT: &str = "awk 'NR == 1 { first = $1; skew = $2 - $1 } \
NR > 1 && $1 - last > gap { gap = $1 - last } \
{ last = $1; drift = $2 - $1 - skew; if (drift < 0) drift = -drift; if (drift > most) most = drift } \
END { printf \"%d %d %d %d\\n\", NR, (last - first) * 1000, gap * 1000, most * 1000 }' /tmp/beats";
/// How far apart a guest may find two of its lines, and its two clocks, on a machine that is busy with other work. A
/// guest that has been stopped for good writes no line at all, and the kernel's own watchdogs complain from 20 s on.
const GAP_MS: u64 = 10_000;
const DRIFT_MS: u64 = 2000;

/// Two Linux guests, of which the second keeps time from now on.
struct Two {
    running: Running,
    since: Instant,
}

impl Two {
    fn boot(name: &str) -> Self {
        let vms =
            ["first", "second"].map(|vm| Vm::linux(vm, "linux-6.12").vcpus(2, 4).memory_mib(256));
        let mut running = Machine::new(name).cpus(2).boot(&Manifest::new(vms));
        running.command("console second");
        linux::wait_for_shell(&mut running.console);
        linux::run(&mut running.console, KEEP_TIME);
        let since = Instant::now();
        running.command("console first");
        linux::wait_for_shell(&mut running.console);
        Self { running, since }
    }

    /// Begins to grow the first guest, which can turn no vCPUs on, and comes back in the middle; returns the request.
    fn grow_half_way(&mut self, timeout_s: u32) -> u64 {
        linux::run(&mut self.running.console, "killall uevent");
        let id = self
            .running
            .control()
            .send(&format!("vcpu set first 4 --timeout {timeout_s}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = self.running.command("vcpu list first");
            let offered = |vcpu: &Value| vcpu["state"] == "enabled-off";
            if list["vcpus"]
                .as_array()
                .is_some_and(|vcpus| vcpus.iter().filter(|vcpu| offered(vcpu)).count() == 2)
            {
                return id;
            }
            assert!(Instant::now() < deadline, "nothing is offered: {list}");
        }
    }

    /// Resets the first guest again and again: every tenth time when its shell is there, else at some line of its boot.
    fn reset_first_often(&mut self, times: u32) {
        reset_often(&mut self.running, "first", times, |running, number| {
            if number % 10 == 9 {
                linux::wait_for_shell(&mut running.console);
            } else {
                for _ in 0..number * 97 % 150 {
                    let _line = running.console.next_line(PATIENCE);
                }
            }
        });
    }

    fn outcome(&mut self, id: u64) -> Value {
        self.running
            .control()
            .reply(id, PATIENCE)
            .expect("a resize ends with a report")
    }

    /// Checks that the second guest has noticed nothing.
    fn check_second(&mut self) {
        self.running.command("console second");
        let text = linux::run(&mut self.running.console, TIME_KEPT);
        let elapsed = self.since.elapsed().as_millis() as u64;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [lines, span, gap, drift] = numbers[..] else {
            panic!("{text}")
        };
        println!(
            "second guest: {lines} lines in {span} ms of {elapsed}, longest gap {gap} ms, drift {drift} ms"
        );
        assert!(gap < GAP_MS, "the second guest stood still for {gap} ms");
        assert!(drift < DRIFT_MS, "its clocks are {drift} ms apart");
        assert!(
            span + 2 * GAP_MS > elapsed,
            "{span} ms have passed for it of {elapsed}"
        );
        linux::expect_no_complaints(&mut self.running.console);
    }
}

/// Returns the reason of each vCPU that a resize did not bring.
fn reasons(report: &Value) -> Vec<&str> {
    let list = report["reasons"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|entry| entry["reason"].as_str())
        .collect()
}

#[test]
fn a_guest_that_ends_in_the_middle_of_a_resize_is_nobody_elses_business() {
    let mut two = Two::boot("linux-mid-resize");
    let before = two.running.command("host")["free_pages"].clone();
    // A panic: the guest is there and says nothing more.
    let id = two.grow_half_way(5);
    two.running.console.line("echo c > /proc/sysrq-trigger");
    two.running.console.expect("Kernel panic", PATIENCE);
    let report = two.outcome(id);
    assert_eq!(report["outcome"], "timed-out", "{report}");
    assert!(
        reasons(&report)
            .iter()
            .all(|reason| ["not-turned-on", "only-acknowledged"].contains(reason)),
        "{report}"
    );
    assert_eq!(reasons(&report).len(), 2, "{report}");
    two.running.command("vm reset first");
    linux::wait_for_shell(&mut two.running.console);
    let report = two.running.command("vcpu set first 2 --timeout 60");
    assert_eq!(report["outcome"], "done", "{report}");
    // A reset: what was asked for is asked again, of the guest's next life, which takes it.
    let id = two.grow_half_way(100);
    two.running.command("vm reset first");
    linux::wait_for_shell(&mut two.running.console);
    let report = two.outcome(id);
    assert_eq!(
        (&report["outcome"], &report["reached"]),
        (&"done".into(), &4.into()),
        "{report}"
    );
    let report = two.running.command("vcpu set first 2 --timeout 60");
    assert_eq!(report["outcome"], "done", "{report}");
    assert_eq!(
        two.running.command("host")["free_pages"],
        before,
        "free pages"
    );
    two.reset_first_often(if artefacts::full() { 100 } else { 0 });
    assert_eq!(
        two.running.command("host")["free_pages"],
        before,
        "free pages"
    );
    // A stop: there is nothing left to wait for.
    let id = two.grow_half_way(100);
    two.running.command("vm stop first");
    let report = two.outcome(id);
    assert_eq!(reasons(&report), ["vm-off"; 2], "{report}");
    two.check_second();
}

/// The terminal tells of vCPUs that come and go, at the prompt and as JSON, on a board that has nothing else.
#[test]
fn one_uart_tells_of_single_vcpus() {
    let vms = [
        Vm::guest("beats", "neighbour"),
        Vm::guest("smoke", "smoke").vcpus(2, 2),
    ];
    let machine = Machine::new("one-uart").cpus(2).one_uart();
    let console = &mut machine.boot(&Manifest::new(vms)).console;
    let patience = std::time::Duration::from_secs(20);
    console.send("\x1d");
    console.expect("bullpen> ", patience);
    console.line("vm stop smoke");
    // It may have ended by itself before.
    let ended = console.wait_for(&["smoke: off (", "smoke is off"], patience);
    assert!(ended.is_some(), "{}", console.tail());
    console.line("vm start smoke");
    console.expect("smoke: vcpu1 online", patience);
    console.expect("smoke: vcpu1 offline", patience);
    console.expect("smoke: off (guest)", patience);
    console.line("json on");
    console.line("{\"command\": \"vm start smoke\"}");
    console.expect("\"vcpu-online\"", patience);
    console.expect("\"vcpu-offline\"", patience);
}
