//! Runs the bench guest: under Bullpen with a CPU for each vCPU, and with two vCPUs a CPU; or on the bare machine.

use super::Gic;
use super::rows::{Findings, Row};
use ::tests::guest::{Report, follow};
use ::tests::{Machine, Manifest, Vm, artefacts};
use std::time::Duration;

/// vCPUs of the bench guest, and CPUs of its machine.
pub(crate) const CPUS: u32 = 4;
/// The CPU model: a counter of 1 GHz.
pub(crate) const MODEL: &str = "max,pauth=off";
/// CPUs that the shared rows use, for as many vCPUs: each has two.
const SHARED_CPUS: [u32; 2] = [0, 1];
/// How a peer runs the guest: on how many CPUs, and which words of the command line pick what is measured so. A vCPU for each
/// CPU; two for each; and all on one, for the rows between two vCPUs of one CPU: a guest cannot tell there which share one.
pub(crate) const PEER_RUNS: [(u32, &str); 3] = [
    (CPUS, ""),
    (
        CPUS / 2,
        "shared rows=vtimer-wfi,cpu-suspend-resume,sgi-to-wfi,sgi-ping-pong-wfi,cpu-on-first-instruction,cpu-off-to-affinity-off",
    ),
    (
        1,
        "shared rows=sgi-switch,sgi-switch-ping-pong,vtimer-contended",
    ),
];
/// Size of its disk.
const DISK_BYTES: usize = 1 << 20;
/// Rounds of adding a vCPU and taking it back: a person's command each.
const ROUNDS: u32 = 20;
/// How long a run may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Which way the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Each vCPU owns a CPU.
    Own,
    /// Two vCPUs share a CPU; only the rows that depend on it are run.
    Shared,
}

/// Runs the guest under Bullpen both ways: the rows that are the same in every run.
pub(crate) fn measure(samples: u32, gic: Gic) -> Findings {
    let mut findings = under_bullpen_on(gic, Placement::Own, samples, &[]);
    findings.extend(under_bullpen_on(gic, Placement::Shared, samples, &[]));
    findings
}

/// Runs the guest under Bullpen; further arguments go to QEMU.
pub(crate) fn under_bullpen(placement: Placement, samples: u32, arguments: &[String]) -> Findings {
    under_bullpen_on(Gic::V3, placement, samples, arguments)
}

fn under_bullpen_on(
    gic: Gic,
    placement: Placement,
    samples: u32,
    arguments: &[String],
) -> Findings {
    let (name, words) = match placement {
        Placement::Own => ("bench", format!("samples={samples} disk")),
        Placement::Shared => ("bench-shared", format!("samples={samples} shared")),
    };
    let cpus: Vec<u32> = match placement {
        Placement::Own => (0..CPUS).collect(),
        Placement::Shared => SHARED_CPUS.to_vec(),
    };
    let vm = Vm::guest("bench", "bench")
        .vcpus(CPUS, CPUS)
        .cpus(&cpus)
        .command_line(&words);
    let machine = machine_with(gic, name, arguments);
    super::attempt(name, || {
        let disk = artefacts::log_directory(name).join("disk.img");
        std::fs::write(&disk, vec![0x5a; DISK_BYTES])?;
        let vm = vm.disk("disk", &disk, DISK_BYTES as u64 >> 20);
        let mut running = machine.boot(&Manifest::new([vm]));
        let (console, control) = running.channels();
        Ok(findings(follow(console, control, "bench", LIMIT)))
    })
}

/// Adds a vCPU and takes it back, in phases: two CPUs, one vCPU each, the second in reserve. Its CPU waits in WFI, and then
/// again is turned off, for the rows that end in `-psci-off`.
///
/// How the command's bytes arrive is the harness's doing, so these rows differ a little from run to run.
pub(crate) fn elastic(samples: u32) -> Findings {
    let mut findings = elastic_from("bench-elastic", "wfi", "", samples);
    findings.extend(elastic_from(
        "bench-elastic-psci-off",
        "psci-off",
        " reserve-off",
        samples,
    ));
    findings
}

fn elastic_from(name: &str, idle: &str, word: &str, samples: u32) -> Findings {
    let rounds = samples.min(ROUNDS);
    let vm = Vm::guest("bench", "bench")
        .text("firmware", "acpi")
        .text("reserve-idle", idle)
        .vcpus(1, 2)
        .cpus(&[0, 1])
        .command_line(&format!("samples={rounds} elastic asked cpus=2{word}"));
    let machine = machine(name, &[]).cpus(2);
    super::attempt(name, || {
        let mut running = machine.boot(&Manifest::new([vm]));
        let (console, control) = running.channels();
        Ok(findings(follow(console, control, "bench", LIMIT)))
    })
}

/// Runs the guest on the bare machine.
pub(crate) fn bare(samples: u32) -> Findings {
    super::attempt("bench-bare", || {
        let image = artefacts::guest("bench");
        let mut running = machine("bench-bare", &[]).bare(&image, &format!("samples={samples}"));
        Ok(findings(follow(&mut running.console, None, "bench", LIMIT)))
    })
}

/// The deterministic machine that every run of the guest has.
pub(crate) fn machine(name: &str, arguments: &[String]) -> Machine {
    machine_with(Gic::V3, name, arguments)
}

fn machine_with(gic: Gic, name: &str, arguments: &[String]) -> Machine {
    let machine = Machine::new(name).gic(gic.version());
    let machine = machine.cpus(CPUS).model(MODEL).deterministic();
    arguments
        .iter()
        .fold(machine, |machine, argument| machine.argument(argument))
}

/// Reads what the guest reported.
pub(crate) fn findings(report: Report) -> Findings {
    let mut found = Findings::default();
    for words in &report.bench {
        match Row::parse(words) {
            Some(row) => found.rows.push(row),
            None => found.failures.push((words.join(" "), "not a row".into())),
        }
    }
    for words in &report.histograms {
        let [name, pairs @ ..] = words.as_slice() else {
            continue;
        };
        if let Some(row) = found.rows.iter_mut().find(|row| row.name == *name) {
            row.set_histogram(pairs);
        }
    }
    found.notes.extend(report.notes);
    found.failures.extend(report.bench_failed);
    if let Some(panic) = report.panic {
        found.failures.push(("bench".into(), panic));
    }
    if found.rows.is_empty() {
        found
            .failures
            .push(("bench".into(), "the guest printed no row".into()));
    }
    found
}
