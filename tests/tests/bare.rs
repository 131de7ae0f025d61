//! The bare-metal guests on the bare machine, without Bullpen: what they expect is what the architecture gives.
//!
//! A test that fails here is wrong itself; a number here is the "no hypervisor" column of the latency table.
#![forbid(unsafe_code)]

use tests::guest::{Report, follow};
use tests::machine::{Machine, PATIENCE};

fn run(name: &str, guest: &str, machine: Machine, words: &str) -> Report {
    let image = tests::artefacts::guest(guest);
    let mut running = machine.bare(&image, words);
    let report = follow(&mut running.console, None, name, PATIENCE);
    report.assert_green(&running.console);
    running.wait_for_end(PATIENCE);
    report
}

#[test]
fn smoke_on_one_cpu() {
    let name = "bare-smoke-1";
    run(name, "smoke", Machine::new(name).cpus(1), "");
}

#[test]
fn smoke_entered_at_el2() {
    let name = "bare-smoke-el2";
    let machine = Machine::new(name).option("virtualization=on");
    run(name, "smoke", machine, "");
}

#[test]
fn smoke_on_an_armv8_0_cpu() {
    let name = "bare-smoke-a57";
    run(name, "smoke", Machine::new(name).model("cortex-a57"), "");
}

#[test]
fn psci_without_what_qemu_does_otherwise() {
    let name = "bare-psci";
    run(name, "psci", Machine::new(name), "bare");
}

#[test]
fn sysreg() {
    let name = "bare-sysreg";
    run(name, "sysreg", Machine::new(name), "bare");
}

#[test]
fn user() {
    let name = "bare-user";
    run(name, "user", Machine::new(name), "bare");
}

#[test]
fn memory() {
    let name = "bare-memory";
    run(name, "memory", Machine::new(name).memory_mib(320), "bare");
}

#[test]
fn gic() {
    let name = "bare-gic";
    // With an ITS there are LPIs, and QEMU searches their tables whenever anything changes.
    let machine = Machine::new(name).option("its=off");
    run(name, "gic", machine, "bare");
}

#[test]
fn hotplug_is_not_there() {
    let name = "bare-hotplug";
    run(name, "hotplug", Machine::new(name), "bare");
}

#[test]
fn bench_gives_the_column_without_a_hypervisor() {
    const EXPECTED: [(&str, &str); 9] = [
        ("hvc-psci-version", "4"),
        ("hvc-affinity-info", "6"),
        ("hvc-unknown", "4"),
        ("gicd-typer-read", "3"),
        ("gicd-isenabler-write", "3"),
        ("pl011-fr-read", "3"),
        ("id-register-read", "3"),
        ("sgi-self", "5"),
        ("vtimer-wfi", "1"),
    ];
    let name = "bare-bench";
    let report = run(
        name,
        "bench",
        Machine::new(name).deterministic(),
        "samples=50",
    );
    for (row, instructions) in EXPECTED {
        let found = report
            .bench
            .iter()
            .find(|words| words.first().is_some_and(|name| name == row))
            .unwrap_or_else(|| panic!("no row {row}"));
        // Minimum, median, 99th percentile and maximum: nothing varies.
        assert_eq!(found[1..5], [instructions; 4].map(str::to_owned), "{row}");
    }
}
