//! Rows that a real Linux guest gives: exits in a boot, in an idle minute, in an offline and online cycle, and a resize.
//!
//! Time here is a count of instructions too, but idle time passes as on the wall clock (`-icount shift=0` without
//! `sleep=off`): otherwise an idle guest would run for hours of its own time until the host has typed a line.

use super::rows::{Findings, Row};
use ::tests::machine::{PATIENCE, Running};
use ::tests::{Machine, Manifest, Vm, linux};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

const VM: &str = "linux";
const KERNEL: &str = "linux-6.12";
const MODEL: &str = super::guest::MODEL;
/// A CPU of Armv8.0: it has nothing that would have to be hidden.
const PLAIN_MODEL: &str = "cortex-a57";
/// Offline and online cycles that are averaged.
const CYCLES: u64 = 20;
/// Resizes to two vCPUs and back.
const RESIZES: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// Reasons that are time passing or the shell's console, not something that the guest does to go offline or online.
const NOT_TRAPS: [&str; 8] = [
    "uart",
    "wfi",
    "wfe",
    "timer-irq",
    "host-timer",
    "maintenance",
    "kick",
    "irq",
];

/// Which rows to measure: the idle minute takes a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Without the idle minute.
    Short,
    /// All.
    Long,
}

/// Runs all rows.
pub(crate) fn measure(extent: Extent) -> Findings {
    let mut findings = super::attempt("linux-boot-exits", || boot_and_idle(extent));
    findings.extend(super::attempt("linux-off-on-traps", cycles_as_it_is));
    findings.extend(super::attempt("linux-off-on-traps-hidden", cycles_hidden));
    findings.extend(super::attempt("linux-resize-online", resizes));
    findings
}

/// One vCPU on one CPU, `quiet`: exits up to the first process, and in the minute after it.
fn boot_and_idle(extent: Extent) -> anyhow::Result<Findings> {
    let vm = Vm::linux(VM, KERNEL)
        .vcpus(1, 1)
        .command_line("quiet rdinit=/init");
    let mut running = start("bench-linux-boot", 1, MODEL, vm);
    let boot = exits(&mut running)?;
    let mut findings = Findings {
        rows: vec![Row::single("linux-boot-exits", boot.total)],
        ..Findings::default()
    };
    findings
        .notes
        .push(format!("exits in the boot: {}", boot.by_reason));
    if extent == Extent::Long {
        std::thread::sleep(Duration::from_secs(5));
        let before = exits(&mut running)?;
        std::thread::sleep(MINUTE);
        let after = exits(&mut running)?;
        let idle = after.total - before.total;
        findings.rows.push(Row::single("linux-idle-exits", idle));
        findings.notes.push(format!(
            "an idle minute: before {}; after {}",
            before.by_reason, after.by_reason
        ));
    }
    Ok(findings)
}

/// What `echo 0 > online; echo 1 > online` costs on a CPU of which nothing is hidden: its ID registers do not trap.
fn cycles_as_it_is() -> anyhow::Result<Findings> {
    let cycle = cycles("bench-linux-cycle", PLAIN_MODEL)?;
    Ok(Findings {
        rows: vec![
            Row::single("linux-off-on-traps", cycle.traps),
            Row::single("linux-off-on-exits", cycle.total),
        ],
        notes: vec![cycle.by_reason],
        ..Findings::default()
    })
}

/// The same on a CPU with features that no guest is offered: every read of an ID register traps.
fn cycles_hidden() -> anyhow::Result<Findings> {
    let cycle = cycles("bench-linux-cycle-hidden", MODEL)?;
    Ok(Findings {
        rows: vec![Row::single("linux-off-on-traps-hidden", cycle.traps)],
        ..Findings::default()
    })
}

/// Two vCPUs on two CPUs: what taking one offline and online again costs, averaged.
fn cycles(name: &str, model: &str) -> anyhow::Result<Exits> {
    let vm = Vm::linux(VM, KERNEL)
        .vcpus(2, 2)
        .command_line("quiet rdinit=/init");
    let mut running = start(name, 2, model, vm);
    let file = "/sys/devices/system/cpu/cpu1/online";
    let cycles = |running: &mut Running, count: u64| {
        let body = format!("echo 0 > {file}; echo 1 > {file}");
        let line = format!("i=0; while [ $i -lt {count} ]; do {body}; i=$((i+1)); done; nproc");
        linux::run(&mut running.console, &line)
    };
    // The first cycle makes what later ones find.
    let online = cycles(&mut running, 1);
    ensure!(online.trim() == "2", "{online:?} CPUs after a cycle");
    let before = exits(&mut running)?;
    cycles(&mut running, CYCLES);
    let after = exits(&mut running)?;
    let each = |value: u64| value.div_ceil(CYCLES);
    Ok(Exits {
        total: each(after.total - before.total),
        traps: each(after.traps - before.traps),
        by_reason: format!(
            "{CYCLES} offline and online cycles: before {}; after {}",
            before.by_reason, after.by_reason
        ),
    })
}

/// One of two vCPUs on two CPUs: from the command, as the host's clock sees it, to the guest's own CPU_ON.
fn resizes() -> anyhow::Result<Findings> {
    let vm = Vm::linux(VM, KERNEL)
        .vcpus(1, 2)
        .command_line("quiet rdinit=/init");
    let mut running = start("bench-linux-resize", 2, MODEL, vm);
    let mut samples = Vec::new();
    for _ in 0..RESIZES {
        let before = uptime_ns(&mut running)?;
        let result = running.command(&format!("vcpu set {VM} 2 --timeout 100"));
        ensure!(result["outcome"] == "done", "{result}");
        let event = running.control().event("vcpu-online", VM, PATIENCE);
        let online = event["time_ns"]
            .as_u64()
            .context("an event without time_ns")?;
        samples.push(online.saturating_sub(before));
        let result = running.command(&format!("vcpu set {VM} 1 --timeout 100"));
        ensure!(result["outcome"] == "done", "{result}");
    }
    let row = Row::of("linux-resize-online", samples).context("no samples")?;
    Ok(Findings {
        rows: vec![row],
        ..Findings::default()
    })
}

fn start(name: &str, cpus: u32, model: &str, vm: Vm) -> Running {
    let machine = Machine::new(name)
        .cpus(cpus)
        .model(model)
        .option("dtb-randomness=off")
        .argument("-icount")
        .argument("shift=0")
        .argument("-seed")
        .argument("1");
    let mut running = machine.boot(&Manifest::new([vm]));
    let begin = Instant::now();
    linux::wait_for_shell(&mut running.console);
    running
        .control()
        .event("vm-start", VM, PATIENCE.saturating_sub(begin.elapsed()));
    // Events of the boot are not those of a resize.
    let _ = uptime_ns(&mut running);
    running.control().forget_events();
    running
}

fn uptime_ns(running: &mut Running) -> anyhow::Result<u64> {
    let host = running.command("host");
    host["uptime_ns"]
        .as_u64()
        .context("`host` gives no uptime_ns")
}

/// Exits of the VM so far.
struct Exits {
    total: u64,
    traps: u64,
    by_reason: String,
}

fn exits(running: &mut Running) -> anyhow::Result<Exits> {
    let stats = running.command(&format!("stats {VM}"));
    read(&stats).with_context(|| format!("what is {stats}?"))
}

fn read(stats: &Value) -> Option<Exits> {
    let row = stats["vms"].get(0)?;
    let reasons = row["exits"].as_object()?;
    let of = |name: &String, count: &Value| {
        let counted = !NOT_TRAPS.contains(&name.as_str());
        counted.then_some(count.as_u64().unwrap_or(0))
    };
    let traps = reasons
        .iter()
        .filter_map(|(name, count)| of(name, count))
        .sum();
    Some(Exits {
        total: row["total"].as_u64()?,
        traps,
        by_reason: row["exits"].to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_passing_is_no_trap() {
        let stats = json!({ "vms": [{ "vm": "linux", "total": 17, "exits": { "psci": 2, "gicr": 5, "wfi": 10 } }] });
        let exits = read(&stats).unwrap();
        assert_eq!((exits.total, exits.traps), (17, 7));
        assert!(read(&json!({})).is_none());
    }
}
