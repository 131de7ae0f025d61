//! Unmodified Debian Linux under Bullpen: it boots, gets vCPUs by ACPI hot-add, and gives them back.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::linux::{RESIZE_LIMIT_S, expect_no_complaints, expect_online, resize, resize_to};
use tests::machine::{Machine, PATIENCE, Running};
use tests::{Manifest, Vm, artefacts, linux};

fn boot(name: &str, cpus: u32, model: &str, vm: Vm) -> (Running, u32) {
    linux::boot(Machine::new(name).cpus(cpus).model(model), vm)
}

/// Checks that no event is older than one before it, and that what a resize counts is what was told to be on.
fn expect_events_in_order(running: &mut Running) {
    let (mut on, mut last_ns) = (BTreeSet::new(), 0);
    for event in running.control().events() {
        let time_ns = event["time_ns"].as_u64().unwrap_or(0);
        assert!(time_ns >= last_ns, "{event} after {last_ns}");
        last_ns = time_ns;
        let vcpu = event["vcpu"].as_u64();
        match event["event"].as_str() {
            Some("vcpu-online") => _ = on.insert(vcpu),
            Some("vcpu-offline") => _ = on.remove(&vcpu),
            Some("resize-done") => assert_eq!(event["reached"], on.len(), "{event} of {on:?}"),
            _ => {}
        }
    }
}

/// Boots 2 of 8, asks for 8, for 2, and for 1, `cycles` times.
fn grow_and_shrink(name: &str, kernel: &str, cpus: u32, model: &str, cycles: u32) {
    let (mut running, online) = boot(name, cpus, model, Vm::linux("linux", kernel));
    assert_eq!(online, 2, "CPUs online after the boot");
    for _ in 0..cycles {
        for vcpus in [8, 2] {
            resize_to(&mut running, "linux", vcpus);
        }
    }
    let result = resize(&mut running, "linux", 1);
    assert_eq!(result["reached"], 2, "{result}");
    assert!(result.to_string().contains("boot-vcpu"), "{result}");
    expect_events_in_order(&mut running);
    expect_no_complaints(&mut running.console);
}

fn cycles() -> u32 {
    if artefacts::full() { 100 } else { 3 }
}

#[test]
fn linux_6_12_grows_and_shrinks() {
    grow_and_shrink("linux-6.12", "linux-6.12", 4, "max,pauth=off", cycles());
}

#[test]
fn linux_7_2_grows_and_shrinks() {
    grow_and_shrink("linux-7.2", "linux-7.2", 4, "max,pauth=off", cycles());
}

#[test]
fn eight_vcpus_on_one_cpu() {
    grow_and_shrink("linux-on-1", "linux-6.12", 1, "max,pauth=off", 1);
}

#[test]
fn eight_vcpus_on_two_cpus() {
    grow_and_shrink("linux-on-2", "linux-6.12", 2, "cortex-a57", 1);
}

#[test]
fn eight_vcpus_on_eight_cpus() {
    grow_and_shrink("linux-on-8", "linux-6.12", 8, "neoverse-n1", 1);
}

#[test]
fn busy_vcpus_move() {
    let (mut running, _) = boot(
        "linux-move",
        4,
        "cortex-a57",
        Vm::linux("linux", "linux-6.12"),
    );
    let load = "for n in 1 2 3; do (while :; do :; done) & done";
    linux::run(&mut running.console, load);
    let moves = if artefacts::full() { 500 } else { 50 };
    for n in 0..moves {
        running.command(&format!("vcpu pin linux {} {}", n % 2, (n * 3 + n / 2) % 4));
        if n % 10 == 9 {
            assert_eq!(linux::online(&mut running.console), 2);
        }
    }
    // Those in reserve go where they were pinned.
    for vcpu in [2, 3] {
        running.command(&format!("vcpu pin linux {vcpu} 0"));
    }
    resize_to(&mut running, "linux", 4);
    let list = running.command("vcpu list linux");
    for vcpu in [2, 3] {
        let row = &list["vcpus"][vcpu];
        assert_eq!(
            (&row["state"], &row["cpu"]),
            (&"on".into(), &0.into()),
            "{list}"
        );
    }
    resize_to(&mut running, "linux", 2);
    expect_no_complaints(&mut running.console);
}

#[test]
fn cpus_of_a_reserve_are_off_between_resizes() {
    let vm = Vm::linux("linux", "linux-6.12").text("reserve-idle", "psci-off");
    let (mut running, _) = boot("linux-reserve-off", 8, "cortex-a57", vm);
    for _ in 0..cycles().div_ceil(3) {
        for vcpus in [8, 5, 2, 3, 2] {
            resize_to(&mut running, "linux", vcpus);
            // Asked for after the ejection was over and told: a CPU of the reserve has long gone off.
            let host = running.command("host");
            assert_eq!(host["cpus_online"], vcpus, "{host}");
        }
    }
    expect_no_complaints(&mut running.console);
}

#[test]
fn vcpus_move_to_cpus_that_are_off() {
    let vm = Vm::linux("linux", "linux-6.12").text("reserve-idle", "psci-off");
    let (mut running, _) = boot("linux-move-off", 4, "cortex-a57", vm.vcpus(2, 4));
    // One that is on, to a CPU that is off; then one of the reserve, from such a CPU.
    running.command("vcpu pin linux 1 3");
    running.command("vcpu pin linux 2 3");
    assert_eq!(linux::online(&mut running.console), 2);
    for vcpus in [4, 2, 3, 2] {
        resize_to(&mut running, "linux", vcpus);
    }
    running.command("vcpu pin linux 1 2");
    resize_to(&mut running, "linux", 4);
    expect_no_complaints(&mut running.console);
}

/// Returns for how many nanoseconds the guest's vCPUs have run together, and whether that counts their sleep.
fn ran(running: &mut Running) -> (u64, bool) {
    let list = running.command("vcpu list linux");
    let vcpus = list["vcpus"].as_array().expect("a list of vCPUs");
    let ran = vcpus.iter().filter_map(|vcpu| vcpu["ran_ns"].as_u64());
    let counts_sleep = vcpus.iter().any(|vcpu| vcpu["counts_sleep"] == true);
    (ran.sum(), counts_sleep)
}

/// Returns how much of a few seconds the guest's vCPUs run, in percent of one CPU.
fn load_percent(running: &mut Running) -> u64 {
    let (since, (before, _)) = (Instant::now(), ran(running));
    std::thread::sleep(Duration::from_secs(4));
    let (after, elapsed) = (ran(running).0, since.elapsed());
    (after - before) * 100 / elapsed.as_nanos() as u64
}

#[test]
fn what_a_vcpu_runs_is_told_while_it_runs() {
    const WORK: &str = "(while :; do :; done) & work=$!";
    // On a CPU that two share WFI traps, on one each it does not.
    for (name, cpus) in [("linux-ran-shared", 1), ("linux-ran-alone", 2)] {
        let vm = Vm::linux("linux", "linux-6.12").vcpus(2, 2);
        let (mut running, _) = boot(name, cpus, "max,pauth=off", vm);
        linux::run(&mut running.console, WORK);
        let busy = load_percent(&mut running);
        linux::run(&mut running.console, "kill $work");
        let idle = load_percent(&mut running);
        let (_, counts_sleep) = ran(&mut running);
        println!("{cpus} CPUs: busy {busy} %, idle {idle} %");
        assert_eq!(counts_sleep, cpus == 2, "{cpus} CPUs");
        assert!(busy >= 75, "{busy} % of a CPU with a busy loop");
        if cpus == 1 {
            assert!(idle < 25, "{idle} % of a CPU with nothing to do");
        } else {
            assert!(idle >= 150, "{idle} % of two CPUs, asleep or not");
        }
    }
}

#[test]
fn the_alarm_of_the_clock_wakes_a_guest_that_sleeps() {
    let vm = Vm::linux("linux", "linux-6.12")
        .text("firmware", "fdt")
        .vcpus(2, 2);
    let (mut running, _) = boot("linux-alarm", 2, "max,pauth=off", vm);
    let sleep =
        "echo +3 >/sys/class/rtc/rtc0/wakealarm && echo freeze >/sys/power/state && echo woke";
    let text = linux::run(&mut running.console, sleep);
    assert!(text.lines().any(|line| line == "woke"), "{text}");
    expect_no_complaints(&mut running.console);
}

/// Checks how a resize ended, and why for each vCPU that stood in the way.
fn expect_reasons(result: &Value, outcome: &str, expected: &[&str]) {
    assert_eq!(result["outcome"], outcome, "{result}");
    let reasons = result["reasons"].as_array().expect("a list of reasons");
    let words: Vec<_> = reasons.iter().map(|entry| &entry["reason"]).collect();
    assert_eq!(words, expected, "{result}");
}

/// A guest that says that it took them and turns none on lives on, and the operator gets the truth.
fn does_not_take_them(name: &str, vm: Vm, expected_online: u32) {
    let (mut running, online) = boot(name, 4, "max,pauth=off", vm);
    assert_eq!(online, expected_online, "CPUs online after the boot");
    let result = running.command("vcpu set linux 4 --timeout 10");
    expect_reasons(&result, "timed-out", &["only-acknowledged"; 2]);
    assert_eq!(linux::online(&mut running.console), expected_online);
    expect_no_complaints(&mut running.console);
}

#[test]
fn linux_6_1_boots_and_does_not_take_them() {
    does_not_take_them("linux-6.1", Vm::linux("linux", "linux-6.1"), 2);
}

#[test]
fn nr_cpus_is_told_to_the_operator() {
    let vm = Vm::linux("linux", "linux-6.12").command_line("rdinit=/init nr_cpus=2");
    does_not_take_them("linux-nr-cpus", vm, 2);
}

#[test]
fn maxcpus_does_not_hinder_a_hot_add() {
    let vm = Vm::linux("linux", "linux-6.12").command_line("rdinit=/init maxcpus=1");
    let (mut running, online) = boot("linux-maxcpus", 4, "max,pauth=off", vm);
    assert_eq!(online, 1, "CPUs online after the boot");
    let result = resize(&mut running, "linux", 4);
    assert_eq!(result["reached"], 3, "{result}");
    expect_reasons(&result, "partly", &["left-off"]);
    assert_eq!(result["reasons"][0]["vcpu"], 1, "{result}");
    let list = running.command("vm list");
    assert_eq!(list["vms"][0]["on"], 3, "{list}");
    expect_online(&mut running.console, 3);
}

#[test]
fn acpi_off_boots_by_device_tree() {
    let vm = Vm::linux("linux", "linux-6.12").command_line("rdinit=/init acpi=off");
    let (mut running, online) = boot("linux-acpi-off", 4, "max,pauth=off", vm);
    assert_eq!(online, 2, "CPUs online after the boot");
    let command = "vcpu set linux 4 --timeout 5";
    let refusal = running.control().command(command, PATIENCE);
    let kind = refusal.expect_err(command).kind;
    assert_eq!(kind, "unsupported", "`acpi=off` means `firmware = \"fdt\"`");
    assert_eq!(linux::online(&mut running.console), 2);
}

#[test]
fn udev_turns_added_cpus_on() {
    let vm = Vm::linux("linux", "linux-6.12")
        .text("initrd", &artefacts::initrd_udev().to_string_lossy())
        .command_line("rdinit=/init bullpen.online=udev");
    let (mut running, _) = boot("linux-udev", 4, "max,pauth=off", vm);
    resize_to(&mut running, "linux", 4);
}

#[test]
fn sixty_four_possible_eight_running() {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(2, 64);
    let (mut running, _) = boot("linux-64", 4, "max,pauth=off", vm);
    resize_to(&mut running, "linux", 8);
    let possible = linux::run(&mut running.console, "cat /sys/devices/system/cpu/possible");
    assert_eq!(possible.trim(), "0-63");
    expect_no_complaints(&mut running.console);
}

#[test]
fn asked_while_booting_is_not_lost() {
    let machine = Machine::new("linux-early").cpus(4);
    let mut running = machine.boot(&Manifest::new([Vm::linux("linux", "linux-6.12")]));
    let id = running
        .control()
        .send(&format!("vcpu set linux 4 --timeout {RESIZE_LIMIT_S}"));
    linux::wait_for_shell(&mut running.console);
    let result = running
        .control()
        .reply(id, PATIENCE)
        .expect("it is carried out");
    assert_eq!(result["outcome"], "done", "{result}");
    expect_online(&mut running.console, 4);
}

#[test]
fn a_reboot_keeps_the_target() {
    let (mut running, _) = boot(
        "linux-reboot",
        4,
        "max,pauth=off",
        Vm::linux("linux", "linux-6.12"),
    );
    resize_to(&mut running, "linux", 4);
    let online = linux::reboot(&mut running, "linux");
    assert!(online >= 2);
    expect_online(&mut running.console, 4);
    linux::power_off(&mut running, "linux");
}

#[test]
fn one_guest_panics_and_the_other_does_not_notice() {
    let vms =
        ["first", "second"].map(|name| Vm::linux(name, "linux-6.12").vcpus(2, 4).memory_mib(384));
    let mut running = Machine::new("linux-two").cpus(4).boot(&Manifest::new(vms));
    running.command("console second");
    linux::wait_for_shell(&mut running.console);
    running.command("console first");
    linux::wait_for_shell(&mut running.console);
    running.console.line("echo c > /proc/sysrq-trigger");
    running.console.expect("Kernel panic", PATIENCE);
    running.command("console second");
    assert_eq!(linux::online(&mut running.console), 2);
    // Ends only if its clock goes on.
    let tick =
        "now() { cut -d. -f1 /proc/uptime; }; was=$(now); while [ $(now) = $was ]; do :; done";
    linux::run(&mut running.console, tick);
    running.command("vm reset first");
    running.command("console first");
    linux::wait_for_shell(&mut running.console);
}
