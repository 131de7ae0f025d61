//! How costs grow with the size of things: vCPUs, VMs, vCPUs in reserve, memory, interrupts, vCPUs a CPU.
//!
//! Each line is a machine of its own. The boot is counted by the TCG plugin up to the first instruction of any guest, the
//! rows are those of the bench guest.

use super::guest;
use super::rows::{Findings, Row};
use super::split;
use crate::say;
use ::tests::guest::follow;
use ::tests::{Machine, Manifest, Vm};
use std::fmt::Write;
use std::time::Duration;

/// Samples a row: every one is the same.
const SAMPLES: u32 = 10;
const LIMIT: Duration = Duration::from_secs(240);
/// The rows that stand for traps, interrupts and other vCPUs.
const ROWS: [&str; 5] = [
    "hvc-psci-version",
    "gicd-typer-read",
    "vtimer-wfi",
    "sgi-to-wfi",
    "cpu-on-first-instruction",
];

/// One machine.
struct Shape {
    what: String,
    vcpus: u32,
    possible: u32,
    cpus: u32,
    vms: u32,
    memory_mib: u64,
    spis: u32,
}

impl Shape {
    fn new(what: &str, number: u64) -> Self {
        Self {
            what: format!("{what} {number}"),
            vcpus: 2,
            possible: 2,
            cpus: 2,
            vms: 1,
            memory_mib: 64,
            spis: 64,
        }
    }

    fn manifest(&self) -> Manifest {
        let cpus: Vec<u32> = (0..self.cpus).collect();
        let words = format!(
            "samples={SAMPLES} rows={} cpus={}",
            ROWS.join(","),
            self.vcpus
        );
        let vm = |name: &str| {
            Vm::guest(name, "bench")
                .text("firmware", "acpi")
                .vcpus(self.vcpus, self.possible)
                .cpus(&cpus)
                .memory_mib(self.memory_mib)
                .raw("spis", &self.spis.to_string())
        };
        let idle = (1..self.vms).map(|number| {
            // Prints a question that nobody sees and rests.
            vm(&format!("idle-{number}")).command_line("elastic asked cpus=1")
        });
        let first = vm("bench").command_line(&words);
        Manifest::new(std::iter::once(first).chain(idle))
    }

    fn run(&self) -> Findings {
        let name = format!("bench-scale-{}", self.what.replace(' ', "-"));
        super::attempt(&name.clone(), || {
            let (output, argument) = split::plugin(&name)?;
            let machine = Machine::new(&name)
                .cpus(self.cpus)
                .model(guest::MODEL)
                .deterministic()
                .argument("-plugin")
                .argument(&argument);
            let mut running = machine.boot(&self.manifest());
            let (console, control) = running.channels();
            let mut findings = guest::findings(follow(console, control, "bench", LIMIT));
            let text = std::fs::read_to_string(&output)?;
            if let Some(count) = split::boot(&text) {
                findings.rows.push(Row::single("boot", count));
            }
            Ok(findings)
        })
    }
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for vcpus in [2, 8, 16, 64] {
        shapes.push(Shape {
            vcpus,
            possible: vcpus,
            ..Shape::new("vCPUs", vcpus.into())
        });
    }
    for possible in [64, 128, 256, 512] {
        shapes.push(Shape {
            possible,
            ..Shape::new("possible vCPUs", possible.into())
        });
    }
    for vms in [1, 4, 16] {
        shapes.push(Shape {
            vms,
            ..Shape::new("VMs", vms.into())
        });
    }
    for gib in [1, 4, 16, 64] {
        shapes.push(Shape {
            memory_mib: gib << 10,
            ..Shape::new("GiB", gib)
        });
    }
    for spis in [32, 256, 960] {
        shapes.push(Shape {
            spis,
            ..Shape::new("SPIs", spis.into())
        });
    }
    for share in [1, 2, 4, 8] {
        shapes.push(Shape {
            vcpus: 2 * share,
            possible: 2 * share,
            ..Shape::new("vCPUs a CPU", share.into())
        });
    }
    shapes
}

/// Measures all shapes and returns the table.
pub(crate) fn table() -> String {
    let columns: Vec<&str> = std::iter::once("boot").chain(ROWS).collect();
    let mut text = format!("{:<22}", "instructions");
    // Writing to a string cannot fail.
    for column in &columns {
        let _ = write!(text, "{column:>26}");
    }
    text.push('\n');
    for shape in shapes() {
        say::line(&format!("scale: {} …", shape.what));
        let findings = shape.run();
        let _ = write!(text, "{:<22}", shape.what);
        for column in &columns {
            let cell = findings.row(column).map(|row| row.median.to_string());
            let _ = write!(text, "{:>26}", cell.as_deref().unwrap_or("-"));
        }
        text.push('\n');
        for (row, why) in &findings.failures {
            let why = why.lines().next().unwrap_or("");
            let _ = writeln!(text, "    {row}: {why}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_a_name_of_its_own_and_a_vcpu_for_the_peer() {
        let shapes = shapes();
        for (at, shape) in shapes.iter().enumerate() {
            assert!(
                shape.vcpus >= 2 && shape.possible >= shape.vcpus,
                "{}",
                shape.what
            );
            assert!(shapes[..at].iter().all(|other| other.what != shape.what));
        }
    }
}
