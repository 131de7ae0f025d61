//! Two unmodified Linux guests with a network between them: they reach each other, copy a file, and no other guest hears of it. And a
//! guest draws from its source of randomness.
#![forbid(unsafe_code)]

use serde_json::Value;
use tests::machine::{Machine, Running};
use tests::{Manifest, Vm, linux};

/// Has the terminal talk to a guest.
fn attach(running: &mut Running, vm: &str) {
    running.command(&format!("console {vm}"));
    // What was typed before an attach is dropped, so the shell's answer shows that it listens.
    let answer = linux::run(&mut running.console, &format!("hostname {vm}; hostname"));
    assert!(answer.contains(vm), "{answer}");
}

fn run(running: &mut Running, vm: &str, line: &str) -> String {
    attach(running, vm);
    linux::run(&mut running.console, line)
}

/// Returns a port of `net list`.
fn port(running: &mut Running, vm: &str) -> Value {
    let list = running.command(&format!("net list {vm}"));
    list["ports"][0].clone()
}

fn guest(name: &str, kernel: &str, cpu: u32, network: &str) -> Vm {
    Vm::linux_with_devices(name, kernel)
        .vcpus(1, 2)
        .cpus(&[cpu])
        .memory_mib(256)
        .raw("networks", &format!("[\"{network}\"]"))
}

/// Boots guests and gives `eth0` of the n-th the address 10.0.0.n.
fn boot(test: &str, cpus: u32, vms: Vec<Vm>) -> Running {
    let names: Vec<String> = vms.iter().map(|vm| vm.name().to_owned()).collect();
    let mut running = Machine::new(test).cpus(cpus).boot(&Manifest::new(vms));
    for (index, name) in names.iter().enumerate() {
        running.command(&format!("console {name}"));
        linux::wait_for_shell(&mut running.console);
        let address = format!("ifconfig eth0 10.0.0.{} up; ifconfig eth0", index + 1);
        let shown = run(&mut running, name, &address);
        let mac = port(&mut running, name)["mac"]
            .as_str()
            .unwrap_or("?")
            .to_uppercase();
        assert!(shown.contains(&mac), "{name}: {mac} is not in {shown}");
    }
    running
}

/// Has `two` fetch a file from `one`, and compares checksums.
fn copy_a_file(running: &mut Running, mib: u32) {
    let made = format!(
        "mkdir -p /tmp/www; dd if=/dev/urandom of=/tmp/www/file bs=1M count={mib} 2>/dev/null; sha256sum /tmp/www/file; httpd -h /tmp/www"
    );
    let made = run(running, "one", &made);
    let sum = made
        .split_whitespace()
        .next()
        .expect("a checksum")
        .to_owned();
    let fetched = run(
        running,
        "two",
        "wget -q -O /tmp/file http://10.0.0.1/file; sha256sum /tmp/file",
    );
    assert!(fetched.contains(&sum), "{sum} is not in {fetched}");
}

fn expect_pings(running: &mut Running, from: &str, to: &str) {
    let pinged = run(running, from, &format!("ping -c 3 {to}"));
    assert!(
        pinged.contains("3 packets received, 0% packet loss"),
        "{pinged}"
    );
}

#[test]
fn two_guests_reach_each_other_and_a_third_hears_nothing() {
    let vms = vec![
        guest("one", "linux-6.12", 0, "lan"),
        guest("two", "linux-6.12", 1, "lan"),
        guest("three", "linux-6.12", 1, "dmz"),
    ];
    let mut running = boot("net-three", 2, vms);
    expect_pings(&mut running, "two", "10.0.0.1");
    expect_pings(&mut running, "one", "10.0.0.2");
    let lost = run(&mut running, "three", "ping -c 2 -W 1 10.0.0.1");
    assert!(lost.contains("100% packet loss"), "{lost}");
    assert_eq!(port(&mut running, "three")["received"], 0);
    copy_a_file(&mut running, 8);
    let (one, two) = (port(&mut running, "one"), port(&mut running, "two"));
    assert_eq!((&one["refused"], &two["refused"]), (&0.into(), &0.into()));
    assert!(two["received_bytes"].as_u64() > Some(8 << 20), "{two}");
    for vm in ["one", "two"] {
        attach(&mut running, vm);
        linux::expect_no_complaints(&mut running.console);
    }
    // A guest that is reset, and one that is off, mean nothing to the other.
    running.command("vm reset one");
    expect_no_answer(&mut running);
    running.command("console one");
    linux::wait_for_shell(&mut running.console);
    run(&mut running, "one", "ifconfig eth0 10.0.0.1 up");
    expect_pings(&mut running, "two", "10.0.0.1");
    running.control().forget_events();
    running.stop("one");
    expect_no_answer(&mut running);
}

/// Checks that `two` goes on while `one` is not there.
fn expect_no_answer(running: &mut Running) {
    let lost = run(running, "two", "ping -c 2 -W 1 10.0.0.1");
    assert!(lost.contains("2 packets transmitted"), "{lost}");
}

#[test]
fn guests_that_share_a_cpu_copy_a_file() {
    let vms = vec![
        guest("one", "linux-6.12", 0, "lan"),
        guest("two", "linux-7.2", 0, "lan"),
    ];
    let mut running = boot("net-shared-cpu", 1, vms);
    copy_a_file(&mut running, 4);
}

#[test]
fn a_guest_draws_from_its_source_of_randomness() {
    let vm = Vm::linux_with_devices("linux", "linux-6.12").raw("rng", "true");
    let machine = Machine::new("rng").cpus(2);
    let (mut running, _) = linux::boot(machine, vm);
    let sum = "dd if=/dev/hwrng bs=64 count=4 2>/dev/null | sha256sum";
    let line = format!("cat /sys/class/misc/hw_random/rng_current; {sum}; {sum}");
    let shown = linux::run(&mut running.console, &line);
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let [source, one, two] = lines[..] else {
        panic!("{shown}")
    };
    assert!(source.starts_with("virtio_rng"), "{shown}");
    assert_ne!(one, two, "{shown}");
    let list = running.command("device list linux");
    let device = &list["devices"][0];
    assert_eq!(
        (&device["kind"], &device["state"]),
        (&"rng".into(), &"live".into()),
        "{list}"
    );
    assert!(device["chains"].as_u64() > Some(3), "{list}");
}
