//! The demo's Linux guest: from its kernel's first words to its shell, and what a shell can tell.

use crate::console::Console;
use crate::machine::{Machine, PATIENCE, Running};
use crate::manifest::{Manifest, Vm};
use serde_json::Value;
use std::time::Duration;

/// How long a boot to the shell may take on a busy machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// A resize's own deadline in seconds: far more than a guest needs, for a busy machine.
pub const RESIZE_LIMIT_S: u32 = 100;
/// How long a command in the guest may take.
pub const SHELL_LIMIT: Duration = Duration::from_secs(120);

/// What in a kernel's log means that something is broken.
const COMPLAINTS: [&str; 14] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Call trace",
    "Kernel panic",
    "rcu: INFO",
    "soft lockup",
    "hard LOCKUP",
    "may not have shut down cleanly",
    "hung task",
    "Unable to handle",
    "unhandled",
    "failed to boot CPU",
    "redistributor is inaccessible",
];

/// Boots a Linux alone on a machine; returns how many CPUs it says are online.
///
/// # Panics
/// If it does not come to its shell.
#[must_use]
pub fn boot(machine: Machine, vm: Vm) -> (Running, u32) {
    let mut running = machine.boot(&Manifest::new([vm]));
    let online = wait_for_shell(&mut running.console);
    (running, online)
}

/// Has the guest of a VM reboot itself; returns how many CPUs are online when its shell is back. The console must show that guest.
///
/// # Panics
/// If it does not come back.
pub fn reboot(running: &mut Running, vm: &str) -> u32 {
    running.console.line("reboot -f");
    running.control().event("vm-reset", vm, PATIENCE);
    wait_for_shell(&mut running.console)
}

/// Has the guest of a VM turn itself off. The console must show that guest.
///
/// # Panics
/// If its VM does not go off.
pub fn power_off(running: &mut Running, vm: &str) {
    running.console.line("poweroff -f");
    running.control().event("vm-off", vm, PATIENCE);
}

/// Waits until the guest's first process has started its shell; returns how many CPUs it says are online.
///
/// # Panics
/// If it does not come so far.
pub fn wait_for_shell(console: &mut Console) -> u32 {
    console.expect("bullpen: guest ready: Linux ", BOOT_LIMIT);
    let line = console
        .next_line(SHELL_LIMIT)
        .expect("the rest of the line follows");
    let number = line
        .split(", ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    number
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("how many CPUs? {line:?}"))
}

/// Runs a line of shell in the guest; returns what it printed.
///
/// # Panics
/// If it does not end in time.
pub fn run(console: &mut Console, line: &str) -> String {
    run_within(console, line, SHELL_LIMIT)
}

/// As [`run`], for a line that may take so long.
///
/// # Panics
/// As [`run`].
pub fn run_within(console: &mut Console, line: &str, limit: Duration) -> String {
    // The quotes keep the marks out of the echo of what is typed.
    console.line(&format!("echo BE''GIN; {line}; echo E''ND"));
    // The kernel may print right after them.
    console.expect("BEGIN", SHELL_LIMIT);
    let text = console.expect("END", limit).replace('\r', "");
    text.strip_prefix('\n').unwrap_or(&text).to_owned()
}

/// Returns the number of CPUs that are online in the guest.
pub fn online(console: &mut Console) -> u32 {
    let text = run(console, "nproc");
    // The first process and the kernel may print in between.
    text.lines()
        .find_map(|line| line.trim().parse().ok())
        .unwrap_or_else(|| panic!("nproc says {text:?}"))
}

/// Returns the lines of the kernel's log that complain of something.
pub fn complaints(console: &mut Console) -> Vec<String> {
    let pattern = COMPLAINTS.join("|");
    run(console, &format!("dmesg | grep -E '{pattern}'"))
        .lines()
        .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
        .map(str::to_owned)
        .collect()
}

/// Fails if the kernel's log complains of something.
///
/// # Panics
/// With what it says.
pub fn expect_no_complaints(console: &mut Console) {
    let complaints = complaints(console);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Asks for so many vCPUs and waits for what came of it.
///
/// # Panics
/// If the request is refused.
pub fn resize(running: &mut Running, vm: &str, vcpus: u32) -> Value {
    running.command(&format!("vcpu set {vm} {vcpus} --timeout {RESIZE_LIMIT_S}"))
}

/// Gives a guest so many vCPUs, and waits until it counts them itself. The console must show that guest.
///
/// # Panics
/// If the guest does not get there.
pub fn resize_to(running: &mut Running, vm: &str, vcpus: u32) {
    let result = resize(running, vm, vcpus);
    assert_eq!(result["outcome"], "done", "{result}");
    expect_online(&mut running.console, vcpus);
}

/// As [`resize_to`], at the prompt of the UART that the guest shares with the operator.
///
/// # Panics
/// If the guest does not get there.
pub fn resize_at_the_prompt(running: &mut Running, vm: &str, vcpus: u32) {
    running.prompt();
    running.console.line(&format!("vcpu set {vm} {vcpus}"));
    let done = format!("{vcpus} of {vcpus} vCPUs, done");
    running.console.expect(&done, PATIENCE);
    running.console.line(&format!("console {vm}"));
    expect_online(&mut running.console, vcpus);
}

/// Waits until the guest itself counts this many CPUs: it tells the operator first and its shell a moment later.
///
/// # Panics
/// If it does not.
pub fn expect_online(console: &mut Console, vcpus: u32) {
    for _ in 0..20 {
        if online(console) == vcpus {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("not {vcpus} CPUs online{}", console.tail());
}
