//! Memory that comes and goes: unmodified Linux gets it by ACPI while it runs, keeps it over a reset, and gives it back.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::time::Duration;
use tests::linux::{RESIZE_LIMIT_S, expect_no_complaints};
use tests::machine::{Machine, PATIENCE, Running};
use tests::{Vm, artefacts, linux};

/// Memory of the boot, and all that there can be, in MiB.
const BOOT_MIB: u64 = 512;
const MOST_MIB: u64 = 1024;
/// What makes Linux use added memory so that it can give it back.
const COMMAND_LINE: &str = "memhp_default_state=online_movable";

fn boot(name: &str, kernel: &str) -> Running {
    let vm = Vm::linux("linux", kernel)
        .raw("max-memory", &format!("\"{MOST_MIB}M\""))
        .command_line(COMMAND_LINE);
    let machine = Machine::new(name).cpus(2).memory_mib(2048);
    linux::boot(machine, vm).0
}

/// Asks for so much memory in all and waits for what came of it.
fn set(running: &mut Running, mib: u64, force: &str) -> Value {
    running.command(&format!(
        "mem set linux {mib}M --timeout {RESIZE_LIMIT_S} {force}"
    ))
}

/// Has a request refused; returns the kind of the error.
fn refused(running: &mut Running, request: &str) -> String {
    let refusal = running.control().command(request, PATIENCE);
    refusal.expect_err(request).kind
}

/// Returns how much memory the guest says it has, in KiB.
fn mem_total(running: &mut Running) -> u64 {
    let text = linux::run(&mut running.console, "grep MemTotal /proc/meminfo");
    let words = text.split_ascii_whitespace();
    words
        .filter_map(|word| word.parse().ok())
        .next()
        .unwrap_or_else(|| panic!("MemTotal: {text:?}"))
}

/// Gives the guest so much memory, and waits until it counts that itself: `more` MiB than `base` KiB.
fn set_to(running: &mut Running, (base, more): (u64, u64), force: &str) {
    let mib = BOOT_MIB + more;
    let result = set(running, mib, force);
    assert_eq!(result["outcome"], "done", "{result}");
    assert_eq!(result["reached_bytes"], mib << 20, "{result}");
    let list = running.command("vm list");
    assert_eq!(list["vms"][0]["memory_bytes"], mib << 20, "{list}");
    let expected = base + more * 1024;
    for _ in 0..50 {
        // Page tables and the like of what was added may stay.
        if mem_total(running).abs_diff(expected) < 4096 {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let total = mem_total(running);
    panic!("{total} KiB, not {expected}{}", running.console.tail());
}

fn free_pages(running: &mut Running) -> u64 {
    let host = running.command("host");
    host["free_pages"].as_u64().expect("a number")
}

/// Counts the slots in a state.
fn slots(running: &mut Running, state: &str) -> usize {
    let list = running.command("mem list linux");
    let slots = list["slots"].as_array().expect("slots");
    slots.iter().filter(|slot| slot["state"] == state).count()
}

fn comes_and_goes(name: &str, kernel: &str, cycles: u32) {
    let mut running = boot(name, kernel);
    let (base, free) = (mem_total(&mut running), free_pages(&mut running));
    assert_eq!(slots(&mut running, "absent"), 4);
    let data = "cat /proc/kallsyms /proc/kallsyms > /tmp/data; md5sum /tmp/data";
    for cycle in 0..cycles {
        set_to(&mut running, (base, MOST_MIB - BOOT_MIB), "");
        assert_eq!(slots(&mut running, "acknowledged"), 4);
        let sum = linux::run(&mut running.console, data);
        assert_eq!(refused(&mut running, "mem set linux 512M"), "needs-force");
        set_to(&mut running, (base, 0), "--force");
        let again = linux::run(&mut running.console, "md5sum /tmp/data");
        assert_eq!(sum, again, "cycle {cycle}");
        assert_eq!(free_pages(&mut running), free, "cycle {cycle}");
    }
    assert_eq!(refused(&mut running, "mem set linux 600M"), "bad-number");
    if artefacts::full() {
        stays_over_a_reset(&mut running, base);
        assert_eq!(free_pages(&mut running), free, "after a reset");
    }
    expect_no_complaints(&mut running.console);
    set_to(&mut running, (base, 128), "");
    running.stop("linux");
    assert!(
        free_pages(&mut running) > free,
        "off, with what it had from boot"
    );
    assert_eq!(slots(&mut running, "absent"), 4);
}

/// What is there at a reset is found at the scan, and can go.
fn stays_over_a_reset(running: &mut Running, base: u64) {
    set_to(running, (base, 256), "");
    let _online = linux::reboot(running, "linux");
    set_to(running, (base, 256), "");
    set_to(running, (base, 0), "--force");
}

#[test]
fn hot_memory_of_linux_6_12_comes_and_goes() {
    comes_and_goes(
        "memory-6.12",
        "linux-6.12",
        if artefacts::full() { 10 } else { 1 },
    );
}

#[test]
fn hot_memory_of_linux_7_2_comes_and_goes() {
    if artefacts::full() {
        comes_and_goes("memory-7.2", "linux-7.2", 10);
    }
}
